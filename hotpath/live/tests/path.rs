//! Every way clients are known to write an address, and what no address may become.

use core::hash::BuildHasher;

use live::path::{
    APP_CHARS_MAX, DEFAULT_VHOST, INPUT_BYTES_MAX, KEY_BYTES_MAX, NAME_CHARS_MAX, PathError,
    Resolved, StreamKey, StreamPath, VhostSource, resolve,
};
use proptest::prelude::*;

fn found(app: &str, tc_url: &str, name: &str) -> (String, String) {
    let tc_url = (!tc_url.is_empty()).then_some(tc_url);
    match resolve(app, tc_url, name) {
        Ok(resolved) => (resolved.path.to_string(), resolved.query.expose().to_owned()),
        Err(error) => panic!("{app:?} {tc_url:?} {name:?}: {error}"),
    }
}

fn refused(app: &str, tc_url: &str, name: &str) -> PathError {
    resolve(app, Some(tc_url), name).expect_err("should be refused")
}

#[track_caller]
fn check(app: &str, tc_url: &str, name: &str, path: &str, query: &str) {
    assert_eq!(found(app, tc_url, name), (path.to_owned(), query.to_owned()));
}

// Where clients put the query.

#[test]
fn ffmpeg_sends_app_and_name_with_its_query() {
    check("live", "rtmp://h:1935/live", "ch?a=b%2Fc", "h/live/ch", "a=b%2Fc");
}

#[test]
fn ffmpeg_with_three_levels_puts_two_into_the_app() {
    check("x/live", "rtmp://h:1935/x/live", "ch?k=v", "h/x/live/ch", "k=v");
}

#[test]
fn ffmpeg_splits_at_a_raw_slash_in_the_query_and_is_joined_again() {
    check("live/ch?s=a", "rtmp://h:1935/live/ch?s=a", "b", "h/live/ch", "s=a/b");
    check("live/ch?s=a", "rtmp://h:1935/live/ch?s=a", "b/c==&t=1", "h/live/ch", "s=a/b/c==&t=1");
    check("x/live", "rtmp://h/x/live", "ch?s=a/b", "h/x/live/ch", "s=a/b");
}

#[test]
fn obs_with_everything_in_the_server_field_and_an_empty_key() {
    let app = "app/stream?auth_key=1-0-0-aa";
    check(app, "rtmp://h/app/stream?auth_key=1-0-0-aa", "", "h/app/stream", "auth_key=1-0-0-aa");
    check("a/b/s?k=x/y", "rtmp://h/a/b/s?k=x/y", "", "h/a/b/s", "k=x/y");
    check("a/s", "rtmp://h/a/s", "", "h/a/s", "");
}

#[test]
fn obs_with_the_query_in_the_key_field() {
    check("live", "rtmp://h/live", "ch?txSecret=a&txTime=b", "h/live/ch", "txSecret=a&txTime=b");
}

#[test]
fn obs_multi_rendition_sends_a_key_that_is_a_query_only() {
    check("live/ch?a=b", "rtmp://h/live/ch?a=b", "?k=v", "h/live/ch", "a=b&k=v");
    check("live/ch", "rtmp://h/live/ch?a=b", "?k=v", "h/live/ch", "k=v&a=b");
    check("live/ch", "rtmp://h/live/ch", "?k=v", "h/live/ch", "k=v");
    assert_eq!(refused("live", "rtmp://h/live", "?k=v"), PathError::EmptyName);
}

#[test]
fn obs_with_a_query_in_the_server_field_and_a_name_in_the_key_field() {
    check("live?token=t", "rtmp://h/live?token=t", "ch", "h/live/ch", "token=t");
    check("live?token=a/b", "rtmp://h/live?token=a/b", "ch?k=v", "h/live/ch", "token=a/b&k=v");
}

#[test]
fn gstreamer_and_librtmp_may_send_slashes_around_app_and_name() {
    check("/live/", "rtmp://h/live/", "/ch/", "h/live/ch", "");
    check("live//", "rtmp://h/live//", "//ch", "h/live/ch", "");
}

#[test]
fn a_query_that_only_tc_url_has_is_added_and_one_already_known_is_not() {
    check("live", "rtmp://h/live?user=u&k=other", "ch?k=v", "h/live/ch", "k=v&user=u");
}

#[test]
fn a_signature_keeps_its_final_slash() {
    check("live", "rtmp://h/live", "ch?s=ab/", "h/live/ch", "s=ab/");
}

#[test]
fn an_app_that_is_missing_is_taken_from_tc_url() {
    check("", "rtmp://h/live", "ch", "h/live/ch", "");
    check("/", "rtmp://h/live/ch?k=v", "", "h/live/ch", "k=v");
}

#[test]
fn tc_url_may_be_missing_or_in_quotes() {
    check("live", "", "ch", "default/live/ch", "");
    check("live", "'rtmp://H.example:9121/live'", "ch", "h.example/live/ch", "");
    check("live", "\"rtmp://h/live\"\n", "ch", "h/live/ch", "");
    check("live", "no url at all", "ch", "default/live/ch", "");
}

// Levels of the path.

#[test]
fn the_default_instance_is_the_application_itself() {
    check("app/_definst_", "rtmp://h/app/_definst_", "s", "h/app/s", "");
    check("app/inst/_definst_", "rtmp://h/app/inst/_definst_", "s", "h/app/inst/s", "");
    check("app", "rtmp://h/app", "_definst_/s", "h/app/s", "");
    check("app/_definst_?vhost=x", "rtmp://h", "s", "x/app/s", "vhost=x");
    check("app/_definst_?k=v", "rtmp://h/app/_definst_?k=v", "s", "h/app/s", "k=v");
}

#[test]
fn an_app_may_have_many_levels() {
    check("a/b/c", "rtmp://h/a/b/c", "s", "h/a/b/c/s", "");
    check("a", "rtmp://h/a", "b/c/s", "h/a/b/c/s", "");
}

#[test]
fn type_prefixes_of_names_mean_nothing_for_live() {
    check("live", "rtmp://h/live", "mp4:ch", "h/live/ch", "");
    check("live", "rtmp://h/live", "FLV:ch?k=v", "h/live/ch", "k=v");
    check("live", "rtmp://h/live", "mp4:sub/ch.mp4", "h/live/sub/ch.mp4", "");
    check("live", "rtmp://h/live", "mp4%3Ach", "h/live/ch", "");
    assert_eq!(refused("live", "rtmp://h/live", "mp4:"), PathError::EmptyName);
}

#[test]
fn a_hash_mark_is_like_a_question_mark() {
    check("live", "rtmp://h/live", "ch#k=v", "h/live/ch", "k=v");
    check("live/ch#k=v", "rtmp://h/live/ch#k=v", "", "h/live/ch", "k=v");
    check("live#vhost=x", "rtmp://ip/live#vhost=x", "ch", "x/live/ch", "vhost=x");
}

#[test]
fn spaces_and_line_ends_around_the_parts_are_trimmed() {
    check(" live\r\n", "rtmp://h/live\n", "\tch \n", "h/live/ch", "");
    check("live", "rtmp://h/live", "ch?k=v\r\n", "h/live/ch", "k=v");
    check("live", "rtmp://h/live", "ch ?k=v", "h/live/ch", "k=v");
    check("live", "rtmp://h/live", "ch\0", "h/live/ch", "");
}

#[test]
fn names_are_percent_decoded_once() {
    check("live", "rtmp://h/live", "room%201", "h/live/room 1", "");
    check("live", "rtmp://h/live", "a%2541", "h/live/a%41", "");
    check("live%2Fsub", "rtmp://h/live", "ch", "h/live/sub/ch", "");
    check("live", "rtmp://h/live", "%E5%AE%A4%C3%A9%F0%9F%8E%A5", "h/live/室é🎥", "");
}

#[test]
fn escapes_that_are_none_stay_as_they_are() {
    for name in ["100%", "50%zz", "%+1", "%e", "%FF", "%C3", "%C3%", "%E5%AEx", "a%é"] {
        check("live", "rtmp://h/live", name, &format!("h/live/{name}"), "");
    }
    check("live", "rtmp://h/live", "%FF%41%C3%A9", "h/live/%FFAé", "");
}

#[test]
fn utf8_names_dots_dashes_and_inner_spaces_are_kept() {
    for name in ["直播间", "Прямой-эфир", "cam.1.main", "-x-", ".hidden", "a..b", "...", "a b+c"]
    {
        check("live", "rtmp://h/live", name, &format!("h/live/{name}"), "");
    }
}

// The vhost.

#[test]
fn the_vhost_is_the_host_of_tc_url_in_lower_case_without_port() {
    for url in [
        "rtmp://Push.Example.COM/live",
        "rtmp://push.example.com:1935/live",
        "RTMPS://push.example.com:443/live",
        "rtmpt://push.example.com.:80/live",
        "rtmp://user:pa@ss@push.example.com/live",
        "rtmp://push.example.com",
    ] {
        check("live", url, "ch", "push.example.com/live/ch", "");
    }
}

#[test]
fn the_port_is_told_when_there_is_one() {
    let port = |url: &str| resolve("live", Some(url), "ch").expect("sound").port;
    assert_eq!(port("rtmp://h/live"), None);
    assert_eq!(port("rtmp://h:1935/live"), Some(1935));
    assert_eq!(port("rtmps://h:443/live"), Some(443));
    assert_eq!(port("rtmp://[::1]:1936/live"), Some(1936));
    assert_eq!(port("rtmp://h:/live"), None);
    assert_eq!(port("rtmp://h:99999/live"), None);
}

#[test]
fn ipv6_literals_have_one_form() {
    for url in [
        "rtmp://[::1]:1935/live",
        "rtmp://[::1]/live",
        "rtmp://[0:0:0:0:0:0:0:1]/live",
        "rtmp://[::1%25eth0]:1935/live",
        "rtmp://::1/live",
    ] {
        check("live", url, "ch", "::1/live/ch", "");
    }
    check("live", "rtmp://[2001:DB8::A]:1935/live", "ch", "2001:db8::a/live/ch", "");
    assert_eq!(refused("live", "rtmp://[::1/live", "ch"), PathError::BadHost);
    assert_eq!(refused("live", "rtmp://[::g]/live", "ch"), PathError::BadHost);
}

#[test]
fn a_vhost_parameter_goes_before_the_host() {
    check(
        "live",
        "rtmp://1.2.3.4/live",
        "ch?vhost=A.example",
        "a.example/live/ch",
        "vhost=A.example",
    );
    check("live?vhost=x", "rtmp://h/live?vhost=x", "ch", "x/live/ch", "vhost=x");
    check("live", "rtmp://h/live?vhost=x", "ch", "x/live/ch", "vhost=x");
    check("live", "rtmp://h/live", "ch?vhost=x%2Ey:1935", "x.y/live/ch", "vhost=x%2Ey:1935");
}

#[test]
fn a_domain_parameter_goes_before_the_host_and_behind_vhost() {
    check("live", "rtmp://h/live", "ch?domain=d", "d/live/ch", "domain=d");
    check("live", "rtmp://h/live", "ch?domain=d&vhost=v", "v/live/ch", "domain=d&vhost=v");
}

#[test]
fn an_empty_vhost_parameter_names_nobody() {
    check("live", "rtmp://h/live", "ch?vhost=&domain=", "h/live/ch", "vhost=&domain=");
}

#[test]
fn a_vhost_marker_in_the_app_or_the_name_goes_before_the_host() {
    check("live...vhost...x.example", "rtmp://1.2.3.4/live", "ch", "x.example/live/ch", "");
    check("live", "rtmp://h/live", "ch...vhost...x?k=v", "x/live/ch", "k=v");
    check("live...vhost...x", "rtmp://h/live", "ch?vhost=y", "y/live/ch", "vhost=y");
}

#[test]
fn a_query_before_the_stream_is_moved_behind_it() {
    check("app?vhost=x", "rtmp://ip/app?vhost=x", "stream", "x/app/stream", "vhost=x");
    check("app?vhost=x/stream", "rtmp://ip/app?vhost=x/stream", "", "x/app/stream", "vhost=x");
    check("app?vhost=x/inst", "rtmp://ip/app?vhost=x/inst", "s", "x/app/inst/s", "vhost=x");
    check("app/app2?vhost=x", "rtmp://ip/app/app2?vhost=x", "s?k=v", "x/app/app2/s", "vhost=x&k=v");
    check("app?vhost=x/s?k=v", "rtmp://ip/app?vhost=x/s?k=v", "", "x/app/s", "vhost=x&k=v");
    check("app?k=v/s", "rtmp://ip/app?k=v/s", "", "ip/app/s", "k=v");
}

#[test]
fn who_named_the_vhost_is_told_and_the_host_is_kept_beside_it() {
    let of =
        |url: Option<&str>, name: &str| -> Resolved { resolve("live", url, name).expect("sound") };
    let explicit = of(Some("rtmp://H:1935/live"), "ch?vhost=x");
    assert_eq!(explicit.vhost_source, VhostSource::Explicit);
    assert_eq!(explicit.host.as_deref(), Some("h"));
    assert_eq!(of(Some("rtmp://h/live"), "ch").vhost_source, VhostSource::Host);
    let nobody = of(None, "ch");
    assert_eq!((nobody.vhost_source, nobody.host), (VhostSource::Default, None));
    assert_eq!(nobody.path.vhost(), DEFAULT_VHOST);
    let by_sni = nobody.path.with_vhost("sni.example").expect("normal form");
    assert_eq!(by_sni.as_str(), "sni.example/live/ch");
}

// What is refused.

#[test]
fn addresses_without_an_app_or_a_name_are_refused() {
    assert_eq!(refused("live", "rtmp://h/live", ""), PathError::EmptyName);
    assert_eq!(refused("live/", "rtmp://h/live/", " / "), PathError::EmptyName);
    assert_eq!(refused("live?k=v", "rtmp://h/live?k=v", ""), PathError::EmptyName);
    assert_eq!(refused("", "rtmp://h/", "ch"), PathError::EmptyApp);
    assert_eq!(refused("", "", ""), PathError::EmptyApp);
}

#[test]
fn dot_levels_are_refused_in_every_spelling() {
    for name in
        ["..", "../ch", "a/../ch", "%2e%2e", "%2E./ch", ".", "a/./ch", "..?k=v", " .. ", "mp4:.."]
    {
        assert_eq!(refused("live", "rtmp://h/live", name), PathError::DotSegment, "{name:?}");
    }
    assert_eq!(refused("../live", "rtmp://h/live", "ch"), PathError::DotSegment);
    assert_eq!(refused("live%2F..%2Fx", "rtmp://h/live", "ch"), PathError::DotSegment);
}

#[test]
fn control_characters_and_their_like_are_refused() {
    for name in
        ["a\nb", "a%0Ab", "a%00b", "a\u{7f}b", "a\u{85}b", "a\u{2028}b", "a\u{202E}b", "a\\b"]
    {
        assert_eq!(
            refused("live", "rtmp://h/live", name),
            PathError::ForbiddenCharacter,
            "{name:?}"
        );
    }
}

#[test]
fn hosts_that_are_none_are_refused() {
    for host in ["a..b", ".a", "a b", "a\\b", "%2e%2e", "a!", "..", "a\u{202E}b"] {
        let url = format!("rtmp://{host}/live");
        assert_eq!(refused("live", &url, "ch"), PathError::BadHost, "{host:?}");
    }
    assert_eq!(refused("live", "rtmp://h/live", "ch?vhost=../x"), PathError::BadHost);
    assert_eq!(refused("live...vhost...a...b", "rtmp://h/live", "ch"), PathError::BadHost);
}

#[test]
fn lengths_are_counted_in_characters_and_bounded() {
    let long = |count: usize| "é".repeat(count);
    let ok =
        resolve(&long(APP_CHARS_MAX), Some("rtmp://h/a"), &long(NAME_CHARS_MAX)).expect("fits");
    assert_eq!(ok.path.name().chars().count(), NAME_CHARS_MAX);
    assert_eq!(refused(&long(APP_CHARS_MAX + 1), "rtmp://h/a", "ch"), PathError::AppTooLong);
    assert_eq!(refused("live", "rtmp://h/a", &long(NAME_CHARS_MAX + 1)), PathError::NameTooLong);
    let url = format!("rtmp://{}/live", "h".repeat(257));
    assert_eq!(refused("live", &url, "ch"), PathError::VhostTooLong);
    let name = format!("ch?{}", "k".repeat(KEY_BYTES_MAX + 1));
    assert_eq!(refused("live", "rtmp://h/live", &name), PathError::KeyTooLong);
    let name = "a".repeat(INPUT_BYTES_MAX + 1);
    assert_eq!(refused("live", "rtmp://h/live", &name), PathError::InputTooLong);
}

#[test]
fn errors_have_distinct_labels_and_say_nothing_of_the_peer() {
    let error = refused("live", "rtmp://h/live", "s3cret/..");
    assert_eq!(error.label(), "dot_segment");
    assert!(!error.to_string().contains("s3cret"));
    assert_ne!(PathError::EmptyApp.label(), PathError::EmptyName.label());
}

// Secrets.

#[test]
fn secrets_are_never_printed() {
    let resolved =
        resolve("live", Some("rtmp://u:passw0rd@h/live"), "ch?auth_key=s3cret").expect("sound");
    let printed = format!("{resolved:?} {:?} {}", resolved.query, resolved.path);
    assert!(!printed.contains("s3cret") && !printed.contains("auth_key"), "{printed}");
    assert!(!printed.contains("passw0rd"), "{printed}");
    assert!(printed.contains("redacted") && printed.contains("h/live/ch"), "{printed}");
}

#[test]
fn parameters_are_decoded_once_and_plus_stays_plus() {
    let key = StreamKey::new("a=b%2Fc%252F&plus=x+y&live&e=&a=second&%6E=1&&=v").expect("short");
    assert_eq!(key.value("a").as_deref(), Some("b/c%2F"));
    assert_eq!(key.value("plus").as_deref(), Some("x+y"));
    assert_eq!(key.value("live").as_deref(), Some(""));
    assert_eq!(key.value("e").as_deref(), Some(""));
    assert_eq!(key.value("n").as_deref(), Some("1"));
    assert_eq!(key.value("A"), None);
    assert_eq!(key.pairs().count(), 7);
    assert!(StreamKey::default().is_empty() && !key.is_empty());
}

// Paths as values.

#[test]
fn paths_are_read_back_from_what_they_print() {
    let path = StreamPath::new("h.example", "a/b", "s.1").expect("sound");
    assert_eq!((path.vhost(), path.app(), path.name()), ("h.example", "a/b", "s.1"));
    assert_eq!(path.to_string(), "h.example/a/b/s.1");
    assert_eq!(path.to_string().parse::<StreamPath>().expect("reads back"), path);
    assert_eq!(StreamPath::in_vhost("h.example", "a/b/s.1").expect("reads"), path);
    let state = std::hash::RandomState::new();
    assert_eq!(state.hash_one(&path), state.hash_one(path.clone()));
}

#[test]
fn texts_that_no_client_could_reach_are_no_paths() {
    for text in [
        "",
        "h",
        "h/s",
        "h//s",
        "h/a/",
        "/a/s",
        "H/a/s",
        "h./a/s",
        "h:1/a/s",
        "[::1]/a/s",
        "h/a/..",
        "h/./s",
        "h/a/ s",
        "h/a/mp4:s",
        "h/_definst_/s",
        "h/a//b/s",
        "h/a...vhost...x/s",
        "h/a/s\n",
    ] {
        assert!(text.parse::<StreamPath>().is_err(), "{text:?}");
    }
    assert!(StreamPath::new("h", "a", "b/c").is_err());
    assert!("::1/a/s".parse::<StreamPath>().is_ok());
}

#[test]
fn paths_are_ordered_by_vhost_then_app_then_name() {
    let sorted = ["a/x/s", "a/x!/s", "a/x/y/s", "a-b/x/s"];
    let mut paths: Vec<StreamPath> =
        sorted.iter().map(|text| text.parse().expect("sound")).collect();
    paths.sort();
    let texts: Vec<&str> = paths.iter().map(StreamPath::as_str).collect();
    assert_eq!(texts, ["a/x/s", "a/x!/s", "a/x/y/s", "a-b/x/s"]);
}

#[test]
fn a_url_path_is_escaped_where_a_client_would_misread_it() {
    let path = StreamPath::new("h", "a b", "50%?é#1").expect("sound");
    assert_eq!(path.url_path().to_string(), "a%20b/50%25%3F%C3%A9%231");
}

/// Text made of what addresses are made of, so that the strange cases are met often.
fn address_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "live",
        "ch",
        "/",
        "//",
        "?",
        "#",
        "&",
        "=",
        "%",
        "%2F",
        "%2e",
        "%25",
        "%41",
        "%C3%A9",
        "%FF",
        "..",
        ".",
        "...vhost...",
        "vhost=",
        "domain=",
        "x.example",
        "_definst_",
        "mp4:",
        "flv:",
        " ",
        "\n",
        "\0",
        ":",
        "@",
        "[",
        "]",
        "::1",
        "rtmp://",
        "h",
        "é",
        "k=v",
        "\\",
        "'",
    ]);
    prop_oneof![
        4 => prop::collection::vec(word, 0..12).prop_map(|words| words.concat()),
        1 => any::<String>(),
    ]
}

/// What the documentation promises about using a path as a file path.
fn assert_safe(path: &StreamPath) {
    let text = path.as_str();
    assert!(!path.vhost().contains('/') && !path.name().contains('/'));
    for segment in text.split('/') {
        assert!(!segment.is_empty() && segment != "." && segment != "..", "{text:?}");
        assert!(!segment.chars().any(|c| c.is_control() || c == '\\'), "{text:?}");
        assert_eq!(segment.trim(), segment);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_strings_make_it_panic_and_what_it_finds_is_stable(
        app in address_text(),
        tc_url in prop::option::of(prop_oneof![
            address_text(),
            address_text().prop_map(|rest| format!("rtmp://{rest}")),
        ]),
        name in address_text(),
    ) {
        let Ok(found) = resolve(&app, tc_url.as_deref(), &name) else { return Ok(()) };
        assert_safe(&found.path);
        // The printed form reads back.
        prop_assert_eq!(&found.path.to_string().parse::<StreamPath>(), &Ok(found.path.clone()));
        // The same address, written plainly, is the same stream.
        let url = format!("rtmp://{}", found.path.vhost());
        let full = found.path.url_path().to_string();
        let (app, name) = full.rsplit_once('/').expect("app/name");
        let name = format!("{name}?{}", found.query.expose());
        let again = resolve(app, Some(&url), &name).expect("stable");
        prop_assert_eq!(&again.path, &found.path);
        prop_assert_eq!(again.query.expose(), found.query.expose());
    }

    #[test]
    fn it_does_not_matter_where_a_client_splits_app_and_name(
        levels in prop::collection::vec("[a-z0-9._~é-]{1,8}", 2..6),
        query in "[a-z]{1,4}=[a-zA-Z0-9%+=]{0,12}",
    ) {
        prop_assume!(levels.iter().all(|level| level != "." && level != ".."));
        let expected = format!("h/{}", levels.join("/"));
        for split in 0..=levels.len() {
            let (app, name) = (levels[..split].join("/"), levels[split..].join("/"));
            let (app, name) = match levels.len() - split {
                0 => (format!("{app}?{query}"), name),
                _ => (app, format!("{name}?{query}")),
            };
            let url = "rtmp://h/";
            prop_assert_eq!(found(&app, url, &name), (expected.clone(), query.clone()));
        }
    }
}
