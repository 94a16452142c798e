//! Pages in headless Chromium, driven by a script of ours: what the console's and the players' tests share.
//!
//! `tools/console-tools` installs the driver and the players; `browser.mjs` starts the browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::child::{Program, Running, Scratch, find_program, have, poll_until};

/// True where a page can be shown; otherwise the reason is printed.
pub(crate) fn is_ready() -> bool {
    have(&["ffmpeg", "chromium"]) && tools().is_some()
}

/// Folder of the installed tools, or `None` with the reason printed.
pub(crate) fn tools() -> Option<PathBuf> {
    if !have(&["node"]) {
        return None;
    }
    let folder = std::env::var_os("EDGE_CONSOLE_TOOLS").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("console-tools"),
        PathBuf::from,
    );
    if folder.join("complete").exists() {
        return Some(folder);
    }
    let required = std::env::var("EDGE_E2E").is_ok_and(|value| value == "required");
    assert!(!required, "{} is missing; run tools/console-tools", folder.display());
    eprintln!("skipped: the tools for pages are not installed (tools/console-tools)");
    None
}

/// Starts the driver `script`, which plays `scenario` with what `wanted` says.
fn driver(scratch: &Scratch, script: &Path, scenario: &str, wanted: &Value) -> Program {
    let tools = tools().expect("asked for before");
    let chromium = find_program("chromium").expect("asked for before");
    Program::new("node", scratch, scenario)
        .arg(script)
        .args([tools.as_path(), chromium.as_path()])
        .args([scenario, &wanted.to_string()])
        .env("HOME", scratch.file(""))
}

/// Plays a scenario to its end, and answers what the driver printed.
///
/// # Panics
/// When it fails or needs longer than `bound`.
pub(crate) fn drive(
    scratch: &Scratch,
    script: &Path,
    scenario: &str,
    wanted: &Value,
    bound: Duration,
) -> String {
    let (status, output) = driver(scratch, script, scenario, wanted).ended_output(bound);
    assert!(status.success() && output.ends_with("\ndone\n"), "{scenario}: {output}");
    output
}

/// A scenario that plays while the test goes on. The driver prints how far it is.
pub(crate) struct Playing {
    driver: Running,
    log: PathBuf,
    bound: Duration,
}

/// Begins to play a scenario, each step of which takes at most `bound`.
pub(crate) fn start(
    scratch: &Scratch,
    script: &Path,
    scenario: &str,
    wanted: &Value,
    bound: Duration,
) -> Playing {
    let log = scratch.file(&format!("{scenario}.log"));
    Playing { driver: driver(scratch, script, scenario, wanted).start(), log, bound }
}

impl Playing {
    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the driver has printed `step: NAME`.
    ///
    /// # Panics
    /// When it ends or takes too long before that.
    pub(crate) fn wait_step(&mut self, name: &str) {
        let step = format!("step: {name}\n");
        poll_until(&step, self.bound, || {
            assert!(self.driver.is_running(), "{}", self.output());
            self.output().contains(&step).then_some(())
        });
    }

    /// Plays it to its end, and answers what the driver printed.
    ///
    /// # Panics
    /// When it fails or takes too long.
    pub(crate) fn finish(mut self) -> String {
        let status = self.driver.expect_end(self.bound);
        let output = self.output();
        assert!(status.success() && output.ends_with("\ndone\n"), "{output}");
        output
    }
}
