//! AV1: configuration record and sequence header.

use super::VideoConfig;
use super::bits::Bits;
use crate::reader::Cursor;

const OBU_SEQUENCE_HEADER: u8 = 1;

/// AV1CodecConfigurationRecord.
pub(super) fn av1_config(payload: &[u8]) -> Option<VideoConfig> {
    let mut cursor = Cursor::new(payload);
    cursor.u8()?;
    let profile_level = cursor.u8()?;
    cursor.take(2)?;
    let (width, height) = sequence_header(cursor).and_then(av1_size).unwrap_or_default();
    Some(VideoConfig { width, height, profile: profile_level >> 5, level: profile_level & 0x1F })
}

/// The first sequence header among the OBUs.
fn sequence_header(mut obus: Cursor<'_>) -> Option<&[u8]> {
    loop {
        let header = obus.u8()?;
        if header & 0x04 != 0 {
            obus.u8()?; // extension
        }
        let has_size = header & 0x02 != 0;
        let size = if has_size { leb128(&mut obus)? } else { obus.rest().len() };
        let body = obus.take(size)?;
        if header >> 3 & 0x0F == OBU_SEQUENCE_HEADER {
            return Some(body);
        }
    }
}

/// A little-endian number of seven bits a byte.
fn leb128(cursor: &mut Cursor<'_>) -> Option<usize> {
    let mut value = 0_u64;
    for shift in 0..8 {
        let byte = cursor.u8()?;
        value |= u64::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

/// Largest picture size from a sequence header.
fn av1_size(body: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::new(body);
    bits.skip(3 + 1)?; // seq_profile, still_picture
    let reduced = bits.bit()?;
    if reduced {
        bits.skip(5)?; // seq_level_idx
    } else {
        skip_operating_points(&mut bits)?;
    }
    let width_bits = bits.bits(4)? + 1;
    let height_bits = bits.bits(4)? + 1;
    Some((bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1))
}

fn skip_operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut delay_bits = None;
    if bits.bit()? {
        bits.skip(32 + 32)?; // num_units_in_display_tick, time_scale
        if bits.bit()? {
            bits.ue()?; // num_ticks_per_picture_minus_1, the same code as Exp-Golomb
        }
        if bits.bit()? {
            delay_bits = Some(bits.bits(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let display_delay = bits.bit()?;
    let points = bits.bits(5)? + 1;
    for _ in 0..points {
        bits.skip(12)?; // operating_point_idc
        if bits.bits(5)? > 7 {
            bits.skip(1)?; // seq_tier
        }
        if let Some(delay_bits) = delay_bits
            && bits.bit()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if display_delay && bits.bit()? {
            bits.skip(4)?;
        }
    }
    Some(())
}
