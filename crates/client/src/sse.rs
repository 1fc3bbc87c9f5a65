//! Server-sent events (WHATWG HTML, 9.2), as much as the API sends of them: frames with `id` and
//! `data`, comments that keep the connection alive.

/// The longest frame, in bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    /// Its id, when it has one.
    pub(crate) id: Option<u64>,
    /// Its data.
    pub(crate) data: String,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
}

/// A frame or line is longer than any that the server sends.
#[derive(Debug, thiserror::Error)]
#[error("an event is longer than {FRAME_BYTES_MAX} bytes")]
pub(crate) struct TooLong;

impl Parser {
    /// Takes the next bytes; returns the frames that they end.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, TooLong> {
        let mut frames = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.line.len() + self.frame.data.len() + piece.len() > FRAME_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                frames.extend(self.line(&line));
            }
        }
        Ok(frames)
    }

    fn line(&mut self, line: &[u8]) -> Option<Frame> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if line.is_empty() {
            let whole = std::mem::take(&mut self.has_data);
            let frame = std::mem::take(&mut self.frame);
            return whole.then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.frame.id = value.parse().ok(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // Comments have an empty name; what else there is nobody here asks for.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let text =
            ": keep-alive\n\nid: 7\nevent: log\ndata: {\"a\":\r\ndata:1}\n\nid: 8\ndata: x\n\n";
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut frames = parser.push(&text.as_bytes()[..cut]).unwrap_or_default();
            frames.extend(parser.push(&text.as_bytes()[cut..]).unwrap_or_default());
            let wanted = [
                Frame { id: Some(7), data: "{\"a\":\n1}".into() },
                Frame { id: Some(8), data: "x".into() },
            ];
            assert_eq!(frames, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_ended_is_no_frame_and_what_never_ends_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(b"id: 1\ndata: half").is_ok_and(|f| f.is_empty()));
        let much = vec![b'x'; FRAME_BYTES_MAX];
        assert!(parser.push(&much).is_err());
    }
}
