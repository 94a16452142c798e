//! Bodies of the fuzz targets, here so that a change of the crate that breaks one fails to
//! compile instead of failing at night. Each asserts more than "does not panic".

use alloc::string::String;

use crate::playlist::query::Reload;
use crate::playlist::window::{Window, WindowSettings};
use crate::playlist::{MediaPlaylist, Names, validate};
use crate::segment::{Container, Event, Output, PART_BYTES_MAX, Segmenter, Settings};

/// Messages from `data`: kind, time step, length, body. Both containers.
///
/// # Panics
/// When the segmenter breaks a promise.
pub fn segment(data: &[u8]) {
    for container in [Container::Ts, Container::Fmp4] {
        let settings = Settings { sound_alone: true, ..Settings::new(container) };
        let mut segmenter = Segmenter::new(settings);
        let mut window = Window::new(WindowSettings::default());
        let mut out = Output::default();
        let mut rest = data;
        let mut timestamp = 0_u32;
        while let Some((&[kind, step, length], after)) = rest.split_first_chunk::<3>() {
            let (body, after) = after.split_at(usize::from(length).min(after.len()));
            rest = after;
            timestamp = match step {
                0xFF => timestamp.wrapping_sub(500),
                0xFE => timestamp.wrapping_add(1 << 30),
                step => timestamp.wrapping_add(u32::from(step) * 4),
            };
            let kind = if kind & 1 == 0 { 8 } else { 9 };
            segmenter.push(kind, timestamp, body, timestamp.into(), &mut out);
            check(&out, container, &mut window, data.len());
            out.clear();
        }
        segmenter.finish(&mut out);
        check(&out, container, &mut window, data.len());
        let names = Names { container, prefix: "", query: "" };
        let target_ms = settings.segment_ms_max;
        let playlist =
            MediaPlaylist { target_ms, part_target_ms: None, ended: true, skip: false, names };
        let mut text = String::new();
        playlist.write(&window, &mut text);
        assert!(validate::media(&text).is_empty(), "{text}\n{:?}", validate::media(&text));
    }
}

/// Events are well formed: ranges in place, transport packets whole, sizes bounded.
fn check(out: &Output, container: Container, window: &mut Window, fed: usize) {
    for event in &out.events {
        if let Event::Part { bytes, duration_ms, sound, .. } = event {
            assert!(*duration_ms > 0);
            assert!(bytes.end <= out.bytes.len() && sound.end <= out.sound.len());
            let sound = out.sound.get(sound.clone()).unwrap_or_default();
            let bytes = out.bytes.get(bytes.clone()).unwrap_or_default();
            for bytes in [bytes, sound] {
                assert!(bytes.len() <= PART_BYTES_MAX + 256 * (fed + 1) * 8, "part too large");
                let is_packets =
                    || bytes.chunks(188).all(|p| p.len() == 188 && p.first() == Some(&0x47));
                assert!(container == Container::Fmp4 || is_packets());
            }
        }
        window.apply(event);
    }
}

/// Any text as playlist and as query.
///
/// # Panics
/// When a line number is outside the text.
pub fn text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count();
    for finding in validate::media(&text).iter().chain(&validate::multivariant(&text)) {
        assert!(finding.line <= lines.max(1), "a finding behind the end");
    }
    if let Ok(reload) = Reload::parse(&text) {
        assert!(reload.part.is_none() || reload.msn.is_some());
    }
}
