//! How records and descriptors travel between the two processes: a stream socket of this machine.
//!
//! Hello, then the legacy as one checked block, then descriptors in batches, each with one byte. A block that
//! is longer than announced, cut short or changed on the way is refused before anything in it is read.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use postcard::ser_flavors::Flavor;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use zeroize::Zeroizing;

use super::HandOverError;
use super::record::{Legacy, VERSION};

/// What the new process says first; the format and its process number follow, 4 bytes each.
const HELLO: &[u8; 8] = b"RINGCAST";
/// Answers, and what stands before the reason of a refusal, which goes on to the end.
const READY: &[u8; 1] = b"R";
const REFUSED: &[u8; 1] = b"E";
/// Descriptors per message: the kernel takes 253.
const BATCH: usize = 250;
/// Largest block, in bytes.
const BLOCK_BYTES_MAX: u64 = 8 << 30;
/// Longest reason of a refusal, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// The new process is there, and what it understands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`VERSION`] of its records.
    pub version: u32,
    /// Its number.
    pub pid: u32,
}

/// Says hello.
///
/// # Errors
/// The other end is gone.
pub fn say_hello(mut to: &UnixStream, pid: u32) -> io::Result<()> {
    let mut hello = HELLO.to_vec();
    hello.extend_from_slice(&VERSION.to_be_bytes());
    hello.extend_from_slice(&pid.to_be_bytes());
    to.write_all(&hello)
}

/// What the new process says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// It is there.
    Hello(Hello),
    /// It cannot even begin, and why.
    Refused(String),
}

/// Waits for it.
///
/// # Errors
/// Nothing in time, or something else.
pub fn hear_hello(mut from: &UnixStream) -> io::Result<Greeting> {
    let mut hello = [0; 16];
    from.read_exact(&mut hello[..1])?;
    if hello.starts_with(REFUSED) {
        return read_reason(from).map(Greeting::Refused);
    }
    from.read_exact(&mut hello[1..])?;
    let word =
        |at: usize| u32::from_be_bytes([hello[at], hello[at + 1], hello[at + 2], hello[at + 3]]);
    if !hello.starts_with(HELLO) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not Ringcast"));
    }
    Ok(Greeting::Hello(Hello { version: word(8), pid: word(12) }))
}

/// The block of a legacy: its length, its digest, its bytes. It holds keys of TLS, and is wiped.
///
/// # Errors
/// It cannot be put into bytes.
pub fn encode(legacy: &Legacy) -> Result<Zeroizing<Vec<u8>>, HandOverError> {
    let failed = |error| HandOverError::new(format!("the records: {error}"));
    // At its size from the start: a block that grows leaves pieces of itself behind, keys among them.
    let body_bytes = postcard::experimental::serialized_size(legacy).map_err(failed)?;
    let head_bytes = size_of::<u64>() + SHA256_OUTPUT_LEN;
    let mut head = Vec::with_capacity(head_bytes + body_bytes);
    head.resize(head_bytes, 0);
    let head = Block(Zeroizing::new(head));
    let mut block = postcard::serialize_with_flavor(legacy, head).map_err(failed)?;
    let body = &block[size_of::<u64>() + SHA256_OUTPUT_LEN..];
    let length = (body.len() as u64).to_be_bytes();
    let sum = digest(&SHA256, body);
    block[..size_of::<u64>()].copy_from_slice(&length);
    block[size_of::<u64>()..size_of::<u64>() + SHA256_OUTPUT_LEN].copy_from_slice(sum.as_ref());
    Ok(block)
}

/// Takes pieces of the record as they are: nearly all of it is media.
struct Block(Zeroizing<Vec<u8>>);

impl Flavor for Block {
    type Output = Zeroizing<Vec<u8>>;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Self::Output> {
        Ok(self.0)
    }
}

/// The body of a block read from `from`: what [`decode`] understands.
///
/// # Errors
/// Cut short, changed, or longer than can be.
pub fn receive_block(mut from: impl Read) -> Result<Zeroizing<Vec<u8>>, HandOverError> {
    let failed = |error: io::Error| HandOverError::io("the records", &error);
    let mut length = [0; size_of::<u64>()];
    from.read_exact(&mut length).map_err(failed)?;
    let mut sum = [0; SHA256_OUTPUT_LEN];
    from.read_exact(&mut sum).map_err(failed)?;
    let length = u64::from_be_bytes(length);
    if length > BLOCK_BYTES_MAX {
        return Err(HandOverError::new("the records are longer than can be"));
    }
    let mut body = Zeroizing::new(Vec::new());
    // Grows with what comes, not with what is announced.
    let bytes = from.take(length).read_to_end(&mut body).map_err(failed)?;
    if bytes as u64 != length || digest(&SHA256, &body).as_ref() != sum {
        return Err(HandOverError::new("the records are damaged"));
    }
    Ok(body)
}

/// The legacy in the body of a block.
///
/// # Errors
/// Of another format.
pub fn decode(body: &[u8]) -> Result<Legacy, HandOverError> {
    postcard::from_bytes(body).map_err(|error| HandOverError::new(format!("the records: {error}")))
}

/// Sends descriptors, a batch at a time.
///
/// # Errors
/// The other end is gone, or descriptors on their way are limited (`ETOOMANYREFS`).
pub fn send_sockets(to: &UnixStream, sockets: &[OwnedFd]) -> io::Result<()> {
    for batch in sockets.chunks(BATCH) {
        let descriptors: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(to, &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives so many.
///
/// # Errors
/// The other end is gone, or this process has no room for them.
pub fn receive_sockets(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let received = recvmsg(from, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = sockets.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        let wanted = (count - before).min(BATCH);
        if sockets.len() - before != wanted {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost"));
        }
    }
    Ok(sockets)
}

/// What the new process answers to the legacy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Everything is in place.
    Ready,
    /// It cannot go on, and why.
    Refused(String),
}

/// Answers.
///
/// # Errors
/// The other end is gone.
pub fn send_answer(mut to: &UnixStream, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Ready => to.write_all(READY),
        Answer::Refused(reason) => {
            let mut text = REFUSED.to_vec();
            text.extend_from_slice(reason.as_bytes());
            to.write_all(&text)
        }
    }
}

/// Waits for the answer.
///
/// # Errors
/// None in time, or the end of the other process.
pub fn hear_answer(mut from: &UnixStream) -> io::Result<Answer> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    match &kind {
        READY => Ok(Answer::Ready),
        REFUSED => read_reason(from).map(Answer::Refused),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is none")),
    }
}

/// The reason of a refusal: all that comes before the end, however that comes. Who refuses before it has read
/// everything leaves behind a reset, which `read` tells when all that was sent has been read.
fn read_reason(from: &UnixStream) -> io::Result<String> {
    let mut reason = Vec::new();
    match from.take(REASON_BYTES_MAX as u64).read_to_end(&mut reason) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(String::from_utf8_lossy(&reason).into_owned()),
    }
}

/// Says that the other process goes on from here, once it has confirmed that.
///
/// # Errors
/// It is gone.
pub fn send_go(mut to: &UnixStream) -> io::Result<()> {
    to.write_all(b"G")
}

/// Waits for that word, and confirms it before anything is touched.
///
/// # Errors
/// It does not come: the old process has gone on itself.
pub fn hear_go(mut from: &UnixStream) -> io::Result<()> {
    let mut word = [0];
    from.read_exact(&mut word)?;
    if &word != b"G" {
        return Err(io::ErrorKind::InvalidData.into());
    }
    from.write_all(b"A")
}

/// Waits for the confirmation. Without it the other process has touched nothing.
///
/// # Errors
/// It does not come.
pub fn hear_confirmation(mut from: &UnixStream) -> io::Result<()> {
    let mut word = [0];
    from.read_exact(&mut word)?;
    if &word == b"A" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hand_over::packaging::PackagingRecord;
    use crate::hand_over::record::{ConnectionRecord, Door, WorkerRecord};
    use std::net::TcpListener;

    fn example() -> Legacy {
        let connection = |serial| ConnectionRecord {
            serial,
            peer: "192.0.2.7:1".parse().unwrap(),
            proxy: None,
            accepted_at: 5,
            is_read_by_record: false,
            may_speak_http: true,
            live: None,
        };
        let connections = vec![connection(1), connection(2)];
        let worker = WorkerRecord { index: 0, serial: 2, connections, ..WorkerRecord::default() };
        let packaging = PackagingRecord { files: 3, runs: vec![] };
        let (doors, renditions) = (vec![Door::Rtmp, Door::Admin], vec![]);
        Legacy { doors, workers: vec![worker], renditions, packaging }
    }

    #[test]
    fn a_legacy_is_the_same_behind_the_wire_and_counts_its_sockets() {
        let legacy = example();
        assert_eq!(legacy.sockets(), 7);
        let block = encode(&legacy).unwrap();
        let read = decode(&receive_block(block.as_slice()).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{legacy:?}"));
    }

    #[test]
    fn a_block_cut_or_changed_anywhere_is_refused_and_never_a_panic() {
        let block = encode(&example()).unwrap();
        for end in 0..block.len() {
            assert!(receive_block(&block[..end]).is_err(), "cut at {end}");
        }
        for at in 0..block.len() {
            for bit in 0..8 {
                let mut changed = block.clone();
                changed[at] ^= 1 << bit;
                assert!(receive_block(changed.as_slice()).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn more_sockets_than_one_message_takes_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let address =
            |fd: &OwnedFd| TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
        let few: Vec<OwnedFd> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect();
        let many: Vec<OwnedFd> =
            few.iter().cycle().take(BATCH * 2 + 7).map(|fd| fd.try_clone().unwrap()).collect();
        let sent: Vec<_> = many.iter().map(address).collect();
        let receiver = std::thread::spawn(move || receive_sockets(&b, BATCH * 2 + 7).unwrap());
        send_sockets(&a, &many).unwrap();
        drop(many);
        let got: Vec<_> = receiver.join().unwrap().iter().map(address).collect();
        assert_eq!(got, sent);
    }

    #[test]
    fn hello_answers_and_the_word_to_go_are_understood_and_an_end_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        say_hello(&a, 77).unwrap();
        let hello = Hello { version: VERSION, pid: 77 };
        assert_eq!(hear_hello(&b).unwrap(), Greeting::Hello(hello));
        send_answer(&a, &Answer::Ready).unwrap();
        assert_eq!(hear_answer(&b).unwrap(), Answer::Ready);
        send_go(&b).unwrap();
        hear_go(&a).unwrap();
        hear_confirmation(&b).unwrap();
        send_answer(&a, &Answer::Refused("no room".into())).unwrap();
        drop(a);
        assert_eq!(hear_answer(&b).unwrap(), Answer::Refused("no room".into()));
        assert!(hear_answer(&b).is_err() && hear_hello(&b).is_err() && hear_go(&b).is_err());
    }

    #[test]
    fn the_reason_of_who_ends_before_it_has_read_everything_is_heard() {
        let refusal = Answer::Refused("no room here".into());
        let (theirs, ours) = UnixStream::pair().unwrap();
        (&ours).write_all(b"what is not read").unwrap();
        send_answer(&theirs, &refusal).unwrap();
        drop(theirs);
        assert_eq!(hear_answer(&ours).unwrap(), refusal);
        // Without a word before it, a reset is what it is.
        let (theirs, ours) = UnixStream::pair().unwrap();
        (&ours).write_all(b"what is not read").unwrap();
        drop(theirs);
        assert_eq!(hear_answer(&ours).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_refusal_may_come_in_place_of_the_hello() {
        let (a, b) = UnixStream::pair().unwrap();
        send_answer(&a, &Answer::Refused("no ring".into())).unwrap();
        drop(a);
        assert_eq!(hear_hello(&b).unwrap(), Greeting::Refused("no ring".into()));
    }
}
