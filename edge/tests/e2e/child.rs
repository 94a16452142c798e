//! Child processes: found by name, bounded in time, ended with the test, their logs shown on failure.
//!
//! Only processes started here are ever signalled: each child leads a process group of its own, so
//! that wrappers (`xvfb-run`, `dbus-run-session`) take what they started with them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often a condition that only polling can see is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes of a child's log shown when a test fails.
const LOG_TAIL_BYTES: usize = 4096;
/// Uid and gid of Debian's `nobody` and `nogroup`, for programs that refuse to run as root.
const NOBODY: u32 = 65_534;

/// Looks until `check` answers, at most for `bound`.
///
/// The programs under test offer nothing to wait on, so this is the one place that polls.
///
/// # Panics
/// When the bound passes; `what` says what was awaited.
pub(crate) fn poll_until<T>(
    what: &str,
    bound: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A directory of one test; removed when the test passes, named when it fails.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A fresh directory that any user may write to (some players must not run as root).
    pub(crate) fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcast-e2e-{}-{serial}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a scratch directory can be made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("it is ours");
        Self { path }
    }

    /// Path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(&self.path);
        } else if std::env::var_os("EDGE_E2E_KEEP").is_none() {
            // A leftover directory is untidy, not a failure.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

fn show_logs(dir: &Path) {
    eprintln!("files of this test: {}", dir.display());
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension() == Some(OsStr::new("log")));
    logs.sort();
    for path in logs {
        let text = fs::read(&path).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(tail));
    }
}

/// Absolute path of a program, or `None` when it is not installed.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Path::new(name).is_file().then(|| name.into());
    }
    // Debian keeps servers in sbin, which is not in everybody's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// True when every program is installed.
///
/// Otherwise prints the reason and answers false, so that the test can return.
///
/// # Panics
/// When one is missing and `EDGE_E2E=required`.
pub(crate) fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|name| find_program(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let is_required = std::env::var("EDGE_E2E").is_ok_and(|value| value == "required");
    assert!(!is_required, "EDGE_E2E=required, but not installed: {missing:?}");
    eprintln!("skipped: not installed: {missing:?}");
    false
}

/// The ffmpeg that speaks Enhanced RTMP, as `have` would name it when it is missing.
pub(crate) fn ffmpeg_new() -> String {
    std::env::var("EDGE_E2E_FFMPEG_NEW").unwrap_or_else(|_| "/EDGE_E2E_FFMPEG_NEW/unset".into())
}

/// Starts a program without terminal input; its output goes to `<log>.log` in the scratch directory.
pub(crate) struct Program {
    command: Command,
    label: String,
    log: PathBuf,
}

impl Program {
    /// The program `name`, logging as `label`.
    ///
    /// # Panics
    /// When it is not installed; ask [`have`] first.
    pub(crate) fn new(name: &str, scratch: &Scratch, label: &str) -> Self {
        let path = find_program(name).unwrap_or_else(|| panic!("{name} is not installed"));
        let log = scratch.file(&format!("{label}.log"));
        let mut command = Command::new(path);
        command.process_group(0).stdin(Stdio::null());
        // The settings of whoever runs the tests are not those of the server under test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGCAST_") {
                command.env_remove(name);
            }
        }
        Self { command, label: label.into(), log }
    }

    /// Appends arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Appends one argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs as `nobody` when we are root, for programs that refuse root.
    pub(crate) fn never_as_root(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            self.command.uid(NOBODY).gid(NOBODY);
        }
        self
    }

    /// Starts it with both outputs in its log.
    pub(crate) fn start(mut self) -> Running {
        let log = File::create(&self.log).expect("a log file can be made");
        let also = log.try_clone().expect("a descriptor can be duplicated");
        self.command.stdout(log).stderr(also);
        self.spawn()
    }

    /// Starts it with stdout as a pipe and stderr in its log.
    pub(crate) fn start_piped(mut self) -> Running {
        let log = File::create(&self.log).expect("a log file can be made");
        self.command.stdout(Stdio::piped()).stderr(log);
        self.spawn()
    }

    fn spawn(mut self) -> Running {
        let child = self.command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.label));
        Running { child, label: self.label }
    }

    /// Runs it to its end and answers its stdout.
    ///
    /// # Panics
    /// When it fails or needs longer than `bound`.
    pub(crate) fn output(self, bound: Duration) -> String {
        let label = self.label.clone();
        let (status, text) = self.ended_output(bound);
        assert!(status.success(), "{label} ended with {status}");
        text
    }

    /// Runs it to its end and answers its status and its stdout.
    ///
    /// # Panics
    /// When it needs longer than `bound`.
    pub(crate) fn ended_output(self, bound: Duration) -> (ExitStatus, String) {
        let mut running = self.start_piped();
        let mut pipe = running.child.stdout.take().expect("stdout is piped");
        // A thread drains the pipe, so that a long output cannot block the child.
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        });
        let status = running.expect_end(bound);
        let read = reader.join().expect("the reader does not panic");
        (status, read.expect("the output is text"))
    }
}

/// A started program; killed with its group when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    label: String,
}

impl Running {
    /// Waits for its end, whatever its exit status is.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    pub(crate) fn expect_end(&mut self, bound: Duration) -> ExitStatus {
        let what = format!("{} ends", self.label);
        poll_until(&what, bound, || self.child.try_wait().expect("our child can be waited for"))
    }

    /// Waits for a successful end.
    ///
    /// # Panics
    /// When it fails or has not ended within `bound`.
    pub(crate) fn expect_success(&mut self, bound: Duration) {
        let status = self.expect_end(bound);
        assert!(status.success(), "{} ended with {status}", self.label);
    }

    /// True until it has ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child can be waited for").is_none()
    }

    /// Signals its process group.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // Not yet reaped, so the group id cannot belong to anybody else.
            let id = i32::try_from(self.child.id()).expect("process ids are positive");
            let group = Pid::from_raw(id).expect("process ids are not zero");
            // Its last process may end between the check and the signal; nothing is left to stop then.
            let _ended_meanwhile = kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Already reaped is fine.
        drop(self.child.wait());
    }
}
