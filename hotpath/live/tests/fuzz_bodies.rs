//! The fuzz targets' bodies on the committed corpus and on random operations: they stay alive between runs.

use std::fs;
use std::path::PathBuf;

use live::fuzz::{stream, timeline};
use proptest::prelude::*;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("a committed corpus");
    let inputs = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

#[test]
fn the_corpus_passes() {
    corpus("timeline").iter().for_each(|input| timeline(input));
    corpus("stream").iter().for_each(|input| stream(input));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_timestamps_keep_the_timelines_promises(
        operations in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        timeline(&operations);
    }

    #[test]
    fn any_operations_leave_a_stream_that_is_what_was_sent(
        operations in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        stream(&operations);
    }
}
