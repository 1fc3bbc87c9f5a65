//! Quoting for a POSIX shell.

use std::borrow::Cow;

/// Quotes a text so that a POSIX shell reads it as one word and takes it literally. Plain words
/// stay as they are, so that commands remain readable.
///
/// ```
/// use ashlar_frontend_declarative::shell_quote;
/// assert_eq!(shell_quote("requests==2.0"), "requests==2.0");
/// assert_eq!(shell_quote("it's $HOME"), r"'it'\''s $HOME'");
/// ```
pub fn shell_quote(text: &str) -> Cow<'_, str> {
    // '=' before a command's name would be an assignment, but no word here stands first.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"@%_+=:,./-".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Joins texts as the words of a command.
pub(crate) fn words<T: AsRef<str>>(texts: &[T]) -> String {
    texts.iter().map(|t| shell_quote(t.as_ref())).collect::<Vec<_>>().join(" ")
}

/// Joins operands of a program; when one could be taken for an option, `--` ends the options.
pub(crate) fn operands(texts: &[&str]) -> String {
    let guard = if texts.iter().any(|t| t.starts_with('-')) { "-- " } else { "" };
    format!("{guard}{}", words(texts))
}
