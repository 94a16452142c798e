//! The fuzz targets' bodies on the committed corpus and on random bytes: they stay alive between runs.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tls::fuzz::{altered_handshake, kernel_records, server_bytes};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("a committed corpus");
    let inputs = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

#[test]
fn the_corpus_passes() {
    corpus("server_bytes").iter().for_each(|input| server_bytes(input));
    corpus("altered_handshake").iter().for_each(|input| altered_handshake(input));
    corpus("kernel_records").iter().for_each(|input| kernel_records(input));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_pass(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        server_bytes(&bytes);
        altered_handshake(&bytes);
        kernel_records(&bytes);
    }

    #[test]
    fn changed_hellos_pass(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let corpus = corpus("server_bytes");
        let mut bytes = which.get(&corpus).clone();
        for (place, change) in changes {
            let at = place.index(bytes.len());
            bytes[at] ^= change;
        }
        server_bytes(&bytes);
    }
}
