//! The lines of a file or of standard input, one at a time.
//!
//! Invariant: memory is bounded by one line, whatever the input; a line that is too long is skipped and reported.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line that is read: far above what any model takes.
pub const MAX_LINE: usize = 32 << 20;

/// A line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the input, from 1.
    pub number: u64,
    /// Its text without the line break; `None` when it is longer than [`MAX_LINE`].
    pub text: Option<Vec<u8>>,
}

/// A line above the limit; its text was skipped.
struct TooLong;

/// Reads lines.
pub struct Lines<R> {
    input: R,
    number: u64,
    consumed: u64,
    limit: usize,
    partial: Partial,
}

/// The part of a line that has come so far.
#[derive(Default)]
struct Partial {
    text: Vec<u8>,
    too_long: bool,
    begun: bool,
}

impl Partial {
    fn add(&mut self, part: &[u8], limit: usize) {
        self.begun = true;
        if self.text.len() + part.len() > limit {
            self.too_long = true;
            self.text = Vec::new();
        }
        if !self.too_long {
            self.text.extend_from_slice(part);
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, TooLong> {
        let Self { text, too_long, .. } = std::mem::take(self);
        if too_long { Err(TooLong) } else { Ok(text) }
    }
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// The lines of `input`, each at most `limit` bytes long.
    pub fn new(input: R, limit: usize) -> Self {
        Self { input, number: 0, consumed: 0, limit, partial: Partial::default() }
    }

    /// Bytes read so far.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next line that is not blank. Nothing is lost when the wait for it is given up.
    ///
    /// # Errors
    /// Those of the input.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(read) = self.read_line().await? else { return Ok(None) };
            let mut text = read.ok();
            self.number += 1;
            if let Some(text) = &mut text {
                if self.number == 1 && text.starts_with(b"\xef\xbb\xbf") {
                    text.drain(..3);
                }
                if text.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
            }
            return Ok(Some(Line { number: self.number, text }));
        }
    }

    async fn read_line(&mut self) -> io::Result<Option<Result<Vec<u8>, TooLong>>> {
        loop {
            let buffer = self.input.fill_buf().await?;
            if buffer.is_empty() {
                return Ok(self.partial.begun.then(|| self.partial.finish()));
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            self.partial.add(part, self.limit);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.consumed += used as u64;
            if end.is_some() {
                return Ok(Some(self.partial.finish()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<(u64, Option<String>)> {
        // A tiny buffer: lines span several reads.
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(3, input), 8);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push((line.number, line.text.map(|text| String::from_utf8(text).unwrap())));
        }
        assert_eq!(lines.consumed(), input.len() as u64);
        found
    }

    #[tokio::test]
    async fn lines_are_numbered_and_bounded() {
        let text = |number, text: &str| (number, Some(text.to_owned()));
        assert_eq!(lines(b"").await, []);
        assert_eq!(lines(b"\n \n\n").await, []);
        assert_eq!(lines(b"one\n\ntwo\r\nthree").await, [text(1, "one"), text(3, "two\r"), text(4, "three")]);
        assert_eq!(lines(b"\xef\xbb\xbfone\n12345678\n").await, [text(1, "one"), text(2, "12345678")]);
        assert_eq!(lines(b"123456789\nnext\n0123456789ab").await, [(1, None), text(2, "next"), (3, None)]);
    }
}
