//! A client session and a server session talk in memory, their bytes cut in every way: what either side sees
//! must not depend on the cuts.

use std::sync::Arc;

use rtmp::Millis;
use rtmp::handshake::ClientVariant;
use rtmp::session::{
    ClientConfig, ClientEvent, ClientRole, ClientSession, Event, MediaKind, PublishError,
    ServerSession, SessionConfig, SessionError,
};

const NOW: Millis = Millis(500);

/// How bytes are cut on their way.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
    Random(u64),
}

impl Cut {
    fn all() -> Vec<Self> {
        let random = (1..=20).map(Self::Random);
        [Self::Whole, Self::Bytes].into_iter().chain(random).collect()
    }

    /// Length of the next piece.
    fn next(&mut self, left: usize) -> usize {
        match self {
            Self::Whole => left,
            Self::Bytes => 1,
            Self::Random(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                usize::try_from(*state % 700).unwrap() + 1
            }
        }
    }
}

/// Both ends, what is on the way, and what each end saw.
struct Pair {
    client: ClientSession,
    server: ServerSession,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    cut: Cut,
    client_saw: Vec<String>,
    server_saw: Vec<String>,
    client_error: Option<SessionError>,
    refuse_publish: bool,
}

fn client_config(role: ClientRole) -> ClientConfig {
    ClientConfig {
        tc_url: "rtmp://h/live".into(),
        app: "live".into(),
        stream: "name?key=1".into(),
        role,
        ..ClientConfig::default()
    }
}

impl Pair {
    fn new(config: ClientConfig, cut: Cut) -> Self {
        let server_config =
            SessionConfig { connection_id: "c-9".into(), ..SessionConfig::default() };
        Self {
            client: ClientSession::new(config, 3, NOW),
            server: ServerSession::new(server_config, 4, NOW),
            to_server: Vec::new(),
            to_client: Vec::new(),
            cut,
            client_saw: Vec::new(),
            server_saw: Vec::new(),
            client_error: None,
            refuse_publish: false,
        }
    }

    fn active(role: ClientRole, cut: Cut) -> Self {
        let mut pair = Self::new(client_config(role), cut);
        pair.run();
        assert!(pair.client.is_active(), "{cut:?}: {:?}", pair.client_saw);
        pair.client_saw.clear();
        pair.server_saw.clear();
        pair
    }

    /// Lets both talk until neither has anything to say.
    fn run(&mut self) {
        loop {
            self.client.take_replies(&mut self.to_server);
            self.server.take_replies(&mut self.to_client);
            if self.to_server.is_empty() && self.to_client.is_empty() {
                return;
            }
            self.deliver_to_server();
            self.deliver_to_client();
        }
    }

    fn deliver_to_server(&mut self) {
        let bytes = core::mem::take(&mut self.to_server);
        let mut held: Vec<u8> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + self.cut.next(bytes.len() - at)).min(bytes.len());
            held.extend_from_slice(&bytes[at..end]);
            at = end;
            let piece = core::mem::take(&mut held);
            let mut input = piece.as_slice();
            while let Some(event) = self.server.handle_bytes(NOW, &mut input).expect("server") {
                let text = server_text(&event);
                answer(&mut self.server, &event, self.refuse_publish);
                push(&mut self.server_saw, text);
                self.server.take_replies(&mut self.to_client);
            }
            held = input.to_vec();
        }
        assert!(held.is_empty(), "all is consumed once all is answered");
    }

    fn deliver_to_client(&mut self) {
        let bytes = core::mem::take(&mut self.to_client);
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + self.cut.next(bytes.len() - at)).min(bytes.len());
            let mut input = &bytes[at..end];
            at = end;
            loop {
                match self.client.handle_bytes(NOW, &mut input) {
                    Ok(Some(event)) => push(&mut self.client_saw, client_text(&event)),
                    Ok(None) => break,
                    Err(error) => self.client_error = Some(error),
                }
            }
            assert!(input.is_empty());
        }
    }
}

fn answer(server: &mut ServerSession, event: &Event<'_>, refuse_publish: bool) {
    match event {
        Event::Connect(_) => server.accept_connect(),
        Event::Publish(request) if refuse_publish => {
            server.reject_publish(request.msid, PublishError::BadName, "Taken.");
        }
        Event::Publish(request) => server.accept_publish(request.msid),
        Event::Play(request) => server.accept_play(request.msid),
        _ => {}
    }
}

/// Adds a line; parts of one message become one line.
fn push(lines: &mut Vec<String>, text: String) {
    match (text.strip_prefix("+"), lines.last_mut()) {
        (Some(more), Some(last)) => last.push_str(more),
        _ => lines.push(text),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn media_text(part: &rtmp::session::MediaPart<'_>) -> String {
    let body = hex(part.body);
    if part.first {
        let kind = part.audio_or_video;
        format!("{kind:?} {} {} {} {body}", part.msid, part.timestamp, part.length)
    } else {
        format!("+{body}")
    }
}

fn server_text(event: &Event<'_>) -> String {
    match event {
        Event::Media(part) => media_text(part),
        Event::Data(data) => format!("Data {} {} {}", data.msid, data.timestamp, hex(&data.body)),
        Event::Connect(request) => format!("Connect {} {:?}", request.app, request.fourccs),
        Event::Publish(request) => format!("Publish {} {}", request.msid, request.name),
        Event::Play(request) => format!("Play {} {}", request.msid, request.name),
        other => format!("{other:?}"),
    }
}

fn client_text(event: &ClientEvent<'_>) -> String {
    match event {
        ClientEvent::Media(part) => media_text(part),
        ClientEvent::Data(data) => {
            format!("Data {} {} {}", data.msid, data.timestamp, hex(&data.body))
        }
        ClientEvent::Connected(info) => {
            format!("Connected {:?} {} {:?}", info.connection_id, info.caps_ex, info.fourccs)
        }
        ClientEvent::Status(status) | ClientEvent::StreamEnded(status) => {
            format!("{} {}", status.msid, status.code)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn a_publisher_gets_through_however_its_bytes_are_cut() {
    for cut in Cut::all() {
        let mut pair = Pair::new(client_config(ClientRole::Publish), cut);
        pair.run();
        assert_eq!(
            pair.client_saw,
            ["Connected Some(\"c-9\") 15 [\"*\"]", "Published { msid: 1 }"],
            "{cut:?}"
        );
        assert_eq!(pair.server_saw, ["Connect live [\"*\"]", "Publish 1 name?key=1"], "{cut:?}");
    }
}

#[test]
fn media_arrives_whole_however_its_bytes_are_cut() {
    let video: Vec<u8> = (0..70_000u32).map(|index| index.to_be_bytes()[2] ^ 0x5A).collect();
    for cut in Cut::all() {
        let mut pair = Pair::active(ClientRole::Publish, cut);
        let mut out = Vec::new();
        let meta = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00\x00\x00\x09";
        assert!(pair.client.write_data(0, meta, &mut out));
        assert!(pair.client.write_media(MediaKind::Audio, 0xFF_FFFE, &[0xAF, 1], &mut out));
        assert!(pair.client.write_media(MediaKind::Video, 0x100_0000, &video, &mut out));
        assert!(pair.client.write_media(MediaKind::Audio, u32::MAX, &[0xAF, 2], &mut out));
        pair.to_server = out;
        pair.run();
        assert_eq!(
            pair.server_saw,
            [
                format!("Data 1 0 {}", hex(meta)),
                format!("Audio 1 {} 2 af01", 0xFF_FFFE),
                format!("Video 1 {} 70000 {}", 0x100_0000, hex(&video)),
                format!("Audio 1 {} 2 af02", u32::MAX),
            ],
            "{cut:?}"
        );
    }
}

#[test]
fn a_player_gets_through_and_receives_media_however_its_bytes_are_cut() {
    for cut in Cut::all() {
        let mut pair = Pair::new(client_config(ClientRole::Play), cut);
        pair.run();
        assert_eq!(
            pair.client_saw,
            [
                "Connected Some(\"c-9\") 15 [\"*\"]",
                "StreamBegin { msid: 1 }",
                "1 NetStream.Play.Reset",
                "PlayStarted { msid: 1 }",
                &format!("Data 1 0 {}", hex(b"\x02\x00\x11|RtmpSampleAccess\x01\x01\x01\x01")),
            ],
            "{cut:?}"
        );
        assert_eq!(
            pair.server_saw,
            ["Connect live [\"*\"]", "Play 1 name?key=1", "BufferLength { msid: 1, ms: 3000 }"],
            "{cut:?}"
        );
        pair.client_saw.clear();
        let header =
            rtmp::MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 40, length: 1_000 };
        pair.server.write_message(&header, &[0x17; 1_000]).unwrap();
        pair.server.notify_unpublish(1);
        pair.run();
        assert_eq!(
            pair.client_saw,
            [
                format!("Video 1 40 1000 {}", hex(&[0x17; 1_000])),
                "StreamEof { msid: 1 }".into(),
                "1 NetStream.Play.UnpublishNotify".into(),
            ],
            "{cut:?}"
        );
    }
}

#[test]
fn both_handshake_variants_get_through() {
    for handshake in [ClientVariant::Simple, ClientVariant::Digest] {
        let config = ClientConfig { handshake, ..client_config(ClientRole::Publish) };
        let mut pair = Pair::new(config, Cut::Whole);
        pair.run();
        assert!(pair.client.is_active(), "{handshake:?}");
    }
}

#[test]
fn a_client_that_closes_is_seen_to_unpublish_once() {
    let mut pair = Pair::active(ClientRole::Publish, Cut::Whole);
    pair.client.close();
    pair.client.close();
    pair.run();
    assert_eq!(pair.server_saw, ["Unpublish { msid: 1 }"]);
    assert_eq!(pair.server.stream_count(), 0);
    assert!(pair.client.is_closed());
}

#[test]
fn a_player_that_closes_is_seen_to_stop() {
    let mut pair = Pair::active(ClientRole::Play, Cut::Whole);
    pair.client.close();
    pair.run();
    assert_eq!(pair.server_saw, ["StopPlay { msid: 1 }"]);
}

#[test]
fn a_refused_publish_is_an_error_of_the_client() {
    let mut pair = Pair::new(client_config(ClientRole::Publish), Cut::Bytes);
    pair.refuse_publish = true;
    pair.run();
    match &pair.client_error {
        Some(SessionError::Refused { code, description, .. }) => {
            assert_eq!(
                (code.as_str(), description.as_str()),
                ("NetStream.Publish.BadName", "Taken.")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(pair.client.is_closed());
    assert!(pair.server.is_closing());
}

#[test]
fn a_refused_connect_is_an_error_of_the_client() {
    let mut client = ClientSession::new(client_config(ClientRole::Play), 3, NOW);
    let mut server = ServerSession::new(SessionConfig::default(), 4, NOW);
    let mut to_server = Vec::new();
    let mut error = None;
    while error.is_none() {
        client.take_replies(&mut to_server);
        let mut input = to_server.as_slice();
        while let Some(event) = server.handle_bytes(NOW, &mut input).unwrap() {
            assert!(matches!(event, Event::Connect(_)));
            server.reject_connect("No.");
        }
        to_server.clear();
        let mut to_client = Vec::new();
        server.take_replies(&mut to_client);
        error = client.handle_bytes(NOW, &mut to_client.as_slice()).err();
    }
    assert_eq!(error.map(|error| error.label()), Some("refused_by_server"));
}

#[test]
fn nothing_is_written_before_the_stream_is_published_or_by_a_player() {
    let mut client = ClientSession::new(client_config(ClientRole::Publish), 3, NOW);
    let mut out = Vec::new();
    assert!(!client.write_media(MediaKind::Audio, 0, &[1], &mut out));
    let mut pair = Pair::active(ClientRole::Play, Cut::Whole);
    assert!(!pair.client.write_media(MediaKind::Audio, 0, &[1], &mut out));
    assert!(out.is_empty());
}

#[test]
fn a_ping_of_the_server_is_answered_and_measured() {
    let mut pair = Pair::active(ClientRole::Play, Cut::Bytes);
    pair.server.ping(NOW);
    pair.run();
    assert_eq!(pair.server.peer().rtt_ms, Some(0));
}

#[test]
fn a_client_acknowledges_what_it_receives() {
    let config = ClientConfig { window_ack_bytes: 10_000, ..client_config(ClientRole::Play) };
    let mut pair = Pair::new(config, Cut::Whole);
    pair.run();
    // The server announced its own, larger window: that one counts.
    let header = rtmp::MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 0, length: 200_000 };
    for _ in 0..8 {
        pair.server.write_message(&header, &[1; 200_000]).unwrap();
        pair.run();
    }
    let acked = pair.server.peer().acknowledged_bytes.expect("an acknowledgement");
    assert!(acked >= 1_250_000, "{acked}");
}

#[test]
fn a_reconnect_request_reaches_the_client_with_its_address() {
    let mut pair = Pair::active(ClientRole::Publish, Cut::Whole);
    assert!(pair.server.reconnect_request(Some("rtmp://b/live"), "Draining."));
    pair.run();
    assert_eq!(
        pair.client_saw,
        ["ReconnectRequest { tc_url: Some(\"rtmp://b/live\"), description: \"Draining.\" }"]
    );
    assert!(pair.client.is_active(), "the old connection goes on");
}

#[test]
fn a_command_of_the_owner_reaches_the_server() {
    let mut pair = Pair::active(ClientRole::Play, Cut::Whole);
    pair.client.send_command(1, "pause", 0.0, |amf| {
        amf.boolean(true);
        amf.number(7.0);
    });
    pair.run();
    assert_eq!(pair.server_saw, ["Pause { msid: 1, paused: true, at_ms: 7 }"]);
    assert_eq!(pair.client_saw, ["1 NetStream.Pause.Notify", "StreamEof { msid: 1 }"]);
}

#[test]
fn a_server_that_stays_silent_is_given_up() {
    let mut client = ClientSession::new(client_config(ClientRole::Play), 3, NOW);
    let deadline = client.poll_timeout().expect("a deadline");
    assert_eq!(deadline, Millis(NOW.0 + 15_000));
    assert_eq!(client.handle_timeout(Millis(deadline.0 - 1)), Ok(()));
    assert_eq!(
        client.handle_timeout(deadline).map_err(|error| error.label()),
        Err("handshake_timeout")
    );
    assert!(client.is_closed());
}

#[test]
fn a_playing_client_gives_up_a_silent_server_and_a_publishing_one_does_not() {
    let mut pair = Pair::active(ClientRole::Play, Cut::Whole);
    assert_eq!(pair.client.poll_timeout(), Some(Millis(NOW.0 + 60_000)));
    assert!(pair.client.handle_timeout(Millis(NOW.0 + 60_000)).is_err());
    let pair = Pair::active(ClientRole::Publish, Cut::Whole);
    assert_eq!(pair.client.poll_timeout(), None);
}

#[test]
fn thousands_of_clients_share_one_configuration_and_hold_little() {
    let config = Arc::new(client_config(ClientRole::Play));
    let clients: Vec<ClientSession> =
        (0..100).map(|seed| ClientSession::new(Arc::clone(&config), seed, NOW)).collect();
    assert_eq!(Arc::strong_count(&config), 101);
    assert!(clients.iter().all(|client| client.held_bytes() <= 4_096));
    assert!(size_of::<ClientSession>() <= 1_024, "{}", size_of::<ClientSession>());
}
