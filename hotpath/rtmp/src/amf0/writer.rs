//! Writes AMF0 values behind each other into a `Vec`.
//!
//! For replies and commands, which are small and rare. Spec: AMF 0 §2.

use alloc::vec::Vec;

use super::{Value, marker};

/// Writer at the end of a body.
///
/// Objects and arrays are the caller's to close; what is inside is written by the same methods:
///
/// ```
/// let mut body = Vec::new();
/// let mut amf = rtmp::amf0::Writer::new(&mut body);
/// amf.object_begin();
/// amf.key("level");
/// amf.string("status");
/// amf.object_end();
/// assert_eq!(body.len(), 1 + 7 + 9 + 3);
/// ```
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    /// A writer that appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A number.
    pub fn number(&mut self, value: f64) {
        self.out.push(marker::NUMBER);
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A truth value.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(&[marker::BOOLEAN, u8::from(value)]);
    }

    /// A string; long ones get the long form.
    pub fn string(&mut self, value: &str) {
        match u16::try_from(value.len()) {
            Ok(length) => {
                self.out.push(marker::STRING);
                self.out.extend_from_slice(&length.to_be_bytes());
                self.out.extend_from_slice(value.as_bytes());
            }
            Err(_) => {
                self.out.push(marker::LONG_STRING);
                self.long_text(value);
            }
        }
    }

    /// Null.
    pub fn null(&mut self) {
        self.out.push(marker::NULL);
    }

    /// Undefined.
    pub fn undefined(&mut self) {
        self.out.push(marker::UNDEFINED);
    }

    /// Opens an object; [`key`](Self::key) and a value for each property follow.
    pub fn object_begin(&mut self) {
        self.out.push(marker::OBJECT);
    }

    /// Opens an associative array of about `count` properties.
    pub fn ecma_array_begin(&mut self, count: u32) {
        self.out.push(marker::ECMA_ARRAY);
        self.out.extend_from_slice(&count.to_be_bytes());
    }

    /// Name of the next property; cut to the 65,535 bytes a name can have.
    pub fn key(&mut self, name: &str) {
        let end = name.floor_char_boundary(usize::from(u16::MAX));
        let (name, _) = name.split_at(end);
        let length = u16::try_from(end).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(name.as_bytes());
    }

    /// Closes an object or associative array.
    pub fn object_end(&mut self) {
        self.out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
    }

    /// Opens an array of exactly `count` values, which follow; it needs no closing.
    pub fn strict_array_begin(&mut self, count: u32) {
        self.out.push(marker::STRICT_ARRAY);
        self.out.extend_from_slice(&count.to_be_bytes());
    }

    /// A whole value. Byte arrays, which AMF0 lacks, become unsupported.
    pub fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Number(number) => self.number(*number),
            Value::Boolean(value) => self.boolean(*value),
            Value::String(text) => self.string(text),
            Value::Null => self.null(),
            Value::Undefined => self.undefined(),
            Value::Unsupported | Value::Bytes(_) => self.out.push(marker::UNSUPPORTED),
            Value::Reference(number) => match u16::try_from(*number) {
                Ok(number) => {
                    self.out.push(marker::REFERENCE);
                    self.out.extend_from_slice(&number.to_be_bytes());
                }
                Err(_) => self.out.push(marker::UNSUPPORTED),
            },
            Value::Date(date) => {
                self.out.push(marker::DATE);
                self.out.extend_from_slice(&date.to_be_bytes());
                self.out.extend_from_slice(&[0, 0]);
            }
            Value::Xml(text) => {
                self.out.push(marker::XML);
                self.long_text(text);
            }
            Value::Object(properties) => {
                self.object_begin();
                self.properties(properties);
            }
            Value::EcmaArray(properties) => {
                self.ecma_array_begin(u32::try_from(properties.len()).unwrap_or(0));
                self.properties(properties);
            }
            Value::TypedObject(class, properties) => {
                self.out.push(marker::TYPED_OBJECT);
                self.key(class);
                self.properties(properties);
            }
            Value::StrictArray(items) => {
                self.strict_array_begin(u32::try_from(items.len()).unwrap_or(0));
                for item in items {
                    self.value(item);
                }
            }
        }
    }

    fn properties(&mut self, properties: &[super::Property<'_>]) {
        for (name, value) in properties {
            self.key(name);
            self.value(value);
        }
        self.object_end();
    }

    /// Text with a 32-bit length. Text beyond that does not exist in memory here.
    fn long_text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(text.as_bytes());
    }
}
