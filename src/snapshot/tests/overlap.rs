//! Whether two globs meet, held against what the matcher itself says.

use proptest::prelude::*;

use super::super::overlap::Shape;

fn meet(a: &str, b: &str) -> bool {
    let (a, b) = (Shape::of(a), Shape::of(b));
    assert_eq!(a.overlaps(&b), b.overlaps(&a));
    a.overlaps(&b)
}

#[test]
fn globs_that_meet_and_globs_that_do_not() {
    for (a, b, expected) in [
        ("gpt-4o", "gpt-4o", true),
        ("gpt-4o", "gpt-4o-mini", false),
        ("gpt-4o*", "gpt-4o-mini", true),
        ("gpt-*", "claude-*", false),
        ("gpt-*", "*", true),
        ("gpt-*-mini", "gpt-4o-*", true),
        ("*-mini", "gpt-*", true),
        ("*-mini", "*-nano", false),
        ("*-mini*", "*-nano*", true),
        ("gpt-?o", "gpt-4o", true),
        ("gpt-?o", "gpt-4.1", false),
        ("gpt-[45]", "gpt-6", false),
        ("gpt-[45]", "gpt-[5-9]", true),
        ("gpt-[45]", "gpt-[6-9]", false),
        ("gpt-[!45]", "gpt-4", false),
        ("gpt-[!45]", "gpt-6", true),
        ("gpt-{4o,5}-mini", "gpt-5-mini", true),
        ("gpt-{4o,5}-mini", "gpt-6-mini", false),
        ("{a,b}{c,d}", "bd", true),
        ("{a,b}{c,d}", "db", false),
        ("{a,{b,c}x}", "cx", true),
        ("org/**/x", "org/x", true),
        ("a\\*", "ab", false),
        ("a\\*", "a*", true),
        ("", "", true),
        ("", "*", true),
        ("", "a", false),
        ("ü*", "üx", true),
    ] {
        assert_eq!(meet(a, b), expected, "{a} {b}");
    }
    // Too many alternatives to write out: taken to meet everything.
    assert!(meet(&"{a,b}".repeat(20), "zzz"));
    let long = "*a".repeat(128);
    assert!(meet(&long, &long.replace('a', "b*")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No text matches both of two globs that are said not to meet.
    #[test]
    fn what_matches_both_is_always_found(
        a in "[ab*?]{0,4}(\\{a,b\\*\\}|\\[ab\\]|\\[!a\\])?[ab*?/]{0,3}",
        b in "[ab*?]{0,4}(\\{b,ab\\}|\\[a-b\\]|\\*\\*/)?[ab*?/]{0,3}",
        text in "[ab/]{0,6}",
    ) {
        let matches = |glob: &str| globset::Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(&text));
        if matches(&a) && matches(&b) {
            prop_assert!(meet(&a, &b), "{a} and {b} both match {text:?}");
        }
    }
}
