//! `ringctl usersig` and `ringctl privatemapkey`: tickets made and checked without a server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edge::access::providers::Keys;
use edge::access::providers::usersig::TicketKeys;
use edge::access::providers::usersig::map_key::{self, PUBLISH_AND_PLAY, Room};
use edge::access::providers::usersig::ticket::{SigningKey, Ticket, TicketError};
use edge::access::secret::read_file;
use edge::address::{NewTicket, parse_span, utc};
use serde_json::{Value, json};

use crate::render::{printable, render_fields};
use crate::url::{KeyArguments, unix_s};
use crate::{Cli, print};

/// Whom a new ticket is for.
#[derive(Args)]
pub(crate) struct Subject {
    /// Application
    #[arg(long, value_name = "NUMBER")]
    sdk_app_id: u32,
    /// User
    #[arg(long)]
    user: String,
    #[command(flatten)]
    key: KeyArguments,
}

/// A ticket to be checked.
#[derive(Args)]
pub(crate) struct Given {
    /// The ticket
    ticket: String,
    /// Refuse it unless it is for this application
    #[arg(long, value_name = "NUMBER")]
    sdk_app_id: Option<u32>,
    /// Refuse it unless it is for this user
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    key: KeyArguments,
    /// File with the public key of version 1 tickets, in PEM
    #[arg(long, value_name = "FILE")]
    public_key_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum UserSig {
    /// Make one: version 1 from a private key in PEM, version 2 from any other key
    Gen {
        #[command(flatten)]
        subject: Subject,
        /// How long it is valid, for example 12h or 180d
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "180d")]
        valid: u64,
    },
    /// Say what one says and whether it is good
    Verify(Given),
}

#[derive(Subcommand)]
pub(crate) enum MapKey {
    /// Make one
    Gen {
        #[command(flatten)]
        subject: Subject,
        /// Room; digits only are a number
        #[arg(long)]
        room: String,
        /// Sum of rights: 0xff publishes and plays, 0xab plays
        #[arg(long, value_name = "BITS", value_parser = parse_rights, default_value = "0xff")]
        rights: u32,
        /// How long it is valid
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "5m")]
        valid: u64,
    },
    /// Say what one says and whether it is good
    Verify {
        #[command(flatten)]
        given: Given,
        /// Refuse it unless it is for this room
        #[arg(long)]
        room: Option<String>,
    },
}

fn parse_rights(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(rights) if rights <= PUBLISH_AND_PLAY => Ok(rights),
        _ => Err("rights are 0..=255, also written as 0xff".to_owned()),
    }
}

pub(crate) fn usersig(cli: &Cli, action: &UserSig) -> Result<(), String> {
    match action {
        UserSig::Gen { subject, valid } => show_new(cli, subject, *valid, None),
        UserSig::Verify(given) => {
            let ticket = open(given)?;
            if ticket.userbuf.is_some() {
                return Err(
                    "this is no UserSig: it has a userbuf, as a privateMapKey has".to_owned()
                );
            }
            show(cli, &facts(&ticket))
        }
    }
}

pub(crate) fn map_key(cli: &Cli, action: &MapKey) -> Result<(), String> {
    match action {
        MapKey::Gen { subject, room, rights, valid } => {
            show_new(cli, subject, *valid, Some((room, *rights)))
        }
        MapKey::Verify { given, room } => {
            let ticket = open(given)?;
            let userbuf = ticket.userbuf.as_deref();
            let userbuf = userbuf.ok_or("this is no privateMapKey: it has no userbuf")?;
            let key = map_key::MapKey::read(userbuf).ok_or("its userbuf cannot be read")?;
            let is_of_ticket = key.user == ticket.user.as_bytes()
                && u64::from(key.sdk_app_id) == ticket.sdk_app_id;
            if !is_of_ticket {
                return Err("its userbuf is for another user or application".to_owned());
            }
            if unix_s() > u64::from(key.expires_unix_s) {
                let moment = utc(key.expires_unix_s.into());
                return Err(format!("its userbuf expired at {moment}"));
            }
            let named = match key.room {
                Room::Number(number) => number.to_string(),
                Room::Name(name) => String::from_utf8_lossy(name).into_owned(),
            };
            if room.as_deref().is_some_and(|room| !key.room.is(room)) {
                return Err(format!("it is for the room {named}"));
            }
            let mut facts = facts(&ticket);
            facts["room"] = named.into();
            facts["rights"] = format!("{:#x}", key.rights).into();
            show(cli, &facts)
        }
    }
}

fn show_new(
    cli: &Cli,
    subject: &Subject,
    valid_s: u64,
    room: Option<(&String, u32)>,
) -> Result<(), String> {
    let key = SigningKey::new(&subject.key.required()?)?;
    let unix_s = unix_s();
    let expires = unix_s.saturating_add(valid_s);
    let (user, sdk_app_id) = (subject.user.as_str(), subject.sdk_app_id);
    let new = NewTicket { key: &key, sdk_app_id, user, unix_s, expires };
    let ticket = new.sign(room.map(|(room, rights)| (room.as_str(), rights)));
    let ticket = ticket.map_err(|error| error.to_string())?;
    if cli.json {
        let expires_text = utc(expires);
        let answer = json!({"ticket": ticket, "expires_unix_s": expires, "expires": expires_text});
        return print(&format!("{answer}\n"));
    }
    // Alone on its line, for scripts.
    print(&format!("{ticket}\n"))
}

fn open(given: &Given) -> Result<Ticket, String> {
    let mut keys = TicketKeys::default();
    if let Some(path) = &given.public_key_file {
        let at = |error: &str| format!("{}: {error}", path.display());
        let pem = read_file(path).map_err(|error| at(&error))?;
        keys.public.add_pem(&pem).map_err(at)?;
    } else {
        keys.shared = Some(Keys::new(given.key.required()?, None));
    }
    let ticket = keys.open(&given.ticket).map_err(|error| match error {
        TicketError::Malformed => "this is no ticket".to_owned(),
        TicketError::BadSignature => "the key did not sign this ticket".to_owned(),
    })?;
    if given.user.as_ref().is_some_and(|user| *user != ticket.user) {
        return Err(format!("it is for the user {}", printable(&ticket.user)));
    }
    if given.sdk_app_id.is_some_and(|id| u64::from(id) != ticket.sdk_app_id) {
        return Err(format!("it is for the application {}", ticket.sdk_app_id));
    }
    if unix_s() > ticket.expires_unix_s() {
        return Err(format!("it expired at {}", utc(ticket.expires_unix_s())));
    }
    Ok(ticket)
}

fn facts(ticket: &Ticket) -> Value {
    json!({
        "valid": true,
        "version": ticket.version,
        "user": ticket.user,
        "sdk_app_id": ticket.sdk_app_id,
        "made": utc(ticket.time_unix_s),
        "expires": utc(ticket.expires_unix_s()),
    })
}

fn show(cli: &Cli, facts: &Value) -> Result<(), String> {
    if cli.json { print(&format!("{facts}\n")) } else { print(&render_fields(facts)) }
}
