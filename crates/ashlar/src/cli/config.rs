//! Settings from a TOML file, for commands that take `--config`.
//!
//! A key is a flag's long name, and its value is read by the flag's own parser. So a setting is
//! declared once, as a flag, and has all three forms. A flag wins over its variable, and that over
//! the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use super::Cli;
use crate::commands::usage;

/// The flag that names the file.
pub(crate) const CONFIG: &str = "config";
/// The id of the flag that names the data directory.
const DATA_DIR: &str = "data_dir";
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the command line, the variables and the file that they name; ends the program when what
/// was typed is wrong or help was asked for.
///
/// # Errors
/// [`crate::commands::Usage`] when the file cannot be read or sets what is no setting.
pub(crate) fn parse(mut arguments: Vec<OsString>) -> Result<Cli> {
    // What is wrong on the command line itself is told below.
    let lenient = Cli::command().ignore_errors(true).try_get_matches_from(&arguments);
    let Some((name, file, matches)) = lenient.as_ref().ok().and_then(named_file) else {
        return typed(arguments).or_else(|error| error.exit());
    };
    let mut root = Cli::command();
    root.build();
    let settings = root.find_subcommand(name).context("a command without a definition")?;
    let more = read(&file).and_then(|text| flags(&text, settings, matches));
    let more = more.or_else(|e| usage(format!("--config {}: {e:#}", file.display())))?;
    let source = format!("settings of {}", file.display());
    arguments.extend(more);
    typed(arguments).or_else(|error| {
        // Whoever reads the message has to know where the value may have come from.
        if error.use_stderr() {
            crate::output::note(format!("in the command line or the {source}:"));
        }
        error.exit()
    })
}

/// Reads the command line, and notes what nothing but it can say.
fn typed(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut root = Cli::command();
    let matches = root.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut root))?;
    // A global flag may stand behind any command.
    let mut level = Some(&matches);
    while let Some(matches) = level {
        cli.settings.is_dir_typed |=
            matches.value_source(DATA_DIR) == Some(ValueSource::CommandLine);
        level = matches.subcommand().map(|(_, matches)| matches);
    }
    Ok(cli)
}

fn named_file(matches: &ArgMatches) -> Option<(&str, PathBuf, &ArgMatches)> {
    let (name, matches) = matches.subcommand()?;
    let file = matches.try_get_one::<PathBuf>(CONFIG).ok()??;
    Some((name, file.clone(), matches))
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).context("cannot be read")?.len();
    if size > FILE_BYTES_MAX {
        bail!("is larger than {FILE_BYTES_MAX} bytes");
    }
    std::fs::read_to_string(path).context("cannot be read")
}

/// Returns the flags that a file's text stands for, without those that were set already.
fn flags(text: &str, settings: &Command, set: &ArgMatches) -> Result<Vec<OsString>> {
    let table: toml::Table = text.parse()?;
    let mut flags = Vec::new();
    for (key, value) in table {
        let arg = settings.get_arguments().find(|a| a.get_long() == Some(&key));
        let arg = arg.filter(|a| is_setting(a)).with_context(|| unknown(&key, settings))?;
        if is_set(set, arg.get_id().as_str()) {
            continue;
        }
        let many = matches!(arg.get_action(), clap::ArgAction::Append);
        for value in written(&value, many).with_context(|| format!("key '{key}'"))? {
            flags.push(format!("--{key}={value}").into());
        }
    }
    Ok(flags)
}

/// Says whether a flag is a setting, which has a variable and a key too.
pub(crate) fn is_setting(arg: &clap::Arg) -> bool {
    arg.get_long().is_some_and(|long| long != CONFIG) && arg.get_env().is_some()
}

fn is_set(set: &ArgMatches, id: &str) -> bool {
    let by_user = [ValueSource::CommandLine, ValueSource::EnvVariable];
    set.value_source(id).is_some_and(|source| by_user.contains(&source))
}

fn unknown(key: &str, settings: &Command) -> String {
    let mut known: Vec<&str> = settings
        .get_arguments()
        .filter(|a| is_setting(a))
        .filter_map(clap::Arg::get_long)
        .collect();
    known.sort_unstable();
    format!("there is no setting '{key}'; there are: {}", known.join(", "))
}

/// Returns a value as it would be typed; a list where a flag may be repeated.
fn written(value: &toml::Value, many: bool) -> Result<Vec<String>> {
    Ok(match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(number) => vec![number.to_string()],
        toml::Value::Float(number) => vec![number.to_string()],
        toml::Value::Boolean(truth) => vec![truth.to_string()],
        toml::Value::Array(values) if many => {
            let each = values.iter().map(|v| written(v, false)).collect::<Result<Vec<_>>>()?;
            each.into_iter().flatten().collect()
        }
        toml::Value::Array(_) => bail!("takes one value, not a list"),
        _ => bail!("takes a text, a number, or true or false"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli;

    fn parsed(text: &str, typed: &[&str]) -> Result<cli::Cli> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ashlar.toml");
        std::fs::write(&path, text).unwrap();
        let fixed = ["ashlar", "serve", "--config", path.to_str().unwrap()];
        parse(fixed.iter().chain(typed).map(OsString::from).collect())
    }

    fn served(cli: cli::Cli) -> (crate::settings::Settings, cli::serve::ServeArgs) {
        match cli.command {
            cli::Command::Serve(args) => (cli.settings, *args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_win_over_the_file_which_wins_over_defaults() {
        let text = "listen = \"127.0.0.1:1\"\nslots = 3\ndrain = \"5s\"\nexpose = [\"x=[::1]:2\"]\n\
                    data-dir = \"/from/file\"\n\
                    registry-mirror = [\"docker.io=http://127.0.0.1:5000\", \"a.b=https://c.d\"]\n";
        let (settings, args) = served(parsed(text, &["--slots", "7"]).unwrap());
        assert_eq!((args.node.slots, args.node.drain), (7, Duration::from_secs(5)));
        assert_eq!(args.listen.port(), 1);
        assert_eq!(args.expose[0].dialect, "x");
        assert_eq!(settings.mirrors.len(), 2);
        assert_eq!(settings.data_dir, Some("/from/file".into()));
        let (settings, args) = served(parsed("", &[]).unwrap());
        assert_eq!((args.node.slots, args.listen.port()), (ashlar_service::SLOTS_DEFAULT, 7070));
        assert!(settings.mirrors.is_empty());
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        for (text, part) in [
            ("slotz = 3", "slotz"),
            ("config = \"x\"", "there is no setting 'config'"),
            ("help = true", "there is no setting 'help'"),
            ("slots = [1, 2]", "key 'slots'"),
            ("listen = { a = 1 }", "key 'listen'"),
            ("slots = ", "TOML"),
        ] {
            let error = parsed(text, &[]).unwrap_err();
            assert!(error.is::<crate::commands::Usage>(), "{text}: {error:#}");
            let error = format!("{error:#}");
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.contains("--config"), "{error}");
        }
    }
}
