//! `--substitutes`: what could take a model's place on either provider, with prices beside its own.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{
    dollars,
    entry::{entry, lifecycle},
    find,
};
use crate::{
    catalog::{Catalog, Model, Prices},
    cli::{
        exit::{Exit, Result},
        print::{Console, Format, Table, grouped},
    },
};

pub(super) fn substitutes(name: &str, catalog: &Catalog, format: Format, console: &mut Console<'_>) -> Result {
    let model = find(catalog, name)?;
    let mut known = Vec::new();
    for substitute in catalog.substitutes(model.api, name) {
        match find(catalog, substitute) {
            Ok(found) => known.push((substitute, found)),
            Err(_) => writeln!(console.err, "{substitute}: recommended, but not in the catalogue")?,
        }
    }
    if known.is_empty() {
        writeln!(console.err, "the catalogue knows no substitute for {name}")?;
        return Ok(Exit::Failed);
    }
    let own = catalog.prices(model.api, name);
    if format == Format::Json {
        let substitutes: Vec<Value> = known
            .iter()
            .map(|(substitute, found)| {
                let mut json = entry(catalog, substitute, found);
                let theirs = catalog.prices(found.api, substitute);
                json["relative_price"] = json!({
                    "input": share(own, theirs, |prices| prices.input),
                    "output": share(own, theirs, |prices| prices.output),
                });
                json
            })
            .collect();
        console.json(&json!({ "model": entry(catalog, name, model), "substitutes": substitutes }))?;
        return Ok(Exit::Success);
    }
    let mut table =
        Table::new(&["MODEL", "API", "WINDOW", "INPUT $", "OUTPUT $", "AGAINST IT", "LIFECYCLE", "REFUSES"]);
    let mut row = |name: &str, model: &Model, against: String| {
        table.row([
            name.to_owned(),
            model.api.to_string(),
            model.context_window.map(grouped).unwrap_or_default(),
            dollars(catalog, model, name, |prices| prices.input),
            dollars(catalog, model, name, |prices| prices.output),
            against,
            lifecycle(model),
            model.refuses.join(" "),
        ]);
    };
    row(name, model, String::new());
    for (substitute, found) in known {
        let theirs = catalog.prices(found.api, substitute);
        let against = [("in", (|prices| prices.input) as fn(&Prices) -> Decimal), ("out", |prices| prices.output)]
            .into_iter()
            .filter_map(|(side, pick)| Some(format!("{side} ×{}", share(own, theirs, pick)?)))
            .collect::<Vec<_>>();
        row(substitute, found, against.join(", "));
    }
    write!(console.out, "{table}")?;
    Ok(Exit::Success)
}

/// Their price as a share of our own.
fn share(own: Option<&Prices>, theirs: Option<&Prices>, pick: fn(&Prices) -> Decimal) -> Option<Decimal> {
    pick(theirs?).checked_div(pick(own?)).map(|share| share.round_dp(2).normalize())
}
