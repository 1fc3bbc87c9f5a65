//! From logical lines to typed instructions.
//!
//! Everything that can be told without variables is checked here, for all stages, needed or not.

pub mod ast;
mod copy;
mod flags;
mod health;
pub(crate) mod mount;
mod pairs;
mod run;
mod stage;

use ashlar_core::frontend::Diagnostic;

pub(crate) use health::{duration_text, parse_bool as bool_word};

use ast::{Command, CommandLine, File, Instruction, Stage};
use flags::Flags;

use crate::lexer::split::{self, Split};
use crate::lexer::{self, Line};
use crate::limits::{FILE_BYTES_MAX, INSTRUCTIONS_MAX, STAGES_MAX};
use crate::lint::{Lint, Rule};
use crate::source::{Problem, SourceText, Word};
use crate::suggest;

/// All instructions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What one line turned out to be.
enum Parsed {
    From(Stage),
    Other(Instruction),
}

/// Reads a whole file.
pub(crate) fn file(
    text: &str,
    source: &SourceText,
    lint: &mut Lint,
) -> Result<File, Box<Diagnostic>> {
    let whole = |m: &str| Box::new(Diagnostic::new(m));
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the Dockerfile has more than {FILE_BYTES_MAX} bytes");
        return Err(Box::new(Diagnostic::new(message).hint("copy large data from the context")));
    }
    let lexed = lexer::lex(text, source)?;
    lint.configure(&lexed.directives, source)?;
    for &number in &lexed.empty_continuations {
        let place = source.lines_at(number, number);
        lint.warn_at(Rule::NoEmptyContinuation, place, source, "Empty continuation line");
    }
    if lexed.lines.len() > INSTRUCTIONS_MAX {
        return Err(whole(&format!(
            "the Dockerfile has more than {INSTRUCTIONS_MAX} instructions"
        )));
    }
    let mut file = File { directives: lexed.directives, global_args: vec![], stages: vec![] };
    if lexed.lines.is_empty() {
        let problem = Problem::new("the Dockerfile has no instructions").hint("start with FROM");
        return Err(source.diagnose_lines(1, 1, problem));
    }
    for line in lexed.lines {
        add(&mut file, line, source, lint)?;
    }
    if file.stages.is_empty() {
        return Err(Box::new(
            whole("the Dockerfile has no stages to build").hint("add a FROM instruction"),
        ));
    }
    if file.stages.len() > STAGES_MAX {
        return Err(whole(&format!("the Dockerfile has more than {STAGES_MAX} stages")));
    }
    Ok(file)
}

fn add(
    file: &mut File,
    line: Line,
    source: &SourceText,
    lint: &mut Lint,
) -> Result<(), Box<Diagnostic>> {
    let escape = file.directives.escape;
    let parsed = instruction(&line, escape).map_err(|p| source.diagnose(&line, p))?;
    let mut checks = lint.scoped(&line.comments);
    match parsed {
        Parsed::From(stage) => {
            stage::check_casing(&stage, source, &mut checks);
            file.stages.push(stage);
        }
        Parsed::Other(instruction) => {
            check(&instruction, source, &mut checks);
            match (file.stages.last_mut(), &instruction.command) {
                (Some(stage), _) => stage.instructions.push(instruction),
                (None, Command::Arg(_)) => file.global_args.push(instruction),
                (None, _) => {
                    let message = format!(
                        "no build stage in current context: {} stands before the first FROM",
                        instruction.keyword.text
                    );
                    let problem = Problem::new(message).at(instruction.keyword.span);
                    let problem = problem.hint("only ARG may stand before FROM");
                    return Err(source.diagnose(&instruction.line, problem));
                }
            }
        }
    }
    Ok(())
}

fn check(instruction: &Instruction, source: &SourceText, lint: &mut Lint) {
    match &instruction.command {
        Command::Maintainer(_) => {
            let text = "Maintainer instruction is deprecated in favor of using label";
            lint.warn(Rule::MaintainerDeprecated, &instruction.line, source, text);
        }
        Command::Arg(args) => {
            let names: Vec<&str> = args.iter().map(|a| a.name.as_str()).collect();
            stage::check_description("ARG", &names, &instruction.line, source, lint);
        }
        _ => {}
    }
}

/// Reads triggers, which are files of one instruction with the usual escape character.
pub(crate) fn trigger(text: &str, source: &SourceText) -> Result<Instruction, Problem> {
    let lexed = lexer::lex(text, source).map_err(|d| Problem::new(d.message))?;
    let [line] = lexed.lines.as_slice() else {
        return Err(Problem::new("an ONBUILD trigger must be one instruction"));
    };
    match instruction(line, lexed.directives.escape)? {
        Parsed::From(_) => Err(Problem::new("FROM isn't allowed as an ONBUILD trigger")),
        Parsed::Other(instruction) => Ok(instruction),
    }
}

fn instruction(line: &Line, escape: char) -> Result<Parsed, Problem> {
    let split = split::split(&line.text, 0, escape);
    let keyword = split.keyword.text.to_ascii_uppercase();
    if keyword == "FROM" {
        return stage::from(line, &split).map(Parsed::From);
    }
    let command = command(&keyword, &split, line, escape)?;
    Ok(Parsed::Other(Instruction { line: line.clone(), keyword: split.keyword, command }))
}

fn command(keyword: &str, split: &Split, line: &Line, escape: char) -> Result<Command, Problem> {
    let none = || Flags::read(split, &[]).map(drop);
    Ok(match keyword {
        "ADD" | "COPY" => Command::Copy(Box::new(copy::parse(keyword, split, line)?)),
        "ARG" => Command::Arg(pairs::args(split, line, escape)?),
        "CMD" => none().and_then(|()| command_line(&split.rest)).map(Command::Cmd)?,
        "ENTRYPOINT" => none().and_then(|()| command_line(&split.rest)).map(Command::Entrypoint)?,
        "ENV" => none().and_then(|()| pairs::pairs("ENV", split, escape)).map(Command::Env)?,
        "LABEL" => {
            none().and_then(|()| pairs::pairs("LABEL", split, escape)).map(Command::Label)?
        }
        "EXPOSE" => {
            none()?;
            let mut ports = at_least_one(keyword, split::plain_words(&split.rest), split)?;
            ports.sort_by(|a, b| a.text.cmp(&b.text));
            Command::Expose(ports)
        }
        "HEALTHCHECK" => Command::Healthcheck(health::parse(split)?),
        "MAINTAINER" => Command::Maintainer(exactly_one(keyword, split)?),
        "ONBUILD" => Command::Onbuild(onbuild(split, line, escape)?),
        "RUN" => Command::Run(Box::new(run::parse(split, line)?)),
        "SHELL" => Command::Shell(shell(split)?),
        "STOPSIGNAL" => Command::StopSignal(exactly_one(keyword, split)?),
        "USER" => Command::User(exactly_one(keyword, split)?),
        "VOLUME" => Command::Volume(volumes(split)?),
        "WORKDIR" => Command::Workdir(exactly_one(keyword, split)?),
        _ => {
            let problem = Problem::new(format!("unknown instruction: {}", split.keyword.text));
            let near = suggest::hint(&split.keyword.text, KEYWORDS);
            let hint = near.unwrap_or_else(|| {
                "an instruction that goes over several lines needs \\ at the end of each".into()
            });
            return Err(problem.at(split.keyword.span).hint(hint));
        }
    })
}

fn exactly_one(keyword: &str, split: &Split) -> Result<Word, Problem> {
    Flags::read(split, &[])?;
    if split.rest.text.is_empty() {
        let message = format!("{keyword} requires exactly one argument");
        return Err(Problem::new(message).at(split.keyword.span));
    }
    Ok(split.rest.clone())
}

fn at_least_one(keyword: &str, words: Vec<Word>, split: &Split) -> Result<Vec<Word>, Problem> {
    if words.is_empty() {
        let message = format!("{keyword} requires at least one argument");
        return Err(Problem::new(message).at(split.keyword.span));
    }
    Ok(words)
}

/// What an argument in JSON form comes to.
pub(crate) enum Json {
    /// A list of strings.
    Strings(Vec<String>),
    /// Something else than JSON: the shell form.
    No,
}

/// Reads a JSON list of strings.
pub(crate) fn json(rest: &Word) -> Result<Json, Problem> {
    if !rest.text.starts_with('[') {
        return Ok(Json::No);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(&rest.text) else {
        return Ok(Json::No);
    };
    let strings = values.into_iter().map(|v| match v {
        serde_json::Value::String(s) => Ok(s),
        _ => {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            Err(Problem::new(message).at(rest.span).hint("put each element in double quotes"))
        }
    });
    strings.collect::<Result<_, _>>().map(Json::Strings)
}

/// Whether a text is a JSON list of strings.
pub(crate) fn is_json_strings(text: &str) -> bool {
    text.starts_with('[') && serde_json::from_str::<Vec<String>>(text).is_ok()
}

fn command_line(rest: &Word) -> Result<CommandLine, Problem> {
    Ok(match json(rest)? {
        Json::Strings(args) => CommandLine { args, shell: false },
        Json::No if rest.text.is_empty() => CommandLine { args: vec![], shell: true },
        Json::No => CommandLine { args: vec![rest.text.clone()], shell: true },
    })
}

/// Splits `COPY`, `ADD` and `VOLUME` arguments.
fn list(rest: &Word) -> Result<Vec<Word>, Problem> {
    Ok(match json(rest)? {
        Json::Strings(all) => all.into_iter().map(|s| Word::new(s, rest.span)).collect(),
        Json::No => split::plain_words(rest),
    })
}

fn volumes(split: &Split) -> Result<Vec<Word>, Problem> {
    Flags::read(split, &[])?;
    let mut words = at_least_one("VOLUME", list(&split.rest)?, split)?;
    for word in &mut words {
        word.text = word.text.trim().to_owned();
        if word.text.is_empty() {
            let message = "VOLUME specified can not be an empty string";
            return Err(Problem::new(message).at(word.span));
        }
    }
    Ok(words)
}

fn shell(split: &Split) -> Result<Vec<String>, Problem> {
    Flags::read(split, &[])?;
    match json(&split.rest)? {
        Json::Strings(args) if !args.is_empty() => Ok(args),
        Json::No if !split.rest.text.is_empty() => {
            let problem = Problem::new("SHELL requires the arguments to be in JSON form");
            Err(problem.at(split.rest.span).hint("for example SHELL [\"/bin/bash\", \"-c\"]"))
        }
        _ => Err(Problem::new("SHELL requires at least one argument").at(split.keyword.span)),
    }
}

fn onbuild(split: &Split, line: &Line, escape: char) -> Result<String, Problem> {
    Flags::read(split, &[])?;
    at_least_one("ONBUILD", split::plain_words(&split.rest), split)?;
    let inner = split::split(&split.rest.text, split.rest.span.start, escape);
    let trigger = inner.keyword.text.to_ascii_uppercase();
    match trigger.as_str() {
        "ONBUILD" => {
            let message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
            return Err(Problem::new(message).at(inner.keyword.span));
        }
        "MAINTAINER" | "FROM" => {
            let message = format!("{trigger} isn't allowed as an ONBUILD trigger");
            return Err(Problem::new(message).at(inner.keyword.span));
        }
        // Whether it is an instruction is for the frontend that builds on the image to say: it may
        // be a newer one.
        _ => {}
    }
    let start = line.text.len() - line.text.trim_start().len() + split.keyword.text.len();
    let mut text = line.text[start..].trim_start().to_owned();
    for heredoc in &line.heredocs {
        text = format!("{text}\n{}{}", heredoc.content, heredoc.name);
    }
    Ok(text)
}
