//! The configuration file: reference, strictness, ranges, overrides.

use std::fs;
use std::path::PathBuf;

use edge::config::{
    Config, ConfigError, DuplicatePublish, FlushPolicy, Listener, Loaded, Source, reference,
};
use edge::log::event;
use edge::metrics::openmetrics;

fn committed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares a committed file with its generator; `RINGCAST_UPDATE=1` writes it instead.
fn assert_committed(name: &str, generated: &str) {
    let path = committed(name);
    if std::env::var_os("RINGCAST_UPDATE").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == generated, "{name} is stale: run the tests once with RINGCAST_UPDATE=1");
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    fs::write(&file, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Source { file: Some(file), env, flags: Vec::new() }.load()
}

fn load(text: &str) -> Config {
    load_with(text, &[]).unwrap_or_else(|error| panic!("{error}")).config
}

/// Problems without the folder of the file.
fn problems(text: &str) -> Vec<String> {
    let error = load_with(text, &[]).expect_err(text);
    let short =
        |line: String| line.rsplit_once("/r.toml").map_or(line.clone(), |(_, rest)| rest.into());
    error.problems.iter().map(|problem| short(problem.to_string())).collect()
}

#[test]
fn the_committed_reference_is_what_the_program_prints() {
    assert_committed("config.reference.toml", &reference::reference(&Config::default()));
}

#[test]
fn the_committed_metrics_page_is_what_the_table_says() {
    assert_committed("METRICS.md", &openmetrics::document());
}

#[test]
fn the_committed_events_page_is_what_the_list_says() {
    assert_committed("EVENTS.md", &event::document());
}

#[test]
fn the_committed_limits_page_is_what_the_table_says() {
    assert_committed("LIMITS.md", &edge::limits::document());
}

#[test]
fn every_event_code_that_is_logged_is_listed() {
    let mut folders = vec![committed("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for part in fs::read_to_string(&path).unwrap().split("event = \"").skip(1) {
                let code = part.split('"').next().unwrap();
                let listed = event::ALL.iter().any(|(known, _)| *known == code);
                assert!(listed, "{code} of {} is not listed in log.rs", path.display());
            }
        }
    }
}

#[test]
fn the_reference_loads_and_gives_the_defaults() {
    let text = reference::reference(&Config::default());
    let loaded = load_with(&text, &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn what_the_reference_shows_of_a_file_loads_as_that_file() {
    let text =
        "[defaults]\nflush = 100\n[listen]\nrtmp = \"[::1]:0\"\n[vhost.\"a.b\"]\ngrace_ms = 0\n";
    let config = load(text);
    assert_eq!(load(&reference::reference(&config)), config);
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(load(""), Config::default());
}

#[test]
fn a_misspelt_key_is_an_error_with_line_and_suggestion() {
    assert_eq!(
        problems("[defaults]\n# comment\nlag_max = 5000\n"),
        [":3: unknown key lag_max in [defaults]; did you mean lag_ms_max?"]
    );
    assert_eq!(problems("[limit]\n"), [":1: unknown section [limit]; did you mean limits?"]);
    assert_eq!(
        problems("[log]\ngrace_ms = 1\n"),
        [":2: unknown key grace_ms in [log]; it belongs under [defaults]"]
    );
    assert_eq!(
        problems("\nrtmp = \"off\"\n"),
        [":2: unknown key rtmp outside any section; rtmp belongs under [listen]"]
    );
    assert_eq!(
        problems("[vhost.\"a.example\"]\nflsh = 100\n"),
        [":2: unknown key flsh in [vhost.\"a.example\"]; did you mean flush?"]
    );
}

#[test]
fn every_problem_is_reported_in_file_order() {
    let found = problems(
        "[listen]\nrtmp = 1935\nadmin = \"localhost\"\n[workers]\ncount = 2000\nio = \"uringg\"\n\
         [limits]\nconnections_max = -1\nidle_ms_max = \"60s\"\n",
    );
    let expected = [
        ":2: rtmp in [listen]: expected a string in quotes, found integer",
        ":3: admin in [listen]: \"localhost\" is neither IP:PORT nor \"off\"",
        ":5: count in [workers]: 2000 is outside 0..=1024",
        ":6: io in [workers]: \"uringg\" is not one of auto, uring, epoll",
        ":8: connections_max in [limits]: -1 is outside 0..=4294967295",
        ":9: idle_ms_max in [limits]: expected a whole number, found string",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_not_toml_is_an_error_with_its_line() {
    let found = problems("[listen]\nrtmp = \n");
    assert!(found[0].starts_with(":2: "), "{found:?}");
    let found = problems("[log]\nlevel = \"info\"\nlevel = \"warn\"\n");
    assert!(found[0].starts_with(":3: ") && found[0].contains("duplicate"), "{found:?}");
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let source = Source { file: Some("/nowhere/r.toml".into()), ..Source::default() };
    let error = source.load().unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/r.toml: cannot be read"), "{error}");
}

#[test]
fn flush_is_a_word_or_a_window() {
    for (text, policy) in [
        ("\"frame\"", FlushPolicy::Frame),
        ("\"immediate\"", FlushPolicy::Immediate),
        ("100", FlushPolicy::Window { ms: 100 }),
        ("\"350\"", FlushPolicy::Window { ms: 350 }),
    ] {
        assert_eq!(load(&format!("[defaults]\nflush = {text}\n")).defaults.flush, policy);
    }
    assert!(problems("[defaults]\nflush = 0\n")[0].contains("1..=2000 ms"));
}

#[test]
fn a_vhost_inherits_what_it_does_not_set_wherever_the_defaults_stand() {
    let config = load(
        "[vhost.\"Live.Example.com\"]\nduplicate_publish = \"reject\"\n[defaults]\ngrace_ms = 1\n",
    );
    let (name, vhost) = config.vhost("live.example.com:1935");
    assert_eq!(name, "live.example.com");
    assert_eq!((vhost.duplicate_publish, vhost.grace_ms), (DuplicatePublish::Reject, 1));
    assert_eq!(config.vhost("other").1.duplicate_publish, DuplicatePublish::Takeover);
}

#[test]
fn vhost_names_are_checked() {
    for (name, complaint) in [
        ("default", "under [defaults]"),
        ("a b", "expected a host name"),
        ("*.", "expected a host name"),
        ("a.*", "expected a host name"),
    ] {
        let found = problems(&format!("[vhost.\"{name}\"]\ngrace_ms = 1\n"));
        assert!(found[0].contains(complaint), "{name}: {found:?}");
    }
    let found = problems("[vhost.\"a\"]\ngrace_ms = 1\n[vhost.\"A\"]\ngrace_ms = 2\n");
    assert!(found[0].contains("is there twice"), "{found:?}");
}

#[test]
fn relations_between_keys_are_checked_where_one_of_them_is_set() {
    let found = problems("[defaults]\nretention_ms = 5000\n");
    assert!(found[0].starts_with(":2: lag_ms_max (8000) exceeds retention_ms (5000)"), "{found:?}");
    let found = problems("[vhost.\"a\"]\nflush = 600\n");
    assert!(found[0].starts_with(":2: flush (600) exceeds flush_ms_max (500)"), "{found:?}");
    let found = problems("[workers]\ncount = 3\ncpus = \"0,1\"\n");
    assert!(found[0].starts_with(":2: 3 workers cannot be pinned to 2 CPUs"), "{found:?}");
    let found = problems("[defaults]\nretention_ms = 5000\n[vhost.\"a\"]\ngrace_ms = 1\n");
    assert_eq!(found.len(), 1, "an inherited mistake is reported once: {found:?}");
}

#[test]
fn an_open_admin_address_needs_a_token() {
    let found = problems("[listen]\nadmin = \"0.0.0.0:9090\"\n");
    assert!(found[0].starts_with(":2: admin address 0.0.0.0:9090 is not loopback"), "{found:?}");
    let text = "[listen]\nadmin = \"0.0.0.0:9090\"\n[admin]\ntoken = \"0123456789abcdef\"\n";
    assert!(load(text).admin.token.is_set());
    assert!(problems("[admin]\ntoken = \"short\"\n")[0].contains("at least 16"));
}

#[test]
fn a_token_file_gives_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "0123456789abcdef\nnot this\n").unwrap();
    let config = load(&format!("[admin]\ntoken_file = \"{}\"\n", file.display()));
    assert_eq!(config.admin.token.expose(), "0123456789abcdef");
    fs::write(&file, "\n").unwrap();
    let found = problems(&format!("[admin]\ntoken_file = \"{}\"\n", file.display()));
    assert!(found[0].contains("its first line is empty"), "{found:?}");
}

#[test]
fn every_key_has_a_variable_that_overrides_the_file_and_says_so() {
    for line in reference::reference(&Config::default()).lines() {
        let Some(name) = line.strip_prefix("# RINGCAST_").filter(|name| !name.contains(' ')) else {
            continue;
        };
        let name = format!("RINGCAST_{name}");
        // The value need not fit; the point is that the variable is known.
        if let Ok(loaded) = load_with("", &[(&name, "1")]) {
            assert_eq!(loaded.overridden.len(), 1, "{name}");
            assert!(!loaded.warnings.iter().any(|w| w.contains("not a setting")), "{name}");
        }
    }
    let env = [("RINGCAST_DEFAULTS_GRACE_MS", "7"), ("RINGCAST_LISTEN_RTMP", "off")];
    let loaded = load_with("[defaults]\ngrace_ms = 5\n", &env).unwrap();
    assert_eq!((loaded.config.defaults.grace_ms, loaded.config.listen.rtmp), (7, Listener::Off));
    assert_eq!(loaded.overridden[0], "RINGCAST_DEFAULTS_GRACE_MS sets defaults.grace_ms");
}

#[test]
fn a_variable_can_set_a_key_of_a_vhost_the_file_names() {
    let text = "[vhost.\"live.example.com\"]\ngrace_ms = 5\n";
    let loaded = load_with(text, &[("RINGCAST_VHOST_LIVE_EXAMPLE_COM_GRACE_MS", "9")]).unwrap();
    assert_eq!(loaded.config.vhosts["live.example.com"].grace_ms, 9);
}

#[test]
fn a_bad_variable_is_an_error_and_an_unknown_one_a_warning() {
    let error = load_with("", &[("RINGCAST_LOG_LEVEL", "loud")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "RINGCAST_LOG_LEVEL: level in [log]: \"loud\" is not one of error, warn, info, debug, trace"
    );
    let env = [("RINGCAST_LOG_LEVL", "info"), ("RINGCAST_PORT_1935_TCP", "tcp://10.0.0.1:1935")];
    let loaded = load_with("", &env).unwrap();
    assert!(loaded.warnings[0].contains("did you mean RINGCAST_LOG_LEVEL?"));
    assert_eq!(loaded.warnings.len(), 2);
}

#[test]
fn a_flag_overrides_the_environment() {
    let source = Source {
        file: None,
        env: vec![("RINGCAST_WORKERS_COUNT".into(), "3".into())],
        flags: vec![("--workers", "workers.count", "2".into())],
    };
    assert_eq!(source.load().unwrap().config.workers.count, 2);
}

#[test]
fn what_is_not_served_is_said() {
    assert!(load_with("[listen]\nhttp = \"0.0.0.0:8080\"\n", &[]).unwrap().warnings.is_empty());
    let loaded = load_with("[listen]\nrtmps = \"0.0.0.0:443\"\n", &[]).unwrap();
    assert!(loaded.warnings[0].contains("no certificates"), "{:?}", loaded.warnings);
    let text = "[listen]\nrtmps = \"0.0.0.0:443\"\n[tls]\ndir = \"/x\"\n";
    assert!(load_with(text, &[]).unwrap().warnings.is_empty());
}

#[test]
fn certificates_are_named_by_their_sections() {
    let text = "[certificate.\"A b\"]\ncert = \"/c\"\nkey = \"/k\"\ndomains = \"A.test, *.a.test\"\n\
                [certificate.default]\ncert = \"/d\"\nkey = \"/e\"\n";
    let config = load(text);
    assert_eq!(config.certificates["A b"].domains.0, ["a.test", "*.a.test"]);
    assert!(config.certificates["default"].domains.0.is_empty());
    assert_eq!(load(&reference::reference(&config)), config);
    for (text, expected) in [
        ("[certificate.a]\ncert = \"/c\"\n", ":1: [certificate.\"a\"] needs key, a PEM file"),
        (
            "[certificate.a]\ncert = \"/c\"\nkye = \"/k\"\n",
            ":3: unknown key kye in [certificate.\"a\"]; did you mean key?",
        ),
        (
            "[certificate.a]\ncert = \"/c\"\nkey = \"/k\"\ndomains = \"a b/c\"\n",
            ":4: domains in [certificate.\"a\"]: \"b/c\": expected a host name, an IP address, or *. and a \
             domain",
        ),
        (
            "[certificate]\ncert = \"/c\"\n",
            ":2: unknown key cert in [certificate]; write [certificate.\"cert\"]",
        ),
        ("[certificat.a]\n", ":1: unknown section [certificat]; did you mean certificate?"),
    ] {
        assert_eq!(problems(text), [expected]);
    }
}

#[test]
fn certificates_turn_rtmps_on_unless_something_else_is_said() {
    let standard = Listener::Address("0.0.0.0:443".parse().unwrap());
    assert_eq!(load("[tls]\ndir = \"/x\"\n").listen.rtmps, standard);
    let entry = "[certificate.a]\ncert = \"/c\"\nkey = \"/k\"\n";
    assert_eq!(load(entry).listen.rtmps, standard);
    assert_eq!(load(&format!("[listen]\nrtmps = \"off\"\n{entry}")).listen.rtmps, Listener::Off);
    let env = [("RINGCAST_LISTEN_RTMPS", "127.0.0.1:8443")];
    let loaded = load_with(entry, &env).unwrap();
    assert_eq!(loaded.config.listen.rtmps, Listener::Address("127.0.0.1:8443".parse().unwrap()));
    assert_eq!(load("").listen.rtmps, Listener::Off);
}
