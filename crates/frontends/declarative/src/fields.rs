//! Typed access to the keys of a JSON object, with errors that name the key.

use ashlar_core::frontend::Diagnostic;
use serde_json::{Map, Value};

use crate::limits::{ITEMS_MAX, TEXT_BYTES_MAX};
use crate::step::FileMode;

pub(crate) type Parse<T> = Result<T, Box<Diagnostic>>;

/// A JSON object, its place, and the keys that nobody has asked for yet.
pub(crate) struct Fields<'a> {
    place: &'a str,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

/// Makes an error about a place such as `steps[3].packages`.
pub(crate) fn error(place: impl AsRef<str>, what: impl AsRef<str>) -> Box<Diagnostic> {
    Box::new(Diagnostic::new(format!("{}: {}", place.as_ref(), what.as_ref())))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong(place: &str, wanted: &str, value: &Value) -> Box<Diagnostic> {
    error(place, format!("must be {wanted}, not {}", kind(value)))
}

impl<'a> Fields<'a> {
    pub(crate) fn new(place: &'a str, value: &'a Value, wanted: &str) -> Parse<Self> {
        let map = value.as_object().ok_or_else(|| wrong(place, wanted, value))?;
        Ok(Self { place, map, known: Vec::new() })
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.place)
    }

    /// Returns a key's value; `null` counts as absent.
    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name).filter(|v| !v.is_null())
    }

    fn need(&mut self, name: &'static str) -> Parse<&'a Value> {
        self.get(name).ok_or_else(|| error(self.key(name), "is missing"))
    }

    /// Returns a text that must be there and not be empty.
    pub(crate) fn text(&mut self, name: &'static str) -> Parse<String> {
        let value = self.need(name)?;
        text_of(&self.key(name), value)
    }

    /// Returns a text that may be absent, but not empty.
    pub(crate) fn text_maybe(&mut self, name: &'static str) -> Parse<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        text_of(&self.key(name), value).map(Some)
    }

    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> Parse<bool> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(&self.key(name), "a boolean", value))
    }

    /// Returns a number that is at least 1.
    pub(crate) fn count_maybe(&mut self, name: &'static str) -> Parse<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let place = self.key(name);
        if !value.is_number() {
            return Err(wrong(&place, "an integer", value));
        }
        let count = value.as_u64().filter(|n| *n > 0);
        count.map(Some).ok_or_else(|| error(place, "must be an integer of at least 1"))
    }

    /// Returns permission bits: an octal string, or a number that is their value.
    pub(crate) fn mode_maybe(&mut self, name: &'static str) -> Parse<Option<FileMode>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let place = self.key(name);
        let bits = match value {
            Value::String(text) => octal(text),
            Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            other => return Err(wrong(&place, "an octal string or an integer", other)),
        };
        let mode = bits.and_then(FileMode::new).ok_or_else(|| {
            let what = "is no mode; write it as \"0755\", or as the integer of that value (493)";
            error(place, what)
        })?;
        Ok(Some(mode))
    }

    /// Returns a list of texts, none of them empty.
    pub(crate) fn texts(&mut self, name: &'static str) -> Parse<Vec<String>> {
        let list = self.list(name, "a list of strings")?;
        let place = self.key(name);
        list.iter().enumerate().map(|(i, v)| text_of(&format!("{place}[{i}]"), v)).collect()
    }

    pub(crate) fn list(&mut self, name: &'static str, wanted: &str) -> Parse<&'a [Value]> {
        let value = self.need(name)?;
        let place = self.key(name);
        let list = value.as_array().ok_or_else(|| wrong(&place, wanted, value))?;
        if list.len() > ITEMS_MAX {
            return Err(error(place, format!("has more than {ITEMS_MAX} entries")));
        }
        Ok(list)
    }

    /// Adds a warning for every key that no rule knows.
    pub(crate) fn warn_of_unknown(&self, warnings: &mut Vec<Diagnostic>) {
        for name in self.map.keys().filter(|k| !self.known.contains(&k.as_str())) {
            let name: String = name.chars().take(60).collect();
            let message = format!("{}: unknown key, ignored", self.key(&name));
            warnings.push(Diagnostic::new(message));
        }
    }
}

fn octal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    if digits { u32::from_str_radix(text, 8).ok() } else { None }
}

fn text_of(place: &str, value: &Value) -> Parse<String> {
    let text = value.as_str().ok_or_else(|| wrong(place, "a string", value))?;
    check_text(place, text)?;
    Ok(text.to_owned())
}

/// No argument or path can hold a NUL, and nothing means anything when it is empty.
pub(crate) fn check_text(place: &str, text: &str) -> Parse<()> {
    if text.is_empty() {
        Err(error(place, "must not be empty"))
    } else if text.contains('\0') {
        Err(error(place, "must not hold a NUL"))
    } else if text.len() > TEXT_BYTES_MAX {
        Err(error(place, format!("has more than {TEXT_BYTES_MAX} bytes")))
    } else {
        Ok(())
    }
}
