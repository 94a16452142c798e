//! Looking fields of a parsed head up, and the small grammars their values have.
//!
//! Names are compared without case. Nothing here decides what a value means for the request; see
//! `request` and `websocket::handshake`.
//!
//! Spec: RFC 9110 §5.3, §5.6.1, §12.4.2.

use alloc::string::String;

use httparse::Header;

/// The fields of one head, in the order they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [Header<'a>]);

/// A field that may come once came again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Repeated;

impl<'a> Fields<'a> {
    /// Values of all fields with this name.
    pub(crate) fn all(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// True when the field is there.
    pub(crate) fn has(self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    /// Value of a field that must not come twice.
    pub(crate) fn only(self, name: &'static str) -> Result<Option<&'a [u8]>, Repeated> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() { Err(Repeated) } else { Ok(first) }
    }

    /// Value of the first field with this name, as text. What is no UTF-8 is replaced: such texts
    /// are shown and compared, never acted upon.
    pub(crate) fn text(self, name: &'static str) -> Option<String> {
        self.all(name).next().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The list that all fields with this name make together.
    pub(crate) fn joined(self, name: &'static str) -> Option<String> {
        let mut list = self.text(name)?;
        for value in self.all(name).skip(1).filter(|value| !value.is_empty()) {
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(&String::from_utf8_lossy(value));
        }
        Some(list)
    }

    /// Elements of the list that all fields with this name make together; empty ones are left out.
    pub(crate) fn elements(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// True when the list has this element, in any case.
    pub(crate) fn has_element(self, name: &'static str, element: &str) -> bool {
        self.elements(name).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
    }
}

/// True for a word of the grammar: what methods, field names and protocol names are made of.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let is_token_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token_byte)
}

/// A number of decimal digits only. `None` when it is none or beyond 64 bits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if is_number { str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// True when the answer may be coded with gzip.
pub(crate) fn accepts_gzip(fields: Fields<'_>) -> bool {
    let mut by_star = false;
    let mut by_name = None;
    for element in fields.elements("accept-encoding") {
        let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let is_wanted = !parts.any(is_weight_zero);
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            by_name = Some(is_wanted);
        } else if coding == b"*" {
            by_star = is_wanted;
        }
    }
    by_name.unwrap_or(by_star)
}

/// `q=0`, `q=0.`, up to `q=0.000`: not acceptable.
fn is_weight_zero(parameter: &[u8]) -> bool {
    matches!(parameter, [b'q' | b'Q', b'=', b'0', rest @ ..]
        if rest.iter().all(|byte| matches!(byte, b'.' | b'0')))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn header<'a>(name: &'a str, value: &'a str) -> Header<'a> {
        Header { name, value: value.as_bytes() }
    }

    #[test]
    fn lists_are_read_across_fields_without_empty_elements() {
        let headers = [
            header("Connection", "keep-alive, , Upgrade"),
            header("Host", "a"),
            header("connection", "\tclose "),
        ];
        let fields = Fields(&headers);
        let elements = fields.elements("connection").collect::<Vec<_>>();
        assert_eq!(elements, [&b"keep-alive"[..], b"Upgrade", b"close"]);
        assert!(fields.has_element("connection", "upgrade"));
        assert!(!fields.has_element("connection", "keep"));
        assert_eq!(fields.only("connection"), Err(Repeated));
        assert_eq!(fields.only("host"), Ok(Some(&b"a"[..])));
        assert_eq!(fields.joined("Connection").as_deref(), Some("keep-alive, , Upgrade, \tclose "));
    }

    #[test]
    fn numbers_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", "+1", "-1", "1 ", "0x1", "1_0", "18446744073709551616", "1,1"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn gzip_is_accepted_by_name_or_star_unless_its_weight_is_zero() {
        let accepts = |value| accepts_gzip(Fields(&[header("Accept-Encoding", value)]));
        for value in
            ["gzip", "deflate, GZIP;q=0.5", "br, x-gzip", "*", "gzip;q=0.001", "*;q=0, gzip"]
        {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip ; q=0.000", "*, gzip;q=0", "identity", "*;q=0"] {
            assert!(!accepts(value), "{value}");
        }
        assert!(!accepts_gzip(Fields(&[])));
    }

    #[test]
    fn tokens_are_words_without_separators() {
        assert!(is_token(b"X-Tengine-Error"));
        for text in [&b""[..], b"a b", b"a:", b"a\r", b"\xC3\xA4", b"a/b"] {
            assert!(!is_token(text));
        }
    }
}
