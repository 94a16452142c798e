//! What a late joiner must hear before the first media message: metadata and the current
//! sequence headers.
//!
//! The publisher's side keeps them as a small table ([`Preamble`]) and publishes it through the
//! ring as one opaque blob; a joining worker walks the blob ([`entries`]) and writes each entry
//! with its own timestamp and message stream id. Bounded: [`PREAMBLE_BYTES_MAX`] in total and
//! [`PREAMBLE_ENTRIES_MAX`] entries; what does not fit still reaches everyone as an ordinary
//! message in the ring, and is counted by the caller.
//!
//! Blob layout, repeated per entry: `kind: u8 · body length: u32 big-endian · body`.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Largest blob, in bytes: room for a 64 KiB `onMetaData` and generous codec configurations.
pub const PREAMBLE_BYTES_MAX: usize = 160 * 1024;
/// Most entries: metadata, and sequence headers and colour metadata of 16 video and 16 audio tracks.
pub const PREAMBLE_ENTRIES_MAX: usize = 64;
/// Largest metadata body that is kept for late joiners, in bytes.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

const ENTRY_HEADER_BYTES: usize = 5;

/// Which slot of the preamble an entry fills; a newer entry with the same key replaces the older.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// Order of delivery: metadata first, then video, then audio.
    class: u8,
    /// Track and packet class within the kind.
    track: u16,
}

impl EntryKey {
    /// The latest `onMetaData`.
    pub const METADATA: Self = Self { class: 0, track: 0 };

    /// Codec configuration or colour metadata of a video track.
    pub fn video(track: u16) -> Self {
        Self { class: 1, track }
    }

    /// Codec configuration of an audio track.
    pub fn audio(track: u16) -> Self {
        Self { class: 2, track }
    }

    /// As numbers, for a record.
    #[cfg(feature = "serde")]
    pub(crate) fn numbers(self) -> (u8, u16) {
        (self.class, self.track)
    }

    /// The way back.
    #[cfg(feature = "serde")]
    pub(crate) fn of_numbers((class, track): (u8, u16)) -> Self {
        Self { class, track }
    }

    fn is_metadata(self) -> bool {
        self.class == 0
    }
}

/// What [`Preamble::update`] found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The same bytes were there already; encoders repeat their headers with every GOP.
    Same,
    /// An entry that was not there before.
    Added,
    /// Other bytes than before: what was joined before does not fit what comes now.
    Replaced,
    /// Too large or too many; not kept.
    NotKept,
}

#[derive(Debug)]
struct Entry {
    key: EntryKey,
    kind: u8,
    body: Box<[u8]>,
}

/// The publisher's table of what late joiners need.
#[derive(Debug, Default)]
pub struct Preamble {
    entries: Vec<Entry>,
    blob_bytes: usize,
}

impl Preamble {
    /// An empty preamble.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores `body` (an RTMP message body of type `kind`) under `key`.
    pub fn update(&mut self, key: EntryKey, kind: u8, body: &[u8]) -> Change {
        if key.is_metadata() && body.len() > METADATA_BYTES_MAX {
            return Change::NotKept;
        }
        let found = self.entries.binary_search_by_key(&key, |entry| entry.key);
        let old_bytes = match found.ok().and_then(|at| self.entries.get(at)) {
            Some(entry) if entry.kind == kind && *entry.body == *body => return Change::Same,
            Some(entry) => ENTRY_HEADER_BYTES + entry.body.len(),
            None => 0,
        };
        let blob_bytes = self.blob_bytes - old_bytes + ENTRY_HEADER_BYTES + body.len();
        if blob_bytes > PREAMBLE_BYTES_MAX {
            return Change::NotKept;
        }
        let entry = Entry { key, kind, body: body.into() };
        let change = match found {
            Ok(at) => {
                self.entries[at] = entry;
                Change::Replaced
            }
            Err(_) if self.entries.len() == PREAMBLE_ENTRIES_MAX => return Change::NotKept,
            Err(at) => {
                self.entries.insert(at, entry);
                Change::Added
            }
        };
        self.blob_bytes = blob_bytes;
        change
    }

    /// Forgets the metadata (`@clearDataFrame`). True if there was any.
    pub fn clear_metadata(&mut self) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.key.is_metadata());
        self.blob_bytes =
            self.entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.body.len()).sum();
        self.entries.len() != before
    }

    /// Forgets everything, as at the start of a new publisher's session.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.blob_bytes = 0;
    }

    /// Everything stored, in order.
    #[cfg(feature = "serde")]
    pub(crate) fn entries(&self) -> impl Iterator<Item = (EntryKey, u8, &[u8])> {
        self.entries.iter().map(|entry| (entry.key, entry.kind, &*entry.body))
    }

    /// True if nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The wire-independent blob that the ring hands to joining workers.
    pub fn to_blob(&self) -> Box<[u8]> {
        let mut blob = Vec::with_capacity(self.blob_bytes);
        for entry in &self.entries {
            blob.push(entry.kind);
            // A body is bounded by PREAMBLE_BYTES_MAX, so the length always fits.
            blob.extend_from_slice(&u32::try_from(entry.body.len()).unwrap_or(0).to_be_bytes());
            blob.extend_from_slice(&entry.body);
        }
        blob.into_boxed_slice()
    }
}

/// Walks a blob made by [`Preamble::to_blob`]: (message type id, body), metadata first.
/// Ends early instead of panicking if the blob is torn.
pub fn entries(blob: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = blob;
    core::iter::from_fn(move || {
        let (&kind, tail) = rest.split_first()?;
        let (length, tail) = tail.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let body = tail.get(..length)?;
        rest = tail.get(length..)?;
        Some((kind, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const VIDEO: u8 = 9;
    const AUDIO: u8 = 8;
    const DATA: u8 = 18;

    fn collect(preamble: &Preamble) -> Vec<(u8, Vec<u8>)> {
        let blob = preamble.to_blob();
        entries(&blob).map(|(kind, body)| (kind, body.to_vec())).collect()
    }

    #[test]
    fn metadata_comes_first_then_video_then_audio() {
        let mut preamble = Preamble::new();
        assert_eq!(preamble.update(EntryKey::audio(0), AUDIO, b"aac"), Change::Added);
        assert_eq!(preamble.update(EntryKey::video(0), VIDEO, b"avc"), Change::Added);
        assert_eq!(preamble.update(EntryKey::METADATA, DATA, b"meta"), Change::Added);
        assert_eq!(
            collect(&preamble),
            [(DATA, b"meta".to_vec()), (VIDEO, b"avc".to_vec()), (AUDIO, b"aac".to_vec())]
        );
    }

    #[test]
    fn a_repeated_header_changes_nothing_and_a_new_one_replaces() {
        let mut preamble = Preamble::new();
        preamble.update(EntryKey::video(0), VIDEO, b"one");
        assert_eq!(preamble.update(EntryKey::video(0), VIDEO, b"one"), Change::Same);
        assert_eq!(preamble.update(EntryKey::video(0), VIDEO, b"other"), Change::Replaced);
        assert_eq!(collect(&preamble), [(VIDEO, b"other".to_vec())]);
    }

    #[test]
    fn tracks_are_kept_apart() {
        let mut preamble = Preamble::new();
        preamble.update(EntryKey::video(1), VIDEO, b"track 1");
        preamble.update(EntryKey::video(0), VIDEO, b"track 0");
        assert_eq!(
            collect(&preamble),
            [(VIDEO, b"track 0".to_vec()), (VIDEO, b"track 1".to_vec())]
        );
    }

    #[test]
    fn oversized_metadata_is_not_kept_and_the_total_is_bounded() {
        let mut preamble = Preamble::new();
        let huge = vec![0; METADATA_BYTES_MAX + 1];
        assert_eq!(preamble.update(EntryKey::METADATA, DATA, &huge), Change::NotKept);
        let large = vec![0; PREAMBLE_BYTES_MAX / 2];
        assert_eq!(preamble.update(EntryKey::video(0), VIDEO, &large), Change::Added);
        assert_eq!(preamble.update(EntryKey::video(1), VIDEO, &large), Change::NotKept);
        assert!(preamble.to_blob().len() <= PREAMBLE_BYTES_MAX);
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let mut preamble = Preamble::new();
        for track in 0..PREAMBLE_ENTRIES_MAX {
            let key = EntryKey::video(u16::try_from(track).unwrap());
            assert_eq!(preamble.update(key, VIDEO, b"x"), Change::Added);
        }
        assert_eq!(preamble.update(EntryKey::audio(0), AUDIO, b"x"), Change::NotKept);
    }

    #[test]
    fn clearing_metadata_leaves_the_headers() {
        let mut preamble = Preamble::new();
        preamble.update(EntryKey::METADATA, DATA, b"meta");
        preamble.update(EntryKey::video(0), VIDEO, b"avc");
        assert!(preamble.clear_metadata());
        assert!(!preamble.clear_metadata());
        assert_eq!(collect(&preamble), [(VIDEO, b"avc".to_vec())]);
    }

    #[test]
    fn a_torn_blob_ends_early() {
        let mut preamble = Preamble::new();
        preamble.update(EntryKey::video(0), VIDEO, b"avc");
        let blob = preamble.to_blob();
        for end in 0..blob.len() {
            assert_eq!(entries(&blob[..end]).count(), 0);
        }
    }
}
