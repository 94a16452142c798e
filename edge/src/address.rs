//! Addresses to hand out: RTMP, RTMPS, FLV, HLS and fragmented MP4, signed by one of the schemes of
//! [`crate::access`].
//!
//! Pure: time is an argument, keys are given. Used by `ringctl url` with a key at hand, and by the admin API
//! with the keys of a configured domain. An address holds a signature and never a key.
//!
//! ```text
//!   rtmp://push.example.com/live/room?txSecret=…&txTime=…       publish: RTMP and RTMPS
//!   http://play.example.com/live/room.flv?auth_key=…            play: these, FLV, HLS and MP4
//! ```

use std::fmt::{self, Write as _};

use live::path::{PathError, StreamPath};

use crate::access::Role;
use crate::access::providers::usersig::map_key::Room;
use crate::access::providers::usersig::ticket::{self, Ticket};
use crate::access::providers::{aliyun, jwt, oss, txsecret, usersig};
use crate::access::secret::SecretText;

/// Validity when nobody says, in seconds.
pub const VALID_S_DEFAULT: u64 = 12 * 3_600;
/// Longest validity, in seconds: ten years.
pub const VALID_S_MAX: u64 = 10 * 366 * 86_400;

/// How addresses are signed, with the key for it.
#[derive(Debug)]
pub enum Signer {
    /// Not at all.
    Open,
    /// `txSecret` and `txTime`.
    TxSecret {
        /// Push or play key.
        key: SecretText,
        /// Seconds the domain adds to the time in the address.
        validity_s: u64,
    },
    /// `auth_key`, type A.
    Aliyun {
        /// Key of the domain.
        key: SecretText,
        /// Seconds the domain adds to the time in the address; 0 where that time is the end.
        validity_s: u64,
    },
    /// Signed URL of a LiveChannel.
    Oss {
        /// Access key.
        key: oss::AccessKey,
        /// The domain's only bucket; otherwise the address names it.
        bucket: Option<Box<str>>,
    },
    /// JSON web token.
    Jwt {
        /// Secret or private key.
        key: jwt::SigningKey,
        /// Parameter that holds the token.
        param: Box<str>,
        /// `iss`.
        issuer: Option<Box<str>>,
        /// `aud`.
        audience: Option<Box<str>>,
    },
    /// UserSig, with a privateMapKey where rights are given.
    UserSig {
        /// Secret or private key.
        key: ticket::SigningKey,
        /// The application.
        sdk_app_id: u32,
        /// The user the address is for.
        user: Box<str>,
        /// Room and rights of the privateMapKey; `None` leaves it out.
        map_key: Option<(Box<str>, u32)>,
    },
}

impl Signer {
    /// Name of the scheme, as in the configuration.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::TxSecret { .. } => "txsecret",
            Self::Aliyun { .. } => "aliyun_a",
            Self::Oss { .. } => "oss",
            Self::Jwt { .. } => "jwt",
            Self::UserSig { .. } => "usersig",
        }
    }
}

/// Ports in addresses; the usual one of a scheme is left out. `None` is not offered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ports {
    /// RTMP; usually 1935.
    pub rtmp: Option<u16>,
    /// RTMP over TLS; usually 443.
    pub rtmps: Option<u16>,
    /// FLV, HLS and MP4 over HTTP; usually 80.
    pub http: Option<u16>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { rtmp: Some(1935), rtmps: Some(443), http: Some(80) }
    }
}

/// What addresses are wanted for.
#[derive(Copy, Clone, Debug)]
pub struct Order<'o> {
    /// What they are for.
    pub role: Role,
    /// Host name or address.
    pub domain: &'o str,
    /// App, one or more levels.
    pub app: &'o str,
    /// Stream name.
    pub stream: &'o str,
    /// Ports of the server.
    pub ports: Ports,
    /// Now, in Unix seconds.
    pub unix_s: u64,
    /// Seconds from now the addresses are valid for; what the scheme or [`VALID_S_DEFAULT`] says if `None`.
    pub valid_s: Option<u64>,
}

/// The addresses of one stream for one role.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Addresses {
    /// RTMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmp: Option<String>,
    /// RTMP over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmps: Option<String>,
    /// FLV over HTTP; for playing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flv: Option<String>,
    /// HLS; for playing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hls: Option<String>,
    /// Fragmented MP4 over HTTP, or over a WebSocket of the same address; for playing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mp4: Option<String>,
    /// Last second at which a publish or play may begin; absent if there is no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_unix_s: Option<u64>,
    /// The same as date and time in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// Why there are no addresses. Holds no key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// Domain, app or stream name cannot be part of an address.
    Path(PathError),
    /// The validity is 0 or over [`VALID_S_MAX`].
    Validity,
    /// The scheme cannot sign this.
    Scheme(&'static str),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(error) => error.fmt(f),
            Self::Validity => f.write_str("the validity is between one second and ten years"),
            Self::Scheme(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for AddressError {}

/// Makes the addresses.
///
/// # Errors
/// [`AddressError`].
pub fn generate(signer: &Signer, order: &Order<'_>) -> Result<Addresses, AddressError> {
    if order.valid_s.is_some_and(|valid_s| valid_s == 0 || valid_s > VALID_S_MAX) {
        return Err(AddressError::Validity);
    }
    let domain = order.domain.trim_matches(['[', ']']).to_ascii_lowercase();
    let path = StreamPath::new(&domain, order.app, order.stream).map_err(AddressError::Path)?;
    let host = if domain.contains(':') { format!("[{domain}]") } else { domain };
    let address = |scheme: &str, (port, usual): (u16, u16), suffix: &str| {
        let query = query(signer, order, &path, suffix)?;
        let port = if port == usual { String::new() } else { format!(":{port}") };
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(format!("{scheme}://{host}{port}/{}{suffix}{mark}{query}", path.url_path()))
    };
    let offered = |port: Option<u16>, scheme: &str, usual: u16, suffix: &str| {
        port.map(|port| address(scheme, (port, usual), suffix)).transpose()
    };
    let is_over_http = order.role == Role::Play && !matches!(signer, Signer::UserSig { .. });
    let http = order.ports.http.filter(|_| is_over_http);
    let expires_unix_s = expiry(signer, order);
    Ok(Addresses {
        rtmp: offered(order.ports.rtmp, "rtmp", 1935, "")?,
        rtmps: offered(order.ports.rtmps, "rtmps", 443, "")?,
        flv: offered(http, "http", 80, ".flv")?,
        hls: offered(http, "http", 80, ".m3u8")?,
        mp4: offered(http, "http", 80, ".mp4")?,
        expires_unix_s,
        expires: expires_unix_s.map(utc),
    })
}

/// Last second at which an address made now can be used.
fn expiry(signer: &Signer, order: &Order<'_>) -> Option<u64> {
    let valid_s = match signer {
        Signer::Open => return None,
        // What the domain says is what everybody expects who does not say otherwise.
        Signer::Aliyun { validity_s, .. } if *validity_s > 0 => {
            order.valid_s.unwrap_or(*validity_s)
        }
        _ => order.valid_s.unwrap_or(VALID_S_DEFAULT),
    };
    Some(order.unix_s.saturating_add(valid_s))
}

/// The signed parameters, without `?`.
fn query(
    signer: &Signer,
    order: &Order<'_>,
    path: &StreamPath,
    suffix: &str,
) -> Result<String, AddressError> {
    let expires = expiry(signer, order).unwrap_or_default();
    let [app, stream] = [path.app(), path.name()];
    match signer {
        Signer::Open => Ok(String::new()),
        Signer::TxSecret { key, validity_s } => {
            Ok(txsecret::sign(key, stream, expires.saturating_sub(*validity_s)))
        }
        Signer::Aliyun { key, validity_s } => {
            let timestamp = expires.saturating_sub(*validity_s);
            Ok(aliyun::sign(key, [app, stream, suffix], timestamp, ["0", "0"]))
        }
        Signer::Oss { .. } if order.role == Role::Play => {
            Err(AddressError::Scheme("a LiveChannel is not played over RTMP: play its HLS"))
        }
        Signer::Oss { key, bucket } => {
            let bucket = bucket.as_deref().or_else(|| oss::bucket_of(app, path.vhost()));
            let missing = "the address names no bucket: use a domain BUCKET.HOST with the app live, \
                           or the app BUCKET/live";
            let bucket = bucket.ok_or(AddressError::Scheme(missing))?;
            let signature = escape(&oss::sign(&key.secret, [bucket, stream], &[], expires));
            let id = escape(&key.id);
            Ok(format!("OSSAccessKeyId={id}&Expires={expires}&Signature={signature}"))
        }
        Signer::Jwt { key, param, issuer, audience } => {
            let claims = jwt::Order {
                role: order.role,
                path: [app, stream],
                unix_s: order.unix_s,
                expires_unix_s: expires,
                issuer: issuer.as_deref(),
                audience: audience.as_deref(),
            };
            let token = jwt::sign(key, &claims).map_err(|e| AddressError::Scheme(e.text()))?;
            Ok(format!("{}={token}", escape(param)))
        }
        Signer::UserSig { key, sdk_app_id, user, map_key } => {
            let new =
                NewTicket { key, sdk_app_id: *sdk_app_id, user, unix_s: order.unix_s, expires };
            let mut query = format!("userid={}&usersig={}", escape(user), new.sign(None)?);
            if let Some((room, rights)) = map_key {
                let _ = write!(query, "&privateMapKey={}", new.sign(Some((room, *rights)))?);
            }
            Ok(query)
        }
    }
}

/// A ticket to be made.
#[derive(Copy, Clone, Debug)]
pub struct NewTicket<'t> {
    /// Secret or private key.
    pub key: &'t ticket::SigningKey,
    /// The application.
    pub sdk_app_id: u32,
    /// The user.
    pub user: &'t str,
    /// Now, in Unix seconds.
    pub unix_s: u64,
    /// Last second of validity.
    pub expires: u64,
}

impl NewTicket<'_> {
    /// A UserSig, or with a room and rights a privateMapKey. A room of digits only is a number.
    ///
    /// # Errors
    /// [`AddressError::Scheme`] when user or room cannot be written into a ticket.
    pub fn sign(&self, room: Option<(&str, u32)>) -> Result<String, AddressError> {
        let userbuf = room.map(|(room, rights)| {
            let is_number = !room.starts_with('0') && room.bytes().all(|b| b.is_ascii_digit());
            let room = match room.parse() {
                Ok(number) if is_number => Room::Number(number),
                _ => Room::Name(room.as_bytes()),
            };
            usersig::userbuf((self.user, self.sdk_app_id), &room, rights, self.expires)
        });
        let ticket = Ticket {
            version: self.key.version(),
            user: self.user.to_owned(),
            sdk_app_id: self.sdk_app_id.into(),
            time_unix_s: self.unix_s,
            expire_s: self.expires.saturating_sub(self.unix_s),
            userbuf: userbuf.transpose().map_err(AddressError::Scheme)?,
        };
        ticket::sign(self.key, &ticket).map_err(AddressError::Scheme)
    }
}

/// Percent-encodes what may not stand in a value of a query.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Reads a time span: `90s`, `30m`, `12h`, `1d12h`, `2w`; a bare number is seconds. In seconds.
///
/// # Errors
/// A phrase with an example.
pub fn parse_span(text: &str) -> Result<u64, String> {
    let bad = || format!("\"{text}\" is not a time span; write for example 30m, 12h or 1d12h");
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let mut total_s: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit_and_rest) = rest.split_at(digits);
        let unit = unit_and_rest.chars().next().ok_or_else(bad)?;
        let unit_s = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(bad()),
        };
        let part_s = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
        total_s = part_s.and_then(|part_s| total_s.checked_add(part_s)).ok_or_else(bad)?;
        rest = &unit_and_rest[unit.len_utf8()..];
    }
    if text.trim().is_empty() { Err(bad()) } else { Ok(total_s) }
}

/// Date and time in UTC, as `2018-12-31T15:59:59Z`.
pub fn utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Years are counted from March, so that the leap day is a year's last.
    let day_of_era = days + 719_468;
    let (era, day) = (day_of_era / 146_097, day_of_era % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests;
