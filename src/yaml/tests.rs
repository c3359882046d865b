//! Values, places and advice; and no input that panics.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::Position;

const KEYS: Keys = Keys::new("the sample", &["name", "share", "wait", "on", "mode", "list", "when"])
    .unbuilt(&[("steps", "use `share`")]);

fn read(text: &str) -> (Document, Findings) {
    let document = parse("sample.yaml", text.as_bytes()).unwrap();
    let findings = Findings::new("sample.yaml", &document.text);
    (document, findings)
}

#[test]
fn reads_values_of_every_kind() {
    let (document, mut findings) = read("name: a-1\nshare: 0.25\nwait: 1h30m\non: true\nmode: two\nlist: [1, b]\n");
    let section = document.root.section(&KEYS, &mut findings).unwrap();
    let get = |key| section.get(key).unwrap();
    assert_eq!(get("name").name::<crate::names::TargetName>("name", &mut findings).unwrap().as_str(), "a-1");
    assert_eq!(get("share").percent("share", &mut findings).unwrap().get(), 25);
    let range = Duration::ZERO..=Duration::from_hours(24);
    assert_eq!(get("wait").span("wait", range, &mut findings), Some(Duration::from_mins(90)));
    assert_eq!(get("on").boolean("on", &mut findings), Some(true));
    assert_eq!(get("mode").choice("mode", &[("one", 1), ("two", 2)], &mut findings), Some(2));
    assert_eq!(get("list").json("list", &mut findings), Some(serde_json::json!([1, "b"])));
    assert!(findings.finish().is_empty());
}

#[test]
fn every_problem_has_its_place_and_advice() {
    type Read = fn(&Node, &mut Findings);
    type Case = (&'static str, Read, &'static str, (u32, u32, u32), &'static str);
    let cases: [Case; 12] = [
        (
            "on: yes",
            |n, f| {
                let _ = n.boolean("on", f);
            },
            "`on` must be true or false, not text",
            (1, 5, 3),
            "write `true`, without quotes",
        ),
        (
            "on:",
            |n, f| {
                let _ = n.boolean("on", f);
            },
            "`on` has no value",
            (1, 1, 2),
            "write `true` or `false`; or remove the key",
        ),
        (
            "ü: 7",
            |n, f| {
                let _ = n.text("ü", f);
            },
            "`ü` must be text, not a number",
            (1, 4, 1),
            "put it in quotes: \"7\"",
        ),
        (
            "a: 300",
            |n, f| {
                let _ = n.integer("a", 1..=9, f);
            },
            "`a` is 300, outside 1 to 9",
            (1, 4, 3),
            "write a whole number from 1 to 9",
        ),
        (
            "a: 1_000",
            |n, f| {
                let _ = n.integer("a", 1..=9, f);
            },
            "`a` must be a whole number, not text",
            (1, 4, 5),
            "write a whole number from 1 to 9",
        ),
        (
            "a: 0.001",
            |n, f| {
                let _ = n.percent("a", f);
            },
            "`a` is 0.001, not a percentage",
            (1, 4, 5),
            "write a number from 0 to 100 with at most two decimals, such as 25 or 0.5",
        ),
        (
            "a: 30",
            |n, f| {
                let _ = n.span("a", Duration::ZERO..=Duration::MAX, f);
            },
            "`a` has no unit",
            (1, 4, 2),
            "write `30s` for seconds",
        ),
        (
            "a: strct",
            |n, f| {
                let _ = n.choice("a", &[("strict", ())], f);
            },
            "`a` cannot be \"strct\"",
            (1, 4, 5),
            "did you mean `strict`?",
        ),
        (
            "a: My Name",
            |n, f| {
                let _ = n.name::<crate::names::TargetName>("a", f);
            },
            "`a` cannot be \"My Name\"",
            (1, 4, 7),
            "write `my-name`: 1 to 63 characters of a-z, 0-9 and '-', starting with a letter or digit",
        ),
        (
            "a: {}",
            |n, f| {
                let _ = n.list("a", 3, f);
            },
            "`a` must be a list, not a mapping",
            (1, 4, 1),
            "write `a: [one, two]`, or `[]` for none",
        ),
        (
            "a: .inf",
            |n, f| {
                let _ = n.json("a", f);
            },
            "`a` holds .inf, which JSON cannot carry",
            (1, 4, 4),
            "write a finite number",
        ),
        (
            "a: 1\nb: 2\na: 3",
            |_, _| (),
            "`a` stands here twice; the first is in line 1",
            (3, 1, 1),
            "keep one of the two",
        ),
    ];
    for (text, check, message, (line, column, length), help) in cases {
        let (document, mut findings) = read(text);
        let entries = document.root.entries("sample", &mut findings).unwrap();
        check(&entries[0].value, &mut findings);
        let found = findings.finish();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].message, message, "{text}");
        assert_eq!(found[0].position, Some(Position { line, column, length }), "{text}");
        assert_eq!(found[0].help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn keys_are_checked_all_at_once() {
    let (document, mut findings) = read("nmae: 1\nsteps: []\nshare: 1\nshare: 2\nqqqqqqqq: 1\n");
    let section = document.root.section(&KEYS, &mut findings).unwrap();
    assert!(section.require("name", &mut findings).is_none());
    assert_eq!(section.get("share").unwrap().percent("share", &mut findings).unwrap().get(), 100);
    let codes: Vec<_> = findings.finish().into_iter().map(|d| (d.code, d.position.unwrap().line)).collect();
    let expected =
        [("unknown-key", 1), ("missing-key", 1), ("not-in-this-release", 2), ("duplicate-key", 4), ("unknown-key", 5)];
    assert_eq!(codes, expected.map(|(code, line)| (code.to_owned(), line)));
}

#[test]
fn what_is_not_yaml_is_one_diagnostic_with_a_place() {
    for (text, code, line, column) in [
        ("a: [1,\nb: 2\n", "syntax", 1, 4),
        ("a: 1\n---\nb: 2\n", "several-documents", 3, 1),
        ("a: *x\n", "syntax", 1, 4),
        ("? [a]\n: b\n", "bad-key", 1, 3),
        ("~: 1\n", "bad-key", 1, 1),
        ("a: !foo 1\n", "syntax", 1, 9),
    ] {
        let problem = parse("x.yaml", text.as_bytes()).unwrap_err();
        let at = problem.position.unwrap();
        assert_eq!((problem.code.as_str(), at.line, at.column), (code, line, column), "{text:?}: {}", problem.message);
    }
    let problem = parse("x.yaml", b"a: 1\nb: \xff\n").unwrap_err();
    assert_eq!((problem.code.as_str(), problem.position.map(|at| (at.line, at.column))), ("not-utf-8", Some((2, 4))));
    assert_eq!(parse("x.yaml", &vec![b'#'; MAX_BYTES + 1]).unwrap_err().code, "file-too-large");
}

#[test]
fn depth_size_and_aliases_are_bounded() {
    assert!(parse("x.yaml", "[".repeat(10_000).as_bytes()).is_err());
    let nested = (0..200).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>();
    let problem = parse("x.yaml", nested.as_bytes()).unwrap_err();
    assert_eq!(problem.code, "too-complex", "{problem}");
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..12 {
        let before = vec![format!("*a{}", n - 1); 10].join(",");
        bomb = [bomb, format!("a{n}: &a{n} [{before}]\n")].concat();
    }
    let problem = parse("x.yaml", bomb.as_bytes()).unwrap_err();
    assert_eq!(problem.code, "too-complex", "{problem}");
}

#[test]
fn an_alias_is_at_fault_where_it_was_written() {
    let (document, mut findings) = read("base: &b {q: maybe}\none: *b\ntwo:\n  <<: *b\n  r: 1\n");
    for entry in document.root.entries("sample", &mut findings).unwrap() {
        let inner = entry.value.entries("inner", &mut findings).unwrap();
        let q = inner.iter().find(|entry| entry.key.text == "q").unwrap();
        q.value.boolean("q", &mut findings);
    }
    let found = findings.finish();
    assert_eq!(found.len(), 1, "the same fault of the same place is said once");
    assert_eq!(found[0].position, Some(Position { line: 1, column: 14, length: 5 }));
}

#[test]
fn offsets_into_a_text_are_found_in_the_file() {
    for (text, line, column) in [
        ("when: job.x == y", 1, 16),
        ("when: 'job.x == y'", 1, 17),
        ("when: \"job.x == y\"", 1, 17),
        ("when: \"job.x \\u003d= y\"", 1, 22),
        ("when: |\n  job.x == y\n", 2, 12),
        ("when: >-\n  job.x\n  == y\n", 3, 6),
        ("when: |\n  job.x\n    == y\n", 3, 8),
        ("when: job.x\n  == y\n", 2, 6),
        ("when: '''q'' == y'", 1, 17),
        ("when: |\r\n  job.x == y\r\n", 2, 12),
    ] {
        let (document, mut findings) = read(text);
        let node = document.root.section(&KEYS, &mut findings).unwrap().get("when").unwrap();
        let Value::Text(when) = &node.value else { panic!("{text}") };
        let offset = when.chars().position(|c| c == 'y').unwrap();
        let at = node.locate(&document.text, offset, 1);
        assert_eq!((at.line, at.column, at.length), (line, column, 1), "{text:?} decoded as {when:?}");
    }
}

#[test]
fn nothing_is_a_null_document() {
    for text in ["", "# only a comment\n", "---\n", "\u{feff}"] {
        assert!(read(text).0.root.is_null(), "{text:?}");
    }
    let (document, _) = read("\u{feff}a: 1\r\nb: [x]\r\n");
    let Value::Map(entries) = &document.root.value else { panic!("a mapping") };
    assert_eq!(entries[1].value.position, Position { line: 2, column: 4, length: 1 });
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("x.yaml", &bytes);
    }

    #[test]
    fn no_text_panics(text in "[-a-c:{}\\[\\],&*!|>'\"%@`#?~0-9. \t\r\nü\\\\]{0,200}", offset in 0_usize..50, length in 0_usize..9) {
        if let Ok(document) = parse("x.yaml", text.as_bytes()) {
            let mut findings = Findings::new("x.yaml", &document.text);
            let mut stack = vec![&document.root];
            while let Some(node) = stack.pop() {
                let at = node.locate(&document.text, offset, length);
                prop_assert!(at.line >= 1 && at.column >= 1 && at.length >= 1);
                let _ = node.section(&KEYS, &mut findings);
                let _ = node.json("x", &mut findings);
                let _ = node.percent("x", &mut findings);
                match &node.value {
                    Value::List(items) => stack.extend(items),
                    Value::Map(entries) => stack.extend(entries.iter().map(|entry| &entry.value)),
                    _ => {}
                }
            }
            for diagnostic in findings.finish() {
                prop_assert!(!diagnostic.to_string().is_empty());
            }
        }
    }
}
