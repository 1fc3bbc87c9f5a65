//! Records of PAX extended headers: `LENGTH KEY=VALUE\n` (POSIX.1-2017 pax, "pax Header Block").

/// Appends one record; its length counts its own digits.
pub(crate) fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while len != body + digits(len) {
        len = body + digits(len);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// A key and its value, which may hold any byte.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits a header's data into records.
pub(crate) fn records(mut data: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|&b| b == b' ');
        let space = space.ok_or("a PAX record has no length")?;
        let len = decimal(&data[..space]).ok_or("the length of a PAX record is no number")?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let record = data.get(space + 1..len).ok_or("a PAX record is longer than its header")?;
        let record = record.strip_suffix(b"\n").ok_or("a PAX record has no end")?;
        let equals = record.iter().position(|&b| b == b'=').ok_or("a PAX record has no value")?;
        records.push((&record[..equals], &record[equals + 1..]));
        data = &data[len..];
    }
    Ok(records)
}

/// Reads an unsigned decimal number.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads whole seconds of a time such as `-1.5`, rounded down.
pub(crate) fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&b| b == b'.').unwrap_or(text.len());
    let whole = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let has_fraction = fraction.iter().any(|&b| b != b'0');
    Some(if negative { -whole - i64::from(has_fraction) } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for len in [0, 1, 80, 85, 86, 87, 88, 89, 90, 980, 985, 990, 995, 5000] {
            let value = vec![b'\n'; len];
            let mut out = Vec::new();
            put_record(&mut out, b"path", &value);
            put_record(&mut out, b"k", b"");
            let want: [(&[u8], &[u8]); 2] = [(b"path", &value), (b"k", b"")];
            assert_eq!(records(&out).unwrap(), want);
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in ["x", "5 a=b", "0 a=b\n", "3 a=b\n", "6 a-b\n", "99999999999999999999 a=b\n"] {
            assert!(records(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_round_down() {
        assert_eq!(seconds(b"12.9"), Some(12));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"-1.0"), Some(-1));
        assert_eq!(seconds(b"1.x"), None);
    }
}
