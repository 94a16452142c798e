//! What a client session sends: the commands of its setup, media, and the end.

use alloc::vec::Vec;

use super::{ClientInput, ClientPhase, ClientRole, ClientSession};
use crate::amf0;
use crate::chunk::{CSID_AUDIO, CSID_DATA, CSID_VIDEO};
use crate::message::{Control, MessageHeader, event, kind};
use crate::session::FOURCC_CAN_FORWARD;
use crate::session::event::MediaKind;
use crate::session::inbound::len_u32;

/// Transactions of the setup, by which answers are told apart.
pub(super) const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
pub(super) const CREATE_STREAM: f64 = 4.0;
const START: f64 = 5.0;
const FC_UNPUBLISH: f64 = 6.0;

/// `capabilities`, `audioCodecs` and `videoCodecs` as Flash players sent them: everything.
const CAPABILITIES: f64 = 239.0;
const AUDIO_CODECS: f64 = 3575.0;
const VIDEO_CODECS: f64 = 252.0;

const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
const ON_META_DATA: &[u8] = b"\x02\x00\x0aonMetaData";

impl ClientSession {
    pub(super) fn request_connect(&mut self) {
        let config = self.config.clone();
        self.outbound.command(0, |amf| {
            amf.string("connect");
            amf.number(CONNECT);
            amf.object_begin();
            property(amf, "app", &config.app);
            if config.role == ClientRole::Publish {
                property(amf, "type", "nonprivate");
            }
            property(amf, "flashVer", &config.flash_ver);
            property(amf, "tcUrl", &config.tc_url);
            if config.role == ClientRole::Play {
                amf.key("fpad");
                amf.boolean(false);
                for (key, value) in [
                    ("capabilities", CAPABILITIES),
                    ("audioCodecs", AUDIO_CODECS),
                    ("videoCodecs", VIDEO_CODECS),
                    ("videoFunction", 1.0),
                ] {
                    amf.key(key);
                    amf.number(value);
                }
            }
            amf.key("objectEncoding");
            amf.number(0.0);
            if config.caps_ex != 0 {
                amf.key("capsEx");
                amf.number(f64::from(config.caps_ex));
            }
            write_fourccs(amf, &config.fourccs);
            amf.object_end();
        });
    }

    /// What follows the accepted `connect`, in one burst as encoders send it.
    pub(super) fn request_stream(&mut self) {
        let config = self.config.clone();
        self.announce_window(config.window_ack_bytes);
        self.outbound.control(Control::SetChunkSize(config.chunk_bytes_out));
        if config.role == ClientRole::Publish {
            self.send_command(0, "releaseStream", RELEASE_STREAM, |amf| amf.string(&config.stream));
            self.send_command(0, "FCPublish", FC_PUBLISH, |amf| amf.string(&config.stream));
        }
        self.send_command(0, "createStream", CREATE_STREAM, |_| {});
    }

    pub(super) fn request_start(&mut self, msid: u32) {
        let config = self.config.clone();
        match config.role {
            ClientRole::Publish => self.send_command(msid, "publish", START, |amf| {
                amf.string(&config.stream);
                amf.string("live");
            }),
            ClientRole::Play => {
                self.send_command(msid, "play", START, |amf| {
                    amf.string(&config.stream);
                    amf.number(-2.0);
                });
                self.outbound.control(Control::User {
                    event: event::SET_BUFFER_LENGTH,
                    data: msid,
                    more: config.buffer_ms,
                });
            }
        }
    }

    /// Queues a command with a null command object; `write` adds the arguments. For what the session does not
    /// send by itself, for example `pause` or `receiveVideo`.
    pub fn send_command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        write: impl FnOnce(&mut amf0::Writer<'_>),
    ) {
        self.outbound.command(msid, |amf| {
            amf.string(name);
            amf.number(transaction);
            amf.null();
            write(amf);
        });
    }

    /// Appends one audio or video message to `out`. Returns false, with nothing written, unless the stream
    /// is being published.
    pub fn write_media(
        &mut self,
        kind: MediaKind,
        timestamp: u32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let csid = match kind {
            MediaKind::Audio => CSID_AUDIO,
            MediaKind::Video => CSID_VIDEO,
        };
        self.write(csid, kind.type_id(), timestamp, body, out)
    }

    /// Appends one AMF0 data message to `out`, as `@setDataFrame` when it is `onMetaData`. Returns
    /// false, with
    /// nothing written, unless the stream is being published.
    pub fn write_data(&mut self, timestamp: u32, body: &[u8], out: &mut Vec<u8>) -> bool {
        if !body.starts_with(ON_META_DATA) {
            return self.write(CSID_DATA, kind::DATA_AMF0, timestamp, body, out);
        }
        let framed: Vec<u8> = [SET_DATA_FRAME, body].concat();
        self.write(CSID_DATA, kind::DATA_AMF0, timestamp, &framed, out)
    }

    fn write(
        &mut self,
        csid: u32,
        kind: u8,
        timestamp: u32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let ClientPhase::Active { msid } = self.phase else { return false };
        if self.config.role != ClientRole::Publish {
            return false;
        }
        let header = MessageHeader { csid, kind, msid, timestamp, length: len_u32(body.len()) };
        self.outbound.framing().write_message(&header, body, out);
        true
    }

    /// Ends the stream in a clean way: the server ends it at once, without a grace period. Send what is
    /// queued, then close the connection. Without effect on a closed session.
    pub fn close(&mut self) {
        if self.phase == ClientPhase::Closed {
            return;
        }
        if let Some(msid) = self.phase.msid() {
            let config = self.config.clone();
            if config.role == ClientRole::Publish {
                self.send_command(0, "FCUnpublish", FC_UNPUBLISH, |amf| amf.string(&config.stream));
            }
            self.send_command(0, "deleteStream", 0.0, |amf| amf.number(f64::from(msid)));
        }
        self.step(ClientInput::Close);
    }
}

fn property(amf: &mut amf0::Writer<'_>, key: &str, value: &str) {
    amf.key(key);
    amf.string(value);
}

/// Both forms of Enhanced RTMP: the list for version 1, the maps for version 2.
fn write_fourccs(amf: &mut amf0::Writer<'_>, fourccs: &[alloc::string::String]) {
    if fourccs.is_empty() {
        return;
    }
    amf.key("fourCcList");
    amf.strict_array_begin(len_u32(fourccs.len()));
    for fourcc in fourccs {
        amf.string(fourcc);
    }
    for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
        amf.key(map);
        amf.object_begin();
        for fourcc in fourccs {
            amf.key(fourcc);
            amf.number(f64::from(FOURCC_CAN_FORWARD));
        }
        amf.object_end();
    }
}
