//! Values of secrets, and credentials, as requests bring them.

use std::collections::BTreeMap;

use ashlar_service::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::Problem;

/// A value: text, or bytes that are none.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum SecretValue {
    /// Text.
    Text(String),
    /// Anything, in base64.
    Bytes {
        /// The bytes.
        base64: String,
    },
}

impl std::fmt::Debug for SecretValue {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(hidden)")
    }
}

/// Reads values by id.
pub(super) fn values(
    secrets: BTreeMap<String, SecretValue>,
) -> Result<Vec<(String, Secret)>, Problem> {
    let read = |(id, value): (String, SecretValue)| {
        let bytes = match value {
            SecretValue::Text(text) => text.into_bytes(),
            SecretValue::Bytes { base64 } => STANDARD
                .decode(base64.trim())
                .map_err(|_| Problem::invalid("secrets", format!("'{id}' is not base64")))?,
        };
        Ok((id, Secret::new(bytes)))
    };
    secrets.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use ashlar_service::RegistryCredential;

    use super::*;

    #[test]
    fn values_are_text_or_base64() {
        let read = |json: &str| values(serde_json::from_str(json).unwrap());
        let made = read(r#"{"a":"text","b":{"base64":"/w=="}}"#).unwrap();
        assert_eq!(made[0].1.expose(), b"text");
        assert_eq!(made[1].1.expose(), [0xff]);
        assert!(read(r#"{"b":{"base64":"%"}}"#).is_err());
    }

    #[test]
    fn what_is_beside_a_value_or_in_a_credential_is_known() {
        let value = r#"{"base64":"/w==","encoding":"x"}"#;
        assert!(serde_json::from_str::<SecretValue>(value).is_err());
        let basic = r#"{"kind":"basic","username":"u","password":"p","mail":"m"}"#;
        let error = serde_json::from_str::<RegistryCredential>(basic).unwrap_err().to_string();
        assert!(error.contains("unknown field `mail`"), "{error}");
        let ecr = r#"{"kind":"aws_ecr","access_key_id":"a","secret_access_key":"b","region":"c"}"#;
        let read: RegistryCredential = serde_json::from_str(ecr).unwrap();
        let stored = serde_json::to_value(read).unwrap();
        assert_eq!((&stored["region"], &stored["session_token"]), (&"c".into(), &().into()));
    }
}
