//! Reads AMF0 values from one message body, within limits.
//!
//! Never reads past the body, never recurses deeper than a limit, never trusts a count: memory
//! grows by values actually present. Called by sessions for commands and metadata.
//! Spec: AMF 0 §2.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::{AmfError, AmfReason, Property, Value, amf3, marker};
use crate::limits::{AMF_DEPTH_MAX, AMF_ELEMENTS_MAX, AMF_STRING_BYTES_MAX};
use crate::reader::Cursor;

/// Reader over the values of one body.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    pub(super) cursor: Cursor<'a>,
    elements: u32,
    depth: u32,
}

/// How a property list ends.
enum Key<'a> {
    Named(Cow<'a, str>),
    End,
}

impl<'a> Reader<'a> {
    /// A reader at the first value.
    pub fn new(body: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(body), elements: 0, depth: 0 }
    }

    /// The next value; `None` at the end of the body.
    ///
    /// # Errors
    /// When the value is truncated, broken, or beyond a limit. Nothing after it can be read then.
    pub fn next_value(&mut self) -> Result<Option<Value<'a>>, AmfError> {
        match self.cursor.u8() {
            Some(marker) => self.value(marker).map(Some),
            None => Ok(None),
        }
    }

    /// The next value if it is a string: the name of a command or of a data message. Takes
    /// nothing otherwise.
    ///
    /// # Errors
    /// As [`next_value`](Self::next_value).
    pub fn next_string(&mut self) -> Result<Option<Cow<'a, str>>, AmfError> {
        match self.cursor.peek() {
            Some(marker::STRING | marker::LONG_STRING | marker::AVMPLUS) => {}
            _ => return Ok(None),
        }
        let before = self.clone();
        match self.next_value()? {
            Some(Value::String(text)) => Ok(Some(text)),
            _ => {
                *self = before;
                Ok(None)
            }
        }
    }

    /// Offset of the next value in the body, in bytes.
    pub fn position(&self) -> usize {
        self.cursor.position()
    }

    /// The bytes from the next value on.
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }

    /// The value behind `marker`.
    fn value(&mut self, marker: u8) -> Result<Value<'a>, AmfError> {
        self.count_element()?;
        Ok(match marker {
            marker::NUMBER => Value::Number(self.number()?),
            marker::BOOLEAN => Value::Boolean(self.cursor.u8().ok_or_else(|| self.short())? != 0),
            marker::STRING => Value::String(self.short_string()?),
            marker::LONG_STRING => Value::String(self.long_string()?),
            marker::XML => Value::Xml(self.long_string()?),
            marker::NULL => Value::Null,
            marker::UNDEFINED => Value::Undefined,
            marker::UNSUPPORTED | marker::MOVIE_CLIP | marker::RECORD_SET => Value::Unsupported,
            marker::REFERENCE => {
                Value::Reference(self.cursor.u16().ok_or_else(|| self.short())?.into())
            }
            marker::DATE => {
                let date = self.number()?;
                self.cursor.u16().ok_or_else(|| self.short())?;
                Value::Date(date)
            }
            marker::OBJECT => Value::Object(self.nested(Self::properties)?),
            marker::ECMA_ARRAY => {
                // The count is a hint that many encoders leave at 0.
                self.cursor.u32().ok_or_else(|| self.short())?;
                Value::EcmaArray(self.nested(Self::properties)?)
            }
            marker::TYPED_OBJECT => {
                let class = self.short_string()?;
                Value::TypedObject(class, self.nested(Self::properties)?)
            }
            marker::STRICT_ARRAY => {
                let count = self.cursor.u32().ok_or_else(|| self.short())?;
                Value::StrictArray(self.nested(|reader| reader.items(count))?)
            }
            marker::AVMPLUS => self.nested(amf3::value)?,
            other => return Err(self.fail(AmfReason::Marker(other))),
        })
    }

    /// Properties up to the end marker, or up to the end of the body.
    fn properties(&mut self) -> Result<Vec<Property<'a>>, AmfError> {
        let mut properties = Vec::new();
        while let Key::Named(name) = self.key()? {
            // A name at the very end of the body is a property cut off, not an error.
            let Some(marker) = self.cursor.u8() else { break };
            properties.push((name, self.value(marker)?));
        }
        Ok(properties)
    }

    /// The name of the next property.
    fn key(&mut self) -> Result<Key<'a>, AmfError> {
        if self.cursor.is_empty() {
            return Ok(Key::End);
        }
        let rest = self.cursor.rest();
        if let [0, 0, marker::OBJECT_END, ..] = rest {
            self.cursor.take(3);
            return Ok(Key::End);
        }
        // An end marker that was cut off together with the message.
        if matches!(rest, [0] | [0, 0]) {
            self.cursor.take(rest.len());
            return Ok(Key::End);
        }
        self.short_string().map(Key::Named)
    }

    /// `count` values, or fewer if the body ends before.
    fn items(&mut self, count: u32) -> Result<Vec<Value<'a>>, AmfError> {
        let mut items = Vec::new();
        for _ in 0..count {
            let Some(value) = self.next_value()? else { break };
            items.push(value);
        }
        Ok(items)
    }

    fn number(&mut self) -> Result<f64, AmfError> {
        self.cursor.f64().ok_or_else(|| self.short())
    }

    fn short_string(&mut self) -> Result<Cow<'a, str>, AmfError> {
        let length = self.cursor.u16().ok_or_else(|| self.short())?;
        self.text(length.into())
    }

    fn long_string(&mut self) -> Result<Cow<'a, str>, AmfError> {
        let length = self.cursor.u32().ok_or_else(|| self.short())?;
        self.text(length as usize)
    }

    /// Text of `length` bytes; what is not UTF-8 is replaced.
    pub(super) fn text(&mut self, length: usize) -> Result<Cow<'a, str>, AmfError> {
        if length > AMF_STRING_BYTES_MAX {
            return Err(self.fail(AmfReason::StringBytes));
        }
        let bytes = self.cursor.take(length).ok_or_else(|| self.short())?;
        Ok(String::from_utf8_lossy(bytes))
    }

    /// Runs `read` one level deeper.
    pub(super) fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, AmfError>,
    ) -> Result<T, AmfError> {
        if self.depth >= AMF_DEPTH_MAX {
            return Err(self.fail(AmfReason::Depth));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// Counts one value against the limit of the body.
    pub(super) fn count_element(&mut self) -> Result<(), AmfError> {
        self.elements += 1;
        if self.elements > AMF_ELEMENTS_MAX {
            return Err(self.fail(AmfReason::Elements));
        }
        Ok(())
    }

    pub(super) fn short(&self) -> AmfError {
        self.fail(AmfReason::Truncated)
    }

    pub(super) fn fail(&self, reason: AmfReason) -> AmfError {
        AmfError { reason, offset: self.cursor.position() }
    }
}
