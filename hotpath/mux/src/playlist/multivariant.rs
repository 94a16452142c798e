//! The multivariant playlist: what renditions there are. Spec: RFC 8216bis §4.4.6.2.

use alloc::string::String;
use core::fmt::{self, Write};

/// One rendition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant<'a> {
    /// Address of its media playlist. Must not contain line breaks.
    pub uri: &'a str,
    /// Peak bit rate in bits a second; at least 1 is written.
    pub bandwidth: u64,
    /// Codec names, as the segmenter tells them.
    pub codecs: &'a str,
    /// Width and height in pixels; left out if 0.
    pub resolution: (u32, u32),
}

/// Appends the playlist of `variants` to `out`.
pub fn write(variants: &[Variant<'_>], independent: bool, out: &mut String) {
    // Writing to a string cannot fail.
    let _infallible = try_write(variants, independent, out);
}

fn try_write(variants: &[Variant<'_>], independent: bool, out: &mut String) -> fmt::Result {
    out.write_str("#EXTM3U\n#EXT-X-VERSION:6\n")?;
    if independent {
        out.write_str("#EXT-X-INDEPENDENT-SEGMENTS\n")?;
    }
    for variant in variants {
        write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={}", variant.bandwidth.max(1))?;
        if !variant.codecs.is_empty() {
            write!(out, ",CODECS=\"{}\"", variant.codecs)?;
        }
        if let (width @ 1.., height @ 1..) = variant.resolution {
            write!(out, ",RESOLUTION={width}x{height}")?;
        }
        write!(out, "\n{}\n", variant.uri)?;
    }
    Ok(())
}
