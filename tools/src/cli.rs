//! A command line of `--name value` pairs: all that these programs need.

use std::fmt;
use std::process::ExitCode;

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The arguments of a program, taken apart one flag at a time.
#[derive(Clone, Debug)]
pub struct Arguments {
    rest: Vec<String>,
}

impl Arguments {
    /// Arguments of this process, without its name.
    pub fn of_process() -> Self {
        Self::new(std::env::args().skip(1))
    }

    /// Arguments given as they are.
    pub fn new(arguments: impl IntoIterator<Item = String>) -> Self {
        Self { rest: arguments.into_iter().collect() }
    }

    /// Removes a flag without value; true when it was there.
    pub fn take_flag(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|argument| argument == name);
        found.is_some_and(|index| {
            self.rest.remove(index);
            true
        })
    }

    /// Removes `name value`; `None` when it is not there.
    ///
    /// # Errors
    /// When the value is missing.
    pub fn take_value(&mut self, name: &str) -> Result<Option<String>, UsageError> {
        let Some(index) = self.rest.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        if index + 1 >= self.rest.len() {
            return Err(UsageError(format!("{name} needs a value")));
        }
        self.rest.remove(index);
        Ok(Some(self.rest.remove(index)))
    }

    /// Removes `name value`, which must be there.
    ///
    /// # Errors
    /// When it or its value is missing.
    pub fn take_required(&mut self, name: &str) -> Result<String, UsageError> {
        self.take_value(name)?.ok_or_else(|| UsageError(format!("{name} is missing")))
    }

    /// Removes the next argument that is not a flag.
    pub fn take_word(&mut self) -> Option<String> {
        let index = self.rest.iter().position(|argument| !argument.starts_with("--"))?;
        Some(self.rest.remove(index))
    }

    /// Checks that everything was understood.
    ///
    /// # Errors
    /// Names the first argument that was not.
    pub fn finish(self) -> Result<(), UsageError> {
        let unknown = self.rest.into_iter().next();
        unknown.map_or(Ok(()), |word| Err(UsageError(format!("unknown argument {word}"))))
    }
}

/// Runs a program: prints its help when asked, its error otherwise.
///
/// Exit codes: 0 done, 1 it failed or found something, 2 wrong usage.
pub fn run(
    help: &str,
    program: impl FnOnce(Arguments) -> Result<ExitCode, Box<dyn std::error::Error>>,
) -> ExitCode {
    let mut arguments = Arguments::of_process();
    if arguments.take_flag("--help") || arguments.take_flag("-h") {
        print!("{help}");
        return ExitCode::SUCCESS;
    }
    match program(arguments) {
        Ok(code) => code,
        Err(error) if error.is::<UsageError>() => {
            eprintln!("{error}; see --help");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_and_values_are_taken_in_any_order() {
        let mut given = arguments("--out DIR word --quiet");
        assert!(given.take_flag("--quiet"));
        assert!(!given.take_flag("--quiet"));
        assert_eq!(given.take_required("--out"), Ok("DIR".into()));
        assert_eq!(given.take_word(), Some("word".into()));
        assert_eq!(given.finish(), Ok(()));
    }

    #[test]
    fn missing_and_unknown_arguments_are_named() {
        assert_eq!(
            arguments("--out").take_value("--out"),
            Err(UsageError("--out needs a value".into()))
        );
        assert_eq!(arguments("").take_required("--to"), Err(UsageError("--to is missing".into())));
        assert_eq!(
            arguments("--colour").finish(),
            Err(UsageError("unknown argument --colour".into()))
        );
    }
}
