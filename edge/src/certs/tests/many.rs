//! Ten thousand certificates: each is opened once, then none is opened in vain.

use super::super::{CertStore, Look};
use super::support::{Cert, Folder, Knows, NOW_S, served};

const MANY: u64 = 10_000;

#[test]
fn ten_thousand_are_read_once_each_and_later_only_those_that_changed() {
    let folder = Folder::new();
    for index in 0..MANY {
        folder.put(&format!("c{index}"), &Cert::new(&[&format!("h{index}.test")]));
    }
    let (store, report) = CertStore::load_at(&folder.sources(), NOW_S).unwrap();
    assert_eq!((report.loaded as u64, report.failed_total), (MANY, 0));
    assert_eq!(store.state().reads, MANY);
    assert_eq!(store.figures().names, MANY);
    for name in ["h0.test", "h9999.test"] {
        assert_eq!(served(&store, name, Knows::Everything), name);
    }
    assert_eq!(served(&store, "unknown.test", Knows::Everything), "h0.test");

    for look in [Look::Watching, Look::Watching, Look::Asked] {
        store.look(look, NOW_S);
    }
    assert_eq!(store.state().reads, MANY, "nothing changed, nothing is opened");
    folder.put("c17", &Cert::new(&["h17.test", "new.test"]));
    assert_eq!(store.look(Look::Asked, NOW_S).loaded, 1);
    assert_eq!(store.state().reads, MANY + 1);
    assert_eq!(served(&store, "h17.test", Knows::Everything), "h17.test,new.test");
}
