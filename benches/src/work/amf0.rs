//! AMF0 bodies of a session's beginning: read a connect command and metadata, write an answer.

use rtmp::amf0::{Reader, Value, Writer};

use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;

struct Read {
    body: Vec<u8>,
    rounds: u64,
}

struct Write {
    out: Vec<u8>,
    rounds: u64,
}

const fn rounds(size: Size) -> u64 {
    match size {
        Size::Small => 20,
        Size::Full => 1_000,
    }
}

/// Reads the connect command of a present-day encoder.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_read_connect(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let mut body = Vec::new();
    let mut amf = Writer::new(&mut body);
    amf.string("connect");
    amf.number(1.0);
    amf.object_begin();
    for (key, text) in [
        ("app", "live"),
        ("type", "nonprivate"),
        ("flashVer", "FMLE/3.0 (compatible; encoder)"),
        ("tcUrl", "rtmp://edge.example.net:1935/live"),
    ] {
        amf.key(key);
        amf.string(text);
    }
    amf.key("capsEx");
    amf.number(15.0);
    amf.key("fourCcList");
    amf.strict_array_begin(3);
    ["av01", "hvc1", "vp09"].into_iter().for_each(|code| amf.string(code));
    amf.object_end();
    Ok(Box::new(Read { body, rounds: rounds(size) }))
}

/// Reads metadata of a dozen properties.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_read_metadata(size: Size) -> Result<Box<dyn Work>, Skipped> {
    const NUMBERS: [&str; 10] = [
        "duration",
        "width",
        "height",
        "videodatarate",
        "framerate",
        "videocodecid",
        "audiodatarate",
        "audiosamplerate",
        "audiosamplesize",
        "filesize",
    ];
    let mut body = Vec::new();
    let mut amf = Writer::new(&mut body);
    amf.string("onMetaData");
    amf.ecma_array_begin(12);
    for (value, key) in (1_u32..).zip(NUMBERS) {
        amf.key(key);
        amf.number(f64::from(value * 100));
    }
    amf.key("stereo");
    amf.boolean(true);
    amf.key("encoder");
    amf.string("encoder 1.0");
    amf.object_end();
    Ok(Box::new(Read { body, rounds: rounds(size) }))
}

/// Writes the answer to a connect command into a buffer that is used again.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_write_result(size: Size) -> Result<Box<dyn Work>, Skipped> {
    Ok(Box::new(Write { out: Vec::new(), rounds: rounds(size) }))
}

impl Work for Read {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        for _ in 0..self.rounds {
            let mut reader = Reader::new(std::hint::black_box(&self.body));
            while let Some(value) = reader.next_value().expect("a valid body") {
                digest.mix(weight(&value));
            }
        }
        let bytes = self.rounds * self.body.len() as u64;
        Outcome { units: self.rounds, bytes, copied_bytes: 0, digest: digest.value() }
    }
}

/// A number that depends on every part of the value.
fn weight(value: &Value<'_>) -> u64 {
    let mut digest = Digest::default();
    if let Some(properties) = value.properties() {
        for (key, value) in properties {
            digest.mix_ends(key.as_bytes());
            digest.mix(weight(value));
        }
    }
    value.items().into_iter().flatten().for_each(|item| digest.mix(weight(item)));
    digest.mix(value.as_number().map_or(1, f64::to_bits));
    digest.mix_ends(value.as_str().unwrap_or_default().as_bytes());
    digest.value()
}

impl Work for Write {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let mut bytes = 0;
        for _ in 0..self.rounds {
            self.out.clear();
            write_result(&mut self.out);
            digest.mix_ends(std::hint::black_box(&self.out));
            bytes += self.out.len() as u64;
        }
        Outcome { units: self.rounds, bytes, copied_bytes: 0, digest: digest.value() }
    }
}

fn write_result(out: &mut Vec<u8>) {
    let mut amf = Writer::new(out);
    amf.string("_result");
    amf.number(1.0);
    amf.object_begin();
    amf.key("fmsVer");
    amf.string("FMS/3,5,7,7009");
    amf.key("capabilities");
    amf.number(31.0);
    amf.object_end();
    amf.object_begin();
    for (key, text) in [
        ("level", "status"),
        ("code", "NetConnection.Connect.Success"),
        ("description", "Connection succeeded."),
    ] {
        amf.key(key);
        amf.string(text);
    }
    amf.key("objectEncoding");
    amf.number(0.0);
    amf.object_end();
}
