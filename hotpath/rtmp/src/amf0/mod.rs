//! AMF0 values, and the AMF3 values that appear inside them.
//!
//! | file | what it does |
//! |---|---|
//! | `reader` | borrowing reader with limits on depth, count and string length |
//! | `amf3` | the value behind marker 0x11, turned into the same [`Value`] |
//! | `writer` | values into a `Vec` |
//!
//! For commands and metadata only, never for media. Peers are read leniently: counts of ECMA
//! arrays are hints, a missing end marker is forgiven where the message ends, bytes that are not
//! UTF-8 are replaced. A body in the AMF3 envelope (message types 15 and 17) is one selector
//! byte in front of AMF0; whoever knows the message type skips it.

mod amf3;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{LimitExceeded, Malformed, Place, ProtocolError, Unsupported};

/// AMF0 type markers (AMF 0 §2.1).
pub(crate) mod marker {
    pub(crate) const NUMBER: u8 = 0x00;
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const OBJECT: u8 = 0x03;
    pub(crate) const MOVIE_CLIP: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const UNDEFINED: u8 = 0x06;
    pub(crate) const REFERENCE: u8 = 0x07;
    pub(crate) const ECMA_ARRAY: u8 = 0x08;
    pub(crate) const OBJECT_END: u8 = 0x09;
    pub(crate) const STRICT_ARRAY: u8 = 0x0A;
    pub(crate) const DATE: u8 = 0x0B;
    pub(crate) const LONG_STRING: u8 = 0x0C;
    pub(crate) const UNSUPPORTED: u8 = 0x0D;
    pub(crate) const RECORD_SET: u8 = 0x0E;
    pub(crate) const XML: u8 = 0x0F;
    pub(crate) const TYPED_OBJECT: u8 = 0x10;
    pub(crate) const AVMPLUS: u8 = 0x11;
}

/// Name and value of one property.
pub type Property<'a> = (Cow<'a, str>, Value<'a>);

/// One AMF value. Strings borrow the message unless they had to be repaired.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A double; all integers of AMF3 too.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// A short or long string.
    String(Cow<'a, str>),
    /// An anonymous object, in order of appearance.
    Object(Vec<Property<'a>>),
    /// An associative array.
    EcmaArray(Vec<Property<'a>>),
    /// An array with values only.
    StrictArray(Vec<Value<'a>>),
    /// An object with a class name.
    TypedObject(Cow<'a, str>, Vec<Property<'a>>),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
    /// A value the sender could not express.
    Unsupported,
    /// A reference to an earlier object, by number; not resolved.
    Reference(u32),
    /// Milliseconds since 1970. The time zone of AMF0 is reserved and dropped.
    Date(f64),
    /// An XML document, unparsed.
    Xml(Cow<'a, str>),
    /// AMF3 byte array.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value; numbers count as true unless zero, as some devices send them.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Number(number) => Some(*number != 0.0),
            _ => None,
        }
    }

    /// Properties of an object or associative array.
    pub fn properties(&self) -> Option<&[Property<'a>]> {
        match self {
            Self::Object(properties)
            | Self::EcmaArray(properties)
            | Self::TypedObject(_, properties) => Some(properties),
            _ => None,
        }
    }

    /// Items of a strict array.
    pub fn items(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::StrictArray(items) => Some(items),
            _ => None,
        }
    }

    /// The property called `name`. An exact match is preferred to one that differs in case, which
    /// exists because devices send `tcurl` and the like.
    pub fn property(&self, name: &str) -> Option<&Value<'a>> {
        let properties = self.properties()?;
        let exact = properties.iter().find(|(key, _)| key == name);
        let found =
            exact.or_else(|| properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value)
    }
}

/// Why an AMF body cannot be read. The caller knows where the body came from and turns this into
/// a [`ProtocolError`] by [`into_protocol`](AmfError::into_protocol).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AmfError {
    /// What is wrong.
    pub reason: AmfReason,
    /// Offset in the AMF body, in bytes.
    pub offset: usize,
}

/// What can be wrong with an AMF body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AmfReason {
    /// The body ends inside a value.
    Truncated,
    /// A value is broken: a reference to nothing, an integer too long.
    Value,
    /// A type marker without a meaning here.
    Marker(u8),
    /// Nested deeper than [`AMF_DEPTH_MAX`](crate::limits::AMF_DEPTH_MAX).
    Depth,
    /// More values than [`AMF_ELEMENTS_MAX`](crate::limits::AMF_ELEMENTS_MAX).
    Elements,
    /// A string longer than [`AMF_STRING_BYTES_MAX`](crate::limits::AMF_STRING_BYTES_MAX).
    StringBytes,
}

impl AmfError {
    /// The error of the connection, for a body that was complete at `place`.
    pub fn into_protocol(self, place: Place) -> ProtocolError {
        match self.reason {
            AmfReason::Truncated => ProtocolError::Malformed(Malformed::AmfTruncated, place),
            AmfReason::Value => ProtocolError::Malformed(Malformed::AmfValue, place),
            AmfReason::Marker(byte) => {
                ProtocolError::Unsupported(Unsupported::AmfMarker(byte), place)
            }
            AmfReason::Depth => ProtocolError::LimitExceeded(LimitExceeded::AmfDepth, place),
            AmfReason::Elements => ProtocolError::LimitExceeded(LimitExceeded::AmfElements, place),
            AmfReason::StringBytes => ProtocolError::LimitExceeded(LimitExceeded::AmfString, place),
        }
    }
}

impl fmt::Display for AmfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AMF body unreadable at byte {}: {:?}", self.offset, self.reason)
    }
}

impl core::error::Error for AmfError {}

#[cfg(test)]
mod tests;
