//! `landbridge models`: what the catalogue knows, which specs and how much traffic use a model, and what could take its
//! place.

mod entry;
mod substitutes;
mod uses;

use std::{path::Path, time::Duration};

use clap::Args;
use rust_decimal::Decimal;
use serde_json::Value;

use self::entry::{entry, lifecycle};
use super::{
    connection::Connection,
    exit::{Exit, Failure, Result},
    local::Local,
    print::{Console, Format, Table, grouped},
};
use crate::{
    catalog::{Catalog, Model, Prices},
    clock::parse_span,
    names::nearest,
    spec::Api,
};

/// What to ask about models
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Prices are US dollars per million tokens. --uses searches specs and model definitions, and asks the
daemon, if one answers, what it recorded.

Examples:
  landbridge models
  landbridge models --uses gpt-4o-mini --since 30d
  landbridge models --substitutes gpt-4o-mini
  landbridge models --format json | jq '.[] | select(.lifecycle != \"active\")'

Exit codes: 0; 1 the model is not in the catalogue, or (with --uses) nothing uses it")]
pub struct ModelsArgs {
    /// List where specs and model definitions use this model (file:line), and its recorded traffic
    #[arg(long, value_name = "MODEL", conflicts_with = "substitutes")]
    pub uses: Option<String>,
    /// List what could take this model's place, best first, with prices beside its own
    #[arg(long, value_name = "MODEL")]
    pub substitutes: Option<String>,
    /// How far back --uses looks at traffic
    #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = parse_span, requires = "uses")]
    pub since: Duration,
    /// json: the entries of the catalogue
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] for settings that cannot be read, and a model that is not known.
pub async fn execute(args: &ModelsArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let local = Local::read(config)?;
    let catalog = local.catalog()?;
    match (&args.uses, &args.substitutes) {
        (Some(model), _) => uses::uses(model, &catalog, args, (&local, config), console).await,
        (_, Some(model)) => substitutes::substitutes(model, &catalog, args.format, console),
        _ => list(&catalog, args.format, console),
    }
}

/// The model that `name` means, on either side.
fn find<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Model> {
    [Api::OpenAi, Api::Bedrock].into_iter().find_map(|api| catalog.find(api, name)).ok_or_else(|| {
        let near = nearest(name, catalog.models().iter().map(|known| known.id.as_str()));
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Failure::new(format!("{name:?} is not in the catalogue{near}"))
    })
}

fn list(catalog: &Catalog, format: Format, console: &mut Console<'_>) -> Result {
    if format == Format::Json {
        let all = catalog.models().iter().map(|model| entry(catalog, &model.id, model));
        console.json(&Value::Array(all.collect()))?;
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
    for model in catalog.models() {
        table.row([
            model.id.clone(),
            model.api.to_string(),
            model.context_window.map(grouped).unwrap_or_default(),
            model.max_output_tokens.map(grouped).unwrap_or_default(),
            dollars(catalog, model, &model.id, |prices| prices.input),
            dollars(catalog, model, &model.id, |prices| prices.output),
            lifecycle(model),
            model.refuses.join(" "),
            catalog.substitutes(model.api, &model.id).join(" "),
        ]);
    }
    write!(console.out, "{table}")?;
    Ok(Exit::Success)
}

/// A price of the list that holds for `name`; empty when there is none.
fn dollars(catalog: &Catalog, model: &Model, name: &str, pick: fn(&Prices) -> Decimal) -> String {
    catalog.prices(model.api, name).map(|prices| pick(prices).normalize().to_string()).unwrap_or_default()
}
