//! How certificates change while the server runs.

use std::os::unix::fs::symlink;

use super::super::{CertStore, Look};
use super::support::{Cert, DAY_S, Folder, Knows, NOW_S, served, told};
use crate::metrics::CertificateState;

fn get(store: &std::sync::Arc<CertStore>, name: &str) -> String {
    served(store, name, Knows::Everything)
}

#[test]
fn a_renewed_pair_is_taken_at_the_second_look_that_finds_it_at_rest() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test", "old.test"]));
    let store = folder.load();
    folder.put("a", &Cert::new(&["a.test", "new.test"]));
    let first = store.look(Look::Watching, NOW_S);
    assert_eq!((first.loaded, get(&store, "a.test").as_str()), (0, "a.test,old.test"));
    let second = store.look(Look::Watching, NOW_S);
    assert_eq!((second.loaded, get(&store, "a.test").as_str()), (1, "a.test,new.test"));
    assert_eq!(store.look(Look::Watching, NOW_S).loaded, 0);
}

#[test]
fn a_pair_written_piece_by_piece_is_never_read_in_between() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test", "old.test"]));
    let store = folder.load();
    let (cert, key) = Cert::new(&["a.test", "new.test"]).rsa().pem();
    for (file, text) in [
        ("a.crt", &cert[..10]),
        ("a.crt", &cert[..cert.len() / 2]),
        ("a.crt", &cert),
        ("a.key", &key[..key.len() / 2]),
        ("a.key", &key),
    ] {
        std::fs::write(folder.file(file), text).unwrap();
        let report = store.look(Look::Watching, NOW_S);
        assert_eq!((report.loaded, report.failed_total), (0, 0));
        assert_eq!(told(&store, "a"), (CertificateState::Valid, String::new()));
    }
    assert_eq!(store.look(Look::Watching, NOW_S).loaded, 1);
    assert_eq!(get(&store, "a.test"), "a.test,new.test");
}

#[test]
fn a_broken_pair_keeps_the_old_one_and_is_told_once_until_it_changes_again() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]));
    let store = folder.load();
    folder.write("a.key", "broken");
    let report = store.look(Look::Asked, NOW_S);
    assert_eq!((report.loaded, report.failed_total), (0, 1));
    let expected = "a.key: there is no PEM private key in it (found nothing); \
                    the one valid until 2026-03-31T00:00:00Z stays";
    assert!(report.failed[0].error.ends_with(expected), "{:?}", report.failed);
    let (state, error) = told(&store, "a");
    assert_eq!((state, &error), (CertificateState::Stale, &report.failed[0].error));
    assert_eq!(get(&store, "a.test"), "a.test");
    for _ in 0..3 {
        assert_eq!(store.look(Look::Watching, NOW_S).failed_total, 0);
    }
    // Who asks is told again.
    assert_eq!(store.look(Look::Asked, NOW_S).failed_total, 1);
    folder.put("a", &Cert::new(&["a.test", "new.test"]));
    assert_eq!(store.look(Look::Asked, NOW_S).loaded, 1);
    assert_eq!(told(&store, "a"), (CertificateState::Valid, String::new()));
}

#[test]
fn an_expired_pair_never_replaces_a_valid_one() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test", "valid.test"]));
    let store = folder.load();
    folder.put("a", &Cert::new(&["a.test", "over.test"]).valid(NOW_S - 9 * DAY_S, NOW_S - DAY_S));
    let report = store.look(Look::Asked, NOW_S);
    assert!(
        report.failed[0].error.contains("a.crt: expired on 2025-12-31T00:00:00Z"),
        "{report:?}"
    );
    assert_eq!(get(&store, "a.test"), "a.test,valid.test");
    // Between two that are over, the newer file is what the operator means.
    let later = NOW_S + 100 * DAY_S;
    assert_eq!(store.look(Look::Asked, later).loaded, 1);
    assert_eq!(get(&store, "a.test"), "a.test,over.test");
}

#[test]
fn at_the_start_an_expired_pair_is_served_and_told() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]).valid(NOW_S - 9 * DAY_S, NOW_S - DAY_S));
    let store = folder.load();
    assert_eq!(told(&store, "a").0, CertificateState::Expired);
    assert_eq!(get(&store, "a.test"), "a.test");
}

#[test]
fn a_pair_that_is_not_valid_yet_is_taken_when_its_day_comes() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test", "old.test"]));
    let store = folder.load();
    let starts = NOW_S + 2 * DAY_S;
    folder.put("a", &Cert::new(&["a.test", "new.test"]).valid(starts, starts + 90 * DAY_S));
    let report = store.look(Look::Asked, NOW_S);
    assert!(report.failed[0].error.contains("not valid before 2026-01-03T00:00:00Z"), "{report:?}");
    assert_eq!(store.look(Look::Watching, starts - 1).loaded, 0);
    assert_eq!(get(&store, "a.test"), "a.test,old.test");
    assert_eq!(store.look(Look::Watching, starts).loaded, 1);
    assert_eq!(get(&store, "a.test"), "a.test,new.test");
}

#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    let folder = Folder::new();
    for (version, name) in [("1", "old.test"), ("2", "new.test")] {
        let (cert, key) = Cert::new(&["a.test", name]).pem();
        folder.write(&format!("archive/a/fullchain{version}.pem"), &cert);
        folder.write(&format!("archive/a/privkey{version}.pem"), &key);
    }
    let live = folder.file("live/a");
    std::fs::create_dir_all(&live).unwrap();
    let point = |version: &str| {
        for file in ["fullchain", "privkey"] {
            let link = live.join(format!("{file}.part"));
            symlink(format!("../../archive/a/{file}{version}.pem"), &link).unwrap();
            std::fs::rename(link, live.join(format!("{file}.pem"))).unwrap();
        }
    };
    point("1");
    let store = folder.load();
    assert_eq!(get(&store, "a.test"), "a.test,old.test");
    point("2");
    assert_eq!(store.look(Look::Asked, NOW_S).loaded, 1);
    assert_eq!(get(&store, "a.test"), "a.test,new.test");
    point("3");
    assert_eq!(store.look(Look::Asked, NOW_S).failed_total, 1, "a link to nothing");
    assert_eq!(get(&store, "a.test"), "a.test,new.test");
}

#[test]
fn a_folder_swapped_by_one_link_is_a_change() {
    let folder = Folder::new();
    for (version, name) in [("1", "old.test"), ("2", "new.test")] {
        let (cert, key) = Cert::new(&["a.test", name]).pem();
        folder.write(&format!("..v{version}/tls.crt"), &cert);
        folder.write(&format!("..v{version}/tls.key"), &key);
    }
    let point = |version: &str| {
        symlink(format!("..v{version}"), folder.file("..part")).unwrap();
        std::fs::rename(folder.file("..part"), folder.file("..data")).unwrap();
    };
    point("1");
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), folder.file(file)).unwrap();
    }
    let store = folder.load();
    point("2");
    assert_eq!(store.look(Look::Asked, NOW_S).loaded, 1);
    assert_eq!(get(&store, "a.test"), "a.test,new.test");
}

#[test]
fn a_pair_that_is_gone_is_forgotten_at_the_second_look_or_when_asked() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]));
    folder.put("b", &Cert::new(&["b.test"]));
    folder.put("c", &Cert::new(&["c.test"]));
    let store = folder.load();
    folder.remove("b");
    assert_eq!(store.look(Look::Watching, NOW_S).removed, 0);
    assert_eq!(get(&store, "b.test"), "b.test");
    assert_eq!(store.look(Look::Watching, NOW_S).removed, 1);
    assert_eq!(get(&store, "b.test"), "a.test");
    folder.remove("c");
    assert_eq!(store.look(Look::Asked, NOW_S).removed, 1);
    // The last one stays: a server without any certificate helps nobody.
    folder.remove("a");
    assert_eq!(store.look(Look::Asked, NOW_S).removed, 0);
    assert_eq!(get(&store, "b.test"), "a.test");
    assert!(told(&store, "a").1.contains("its files are gone"));
    folder.put("d", &Cert::new(&["d.test"]));
    let report = store.look(Look::Asked, NOW_S);
    assert_eq!((report.loaded, report.removed), (1, 1));
}

#[test]
fn a_pair_that_moves_to_where_it_cannot_be_used_stays_until_it_can() {
    let folder = Folder::new();
    folder.put("a", &Cert::new(&["a.test"]));
    folder.put("b", &Cert::new(&["b.test"]));
    let store = folder.load();
    std::fs::create_dir(folder.file("b")).unwrap();
    std::fs::rename(folder.file("b.crt"), folder.file("b/fullchain.pem")).unwrap();
    std::fs::remove_file(folder.file("b.key")).unwrap();
    let report = store.look(Look::Asked, NOW_S);
    assert_eq!((report.total, report.removed, report.failed_total), (3, 0, 1));
    assert_eq!(get(&store, "b.test"), "b.test");
    let (cert, key) = Cert::new(&["b.test", "new.test"]).pem();
    folder.write("b/privkey.pem", &key);
    folder.write("b/fullchain.pem", &cert);
    let report = store.look(Look::Asked, NOW_S);
    assert_eq!((report.total, report.removed, report.loaded), (2, 1, 1));
    assert_eq!(get(&store, "b.test"), "b.test,new.test");
}

#[test]
fn a_folder_that_cannot_be_read_for_a_while_loses_nothing() {
    let folder = Folder::new();
    folder.put("certs/a", &Cert::new(&["a.test"]));
    folder.put("certs/b", &Cert::new(&["b.test"]));
    let mut sources = folder.sources();
    sources.dir = Some(folder.file("certs"));
    let (store, _) = CertStore::load_at(&sources, NOW_S).unwrap();
    std::fs::rename(folder.file("certs"), folder.file("away")).unwrap();
    for look in [Look::Asked, Look::Watching, Look::Watching] {
        let report = store.look(look, NOW_S);
        assert_eq!((report.total, report.removed, report.problems.len()), (2, 0, 1));
    }
    assert_eq!(get(&store, "b.test"), "b.test");
    std::fs::rename(folder.file("away"), folder.file("certs")).unwrap();
    assert_eq!(store.look(Look::Asked, NOW_S).problems, Vec::<String>::new());
}

#[test]
fn a_certificate_that_ends_is_warned_about_at_30_7_and_1_days_and_when_it_has() {
    use super::super::expiry::Warned;
    use super::super::{pair, sources::PairFiles};
    let folder = Folder::new();
    let read = |days: i64| {
        folder.put("a", &Cert::new(&["a.test"]).valid(NOW_S, NOW_S + days * DAY_S));
        let (cert, key) = (folder.file("a.crt"), folder.file("a.key"));
        let provider = tls::rustls::crypto::aws_lc_rs::default_provider();
        pair::read(&PairFiles { cert, key, domains: Vec::new() }, &provider).unwrap()
    };
    for (life, expected) in [
        (90, vec![(60, 30), (83, 7), (89, 1), (91, -1)]),
        // A certificate for six days is not late on its first day.
        (6, vec![(5, 1), (7, -1)]),
    ] {
        let pair = read(life);
        let mut warned = Warned::default();
        let due = |day: i64| warned.is_due(&pair, NOW_S + day * DAY_S).map(|left| (day, left));
        let told: Vec<_> = (0..life + 5).filter_map(due).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn the_figures_name_the_twenty_that_end_first_and_count_the_states() {
    let folder = Folder::new();
    for index in 0..25 {
        let cert = Cert::new(&[&format!("h{index}.test")]);
        folder
            .put(&format!("c{index:02}"), &cert.valid(NOW_S - DAY_S, NOW_S + (90 - index) * DAY_S));
    }
    folder.write("x.crt", "broken");
    let store = folder.load();
    let figures = store.figures();
    assert_eq!(figures.states, [25, 0, 0, 0, 1]);
    assert_eq!((figures.names, figures.loaded_total, figures.refused_total), (25, 25, 1));
    assert_eq!(figures.soonest.len(), 20);
    assert_eq!(figures.soonest[0], ("c24".to_owned(), NOW_S + 66 * DAY_S));
    assert_eq!(store.next_expiry_s(), Some(NOW_S + 66 * DAY_S));
}
