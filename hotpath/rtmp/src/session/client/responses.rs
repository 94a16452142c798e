//! What a client session does on each command of the server.

use alloc::string::String;

use super::requests::{CONNECT, CREATE_STREAM};
use super::{ClientEvent, ClientInput, ClientPhase, ClientRole, ClientSession, ServerInfo, Status};
use crate::amf0::Value;
use crate::command::Command;
use crate::session::config::FOURCCS_MAX;
use crate::session::error::SessionError;
use crate::session::event::StatusLevel;
use crate::session::outbound::cut;

/// Codes that open a stream. Servers differ in which of the play codes comes first.
const PUBLISH_STARTS: [&str; 1] = ["NetStream.Publish.Start"];
const PLAY_STARTS: [&str; 2] = ["NetStream.Play.Start", "NetStream.Play.PublishNotify"];
/// Codes after which a played stream brings nothing more.
const ENDS: [&str; 3] =
    ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop", "NetStream.Play.Complete"];
const RECONNECT_REQUEST: &str = "NetConnection.Connect.ReconnectRequest";

type Handled = Result<Option<ClientEvent<'static>>, SessionError>;

impl ClientSession {
    pub(super) fn on_command<'b>(
        &mut self,
        msid: u32,
        body: &[u8],
    ) -> Result<Option<ClientEvent<'b>>, SessionError> {
        let command = Command::parse(body)
            .map_err(|error| SessionError::from_command(error, self.bytes_in()))?;
        match command.name.as_ref() {
            "_result" => self.on_result(&command),
            "_error" => self.on_error(&command),
            "onStatus" => self.on_status(msid, &command),
            "close" => Ok(self.on_close()),
            // Notices, and questions about bandwidth that nobody needs to have answered.
            _ => Ok(None),
        }
    }

    fn on_result(&mut self, command: &Command<'_>) -> Handled {
        match self.phase {
            ClientPhase::Connecting if command.transaction == CONNECT => {
                self.step(ClientInput::Connected);
                self.request_stream();
                Ok(Some(ClientEvent::Connected(server_info(command))))
            }
            ClientPhase::Creating if command.transaction == CREATE_STREAM => {
                let Some(msid) = command.whole_number(0) else {
                    let expected = "a message stream id in the answer to createStream";
                    return Err(SessionError::Command { expected, offset: self.bytes_in() });
                };
                self.step(ClientInput::Created { msid });
                self.request_start(msid);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Only the answers that the setup depends on matter: releaseStream may fail, for one.
    fn on_error(&mut self, command: &Command<'_>) -> Handled {
        match self.phase {
            ClientPhase::Connecting if command.transaction == CONNECT => Err(self.refused(command)),
            ClientPhase::Creating if command.transaction == CREATE_STREAM => {
                Err(self.refused(command))
            }
            _ => Ok(None),
        }
    }

    fn refused(&self, command: &Command<'_>) -> SessionError {
        let status = status(0, command);
        let offset = self.bytes_in();
        SessionError::Refused { code: status.code, description: status.description, offset }
    }

    fn on_status(&mut self, msid: u32, command: &Command<'_>) -> Handled {
        let status = status(msid, command);
        if status.code == RECONNECT_REQUEST {
            let tc_url = property(command, "tcUrl").map(|url| String::from(cut(url)));
            let description = status.description;
            return Ok(Some(ClientEvent::ReconnectRequest { tc_url, description }));
        }
        let starts = match self.config.role {
            ClientRole::Publish => PUBLISH_STARTS.contains(&status.code.as_str()),
            ClientRole::Play => PLAY_STARTS.contains(&status.code.as_str()),
        };
        match self.phase {
            ClientPhase::Requesting { msid } if starts => {
                self.step(ClientInput::Started);
                Ok(Some(match self.config.role {
                    ClientRole::Publish => ClientEvent::Published { msid },
                    ClientRole::Play => ClientEvent::PlayStarted { msid },
                }))
            }
            // Some servers refuse a connection by onStatus, so this holds in every phase before Active.
            ClientPhase::Active { .. } => Ok(Some(match ENDS.contains(&status.code.as_str()) {
                true => ClientEvent::StreamEnded(status),
                false => ClientEvent::Status(status),
            })),
            _ if status.level == StatusLevel::Error => Err(self.refused(command)),
            _ => Ok(Some(ClientEvent::Status(status))),
        }
    }

    fn on_close(&mut self) -> Option<ClientEvent<'static>> {
        self.step(ClientInput::Close);
        Some(ClientEvent::PeerClosed)
    }
}

/// A property of the information object, which is the first argument of almost all servers and the command
/// object of a few.
fn property<'c>(command: &'c Command<'_>, key: &str) -> Option<&'c str> {
    let in_args = command.args.iter().find_map(|arg| arg.property(key));
    in_args.or_else(|| command.object.property(key)).and_then(Value::as_str)
}

fn status(msid: u32, command: &Command<'_>) -> Status {
    let text = |key| String::from(cut(property(command, key).unwrap_or_default()));
    let level = match property(command, "level") {
        Some("error") => StatusLevel::Error,
        Some("warning") => StatusLevel::Warning,
        _ => StatusLevel::Status,
    };
    Status { msid, level, code: text("code"), description: text("description") }
}

fn server_info(command: &Command<'_>) -> ServerInfo {
    let both = || core::iter::once(&command.object).chain(&command.args);
    let fourccs = both().find_map(|value| value.property("fourCcList")?.items());
    let caps_ex = both().find_map(|value| value.property("capsEx")?.as_number());
    ServerInfo {
        version: String::from(cut(property(command, "fmsVer").unwrap_or_default())),
        connection_id: property(command, "ringcast_id").map(|id| String::from(cut(id))),
        caps_ex: caps_ex.and_then(crate::command::whole).unwrap_or(0),
        fourccs: fourccs
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .take(FOURCCS_MAX)
            .map(|fourcc| String::from(cut(fourcc)))
            .collect(),
    }
}
