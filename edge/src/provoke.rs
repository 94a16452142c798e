//! How tests make a worker panic at a moment of their choice; in debug builds only.
//!
//! The environment names a file. A worker that comes to a moment whose words stand in it removes it and
//! panics: once for each time it is written.
//!
//! ```text
//!   1              worker 1, before its next turn
//!   1 exporting    as it is told to write down what it passes on to another process
//!   1 exported     when it has told, and stands still
//!   1 importing    as it takes over what a worker of the process before this one passes on
//!   1 taking up    at the word to go on with it
//! ```

/// Where a worker may be made to panic.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    Turning,
    Exporting,
    Exported,
    Importing,
    TakingUp,
}

/// Panics if a test wants that.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn panic_if_asked(_worker: u16, _moment: Moment) {}

/// Panics if a test wants that.
#[cfg(debug_assertions)]
pub(crate) fn panic_if_asked(worker: u16, moment: Moment) {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    const VARIABLE: &str = "RINGCAST_DEBUG_PANIC_FILE";
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    let Some(file) = file else { return };
    let asked = std::fs::read_to_string(file).unwrap_or_default();
    if asked.trim() == format!("{worker} {}", moment.text()).trim_end() {
        std::fs::remove_file(file).expect("the file is there");
        panic!("asked to panic");
    }
}

#[cfg(debug_assertions)]
impl Moment {
    fn text(self) -> &'static str {
        match self {
            Self::Turning => "",
            Self::Exporting => "exporting",
            Self::Exported => "exported",
            Self::Importing => "importing",
            Self::TakingUp => "taking up",
        }
    }
}
