//! Finds any of many texts in what steps write, in time that grows with the output and not with
//! the product of the two.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use memchr::memmem::Finder;

/// Longer texts are searched one by one: the automaton has a state for each byte of its texts,
/// and a single text is found as fast without.
const AUTOMATON_TEXT_MAX: usize = 4096;

/// The most bytes of texts for which the fastest kind of automaton may be chosen; making it takes
/// time that is quadratic in them.
const DENSE_BYTES_MAX: usize = 4096;

/// Texts to be found.
#[derive(Debug, Default)]
pub(super) struct Search {
    short: Option<AhoCorasick>,
    long: Vec<Finder<'static>>,
    /// Whether a text counts only where no word goes on beyond it.
    whole_words: bool,
    longest: usize,
}

impl Search {
    /// Makes a search for `texts`, none of which is empty.
    pub(super) fn new(texts: Vec<Vec<u8>>, whole_words: bool) -> Self {
        Self::with(texts, whole_words, automaton)
    }

    fn with(
        mut texts: Vec<Vec<u8>>,
        whole_words: bool,
        automaton: impl FnOnce(&[Vec<u8>]) -> Option<AhoCorasick>,
    ) -> Self {
        texts.sort();
        texts.dedup();
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let (mut long, short): (Vec<_>, Vec<_>) =
            texts.into_iter().partition(|text| text.len() > AUTOMATON_TEXT_MAX);
        // One that has nothing to find would look at every byte all the same.
        let automaton = if short.is_empty() { None } else { automaton(&short) };
        if automaton.is_none() {
            // Slow is better than to let them through.
            long.extend(short);
        }
        let finder = |text: &Vec<u8>| Finder::new(text).into_owned();
        Self { short: automaton, long: long.iter().map(finder).collect(), whole_words, longest }
    }

    /// Adds where the texts lie in `text`, in no order.
    pub(super) fn find(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        if let Some(automaton) = &self.short {
            self.find_short(automaton, text, found);
        }
        for finder in &self.long {
            let length = finder.needle().len();
            let places = finder.find_iter(text).map(|start| start..start + length);
            found.extend(places.filter(|place| self.counts(text, place)));
        }
    }

    /// Returns the length of the longest text, in bytes.
    pub(super) const fn longest(&self) -> usize {
        self.longest
    }

    fn find_short(&self, automaton: &AhoCorasick, text: &[u8], found: &mut Vec<Range<usize>>) {
        let mut at = 0;
        while let Some(hit) = automaton.find(Input::new(text).range(at..)) {
            if self.counts(text, &hit.range()) {
                found.push(hit.range());
                at = hit.end();
            } else {
                // Another one may begin within it, where a word does.
                at = (hit.start() + 1..text.len())
                    .find(|&next| ends_between(text, next))
                    .unwrap_or(text.len());
            }
        }
    }

    fn counts(&self, text: &[u8], place: &Range<usize>) -> bool {
        !self.whole_words || (ends_between(text, place.start) && ends_between(text, place.end))
    }
}

/// Says whether no word goes on from the byte before `at` to the one there.
fn ends_between(text: &[u8], at: usize) -> bool {
    let is_word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    at == 0 || !is_word(text.get(at - 1)) || !is_word(text.get(at))
}

/// Returns nothing when there are more texts than an automaton can hold.
fn automaton(texts: &[Vec<u8>]) -> Option<AhoCorasick> {
    let bytes: usize = texts.iter().map(Vec::len).sum();
    let kind = (bytes > DENSE_BYTES_MAX).then_some(AhoCorasickKind::ContiguousNFA);
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::LeftmostLongest).kind(kind).build(texts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(search: &Search, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        search.find(text, &mut found);
        found
    }

    #[test]
    fn long_texts_are_found_as_short_ones_are() {
        let long = [b"ab".repeat(AUTOMATON_TEXT_MAX), b"c".to_vec()].concat();
        let search = Search::new(vec![b"word".to_vec(), long.clone()], false);
        let text = [b"word ab", &long[..], b" word"].concat();
        let mut found = places(&search, &text);
        found.sort_by_key(|place| place.start);
        assert_eq!(found, [0..4, 7..7 + long.len(), 8 + long.len()..12 + long.len()]);
        assert_eq!(search.longest(), long.len());
    }

    #[test]
    fn nothing_is_searched_for_where_there_is_nothing_to_find() {
        let search = Search::new(Vec::new(), true);
        assert!(search.short.is_none() && search.long.is_empty());
    }

    #[test]
    fn without_an_automaton_all_are_found_one_by_one() {
        let texts = vec![b"one".to_vec(), b"two".to_vec()];
        let search = Search::with(texts, false, |_| None);
        assert_eq!(places(&search, b"two one"), [4..7, 0..3]);
    }

    #[test]
    fn whole_words_end_where_words_do() {
        let search = Search::new(vec![b"red".to_vec(), b"/red-x".to_vec()], true);
        assert_eq!(places(&search, b"red hundred reds (red)"), [0..3, 18..21]);
        assert_eq!(places(&search, b"a/red-x a/red-xy"), [1..7, 10..13]);
    }
}
