//! Arguments of a run in the texts of its nodes: `${args.NAME}`.

use std::collections::BTreeMap;

use ashlar_records::DEFINITION_BYTES_MAX;
use serde_json::Value;

use crate::Error;

pub(super) const OPEN: &str = "${args.";

/// Puts the values of arguments into all texts of a JSON value. Anything else in `${}` is left as
/// it is: it belongs to a shell or a Dockerfile.
///
/// `room` is how many bytes the run's texts may still come to, and shrinks by what is put together:
/// a short text may name a long value very often.
pub(super) fn fill(
    value: &mut Value,
    arguments: &BTreeMap<String, String>,
    field: &str,
    room: &mut usize,
) -> Result<(), Error> {
    match value {
        Value::String(text) if text.contains(OPEN) => {
            *text = filled(text, arguments, field, room)?;
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|v| fill(v, arguments, field, room)),
        Value::Object(items) => {
            items.values_mut().try_for_each(|v| fill(v, arguments, field, room))
        }
        _ => Ok(()),
    }
}

fn filled(
    text: &str,
    arguments: &BTreeMap<String, String>,
    field: &str,
    room: &mut usize,
) -> Result<String, Error> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(OPEN) {
        push(&mut out, before, room)?;
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| Error::invalid(field, "'${args.' is not closed by '}'"))?;
        let value = arguments.get(name).ok_or_else(|| {
            let name: String = name.chars().take(60).collect();
            Error::invalid(field, format!("there is no argument '{name}'"))
        })?;
        push(&mut out, value, room)?;
        rest = after;
    }
    push(&mut out, rest, room)?;
    Ok(out)
}

fn push(out: &mut String, text: &str, room: &mut usize) -> Result<(), Error> {
    *room = room.checked_sub(text.len()).ok_or_else(|| Error::TooLarge {
        what: "the run with its arguments".into(),
        max: DEFINITION_BYTES_MAX as u64,
        unit: "bytes",
    })?;
    out.push_str(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_put_in_and_all_else_is_left() {
        let arguments = BTreeMap::from([("tag".to_owned(), "${args.tag}1".to_owned())]);
        let mut value = json!({"a": ["x ${args.tag} ${HOME} ${args.tag}", 1], "b": "$args.tag"});
        let mut room = 1000;
        fill(&mut value, &arguments, "f", &mut room).unwrap();
        let want = json!({"a": ["x ${args.tag}1 ${HOME} ${args.tag}1", 1], "b": "$args.tag"});
        assert_eq!(value, want);
        assert_eq!(room, 1000 - want["a"][0].as_str().unwrap().len());
        for bad in ["${args.no}", "${args.tag"] {
            assert!(fill(&mut json!(bad), &arguments, "f", &mut room).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_grow_to_a_bound_and_not_beyond() {
        let arguments = BTreeMap::from([("a".to_owned(), "x".repeat(1 << 20))]);
        // A few hundred kilobytes that would be tens of gigabytes; the bound is the whole run's.
        let mut value = json!(["${args.a}".repeat(10), "${args.a}".repeat(30_000)]);
        let mut room = DEFINITION_BYTES_MAX;
        let error = fill(&mut value, &arguments, "f", &mut room).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert_eq!(value[0].as_str().unwrap().len(), 10 << 20);
        assert!(room < 1 << 20, "{room}");
    }
}
