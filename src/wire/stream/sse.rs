//! Server-sent events: bytes, cut anywhere, to the data of each event.
//!
//! Invariant: what comes out does not depend on how the bytes were cut; no line and no event grows beyond
//! [`MAX_EVENT`]. Line ends may be LF, CRLF or CR; comments, ids and retry times are passed over.

/// Longest event that is read, in bytes: a whole long answer in one piece fits.
pub const MAX_EVENT: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name; empty when it has none.
    pub event: String,
    /// Its data, lines joined by LF.
    pub data: Vec<u8>,
}

/// An event is longer than [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlong;

/// Reads events from bytes.
#[derive(Debug, Clone, Default)]
pub struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    event: String,
    has_data: bool,
    /// The last byte was a CR: an LF after it ends no further line.
    after_cr: bool,
    /// A line has been read: a byte order mark can no longer come.
    begun: bool,
}

impl Events {
    /// Takes more bytes; whole events go to `out`.
    ///
    /// # Errors
    /// [`Overlong`]; nothing more can be read then.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Message>) -> Result<(), Overlong> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + self.data.len() + piece.len() > MAX_EVENT {
                return Err(Overlong);
            }
            self.line.extend_from_slice(piece);
            if let Some(mark) = after.first() {
                self.after_cr = *mark == b'\r';
                self.end_line(out);
            }
            rest = after.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    /// The bytes are over. An event without the blank line after it counts: many servers leave the last one so.
    pub fn finish(&mut self, out: &mut Vec<Message>) {
        if !self.line.is_empty() {
            self.end_line(out);
        }
        self.dispatch(out);
    }

    /// How much is held, in bytes.
    pub fn held(&self) -> usize {
        self.line.len() + self.data.len() + self.event.len()
    }

    fn end_line(&mut self, out: &mut Vec<Message>) {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let whole = std::mem::take(&mut self.line);
        let line = whole.as_slice();
        let line = if self.begun { line } else { line.strip_prefix(MARK).unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            self.dispatch(out);
        } else {
            let (name, value) = match line.iter().position(|byte| *byte == b':') {
                Some(place) => line.split_at(place),
                None => (line, &[][..]),
            };
            let value = value.strip_prefix(b":").unwrap_or(value);
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match name {
                b"data" => {
                    if self.has_data {
                        self.data.push(b'\n');
                    }
                    self.has_data = true;
                    self.data.extend_from_slice(value);
                }
                b"event" => self.event = String::from_utf8_lossy(value.get(..100).unwrap_or(value)).into_owned(),
                _ => {}
            }
        }
        // The line's memory serves the next one.
        self.line = whole;
        self.line.clear();
    }

    fn dispatch(&mut self, out: &mut Vec<Message>) {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) {
            out.push(Message { event, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let (mut events, mut out) = (Events::default(), Vec::new());
        for piece in pieces {
            events.push(piece, &mut out).unwrap();
        }
        events.finish(&mut out);
        out.into_iter().map(|message| (message.event, String::from_utf8_lossy(&message.data).into_owned())).collect()
    }

    #[test]
    fn events_are_read_in_every_dialect() {
        let plain = |data: &[&str]| data.iter().map(|data| (String::new(), (*data).to_owned())).collect::<Vec<_>>();
        for (text, expected) in [
            ("data: a\n\ndata: b\n\n", plain(&["a", "b"])),
            ("data: a\r\n\r\ndata: b\r\n\r\n", plain(&["a", "b"])),
            ("data: a\r\rdata: b\r\r", plain(&["a", "b"])),
            ("data:a\n\ndata:  b\n\n", plain(&["a", " b"])),
            ("data: a\ndata: b\n\n", plain(&["a\nb"])),
            ("data\n\n", plain(&[""])),
            (": ping\n\n\n\ndata: a\n\n", plain(&["a"])),
            ("id: 7\nretry: 10\nother: x\ndata: a\n\n", plain(&["a"])),
            ("\u{feff}data: a\n\n", plain(&["a"])),
            ("data: a\n\n\u{feff}data: b\n\n", plain(&["a"])),
            ("data: a", plain(&["a"])),
            ("data: a\n", plain(&["a"])),
            ("event: error\n\n", plain(&[])),
            ("event: error\ndata: x\n\ndata: y\n\n", vec![("error".into(), "x".into()), (String::new(), "y".into())]),
            ("", plain(&[])),
        ] {
            assert_eq!(read(&[text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn no_event_grows_without_end() {
        let (mut events, mut out) = (Events::default(), Vec::new());
        let piece = vec![b'x'; 1024 * 1024];
        let grown = (0..9).try_for_each(|_| events.push(&piece, &mut out));
        assert_eq!(grown, Err(Overlong));
        assert!(events.held() <= MAX_EVENT);
        let (mut events, mut out) = (Events::default(), Vec::new());
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        let grown = (0..9).try_for_each(|_| events.push(&line, &mut out));
        assert_eq!(grown, Err(Overlong));
        assert!(events.held() <= MAX_EVENT + 16);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "((data|event|id|: ?x)?:? ?[a-zü]{0,3}(\r\n|\n|\r|\n\n|\r\n\r\n)){0,12}",
                              noise: Vec<u8>, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            for bytes in [text.as_bytes(), &noise] {
                let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
                places.extend([0, bytes.len()]);
                places.sort_unstable();
                let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
                prop_assert_eq!(read(&pieces), read(&[bytes]));
                let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
                prop_assert_eq!(read(&bytewise), read(&[bytes]));
            }
        }
    }
}
