//! A WebSocket client that shares no code with this crate but the parser of heads judges it.
//!
//! The two are joined by memory: what the client writes is read here at once, in pieces of any
//! size, and what is answered waits for the client to read.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use http1::websocket::{self, Event, FrameReader};
use http1::{Limits, RequestReader};
use proptest::prelude::*;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// The server's end of a connection.
struct Server {
    requests: RequestReader,
    frames: Option<FrameReader>,
    events: Vec<Event>,
    answers: VecDeque<u8>,
    piece: usize,
}

impl Server {
    fn new(piece: usize) -> Self {
        let answers = VecDeque::new();
        Self { requests: RequestReader::new(), frames: None, events: Vec::new(), answers, piece }
    }

    /// A server that accepted already.
    fn accepted(piece: usize) -> Self {
        Self { frames: Some(FrameReader::new()), ..Self::new(piece) }
    }

    fn take(&mut self, mut input: &[u8]) {
        let mut out = Vec::new();
        while !input.is_empty() {
            if let Some(frames) = &mut self.frames {
                let Some(event) = frames.handle_bytes(&mut input).expect("frames") else {
                    continue;
                };
                match event {
                    Event::Ping(payload) => websocket::write_pong(&payload, &mut out),
                    Event::Close(code) => {
                        websocket::write_close(code.unwrap_or(1000), "gone", &mut out);
                    }
                    Event::Pong | Event::Message => {}
                }
                self.events.push(event);
                continue;
            }
            let request = self.requests.handle_bytes(&Limits::default(), &mut input);
            let Some(request) = request.expect("a request") else { continue };
            let upgrade = request.upgrade.expect("a handshake");
            websocket::write_accept(&upgrade.key, upgrade.protocol.as_deref(), &mut out);
            self.frames = Some(FrameReader::new());
        }
        self.answers.extend(out);
    }
}

impl Read for Server {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.answers.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // The client takes a handshake in smaller pieces for an attack.
        let room = out.len().min(self.piece.max(128));
        self.answers.read(&mut out[..room])
    }
}

impl Write for Server {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.chunks(self.piece) {
            self.take(piece);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_client_shakes_hands_asks_for_a_protocol_and_says_goodbye() {
    for piece in [1, 7, 4096] {
        let mut request = "ws://edge.example/live/a.flv?sign=x".into_client_request().unwrap();
        let protocols = tungstenite::http::HeaderValue::from_static("flv, mp4");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols);
        let (mut client, response) = tungstenite::client(request, Server::new(piece)).unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "flv");
        client.send(Message::Ping(b"are you there".as_slice().into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong(b"are you there".as_slice().into()));
        let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
        client.close(Some(frame)).unwrap();
        let Message::Close(Some(answer)) = client.read().unwrap() else { panic!("a close frame") };
        assert_eq!((u16::from(answer.code), &*answer.reason), (1001, "gone"));
        assert_eq!(client.get_ref().events.last(), Some(&Event::Close(Some(1001))));
    }
}

/// One message with the event it is.
fn message() -> impl Strategy<Value = (Message, Option<Event>)> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        bytes(300).prop_map(|bytes| (Message::Binary(bytes.into()), Some(Event::Message))),
        (65_530..65_540_usize)
            .prop_map(|length| (Message::Binary(vec![7; length].into()), Some(Event::Message))),
        ".{0,100}".prop_map(|text| (Message::Text(text.into()), Some(Event::Message))),
        bytes(126).prop_map(|bytes| {
            let event = Event::Ping(bytes.as_slice().into());
            (Message::Ping(bytes.into()), Some(event))
        }),
        bytes(126).prop_map(|bytes| (Message::Pong(bytes.into()), Some(Event::Pong))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_of_a_client_are_the_events_they_are(
        messages in prop::collection::vec(message(), 0..8),
        piece in 1..5_000_usize,
    ) {
        let config = WebSocketConfig::default();
        let server = Server::accepted(piece);
        let mut client = WebSocket::from_raw_socket(server, Role::Client, Some(config));
        let mut expected = Vec::new();
        for (message, event) in messages {
            client.send(message).unwrap();
            expected.extend(event);
        }
        prop_assert_eq!(&client.get_ref().events, &expected);
    }

    #[test]
    fn a_client_reads_what_is_written(
        texts in prop::collection::vec(".{0,200}", 0..4),
        lengths in prop::collection::vec(prop_oneof![0..300_usize, 65_530..65_540_usize], 0..4),
        ping in prop::collection::vec(any::<u8>(), 0..126),
        reason in ".{0,200}",
        piece in 1..5_000_usize,
    ) {
        let mut server = Server::accepted(piece);
        let mut out = Vec::new();
        texts.iter().for_each(|text| websocket::write_text(text, &mut out));
        for length in &lengths {
            websocket::write_text(&"7".repeat(*length), &mut out);
        }
        websocket::write_ping(&ping, &mut out);
        websocket::write_close(1013, &reason, &mut out);
        server.answers.extend(out);
        let mut client = WebSocket::from_raw_socket(server, Role::Client, None);
        for text in texts {
            prop_assert_eq!(client.read().unwrap(), Message::Text(text.into()));
        }
        for length in lengths {
            prop_assert_eq!(client.read().unwrap(), Message::Text("7".repeat(length).into()));
        }
        prop_assert_eq!(client.read().unwrap(), Message::Ping(ping.into()));
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("a close frame") };
        prop_assert_eq!(u16::from(close.code), 1013);
        prop_assert!(reason.starts_with(&*close.reason));
    }
}
