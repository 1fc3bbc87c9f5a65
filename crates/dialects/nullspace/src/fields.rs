//! Typed access to the keys of a request, with errors that name the key.
//!
//! Unknown keys are passed over, and `null` counts as absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::errors::{Answer, ApiError};

/// Entries that a map or list of a request may have.
const ENTRIES_MAX: usize = 100_000;

/// A JSON object and its place in the request; the place is empty for the whole of it.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Reads the object at a place.
    pub(crate) fn new(place: impl Into<String>, value: &'a Value) -> Answer<Self> {
        let place = place.into();
        match value.as_object() {
            Some(map) => Ok(Self { place, map }),
            None if place.is_empty() => Err(ApiError::invalid("the body must be a JSON object")),
            None => Err(wrong(&place, "an object", value)),
        }
    }

    /// Returns the place of a key.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    /// Returns a key's value.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    fn need<T>(&self, name: &str, found: Option<T>) -> Answer<T> {
        found.ok_or_else(|| ApiError::invalid(format!("{}: is missing", self.key(name))))
    }

    /// Returns a text that may be absent.
    pub(crate) fn text(&self, name: &str) -> Answer<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(wrong(&self.key(name), "a string", value)),
        }
    }

    /// Returns a text that must be there.
    pub(crate) fn text_needed(&self, name: &str) -> Answer<String> {
        let found = self.text(name)?;
        self.need(name, found)
    }

    /// Returns a text that may be absent but not empty, nor hold a NUL.
    pub(crate) fn word(&self, name: &str) -> Answer<Option<String>> {
        let found = self.text(name)?;
        if found.as_deref().is_some_and(|t| t.is_empty() || t.contains('\0')) {
            let key = self.key(name);
            return Err(ApiError::invalid(format!("{key}: must not be empty or hold a NUL")));
        }
        Ok(found)
    }

    /// Returns a truth value that may be absent.
    pub(crate) fn flag(&self, name: &str) -> Answer<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(&self.key(name), "a boolean", value))
    }

    /// Returns a number from 0 that may be absent.
    pub(crate) fn number(&self, name: &str) -> Answer<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let what = "an integer of at least 0";
        value.as_u64().map(Some).ok_or_else(|| wrong(&self.key(name), what, value))
    }

    /// Returns an object that may be absent.
    pub(crate) fn object(&self, name: &str) -> Answer<Option<Self>> {
        self.get(name).map(|value| Self::new(self.key(name), value)).transpose()
    }

    /// Returns a list that may be absent.
    pub(crate) fn list(&self, name: &str) -> Answer<Option<&'a [Value]>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| wrong(&self.key(name), "a list", value))?;
        if list.len() > ENTRIES_MAX {
            let key = self.key(name);
            return Err(ApiError::invalid(format!("{key}: has more than {ENTRIES_MAX} entries")));
        }
        Ok(Some(list))
    }

    /// Returns the objects of a list; an absent one is empty.
    pub(crate) fn objects(&self, name: &str) -> Answer<Vec<Self>> {
        let list = self.list(name)?.unwrap_or_default();
        let place = self.key(name);
        let object = |(i, value): (usize, &'a Value)| Self::new(format!("{place}[{i}]"), value);
        list.iter().enumerate().map(object).collect()
    }

    /// Returns a list of texts that may be absent.
    pub(crate) fn texts(&self, name: &str) -> Answer<Option<Vec<String>>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let place = self.key(name);
        let text = |(i, value): (usize, &Value)| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(wrong(&format!("{place}[{i}]"), "a string", value)),
        };
        list.iter().enumerate().map(text).collect::<Answer<_>>().map(Some)
    }

    /// Returns a map of texts; an absent one is empty.
    pub(crate) fn map(&self, name: &str) -> Answer<BTreeMap<String, String>> {
        let Some(fields) = self.object(name)? else { return Ok(BTreeMap::new()) };
        let pair = |(key, value): (&String, &Value)| match value.as_str() {
            Some(text) => Ok((key.clone(), text.to_owned())),
            None => Err(wrong(&fields.key(key), "a string", value)),
        };
        fields.map.iter().map(pair).collect()
    }

    /// Returns one of some words, which may be absent.
    pub(crate) fn one_of(
        &self,
        name: &str,
        words: &[&'static str],
    ) -> Answer<Option<&'static str>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|w| **w == text) {
            Some(word) => Ok(Some(word)),
            None => {
                let (key, shown) = (self.key(name), text.chars().take(60).collect::<String>());
                let words = words.join(", ");
                Err(ApiError::invalid(format!("{key}: '{shown}' is none of {words}")))
            }
        }
    }
}

fn wrong(place: &str, wanted: &str, value: &Value) -> ApiError {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let place: String = place.chars().take(200).collect();
    ApiError::invalid(format!("{place}: must be {wanted}, not {kind}"))
}
