//! Somebody's authorization service: answers, stays silent, hangs up or lies, as the test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::support::server::wait_for;

/// What it does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Answers with this status and body.
    Answers(u16, String),
    /// Says nothing until it is told to do something else, and then does that.
    Waits,
    /// Closes the connection.
    HangsUp,
}

/// A question as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) body: Value,
    /// Exactly as it came, for the signature.
    pub(crate) raw: Vec<u8>,
    pub(crate) time: Option<String>,
    pub(crate) signature: Option<String>,
}

#[derive(Debug)]
struct Inner {
    does: Mutex<Does>,
    changed: Condvar,
    asked: Mutex<Vec<Asked>>,
    is_over: AtomicBool,
}

/// The service.
pub(crate) struct HookServer {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    acceptor: Option<JoinHandle<()>>,
}

impl HookServer {
    pub(crate) fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            does: Mutex::new(does),
            changed: Condvar::new(),
            asked: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&inner);
        let acceptor = thread::spawn(move || {
            for socket in listener.incoming() {
                if shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (socket, inner) = (socket.unwrap(), Arc::clone(&shared));
                // Ends with its connection, or when the service does.
                thread::spawn(move || drop(serve(&socket, &inner)));
            }
        });
        Self { address, inner, acceptor: Some(acceptor) }
    }

    /// A service that answers all questions like this.
    pub(crate) fn answering(status: u16, body: &str) -> Self {
        Self::start(Does::Answers(status, body.to_owned()))
    }

    /// From now on it does this, also with the questions that wait.
    pub(crate) fn now(&self, does: Does) {
        *self.inner.does.lock().unwrap() = does;
        self.inner.changed.notify_all();
    }

    /// From now on it answers like this.
    pub(crate) fn answers(&self, status: u16, body: &str) {
        self.now(Does::Answers(status, body.to_owned()));
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// Waits until so many questions have come.
    pub(crate) fn wait_asked(&self, count: usize) {
        wait_for("questions to the hook", || self.asked().len() >= count);
    }
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Relaxed);
        self.now(Does::HangsUp);
        // Wakes the acceptor; when it cannot, there is none.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Serves one connection until either side ends it.
fn serve(socket: &TcpStream, inner: &Inner) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let field = |wanted: &str| {
            head.iter().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        };
        let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut raw = vec![0; length];
        reader.read_exact(&mut raw)?;
        inner.asked.lock().unwrap().push(Asked {
            body: match raw.as_slice() {
                [] => Value::Null,
                raw => serde_json::from_slice(raw).expect("questions are JSON"),
            },
            raw,
            time: field("x-ringcast-time"),
            signature: field("x-ringcast-signature"),
        });
        let does = inner.does.lock().unwrap();
        let is_waiting = |does: &mut Does| matches!(does, Does::Waits);
        let does = inner.changed.wait_while(does, is_waiting).unwrap().clone();
        let Does::Answers(status, body) = does else { return Ok(()) };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
        (&mut &*socket).write_all(answer.as_bytes())?;
    }
}
