//! What happened in a run: the last lines for people, all of it as one number for comparison.

use std::collections::VecDeque;

/// Lines kept for a failure's message.
const LINES_MAX: usize = 60;

#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<String>,
    hash: u64,
}

impl Trace {
    pub fn note(&mut self, at_ms: u64, line: &str) {
        self.count(at_ms, line.as_bytes());
        if std::env::var_os("RINGCAST_SIM_LOG").is_some() {
            eprintln!("{at_ms:>8} ms  {line}");
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{at_ms:>8} ms  {line}"));
    }

    /// Enters the hash without a line.
    pub fn count(&mut self, at_ms: u64, bytes: &[u8]) {
        for byte in at_ms.to_be_bytes().iter().chain(bytes) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
