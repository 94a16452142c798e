//! H.264 and H.265: configuration records and sequence parameter sets.

use super::VideoConfig;
use super::bits::Bits;
use crate::reader::Cursor;

/// Coded size and what is cut off its edges, in the units of the chroma format.
struct Geometry {
    width: u32,
    height: u32,
    crop: [u32; 4],
    unit_x: u32,
    unit_y: u32,
}

impl Geometry {
    /// Size after cropping; `None` if the numbers contradict each other.
    fn cropped(&self) -> Option<(u32, u32)> {
        let [left, right, top, bottom] = self.crop;
        let cut_x = left.checked_add(right)?.checked_mul(self.unit_x)?;
        let cut_y = top.checked_add(bottom)?.checked_mul(self.unit_y)?;
        Some((self.width.checked_sub(cut_x)?, self.height.checked_sub(cut_y)?))
    }
}

/// AVCDecoderConfigurationRecord.
pub(super) fn avc_config(payload: &[u8]) -> Option<VideoConfig> {
    let mut cursor = Cursor::new(payload);
    cursor.u8()?;
    let profile = cursor.u8()?;
    cursor.u8()?;
    let level = cursor.u8()?;
    cursor.u8()?;
    let sps_count = cursor.u8()? & 0x1F;
    let mut size = None;
    if sps_count > 0 {
        let length = cursor.u16()?;
        size = avc_size(cursor.take(length.into())?);
    }
    let (width, height) = size.unwrap_or_default();
    Some(VideoConfig { width, height, profile, level })
}

/// Profiles whose SPS carries chroma format and scaling lists.
fn has_chroma_fields(profile: u8) -> bool {
    matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

/// Picture size from an H.264 SPS with its NAL header.
fn avc_size(nal: &[u8]) -> Option<(u32, u32)> {
    let (header, rbsp) = nal.split_first()?;
    if header & 0x1F != 7 {
        return None;
    }
    let mut bits = Bits::of_nal(rbsp);
    let profile = bits.small(8)?;
    bits.skip(8 + 8)?;
    bits.ue()?; // seq_parameter_set_id
    let mut chroma_format = 1;
    let mut separate_planes = false;
    if has_chroma_fields(profile) {
        chroma_format = bits.ue()?;
        separate_planes = chroma_format == 3 && bits.bit()?;
        bits.ue()?; // bit_depth_luma_minus8
        bits.ue()?; // bit_depth_chroma_minus8
        bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if bits.bit()? {
            skip_scaling_lists(&mut bits, if chroma_format == 3 { 12 } else { 8 })?;
        }
    }
    skip_frame_numbering(&mut bits)?;
    let width_mbs = bits.ue()?.checked_add(1)?;
    let height_units = bits.ue()?.checked_add(1)?;
    let frames_only = bits.bit()?;
    if !frames_only {
        bits.skip(1)?; // mb_adaptive_frame_field_flag
    }
    bits.skip(1)?; // direct_8x8_inference_flag
    let crop = read_crop(&mut bits)?;
    let fields = if frames_only { 1 } else { 2 };
    let (unit_x, unit_y) = if separate_planes { (1, 1) } else { chroma_units(chroma_format) };
    Geometry {
        width: width_mbs.checked_mul(16)?,
        height: height_units.checked_mul(16)?.checked_mul(fields)?,
        crop,
        unit_x,
        unit_y: unit_y * fields,
    }
    .cropped()
}

fn skip_scaling_lists(bits: &mut Bits<'_>, count: u32) -> Option<()> {
    for list in 0..count {
        if !bits.bit()? {
            continue;
        }
        let size = if list < 6 { 16 } else { 64 };
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..size {
            if next != 0 {
                next = (last + bits.se()?).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Some(())
}

/// From log2_max_frame_num to gaps_in_frame_num.
fn skip_frame_numbering(bits: &mut Bits<'_>) -> Option<()> {
    bits.ue()?; // log2_max_frame_num_minus4
    match bits.ue()? {
        0 => {
            bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.skip(1)?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            let cycle = bits.ue()?;
            // The specification allows no more than 255.
            for _ in 0..cycle.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?; // max_num_ref_frames
    bits.skip(1)
}

/// The four offsets of a cropping or conformance window, zero if there is none.
fn read_crop(bits: &mut Bits<'_>) -> Option<[u32; 4]> {
    if !bits.bit()? {
        return Some([0; 4]);
    }
    Some([bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?])
}

/// Luma samples per cropping unit, across and down.
fn chroma_units(chroma_format: u32) -> (u32, u32) {
    match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    }
}

/// HEVCDecoderConfigurationRecord.
pub(super) fn hevc_config(payload: &[u8]) -> Option<VideoConfig> {
    let mut cursor = Cursor::new(payload);
    cursor.u8()?;
    let profile = cursor.u8()? & 0x1F;
    cursor.take(4 + 6)?; // compatibility and constraint flags
    let level = cursor.u8()?;
    cursor.take(9)?;
    let mut config = VideoConfig { width: 0, height: 0, profile, level };
    let arrays = cursor.u8()?;
    for _ in 0..arrays {
        let Some(nal_type) = cursor.u8() else { break };
        let Some(count) = cursor.u16() else { break };
        for _ in 0..count {
            let Some(length) = cursor.u16() else { break };
            let Some(nal) = cursor.take(length.into()) else { break };
            if nal_type & 0x3F == 33
                && let Some((width, height)) = hevc_size(nal)
            {
                (config.width, config.height) = (width, height);
                return Some(config);
            }
        }
    }
    Some(config)
}

/// Picture size from an H.265 SPS with its NAL header.
fn hevc_size(nal: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::of_nal(nal.get(2..)?);
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.bits(3)?; // beyond the first
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma_format = bits.ue()?;
    let separate_planes = chroma_format == 3 && bits.bit()?;
    let (width, height) = (bits.ue()?, bits.ue()?);
    let crop = read_crop(&mut bits)?;
    let (unit_x, unit_y) = if separate_planes { (1, 1) } else { chroma_units(chroma_format) };
    Geometry { width, height, crop, unit_x, unit_y }.cropped()
}

fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    const PROFILE_BITS: u32 = 88;
    const LEVEL_BITS: u32 = 8;
    bits.skip(PROFILE_BITS + LEVEL_BITS)?;
    let mut later_bits = 0;
    for _ in 0..sub_layers {
        later_bits += if bits.bit()? { PROFILE_BITS } else { 0 };
        later_bits += if bits.bit()? { LEVEL_BITS } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(later_bits)
}
