//! AAC, Opus and FLAC configurations.

use super::AudioConfig;
use super::bits::Bits;
use crate::reader::Cursor;

/// Sample rates by index (ISO 14496-3 table 1.18).
const AAC_RATES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// Object types that wrap another one and double its sample rate.
const SPECTRAL_BAND_REPLICATION: u8 = 5;
const PARAMETRIC_STEREO: u8 = 29;

/// AudioSpecificConfig.
pub(super) fn aac_config(payload: &[u8]) -> Option<AudioConfig> {
    let mut bits = Bits::new(payload);
    let profile = aac_object_type(&mut bits)?;
    let mut rate_hz = aac_rate(&mut bits)?;
    let channels = match bits.small(4)? {
        count @ 0..=6 => count,
        7 => 8,
        11 => 7,
        12 | 14 => 8,
        _ => 0,
    };
    if matches!(profile, SPECTRAL_BAND_REPLICATION | PARAMETRIC_STEREO) {
        rate_hz = aac_rate(&mut bits)?;
    }
    // Parametric stereo makes two channels of one.
    let channels = if profile == PARAMETRIC_STEREO && channels == 1 { 2 } else { channels };
    Some(AudioConfig { rate_hz, channels, profile })
}

fn aac_object_type(bits: &mut Bits<'_>) -> Option<u8> {
    match bits.small(5)? {
        31 => Some(32 + bits.small(6)?),
        object_type => Some(object_type),
    }
}

fn aac_rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.bits(4)? {
        15 => bits.bits(24),
        index => AAC_RATES_HZ.get(index as usize).copied(),
    }
}

/// Opus identification header; decoders always produce 48 kHz.
pub(super) fn opus_config(payload: &[u8]) -> Option<AudioConfig> {
    let mut cursor = Cursor::new(payload);
    if cursor.take(8)? != b"OpusHead" {
        return None;
    }
    cursor.u8()?; // version
    let channels = cursor.u8()?;
    Some(AudioConfig { rate_hz: 48_000, channels, profile: 0 })
}

/// STREAMINFO, behind the stream marker or alone.
pub(super) fn flac_config(payload: &[u8]) -> Option<AudioConfig> {
    let payload = payload.strip_prefix(b"fLaC").unwrap_or(payload);
    let mut bits = Bits::new(payload);
    bits.skip(1)?;
    if bits.bits(7)? != 0 {
        return None;
    }
    // Block length; block and frame sizes.
    bits.skip(24 + 16 + 16 + 24 + 24)?;
    let rate_hz = bits.bits(20)?;
    let channels = bits.small(3)? + 1;
    Some(AudioConfig { rate_hz, channels, profile: 0 })
}
