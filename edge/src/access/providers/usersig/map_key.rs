//! The userbuf of a privateMapKey: who may do what in which room until when. Binary, big-endian.
//!
//! ```text
//!   1   version: 0, or 1 when a room name follows      4   end of validity, Unix seconds
//!   2+n user                                           4   rights, one bit each
//!   4   application                                    4   account type, 0
//!   4   numeric room, 0 with a room name               2+m room name (version 1 only)
//! ```
//!
//! Nothing may follow. A number of 0 is no room.

/// May create a room.
pub const CREATE: u32 = 1;
/// May enter it.
pub const ENTER: u32 = 1 << 1;
/// May send audio.
pub const SEND_AUDIO: u32 = 1 << 2;
/// May receive audio.
pub const RECEIVE_AUDIO: u32 = 1 << 3;
/// May send video.
pub const SEND_VIDEO: u32 = 1 << 4;
/// May receive video.
pub const RECEIVE_VIDEO: u32 = 1 << 5;
/// May send a second picture, such as a screen.
pub const SEND_SUB: u32 = 1 << 6;
/// May receive it.
pub const RECEIVE_SUB: u32 = 1 << 7;
/// Everything: publish and play.
pub const PUBLISH_AND_PLAY: u32 = 0xFF;
/// Enter and receive.
pub const PLAY_ONLY: u32 = 0xAB;
pub(super) const RECEIVE_ANY: u32 = RECEIVE_AUDIO | RECEIVE_VIDEO | RECEIVE_SUB;

const _: () = assert!(PLAY_ONLY == CREATE | ENTER | RECEIVE_ANY);

/// A room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Room<'b> {
    /// By number.
    Number(u32),
    /// By name.
    Name(&'b [u8]),
}

impl Room<'_> {
    /// Whether an address that says `text` means this room. A number is written without leading zeros.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Name(name) => *name == text.as_bytes(),
            Self::Number(number) => {
                let is_plain = text.bytes().all(|digit| digit.is_ascii_digit());
                is_plain && !text.starts_with('0') && text.parse() == Ok(*number)
            }
        }
    }
}

/// What a userbuf says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapKey<'b> {
    /// User, as bytes.
    pub user: &'b [u8],
    /// Application.
    pub sdk_app_id: u32,
    /// Room.
    pub room: Room<'b>,
    /// Last second of validity.
    pub expires_unix_s: u32,
    /// Sum of the rights above.
    pub rights: u32,
}

impl<'b> MapKey<'b> {
    /// Reads a whole userbuf; `None` if it is not exactly one.
    pub fn read(mut bytes: &'b [u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let version = *bytes.split_off_first()?;
        let user = text(bytes)?;
        let sdk_app_id = number(bytes)?;
        let room_number = number(bytes)?;
        let expires_unix_s = number(bytes)?;
        let rights = number(bytes)?;
        let account_type = number(bytes)?;
        let room = match version {
            0 => Room::Number(room_number),
            1 => Room::Name(text(bytes)?),
            _ => return None,
        };
        let is_room = match room {
            Room::Number(number) => number != 0,
            Room::Name(name) => !name.is_empty() && room_number == 0,
        };
        let is_sound = is_room && bytes.is_empty() && account_type == 0;
        is_sound.then_some(Self { user, sdk_app_id, room, expires_unix_s, rights })
    }

    /// Writes a userbuf.
    ///
    /// # Errors
    /// A phrase when user or room name is longer than 65,535 bytes or the room is empty.
    pub fn write(&self) -> Result<Vec<u8>, &'static str> {
        let (version, number, name) = match self.room {
            Room::Number(0) | Room::Name([]) => return Err("a room is a number above 0 or a name"),
            Room::Number(number) => (0, number, None),
            Room::Name(name) => (1, 0, Some(name)),
        };
        let mut out = vec![version];
        put_text(&mut out, self.user)?;
        for field in [self.sdk_app_id, number, self.expires_unix_s, self.rights, 0] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        name.map_or(Ok(()), |name| put_text(&mut out, name))?;
        Ok(out)
    }
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*first))
}

fn text<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(text)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), &'static str> {
    let length = u16::try_from(text.len()).map_err(|_| "user or room is too long")?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(room: Room<'_>) -> Vec<u8> {
        let (user, sdk_app_id) = (b"27149".as_slice(), 1_400_000_001);
        let expires_unix_s = 1_530_000_300;
        MapKey { user, sdk_app_id, room, expires_unix_s, rights: PLAY_ONLY }.write().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_and_no_other_length_is() {
        for room in [Room::Number(1_234), Room::Name(b"room-A1")] {
            let bytes = example(room.clone());
            assert_eq!(MapKey::read(&bytes).unwrap().room, room);
            for end in 0..bytes.len() {
                assert_eq!(MapKey::read(&bytes[..end]), None, "{end}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(MapKey::read(&longer), None);
        }
    }

    #[test]
    fn a_numeric_room_has_one_text() {
        let room = Room::Number(1_234);
        assert!(room.is("1234"));
        for other in ["01234", "+1234", "1234 ", "", "4294968530", "12345", "x"] {
            assert!(!room.is(other), "{other:?}");
        }
        assert!(Room::Name(b"01234").is("01234") && !Room::Name(b"a").is("A"));
    }

    #[test]
    fn a_userbuf_without_a_room_is_refused() {
        let mut bytes = example(Room::Number(1));
        bytes[1 + 2 + 5 + 4..][..4].fill(0);
        assert_eq!(MapKey::read(&bytes), None);
        let key = MapKey::read(&[]);
        assert_eq!(key, None);
        assert!(userless(Room::Number(0)).is_err() && userless(Room::Name(b"")).is_err());
    }

    fn userless(room: Room<'_>) -> Result<Vec<u8>, &'static str> {
        MapKey { user: b"", sdk_app_id: 1, room, expires_unix_s: 1, rights: 0 }.write()
    }
}
