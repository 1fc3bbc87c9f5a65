//! Rows as readers take them apart.

use ashlar_core::Timestamp;
use ashlar_core::journal::{Entry, Event};

use super::search::Needle;
use super::{
    EVENT, FRAME, LINES, LINES_ZSTD, POINTER, REMOVED, TEXT, TEXT_ZSTD, frame, inflate, lines, text,
};
use crate::Error;

/// Which entries a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the first one.
    pub(crate) number: u64,
    pub(crate) count: u64,
    /// Time of the first one.
    pub(crate) time: Timestamp,
}

/// Hands out entries; says whether more are wanted.
pub(crate) type Take<'a> = dyn FnMut(Entry) -> bool + 'a;

/// The body of a row, nothing of it compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain(Vec<u8>);

impl Plain {
    /// Inflates a body that is no pointer.
    pub(crate) fn of(place: &Place, body: &[u8]) -> Result<Self, Error> {
        let body = match body {
            // Empty lines: whoever does not want them leaves the row out.
            [REMOVED, empty @ ..] => empty,
            body => body,
        };
        let kind = match body.first() {
            Some(&LINES_ZSTD) => LINES,
            Some(&TEXT_ZSTD) => TEXT,
            Some(&(EVENT | LINES | TEXT | FRAME)) => return Ok(Self(body.to_vec())),
            Some(&POINTER) => return Err(damaged(place, "its segment was not looked into")),
            _ => return Err(damaged(place, "it has an unknown form")),
        };
        inflate(&body[1..], kind).map(Self).map_err(|why| damaged(place, &why))
    }

    /// Inflates a frame of a segment.
    pub(crate) fn of_frame(place: &Place, bytes: &[u8]) -> Result<Self, Error> {
        inflate(bytes, FRAME).map(Self).map_err(|why| damaged(place, &why))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Hands out the entries from a number on, as long as `take` wants more.
    pub(crate) fn each(&self, place: &Place, from: u64, take: &mut Take<'_>) -> Result<(), Error> {
        Walk { from, needle: None, take, more: true }.plain(place, &self.0)
    }

    /// Hands out the log lines with a text from a number on, as long as `take` wants more.
    pub(crate) fn search(
        &self,
        place: &Place,
        from: u64,
        needle: &Needle,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        Walk { from, needle: Some(needle), take, more: true }.plain(place, &self.0)
    }
}

fn damaged(place: &Place, why: &str) -> Error {
    Error::damaged(format!("entry {}", place.number), why)
}

/// One walk over the entries of a row.
struct Walk<'a, 'b> {
    from: u64,
    /// Only log lines with this are wanted.
    needle: Option<&'a Needle>,
    take: &'a mut Take<'b>,
    more: bool,
}

impl Walk<'_, '_> {
    fn plain(&mut self, place: &Place, plain: &[u8]) -> Result<(), Error> {
        match plain.split_first() {
            Some((&EVENT, rest)) => self.event(place, rest),
            Some((&LINES, rest)) => {
                self.lines(place, rest).ok_or_else(|| damaged(place, "its log lines are cut"))
            }
            Some((&TEXT, rest)) => {
                self.text(place, rest).ok_or_else(|| damaged(place, "its log text is cut"))
            }
            Some((&FRAME, rest)) => {
                let rows = frame::rows(place, rest);
                let rows = rows.ok_or_else(|| damaged(place, "its frame is cut"))?;
                for (inner, body) in rows {
                    if body.first() == Some(&FRAME) {
                        return Err(damaged(place, "it holds a frame in a frame"));
                    }
                    if self.more && inner.number + inner.count > self.from {
                        self.plain(&inner, body)?;
                    }
                }
                Ok(())
            }
            _ => Err(damaged(place, "it is empty or has an unknown form")),
        }
    }

    fn event(&mut self, place: &Place, json: &[u8]) -> Result<(), Error> {
        if place.count != 1 {
            return Err(damaged(place, "an event is one entry"));
        }
        if place.number >= self.from && self.needle.is_none() {
            let event: Event =
                serde_json::from_slice(json).map_err(|e| damaged(place, &e.to_string()))?;
            self.more = (self.take)(Entry { number: place.number, time: place.time, event });
        }
        Ok(())
    }

    fn lines(&mut self, place: &Place, bytes: &[u8]) -> Option<()> {
        let mut seen = 0;
        lines::each(place.time, bytes, &mut |at, time, line| {
            seen = at + 1;
            let number = place.number + at;
            let wanted = self.needle.is_none_or(|n| n.is_in(line.text.as_bytes()));
            if number >= self.from && wanted {
                self.more = (self.take)(Entry { number, time, event: Event::Log(line) });
            }
            self.more
        })?;
        (!self.more || seen == place.count).then_some(())
    }

    fn text(&mut self, place: &Place, bytes: &[u8]) -> Option<()> {
        let mut number = place.number;
        for piece in text::pieces(place.time, bytes)? {
            let (first, end) = (number, number.checked_add(piece.lines)?);
            number = end;
            let wanted = self.needle.is_none_or(|n| n.is_in(piece.bytes));
            if !self.more || end <= self.from || !wanted {
                continue;
            }
            let skip = self.from.saturating_sub(first);
            self.more = piece.each(skip, &mut |at, time, line| {
                if self.needle.is_some_and(|n| !n.is_in(line.text.as_bytes())) {
                    return true;
                }
                (self.take)(Entry { number: first + at, time, event: Event::Log(line) })
            })?;
        }
        (number == place.number.checked_add(place.count)?).then_some(())
    }
}
