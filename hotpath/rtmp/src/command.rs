//! AMF0 commands: a name, a transaction, a command object and arguments.
//!
//! Borrows the message it was read from; nothing here outlives one call of a session. Reads leniently
//! where devices are known to differ: no command object, padding behind the last argument, keys in
//! another case, values in quotation marks. Called by sessions and transcripts.
//! Spec: RTMP 1.0 §7.2; Enhanced RTMP v2 for the properties of `connect`.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::amf0::{AmfError, AmfReason, Reader, Value};
use crate::session::ConnectRequest;
use crate::session::config::FOURCCS_MAX;

/// One command message.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<'a> {
    /// What is called.
    pub name: Cow<'a, str>,
    /// Transaction id: the answer repeats it, 0 asks for none. 0 when absent.
    pub transaction: f64,
    /// The command object; null for most commands.
    pub object: Value<'a>,
    /// What follows the command object.
    pub args: Vec<Value<'a>>,
}

/// Why a message is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// It does not begin with a string.
    Unnamed,
    /// Its values cannot be read.
    Amf(AmfError),
}

impl From<AmfError> for CommandError {
    fn from(error: AmfError) -> Self {
        Self::Amf(error)
    }
}

impl core::fmt::Display for CommandError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unnamed => f.write_str("command without a name"),
            Self::Amf(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CommandError {}

impl<'a> Command<'a> {
    /// Reads the body of a command message, without the selector byte of an AMF3 envelope.
    ///
    /// # Errors
    /// When the name, the transaction or the command object cannot be read, or a limit of AMF is exceeded.
    /// Unreadable bytes behind them end the arguments: some devices pad.
    pub fn parse(body: &'a [u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(body);
        let name = reader.next_string()?.ok_or(CommandError::Unnamed)?;
        let transaction = reader.next_value()?.and_then(|value| value.as_number()).unwrap_or(0.0);
        let object = reader.next_value()?.unwrap_or(Value::Null);
        let mut args = Vec::new();
        let object = match object {
            text @ Value::String(_) => {
                args.push(text);
                Value::Null
            }
            object => object,
        };
        loop {
            match reader.next_value() {
                Ok(Some(value)) => args.push(value),
                Ok(None) => break,
                Err(error) if is_limit(error.reason) => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(Self { name, transaction, object, args })
    }

    /// Argument `index` if it is a string.
    #[must_use]
    pub fn text(&self, index: usize) -> Option<&str> {
        self.args.get(index)?.as_str()
    }

    /// Argument `index` if it is a number.
    #[must_use]
    pub fn number(&self, index: usize) -> Option<f64> {
        self.args.get(index)?.as_number()
    }

    /// Argument `index` if it is a truth value, or a number in its place.
    #[must_use]
    pub fn flag(&self, index: usize) -> Option<bool> {
        self.args.get(index)?.as_bool()
    }

    /// Argument `index` if it is a number within `u32`, its fraction cut off.
    #[must_use]
    pub fn whole_number(&self, index: usize) -> Option<u32> {
        whole(self.number(index)?)
    }

    /// Argument `index` as milliseconds; 0 when it is none.
    #[must_use]
    pub fn milliseconds(&self, index: usize) -> u32 {
        self.whole_number(index).unwrap_or(0)
    }

    /// The property `key` of the object in argument `index`.
    #[must_use]
    pub fn arg_property(&self, index: usize, key: &str) -> Option<&Value<'a>> {
        self.args.get(index)?.property(key)
    }

    /// The request that `connect` makes. The command object may be an object or an ECMA array.
    ///
    /// # Errors
    /// The name of the first property that is longer than `string_bytes_max`.
    pub fn connect_request(&self, string_bytes_max: usize) -> Result<ConnectRequest, &'static str> {
        let text = |key: &'static str| match self.object.property(key).and_then(Value::as_str) {
            Some(text) if text.len() > string_bytes_max => Err(key),
            text => Ok(text.map(|text| String::from(unquoted(text)))),
        };
        let number = |key: &str| {
            let value = self.object.property(key).and_then(Value::as_number);
            value.and_then(whole).unwrap_or(0)
        };
        Ok(ConnectRequest {
            app: text("app")?.unwrap_or_default(),
            tc_url: text("tcUrl")?,
            flash_ver: text("flashVer")?,
            swf_url: text("swfUrl")?,
            page_url: text("pageUrl")?,
            object_encoding: if number("objectEncoding") == 3 { 3 } else { 0 },
            caps_ex: number("capsEx"),
            fourccs: self.fourccs(string_bytes_max),
            video_fourccs: self.fourcc_map("videoFourCcInfoMap", string_bytes_max),
            audio_fourccs: self.fourcc_map("audioFourCcInfoMap", string_bytes_max),
        })
    }

    fn fourccs(&self, string_bytes_max: usize) -> Vec<String> {
        let Some(list) = self.object.property("fourCcList") else { return Vec::new() };
        let items = list.items().unwrap_or_default().iter();
        // An ECMA array with the indices as keys is seen in place of a strict array.
        let values = list.properties().unwrap_or_default().iter().map(|(_, value)| value);
        items
            .chain(values)
            .filter_map(Value::as_str)
            .filter(|text| text.len() <= string_bytes_max)
            .take(FOURCCS_MAX)
            .map(String::from)
            .collect()
    }

    fn fourcc_map(&self, key: &str, string_bytes_max: usize) -> Vec<(String, u32)> {
        let map = self.object.property(key).and_then(Value::properties).unwrap_or_default();
        map.iter()
            .filter(|(fourcc, _)| fourcc.len() <= string_bytes_max)
            .filter_map(|(fourcc, mask)| {
                Some((String::from(fourcc.as_ref()), whole(mask.as_number()?)?))
            })
            .take(FOURCCS_MAX)
            .collect()
    }
}

fn is_limit(reason: AmfReason) -> bool {
    matches!(reason, AmfReason::Depth | AmfReason::Elements | AmfReason::StringBytes)
}

/// Without white space, line ends and quotation marks around it, all of which devices send.
fn unquoted(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control() || c == '\'' || c == '"')
}

/// A number within `u32`, its fraction cut off.
pub(crate) fn whole(number: f64) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked, cutting off the fraction is meant"
    )]
    (0.0..=f64::from(u32::MAX)).contains(&number).then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amf0::Writer;

    fn body(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut body = Vec::new();
        write(&mut Writer::new(&mut body));
        body
    }

    #[test]
    fn a_command_without_object_has_its_argument_first() {
        let body = body(|amf| {
            amf.string("publish");
            amf.number(5.0);
            amf.string("name");
        });
        let command = Command::parse(&body).unwrap();
        assert_eq!((command.object.clone(), command.text(0)), (Value::Null, Some("name")));
    }

    #[test]
    fn padding_behind_the_arguments_is_ignored() {
        let mut body = body(|amf| {
            amf.string("publish");
            amf.number(5.0);
            amf.null();
            amf.string("name");
        });
        body.extend_from_slice(&[0, 0, 0]);
        let command = Command::parse(&body).unwrap();
        assert_eq!(command.args, [Value::String("name".into())]);
    }

    #[test]
    fn a_name_alone_is_a_command_of_transaction_zero() {
        let body = body(|amf| amf.string("close"));
        let command = Command::parse(&body).unwrap();
        assert_eq!((command.name.as_ref(), command.transaction), ("close", 0.0));
    }

    #[test]
    fn a_body_that_starts_with_a_number_is_no_command() {
        let body = body(|amf| amf.number(1.0));
        assert_eq!(Command::parse(&body), Err(CommandError::Unnamed));
        assert_eq!(Command::parse(&[]), Err(CommandError::Unnamed));
    }

    #[test]
    fn a_command_object_cut_inside_a_value_is_an_error() {
        let mut body = body(|amf| {
            amf.string("connect");
            amf.number(1.0);
            amf.object_begin();
            amf.key("app");
            amf.string("live");
        });
        body.truncate(body.len() - 2);
        assert!(matches!(Command::parse(&body), Err(CommandError::Amf(_))));
    }

    #[test]
    fn numbers_outside_of_u32_are_none() {
        assert_eq!(whole(-1.0), None);
        assert_eq!(whole(f64::NAN), None);
        assert_eq!(whole(4_294_967_296.0), None);
        assert_eq!(whole(1.9), Some(1));
    }
}
