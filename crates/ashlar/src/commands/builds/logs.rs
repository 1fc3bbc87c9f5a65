//! `ashlar builds logs`.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Result;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{Entry, Event, Level, LogLine, Stream};
use ashlar_records::LogRemoved;
use serde_json::json;

use super::origin::Origin;
use crate::cli::builds::LogsArgs;
use crate::output::{self, JSON_VERSION, clean, said};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &LogsArgs) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.find(&args.build)?;
    let colours = output::colours(&io::stdout());
    let out = BufWriter::new(io::stdout());
    let mut printer = Printer { args, names: Vec::new(), colours, out };
    match args.follow {
        true => origin.follow(build, |entry| {
            printer.entry(entry)?;
            Ok(printer.out.flush()?)
        })?,
        false => origin.each_entry(build, |entry| printer.entry(entry))?,
    }
    printer.out.flush()?;
    Ok(ExitCode::SUCCESS)
}

struct Printer<'a, W> {
    args: &'a LogsArgs,
    names: Vec<String>,
    /// Whether what steps say keeps its colours.
    colours: bool,
    out: W,
}

impl<W: Write> Printer<'_, W> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        if let Some(removed) = LogRemoved::of(entry) {
            // Whichever step was asked for.
            return self.line(entry, &LogLine::service(Level::Warn, removed.to_string()));
        }
        match &entry.event {
            Event::Steps { names } => self.names.clone_from(names),
            Event::StepStarted { step } if !self.args.json.json && self.wants(Some(*step)) => {
                let name = self.names.get((step.0 as usize).wrapping_sub(1));
                let name = clean(name.map_or("", String::as_str));
                writeln!(self.out, "#{} {name}", step.0)?;
            }
            Event::Log(line) if self.wants(line.step) => self.line(entry, line)?,
            Event::Failed(failure) if !self.args.json.json && self.args.step.is_none() => {
                writeln!(self.out, "failed: {}", clean(&failure.message))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn wants(&self, step: Option<StepId>) -> bool {
        self.args.step.is_none_or(|wanted| step == Some(StepId(wanted)))
    }

    fn line(&mut self, entry: &Entry, line: &LogLine) -> Result<()> {
        if self.args.json.json {
            let document = json!({
                "version": JSON_VERSION,
                "number": entry.number,
                "time": entry.time,
                "step": line.step,
                "stream": line.stream,
                "level": line.level,
                "text": line.text,
            });
            writeln!(self.out, "{document}")?;
            return Ok(());
        }
        if self.args.timestamps {
            write!(self.out, "{} ", entry.time)?;
        }
        match (line.step, line.stream) {
            (Some(step), Stream::Stdout | Stream::Stderr) => write!(self.out, "#{} ", step.0)?,
            _ => write!(self.out, "{}: ", level(line))?,
        }
        writeln!(self.out, "{}", said(&line.text, self.colours))?;
        Ok(())
    }
}

fn level(line: &LogLine) -> &'static str {
    match line.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warning",
        Level::Error => "error",
    }
}
