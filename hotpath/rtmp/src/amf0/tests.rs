//! Wire tables of the AMF0 reader and writer.

use alloc::vec;
use alloc::vec::Vec;
use std::string::ToString;

use super::*;
use crate::limits::{AMF_DEPTH_MAX, AMF_ELEMENTS_MAX};

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn read_one(text: &str) -> Result<Value<'static>, AmfReason> {
    let body: &'static [u8] = hex(text).leak();
    let mut reader = Reader::new(body);
    let value = reader.next_value().map_err(|error| error.reason)?;
    assert!(reader.rest().is_empty(), "bytes left of {text}");
    Ok(value.expect("a value"))
}

fn text(value: &'static str) -> Value<'static> {
    Value::String(value.into())
}

#[test]
fn every_marker_reads_as_its_value() {
    #[rustfmt::skip]
    let rows = [
        ("00 3F F0 00 00 00 00 00 00", Value::Number(1.0)),
        ("01 01", Value::Boolean(true)),
        ("02 00 04 6C 69 76 65", text("live")),
        ("03 00 01 61 05 00 00 09", Value::Object(vec![("a".into(), Value::Null)])),
        ("04", Value::Unsupported),
        ("05", Value::Null),
        ("06", Value::Undefined),
        ("07 00 02", Value::Reference(2)),
        ("08 00 00 00 07 00 01 61 06 00 00 09", Value::EcmaArray(vec![("a".into(), Value::Undefined)])),
        ("0A 00 00 00 02 05 06", Value::StrictArray(vec![Value::Null, Value::Undefined])),
        ("0B 3F F0 00 00 00 00 00 00 00 3C", Value::Date(1.0)),
        ("0C 00 00 00 02 68 69", text("hi")),
        ("0D", Value::Unsupported),
        ("0E", Value::Unsupported),
        ("0F 00 00 00 02 3C 3E", Value::Xml("<>".into())),
        ("10 00 01 43 00 01 61 05 00 00 09", Value::TypedObject("C".into(), vec![("a".into(), Value::Null)])),
        ("11 00", Value::Undefined),
        ("11 01", Value::Null),
        ("11 02", Value::Boolean(false)),
        ("11 03", Value::Boolean(true)),
        ("11 04 7F", Value::Number(127.0)),
        ("11 04 81 00", Value::Number(128.0)),
        ("11 04 FF FF FF FF", Value::Number(-1.0)),
        ("11 04 BF FF FF FF", Value::Number(268_435_455.0)),
        ("11 05 3F F0 00 00 00 00 00 00", Value::Number(1.0)),
        ("11 06 09 6C 69 76 65", text("live")),
        ("11 06 01", text("")),
        ("11 08 01 3F F0 00 00 00 00 00 00", Value::Date(1.0)),
        ("11 09 05 01 01 03", Value::StrictArray(vec![Value::Null, Value::Boolean(true)])),
        // The second string is the first by reference.
        ("11 09 05 01 06 03 61 06 00", Value::StrictArray(vec![text("a"), text("a")])),
        ("11 0A 0B 01 03 61 01 01", Value::Object(vec![("a".into(), Value::Null)])),
        (
            "11 0A 13 03 43 03 61 04 05",
            Value::TypedObject("C".into(), vec![("a".into(), Value::Number(5.0))]),
        ),
        ("11 0C 05 01 02", Value::Bytes(&[1, 2])),
    ];
    for (bytes, value) in rows {
        assert_eq!(read_one(bytes), Ok(value), "{bytes}");
    }
}

#[test]
fn broken_values_are_told_apart() {
    #[rustfmt::skip]
    let rows = [
        ("00 3F F0", AmfReason::Truncated),
        ("01", AmfReason::Truncated),
        ("02 00 04 6C", AmfReason::Truncated),
        ("02 00", AmfReason::Truncated),
        ("03 00 05 61", AmfReason::Truncated),
        ("0A 00 00", AmfReason::Truncated),
        ("0C FF FF FF FF", AmfReason::StringBytes),
        ("11", AmfReason::Truncated),
        ("11 06 00", AmfReason::Value),
        ("11 06 03 FF", AmfReason::Value),
        ("11 0A 01", AmfReason::Value),
        ("11 0A 07 03 43", AmfReason::Value),
        ("11 0D 01", AmfReason::Marker(0x0D)),
        ("12", AmfReason::Marker(0x12)),
        ("09", AmfReason::Marker(0x09)),
        ("FF", AmfReason::Marker(0xFF)),
    ];
    for (bytes, reason) in rows {
        assert_eq!(read_one(bytes), Err(reason), "{bytes}");
    }
}

#[test]
fn a_missing_end_marker_is_forgiven_at_the_end_of_the_body() {
    let object = Ok(Value::Object(vec![("a".into(), Value::Boolean(true))]));
    assert_eq!(read_one("03 00 01 61 01 01"), object);
    assert_eq!(read_one("03 00 01 61 01 01 00"), object);
    assert_eq!(read_one("03 00 01 61 01 01 00 00"), object);
    assert_eq!(read_one("03 00 01 61 01 01 00 01 62"), object);
    let array = Ok(Value::EcmaArray(vec![("a".into(), Value::Boolean(true))]));
    assert_eq!(read_one("08 00 00 00 00 00 01 61 01 01"), array);
    assert_eq!(read_one("0A 00 00 00 09 05"), Ok(Value::StrictArray(vec![Value::Null])));
}

#[test]
fn an_empty_property_name_is_not_an_end_marker() {
    let read = read_one("03 00 00 05 00 01 61 05 00 00 09");
    let wanted = vec![("".into(), Value::Null), ("a".into(), Value::Null)];
    assert_eq!(read, Ok(Value::Object(wanted)));
}

#[test]
fn text_that_is_not_utf_8_is_repaired() {
    assert_eq!(read_one("02 00 03 61 FF 62"), Ok(Value::String("a\u{FFFD}b".into())));
}

#[test]
fn depth_is_bounded_in_both_formats() {
    let open = AMF_DEPTH_MAX as usize;
    let mut body = Vec::new();
    for _ in 0..open {
        body.extend([0x0A, 0, 0, 0, 1]);
    }
    body.push(0x05);
    assert!(Reader::new(&body).next_value().is_ok());
    body.splice(0..0, [0x0A, 0, 0, 0, 1]);
    assert_eq!(Reader::new(&body).next_value().unwrap_err().reason, AmfReason::Depth);

    let mut body = vec![0x11];
    for _ in 0..open {
        body.extend([0x09, 0x03, 0x01]);
    }
    assert_eq!(Reader::new(&body).next_value().unwrap_err().reason, AmfReason::Depth);
}

#[test]
fn count_is_bounded_whatever_the_array_claims() {
    let mut body = vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF];
    body.resize(body.len() + AMF_ELEMENTS_MAX as usize - 1, 0x05);
    let mut reader = Reader::new(&body);
    assert!(reader.next_value().is_ok());
    body.push(0x05);
    assert_eq!(Reader::new(&body).next_value().unwrap_err().reason, AmfReason::Elements);
}

#[test]
fn the_name_of_a_message_is_taken_only_if_it_is_a_string() {
    let body = hex("02 00 01 61 05");
    let mut reader = Reader::new(&body);
    assert_eq!(reader.next_string(), Ok(Some("a".into())));
    assert_eq!(reader.next_string(), Ok(None));
    assert_eq!(reader.position(), 4);
    let body = hex("11 04 01");
    let mut reader = Reader::new(&body);
    assert_eq!(reader.next_string(), Ok(None));
    assert_eq!(reader.next_value(), Ok(Some(Value::Number(1.0))));
    assert_eq!(reader.next_value(), Ok(None));
}

#[test]
fn a_property_is_found_by_exact_name_first_then_in_any_case() {
    let value = Value::Object(vec![
        ("TCURL".into(), Value::Number(1.0)),
        ("tcUrl".into(), Value::Number(2.0)),
    ]);
    assert_eq!(value.property("tcUrl").and_then(Value::as_number), Some(2.0));
    assert_eq!(value.property("tcurl").and_then(Value::as_number), Some(1.0));
    assert_eq!(value.property("app"), None);
}

#[test]
fn written_values_read_back_the_same() {
    let long = "x".repeat(65_536);
    let value = Value::Object(vec![
        ("number".into(), Value::Number(-0.5)),
        ("long".into(), Value::String(long.into())),
        ("list".into(), Value::StrictArray(vec![text("avc1"), Value::Undefined])),
        ("map".into(), Value::EcmaArray(vec![("*".into(), Value::Number(4.0))])),
        ("typed".into(), Value::TypedObject("T".into(), vec![])),
        ("date".into(), Value::Date(7.0)),
        ("xml".into(), Value::Xml("<a/>".into())),
        ("reference".into(), Value::Reference(3)),
        ("odd".into(), Value::Unsupported),
        ("yes".into(), Value::Boolean(true)),
    ]);
    let mut body = Vec::new();
    Writer::new(&mut body).value(&value);
    assert_eq!(Reader::new(&body).next_value(), Ok(Some(value)));
}

#[test]
fn a_repaired_name_that_grew_too_long_is_cut_when_written() {
    let mut body = vec![0x03, 0xFF, 0xFF];
    body.resize(3 + 65_535, 0xFF);
    body.extend([0x05, 0, 0, 9]);
    let value = Reader::new(&body).next_value().unwrap().unwrap();
    let mut out = Vec::new();
    Writer::new(&mut out).value(&value);
    let read = Reader::new(&out).next_value().unwrap().unwrap();
    let [(name, Value::Null)] = read.properties().unwrap() else { panic!("one property") };
    assert_eq!(name.len(), 65_535);
}

#[test]
fn an_amf_error_becomes_one_of_the_connection() {
    let error = Reader::new(&[0x12]).next_value().unwrap_err();
    assert_eq!(error.to_string(), "AMF body unreadable at byte 1: Marker(18)");
    let error = error.into_protocol(Place::on(3, 99));
    assert_eq!(error.label(), "unsupported_amf_marker");
    assert_eq!(error.place().offset, 99);
}
