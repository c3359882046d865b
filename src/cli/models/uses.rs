//! `--uses`: the lines that name a model, and the traffic that a daemon recorded for it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::ModelsArgs;
use crate::{
    catalog::Catalog,
    cli::{
        connection::{CallError, Daemon},
        exit::{Exit, Failure, Result},
        local::Local,
        print::{Console, Format, Table, count, field, grouped, items, printable},
    },
    clock::format_span,
    spec::{Api, model_definition},
};

/// Specs larger than this are not searched: no spec is.
const MAX_SPEC: u64 = 8 << 20;

/// A line that uses a model.
struct Use {
    file: String,
    line: usize,
    text: String,
}

pub(super) async fn uses(
    model: &str,
    catalog: &Catalog,
    args: &ModelsArgs,
    (local, config): (&Local, &Path),
    console: &mut Console<'_>,
) -> Result {
    let same = |word: &str| is_same(catalog, word, model);
    let found = search(&local.folders()?, &same)?;
    let traffic = recorded(args, config).await;
    let (traffic, silence) = match traffic {
        Ok(answer) => {
            (items(&answer, "/data").iter().filter(|row| same(&field(row, "/model"))).cloned().collect(), None)
        }
        Err(why) => (Vec::new(), Some(why)),
    };
    if args.format == Format::Json {
        let uses = found.iter().map(|used| json!({"file": used.file, "line": used.line, "text": used.text}));
        console.json(&json!({
            "uses": uses.collect::<Vec<_>>(),
            "traffic": if silence.is_some() { Value::Null } else { Value::Array(traffic.clone()) },
            "since": format_span(args.since),
        }))?;
    } else {
        for used in &found {
            writeln!(console.out, "{}:{}: {}", used.file, used.line, printable(&used.text))?;
        }
        if !traffic.is_empty() {
            write!(console.out, "\nin the last {}:\n{}", format_span(args.since), table(&traffic))?;
        }
    }
    match &silence {
        Some(why) => writeln!(console.err, "no recorded traffic, because no daemon told any: {why}")?,
        None if traffic.is_empty() => {
            writeln!(console.err, "the daemon recorded no call to {model} in the last {}", format_span(args.since))?;
        }
        None => {}
    }
    if found.is_empty() {
        writeln!(console.err, "no spec and no model definition uses {model}")?;
    }
    Ok(if found.is_empty() && traffic.is_empty() { Exit::Failed } else { Exit::Success })
}

/// Whether a word means the model that is asked for, by any of its names.
fn is_same(catalog: &Catalog, word: &str, model: &str) -> bool {
    word == model
        || [Api::OpenAi, Api::Bedrock].into_iter().any(|api| {
            match (catalog.find(api, word), catalog.find(api, model)) {
                (Some(a), Some(b)) => a.id == b.id,
                _ => false,
            }
        })
}

/// What the daemon's ledger says of the last days; why not, in words, when there is no daemon that says anything.
async fn recorded(args: &ModelsArgs, config: &Path) -> std::result::Result<Value, String> {
    let daemon = Daemon::new(&args.connection, config).map_err(|failure| failure.message)?;
    let asked = daemon.get(&["v1", "ops", "traffic"]).query("since", &format_span(args.since));
    asked.send().await.map_err(|error: CallError| error.to_string())
}

fn table(traffic: &[Value]) -> Table {
    let mut table =
        Table::new(&["  PIPELINE", "TARGET", "MODEL", "JOBS", "CALLS", "TOKENS IN", "TOKENS OUT", "COST $", "BESIDES"]);
    for row in traffic {
        let prompt = ["/usage/input", "/usage/cache_read", "/usage/cache_write"].map(|part| count(row, part));
        let cost = match count(row, "/unpriced") {
            0 => field(row, "/cost_usd"),
            n => format!("{} (+ {n} unpriced)", field(row, "/cost_usd")),
        };
        table.row([
            format!("  {}", field(row, "/pipeline")),
            field(row, "/target"),
            field(row, "/model"),
            grouped(count(row, "/jobs_answered")),
            grouped(count(row, "/attempts")),
            grouped(prompt.into_iter().fold(0, u64::saturating_add)),
            grouped(count(row, "/usage/output")),
            cost,
            besides(row),
        ]);
    }
    table
}

/// What calls without an answer may have cost.
fn besides(row: &Value) -> String {
    match (count(row, "/possibly_billed"), count(row, "/possible_cost_unknown")) {
        (0, _) => String::new(),
        (n, 0) => format!("{n} possibly billed, at most {}", field(row, "/possible_cost_usd")),
        (n, unknown) => {
            format!("{n} possibly billed, at most {} and what {unknown} of them cost", field(row, "/possible_cost_usd"))
        }
    }
}

/// The lines that name the model; where a definition does, also those that use the definition.
fn search(folders: &[PathBuf; 2], same: &impl Fn(&str) -> bool) -> Result<Vec<Use>> {
    let [specs, definitions] = folders;
    let mut found = Vec::new();
    let mut stems = BTreeSet::new();
    let mut texts = Vec::new();
    for (path, text) in files(definitions)? {
        let name = path.display().to_string();
        if let (Some(definition), _) = model_definition::read(&name, text.as_bytes())
            && same(&definition.model)
            && let Some(stem) = path.file_stem()
        {
            stems.insert(stem.to_string_lossy().into_owned());
        }
        texts.push((path, text));
    }
    for (path, text) in files(specs)?.into_iter().chain(texts) {
        for (place, line) in text.lines().enumerate() {
            let mut after_use = false;
            let named = words(line).any(|word| {
                let by_definition = after_use && stems.contains(word);
                after_use = word == "use:" || word == "use";
                by_definition || same(word)
            });
            if named {
                found.push(Use { file: path.display().to_string(), line: place + 1, text: line.trim().to_owned() });
            }
        }
    }
    Ok(found)
}

/// The specs or definitions of a folder, with their texts.
fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for file in walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let file = file.map_err(|error| Failure::new(format!("cannot read {}: {error}", folder.display())))?;
        let is_ours = file.path().extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        let small = file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= MAX_SPEC);
        if !is_ours || !small || file.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let text = std::fs::read(file.path())
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.path().display())))?;
        found.push((file.path().to_owned(), String::from_utf8_lossy(&text).into_owned()));
    }
    Ok(found)
}

/// What could be a model's name on a line of YAML or JSON, comments left out.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let line = if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or_default() };
    line.split(|c: char| c.is_whitespace() || "\"',{}[]".contains(c)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_line() {
        let line =
            r#"  bedrock: { model: "us.anthropic.claude-haiku-4-5-20251001-v1:0", region: us-east-1 } # model: gpt-4o"#;
        let found: Vec<&str> = words(line).collect();
        assert!(found.contains(&"us.anthropic.claude-haiku-4-5-20251001-v1:0"), "{found:?}");
        assert!(!found.contains(&"gpt-4o"), "{found:?}");
        assert_eq!(words("  # model: gpt-4o").count(), 0);
    }
}
