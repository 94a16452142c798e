//! What one peer may cost this crate, in bytes and counts. Every buffer of it has its line here.

/// Header of a TLS record: type, version, length.
pub const RECORD_HEADER_BYTES: usize = 5;

/// Plaintext in one record at most (RFC 8446 §5.1).
pub const RECORD_PLAIN_BYTES_MAX: usize = 16 * 1024;

/// A record on the wire at most: the larger allowance, of TLS 1.2 (RFC 5246 §6.2.3), for both versions.
pub const RECORD_WIRE_BYTES_MAX: usize = RECORD_HEADER_BYTES + RECORD_PLAIN_BYTES_MAX + 2048;

/// What a record of ours adds to its plaintext at most: header, explicit nonce of TLS 1.2, tag.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = RECORD_HEADER_BYTES + 8 + 16;

/// A client hello with its record headers. With hybrid key shares one has about 2 KiB; a peer that
/// claims more than this pays nothing and costs nothing.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// A handshake message of a server in pieces, as the client holds it: certificate chains are large.
pub(crate) const SERVER_FLIGHT_BYTES_MAX: usize = 64 * 1024;

/// Capacity of the receive buffer kept while nothing is in it. More is given back, so that an idle
/// subscriber, who sends acknowledgements only, holds next to nothing.
pub(crate) const IDLE_BYTES_MAX: usize = 1024;

/// `KeyUpdate` messages a peer may send ahead of its data when the kernel has the records.
pub(crate) const KEY_UPDATES_MAX: u32 = 32;

/// Keys of each direction that are derived ahead when a session goes to another process: so many times it can
/// change them there and in all later ones. With AES-GCM a key is good for 2^24 records, two days at a
/// hundred a second. Each costs 72 bytes of memory.
pub(crate) const KEYS_AHEAD: usize = 16;

/// Data received that earns a peer one more `KeyUpdate`.
pub(crate) const KEY_UPDATE_EARNED_BYTES: u64 = 16 * 1024;

/// Session tickets and warnings a peer may send when the kernel has the records.
pub(crate) const KERNEL_EVENTS_MAX: u32 = 64;

/// Handshake message in pieces when the kernel has the records: a ticket is the largest legal one.
pub(crate) const KERNEL_MESSAGE_BYTES_MAX: usize = 16 * 1024;

// A hello that fits its limit may arrive in one record.
const _: () = assert!(HELLO_BYTES_MAX <= RECORD_WIRE_BYTES_MAX);
// The bound of a client's buffer must not be below what the library itself accepts as one message.
const _: () = assert!(SERVER_FLIGHT_BYTES_MAX > 0xffff);
