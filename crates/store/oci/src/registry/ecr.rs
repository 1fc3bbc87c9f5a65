//! Amazon ECR: an AWS access key becomes a user name and a password.
//!
//! One call, `GetAuthorizationToken`, signed with Signature Version 4. Sources: the ECR API
//! reference, and "Create a signed AWS API request" in the IAM user guide.

use std::fmt;

use ashlar_core::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use ring::hmac;
use serde::Deserialize;

use super::error::Failure;
use super::http::Access;
use super::{Registry, runtime};
use crate::transfer::Transfer;

/// Largest answer that is read, in bytes; a token has about two thousand.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// The operation, as its header names it.
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
/// The media type of AWS's JSON protocol.
const JSON: &str = "application/x-amz-json-1.1";
/// The service in the scope of signatures.
const SERVICE: &str = "ecr";
/// The request's body: all defaults.
const BODY: &str = "{}";

/// An AWS access key.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsKey {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The token that goes with temporary keys.
    pub session_token: Option<String>,
    /// The region that the registry is in.
    pub region: String,
}

impl fmt::Debug for AwsKey {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsKey({}, {}, hidden)", self.access_key_id, self.region)
    }
}

/// An access key could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum EcrError {
    /// The region has characters that no host name has.
    #[error("'{0}' is no AWS region; write it as 'eu-central-1'")]
    Region(String),
    /// AWS does not take the key.
    #[error("AWS refused the access key{0}")]
    Refused(String),
    /// The service could not be asked.
    #[error("cannot ask Amazon ECR in {region}")]
    Unavailable {
        /// The region.
        region: String,
        /// Why.
        source: Failure,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "authorizationData")]
    data: Vec<Authorization>,
}

#[derive(Deserialize)]
struct Authorization {
    #[serde(rename = "authorizationToken")]
    token: String,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "__type", default)]
    kind: String,
}

impl Registry {
    /// Exchanges an access key for a user name and a password, which live for twelve hours. Blocks.
    ///
    /// # Errors
    /// See [`EcrError`].
    pub fn ecr_login(
        &self,
        key: &AwsKey,
        transfer: &Transfer<'_>,
    ) -> Result<(String, String), EcrError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if key.region.is_empty() || !key.region.bytes().all(plain) {
            return Err(EcrError::Region(key.region.chars().take(100).collect()));
        }
        runtime::run(transfer, self.ask_ecr(key)).map_err(|failure| match failure {
            Failure::Unauthorized(why) => EcrError::Refused(why),
            source => EcrError::Unavailable { region: key.region.clone(), source },
        })
    }

    async fn ask_ecr(&self, key: &AwsKey) -> Result<(String, String), Failure> {
        let url = match &self.settings().ecr_endpoint {
            Some(url) => url.clone(),
            None => Url::parse(&format!("https://api.ecr.{}.{}/", key.region, domain(&key.region)))
                .map_err(|e| Failure::SetUp(e.to_string()))?,
        };
        let time = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
        let time = time.format("%Y%m%dT%H%M%SZ").to_string();
        let headers = headers(key, &authority(&url), &time);
        let signed =
            Request { method: "POST", path: "/", query: "", headers: &headers, body: BODY };
        let authorization = signed.authorization(key, SERVICE, &time);
        let mut request = self.http.client(&url, Access::Read)?.post(url).body(BODY);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, value);
        }
        let response =
            self.http.timed(request.header("authorization", authorization).send()).await?;
        let status = response.status();
        let body = self.http.body(response, ANSWER_BYTES_MAX).await?;
        if status.is_client_error() {
            let kind = serde_json::from_slice::<Refusal>(&body).map(|r| r.kind).unwrap_or_default();
            return Err(Failure::Unauthorized(shown(&kind)));
        }
        if !status.is_success() {
            let status = status.as_u16();
            return Err(Failure::Status { status, message: None, retry_after: None });
        }
        login_of(&body).ok_or_else(|| Failure::Protocol("it gave no token".into()))
    }
}

fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// Returns host and port, as the header has them.
fn authority(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |p| format!(":{p}"));
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// Returns AWS's word for a refusal, cleaned, for the end of a sentence.
fn shown(kind: &str) -> String {
    let word = kind.rsplit('#').next().unwrap_or_default();
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).take(100).collect();
    if word.is_empty() { word } else { format!(" ({word})") }
}

fn login_of(body: &[u8]) -> Option<(String, String)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = STANDARD.decode(&answer.data.first()?.token).ok()?;
    let (user, password) = std::str::from_utf8(&token).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Returns the headers that are signed, sorted by name.
fn headers(key: &AwsKey, host: &str, time: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", JSON.to_owned()),
        ("host", host.to_owned()),
        ("x-amz-date", time.to_owned()),
    ];
    headers.extend(key.session_token.clone().map(|t| ("x-amz-security-token", t)));
    headers.push(("x-amz-target", TARGET.to_owned()));
    headers
}

/// A request in the parts that a signature covers.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    /// Sorted by name.
    headers: &'a [(&'static str, String)],
    body: &'a str,
}

impl Request<'_> {
    /// Returns the `Authorization` header; `time` is in the form `20150830T123600Z`.
    fn authorization(&self, key: &AwsKey, service: &str, time: &str) -> String {
        let (date, region) = (&time[..8], &key.region);
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String =
            self.headers.iter().map(|(n, v)| format!("{n}:{}\n", v.trim())).collect();
        let Self { method, path, query, body, .. } = self;
        let body = Digest::of(body).hex();
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body}");
        let scope = format!("{date}/{region}/{service}/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", Digest::of(canonical).hex());
        let mut derived = format!("AWS4{}", key.secret_access_key).into_bytes();
        for part in [date, region, service, "aws4_request", &text] {
            let signing = hmac::Key::new(hmac::HMAC_SHA256, &derived);
            derived = hmac::sign(&signing, part.as_bytes()).as_ref().to_vec();
        }
        let signature: String = derived.iter().map(|b| format!("{b:02x}")).collect();
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            key.access_key_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the AWS General Reference ("ListUsers" of IAM).
    #[test]
    fn signatures_are_those_of_the_published_example() {
        let key = AwsKey {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
            region: "us-east-1".into(),
        };
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
            ("host", "iam.amazonaws.com".to_owned()),
            ("x-amz-date", "20150830T123600Z".to_owned()),
        ];
        let query = "Action=ListUsers&Version=2010-05-08";
        let request = Request { method: "GET", path: "/", query, headers: &headers, body: "" };
        let authorization = request.authorization(&key, "iam", "20150830T123600Z");
        let want = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert!(authorization.ends_with(&format!("Signature={want}")), "{authorization}");
    }

    #[test]
    fn a_token_holds_user_and_password() {
        let body = |token: &str| {
            let token = STANDARD.encode(token);
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}"}}]}}"#)
        };
        let got = login_of(body("AWS:se:cret").as_bytes());
        assert_eq!(got, Some(("AWS".into(), "se:cret".into())));
        assert_eq!(login_of(body("nothing").as_bytes()), None);
        assert_eq!(login_of(b"{}"), None);
        assert_eq!(
            shown("com.amazonaws.ecr#UnrecognizedClientException"),
            " (UnrecognizedClientException)"
        );
    }
}
