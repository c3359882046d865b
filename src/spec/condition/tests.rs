//! Conditions on jobs: a table of answers, a table of refusals, and a second opinion by the `cel` crate.

use std::{cell::Cell, collections::BTreeMap};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

#[derive(Debug)]
struct Job {
    metadata: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    body: Json,
}

impl Job {
    fn new(metadata: &[(&str, &str)], body: Json) -> Self {
        let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { metadata: texts(metadata), labels: texts(&[("team", "support")]), body }
    }

    fn ask<T>(&self, answer: impl FnOnce(&Facts<'_>) -> T) -> (T, u32) {
        let counted = Cell::new(0_u32);
        let count = || {
            counted.set(counted.get() + 1);
            1_200
        };
        let facts = Facts {
            id: "job-1",
            pipeline: "triage",
            metadata: &self.metadata,
            labels: &self.labels,
            priority: 5,
            body: &self.body,
            prompt_tokens: &count,
            age_seconds: 90,
        };
        let result = answer(&facts);
        (result, counted.get())
    }
}

fn job() -> Job {
    Job::new(
        &[("region", "eu"), ("n", "42"), ("empty", ""), ("odd key", "x")],
        json!({
            "model": "gpt-4o-mini", "temperature": 0.5, "max_tokens": 100, "stream": true, "user": null, "seed": 1.0,
            "big": 18_446_744_073_709_551_615_u64,
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "héllo"}, {"role": "user"}],
            "tags": ["a", "b"]
        }),
    )
}

fn verdict(source: &str) -> Verdict {
    let condition = Condition::parse(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
    job().ask(|facts| condition.evaluate(facts)).0
}

#[test]
fn answers() {
    for (source, expected) in [
        ("job.metadata.region == \"eu\"", true),
        ("job.metadata['odd key'] == 'x'", true),
        ("job['metadata']['region'] != \"eu\"", false),
        ("job.labels.team == r'support'", true),
        ("job.id == 'job-1' && job.pipeline == 'triage'", true),
        ("job.priority >= 5 && job.age_seconds < 100", true),
        ("job.prompt_tokens > 1000 && job.prompt_tokens <= 1200", true),
        ("job.body.temperature < 1", true),
        ("job.body.max_tokens == 100.0", true),
        ("job.body.seed == 1", true),
        ("job.body.big > 9223372036854775807", true),
        ("job.body.big == 18446744073709551615u", true),
        ("-9223372036854775808 < 0", true),
        ("9007199254740993 > 9007199254740992.0", true),
        ("job.body.stream", true),
        ("!job.body.stream", false),
        ("job.body.user == null", true),
        ("job.body.user == 'x'", false),
        ("job.metadata.region in ['us', 'eu']", true),
        ("!(job.metadata.region in ['us', \"uk\",])", true),
        ("'b' in job.body.tags", true),
        ("'region' in job.metadata && !('x' in job.metadata)", true),
        ("has(job.metadata.region) && !has(job.metadata.nope)", true),
        ("has(job.body.a.b.c)", false),
        ("has(job.body.user)", true),
        ("has(job.metadata['odd key'])", true),
        ("job.body.model.startsWith('gpt-') && job.body.model.endsWith('mini') && job.body.model.contains('4o')", true),
        ("job.body.model.matches('^gpt-[0-9]o')", true),
        ("matches(job.metadata.region, 'u$')", true),
        ("size(job.body.messages) == 3 && job.body.messages.size() == 3", true),
        ("size(job.body.messages[1].content) == 5", true),
        ("job.body.messages[0].role == 'system'", true),
        ("job.metadata.region == 'eu' ? job.priority > 3 : false", true),
        ("int(job.metadata.n) + 1 == 43", true),
        ("double(job.metadata.n) / 4.0 == 10.5", true),
        ("string(job.priority) + '!' == '5!'", true),
        ("7 / 2 == 3 && -7 % 3 == -1 && 2 * 3 - 1 == 5", true),
        ("1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 10 - 3 - 2 == 5", true),
        ("job.body.messages.exists(m, m.role == 'user')", true),
        ("job.body.messages.all(m, has(m.role))", true),
        ("job.body.messages.exists_one(m, m.role == 'system')", true),
        ("job.body.messages.filter(m, has(m.content)).map(m, m.content)[0] == 'be brief'", true),
        ("job.body.messages.map(m, has(m.content), size(m.content)) == [8, 5]", true),
        ("job.metadata.exists(key, key.startsWith('reg'))", true),
        ("[1, 2] + [3] == [1, 2, 3]", true),
        ("[1, 2].all(x, [3, 4].all(y, y > x))", true),
        ("'\\u00e9\\x41\\101\\n' == \"éAA\\n\"", true),
        // An error on one side is absorbed when the other side decides, on whichever side it is.
        ("job.metadata.nope == 'x' || job.metadata.region == 'eu'", true),
        ("job.metadata.region == 'eu' || job.metadata.nope == 'x'", true),
        ("job.metadata.nope == 'x' && job.metadata.region == 'us'", false),
        ("job.body.temperature < 'x' && false", false),
        ("job.body.messages.exists(m, m.content == 'héllo')", true),
        ("job.body.messages.all(m, m.content == 'x')", false),
        ("true // and that is all", true),
    ] {
        let expected = if expected { Verdict::True } else { Verdict::False };
        assert_eq!(verdict(source), expected, "{source}");
    }
}

#[test]
fn missing_values_are_told_apart() {
    for (source, path) in [
        ("job.metadata.nope == 'x'", "job.metadata.nope"),
        ("!(job.labels.cost == 'x')", "job.labels.cost"),
        ("job.metadata['no such'] == 'x'", "job.metadata['no such']"),
        ("job.body.a.b == 1", "job.body.a"),
        ("job.body.messages[7].role == 'x'", "job.body.messages[7]"),
        ("job.body.messages[-1].role == 'x'", "job.body.messages[-1]"),
        ("job.metadata[job.body.model] == 'x'", "job.metadata[job.body.model]"),
        ("job.metadata.nope == 'x' || false", "job.metadata.nope"),
        ("job.metadata.region == 'eu' && job.metadata.nope == 'x'", "job.metadata.nope"),
        ("job.body.temperature < 'x' || job.metadata.nope == 'x'", "job.metadata.nope"),
        ("job.body.messages.all(m, m.content != '')", "m.content"),
        ("job.metadata.nope == 'a' ? true : false", "job.metadata.nope"),
    ] {
        assert_eq!(verdict(source), Verdict::Missing(path.into()), "{source}");
    }
}

#[test]
fn what_does_not_apply_fails_with_a_reason() {
    for (source, why) in [
        ("job.body.temperature < 'x'", "`<` does not compare a number with a text"),
        ("job.body.user < 1", "`<` does not compare null with a number"),
        ("job.body.model", "it gives a text, not true or false"),
        ("job.body.model.foo == 1", "job.body.model.foo: a text has no fields"),
        ("job.body.temperature + 1 == 2", "use int(…) or double(…)"),
        ("1 / (job.priority - 5) == 1", "division by zero"),
        ("job.priority * 9223372036854775807 > 0", "out of range"),
        ("-(job.body.model) == 'x'", "`-` does not apply"),
        ("int(job.metadata.region) == 1", "no whole number"),
        ("'x' in job.body.temperature", "`in` does not look for a text in a number"),
        ("job.body.stream.startsWith('x')", "a boolean is not a text"),
        (
            "job.body.messages.all(a, job.body.messages.all(b, job.body.messages.all(c, job.body.messages.all(d, \
             job.body.messages.all(e, job.body.messages.all(f, job.body.messages.all(g, job.body.messages.all(h, \
             job.body.messages.all(i, job.body.messages.all(j, job.body.messages.all(k, size(k) < 9)))))))))))",
            "more than 100000 steps",
        ),
    ] {
        match verdict(source) {
            Verdict::Failed(found) => assert!(found.contains(why), "{source}: {found}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn refusals_point_and_advise() {
    for (source, marked, message, help) in [
        ("job.metdata.region == 'eu'", "metdata", "a job has no field `metdata`", "did you mean `metadata`?"),
        ("job.xyzzy == 1", "xyzzy", "a job has no field `xyzzy`", "what callers add is in job.metadata"),
        ("true && metadata.region == 'eu'", "metadata", "unknown name `metadata`", "write `job.metadata`"),
        ("jb.id == 'x'", "jb", "unknown name `jb`", "did you mean `job`?"),
        ("job.metadata.region == eu", "eu", "unknown name `eu`", "in quotes"),
        ("job == 1", "job", "`job` alone is no value", "job.metadata"),
        ("job[job.id] == 1", "job.id", "must be named", ""),
        ("job.metadata.a.beginsWith('x')", "beginsWith", "unknown function `beginsWith`", "there are"),
        ("job.metadata.a.startWith('x')", "startWith", "unknown function `startWith`", "did you mean `startsWith`?"),
        ("size(job.priority) > 1", "job.priority", "a number has no size", ""),
        ("job.metadata.a.b == 'x'", "b", "a text has no field `b`", ""),
        ("job.metadata.n == 42", "job.metadata.n == 42", "a text never equals a number", "write \"42\""),
        ("job.metadata.n in ['1', 2]", "2", "a text never equals a number", "write \"2\""),
        ("job.metadata.n < 42", "job.metadata.n < 42", "has no order", "int(…)"),
        ("job.metadata.a == null", "job.metadata.a == null", "a text never equals null", "has("),
        ("job.metadata.region", "job.metadata.region", "a condition needs true or false, this is a text", "compare"),
        ("job.priority", "job.priority", "needs true or false", "compare"),
        ("job.priority && true", "job.priority", "`&&` needs true or false", "compare"),
        ("!job.priority", "job.priority", "`!` needs true or false", ""),
        ("job.priority + 1.5 > 2.0", "job.priority + 1.5", "of one type cannot meet", "double(…)"),
        ("job.priority = 1", "=", "`=` has no meaning", "`==`"),
        ("job.priority > 1 and true", "and", "unexpected `and`", "`&&`"),
        ("job.priority > 1 & true", "&", "`&` has no meaning here", "`&&`"),
        ("job.metadata.region == “eu”", "“", "no meaning", "straight quotes"),
        ("job.metadata.region == 'eu", "'", "no closing quote", ""),
        ("job.metadata.region == 'e\\qu'", "\\q", "unknown escape", ""),
        ("job.priority > ", "", "expected a value, found the end", ""),
        ("(job.priority > 1", "", "expected `)`, found the end", ""),
        ("", "", "the expression is empty", "write a condition"),
        ("job.body.in == 1", "in", "a word of the language", "[\"in\"]"),
        ("has(job.id)", "job.id", "every job has `id`", ""),
        ("has(job)", "job", "`has` needs a field", ""),
        ("job.body.a.matches('(')", "'('", "not a regular expression", ""),
        ("job.body.a.matches(job.body.b)", "job.body.b", "must be written out", ""),
        ("{'a': 1}.a == 1", "{", "maps cannot be written out", ""),
        ("b'x' == 1", "b", "byte literals", ""),
        ("99999999999999999999 > 1", "99999999999999999999", "out of range", ""),
        ("job.body.messages.exists(1, true)", "1", "a variable's name", ""),
        ("job.body.messages.exists(m, n)", "n", "unknown name `n`", "did you mean `m`?"),
        ("job.priority.exists(m, true)", "job.priority", "no elements", ""),
        ("ünïcode == 1", "ü", "no meaning", ""),
    ] {
        let Err(error) = Condition::parse(source) else { panic!("{source:?} compiled") };
        let shown: String = source.chars().skip(error.offset).take(error.length).collect();
        assert_eq!(shown, marked, "{source:?}: {error:?}");
        assert!(error.message.contains(message), "{source:?}: {error:?}");
        assert!(error.help.unwrap_or_default().contains(help), "{source:?}: help");
        assert!(error.length >= 1);
    }
}

#[test]
fn hostile_expressions_are_refused_not_crashed_on() {
    let deep = 100_000;
    for source in [
        "(".repeat(deep),
        "!".repeat(4_000),
        format!("{}true", "!".repeat(4_000)),
        format!("{}1 == 1", "-".repeat(4_000)),
        format!("{}true", "true && ".repeat(500)),
        format!("1{} == 1", "+1".repeat(1_500)),
        format!("job.body{} == 1", ".a".repeat(1_500)),
        format!("job.body{} == 1", "[0]".repeat(1_300)),
        "[".repeat(4_000),
        format!("job.body{}", ".exists(x, job.body".repeat(200)),
        format!("{}true", "true ? ".repeat(500)),
        "\"".repeat(4_001),
    ] {
        assert!(Condition::parse(&source).is_err(), "{}", &source[..40.min(source.len())]);
    }
    // Chains of a sensible length are fine.
    assert!(Condition::parse(&format!("{}true", "true && ".repeat(90))).is_ok());
}

#[test]
fn prompt_tokens_are_counted_at_most_once_and_only_when_asked_for() {
    for (source, needs, counted) in [
        ("job.metadata.region == 'eu'", false, 0),
        ("job.prompt_tokens > 10 && job.prompt_tokens < 20", true, 1),
        ("job.metadata.region == 'eu' || job.prompt_tokens > 10", true, 0),
    ] {
        let condition = Condition::parse(source).unwrap();
        assert_eq!(condition.needs_prompt_tokens(), needs, "{source}");
        assert_eq!(job().ask(|facts| condition.evaluate(facts)).1, counted, "{source}");
    }
}

#[test]
fn keys() {
    for (source, key) in [
        ("job.metadata.region", Some("eu")),
        ("job.metadata.nope", None),
        ("job.metadata.empty", None),
        ("job.labels.team", Some("support")),
        ("job.id", Some("job-1")),
        ("job.priority", Some("5")),
        ("job.body.user", None),
        ("job.body.temperature", Some("0.5")),
        ("job.body.seed", Some("1")),
        ("job.body.big", Some("18446744073709551615")),
        ("job.body.stream", Some("true")),
        ("job.body.messages", None),
        ("job.body.messages[1].role", Some("user")),
        ("job.body.messages[9].role", None),
        ("job.metadata[job.body.tags[0]]", None),
    ] {
        let expression = KeyExpression::parse(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
        assert_eq!(job().ask(|facts| expression.evaluate(facts).map(Cow::into_owned)).0.as_deref(), key, "{source}");
        assert_eq!(expression.is_job_id(), source == "job.id");
    }
    for source in [
        "job.metadata",
        "job.body",
        "job",
        "'x'",
        "1",
        "job.priority + 1",
        "has(job.metadata.x)",
        "job.age_seconds",
        "customer",
        "job.metdata.x",
        "[job.id][0]",
    ] {
        assert!(KeyExpression::parse(source).is_err(), "{source}");
    }
}

/// What the `cel` crate makes of an expression: its answer, or that it has none.
fn second_opinion(source: &str, job: &Job) -> Option<bool> {
    use cel::{Context, Program, Value};
    fn value(json: &Json) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(value),
                (None, Some(value)) => Value::UInt(value),
                _ => Value::Float(number.as_f64().unwrap()),
            },
            Json::String(text) => Value::from(text.as_str()),
            Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
            Json::Object(map) => {
                Value::from(map.iter().map(|(k, v)| (k.clone(), value(v))).collect::<std::collections::HashMap<_, _>>())
            }
        }
    }
    let all = json!({
        "id": "job-1", "pipeline": "triage", "metadata": job.metadata, "labels": job.labels, "priority": 5,
        "body": job.body, "prompt_tokens": 1_200, "age_seconds": 90
    });
    let mut context = Context::default();
    context.add_variable_from_value("job", value(&all));
    match Program::compile(source).unwrap_or_else(|error| panic!("{source}: {error}")).execute(&context) {
        Ok(Value::Bool(answer)) => Some(answer),
        Ok(_) | Err(_) => None,
    }
}

/// Numbers, texts, booleans and lists that an expression may hold, from the job or written out.
fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-3_i32..4).prop_map(|n| n.to_string()),
        (-6_i32..7).prop_map(|n| format!("{:?}", f64::from(n) / 2.0)),
        Just("job.priority".to_owned()),
        Just("job.age_seconds".to_owned()),
        Just("job.prompt_tokens".to_owned()),
        Just("job.body.n".to_owned()),
        Just("job.body.d".to_owned()),
        Just("job.body.nope".to_owned()),
        Just("job.body.list[1]".to_owned()),
        Just("size(job.body.list)".to_owned()),
        Just("size(job.metadata)".to_owned()),
        Just("int(job.metadata.n)".to_owned()),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%")], inner)
            .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("'eu'".to_owned()),
        Just("\"a\"".to_owned()),
        Just("''".to_owned()),
        Just("job.metadata.region".to_owned()),
        Just("job.metadata['n']".to_owned()),
        Just("job.metadata.nope".to_owned()),
        Just("job.labels.team".to_owned()),
        Just("job.body.text".to_owned()),
        Just("job.body.n".to_owned()),
        Just("(job.metadata.region + 'x')".to_owned()),
    ]
}

fn boolean() -> impl Strategy<Value = String> {
    let comparison = prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let leaf = prop_oneof![
        4 => (number(), comparison.clone(), number()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        4 => (text(), comparison, text()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        2 => (text(), text(), text()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        1 => number().prop_map(|a| format!("{a} in job.body.list")),
        1 => text().prop_map(|a| format!("{a} in job.metadata")),
        1 => (text(), prop_oneof![Just("startsWith"), Just("endsWith"), Just("contains")], text())
            .prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
        1 => Just("has(job.metadata.region)".to_owned()),
        1 => Just("has(job.body.nope)".to_owned()),
        1 => Just("job.body.flag".to_owned()),
        1 => Just("job.body.nothing == null".to_owned()),
        1 => prop_oneof![Just("true".to_owned()), Just("false".to_owned())],
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            3 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            // Unbracketed, so that both parsers must agree on what binds how.
            2 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a} || {b} && {c}")),
            2 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("(({a}) ? ({b}) : ({c}))")),
            1 => inner.clone().prop_map(|a| format!("job.body.list.exists(x, x > 1 && {a})")),
            1 => inner.clone().prop_map(|a| format!("job.body.list.all(x, x > 1 || {a})")),
            1 => inner.prop_map(|a| format!("job.body.list.filter(x, x > 1 && {a}).map(x, x * 2) == [4, 6]")),
        ]
    })
}

fn jobs() -> impl Strategy<Value = Job> {
    let texts = prop_oneof![Just("eu"), Just("us"), Just("a"), Just(""), Just("-3"), Just("2")];
    let numbers = prop_oneof![(-3_i64..4).prop_map(|n| json!(n)), (-6_i32..7).prop_map(|n| json!(f64::from(n) / 2.0))];
    let metadata = proptest::collection::btree_map(
        prop_oneof![Just("region".to_owned()), Just("n".to_owned()), Just("a".to_owned())],
        texts.clone().prop_map(str::to_owned),
        0..4,
    );
    (metadata, numbers.clone(), numbers.clone(), texts, any::<bool>(), proptest::collection::vec(numbers, 0..4))
        .prop_map(|(metadata, n, d, text, flag, list)| Job {
            metadata,
            labels: BTreeMap::from([("team".to_owned(), "support".to_owned())]),
            body: json!({"n": n, "d": d, "text": text, "flag": flag, "list": list, "nothing": null}),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_cel_crate(source in boolean(), job in jobs()) {
        // Types that can never meet are refused when a spec is loaded; only what compiles is compared.
        if let Ok(condition) = Condition::parse(&source) {
            let ours = job.ask(|facts| condition.evaluate(facts)).0;
            let theirs = second_opinion(&source, &job);
            match (&ours, theirs) {
                (Verdict::True, Some(true)) | (Verdict::False, Some(false)) => {}
                (Verdict::Missing(_) | Verdict::Failed(_), None) => {}
                // The crate gives up at the first element that fails; the language says that a later one may decide.
                (Verdict::True | Verdict::False, None) if source.contains(".exists(") || source.contains(".all(") => {}
                _ => prop_assert!(false, "{source}\nours {ours:?}, theirs {theirs:?}\n{:?} {}", job.metadata, job.body),
            }
        }
    }

    #[test]
    fn any_text_is_an_expression_or_an_error_within_it(source in ".{0,60}|[job.metadata\\[\\]()!&|=<>'\"0-9 ]{0,40}") {
        if let Err(error) = Condition::parse(&source) {
            prop_assert!(error.length >= 1);
            prop_assert!(error.offset <= source.chars().count(), "{error:?}");
        }
    }
}
