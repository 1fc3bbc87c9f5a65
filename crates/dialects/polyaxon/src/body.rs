//! Bodies of requests: JSON objects and forms, read field by field with the original's refusals.

use ashlar_service::Error;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use crate::error::Refusal;
use crate::path::slug;

/// The longest body but for uploads, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest name of a project or build, in characters.
pub(crate) const NAME_MAX: usize = 128;
/// The longest text of a field, in bytes.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Tags that one thing may have.
const TAGS_MAX: usize = 500;
/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 255;

/// The fields of a body.
#[derive(Debug, Default)]
pub(crate) struct Fields(pub(crate) Map<String, Value>);

/// Reads a body: JSON, or a form where the original takes one.
pub(crate) async fn fields(headers: &HeaderMap, body: Body, form: bool) -> Result<Fields, Refusal> {
    let bytes = bytes(body).await?;
    if bytes.is_empty() {
        return Ok(Fields::default());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => json(&bytes),
        "application/x-www-form-urlencoded" if form => Ok(Fields(pairs(&bytes)?)),
        // A curl line without the header sends a form; what is JSON in it is meant as JSON.
        "application/x-www-form-urlencoded" | "" if bytes.starts_with(b"{") => json(&bytes),
        _ => {
            let shown: String = kind.chars().take(100).collect();
            let text = format!("Unsupported media type \"{shown}\" in request.");
            Err(Refusal::Detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

async fn bytes(body: Body) -> Result<axum::body::Bytes, Refusal> {
    axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let too_long = std::error::Error::source(&error)
            .is_some_and(|e| e.to_string().contains("length limit"));
        if too_long {
            let max = BODY_BYTES_MAX as u64;
            return Error::TooLarge { what: "the body".into(), max, unit: "bytes" }.into();
        }
        Refusal::Detail(StatusCode::BAD_REQUEST, "The body did not arrive whole.".into())
    })
}

fn json(bytes: &[u8]) -> Result<Fields, Refusal> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(Fields(map)),
        Ok(other) => {
            let got = python_type(&other);
            Err(Refusal::general(format!("Invalid data. Expected a dictionary, but got {got}.")))
        }
        Err(error) => {
            Err(Refusal::Detail(StatusCode::BAD_REQUEST, format!("JSON parse error - {error}")))
        }
    }
}

fn pairs(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let wrong = |_| Refusal::Detail(StatusCode::BAD_REQUEST, "The form cannot be read.".into());
    let text = std::str::from_utf8(bytes).map_err(wrong)?;
    Ok(crate::list::parameters(text).into_iter().map(|(n, v)| (n, Value::String(v))).collect())
}

const fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

impl Fields {
    /// Returns a field that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Says whether a field is there, be it null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns a text.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        let text = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(Refusal::Field(name, "Not a valid string.".into())),
        };
        if text.len() > TEXT_BYTES_MAX {
            let why = format!("Ensure this field has no more than {TEXT_BYTES_MAX} bytes.");
            return Err(Refusal::Field(name, why));
        }
        Ok(Some(text))
    }

    /// Returns a name.
    pub(crate) fn slug(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if text.chars().count() > NAME_MAX {
            let why = format!("Ensure this field has no more than {NAME_MAX} characters.");
            return Err(Refusal::Field(name, why));
        }
        if !slug(&text, NAME_MAX) {
            let why =
                "Enter a valid 'slug' consisting of letters, numbers, underscores or hyphens.";
            return Err(Refusal::Field(name, why.into()));
        }
        Ok(Some(text))
    }

    /// Returns a yes or no, in any of the forms that the original takes.
    pub(crate) fn flag(&self, name: &'static str) -> Result<Option<bool>, Refusal> {
        let word = match self.get(name) {
            None => return Ok(None),
            Some(Value::Bool(flag)) => return Ok(Some(*flag)),
            Some(Value::String(text)) => text.to_lowercase(),
            Some(other) => other.to_string(),
        };
        match word.as_str() {
            "true" | "1" | "t" | "y" | "yes" | "on" => Ok(Some(true)),
            "false" | "0" | "f" | "n" | "no" | "off" => Ok(Some(false)),
            _ => Err(Refusal::Field(name, "Must be a valid boolean.".into())),
        }
    }

    /// Returns tags, each once, in their order.
    pub(crate) fn tags(&self) -> Result<Option<Vec<String>>, Refusal> {
        let items = match self.get("tags") {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(other) => {
                let got = python_type(other);
                let why = format!("Expected a list of items but got type \"{got}\".");
                return Err(Refusal::Field("tags", why));
            }
        };
        if items.len() > TAGS_MAX {
            return Err(Refusal::Field("tags", format!("There are at most {TAGS_MAX} tags.")));
        }
        let mut tags: Vec<String> = Vec::new();
        for item in items {
            let tag = item.as_str().filter(|t| t.len() <= TAG_BYTES_MAX);
            let tag = tag.ok_or_else(|| Refusal::Field("tags", "Not a valid string.".into()))?;
            if !tags.iter().any(|t| t == tag) {
                tags.push(tag.to_owned());
            }
        }
        Ok(Some(tags))
    }

    /// Returns the tags that a thing has after a patch: with `merge` the new ones come to the old.
    pub(crate) fn patched_tags(
        &self,
        old: Option<&Vec<String>>,
    ) -> Result<Option<Option<Vec<String>>>, Refusal> {
        if !self.has("tags") {
            return Ok(None);
        }
        let Some(new) = self.tags()? else { return Ok(Some(None)) };
        if self.flag("merge")? != Some(true) {
            return Ok(Some(Some(new)));
        }
        let mut merged = old.cloned().unwrap_or_default();
        let fresh: Vec<String> = new.into_iter().filter(|tag| !merged.contains(tag)).collect();
        merged.extend(fresh);
        merged.truncate(TAGS_MAX);
        Ok(Some(Some(merged)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Fields {
        let Value::Object(map) = value else { panic!("{value}") };
        Fields(map)
    }

    #[test]
    fn names_are_slugs_of_at_most_128() {
        assert_eq!(of(json!({"name": "a-B_1"})).slug("name").unwrap().as_deref(), Some("a-B_1"));
        assert_eq!(of(json!({"name": null})).slug("name").unwrap(), None);
        for bad in [json!("a b"), json!(""), json!("ä"), json!("x".repeat(129)), json!(["a"])] {
            assert!(of(json!({ "name": bad })).slug("name").is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_lists_and_may_be_merged() {
        let fields = of(json!({"tags": ["a", "b", "a"]}));
        assert_eq!(fields.tags().unwrap().unwrap(), ["a", "b"]);
        let Err(Refusal::Field("tags", why)) = of(json!({"tags": "a"})).tags() else { panic!() };
        assert_eq!(why, "Expected a list of items but got type \"str\".");
        assert!(of(json!({"tags": [1]})).tags().is_err());
        let old = vec!["x".to_owned(), "a".to_owned()];
        let merged = of(json!({"tags": ["a", "b"], "merge": true})).patched_tags(Some(&old));
        assert_eq!(merged.unwrap().unwrap().unwrap(), ["x", "a", "b"]);
        assert_eq!(of(json!({"tags": null})).patched_tags(Some(&old)).unwrap(), Some(None));
        assert_eq!(of(json!({})).patched_tags(Some(&old)).unwrap(), None);
    }

    #[test]
    fn flags_have_many_forms() {
        for (value, want) in [(json!(true), true), (json!("False"), false), (json!(1), true)] {
            assert_eq!(of(json!({ "f": value })).flag("f").unwrap(), Some(want));
        }
        assert!(of(json!({"f": "maybe"})).flag("f").is_err());
    }
}
