//! Scenario files: a command and its flags, as TOML, so that a load has a name.
//!
//! ```toml
//! about = "what it shows"
//! command = "play"
//! [flags]
//! players = 2000
//! publish = true
//! ```

use super::Failure;
use crate::cli::{Cli, Command, RunArgs};
use clap::Parser as _;
use std::path::Path;
use toml::{Table, Value};

/// The command of a scenario, flags of the command line coming last.
///
/// # Errors
/// The file cannot be read or is no scenario, or its flags make no sense.
pub(super) fn load(args: &RunArgs) -> Result<Command, Failure> {
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::Usage(format!("{}: {error}", args.file.display())))?;
    let mut arguments = arguments_of(&text, &args.file)?;
    arguments.extend(args.flags.iter().cloned());
    let command = Cli::try_parse_from(arguments)
        .map_err(|error| Failure::Usage(format!("{}: {error}", args.file.display())))?
        .command;
    match command {
        Command::Run(_) => Err(Failure::Usage("a scenario cannot run a scenario".into())),
        command => Ok(command),
    }
}

/// The command line that a scenario stands for.
fn arguments_of(text: &str, path: &Path) -> Result<Vec<String>, Failure> {
    let error = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let table: Table = text.parse().map_err(|cause: toml::de::Error| error(cause.to_string()))?;
    if let Some(key) =
        table.keys().find(|key| !["about", "command", "flags"].contains(&key.as_str()))
    {
        return Err(error(format!("unknown key {key}; there are about, command and flags")));
    }
    let command = table.get("command").and_then(Value::as_str);
    let command = command.ok_or_else(|| error("command is missing".into()))?;
    let mut arguments = vec!["swarm".to_owned(), command.to_owned()];
    let flags = table.get("flags").and_then(Value::as_table).cloned().unwrap_or_default();
    for (name, value) in flags {
        match value {
            Value::Boolean(false) => {}
            Value::Boolean(true) => arguments.push(format!("--{name}")),
            Value::String(text) => arguments.push(format!("--{name}={text}")),
            Value::Integer(number) => arguments.push(format!("--{name}={number}")),
            Value::Float(number) => arguments.push(format!("--{name}={number}")),
            _ => return Err(error(format!("{name}: expected text, a number or true"))),
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_a_command_line() {
        let text = "about = \"a\"\ncommand = \"play\"\n[flags]\nplayers = 7\npublish = true\njson = false\n";
        let arguments = arguments_of(text, Path::new("a.toml")).unwrap();
        assert_eq!(arguments, ["swarm", "play", "--players=7", "--publish"]);
    }

    #[test]
    fn what_is_no_scenario_is_refused() {
        for text in ["", "command = 7", "command = \"play\"\nspeed = 1", "x"] {
            assert!(arguments_of(text, Path::new("a.toml")).is_err(), "{text}");
        }
    }

    #[test]
    fn every_scenario_in_the_tree_is_a_good_command_line() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let args = RunArgs { file: entry.unwrap().path(), flags: Vec::new() };
            load(&args).unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
        assert!(count >= 5);
    }

    #[test]
    fn flags_given_later_win() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let flags = vec!["--players".into(), "3".into()];
        let args = RunArgs { file: folder.join("few-streams-many-viewers.toml"), flags };
        let Command::Play(play) = load(&args).unwrap() else { panic!("not a play scenario") };
        assert_eq!(play.players, 3);
    }
}
