//! The nearest known name, for messages that say "did you mean".

/// Edits from which on two names count as different things.
const DISTANCE_TOO_FAR: usize = 3;
/// Longer names are not compared.
const NAME_CHARS_MAX: usize = 100;

/// Returns the option nearest to `name`, ignoring case; nothing when none is near or one is equal.
pub(crate) fn nearest<'a>(
    name: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted: Vec<char> = name.to_lowercase().chars().take(NAME_CHARS_MAX).collect();
    let mut best = (DISTANCE_TOO_FAR, None);
    for option in options {
        let candidate: Vec<char> = option.to_lowercase().chars().take(NAME_CHARS_MAX).collect();
        if candidate == wanted {
            return None;
        }
        let far = distance(&wanted, &candidate);
        // Half of a word is more than a slip of the pen.
        if far < best.0 && far * 2 < wanted.len().max(candidate.len()) {
            best = (far, Some(option));
        }
    }
    best.1
}

/// Returns `did you mean X?` when something is near.
pub(crate) fn hint<'a>(name: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, options).map(|near| format!("did you mean {near}?"))
}

/// Edits from one to the other: letters added, left out, replaced, or two neighbours swapped.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_only() {
        let all = ["RUN", "COPY", "ENTRYPOINT"];
        assert_eq!(nearest("RUNN", all), Some("RUN"));
        assert_eq!(nearest("copi", all), Some("COPY"));
        assert_eq!(nearest("ENTRYPIONT", all), Some("ENTRYPOINT"));
        assert_eq!(nearest("RNU", ["ENV", "RUN"]), Some("RUN"));
        assert_eq!(nearest("HELLO", all), None);
        assert_eq!(nearest("NOPE", all), None);
        assert_eq!(nearest("RUN", all), None);
    }
}
