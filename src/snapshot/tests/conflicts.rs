//! Files that claim the same name or the same models.

use super::*;

fn accepting(name: &str, model: &str, globs: &str) -> String {
    spec(name, model, &format!("accept: {{ models: {globs} }}\n"))
}

#[test]
fn of_two_files_with_one_name_the_one_that_serves_stays() {
    let (one, other) = (spec("p", "m1", ""), spec("p", "m2", ""));
    let mut world = World::new(&[("b.yaml", &one)]);
    world.load();
    let loaded = world.save("a.yaml", &other).load();
    assert_eq!(serving(&loaded.snapshot), ["p b.yaml m1"]);
    let problem = &said(&loaded.snapshot, "a.yaml")[0];
    assert_eq!(problem.message, "the pipeline `p` is b.yaml's already");
    assert_eq!((problem.position.unwrap().line, problem.position.unwrap().column), (2, 7));
    assert!(report(&loaded.snapshot, "b.yaml").valid);
    // A restart knows who served.
    assert_eq!(world.restart().serves(), ["p b.yaml m1"]);
    // The one that serves may change, and may break.
    assert_eq!(world.save("b.yaml", &spec("p", "m3", "")).serves(), ["p b.yaml m3"]);
    assert_eq!(world.save("b.yaml", BROKEN).serves(), ["p b.yaml m3*"]);
    // It goes, and the other takes over.
    assert_eq!(world.remove("b.yaml").serves(), ["p a.yaml m2"]);
}

#[test]
fn at_a_cold_start_both_are_broken() {
    let mut world = World::new(&[("a.yaml", &spec("p", "m1", "")), ("b.yaml", &spec("p", "m2", ""))]);
    world.save("c.yaml", &accepting("c", "m1", "[gpt-4o]")).save("d.yaml", &accepting("d", "m1", "[\"gpt-*\"]"));
    let loaded = world.save("e.yaml", &accepting("e", "m1", "[\"claude-*\"]")).load();
    assert_eq!(serving(&loaded.snapshot), ["e e.yaml m1"]);
    for (file, code) in
        [("a.yaml", "name-taken"), ("b.yaml", "name-taken"), ("c.yaml", "accept-overlap"), ("d.yaml", "accept-overlap")]
    {
        assert_eq!(codes(&loaded.snapshot, file), [code], "{file}");
    }
    assert!(said(&loaded.snapshot, "a.yaml")[0].message.contains("also defined by b.yaml, so neither counts"));
    assert!(loaded.snapshot.explain_missing(&name("p")).contains("also defined by"));
    assert_eq!(world.remove("b.yaml").remove("c.yaml").serves(), ["d d.yaml m1", "e e.yaml m1", "p a.yaml m1"]);
}

#[test]
fn a_copy_beside_a_move_does_not_confuse_who_serves() {
    let text = spec("p", "m1", "");
    let mut world = World::new(&[("old.yaml", &text)]);
    world.load();
    // Moved, while another file claims the name: the one that holds what served goes on.
    world.remove("old.yaml").save("copy.yaml", &spec("p", "m2", "")).save("new.yaml", &text);
    assert_eq!(world.serves(), ["p new.yaml m1"]);
    // A file that takes another's name keeps its own last good pipeline, whose name stays taken.
    let mut world = World::new(&[("p.yaml", &text), ("q.yaml", &spec("q", "m1", ""))]);
    world.load();
    world.save("q.yaml", &spec("p", "m9", "")).save("r.yaml", &spec("q", "m9", ""));
    assert_eq!(world.serves(), ["p p.yaml m1", "q q.yaml m1*"]);
}

#[test]
fn of_two_files_that_accept_a_model_the_one_that_serves_it_stays() {
    let mut world = World::new(&[("z.yaml", &accepting("z", "m1", "[\"gpt-4*\"]"))]);
    world.load();
    let loaded = world.save("a.yaml", &accepting("a", "m1", "[\"gpt-{4o,5}-mini\", other]")).load();
    assert_eq!(serving(&loaded.snapshot), ["z z.yaml m1"]);
    let problem = &said(&loaded.snapshot, "a.yaml")[0];
    assert_eq!(
        problem.message,
        "some models match both `gpt-{4o,5}-mini` and `gpt-4*` of z.yaml, which serves them already"
    );
    assert_eq!(problem.position.unwrap().line, 8);
    assert_eq!(loaded.snapshot.accepting("gpt-4o-mini").unwrap().file, "z.yaml");
    assert!(loaded.snapshot.accepting("other").is_none());
    assert_eq!(world.restart().serves(), ["z z.yaml m1"]);
    // A serving pipeline that reaches for another's models keeps what it had.
    world.save("a.yaml", &accepting("a", "m1", "[other]")).load();
    world.save("z.yaml", &accepting("z", "m2", "[\"gpt-4*\", \"oth*\"]"));
    assert_eq!(world.serves(), ["a a.yaml m1", "z z.yaml m1*"]);
    // Two pipelines may swap in one change.
    world.save("z.yaml", &accepting("z", "m3", "[other]")).save("a.yaml", &accepting("a", "m3", "[\"gpt-4*\"]"));
    assert_eq!(world.serves(), ["a a.yaml m3", "z z.yaml m3"]);
    // One gives a model up in a broken file: it still has it, so the other cannot take it.
    world.save("z.yaml", BROKEN).save("a.yaml", &accepting("a", "m4", "[other]"));
    let loaded = world.load();
    assert_eq!(serving(&loaded.snapshot), ["a a.yaml m3*", "z z.yaml m3*"]);
    assert_eq!(loaded.snapshot.accepting("gpt-4.1").unwrap().pipeline.name, name("a"));
    assert_eq!(loaded.snapshot.accepting("other").unwrap().pipeline.name, name("z"));
}

#[test]
fn all_or_nothing_rejects_a_whole_change() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", "")), ("b.yaml", &spec("b", "m1", ""))]);
    world.apply = Apply::All;
    let first = world.load();
    assert_eq!(serving(&first.snapshot).len(), 2);
    world.save("a.yaml", BROKEN).save("b.yaml", &spec("b", "m2", "")).save("c.yaml", &spec("c", "m1", ""));
    world.sources.catalog = Some(b"openai: { gpt-4o: { burndown: 7 } }".to_vec());
    for _ in 0..2 {
        let loaded = world.load();
        assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m1*"]);
        assert!(!loaded.changed);
        assert_eq!(loaded.snapshot.catalog.find(Api::OpenAi, "gpt-4o").unwrap().burndown, 1);
        for file in ["b.yaml", "c.yaml", "catalog.yaml"] {
            assert_eq!(codes(&loaded.snapshot, file), ["held-back"], "{file}");
            assert!(!report(&loaded.snapshot, file).valid);
        }
        world.restart();
    }
    // Removing is a change like any other.
    let loaded = world.remove("b.yaml").load();
    assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m1*"]);
    assert_eq!(codes(&loaded.snapshot, "b.yaml"), ["held-back"]);
    // Mended, all of it is applied.
    let loaded = world.save("a.yaml", &spec("a", "m2", "")).load();
    assert_eq!(serving(&loaded.snapshot), ["a a.yaml m2", "c c.yaml m1"]);
    assert_eq!(loaded.snapshot.catalog.find(Api::OpenAi, "gpt-4o").unwrap().burndown, 7);
    // With nothing to keep, nothing serves.
    let mut world = World::new(&[("a.yaml", BROKEN), ("b.yaml", &spec("b", "m1", ""))]);
    world.apply = Apply::All;
    assert!(world.serves().is_empty());
}
