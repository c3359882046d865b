//! The house's floors hold: no room imports from a floor above, rooms of one floor make no circle, every file opens with
//! what it is for, and no file outgrows a sitting.
//!
//! The table below is the one of `src/lib.rs`; the two are compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Rooms by floor.
const FLOORS: &[(u8, &[&str])] = &[
    (7, &["cli", "daemon"]),
    (6, &["http", "simulate"]),
    (5, &["engine"]),
    (4, &["provider", "store", "watch", "settings", "metrics"]),
    (3, &["snapshot", "wire"]),
    (2, &["routing", "rollout", "quota", "job"]),
    (1, &["spec", "catalog", "access"]),
    (0, &["names", "ids", "money", "clock", "usage", "diagnostic", "yaml"]),
];

/// Most lines of a file.
const LONGEST_FILE: usize = 500;

fn floor_of(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The room of a file below `src`, and how many modules deep the file is: `spec/flags.rs` is in `spec`, two deep.
fn place(relative: &Path) -> (String, usize) {
    let mut parts: Vec<String> =
        relative.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    (parts[0].clone(), parts.len())
}

/// Words and signs of a Rust text, each with its line; comments, strings and characters left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut index, mut line) = (0, 1);
    while index < chars.len() {
        let start = index;
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < chars.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => (depth, index) = (depth + 1, index + 2),
                        ('*', '/') => (depth, index) = (depth - 1, index + 2),
                        _ => index += 1,
                    }
                    if depth == 0 || index >= chars.len() {
                        break;
                    }
                }
            }
            'r' | 'b' | 'c' if raw_string(&chars, index).is_some() => {
                index = raw_string(&chars, index).unwrap();
            }
            '"' => {
                index += 1;
                while index < chars.len() && at(index) != '"' {
                    index += if at(index) == '\\' { 2 } else { 1 };
                }
                index += 1;
            }
            '\'' if at(index + 1) == '\\' => {
                index += 3;
                while index < chars.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            '\'' if at(index + 2) == '\'' => index += 3,
            c if c.is_alphanumeric() || c == '_' => {
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
                tokens.push((line, chars[start..index].iter().collect()));
            }
            c => {
                index += 1;
                if !c.is_whitespace() {
                    tokens.push((line, c.to_string()));
                }
            }
        }
        line += chars[start..index.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The end of a raw string that starts at `index`, if one does.
fn raw_string(chars: &[char], index: usize) -> Option<usize> {
    let rest: String = chars[index..].iter().take(4).collect();
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| rest.starts_with(prefix))?;
    if index > 0 && (chars[index - 1].is_alphanumeric() || chars[index - 1] == '_') {
        return None;
    }
    let mut at = index + prefix.len();
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < chars.len() {
        let closes = chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// Takes out everything under `#[cfg(test)]`; the modules that such an attribute declares in files of their own are
/// returned by name.
fn without_tests(tokens: Vec<(usize, String)>) -> (Vec<(usize, String)>, Vec<String>) {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut declared) = (Vec::new(), Vec::new());
    let mut index = 0;
    while index < tokens.len() {
        let here = tokens[index..].iter().take(attribute.len()).map(|(_, token)| token.as_str());
        if !here.eq(attribute) {
            kept.push(tokens[index].clone());
            index += 1;
            continue;
        }
        index += attribute.len();
        let start = index;
        let mut depth = 0_usize;
        while let Some((_, token)) = tokens.get(index) {
            index += 1;
            match token.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && token == "}" {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                // A field or an arm of an enclosing list.
                "," if depth == 0 => break,
                _ => {}
            }
        }
        let item: Vec<&str> = tokens[start..index].iter().map(|(_, token)| token.as_str()).collect();
        if let [.., "mod", name, ";"] = item[..] {
            declared.push(name.to_owned());
        }
    }
    (kept, declared)
}

/// The rooms that a file names, with the line where it does. `depth` is how many modules deep the file is.
fn imports(tokens: &[(usize, String)], depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let token = |index: usize| tokens.get(index).map_or("", |(_, token)| token.as_str());
    let is_path = |index: usize| token(index) == ":" && token(index + 1) == ":";
    let mut modules_open = Vec::new();
    let mut braces = 0_usize;
    let mut index = 0;
    while index < tokens.len() {
        match token(index) {
            "mod" if token(index + 2) == "{" => modules_open.push(braces),
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                if modules_open.last() == Some(&braces) {
                    modules_open.pop();
                }
            }
            "crate" if is_path(index + 1) => found.extend(first_names(tokens, index + 3)),
            "super" if token(index.wrapping_sub(1)) != ":" => {
                let mut up = 1;
                let mut next = index + 1;
                while is_path(next) && token(next + 2) == "super" {
                    (up, next) = (up + 1, next + 3);
                }
                // As many steps up as modules down: the crate's root.
                if up == depth + modules_open.len() && is_path(next) {
                    found.extend(first_names(tokens, next + 2));
                }
                index = next;
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// The first name of a path at `index`, or those of every path in a `{…}` there.
fn first_names(tokens: &[(usize, String)], index: usize) -> Vec<(usize, String)> {
    let Some((_, first)) = tokens.get(index) else { return Vec::new() };
    if first != "{" {
        return vec![tokens[index].clone()];
    }
    let (mut names, mut depth, mut expected) = (Vec::new(), 0, true);
    for found in &tokens[index..] {
        match found.1.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," if depth == 1 => expected = true,
            _ if depth == 1 && expected => {
                names.push(found.clone());
                expected = false;
            }
            _ => {}
        }
    }
    names
}

/// Every import between rooms outside of tests: (file, line, from, to).
fn all_imports() -> Vec<(String, usize, String, String)> {
    let src = src();
    let files = rust_files(&src);
    let mut test_files = BTreeSet::new();
    let mut read = Vec::new();
    for path in &files {
        let (kept, declared) = without_tests(tokens(&fs::read_to_string(path).unwrap()));
        let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => path.parent().unwrap().to_owned(),
            _ => path.with_extension(""),
        };
        test_files.extend(declared.into_iter().map(|name| folder.join(name)));
        read.push((path, kept));
    }
    let mut found = Vec::new();
    for (path, tokens) in read {
        let relative = path.strip_prefix(&src).unwrap();
        let is_test = path.ancestors().any(|above| test_files.contains(&above.with_extension("")));
        let (room, depth) = place(relative);
        if is_test || room == "lib" || room == "main" {
            continue;
        }
        for (line, name) in imports(&tokens, depth) {
            if floor_of(&name).is_some() && name != room {
                found.push((relative.display().to_string(), line, room.clone(), name));
            }
        }
    }
    found
}

#[test]
fn imports_go_only_downwards() {
    let mut faults = String::new();
    for (file, line, from, to) in all_imports() {
        let (Some(own), Some(theirs)) = (floor_of(&from), floor_of(&to)) else {
            writeln!(faults, "src/{file}: the room `{from}` is in no floor's list").unwrap();
            continue;
        };
        if theirs > own {
            writeln!(faults, "src/{file}:{line}: `{from}` (floor {own}) imports `{to}` (floor {theirs})").unwrap();
        }
    }
    assert!(faults.is_empty(), "imports go only downwards:\n{faults}");
}

#[test]
fn rooms_of_a_floor_make_no_circle() {
    let mut below: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (file, line, from, to) in all_imports() {
        if floor_of(&from) == floor_of(&to) {
            below.entry(from).or_default().entry(to).or_insert_with(|| format!("src/{file}:{line}"));
        }
    }
    // Rooms that lead nowhere within their floor fall away until only circles are left.
    loop {
        let rooms: BTreeSet<String> = below.keys().cloned().collect();
        for to in below.values_mut() {
            to.retain(|room, _| rooms.contains(room));
        }
        let before = below.len();
        below.retain(|_, to| !to.is_empty());
        if below.len() == before {
            break;
        }
    }
    assert!(below.is_empty(), "rooms of one floor import each other in a circle: {below:#?}");
}

#[test]
fn the_table_is_the_one_of_the_map() {
    let map = fs::read_to_string(src().join("lib.rs")).unwrap();
    let in_docs: BTreeSet<(u8, String)> = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter_map(|row| {
            let (floor, rooms) = row.split_once(" | ")?;
            Some((floor.parse().ok()?, rooms))
        })
        .flat_map(|(floor, rooms): (u8, &str)| {
            let names = rooms.split("[`").skip(1).filter_map(|part| part.split_once("`]"));
            names.map(|(name, _)| (floor, name.to_owned())).collect::<Vec<_>>()
        })
        .collect();
    let here: BTreeSet<(u8, String)> =
        FLOORS.iter().flat_map(|(floor, rooms)| rooms.iter().map(|room| (*floor, (*room).to_owned()))).collect();
    assert_eq!(here, in_docs, "tests/floors.rs and the head of src/lib.rs differ");
    let declared: BTreeSet<&str> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let named: BTreeSet<&str> = FLOORS.iter().flat_map(|(_, rooms)| rooms.iter().copied()).collect();
    assert_eq!(declared, named, "the modules of src/lib.rs and the floors' rooms differ");
}

#[test]
fn every_file_says_what_it_is_for_and_fits_a_sitting() {
    let mut faults = String::new();
    for path in rust_files(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(src()).unwrap().display();
        if !text.starts_with("//!") {
            writeln!(faults, "src/{shown}: does not open with //!").unwrap();
        }
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            writeln!(faults, "src/{shown}: has {lines} lines; which noun in it wants its own room?").unwrap();
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn the_reader_of_imports_sees_what_matters() {
    // A file of the room `spec`, two modules deep.
    let names = |text: &str| -> Vec<String> {
        imports(&without_tests(tokens(text)).0, 2).into_iter().map(|(_, name)| name).collect()
    };
    for (text, expected) in [
        ("use crate::store::Job;", &["store"][..]),
        ("use crate::{\n    names::{A, B},\n    store,\n};", &["names", "store"]),
        ("fn f() -> crate::engine::X { crate::http::y() }", &["engine", "http"]),
        ("pub(crate) fn f() {}", &[]),
        ("use super::super::engine::X;", &["engine"]),
        ("use super::super::{engine, cli::Y};", &["engine", "cli"]),
        ("use super::engine::X;", &[]),
        ("mod inner { use super::super::engine::X; use super::super::super::cli::Y; }", &["cli"]),
        ("// use crate::store::Job;\n/* crate::a /* crate::b */ crate::c */", &[]),
        ("const A: &str = \"crate::store\"; const B: &str = r#\"\" crate::store\"#;", &[]),
        (
            "const A: char = '\"'; use crate::store::A; const B: char = '\\''; fn f<'a>(b: &'a u8) { crate::b() }",
            &["store", "b"],
        ),
        ("#[cfg(test)]\nmod tests { use crate::store::Job; fn f() {} }\nuse crate::names;", &["names"]),
        ("#[cfg(test)]\nuse crate::store::Job;\nuse crate::names;", &["names"]),
        (
            "#[cfg(test)]\n#[derive(Debug)]\npub(crate) fn f(x: [u8; 2]) -> u8 { crate::store::f() }\nuse crate::names;",
            &["names"],
        ),
        ("#[cfg(not(test))]\nuse crate::store::Job;", &["store"]),
    ] {
        assert_eq!(names(text), expected, "{text}");
    }
    assert_eq!(tokens("/* a\nb */\n\"x\ny\"\nz"), [(5, "z".to_owned())], "lines are counted");
    assert_eq!(without_tests(tokens("#[cfg(test)]\npub(crate) mod fixture;")).1, ["fixture"]);
}
