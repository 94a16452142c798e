//! UserSig: a ticket that says who a user is; and privateMapKey: one that says what it may do in a room.
//!
//! ```text
//!   rtmp://host/live/ROOM?userid=27149&usersig=eJyr…&privateMapKey=eJw9…
//!
//!   ticket = base64 with * - _ for + / = ( zlib ( JSON ) )
//!            version 1: ECDSA P-256 over named lines    version 2: HMAC-SHA256 over named lines
//!   privateMapKey = a ticket whose userbuf (binary, signed with the rest) names user, application,
//!                   room, end of validity and rights
//! ```
//!
//! The room is the stream name, or the last level of the app where a room holds many streams. A ticket with
//! a userbuf never passes as a UserSig, nor the other way round. What a ticket says is compared, never its
//! text: compression and spacing differ between implementations. Parameters `sdkappid` and `roomid` may be
//! there as well; then they must agree.

pub mod map_key;
pub mod ticket;

use aws_lc_rs::signature::{self, ParsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

use super::{
    Denial, DenyReason, EVENT_BAD_SECRET, EVENT_EXPIRED, EVENT_NO_SECRET, Keys, Pass, Presented,
    Role, Tracks, Verdict, denied,
};
use map_key::{MapKey, Room};
use ticket::{Ticket, TicketError};

/// Where the room of a request stands.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum RoomPlace {
    /// The stream name is the room.
    #[default]
    Stream,
    /// The last level of the app is the room, and the stream one of those in it.
    App,
}

/// Public keys of version 1, by which tickets are checked.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(Vec<std::sync::Arc<ParsedPublicKey>>);

impl PublicKeys {
    /// Adds the first public key of a PEM text.
    ///
    /// # Errors
    /// A phrase when there is none, or none of P-256.
    pub fn add_pem(&mut self, pem: &str) -> Result<(), &'static str> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "there is no PUBLIC KEY in this PEM text")?;
        let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, &der)
            .map_err(|_| "the public key is not one of P-256")?;
        self.0.push(std::sync::Arc::new(key));
        Ok(())
    }
}

/// The keys of an application, of either version.
#[derive(Clone, Debug, Default)]
pub struct TicketKeys {
    /// Of version 1.
    pub public: PublicKeys,
    /// Of version 2.
    pub shared: Option<Keys>,
}

impl TicketKeys {
    /// Reads a ticket and checks that one of the keys signed it; nothing else.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn open(&self, text: &str) -> Result<Ticket, TicketError> {
        let opened = ticket::read(text)?;
        let is_signed = match &opened.version {
            ticket::Version::V1 { signed, signature } => {
                // Not secret: anybody can check a public key's signature.
                self.public.0.iter().any(|key| key.verify_sig(signed.as_bytes(), signature).is_ok())
            }
            ticket::Version::V2 { signed, signature } => self.shared.as_ref().is_some_and(|keys| {
                keys.any(|key| super::same(ticket::hmac_of(key, signed).as_ref(), signature))
            }),
        };
        if is_signed { Ok(opened.ticket) } else { Err(TicketError::BadSignature) }
    }
}

/// The scheme with its keys.
#[derive(Clone, Debug)]
pub struct UserSig {
    /// Either version, main and backup key of each.
    pub keys: TicketKeys,
    /// The application all tickets must be for.
    pub sdk_app_id: u32,
    /// Whether a privateMapKey is asked for too.
    pub private_map_key: bool,
    /// Where the room stands.
    pub room: RoomPlace,
}

impl UserSig {
    /// The user's ticket, then the right to the room where that is asked for.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, presented: &Presented<'_>) -> Verdict {
        let user = required(presented, "userid")?;
        let usersig = required(presented, "usersig")?;
        let app_id = presented.query.value("sdkappid");
        if app_id.is_some_and(|id| super::decimal(&id) != Some(self.sdk_app_id.into())) {
            return Err(denied(DenyReason::Ticket, 0, "another sdkappid"));
        }
        let ticket = self.ticket("usersig", &usersig, &user, presented.unix_s)?;
        if ticket.userbuf.is_some() {
            // A privateMapKey is no UserSig.
            return Err(invalid("usersig", DenyReason::BadParam));
        }
        let room = self.room(presented);
        if presented.query.value("roomid").is_some_and(|named| named != room) {
            return Err(denied(DenyReason::Ticket, 0, "roomid is not the room of this address"));
        }
        let tracks = if self.private_map_key {
            let text = required(presented, "privateMapKey")?;
            let ticket = self.ticket("privateMapKey", &text, &user, presented.unix_s)?;
            self.rights(&ticket, (&user, room), presented)?
        } else {
            Tracks::default()
        };
        Ok(Pass { tracks, user: Some(user.into()) })
    }

    /// Opens a ticket and compares user, application and time.
    fn ticket(&self, name: &str, text: &str, user: &str, unix_s: u64) -> Result<Ticket, Denial> {
        let ticket = self.keys.open(text).map_err(|error| match error {
            TicketError::Malformed => invalid(name, DenyReason::BadParam),
            TicketError::BadSignature => invalid(name, DenyReason::BadHash),
        })?;
        let of_other =
            |what: &str| denied(DenyReason::Ticket, 0, &format!("{name} is for another {what}"));
        if ticket.user != *user {
            return Err(of_other("user"));
        }
        if ticket.sdk_app_id != u64::from(self.sdk_app_id) {
            return Err(of_other("application"));
        }
        if unix_s > ticket.expires_unix_s() {
            return Err(expired(name));
        }
        Ok(ticket)
    }

    fn rights(
        &self,
        ticket: &Ticket,
        (user, room): (&str, &str),
        presented: &Presented<'_>,
    ) -> Result<Tracks, Denial> {
        let name = "privateMapKey";
        let malformed = || invalid(name, DenyReason::BadParam);
        let key =
            MapKey::read(ticket.userbuf.as_deref().ok_or_else(malformed)?).ok_or_else(malformed)?;
        let of_other =
            |what: &str| denied(DenyReason::Ticket, 0, &format!("{name} is for another {what}"));
        if key.user != user.as_bytes() {
            return Err(of_other("user"));
        }
        if key.sdk_app_id != self.sdk_app_id {
            return Err(of_other("application"));
        }
        if presented.unix_s > u64::from(key.expires_unix_s) {
            return Err(expired(name));
        }
        if !key.room.is(room) {
            return Err(of_other("room"));
        }
        let may = |rights: u32| key.rights & rights != 0;
        let no_right = |what: &str| {
            Err(denied(DenyReason::NoRight, 0, &format!("{name} does not allow to {what}")))
        };
        if !may(map_key::ENTER) {
            return no_right("enter the room");
        }
        let tracks = Tracks {
            audio: may(map_key::SEND_AUDIO),
            video: may(map_key::SEND_VIDEO | map_key::SEND_SUB),
        };
        match presented.role {
            Role::Publish if !tracks.audio && !tracks.video => no_right("publish"),
            Role::Play if !may(map_key::RECEIVE_ANY) => no_right("play"),
            Role::Publish | Role::Play => Ok(tracks),
        }
    }

    fn room<'p>(&self, presented: &Presented<'p>) -> &'p str {
        match self.room {
            RoomPlace::Stream => presented.stream,
            RoomPlace::App => {
                presented.app.rsplit_once('/').map_or(presented.app, |(_, last)| last)
            }
        }
    }
}

fn required<'p>(
    presented: &Presented<'p>,
    name: &str,
) -> Result<std::borrow::Cow<'p, str>, Denial> {
    let value = presented.query.value(name).filter(|value| !value.is_empty());
    let text = || format!("no url arg {name}");
    value.ok_or_else(|| denied(DenyReason::NoParam, EVENT_NO_SECRET, &text()))
}

fn invalid(name: &str, reason: DenyReason) -> Denial {
    denied(reason, EVENT_BAD_SECRET, &format!("invalid {name}"))
}

fn expired(name: &str) -> Denial {
    denied(DenyReason::Expired, EVENT_EXPIRED, &format!("expired {name}"))
}

/// The userbuf of a privateMapKey for one user and room, to be signed with [`ticket::sign`].
///
/// # Errors
/// A phrase when user or room cannot be written into it.
pub fn userbuf(
    (user, sdk_app_id): (&str, u32),
    room: &Room<'_>,
    rights: u32,
    expires_unix_s: u64,
) -> Result<Vec<u8>, &'static str> {
    let expires_unix_s =
        u32::try_from(expires_unix_s).map_err(|_| "the validity ends after the year 2106")?;
    let user = user.as_bytes();
    MapKey { user, sdk_app_id, room: room.clone(), expires_unix_s, rights }.write()
}

#[cfg(test)]
mod tests;
