//! The matching engine behind both pattern languages: a set of states that is moved along the text,
//! so that no pattern takes more than pattern length times text length.

/// One step of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Literal(u32),
    /// One character but the slash.
    One,
    /// Any characters but the slash.
    Star,
    /// Any characters.
    All,
    /// Nothing, or any characters and a slash.
    Directories,
    /// One character in (or, when negated, not in) the ranges.
    Class { negated: bool, slash: bool, ranges: Vec<(u32, u32)> },
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(Vec<Token>);

/// Invalid bytes are characters of their own, above the last one of Unicode.
const INVALID_BASE: u32 = 0x11_0000;

/// Returns the characters of a path, each invalid byte as one.
pub(super) fn characters(text: &[u8]) -> impl Iterator<Item = u32> + '_ {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(u32::from);
        valid.chain(chunk.invalid().iter().map(|&b| INVALID_BASE + u32::from(b)))
    })
}

impl Glob {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Whether the whole of `text` matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let mut now = States::new(self.0.len());
        let mut next = States::new(self.0.len());
        self.enter(&mut now, 0);
        for character in characters(text) {
            if now.list.is_empty() {
                return false;
            }
            for &state in &now.list {
                self.step(&mut next, state, character);
            }
            now.clear();
            std::mem::swap(&mut now, &mut next);
        }
        now.has(self.0.len())
    }

    /// Adds `state` and those that are reached from it without a character.
    fn enter(&self, states: &mut States, mut state: usize) {
        while states.add(state) {
            match self.0.get(state) {
                Some(Token::Star | Token::All | Token::Directories) => state += 1,
                _ => return,
            }
        }
    }

    fn step(&self, next: &mut States, state: usize, character: u32) {
        let slash = character == u32::from('/');
        match &self.0.get(state) {
            None => {}
            Some(Token::Literal(want)) if *want == character => self.enter(next, state + 1),
            Some(Token::One) if !slash => self.enter(next, state + 1),
            Some(Token::Star) if !slash => self.enter(next, state),
            Some(Token::All) => self.enter(next, state),
            Some(Token::Directories) => {
                next.add(state);
                if slash {
                    self.enter(next, state + 1);
                }
            }
            Some(Token::Class { negated, slash: may, ranges }) => {
                let within = ranges.iter().any(|&(lo, hi)| (lo..=hi).contains(&character));
                if within != *negated && (*may || !slash) {
                    self.enter(next, state + 1);
                }
            }
            Some(_) => {}
        }
    }
}

/// A set of states that remembers its members in order of arrival.
struct States {
    list: Vec<usize>,
    member: Vec<bool>,
}

impl States {
    fn new(last: usize) -> Self {
        Self { list: Vec::new(), member: vec![false; last + 1] }
    }

    fn add(&mut self, state: usize) -> bool {
        let new = !std::mem::replace(&mut self.member[state], true);
        if new {
            self.list.push(state);
        }
        new
    }

    fn has(&self, state: usize) -> bool {
        self.member[state]
    }

    fn clear(&mut self) {
        self.list.drain(..).for_each(|state| self.member[state] = false);
    }
}

/// Reads `[...]` after its opening bracket; `None` when it is not closed or empty.
pub(super) fn read_class(
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    slash: bool,
) -> Option<Token> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, slash, ranges });
        }
        let low = class_character(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { class_character(rest)? } else { low };
        ranges.push((u32::from(low), u32::from(high)));
    }
}

fn class_character(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        '-' | ']' => None,
        other => Some(other),
    }
}
