//! Known counts, bounds that hold, and requests of every shape.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn exact(tokenizer: Tokenizer, text: &str) -> u64 {
    let bounds = count_text(tokenizer, text, u64::MAX);
    assert_eq!(bounds.least, bounds.most);
    bounds.most
}

#[test]
fn counts_are_those_that_openai_publishes() {
    for (text, cl100k, o200k) in [
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("tiktoken is great!", 6, 6),
        ("", 0, 0),
    ] {
        assert_eq!(exact(Tokenizer::Cl100k, text), cl100k, "{text}");
        assert_eq!(exact(Tokenizer::O200k, text), o200k, "{text}");
    }
    // A conversation that OpenAI's own guide counts by calls: 129 prompt tokens by gpt-4, 124 by gpt-4o.
    let body = json!({"messages": [
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]});
    assert_eq!(count_prompt(Tokenizer::Cl100k, &body, u64::MAX), Bounds { least: 129, most: 129 });
    assert_eq!(count_prompt(Tokenizer::O200k, &body, u64::MAX), Bounds { least: 124, most: 124 });
    assert_eq!(count_prompt(Tokenizer::O200kAssumed, &body, u64::MAX).most, 134);
}

#[test]
fn slices_change_no_count_of_prose_and_little_of_anything() {
    let prose = "The quick brown fox jumps over the lazy dog. ".repeat(2_000);
    let whole = tiktoken_rs::o200k_base_singleton().count_ordinary(&prose) as u64;
    assert_eq!(exact(Tokenizer::O200k, &prose), whole);
    for odd in
        ["a".repeat(200_000), " ".repeat(200_000), "=".repeat(50_000), "é😀".repeat(20_000), "\n\n\t ".repeat(9_000)]
    {
        let started = std::time::Instant::now();
        let counted = exact(Tokenizer::O200k, &odd);
        let slices = odd.len() as u64 / 4_000 + 1;
        let whole = tiktoken_rs::o200k_base_singleton().count_ordinary(&odd) as u64;
        assert!(counted >= whole && counted <= whole + 3 * slices, "{:?}…: {counted} for {whole}", &odd[..4]);
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }
}

#[test]
fn counting_stops_when_enough_is_counted() {
    let body = json!({"messages": vec![json!({"role": "user", "content": "one two three ".repeat(3_000)}); 50]});
    let all = count_prompt(Tokenizer::O200k, &body, u64::MAX);
    let some = count_prompt(Tokenizer::O200k, &body, 20_000);
    assert!(all.least > 400_000 && some.least > 20_000 && some.least < 30_000, "{all:?} {some:?}");
    let claude = count_prompt(Tokenizer::Claude5, &body, 20_000);
    assert!(claude.least > 20_000 && claude.least < 30_000, "{claude:?}");
}

#[test]
fn the_estimate_leans_upwards_and_not_too_far() {
    for text in [
        "The quick brown fox jumps over the lazy dog.",
        "fn main() {\n    println!(\"Hello, world!\");\n}\n",
        "{\"id\": 17, \"state\": \"queued\", \"tags\": [\"a\", \"b\"]}",
        "Bitte ordnen Sie dieses Ticket ein und antworten Sie mit einem Wort.",
        "イイ",
        "",
    ] {
        let counted = exact(Tokenizer::O200k, text);
        let Bounds { least, most } = estimate_text(Tokenizer::O200k, text);
        assert!(least <= counted && most >= counted && most <= counted * 2, "{text:?}: {least} {counted} {most}");
    }
    let text = "Please classify this support ticket and answer in one word.";
    let of = |tokenizer| estimate_text(tokenizer, text).most;
    assert!(of(Tokenizer::O200k) < of(Tokenizer::Claude4) && of(Tokenizer::Claude4) < of(Tokenizer::Claude5));
}

#[test]
fn counts_everything_that_is_sent() {
    for count in [(|body: &Value| estimate_prompt_tokens(body)) as fn(&Value) -> u64, |body| {
        count_prompt(Tokenizer::O200k, body, u64::MAX).most
    }] {
        let count = |body: Value| count(&body);
        let plain = count(json!({"messages": [{"role": "user", "content": "hi"}]}));
        assert_eq!(plain, 8);
        for (body, more_than) in [
            (
                json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi there, all of you"}]}]}),
                plain,
            ),
            (json!({"messages": [{"role": "user", "content": "hi", "name": "someone"}]}), plain),
            (json!({"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function"}]}), plain),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
                1_700,
            ),
            (
                json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}),
                plain,
            ),
        ] {
            assert!(count(body.clone()) > more_than, "{body}");
        }
        // An image's bytes are not text.
        let image = format!("data:image/png;base64,{}", "A".repeat(1_000_000));
        let body =
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]});
        assert!(count(body) < 2_000);
        for odd in [json!(null), json!([]), json!({"messages": 1}), json!({"messages": [null, 1, {"content": 5}]})] {
            count(odd);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The cheap lower bound is one: only what cannot fit is refused without a count.
    #[test]
    fn the_cheap_lower_bound_holds(text in "(\\PC{0,40}|[a-z ]{0,200}|[ \n=-]{0,200}){0,8}") {
        let counted = exact(Tokenizer::O200k, &text);
        let cheap = estimate_text(Tokenizer::O200k, &text);
        prop_assert!(cheap.least <= counted.max(1), "{} {}", cheap.least, counted);
    }
}
