//! Rows of a log, as a damaged database or blob store may give them back.

/// Any bytes as a row's body, as a frame of a segment and as a pointer to one.
pub fn log(data: &[u8]) {
    // What comes out has as many entries as the row claims, or is refused.
    for (entries, claimed) in ashlar_records::read_any_row(data) {
        assert_eq!(entries, claimed);
    }
}
