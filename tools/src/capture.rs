//! A recording TCP proxy: every connection's bytes in each direction, as files.
//!
//! Adds, drops and reorders nothing; ends of streams are passed on as they come. Never used in
//! production: two threads for each connection, no limits but the count of connections.
//!
//! ```text
//!   client ──► capture ──► server        OUT/c2s.bin   what the client said
//!   client ◄── capture ◄── server        OUT/s2c.bin   what the server said
//!                                        OUT/about.toml  who, when, by which command
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

/// Bytes moved at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What to record, and how to describe it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub to: SocketAddr,
    /// Folder for the files. The second connection goes to `NAME-2` beside it, and so on.
    pub out: PathBuf,
    /// Connections to record before ending.
    pub connections: u32,
    /// For `about.toml`: client and version.
    pub client: String,
    /// For `about.toml`: the command line that was recorded.
    pub command: String,
    /// For `about.toml`: the day, as `YYYY-MM-DD`.
    pub date: String,
}

/// Records the given number of connections, then returns once all of them have ended.
///
/// # Errors
/// When accepting, connecting or writing fails. A connection that resets is no error.
pub fn record(listener: &TcpListener, options: &Options) -> io::Result<()> {
    let mut relays = Vec::new();
    for serial in 1..=options.connections {
        let (client, _) = listener.accept()?;
        let server = TcpStream::connect(options.to)?;
        let dir = folder(&options.out, serial);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("about.toml"), about(options))?;
        let up = File::create(dir.join("c2s.bin"))?;
        let down = File::create(dir.join("s2c.bin"))?;
        let (client_reader, server_reader) = (client.try_clone()?, server.try_clone()?);
        relays.push(thread::spawn(move || relay(client_reader, server, up)));
        relays.push(thread::spawn(move || relay(server_reader, client, down)));
    }
    for relay in relays {
        relay.join().map_err(|_| io::Error::other("a relay panicked"))??;
    }
    Ok(())
}

fn folder(out: &Path, serial: u32) -> PathBuf {
    if serial == 1 {
        return out.to_owned();
    }
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{name}-{serial}"))
}

/// Passes one direction on until it ends. Only failing to write the record is an error: how a peer
/// leaves is part of what is recorded.
fn relay(mut from: TcpStream, mut to: TcpStream, mut record: File) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(bytes) => bytes,
        };
        record.write_all(&chunk[..bytes])?;
        if to.write_all(&chunk[..bytes]).is_err() {
            break;
        }
    }
    // The other side may have closed already.
    let _already_closed = to.shutdown(Shutdown::Write);
    record.flush()
}

fn about(options: &Options) -> String {
    format!(
        "client = {}\ndate = {}\ncommand = {}\n",
        quoted(&options.client),
        quoted(&options.date),
        quoted(&options.command)
    )
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            other if other.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(other)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_recorded_and_half_closes_pass() {
        let out = std::env::temp_dir().join(format!("ringcast-capture-{}", std::process::id()));
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy_address = proxy.local_addr().expect("bound");
        let options = Options {
            to: server.local_addr().expect("bound"),
            out: out.join("one"),
            connections: 1,
            client: "test".into(),
            command: "say \"hello\"".into(),
            date: "2026-01-01".into(),
        };
        let answering = thread::spawn(move || {
            let (mut peer, _) = server.accept().expect("the proxy connects");
            let mut heard = String::new();
            peer.read_to_string(&mut heard).expect("text");
            peer.write_all(b"answer").expect("the proxy listens");
            heard
        });
        let recording = thread::spawn(move || record(&proxy, &options));
        let mut client = TcpStream::connect(proxy_address).expect("the proxy accepts");
        client.write_all(b"question").expect("the proxy listens");
        client.shutdown(Shutdown::Write).expect("still open");
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("text");
        assert_eq!(heard, "answer");
        assert_eq!(answering.join().expect("no panic"), "question");
        recording.join().expect("no panic").expect("recorded");
        assert_eq!(fs::read(out.join("one/c2s.bin")).expect("recorded"), b"question");
        assert_eq!(fs::read(out.join("one/s2c.bin")).expect("recorded"), b"answer");
        let about = fs::read_to_string(out.join("one/about.toml")).expect("described");
        assert!(about.contains("command = \"say \\\"hello\\\"\"\n"), "{about}");
        fs::remove_dir_all(out).expect("ours");
    }

    #[test]
    fn later_connections_get_folders_of_their_own() {
        assert_eq!(folder(Path::new("a/b"), 1), Path::new("a/b"));
        assert_eq!(folder(Path::new("a/b"), 2), Path::new("a/b-2"));
    }
}
