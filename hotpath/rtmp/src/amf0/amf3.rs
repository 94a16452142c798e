//! Reads the AMF3 value behind the AMF0 marker 0x11 into the same [`Value`].
//!
//! Simple values, arrays, objects and byte arrays are read; vectors and dictionaries are refused
//! as unsupported markers, since nothing on an RTMP connection uses them. Tables of strings and
//! classes live for one value, as each value of an envelope restarts AMF3. References to whole
//! objects are reported, not resolved. Text must be UTF-8: a repaired copy could be multiplied by
//! references, a borrow costs nothing however often it is referred to. Limits are those of the AMF0
//! reader that owns
//! the bytes. Spec: AMF 3 §3.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::{AmfError, AmfReason, Property, Reader, Value};

/// AMF3 type markers (AMF 3 §3.1).
mod marker3 {
    pub(super) const UNDEFINED: u8 = 0x00;
    pub(super) const NULL: u8 = 0x01;
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const INTEGER: u8 = 0x04;
    pub(super) const DOUBLE: u8 = 0x05;
    pub(super) const STRING: u8 = 0x06;
    pub(super) const XML_DOCUMENT: u8 = 0x07;
    pub(super) const DATE: u8 = 0x08;
    pub(super) const ARRAY: u8 = 0x09;
    pub(super) const OBJECT: u8 = 0x0A;
    pub(super) const XML: u8 = 0x0B;
    pub(super) const BYTE_ARRAY: u8 = 0x0C;
}

/// What references inside one value point to.
#[derive(Default)]
struct Tables<'a> {
    strings: Vec<&'a str>,
    classes: Vec<Class<'a>>,
}

/// The shape of an object.
#[derive(Clone)]
struct Class<'a> {
    name: &'a str,
    sealed: Vec<&'a str>,
    dynamic: bool,
}

/// Reads one AMF3 value; the reader stands behind the AMF0 marker.
pub(super) fn value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, AmfError> {
    value_with(reader, &mut Tables::default())
}

fn value_with<'a>(reader: &mut Reader<'a>, tables: &mut Tables<'a>) -> Result<Value<'a>, AmfError> {
    reader.count_element()?;
    let marker = reader.cursor.u8().ok_or_else(|| reader.short())?;
    Ok(match marker {
        marker3::UNDEFINED => Value::Undefined,
        marker3::NULL => Value::Null,
        marker3::FALSE => Value::Boolean(false),
        marker3::TRUE => Value::Boolean(true),
        marker3::INTEGER => Value::Number(signed_29(u29(reader)?).into()),
        marker3::DOUBLE => Value::Number(reader.cursor.f64().ok_or_else(|| reader.short())?),
        marker3::STRING => Value::String(Cow::Borrowed(string(reader, tables)?)),
        marker3::XML | marker3::XML_DOCUMENT => match inline(reader)? {
            Inline::Here(length) => Value::Xml(Cow::Borrowed(text(reader, length)?)),
            Inline::Reference(number) => Value::Reference(number),
        },
        marker3::DATE => match inline(reader)? {
            Inline::Here(_) => Value::Date(reader.cursor.f64().ok_or_else(|| reader.short())?),
            Inline::Reference(number) => Value::Reference(number),
        },
        marker3::BYTE_ARRAY => match inline(reader)? {
            Inline::Here(length) => {
                Value::Bytes(reader.cursor.take(length as usize).ok_or_else(|| reader.short())?)
            }
            Inline::Reference(number) => Value::Reference(number),
        },
        marker3::ARRAY => reader.nested(|reader| array(reader, tables))?,
        marker3::OBJECT => reader.nested(|reader| object(reader, tables))?,
        other => return Err(reader.fail(AmfReason::Marker(other))),
    })
}

/// A length, or the number of something seen before.
enum Inline {
    Here(u32),
    Reference(u32),
}

/// Splits the low bit off a 29-bit integer: set means the thing follows here.
fn inline(reader: &mut Reader<'_>) -> Result<Inline, AmfError> {
    let bits = u29(reader)?;
    Ok(if bits & 1 == 1 { Inline::Here(bits >> 1) } else { Inline::Reference(bits >> 1) })
}

/// A variable length unsigned integer of 29 bits: three bytes of seven bits, then one of eight.
fn u29(reader: &mut Reader<'_>) -> Result<u32, AmfError> {
    let mut value = 0_u32;
    for _ in 0..3 {
        let byte = reader.cursor.u8().ok_or_else(|| reader.short())?;
        value = value << 7 | u32::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    let byte = reader.cursor.u8().ok_or_else(|| reader.short())?;
    Ok(value << 8 | u32::from(byte))
}

/// Sign-extends 29 bits.
fn signed_29(value: u32) -> i32 {
    (value << 3).cast_signed() >> 3
}

/// Text of `length` bytes, which must be UTF-8.
fn text<'a>(reader: &mut Reader<'a>, length: u32) -> Result<&'a str, AmfError> {
    match reader.text(length as usize)? {
        Cow::Borrowed(text) => Ok(text),
        Cow::Owned(_) => Err(reader.fail(AmfReason::Value)),
    }
}

fn string<'a>(reader: &mut Reader<'a>, tables: &mut Tables<'a>) -> Result<&'a str, AmfError> {
    match inline(reader)? {
        // The empty string is never put into the table.
        Inline::Here(0) => Ok(""),
        Inline::Here(length) => {
            let text = text(reader, length)?;
            // A table entry costs memory like a value does.
            reader.count_element()?;
            tables.strings.push(text);
            Ok(text)
        }
        Inline::Reference(number) => tables
            .strings
            .get(number as usize)
            .copied()
            .ok_or_else(|| reader.fail(AmfReason::Value)),
    }
}

/// Pairs of name and value, ended by an empty name; forgiving at the end of the body.
fn named<'a>(
    reader: &mut Reader<'a>,
    tables: &mut Tables<'a>,
    properties: &mut Vec<Property<'a>>,
) -> Result<(), AmfError> {
    while !reader.cursor.is_empty() {
        let name = string(reader, tables)?;
        if name.is_empty() {
            break;
        }
        properties.push((Cow::Borrowed(name), value_with(reader, tables)?));
    }
    Ok(())
}

fn array<'a>(reader: &mut Reader<'a>, tables: &mut Tables<'a>) -> Result<Value<'a>, AmfError> {
    let count = match inline(reader)? {
        Inline::Here(count) => count,
        Inline::Reference(number) => return Ok(Value::Reference(number)),
    };
    let mut properties = Vec::new();
    named(reader, tables, &mut properties)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(value_with(reader, tables)?);
    }
    Ok(if properties.is_empty() {
        Value::StrictArray(items)
    } else {
        // Mixed arrays are rare; their unnamed items have no place in an associative one.
        Value::EcmaArray(properties)
    })
}

fn object<'a>(reader: &mut Reader<'a>, tables: &mut Tables<'a>) -> Result<Value<'a>, AmfError> {
    let bits = match inline(reader)? {
        Inline::Here(bits) => bits,
        Inline::Reference(number) => return Ok(Value::Reference(number)),
    };
    let class = class(reader, tables, bits)?;
    let mut properties = Vec::new();
    for name in class.sealed {
        properties.push((Cow::Borrowed(name), value_with(reader, tables)?));
    }
    if class.dynamic {
        named(reader, tables, &mut properties)?;
    }
    Ok(if class.name.is_empty() {
        Value::Object(properties)
    } else {
        Value::TypedObject(Cow::Borrowed(class.name), properties)
    })
}

/// The class of an object, from the bits behind "the object is here".
fn class<'a>(
    reader: &mut Reader<'a>,
    tables: &mut Tables<'a>,
    bits: u32,
) -> Result<Class<'a>, AmfError> {
    if bits & 1 == 0 {
        let known = tables.classes.get((bits >> 1) as usize).cloned();
        return known.ok_or_else(|| reader.fail(AmfReason::Value));
    }
    if bits & 2 != 0 {
        // Externalizable: only its class knows how long it is.
        return Err(reader.fail(AmfReason::Value));
    }
    let dynamic = bits & 4 != 0;
    let name = string(reader, tables)?;
    let mut sealed = Vec::new();
    for _ in 0..bits >> 3 {
        reader.count_element()?;
        sealed.push(string(reader, tables)?);
    }
    reader.count_element()?;
    let class = Class { name, sealed, dynamic };
    tables.classes.push(class.clone());
    Ok(class)
}
