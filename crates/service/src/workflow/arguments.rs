//! Arguments of a run in the texts of its nodes: `${args.NAME}`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Error;

pub(super) const OPEN: &str = "${args.";

/// Puts the values of arguments into all texts of a JSON value. Anything else in `${}` is left as
/// it is: it belongs to a shell or a Dockerfile.
pub(super) fn fill(
    value: &mut Value,
    arguments: &BTreeMap<String, String>,
    field: &str,
) -> Result<(), Error> {
    match value {
        Value::String(text) if text.contains(OPEN) => {
            *text = filled(text, arguments, field)?;
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|v| fill(v, arguments, field)),
        Value::Object(items) => items.values_mut().try_for_each(|v| fill(v, arguments, field)),
        _ => Ok(()),
    }
}

fn filled(text: &str, arguments: &BTreeMap<String, String>, field: &str) -> Result<String, Error> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(OPEN) {
        out.push_str(before);
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| Error::invalid(field, "'${args.' is not closed by '}'"))?;
        let value = arguments.get(name).ok_or_else(|| {
            let name: String = name.chars().take(60).collect();
            Error::invalid(field, format!("there is no argument '{name}'"))
        })?;
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_put_in_and_all_else_is_left() {
        let arguments = BTreeMap::from([("tag".to_owned(), "${args.tag}1".to_owned())]);
        let mut value = json!({"a": ["x ${args.tag} ${HOME} ${args.tag}", 1], "b": "$args.tag"});
        fill(&mut value, &arguments, "f").unwrap();
        let want = json!({"a": ["x ${args.tag}1 ${HOME} ${args.tag}1", 1], "b": "$args.tag"});
        assert_eq!(value, want);
        for bad in ["${args.no}", "${args.tag"] {
            assert!(fill(&mut json!(bad), &arguments, "f").is_err(), "{bad}");
        }
    }
}
