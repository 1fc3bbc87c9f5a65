//! From text to logical lines: directives, continuations, comments and heredocs.
//!
//! Instructions are told apart only as far as is needed to know whether a line may open a heredoc.

mod directives;
pub(crate) mod heredoc;
mod line;
pub(crate) mod split;

pub(crate) use directives::assignment;
pub use directives::{Directives, syntax};
pub use heredoc::Heredoc;
pub use line::Line;

use crate::source::{Problem, SourceText};

/// A file as logical lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lexed {
    /// What the directives at the top say.
    pub directives: Directives,
    /// The logical lines, one for each instruction.
    pub lines: Vec<Line>,
    /// Last physical lines of instructions with an empty line inside a continuation.
    pub empty_continuations: Vec<u32>,
}

/// Reads a file.
pub(crate) fn lex(
    text: &str,
    source: &SourceText,
) -> Result<Lexed, Box<ashlar_core::frontend::Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.split_inclusive('\n'), number: 0 };
    let mut lexed = Lexed::default();
    let mut comments = Vec::new();
    while let Some(physical) = reader.next() {
        let trimmed = without_end(physical).trim_start();
        if trimmed.starts_with('#') {
            let number = reader.number;
            let is_directive = lexed.directives.read(trimmed, number);
            match is_directive.map_err(|p| source.diagnose_lines(number, number, p))? {
                true => {}
                false => remember(&mut comments, trimmed),
            }
            continue;
        }
        // Whatever it is, directives end here.
        let _ = lexed.directives.read(trimmed, reader.number);
        if let Some(mut line) = logical(physical, &mut reader, &mut lexed, source)? {
            line.comments = std::mem::take(&mut comments);
            lexed.lines.push(line);
        }
    }
    Ok(lexed)
}

fn remember(comments: &mut Vec<String>, line: &str) {
    match line[1..].trim() {
        "" => comments.clear(),
        text => comments.push(text.to_owned()),
    }
}

/// Physical lines with their numbers.
struct Reader<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    number: u32,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?;
        self.number += 1;
        Some(line)
    }
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Joins a line with its continuations and reads the heredocs that it opens.
fn logical(
    first: &str,
    reader: &mut Reader<'_>,
    lexed: &mut Lexed,
    source: &SourceText,
) -> Result<Option<Line>, Box<ashlar_core::frontend::Diagnostic>> {
    let escape = lexed.directives.escape;
    let start = without_end(first);
    let indent = start.chars().take_while(|c| c.is_whitespace()).count();
    let (text, mut more) = continued(start.trim_start(), escape);
    if text.is_empty() && !more {
        return Ok(None);
    }
    let mut line = Line::default();
    line.first = reader.number;
    line.push(text, reader.number, column(indent));
    let mut empty = false;
    while more && let Some(next) = reader.next() {
        let next = without_end(next);
        if next.trim_start().starts_with('#') {
            continue;
        }
        if next.trim_start().is_empty() {
            empty = true;
            continue;
        }
        let text;
        (text, more) = continued(next, escape);
        line.push(text, reader.number, 1);
    }
    line.last = reader.number;
    if empty {
        lexed.empty_continuations.push(reader.number);
    }
    if line.text.contains("<<") && takes_heredocs(&line.text, escape) {
        line.heredocs = heredoc::of_line(&line.text);
        read_bodies(&mut line, reader).map_err(|p| source.diagnose(&line, p))?;
        line.last = reader.number;
    }
    Ok(Some(line))
}

fn column(indent: usize) -> u32 {
    u32::try_from(indent).unwrap_or(0).saturating_add(1)
}

/// Returns the line without its continuation character, and whether it had one. A continuation
/// character after another one is an escaped one, as BuildKit has it.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let Some(before) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line, false);
    };
    if before.ends_with(escape) { (line, false) } else { (before, true) }
}

/// Whether the instruction of a line may have heredocs: `RUN`, `COPY` and `ADD` that are not in
/// JSON form, also as triggers.
fn takes_heredocs(text: &str, escape: char) -> bool {
    let mut split = split::split(text, 0, escape);
    if split.keyword.text.eq_ignore_ascii_case("ONBUILD") {
        split = split::split(&split.rest.text, 0, escape);
    }
    let takes = ["RUN", "COPY", "ADD"];
    takes.iter().any(|k| split.keyword.text.eq_ignore_ascii_case(k))
        && !crate::parse::is_json_strings(&split.rest.text)
}

fn read_bodies(line: &mut Line, reader: &mut Reader<'_>) -> Result<(), Problem> {
    for heredoc in &mut line.heredocs {
        let mut ended = false;
        while let Some(body) = reader.next() {
            let text = without_end(body);
            let text = if heredoc.chomp { text.trim_start_matches('\t') } else { text };
            ended = text == heredoc.name;
            if ended {
                break;
            }
            heredoc.content.push_str(body);
        }
        if !ended {
            let hint = format!("end it with a line that holds only {}", heredoc.name);
            return Err(Problem::new("unterminated heredoc").hint(hint));
        }
    }
    Ok(())
}
