//! Command line of the transcript: recorded bytes of one direction, in words.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use rtmp::session::transcript::Transcript;
use tools::cli::{self, Arguments, UsageError};

const HELP: &str = "\
Prints what one direction of an RTMP connection says, one line for each message.

  rtmp-inspect FILE [--without-handshake]

FILE is what `capture` wrote (c2s.bin or s2c.bin), or - for stdin.

Examples
  rtmp-inspect hotpath/rtmp/testdata/obs-29-publish/c2s.bin
  capture --listen :1936 --to 127.0.0.1:1935 --out take && rtmp-inspect take/s2c.bin | grep command
";

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    cli::run(HELP, inspect)
}

fn inspect(mut arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let has_handshake = !arguments.take_flag("--without-handshake");
    let file = arguments.take_word().ok_or_else(|| UsageError("FILE is missing".into()))?;
    arguments.finish()?;
    let input: Box<dyn Read> =
        if file == "-" { Box::new(io::stdin()) } else { Box::new(File::open(&file)?) };
    let transcript =
        if has_handshake { Transcript::new() } else { Transcript::without_handshake() };
    match print(input, transcript, BufWriter::new(io::stdout().lock())) {
        // `rtmp-inspect … | head` closes the pipe; that is no fault.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

fn print(mut input: impl Read, mut transcript: Transcript, mut out: impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = input.read(&mut chunk)?;
        if bytes == 0 {
            break;
        }
        for line in transcript.feed(&chunk[..bytes]) {
            writeln!(out, "{line}")?;
        }
    }
    for line in transcript.finish() {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_message_is_one_line() {
        // Set chunk size 4096: fmt 0, csid 2, timestamp 0, length 4, type 1, stream 0.
        let bytes: &[u8] = &[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 16, 0];
        let mut out = Vec::new();
        print(bytes, Transcript::without_handshake(), &mut out).expect("memory cannot fail");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("set chunk size 4096"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_torn_handshake_is_said() {
        let mut out = Vec::new();
        print(&[3_u8][..], Transcript::new(), &mut out).expect("memory cannot fail");
        assert!(String::from_utf8(out).expect("text").contains("lacks"));
    }
}
