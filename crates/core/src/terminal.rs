//! What a terminal shows of a line that a program wrote. Programs colour their words, draw over what
//! they wrote before, and write bytes that would steer the terminal of whoever reads the log.
//!
//! Sequences are those of ECMA-48. What is cut off or malformed takes no text with it, but for
//! parameters.

/// A part of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that is shown; of control characters it has tabs alone.
    Text(&'a str),
    /// How text after it looks: the parameters of a "select graphic rendition" sequence (ECMA-48,
    /// 8.3.117), digits with `;` and `:` between them.
    Look(&'a str),
}

/// Cuts a line into what a terminal shows in the end: of what was drawn over after a carriage return
/// only the looks are left.
pub fn pieces(line: &str) -> impl Iterator<Item = Piece<'_>> {
    let begin = last_drawn(line);
    Tokens::new(line).filter_map(move |(at, token)| match token {
        Token::Text(text) => (at >= begin).then_some(Piece::Text(text)),
        Token::Look(numbers) => Some(Piece::Look(numbers)),
        Token::Return => None,
    })
}

/// Returns all text, also what a terminal would draw over, without control characters but tabs: for
/// names, of which nothing should hide.
pub fn text(line: &str) -> String {
    let text = |(_, token)| match token {
        Token::Text(text) => Some(text),
        Token::Look(_) | Token::Return => None,
    };
    Tokens::new(line).filter_map(text).collect()
}

/// Returns where the text begins that follows the last carriage return with text after it.
fn last_drawn(line: &str) -> usize {
    if memchr::memchr(b'\r', line.as_bytes()).is_none() {
        return 0;
    }
    let (mut drawn, mut returned) = (0, 0);
    for (at, token) in Tokens::new(line) {
        match token {
            Token::Return => returned = at,
            Token::Text(_) => drawn = returned,
            Token::Look(_) => {}
        }
    }
    drawn
}

#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    Text(&'a str),
    Look(&'a str),
    /// A carriage return.
    Return,
}

/// Tokens with their places; what is neither text nor known is left out.
struct Tokens<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    const fn new(line: &'a str) -> Self {
        Self { line, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    /// Takes characters as long as they are wanted.
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Takes the next character when it is wanted.
    fn take_one(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let next = self.rest().chars().next().filter(|c| wanted(*c))?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Takes one control character, with the sequence that it begins.
    fn control(&mut self) -> Option<Token<'a>> {
        match self.take_one(|_| true)? {
            '\r' => return Some(Token::Return),
            '\u{1b}' => match self.take_one(|c| matches!(c, ' '..='~'))? {
                '[' => return self.control_sequence(),
                'P' | 'X' | ']' | '^' | '_' => self.control_string(),
                // One that names a character set, say, has its last character after these.
                ' '..='/' => {
                    self.take(|c| matches!(c, ' '..='/'));
                    self.take_one(|c| matches!(c, '0'..='~'));
                }
                _ => {}
            },
            '\u{9b}' => return self.control_sequence(),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => self.control_string(),
            _ => {}
        }
        None
    }

    /// Takes what follows the start of a control sequence (ECMA-48, 5.4).
    fn control_sequence(&mut self) -> Option<Token<'a>> {
        let parameters = self.take(|c| matches!(c, '0'..='?'));
        let between = self.take(|c| matches!(c, ' '..='/'));
        let last = self.take_one(|c| matches!(c, '@'..='~'))?;
        let plain = parameters.bytes().all(|b| matches!(b, b'0'..=b'9' | b';' | b':'));
        (last == 'm' && between.is_empty() && plain).then_some(Token::Look(parameters))
    }

    /// Takes what follows the start of a control string (ECMA-48, 5.6), as a title or a link is.
    fn control_string(&mut self) {
        self.take(|c| !c.is_control());
        if self.rest().starts_with("\u{1b}\\") {
            self.at += "\u{1b}\\".len();
        } else {
            self.take_one(|c| matches!(c, '\u{7}' | '\u{9c}'));
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, Token<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.line.len() {
            let at = self.at;
            let text = self.take(|c| !c.is_control() || c == '\t');
            if !text.is_empty() {
                return Some((at, Token::Text(text)));
            }
            if let Some(token) = self.control() {
                return Some((at, token));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let show = |piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Look(numbers) => format!("<{numbers}>"),
        };
        pieces(line).map(show).collect()
    }

    #[test]
    fn looks_are_kept_and_other_sequences_go_whole() {
        for (line, want) in [
            ("\x1b[32m+ added\x1b[0m", "<32>+ added<0>"),
            ("a\x1b[mb\x1b[38;2;1:2;3mc", "a<>b<38;2;1:2;3>c"),
            ("a\x1b[2J\x1b[10;20Hb\x1b[?25lc\x1b[>4;1md\x1b[1 qe", "abcde"),
            ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x1bPq#0\x1b\\d", "abcd"),
            ("a\x1b(Bb\x1b7c\x1b=d\x1bMe", "abcde"),
            ("a\u{9b}31mb\u{9d}0;t\u{9c}c", "a<31>bc"),
            ("a\tb\x07\x08\0\x7f\u{85}c", "a\tbc"),
        ] {
            assert_eq!(shown(line), want, "{line:?}");
        }
    }

    #[test]
    fn broken_sequences_take_no_text_with_them() {
        for (line, want) in [
            ("a\x1b", "a"),
            ("a\x1b[", "a"),
            ("a\x1b[31", "a"),
            ("a\x1b[31é", "aé"),
            ("a\x1b[3\x1b[1mb", "a<1>b"),
            ("a\x1bé", "aé"),
            ("a\x1b]0;t\rb", "b"),
            ("a\x1b]0;no end", "a"),
        ] {
            assert_eq!(shown(line), want, "{line:?}");
        }
    }

    #[test]
    fn of_what_is_drawn_over_the_last_state_is_shown() {
        for (line, want) in [
            ("\rDownloading 10%\rDownloading 50%", "Downloading 50%"),
            ("whole\r", "whole"),
            ("whole\r\x1b[K\r", "whole"),
            ("\x1b[1mold\x1b[32m\rnew\x1b[0m\r", "<1><32>new<0>"),
            ("\r", ""),
            ("a\r\r\rb", "b"),
        ] {
            assert_eq!(shown(line), want, "{line:?}");
        }
        assert_eq!(text("a\x1b[1m\rb\n"), "ab");
    }
}
