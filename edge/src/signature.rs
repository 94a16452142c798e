//! Signatures of control requests and of callbacks: what a control client puts into a request, and what a
//! callback receiver computes again and compares.
//!
//! Pure: no clock (times are arguments), no system call, no lock, no log; the only failures are inputs that
//! cannot be signed without doubt. What is returned never holds a key. Nothing here checks a request: who
//! does, computes the signature and compares in constant time. Called by `ringctl sign`; the signatures of
//! addresses are in [`crate::access::providers`], whose hashes these functions use.
//!
//! | function | who signs | how |
//! |---|---|---|
//! | [`aliyun_push_callback`] | sender of a push callback | MD5 over `domain\|timestamp\|key` |
//! | [`tencent_api`] | client of `/common_access` | MD5 over key and `t` |
//! | [`tencent_event`] | sender of an event | MD5 over key and `t` |
//! | [`oss_header`] | client of LiveChannels and their files | HMAC-SHA1, version 1, in `Authorization` |
//! | [`oss_url`] | maker of a link to a private file | HMAC-SHA1, version 1, in the query |
//! | [`aliyun_rpc`] | client of the live API | HMAC-SHA1 over method and parameters |
//! | [`trtc_stream_id`] | nobody: a name, not a proof | MD5 over room, user and track, or plain |
//!
//! MD5 and HMAC-SHA1 are what these protocols prescribe, and no choice of ours.

use std::fmt::{self, Write as _};

use crate::access::providers::oss::signature_of;
use crate::access::providers::{hex_text, md5_hex};
use crate::access::secret::SecretText;

/// Seconds between the sending of an event and its `t`, after which a receiver may take it for replayed.
pub const EVENT_VALID_S: u64 = 600;

/// Parameters that are part of a version 1 signature: those of LiveChannels, of ACLs, and of reading files.
/// All others are free, among them `prefix`, `marker`, `max-keys` and `playlistName`.
const SUB_RESOURCES: [&str; 15] = [
    "acl",
    "comp",
    "endTime",
    "live",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "security-token",
    "startTime",
    "status",
    "vod",
    "x-oss-process",
];
/// Headers beginning so are part of a version 1 signature.
const OSS_PREFIX: &str = "x-oss-";

/// Why something cannot be signed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SignatureError {
    /// The method is not a word in capital letters.
    Method,
    /// The target does not begin with `/`.
    Target,
    /// A `%` without two hexadecimal digits, or escaped bytes that are no UTF-8.
    Escape,
    /// A part holds a line break, which separates parts in the signed text.
    LineBreak,
    /// A header or parameter that is signed comes twice.
    Twice,
    /// Neither `Date` nor `x-oss-date` is among the headers.
    NoDate,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the method is a word in capital letters",
            Self::Target => "the target begins with /, and has no scheme and host",
            Self::Escape => "the target has a % that escapes no byte, or bytes that are no UTF-8",
            Self::LineBreak => "a line break cannot be signed",
            Self::Twice => "a header or parameter that is signed comes twice",
            Self::NoDate => "the headers have neither Date nor x-oss-date",
        })
    }
}

impl std::error::Error for SignatureError {}

/// A signature with the text under it, for finding out where two sides differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// What was signed. It does not hold the key.
    pub string_to_sign: String,
    /// HMAC-SHA1 in base64. In a query its `+`, `/` and `=` are escaped, see [`escape`].
    pub signature: String,
}

impl Signed {
    fn new(key: &str, string_to_sign: String) -> Self {
        let signature = signature_of(key, &string_to_sign);
        Self { string_to_sign, signature }
    }

    /// Value of the `Authorization` header for a signature by [`oss_header`].
    pub fn oss_authorization(&self, access_key_id: &str) -> String {
        format!("OSS {access_key_id}:{}", self.signature)
    }

    /// What is added to the query for a signature by [`oss_url`].
    pub fn oss_query(&self, access_key_id: &str, expires_unix_s: u64) -> String {
        let (id, signature) = (escape(access_key_id), escape(&self.signature));
        format!("OSSAccessKeyId={id}&Expires={expires_unix_s}&Signature={signature}")
    }
}

/// `ALI-LIVE-SIGNATURE` of a push callback: 32 lower-case hexadecimal digits.
///
/// `timestamp` is that of `ALI-LIVE-TIMESTAMP` in Unix seconds, `domain` the push domain.
pub fn aliyun_push_callback(key: &SecretText, domain: &str, timestamp: u64) -> String {
    hex_text(md5_hex(&[domain, "|", &timestamp.to_string(), "|", key.expose()]))
}

/// `sign` of a request to `/common_access`: 32 lower-case hexadecimal digits.
///
/// `t` is the last Unix second at which the request is good. Nothing but `t` is signed: who sees a request
/// can send others until then.
pub fn tencent_api(key: &SecretText, t: u64) -> String {
    key_and_time(key, t)
}

/// `sign` of an event: 32 lower-case hexadecimal digits.
///
/// `t` is as in the event: Unix seconds, [`EVENT_VALID_S`] after sending.
pub fn tencent_event(key: &SecretText, t: u64) -> String {
    key_and_time(key, t)
}

fn key_and_time(key: &SecretText, t: u64) -> String {
    hex_text(md5_hex(&[key.expose(), &t.to_string()]))
}

/// A request to the object storage, as far as it is signed.
#[derive(Copy, Clone, Debug)]
pub struct OssRequest<'r> {
    /// `GET`, `PUT`, and so on.
    pub method: &'r str,
    /// Path and query as in the request line, with their escapes. A `+` is a plus sign.
    pub target: &'r str,
    /// Bucket, if the host names it; `None` if the path does.
    pub bucket: Option<&'r str>,
    /// Headers, of which `Date`, `Content-MD5`, `Content-Type` and `x-oss-*` count. Case of names is free.
    pub headers: &'r [(&'r str, &'r str)],
}

/// Signature of a request, version 1, with its date: `x-oss-date`, or else `Date`.
///
/// ```text
///   PUT \n Content-MD5 \n Content-Type \n Thu, 25 Aug 2016 07:13:26 GMT \n
///   x-oss-acl:private \n                                   each x-oss- header, sorted
///   /bucket/channel?live&status=disabled                   signed parameters, sorted and decoded
/// ```
///
/// # Errors
/// A [`SignatureError`].
pub fn oss_header(key: &SecretText, request: &OssRequest<'_>) -> Result<Signed, SignatureError> {
    let date = header(request, "x-oss-date")?.or(header(request, "date")?);
    let text = oss_text(request, date.ok_or(SignatureError::NoDate)?)?;
    Ok(Signed::new(key.expose(), text))
}

/// Signature of an address, version 1: as [`oss_header`] with the end of validity in place of the date.
///
/// `expires_unix_s` is the last second at which the address is good. Whoever follows the address must send
/// the headers it was signed with.
///
/// # Errors
/// A [`SignatureError`].
pub fn oss_url(
    key: &SecretText,
    request: &OssRequest<'_>,
    expires_unix_s: u64,
) -> Result<Signed, SignatureError> {
    let text = oss_text(request, &expires_unix_s.to_string())?;
    Ok(Signed::new(key.expose(), text))
}

/// Value of the only header of that lower-case name.
fn header<'r>(request: &OssRequest<'r>, name: &str) -> Result<Option<&'r str>, SignatureError> {
    let mut found = request.headers.iter().filter(|header| header.0.eq_ignore_ascii_case(name));
    let value = found.next().map(|header| header.1.trim());
    if found.next().is_some() { Err(SignatureError::Twice) } else { Ok(value) }
}

fn oss_text(request: &OssRequest<'_>, date: &str) -> Result<String, SignatureError> {
    let mut text = checked_method(request.method)?.to_owned();
    let digest = header(request, "content-md5")?.unwrap_or_default();
    let kind = header(request, "content-type")?.unwrap_or_default();
    for part in [digest, kind, date] {
        text.push('\n');
        text.push_str(one_line(part)?);
    }
    text.push('\n');
    let mut headers: Vec<(String, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .filter(|(name, _)| name.starts_with(OSS_PREFIX))
        .collect();
    sort_unique(&mut headers)?;
    for (name, value) in headers {
        for part in [one_line(&name)?, ":", one_line(value)?, "\n"] {
            text.push_str(part);
        }
    }
    text.push_str(&resource(request)?);
    Ok(text)
}

/// `/bucket/key?live&status=disabled`, decoded, the same for both ways to name the bucket.
fn resource(request: &OssRequest<'_>) -> Result<String, SignatureError> {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let path = unescape(path)?;
    let key = path.strip_prefix('/').ok_or(SignatureError::Target)?;
    let mut out = match request.bucket {
        Some(bucket) => format!("/{}/{key}", one_line(bucket)?),
        // A bucket alone has its slash behind it, whether or not the request does.
        None if !key.is_empty() && !key.contains('/') => format!("/{key}/"),
        None => format!("/{key}"),
    };
    let mut params: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = unescape(name)?;
        if SUB_RESOURCES.contains(&&*name) {
            params.push((name, unescape(value)?));
        }
    }
    sort_unique(&mut params)?;
    for (index, (name, value)) in params.iter().enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(name);
        if !value.is_empty() {
            out.push('=');
            out.push_str(value);
        }
    }
    Ok(out)
}

/// `Signature` of a request to the live API.
///
/// `params` are all its parameters, not escaped, in any order; those with an empty value are signed too. A
/// parameter `Signature` is left out, so that a received request can be given as it is.
///
/// # Errors
/// [`SignatureError::Method`] or [`SignatureError::Twice`].
pub fn aliyun_rpc(
    key: &SecretText,
    method: &str,
    params: &[(&str, &str)],
) -> Result<Signed, SignatureError> {
    let mut params: Vec<_> = params.iter().filter(|(name, _)| *name != "Signature").collect();
    params.sort_unstable();
    if params.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(SignatureError::Twice);
    }
    let pairs = params.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    let query = pairs.collect::<Vec<_>>().join("&");
    // Escaped a second time as one value: the text is itself built like a query.
    let text = format!("{}&%2F&{}", checked_method(method)?, escape(&query));
    Ok(Signed::new(&format!("{}&", key.expose()), text))
}

/// Whose stream a room's stream becomes, and by that which form its id has.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TrtcAccount<'a> {
    /// Account with a BIZID: `8888_` and the MD5 of room, user and track.
    Bizid(&'a str),
    /// Application: its number, room, user and track as they are, escaped.
    SdkAppId(u32),
}

/// Which of a user's streams.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TrtcTrack {
    /// Camera and microphone.
    Main,
    /// Shared screen.
    Aux,
}

impl TrtcTrack {
    /// As in the stream id.
    pub fn text(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Aux => "aux",
        }
    }
}

/// Name under which a user's stream in a room is live. Everybody can compute it.
///
/// Rooms and users with a `_` can share a name: room `a_b` with user `c`, room `a` with user `b_c`.
pub fn trtc_stream_id(
    account: TrtcAccount<'_>,
    room: &str,
    user: &str,
    track: TrtcTrack,
) -> String {
    let track = track.text();
    match account {
        TrtcAccount::Bizid(bizid) => {
            let hash = hex_text(md5_hex(&[room, "_", user, "_", track]));
            format!("{bizid}_{hash}")
        }
        TrtcAccount::SdkAppId(id) => escape(&format!("{id}_{room}_{user}_{track}")),
    }
}

/// Percent-encodes all but letters, digits, `-`, `.`, `_` and `~` (RFC 3986, section 2.3).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Decodes once. What comes out has no line break.
fn unescape(text: &str) -> Result<String, SignatureError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let escaped =
            digit().zip(digit()).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(escaped.ok_or(SignatureError::Escape)?);
    }
    let text = String::from_utf8(bytes).map_err(|_| SignatureError::Escape)?;
    one_line(&text)?;
    Ok(text)
}

fn one_line(text: &str) -> Result<&str, SignatureError> {
    if text.contains(['\n', '\r']) { Err(SignatureError::LineBreak) } else { Ok(text) }
}

fn checked_method(method: &str) -> Result<&str, SignatureError> {
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_method { Ok(method) } else { Err(SignatureError::Method) }
}

fn sort_unique<V: Ord>(pairs: &mut [(String, V)]) -> Result<(), SignatureError> {
    pairs.sort_unstable();
    let is_twice = pairs.windows(2).any(|pair| pair[0].0 == pair[1].0);
    if is_twice { Err(SignatureError::Twice) } else { Ok(()) }
}
