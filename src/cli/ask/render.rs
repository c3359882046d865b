//! An answer on its way to a terminal: headings, lists, emphasis and code drawn as they come.
//!
//! Invariant: text is held back only while a marker is undecided, a few characters at most. To a terminal no control
//! character of the answer gets through; to a file the answer goes as it came.

use std::io::{self, Write};

const BOLD: &str = "\u{1b}[1m";
const CODE: &str = "\u{1b}[36m";
const DIM: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";
/// Blanks before a marker; more make a line of code.
const DEEPEST: usize = 12;

/// Draws an answer.
#[derive(Debug, Default)]
pub(super) struct Render {
    terminal: bool,
    markdown: bool,
    /// What begins the line, while it may be a marker.
    held: String,
    in_line: bool,
    /// A star that may be half of a marker.
    star: bool,
    bold: bool,
    code: bool,
    fence: bool,
    styled: bool,
}

/// What the beginning of a line is.
enum Opening {
    Undecided,
    Heading,
    Bullet(usize),
    Quote,
    Fence,
    Plain,
}

impl Render {
    pub(super) fn new(terminal: bool, markdown: bool) -> Self {
        Self { terminal, markdown, ..Self::default() }
    }

    /// Draws more of the answer.
    pub(super) fn text(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        if !self.terminal && !self.markdown {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c == '\r' || c.is_control() && !matches!(c, '\n' | '\t') {
                continue;
            }
            if self.markdown { self.draw(c, out)? } else { write!(out, "{c}")? }
        }
        Ok(())
    }

    /// Draws what is held back, and leaves the terminal as it was.
    pub(super) fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.end_line(out)
    }

    fn draw(&mut self, c: char, out: &mut dyn Write) -> io::Result<()> {
        if c == '\n' {
            self.end_line(out)?;
            return writeln!(out);
        }
        if self.in_line {
            return self.inline(c, out);
        }
        self.held.push(c);
        let opening = self.opening();
        if matches!(opening, Opening::Undecided) {
            return Ok(());
        }
        self.in_line = true;
        let held = std::mem::take(&mut self.held);
        match opening {
            Opening::Heading => self.style(BOLD, out),
            Opening::Bullet(indent) => write!(out, "{:indent$}• ", ""),
            Opening::Quote => write!(out, "{DIM}│{RESET} "),
            Opening::Fence => {
                self.fence = !self.fence;
                self.style(DIM, out)?;
                write!(out, "{held}")
            }
            Opening::Plain | Opening::Undecided => held.chars().try_for_each(|c| self.inline(c, out)),
        }
    }

    fn opening(&self) -> Opening {
        let text = self.held.trim_start_matches(' ');
        let indent = self.held.len() - text.len();
        if indent > DEEPEST {
            return Opening::Plain;
        }
        if matches!(text, "" | "`" | "``") {
            return Opening::Undecided;
        }
        if text.starts_with("```") {
            return Opening::Fence;
        }
        if self.fence {
            return Opening::Plain;
        }
        let hashes = text.bytes().take_while(|b| *b == b'#').count();
        match text {
            "-" | "*" | "+" | ">" => Opening::Undecided,
            "- " | "* " | "+ " => Opening::Bullet(indent),
            "> " => Opening::Quote,
            _ if hashes == text.len() && hashes <= 6 => Opening::Undecided,
            _ if (1..=6).contains(&hashes) && text.get(hashes..) == Some(" ") => Opening::Heading,
            _ => Opening::Plain,
        }
    }

    fn inline(&mut self, c: char, out: &mut dyn Write) -> io::Result<()> {
        if self.fence {
            return write!(out, "{c}");
        }
        match c {
            '*' if !self.code => {
                if !self.star {
                    self.star = true;
                    return Ok(());
                }
                self.star = false;
                self.bold = !self.bold;
                self.restyle(out)
            }
            '`' => {
                self.write_star(out)?;
                self.code = !self.code;
                self.restyle(out)
            }
            c => {
                self.write_star(out)?;
                write!(out, "{c}")
            }
        }
    }

    fn write_star(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::take(&mut self.star) { write!(out, "*") } else { Ok(()) }
    }

    fn style(&mut self, style: &str, out: &mut dyn Write) -> io::Result<()> {
        self.styled = true;
        write!(out, "{style}")
    }

    fn restyle(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.style(RESET, out)?;
        if self.bold {
            self.style(BOLD, out)?;
        }
        if self.code {
            self.style(CODE, out)?;
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        held.chars().try_for_each(|c| self.inline(c, out))?;
        self.write_star(out)?;
        if std::mem::take(&mut self.styled) {
            write!(out, "{RESET}")?;
        }
        (self.in_line, self.bold, self.code) = (false, false, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drawn(text: &str, pieces: usize, markdown: bool) -> String {
        let mut render = Render::new(true, markdown);
        let mut out = Vec::new();
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(pieces.max(1)) {
            render.text(&piece.iter().collect::<String>(), &mut out).unwrap();
        }
        render.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn markers_are_drawn() {
        for (text, expected) in [
            ("# Title\nplain", "\u{1b}[1mTitle\u{1b}[0m\nplain"),
            ("- one\n  * two", "• one\n  • two"),
            ("a **bold** word", "a \u{1b}[0m\u{1b}[1mbold\u{1b}[0m word\u{1b}[0m"),
            ("2 * 3 = 6", "2 * 3 = 6"),
            ("`x**y`", "\u{1b}[0m\u{1b}[36mx**y\u{1b}[0m\u{1b}[0m"),
            ("```rust\n# no heading\n```\n- x", "\u{1b}[2m```rust\u{1b}[0m\n# no heading\n\u{1b}[2m```\u{1b}[0m\n• x"),
            ("> said", "\u{1b}[2m│\u{1b}[0m said"),
            ("#hash and -5", "#hash and -5"),
            ("evil\u{1b}[2J\u{7}", "evil[2J"),
        ] {
            for pieces in [1, 2, 1_000] {
                assert_eq!(drawn(text, pieces, true), expected, "{text:?}");
            }
        }
        assert_eq!(drawn("# a\r\n\u{1b}b", 3, false), "# a\nb");
    }

    #[test]
    fn to_a_file_it_goes_as_it_came() {
        let mut out = Vec::new();
        Render::new(false, false).text("# a\r\n\u{1b}b", &mut out).unwrap();
        assert_eq!(out, "# a\r\n\u{1b}b".as_bytes());
    }

    proptest! {
        /// How the answer is cut into pieces changes nothing, and words are never lost.
        #[test]
        fn pieces_do_not_matter(text in "([a-z#*`>\\- \n]{0,12}){0,12}", pieces in 1_usize..7) {
            let whole = drawn(&text, 10_000, true);
            prop_assert_eq!(&drawn(&text, pieces, true), &whole);
            let letters = |text: &str| text.replace(RESET, "").replace(BOLD, "").replace(CODE, "").replace(DIM, "")
                .chars().filter(char::is_ascii_lowercase).collect::<String>();
            prop_assert_eq!(letters(&whole), letters(&text));
        }
    }
}
