//! The library's states, one at a time: what each asks for, done on the caller's buffers.
//!
//! Free of the session's own state, and the same for both sides of a connection. Called by `Session` only.

use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::Session;

/// What the library said and what to do next.
pub(super) struct Turn {
    pub(super) discard: usize,
    pub(super) next: Next,
}

/// What to do next.
pub(super) enum Next {
    Again { data_records: usize },
    Blocked,
    Traffic,
    PeerClosed,
    Failed(rustls::Error),
}

/// Handles one state of the library.
pub(super) fn turn<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> Turn {
    let UnbufferedStatus { mut discard, state } = status;
    let again = Next::Again { data_records: 0 };
    let next = match state {
        Ok(ConnectionState::EncodeTlsData(mut piece)) => {
            append(out, |room| piece.encode(room));
            again
        }
        // Appended to `out` is as good as sent: the caller sends it in order or closes.
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            sent.done();
            again
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut data_records = 0;
            let mut failed = None;
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                        data_records += 1;
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            failed.map_or(Next::Again { data_records }, Next::Failed)
        }
        Ok(ConnectionState::BlockedHandshake) => Next::Blocked,
        Ok(ConnectionState::WriteTraffic(_)) => Next::Traffic,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Next::PeerClosed,
        // Early data is not enabled, and further states would be new ones.
        Ok(_) => Next::Failed(rustls::Error::General("unknown state of the library".into())),
        Err(error) => Next::Failed(error),
    };
    Turn { discard, next }
}

/// Grows `out` by what `encode` says it needs.
pub(super) fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> std::result::Result<usize, EncodeError>,
) {
    let at = out.len();
    if let Err(EncodeError::InsufficientSize(need)) = encode(&mut []) {
        out.resize(at + need.required_size, 0);
        let bytes = encode(&mut out[at..]).unwrap_or(0);
        out.truncate(at + bytes);
    }
}

/// Moves a waiting answer to a `KeyUpdate` to where the library offers it for sending. Asking for a record
/// and giving no room for it does so without encrypting anything.
pub(super) fn push_key_update<Data>(status: UnbufferedStatus<'_, '_, Data>) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        let no_room = traffic.encrypt(&[0], &mut []);
        debug_assert!(no_room.is_err());
    }
}

/// One try to encrypt.
pub(super) enum Attempt {
    Done {
        bytes: usize,
    },
    /// Something else went first.
    Ahead {
        bytes: usize,
    },
    /// More room is needed.
    Room {
        bytes: usize,
    },
    /// The keys are used up.
    Exhausted,
    /// The library cannot send now.
    Refused,
}

pub(super) fn encrypt_once<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &[u8],
    room: &mut [u8],
) -> Attempt {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match traffic.encrypt(plain, room) {
            Ok(bytes) => Attempt::Done { bytes },
            Err(EncryptError::InsufficientSize(need)) => {
                Attempt::Room { bytes: need.required_size }
            }
            Err(EncryptError::EncryptExhausted) => Attempt::Exhausted,
        },
        Ok(ConnectionState::EncodeTlsData(mut piece)) => match piece.encode(room) {
            Ok(bytes) => Attempt::Ahead { bytes },
            Err(EncodeError::InsufficientSize(need)) => {
                Attempt::Room { bytes: need.required_size + Session::encrypted_bytes(plain.len()) }
            }
            Err(EncodeError::AlreadyEncoded) => Attempt::Refused,
        },
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            sent.done();
            Attempt::Ahead { bytes: 0 }
        }
        _ => Attempt::Refused,
    }
}
