//! Attribute lists and numbers (RFC 8216bis §4.2).

use alloc::vec::Vec;

/// A parsed attribute list.
#[derive(Debug, Default)]
pub(super) struct Attributes<'t> {
    list: Vec<(&'t str, &'t str)>,
}

impl<'t> Attributes<'t> {
    /// Names in capitals, each once, values quoted or without commas and quotes.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let mut list: Vec<(&str, &str)> = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = rest.split_once('=')?;
            let legal = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-');
            if name.is_empty() || !name.bytes().all(legal) {
                return None;
            }
            let end = match after.strip_prefix('"') {
                Some(inside) => inside.find('"')? + 2,
                None => after.find(',').unwrap_or(after.len()),
            };
            let (value, after) = after.split_at_checked(end)?;
            let quoted = value.starts_with('"');
            if value.is_empty() || (!quoted && value.contains(['"', ' '])) {
                return None;
            }
            if list.iter().any(|(known, _)| *known == name) {
                return None;
            }
            list.push((name, value));
            if after.is_empty() {
                return Some(Self { list });
            }
            rest = after.strip_prefix(',')?;
        }
    }

    /// The raw value.
    pub(super) fn value(&self, name: &str) -> Option<&'t str> {
        self.list.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// A value between quotes that is not empty.
    pub(super) fn quoted(&self, name: &str) -> Option<&'t str> {
        let inside = self.value(name)?.strip_prefix('"')?.strip_suffix('"')?;
        (!inside.is_empty()).then_some(inside)
    }

    pub(super) fn integer(&self, name: &str) -> Option<u64> {
        integer(self.value(name)?)
    }

    pub(super) fn millis(&self, name: &str) -> Option<u64> {
        millis(self.value(name)?)
    }

    /// True if it is not there, or says YES.
    pub(super) fn yes_or_absent(&self, name: &str) -> bool {
        self.value(name).is_none_or(|value| value == "YES")
    }
}

/// A decimal integer of at most 20 digits.
pub(super) fn integer(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Seconds with up to three digits behind the point that count, in milliseconds.
pub(super) fn millis(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = integer(whole)?;
    integer(fraction)?;
    let mut thousandths = 0;
    for at in 0..3 {
        let digit = fraction.as_bytes().get(at).map_or(0, |byte| byte - b'0');
        thousandths = thousandths * 10 + u64::from(digit);
    }
    whole.checked_mul(1000)?.checked_add(thousandths)
}
