//! Log lines with terminal colours as HTML: classes and no styles, so that a strict content
//! security policy holds. All else that terminals understand is dropped.

use std::collections::HashMap;
use std::fmt::Write as _;

use ashlar_core::graph::StepId;
use ashlar_core::journal::{LogLine, Stream};
use ashlar_core::terminal::{self, Piece};

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    bold: bool,
    faint: bool,
    /// 0 to 7 usual, 8 to 15 bright.
    colour: Option<u8>,
}

/// How the next line of each stream of each step looks where it begins.
#[derive(Debug, Default)]
pub(crate) struct Looks(HashMap<(Option<StepId>, Stream), Look>);

impl Looks {
    /// Returns the next line of a page as HTML.
    pub(crate) fn html(&mut self, line: &LogLine) -> String {
        self.0.entry((line.step, line.stream)).or_default().html(&line.text)
    }
}

impl Look {
    /// Returns a line as HTML that begins with this look, which becomes that of its end: a colour
    /// goes on until it is changed.
    pub(crate) fn html(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len() + 16);
        for (look, text) in terminal::pieces(line).filter_map(|piece| self.take(piece)) {
            let classes = look.classes();
            if !classes.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(out, "<span class=\"{classes}\">");
            }
            escape(text, &mut out);
            if !classes.is_empty() {
                out.push_str("</span>");
            }
        }
        out
    }

    /// Returns a piece of text with its look; a change of the look is kept.
    fn take<'a>(&mut self, piece: Piece<'a>) -> Option<(Self, &'a str)> {
        match piece {
            Piece::Text(text) => Some((*self, text)),
            Piece::Look(numbers) => {
                self.apply(numbers);
                None
            }
        }
    }

    fn classes(self) -> String {
        let mut classes = Vec::new();
        if self.bold {
            classes.push("b".to_owned());
        }
        if self.faint {
            classes.push("f".to_owned());
        }
        classes.extend(self.colour.map(|c| format!("c{c}")));
        classes.join(" ")
    }

    /// Applies the numbers of a "select graphic rendition" sequence (ECMA-48, 8.3.117).
    fn apply(&mut self, numbers: &str) {
        let mut numbers = numbers.split(';').map(|n| n.parse::<u16>().unwrap_or(0));
        while let Some(n) = numbers.next() {
            match n {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.faint = true,
                22 => (self.bold, self.faint) = (false, false),
                30..=37 => self.colour = u8::try_from(n - 30).ok(),
                90..=97 => self.colour = u8::try_from(n - 82).ok(),
                39 => self.colour = None,
                // Colours of larger palettes: their parameters are no codes.
                38 | 48 => match numbers.next() {
                    Some(5) => drop(numbers.next()),
                    Some(2) => drop(numbers.by_ref().take(3).count()),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

/// Cuts a line into pieces of one look each, without control characters: what a terminal shows of it
/// in the end.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = (Look, &str)> {
    let mut look = Look::default();
    terminal::pieces(text).filter_map(move |piece| look.take(piece))
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_html(line: &str) -> String {
        Look::default().html(line)
    }

    #[test]
    fn colours_become_classes_and_markup_is_escaped() {
        let html = to_html("a\u{1b}[1;31m<b>\u{1b}[0m&\u{1b}[92mok\u{1b}[39m");
        assert_eq!(
            html,
            "a<span class=\"b c1\">&lt;b&gt;</span>&amp;<span class=\"c10\">ok</span>"
        );
    }

    #[test]
    fn other_sequences_are_dropped_and_broken_ones_end_the_line() {
        assert_eq!(to_html("x\u{1b}[2Ky\u{1b}]0;title\u{7}zw\u{8}"), "xyzw");
        assert_eq!(to_html("x\u{1b}[38;5;196mred"), "xred");
        assert_eq!(to_html("x\u{1b}["), "x");
        assert_eq!(to_html("x\u{1b}"), "x");
    }

    #[test]
    fn of_a_progress_bar_the_last_state_is_shown() {
        assert_eq!(to_html("p1\rp2\rp3"), "p3");
        let html = to_html("\u{1b}[32m10%\r50%\u{1b}[0m\r");
        assert_eq!(html, "<span class=\"c2\">50%</span>");
        let plain: String = pieces("\rp1\rp2\r").map(|(_, text)| text).collect();
        assert_eq!(plain, "p2");
    }

    #[test]
    fn a_colour_goes_on_in_the_next_line() {
        let mut look = Look::default();
        let lines = ["\u{1b}[32mgreen starts", "still green\u{1b}[0m", "plain"];
        assert_eq!(
            lines.map(|line| look.html(line)),
            [
                "<span class=\"c2\">green starts</span>",
                "<span class=\"c2\">still green</span>",
                "plain"
            ]
        );
    }

    #[test]
    fn streams_and_steps_have_a_look_each() {
        let mut looks = Looks::default();
        let mut html = |step: u32, stream, text: &str| {
            let line = LogLine::service(ashlar_core::journal::Level::Info, text);
            looks.html(&LogLine { step: Some(StepId(step)), stream, ..line })
        };
        assert_eq!(html(1, Stream::Stdout, "\u{1b}[31m"), "");
        assert_eq!(html(2, Stream::Stdout, "a"), "a");
        assert_eq!(html(1, Stream::Stderr, "b"), "b");
        assert_eq!(html(1, Stream::Stdout, "c"), "<span class=\"c1\">c</span>");
    }

    /// Says whether all markup is spans with classes of ours, each closed at once.
    fn is_safe(html: &str) -> bool {
        let mut rest = html;
        while let Some(at) = rest.find(['<', '>', '"', '\'', '\u{1b}']) {
            let Some(inner) = rest[at..].strip_prefix("<span class=\"") else { return false };
            let Some((classes, inner)) = inner.split_once("\">") else { return false };
            if !classes.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ') {
                return false;
            }
            let Some((text, after)) = inner.split_once("</span>") else { return false };
            if text.contains(['<', '>', '"', '\'']) {
                return false;
            }
            rest = after;
        }
        true
    }

    #[test]
    fn hostile_lines_make_no_markup() {
        assert!(!is_safe("<b>") && !is_safe("<span class=\"a\"><script></span>"));
        let parts = [
            "<script>",
            "\"",
            "'",
            "&",
            "\u{1b}[",
            "\u{1b}]8;;javascript:x\u{7}",
            "31m",
            "1;",
            ";;m",
            "\u{1b}]",
            "</span>",
            "\u{9b}31m",
            "38;2;1;m",
            "\u{1b}\\",
            "9999999999m",
            "text",
            "\u{202e}",
            "\0",
            "<!--",
            "\u{1b}P",
            "38;5m",
            "\u{1b}[31m",
        ];
        // Every three parts after each other, in every order.
        for a in parts {
            for b in parts {
                for c in parts {
                    let line = [a, b, c, "<i>"].concat();
                    let html = to_html(&line);
                    assert!(is_safe(&html), "{line:?} became {html:?}");
                }
            }
        }
    }
}
