//! What a server session does on each command of the peer.
//!
//! | command | reply | event |
//! |---|---|---|
//! | connect | by the owner | Connect |
//! | releaseStream | `_result` | |
//! | FCPublish | `_result`, onFCPublish | |
//! | FCUnpublish | `_result`, onFCUnpublish, Unpublish.Success | Unpublish |
//! | createStream | `_result` with the msid | |
//! | publish, play, play2 | by the owner | Publish, Play (StopPlay before, when it replaces) |
//! | pause, pauseRaw, seek | onStatus | Pause, Seek |
//! | receiveAudio, receiveVideo | | ReceiveAudio, ReceiveVideo |
//! | getStreamLength | `_result` 0 | |
//! | FCSubscribe | onFCSubscribe | |
//! | closeStream, deleteStream | Unpublish.Success | Unpublish or StopPlay |
//! | any other | `_result` null when it asks for one | |
//!
//! A command that is not known never closes the connection: encoders try out all sorts.
//! Spec: RTMP 1.0 §7.2.

use alloc::boxed::Box;
use alloc::string::String;

use super::{ConnectFacts, ServerSession, after};
use crate::Millis;
use crate::amf0::Value;
use crate::command::Command;
use crate::message::event;
use crate::session::config::STRING_BYTES_MAX;
use crate::session::error::SessionError;
use crate::session::event::{Event, PlayRequest, PublishMode, PublishRequest, StatusLevel};
use crate::session::outbound::info;
use crate::session::state::{EndedRole, Phase, PhaseInput, StreamInput};

/// Prefixes by which players name a container; a live stream has none.
const CONTAINER_PREFIXES: [&str; 6] = ["mp4:", "flv:", "f4v:", "mp3:", "aac:", "id3:"];

/// What a handler brings: an event for the owner, or the peer's mistake.
type Handled = Result<Option<Event<'static>>, SessionError>;

impl ServerSession {
    pub(super) fn on_command<'b>(
        &mut self,
        now: Millis,
        msid: u32,
        body: &[u8],
    ) -> Result<Option<Event<'b>>, SessionError> {
        let command = match Command::parse(body) {
            Ok(command) => command,
            Err(error) => {
                let error = SessionError::from_command(error, self.bytes_in());
                return Err(self.fail(error, 0.0, msid));
            }
        };
        match self.dispatch(now, msid, &command) {
            Ok(event) => Ok(event),
            Err(error) => {
                let closes = error.disposition().close;
                let error = self.fail(error, command.transaction, msid);
                if closes { Err(error) } else { Ok(None) }
            }
        }
    }

    fn dispatch(&mut self, now: Millis, msid: u32, command: &Command<'_>) -> Handled {
        let name = command.name.as_ref();
        if self.phase == Phase::AwaitingConnect {
            return match name {
                "connect" => self.on_connect(now, command),
                "createStream" | "publish" | "play" | "play2" => {
                    Err(SessionError::NotConnected { offset: self.bytes_in() })
                }
                _ => self.on_unknown(command),
            };
        }
        match name {
            "connect" => Err(SessionError::SecondConnect { offset: self.bytes_in() }),
            "releaseStream" => self.on_release_stream(command),
            "FCPublish" => self.on_fc_publish(command),
            "FCUnpublish" => self.on_fc_unpublish(command),
            "createStream" => self.on_create_stream(command),
            "publish" => self.on_publish(msid, command),
            "play" => self.on_play(msid, command),
            "play2" => self.on_play2(msid, command),
            "pause" | "pauseRaw" | "pauseraw" => Ok(self.on_pause(msid, command)),
            "seek" => Ok(self.on_seek(msid, command)),
            "receiveAudio" => Ok(self.on_receive(msid, command, true)),
            "receiveVideo" => Ok(self.on_receive(msid, command, false)),
            "getStreamLength" => self.on_stream_length(command),
            "FCSubscribe" => self.on_fc_subscribe(),
            "closeStream" => Ok(self.on_close_stream(msid)),
            "deleteStream" => Ok(self.on_delete_stream(msid, command)),
            _ => self.on_unknown(command),
        }
    }

    fn on_connect(&mut self, now: Millis, command: &Command<'_>) -> Handled {
        let too_long = |field| SessionError::StringTooLong { field, offset: self.bytes_in() };
        let request = command.connect_request(STRING_BYTES_MAX).map_err(too_long)?;
        if let Some(opening) = &mut self.opening {
            opening.connect = ConnectFacts {
                transaction: command.transaction,
                object_encoding: request.object_encoding,
                enhanced: request.is_enhanced(),
            };
        }
        self.peer.caps_ex = request.caps_ex;
        self.timers.next_ping = after(now, u64::from(self.timers.ping_interval_ms));
        self.step_phase(PhaseInput::Connect);
        Ok(Some(Event::Connect(Box::new(request))))
    }

    fn on_release_stream(&mut self, command: &Command<'_>) -> Handled {
        self.reply_undefined(command);
        Ok(None)
    }

    /// `_result` null undefined, which is what the encoders were made against.
    fn reply_undefined(&mut self, command: &Command<'_>) {
        let transaction = command.transaction;
        if transaction != 0.0 {
            self.outbound.command(0, |amf| {
                amf.string("_result");
                amf.number(transaction);
                amf.null();
                amf.undefined();
            });
        }
    }

    fn on_fc_publish(&mut self, command: &Command<'_>) -> Handled {
        self.reply_undefined(command);
        self.reply_on_fc("onFCPublish", "NetStream.Publish.Start", "Go on with publish.");
        Ok(None)
    }

    fn on_fc_subscribe(&mut self) -> Handled {
        self.reply_on_fc("onFCSubscribe", "NetStream.Play.Start", "Go on with play.");
        Ok(None)
    }

    fn reply_on_fc(&mut self, name: &str, code: &str, description: &str) {
        self.outbound.command(0, |amf| {
            amf.string(name);
            amf.number(0.0);
            amf.null();
            info(amf, StatusLevel::Status, code, description);
        });
    }

    /// Ends the publishing it names; without several there is no doubt which one is meant.
    fn on_fc_unpublish(&mut self, command: &Command<'_>) -> Handled {
        self.reply_undefined(command);
        self.reply_on_fc("onFCUnpublish", "NetStream.Unpublish.Success", "Stopped.");
        let name = self.string(command, 0, "name")?.unwrap_or_default();
        let Some(msid) = self.streams.published_as(&name) else { return Ok(None) };
        Ok(self.end_stream(msid))
    }

    /// The shape is exactly string, number, null, number: FFmpeg reads by position.
    fn on_create_stream(&mut self, command: &Command<'_>) -> Handled {
        let Some(msid) = self.streams.create() else {
            return Err(SessionError::TooManyStreams { offset: self.bytes_in() });
        };
        let transaction = command.transaction;
        self.outbound.command(0, |amf| {
            amf.string("_result");
            amf.number(transaction);
            amf.null();
            amf.number(f64::from(msid));
        });
        Ok(None)
    }

    fn on_publish(&mut self, msid: u32, command: &Command<'_>) -> Handled {
        let offset = self.bytes_in();
        let name = self.string(command, 0, "publishing name")?.unwrap_or_default();
        let mode = match command.text(1) {
            Some("record") => PublishMode::Record,
            Some("append") => PublishMode::Append,
            _ => PublishMode::Live,
        };
        let Some(msid) = self.streams.resolve(msid) else {
            return Err(SessionError::PublishOnUnknownStream { msid, offset });
        };
        let name = String::from(trimmed(&name));
        if self.streams.step(msid, StreamInput::Publish { name: name.clone() }).is_err() {
            return Err(SessionError::PublishOnBusyStream { msid, offset });
        }
        self.pending = Some(msid);
        Ok(Some(Event::Publish(PublishRequest { msid, name, mode })))
    }

    fn on_play(&mut self, msid: u32, command: &Command<'_>) -> Handled {
        let name_raw = self.string(command, 0, "name")?.unwrap_or_default();
        let request = PlayRequest {
            msid,
            name: String::from(without_prefix(trimmed(&name_raw))),
            name_raw,
            start: command.number(1).unwrap_or(-2.0),
            duration: command.number(2).unwrap_or(-1.0),
            reset: command.flag(3).unwrap_or(true),
        };
        self.request_play(request)
    }

    /// play2 carries an object; on a live stream it means: play that instead.
    fn on_play2(&mut self, msid: u32, command: &Command<'_>) -> Handled {
        let name_raw = command.arg_property(0, "streamName").and_then(Value::as_str);
        let name_raw = self.bounded(name_raw, "streamName")?.unwrap_or_default();
        let number = |key| command.arg_property(0, key).and_then(Value::as_number);
        let request = PlayRequest {
            msid,
            name: String::from(without_prefix(trimmed(&name_raw))),
            name_raw,
            start: number("start").unwrap_or(-2.0),
            duration: number("len").unwrap_or(-1.0),
            reset: true,
        };
        self.request_play(request)
    }

    fn request_play(&mut self, mut request: PlayRequest) -> Handled {
        let offset = self.bytes_in();
        let Some(msid) = self.streams.resolve(request.msid) else {
            return Err(SessionError::PlayOnUnknownStream { msid: request.msid, offset });
        };
        request.msid = msid;
        let input = StreamInput::Play { reset: request.reset };
        let Ok(ended) = self.streams.step(msid, input) else {
            return Err(SessionError::PlayOnBusyStream { msid, offset });
        };
        self.pending = Some(msid);
        if ended == Some(EndedRole::Playing) {
            self.queued_play = Some(Box::new(request));
            return Ok(Some(Event::StopPlay { msid }));
        }
        Ok(Some(Event::Play(Box::new(request))))
    }

    /// Answered at once: librtmp sends it again until it is.
    fn on_pause(&mut self, msid: u32, command: &Command<'_>) -> Option<Event<'static>> {
        let msid = self.streams.resolve(msid).filter(|id| self.streams.is_playing(*id))?;
        let paused = command.flag(0).unwrap_or(true);
        let at_ms = command.milliseconds(1);
        let (code, description, user) = if paused {
            ("NetStream.Pause.Notify", "Paused.", event::STREAM_EOF)
        } else {
            ("NetStream.Unpause.Notify", "Playing again.", event::STREAM_BEGIN)
        };
        self.outbound.status(msid, StatusLevel::Status, code, description);
        self.outbound.user(user, msid);
        Some(Event::Pause { msid, paused, at_ms })
    }

    /// A live stream has one position only; players go on once they are told that the seek is done.
    fn on_seek(&mut self, msid: u32, command: &Command<'_>) -> Option<Event<'static>> {
        let known = self.streams.resolve(msid).filter(|id| self.streams.is_playing(*id));
        let Some(msid) = known else {
            self.outbound.status(
                msid,
                StatusLevel::Error,
                "NetStream.Seek.Failed",
                "Nothing is being played.",
            );
            return None;
        };
        self.outbound.status(
            msid,
            StatusLevel::Status,
            "NetStream.Seek.Notify",
            "A live stream goes on at its live edge.",
        );
        Some(Event::Seek { msid, at_ms: command.milliseconds(0) })
    }

    /// Valid before `play` too: Flash players choose tracks first.
    fn on_receive(
        &mut self,
        msid: u32,
        command: &Command<'_>,
        audio: bool,
    ) -> Option<Event<'static>> {
        let msid = self.streams.resolve(msid)?;
        let on = command.flag(0).unwrap_or(true);
        Some(match audio {
            true => Event::ReceiveAudio { msid, on },
            false => Event::ReceiveVideo { msid, on },
        })
    }

    /// FFmpeg asks before it plays; a live stream has no length.
    fn on_stream_length(&mut self, command: &Command<'_>) -> Handled {
        let transaction = command.transaction;
        if transaction != 0.0 {
            self.outbound.command(0, |amf| {
                amf.string("_result");
                amf.number(transaction);
                amf.null();
                amf.number(0.0);
            });
        }
        Ok(None)
    }

    fn on_close_stream(&mut self, msid: u32) -> Option<Event<'static>> {
        let msid = self.streams.resolve(msid)?;
        self.end_stream(msid)
    }

    /// The stream is named by number, by its publishing name (GStreamer), or by the message's own msid.
    fn on_delete_stream(&mut self, msid: u32, command: &Command<'_>) -> Option<Event<'static>> {
        let by_number = command.whole_number(0);
        let msid = match (by_number, command.text(0)) {
            (Some(number), _) => self.streams.resolve(number),
            (None, Some(name)) => {
                self.streams.published_as(name).or_else(|| self.streams.resolve(msid))
            }
            (None, None) => self.streams.resolve(msid),
        }?;
        let event = self.end_stream(msid);
        self.streams.delete(msid);
        event
    }

    /// Ends the role of a stream in a clean way; the stream itself stays usable for another one.
    fn end_stream(&mut self, msid: u32) -> Option<Event<'static>> {
        let with_zero = self.streams.is_zero(msid);
        match self.streams.step(msid, StreamInput::End).ok().flatten()? {
            EndedRole::Publishing => {
                self.inbound.skip_open_of(msid, with_zero);
                self.outbound.status(
                    msid,
                    StatusLevel::Status,
                    "NetStream.Unpublish.Success",
                    "Publishing has ended.",
                );
                Some(Event::Unpublish { msid })
            }
            EndedRole::Playing => Some(Event::StopPlay { msid }),
        }
    }

    /// `_checkbw`, `set_playlist`, `secureTokenResponse` and what else there is. Answers of the peer to our
    /// own commands are not answered again, or two servers would talk forever.
    fn on_unknown(&mut self, command: &Command<'_>) -> Handled {
        if matches!(command.name.as_ref(), "_result" | "_error") {
            return Ok(None);
        }
        self.counters.commands_unknown = self.counters.commands_unknown.saturating_add(1);
        let transaction = command.transaction;
        if transaction != 0.0 {
            self.outbound.command(0, |amf| {
                amf.string("_result");
                amf.number(transaction);
                amf.null();
                amf.null();
            });
        }
        Ok(None)
    }

    /// A string argument within the limit.
    fn string(
        &self,
        command: &Command<'_>,
        index: usize,
        field: &'static str,
    ) -> Result<Option<String>, SessionError> {
        self.bounded(command.text(index), field)
    }

    fn bounded(
        &self,
        text: Option<&str>,
        field: &'static str,
    ) -> Result<Option<String>, SessionError> {
        match text {
            Some(text) if text.len() > STRING_BYTES_MAX => {
                Err(SessionError::StringTooLong { field, offset: self.bytes_in() })
            }
            text => Ok(text.map(String::from)),
        }
    }
}

/// Devices append line ends to what was typed into them.
fn trimmed(name: &str) -> &str {
    name.trim_matches(|c: char| c.is_whitespace() || c.is_control())
}

fn without_prefix(name: &str) -> &str {
    CONTAINER_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}
