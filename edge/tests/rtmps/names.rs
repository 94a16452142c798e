//! Many certificates on one port, chosen by the name a client asks for and judged by that client.

use std::process::{Command, Stdio};

use serde_json::Value;
use tls::{ClientOptions, Roots, Version};

use crate::certs::{Authority, Folder, NAME, only};
use crate::forge::served;
use crate::peer::{Dress, End, Peer};
use crate::server::{Secured, ways};

#[test]
fn every_domain_gets_its_own_certificate_on_one_port() {
    for how in ways() {
        let folder = Folder::new();
        let one = folder.put("one", &["one.test"]);
        let two = folder.put("two", &["two.test", "www.two.test"]);
        let wild = folder.put("wild", &["*.wild.test"]);
        let default = folder.put("default", &["default.test", "127.0.0.1"]);
        let secured = Secured::start_with(how, folder, "");
        let client = secured.folder.client();
        // An address is no name to ask for: that client sends none.
        let asked = [
            ("one.test", &one),
            ("two.test", &two),
            ("www.two.test", &two),
            ("WWW.Two.TEST", &two),
            ("a.wild.test", &wild),
            ("127.0.0.1", &default),
        ];
        for port in secured.ports() {
            for (name, certificate) in asked {
                assert_eq!(served(port, &client, name).as_ref(), Ok(certificate), "{name}");
                let dress = Dress::Tls(client.clone(), name);
                Peer::connected(port, &dress).create_stream();
            }
        }
        let anybody = tls::client_config(Roots::Insecure).unwrap();
        for stranger in ["three.test", "wild.test", "a.b.wild.test"] {
            let refusal = Peer::secure(secured.rtmps, &client, stranger).map(|_| ());
            assert_eq!(refusal, Err(End::Failed), "{stranger}: the default is not for that name");
            assert_eq!(served(secured.rtmps, &anybody, stranger).as_ref(), Ok(&default));
        }
        secured.expect_none_left();
    }
}

#[test]
fn the_certificate_is_chosen_by_sni_and_the_stream_by_the_url() {
    for how in ways() {
        let folder = Folder::new();
        folder.put("one", &["one.test"]);
        folder.put("two", &["two.test"]);
        let secured = Secured::start_with(how, folder, "[vhost.\"two.test\"]\nflush = 100\n");
        let dress = Dress::Tls(secured.folder.client(), "one.test");
        let mut peer = Peer::connect(secured.rtmps);
        peer.introduce(&dress, "two.test");
        peer.publish("cam");
        let streams: Value = serde_json::from_str(&secured.server.get("/api/v1/streams")).unwrap();
        assert_eq!(streams["items"][0]["vhost"], "two.test", "{streams}");
    }
}

#[test]
fn a_client_that_trusts_somebody_else_refuses_and_the_log_names_its_alert() {
    for how in ways() {
        let secured = Secured::start(how);
        let other = Authority::new();
        for version in [Version::Tls13, Version::Tls12] {
            let before = secured.server.events("tls_error").len();
            let client = other.client(&only(version, false));
            let mut peer = Peer::connect(secured.rtmps);
            assert_eq!(peer.shake_tls(&client, NAME), Err(End::Failed));
            let error = peer.error.clone().unwrap();
            assert!(error.contains("certificate refused"), "{error}");
            let port = peer.socket.local_addr().unwrap().to_string();
            secured.server.wait_log("tls_error", "peer", &port);
            let line = &secured.server.events("tls_error")[before];
            let text = line["error"].as_str().unwrap();
            assert_eq!(line["class"], "alert_received");
            assert!(text.contains("UnknownCA") && text.contains(NAME), "{text}");
            secured.server.wait_log("close", "peer", &port);
            assert!(secured.server.has_logged("close", "reason", "tls_error"));
        }
        assert_eq!(secured.tls_errors("alert_received"), 2);
        assert_eq!(secured.handshakes("failed"), 2);
        Peer::connected(secured.rtmps, &Dress::Tls(secured.folder.client(), NAME));
        secured.expect_none_left();
    }
}

#[test]
fn a_client_that_allows_nothing_we_have_is_told_so() {
    for how in ways() {
        let secured = Secured::start(how);
        // A hello with one suite nobody should use any more.
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
        let length = u8::try_from(body.len()).unwrap();
        let hello = [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat();
        let mut peer = Peer::behind(secured.rtmps, &hello);
        assert_eq!(peer.read_to_end(), End::Truncated);
        assert_eq!(peer.plain.len(), 7, "one alert record: {:?}", peer.plain);
        assert_eq!(peer.plain[..6], [21, 3, 3, 0, 2, 2], "a fatal one");
        secured.server.wait_log("tls_error", "class", "incompatible");
        secured.expect_none_left();
    }
}

#[test]
fn openssl_is_content_with_each_name_and_not_with_a_stranger() {
    if !crate::child::have(&["openssl"]) {
        return;
    }
    for how in ways() {
        let folder = Folder::new();
        folder.put("one", &["one.test"]);
        folder.put("two", &["two.test"]);
        let secured = Secured::start_with(how, folder, "");
        for (name, is_ours) in [("one.test", true), ("two.test", true), ("one.test", false)] {
            let stranger = Folder::new();
            let authority = if is_ours { &secured.folder } else { &stranger }.authority_file();
            let output = Command::new("openssl")
                .args(["s_client", "-brief", "-verify_return_error", "-no_check_time"])
                .args(["-servername", name, "-verify_hostname", name])
                .args(["-connect", &secured.rtmps.to_string(), "-CAfile"])
                .arg(authority)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.success(), is_ours, "{name}: {text}");
            assert_eq!(text.contains("Verification: OK"), is_ours, "{name}: {text}");
        }
        secured.server.wait_log("tls_error", "class", "alert_received");
        let line = secured.server.events("tls_error").pop().unwrap();
        assert!(line["error"].as_str().unwrap().contains("UnknownCA"), "{line}");
        secured.expect_none_left();
    }
}

#[test]
fn a_client_with_default_options_agrees_on_the_newest_version() {
    for how in ways() {
        let secured = Secured::start(how);
        let client = secured.folder.authority.client(&ClientOptions::default());
        let peer = Peer::secure(secured.rtmps, &client, NAME).map_err(|end| format!("{end:?}"));
        let peer = peer.unwrap();
        let facts = peer.facts().unwrap();
        assert_eq!((facts.version, facts.resumed), (Version::Tls13, false));
    }
}
