//! Where a player begins, and what it asks for next.

use super::*;
use crate::playlist::parse;

/// Four segments of 2 s in parts of 0.5 s, the last with two of them; the first parts stand alone.
fn text(parts_of: u64) -> String {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:5\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5\n\
        #EXT-X-PART-INF:PART-TARGET=0.5\n#EXT-X-MAP:URI=\"i\"\n"
        .to_owned();
    for msn in 5..9u64 {
        let count = if msn == 8 { 2 } else { 4 };
        for part in (0..count).filter(|_| msn >= parts_of) {
            let alone = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            text += &format!("#EXT-X-PART:DURATION=0.5,URI=\"p{msn}.{part}\"{alone}\n");
        }
        if msn < 8 {
            text += &format!("#EXTINF:2.0,\ns{msn}\n");
        }
    }
    text + "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p8.2\"\n"
}

fn list(text: &str) -> MediaList<'_> {
    let Ok(Playlist::Media(list)) = parse(text) else { panic!("{text}") };
    list
}

fn player(hls: HlsMode) -> HlsPlayer {
    let watch = Watch {
        authority: "h".into(),
        path: "/l/x.m3u8".into(),
        format: crate::http::Format::Hls,
        is_websocket: false,
        hls,
        is_fetch: false,
    };
    let mut player = HlsPlayer::new(Arc::new(watch));
    player.path = Some("/l/x.m3u8?s=1".into());
    player
}

fn queued(player: &mut HlsPlayer) -> Vec<String> {
    player.queue.drain(..).map(|(_, path)| path).collect()
}

#[test]
fn a_player_begins_where_the_playlist_wants_it() {
    let text = text(7);
    let list = list(&text);
    assert_eq!(first_to_play(&list, false, 0), Some((5, 0)));
    assert_eq!(first_to_play(&list, true, 900), Some((8, 0)));
    assert_eq!(first_to_play(&list, true, 1500), Some((7, 0)));
    assert_eq!(first_to_play(&list, true, 4000), Some((6, 0)));
    assert_eq!(first_to_play(&list, true, u32::MAX), Some((5, 0)));
    assert_eq!(first_to_play(&MediaList::default(), true, 0), None);
}

#[test]
fn parts_are_fetched_once_and_the_rest_of_a_segment_follows() {
    let mut player = player(HlsMode::Auto);
    let text = text(7);
    player.take_list(&list(&text), 0).unwrap();
    let wanted = ["/l/i", "/l/p7.0", "/l/p7.1", "/l/p7.2", "/l/p7.3", "/l/p8.0", "/l/p8.1"];
    assert_eq!(queued(&mut player), wanted);
    assert_eq!((player.next, player.reload_ns), (Some((8, 2)), u64::MAX));
    player.take_list(&list(&text), 0).unwrap();
    assert!(player.queue.is_empty() && player.reload_ns == PAUSE_NS);
    let later =
        text.replace("#EXT-X-PRELOAD", "#EXT-X-PART:DURATION=0.5,URI=\"p8.2\"\n#EXT-X-PRELOAD");
    player.take_list(&list(&later), 0).unwrap();
    assert_eq!(queued(&mut player), ["/l/p8.2"]);
    let mut out = Vec::new();
    player.exchange.on_connected(&mut out);
    player.ask_playlist(0, &mut out);
    let asked = String::from_utf8(out).unwrap();
    assert!(asked.starts_with("GET /l/x.m3u8?s=1&_HLS_msn=8&_HLS_part=3 HTTP"), "{asked}");
}

#[test]
fn segments_are_fetched_whole_and_the_playlist_is_read_again_when_the_next_is_due() {
    let mut player = player(HlsMode::Segments);
    let text = text(7);
    player.take_list(&list(&text), 7).unwrap();
    assert_eq!(queued(&mut player), ["/l/i", "/l/s5", "/l/s6", "/l/s7"]);
    assert_eq!((player.next, player.reload_ns), (Some((8, 0)), 2000 * MS_NS));
    player.take_list(&list(&text), 7).unwrap();
    assert_eq!((player.queue.len(), player.reload_ns), (0, 7 + 1000 * MS_NS));
}

#[test]
fn a_hinted_part_is_asked_for_before_it_is_there() {
    let mut player = player(HlsMode::Hint);
    let mut viewer = Viewer::new(false, true, 0);
    let text = text(7);
    player.take_list(&list(&text), 0).unwrap();
    player.queue.clear();
    let mut out = Vec::new();
    player.exchange.on_connected(&mut out);
    player.go_on(&mut viewer, 0, &mut out).unwrap();
    let asked = String::from_utf8(out).unwrap();
    assert!(asked.starts_with("GET /l/p8.2 HTTP") && player.asked == Asked::Hint, "{asked}");
}

#[test]
fn one_who_fell_behind_goes_on_with_what_is_there() {
    let mut player = player(HlsMode::Auto);
    player.next = Some((6, 2));
    let text = text(7);
    player.take_list(&list(&text), 0).unwrap();
    // The parts of 6 are gone, and its beginning is known.
    assert_eq!(queued(&mut player)[..2], ["/l/i", "/l/p7.0"]);
    player.next = Some((2, 0));
    player.take_list(&list(&text), 0).unwrap();
    assert_eq!(queued(&mut player)[0], "/l/s5");
}
