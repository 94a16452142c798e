//! Any bodies, any times: nothing panics, everything is bounded, playlists stay valid.

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_messages_keep_every_promise(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        mux::fuzz::segment(&data);
    }

    #[test]
    fn mixtures_of_good_and_cut_off_bodies_keep_every_promise(
        steps in prop::collection::vec((0..BODIES.len(), any::<u8>(), 0_usize..25), 0..200),
    ) {
        let mut data = Vec::new();
        for (which, step, cut) in steps {
            let (kind, body) = BODIES[which];
            let body = &body[..body.len().saturating_sub(cut % 7)];
            data.extend([kind, step, u8::try_from(body.len()).unwrap()]);
            data.extend_from_slice(body);
        }
        mux::fuzz::segment(&data);
    }

    #[test]
    fn arbitrary_text_is_judged(data in prop::collection::vec(any::<u8>(), 0..500)) {
        mux::fuzz::text(&data);
    }
}

const BODIES: &[(u8, &[u8])] = &[
    (9, &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 1, 0x67, 1, 0, 1, 0x68]),
    (9, &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x28, 0xFC, 0xE1, 0, 1, 0x67, 1, 0, 1, 0x68]),
    (9, &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 7, 0, 0, 0, 1, 0x65]),
    (9, &[0x27, 1, 0xFF, 0, 0, 0, 0, 0, 2, 0x41, 7]),
    (9, &[0x90, b'a', b'v', b'0', b'1', 0x81, 4, 0x0C, 0]),
    (9, &[0x91, b'a', b'v', b'0', b'1', 0x12, 0, 0x0A, 1]),
    (8, &[0xAF, 0, 0x12, 0x10]),
    (8, &[0xAF, 1, 0x21, 0x10, 4, 5]),
    (8, &[0x2F, 0xFF, 0xFB, 0x90, 0x44, 0, 0]),
    (8, &[0x91, b'O', b'p', b'u', b's', 0xFC, 1, 2]),
];
