//! `landbridge models`: what the catalogue knows, which specs use a model, and what could take its place.

use std::path::{Path, PathBuf};

use clap::Args;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{
    exit::{Exit, Failure, Result},
    local::Local,
    print::{Console, Format, Table, grouped},
};
use crate::{
    catalog::{Catalog, Lifecycle, Model},
    names::nearest,
    spec::Api,
};

/// Specs larger than this are not searched: no spec is.
const MAX_SPEC: u64 = 8 << 20;

/// What to ask about models
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Prices are US dollars per million tokens.

Examples:
  landbridge models
  landbridge models --uses gpt-4o-mini
  landbridge models --substitutes gpt-4o-mini
  landbridge models --format json | jq '.[] | select(.lifecycle != \"active\")'

Exit codes: 0; 1 the model is not in the catalogue, or (with --uses) nothing uses it")]
pub struct ModelsArgs {
    /// List where specs and model definitions use this model: file:line
    #[arg(long, value_name = "MODEL", conflicts_with = "substitutes")]
    pub uses: Option<String>,
    /// List what could take this model's place, best first
    #[arg(long, value_name = "MODEL")]
    pub substitutes: Option<String>,
    /// json: the entries of the catalogue
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Runs the command.
pub fn execute(args: &ModelsArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let local = Local::read(config)?;
    let catalog = local.catalog()?;
    match (&args.uses, &args.substitutes) {
        (Some(model), _) => uses(model, &catalog, &local.folders()?, args.format, console),
        (_, Some(model)) => {
            let found = find(&catalog, model)?;
            let mut known = Vec::new();
            for name in catalog.substitutes(found.api, model) {
                match find(&catalog, name) {
                    Ok(substitute) => known.push((name, substitute)),
                    Err(_) => writeln!(console.err, "{name}: recommended, but not in the catalogue")?,
                }
            }
            if known.is_empty() {
                writeln!(console.err, "the catalogue knows no substitute for {model}")?;
                return Ok(Exit::Failed);
            }
            list(&catalog, &known, args.format, console)
        }
        _ => {
            let all: Vec<(&str, &Model)> = catalog.models().iter().map(|model| (model.id.as_str(), model)).collect();
            list(&catalog, &all, args.format, console)
        }
    }
}

fn find<'a>(catalog: &'a Catalog, model: &str) -> Result<&'a Model> {
    [Api::OpenAi, Api::Bedrock].into_iter().find_map(|api| catalog.find(api, model)).ok_or_else(|| {
        let near = nearest(model, catalog.models().iter().map(|known| known.id.as_str()));
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Failure::new(format!("{model:?} is not in the catalogue{near}"))
    })
}

fn list(catalog: &Catalog, models: &[(&str, &Model)], format: Format, console: &mut Console<'_>) -> Result {
    if format == Format::Json {
        console.json(&Value::Array(models.iter().map(|(name, model)| entry(catalog, name, model)).collect()))?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&[
        "MODEL",
        "API",
        "WINDOW",
        "MAX OUTPUT",
        "INPUT $",
        "OUTPUT $",
        "LIFECYCLE",
        "REFUSES",
        "SUBSTITUTES",
    ]);
    for (name, model) in models {
        let price = |pick: fn(&crate::catalog::Prices) -> Decimal| {
            catalog.prices(model.api, name).map(|prices| pick(prices).normalize().to_string()).unwrap_or_default()
        };
        table.row([
            (*name).to_owned(),
            model.api.to_string(),
            model.context_window.map(grouped).unwrap_or_default(),
            model.max_output_tokens.map(grouped).unwrap_or_default(),
            price(|prices| prices.input),
            price(|prices| prices.output),
            lifecycle(model),
            model.refuses.join(" "),
            catalog.substitutes(model.api, name).join(" "),
        ]);
    }
    write!(console.out, "{table}")?;
    Ok(Exit::Success)
}

fn lifecycle(model: &Model) -> String {
    match model.lifecycle {
        Lifecycle::Active => "active".to_owned(),
        Lifecycle::EndsOn(day) => format!("ends {day}"),
        Lifecycle::Ended(Some(day)) => format!("ended {day}"),
        Lifecycle::Ended(None) => "ended".to_owned(),
    }
}

fn entry(catalog: &Catalog, name: &str, model: &Model) -> Value {
    let prices = catalog.prices(model.api, name).map(|prices| {
        json!({
            "input": prices.input, "output": prices.output,
            "cache_read": prices.cache_read, "cache_write": prices.cache_write,
        })
    });
    json!({
        "model": name, "api": model.api, "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens, "default_max_tokens": model.default_max_tokens,
        "prices_per_million": prices, "burndown": model.burndown, "refuses": model.refuses,
        "refuses_together": model.refuses_together, "lifecycle": lifecycle(model), "profiles": model.profiles,
        "substitutes": catalog.substitutes(model.api, name),
    })
}

fn uses(model: &str, catalog: &Catalog, folders: &[PathBuf], format: Format, console: &mut Console<'_>) -> Result {
    let same = |word: &str| {
        word == model
            || [Api::OpenAi, Api::Bedrock].into_iter().any(|api| {
                match (catalog.find(api, word), catalog.find(api, model)) {
                    (Some(a), Some(b)) => a.id == b.id,
                    _ => false,
                }
            })
    };
    let mut found = Vec::new();
    for folder in folders.iter().filter(|folder| folder.exists()) {
        for file in walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name() {
            let file = file.map_err(|error| Failure::new(format!("cannot read {}: {error}", folder.display())))?;
            let is_ours = file.path().extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            let small = file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= MAX_SPEC);
            if !is_ours || !small || file.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let text = std::fs::read(file.path())
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.path().display())))?;
            let text = String::from_utf8_lossy(&text);
            for (place, line) in text.lines().enumerate().filter(|(_, line)| words(line).any(same)) {
                found.push((file.path().display().to_string(), place + 1, line.trim().to_owned()));
            }
        }
    }
    if format == Format::Json {
        let uses = found.iter().map(|(file, line, text)| json!({"file": file, "line": line, "text": text}));
        console.json(&Value::Array(uses.collect()))?;
    } else {
        for (file, line, text) in &found {
            writeln!(console.out, "{file}:{line}: {}", super::print::printable(text))?;
        }
    }
    if found.is_empty() {
        writeln!(console.err, "nothing uses {model}")?;
        return Ok(Exit::Failed);
    }
    Ok(Exit::Success)
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
