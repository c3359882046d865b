//! Whether two globs can match the same model name.
//!
//! Invariant: the answer errs on one side. Globs that can match one name together are always found; where a glob is too
//! intricate to tell (very many alternatives), they are taken to overlap. So two pipelines never share a model unseen.
//!
//! How: alternatives (`{a,b}`) are written out, each alternative becomes a sequence of single characters, classes and
//! stars, and two sequences are walked side by side, a star standing for any number of the other's characters.

/// Alternatives written out at most; a glob with more is taken for `*`.
const MAX_ALTERNATIVES: usize = 64;

/// One place of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This character.
    Just(char),
    /// Any one character.
    Any,
    /// One of these ranges, or none of them.
    Class { ranges: Vec<(char, char)>, negated: bool },
    /// Any text.
    Star,
}

/// A glob, made ready to be compared with many others.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    alternatives: Vec<Vec<Part>>,
}

impl Shape {
    /// Takes a glob apart.
    pub(super) fn of(glob: &str) -> Self {
        let characters: Vec<char> = glob.chars().collect();
        let alternatives = alternatives(&characters).unwrap_or_else(|| vec![vec![Part::Star]]);
        Self { alternatives }
    }

    /// What every match begins with; the shortest where alternatives differ.
    pub(super) fn prefix(&self) -> String {
        let literal = |parts: &Vec<Part>| -> String {
            parts.iter().map_while(|part| if let Part::Just(c) = part { Some(*c) } else { None }).collect()
        };
        let mut prefixes = self.alternatives.iter().map(literal);
        let first = prefixes.next().unwrap_or_default();
        prefixes.fold(first, |shared, next| {
            shared.chars().zip(next.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
        })
    }

    /// Whether some text matches both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.alternatives.iter().any(|a| other.alternatives.iter().any(|b| meet(a, b)))
    }
}

/// Writes alternatives out; `None` when there are too many.
fn alternatives(glob: &[char]) -> Option<Vec<Vec<Part>>> {
    let mut done: Vec<Vec<Part>> = vec![Vec::new()];
    let mut at = 0;
    while let Some(&c) = glob.get(at) {
        at += 1;
        let part = match c {
            '\\' => {
                let escaped = glob.get(at).copied().unwrap_or('\\');
                at += 1;
                Part::Just(escaped)
            }
            '?' => Part::Any,
            '*' => {
                let stars = glob.iter().skip(at).take_while(|c| **c == '*').count();
                at += stars;
                // `**` may swallow the separators around it; leaving them out only widens what matches.
                if stars > 0 {
                    for parts in &mut done {
                        parts.pop_if(|part| *part == Part::Just('/'));
                    }
                    at += usize::from(glob.get(at) == Some(&'/'));
                }
                Part::Star
            }
            '[' => {
                let (class, after) = class(glob, at);
                at = after;
                class
            }
            '{' => {
                let (options, after) = options(glob, at);
                at = after;
                let mut written: Vec<Vec<Part>> = Vec::new();
                for option in options {
                    for tail in alternatives(option)? {
                        written.extend(done.iter().map(|head| head.iter().chain(&tail).cloned().collect()));
                        if written.len() > MAX_ALTERNATIVES {
                            return None;
                        }
                    }
                }
                done = written;
                continue;
            }
            c => Part::Just(c),
        };
        for parts in &mut done {
            parts.push(part.clone());
        }
    }
    Some(done)
}

/// A class that opens before `at`, and where it ends.
fn class(glob: &[char], mut at: usize) -> (Part, usize) {
    let negated = matches!(glob.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    let first = at;
    while let Some(&from) = glob.get(at) {
        if from == ']' && at > first {
            return (Part::Class { ranges, negated }, at + 1);
        }
        match (glob.get(at + 1), glob.get(at + 2)) {
            (Some('-'), Some(&to)) if to != ']' => {
                ranges.push((from, to));
                at += 3;
            }
            _ => {
                ranges.push((from, from));
                at += 1;
            }
        }
    }
    (Part::Any, at)
}

/// The options of braces that open before `at`, and where they end.
fn options(glob: &[char], at: usize) -> (Vec<&[char]>, usize) {
    let mut options = Vec::new();
    let (mut depth, mut start, mut here) = (0_usize, at, at);
    while let Some(c) = glob.get(here) {
        match c {
            '\\' => here += 1,
            '{' => depth += 1,
            '}' if depth == 0 => {
                options.push(glob.get(start..here).unwrap_or_default());
                return (options, here + 1);
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                options.push(glob.get(start..here).unwrap_or_default());
                start = here + 1;
            }
            _ => {}
        }
        here += 1;
    }
    options.push(glob.get(start..).unwrap_or_default());
    (options, here)
}

/// Whether some text matches both sequences. Takes time in the product of their lengths.
fn meet(a: &[Part], b: &[Part]) -> bool {
    // `row[j]`: the parts of `a` so far and the first `j` parts of `b` can stand for the same text. A star grows from the
    // cell before it (it stands for nothing) and stays on while the other side moves on.
    let mut row = vec![true];
    for part in b {
        let reached = row.last() == Some(&true) && *part == Part::Star;
        row.push(reached);
    }
    for left in a {
        let mut next = Vec::with_capacity(row.len());
        next.push(row.first() == Some(&true) && *left == Part::Star);
        for (right, pair) in b.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            let beside = next.last() == Some(&true);
            next.push(if *left == Part::Star || *right == Part::Star {
                above || beside
            } else {
                diagonal && same_character(left, right)
            });
        }
        row = next;
    }
    row.last() == Some(&true)
}

fn same_character(a: &Part, b: &Part) -> bool {
    match (a, b) {
        (Part::Just(a), Part::Just(b)) => a == b,
        (Part::Just(c), Part::Class { ranges, negated }) | (Part::Class { ranges, negated }, Part::Just(c)) => {
            ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != *negated
        }
        (Part::Class { ranges: a, negated: false }, Part::Class { ranges: b, negated: false }) => {
            a.iter().any(|(from, to)| b.iter().any(|(low, high)| from <= high && low <= to))
        }
        // Two classes of which one says what it is not nearly always share a character.
        _ => true,
    }
}
