//! Parser directives: `# name=value` lines before anything else.

use crate::source::Problem;

/// What the directives at the top of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// Value of `syntax` with its line.
    pub syntax: Option<(String, u32)>,
    /// Value of `check` with its line.
    pub check: Option<(String, u32)>,
    seen_escape: bool,
    done: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', syntax: None, check: None, seen_escape: false, done: false }
    }
}

impl Directives {
    /// Reads a line of the top; returns whether it is a directive.
    pub(crate) fn read(&mut self, line: &str, number: u32) -> Result<bool, Problem> {
        let found = if self.done { None } else { directive(line) };
        let Some((name, value)) = found else {
            self.done = true;
            return Ok(false);
        };
        let repeated = match name.as_str() {
            "escape" => self.set_escape(value)?,
            "syntax" => self.syntax.replace((value.to_owned(), number)).is_some(),
            "check" => self.check.replace((value.to_owned(), number)).is_some(),
            _ => {
                self.done = true;
                return Ok(false);
            }
        };
        if repeated {
            return Err(Problem::new(format!("only one {name} parser directive can be used"))
                .hint("remove one of the two lines"));
        }
        Ok(true)
    }

    fn set_escape(&mut self, value: &str) -> Result<bool, Problem> {
        self.escape = match value {
            "\\" => '\\',
            "`" => '`',
            _ => {
                let message = format!("invalid escape token '{value}' does not match ` or \\");
                return Err(Problem::new(message).hint("write `# escape=\\` or leave it out"));
            }
        };
        Ok(std::mem::replace(&mut self.seen_escape, true))
    }
}

/// Returns what the `# syntax=` line at the top of a text says, for those who hand the file to
/// another frontend. A text whose directives are wrong says nothing.
pub fn syntax(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut directives = Directives::default();
    for (number, line) in (1..).zip(text.lines()) {
        if !directives.read(line, number).ok()? {
            break;
        }
    }
    directives.syntax.map(|(value, _)| value)
}

/// Splits `# name = value`; the name in lower case.
pub(crate) fn directive(line: &str) -> Option<(String, &str)> {
    assignment(line.strip_prefix('#')?.trim_start())
}

/// Splits `name = value` as a directive is written.
pub(crate) fn assignment(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let mut chars = name.chars();
    let fits = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric());
    (fits && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}
