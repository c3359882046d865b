//! `submit --dry-run`: when a batch would be done and what it would cost, before any of it is queued.
//!
//! Invariant: nothing is stored or called. The file is asked about in pieces, so memory is bounded as it is for a real
//! submit; what is queued already is counted once, whatever the number of pieces.

use std::{collections::BTreeMap, time::Duration};

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{
    BadLine, Input, MAX_PRINTED, SubmitArgs, defaults,
    lines::{Lines, MAX_LINE},
    next_chunk,
    prepare::Preparer,
};
use crate::{
    cli::{
        connection::Daemon,
        exit::{Exit, Failure, Result},
        print::{Console, Format, Table, counted, field, grouped, printable},
        progress::byte_bar,
    },
    clock::{Timestamp, format_span},
    engine::Ahead,
    money::Usd,
};

/// What the pieces come to.
#[derive(Debug, Default)]
struct Sum {
    jobs: u64,
    not_dispatched: u64,
    refused: u64,
    cost: Option<Usd>,
    quotas: BTreeMap<String, Ahead>,
    budgets: BTreeMap<String, Value>,
    at: Option<Timestamp>,
    assumes: String,
}

impl Sum {
    fn add(&mut self, jobs: u64, answer: &Value) {
        let count = |value: &Value, key: &str| value[key].as_u64().unwrap_or(0);
        let dollars = |value: &Value, key: &str| field(value, key).parse::<Usd>().ok();
        self.jobs += jobs;
        self.not_dispatched += count(answer, "not_dispatched");
        let cost = dollars(answer, "/cost_at_most_usd");
        self.cost = if self.at.is_none() { cost } else { self.cost.zip(cost).map(|(sum, cost)| sum + cost) };
        self.at = self.at.or_else(|| field(answer, "/at").parse().ok());
        self.assumes = field(answer, "/assumes");
        for (name, ahead) in answer["quotas"].as_object().into_iter().flatten() {
            let sum = self.quotas.entry(name.clone()).or_default();
            sum.jobs += count(ahead, "jobs");
            sum.tokens = sum.tokens.saturating_add(count(ahead, "tokens"));
            sum.queued = count(ahead, "queued");
            sum.requests_per_minute = ahead["requests_per_minute"].as_f64();
            sum.tokens_per_minute = ahead["tokens_per_minute"].as_f64();
            sum.seconds = sum.takes().map(|takes| takes.as_secs());
        }
        for (pipeline, ahead) in answer["budgets"].as_object().into_iter().flatten() {
            let before = self.budgets.get(pipeline).and_then(|before| dollars(before, "/cost_at_most_usd"));
            let cost = dollars(ahead, "/cost_at_most_usd").unwrap_or_default() + before.unwrap_or_default();
            let mut ahead = ahead.clone();
            ahead["cost_at_most_usd"] = json!(cost);
            self.budgets.insert(pipeline.clone(), ahead);
        }
    }

    fn takes(&self) -> Option<Duration> {
        self.quotas.values().filter_map(Ahead::takes).max()
    }

    fn done_at(&self) -> Option<Timestamp> {
        Some(self.at? + self.takes()?)
    }

    fn to_json(&self) -> Value {
        json!({
            "jobs": self.jobs, "refused": self.refused, "not_dispatched": self.not_dispatched, "at": self.at,
            "done_at": self.done_at(), "cost_at_most_usd": self.cost, "quotas": self.quotas, "budgets": self.budgets,
            "assumes": self.assumes,
        })
    }
}

/// Asks about every line, and says what it comes to.
pub(super) async fn execute(
    args: &SubmitArgs,
    daemon: &Daemon,
    input: Input,
    size: Option<u64>,
    console: &mut Console<'_>,
) -> Result {
    let (mut lines, mut preparer, mut carry) = (Lines::new(input, MAX_LINE), Preparer::new(defaults(args)), None);
    let bar = byte_bar(console.progress, size);
    let mut sum = Sum::default();
    let unreadable = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", args.file.display()));
    while let Some(chunk) = next_chunk(&mut lines, &mut preparer, &mut carry).await.map_err(unreadable)? {
        let numbers: Vec<u64> = chunk.jobs.iter().map(|job| job.line).collect();
        let jobs: Vec<Value> = chunk.jobs.iter().filter_map(|job| serde_json::from_str(&job.json).ok()).collect();
        let answer = daemon.post(&["v1", "ops", "forecast"]).json(&json!({ "jobs": jobs })).send().await?;
        let mut bad: Vec<BadLine> = chunk.bad;
        for refused in answer["refused"].as_array().into_iter().flatten() {
            let place = refused["job"].as_u64().and_then(|place| usize::try_from(place).ok());
            let line = place.and_then(|place| numbers.get(place)).copied().unwrap_or_default();
            bad.push(BadLine { line, message: field(refused, "/message") });
        }
        bad.sort_by_key(|bad| bad.line);
        for BadLine { line, message } in &bad {
            sum.refused += 1;
            if sum.refused <= MAX_PRINTED {
                let text = format!("{}:{line}: {}", args.file.display(), printable(message));
                bar.suspend(|| writeln!(console.err, "{text}"))?;
            }
        }
        sum.add(numbers.len() as u64, &answer);
        bar.set_position(chunk.consumed);
    }
    bar.finish_and_clear();
    if args.format == Format::Json {
        console.json(&sum.to_json())?;
    } else {
        print(&sum, console)?;
    }
    Ok(if sum.refused == 0 { Exit::Success } else { Exit::Failed })
}

fn print(sum: &Sum, console: &mut Console<'_>) -> Result<()> {
    writeln!(console.out, "{}; nothing was queued", counted(sum.jobs, "job"))?;
    if sum.refused > 0 {
        writeln!(console.out, "{} would be refused", counted(sum.refused, "line"))?;
    }
    if sum.not_dispatched > 0 {
        writeln!(console.out, "{} would be held, or no target would take them", counted(sum.not_dispatched, "job"))?;
    }
    let mut table = Table::new(&["QUOTA", "JOBS", "QUEUED", "TOKENS", "TAKES"]);
    for (name, ahead) in &sum.quotas {
        let takes = ahead.seconds.map_or("not limited, or not known".to_owned(), in_words);
        table.row([name.clone(), grouped(ahead.jobs), grouped(ahead.queued), grouped(ahead.tokens), takes]);
    }
    if !sum.quotas.is_empty() {
        write!(console.out, "{table}")?;
    }
    match (sum.done_at(), sum.takes()) {
        (Some(done), Some(takes)) => {
            writeln!(console.out, "the last one goes at about {done}, in {}", in_words(takes.as_secs()))?;
        }
        _ => writeln!(console.out, "no quota is known that would make them wait")?,
    }
    match sum.cost {
        Some(cost) => writeln!(console.out, "they cost at most {} US dollars", cost.0.round_dp(4).normalize())?,
        None => writeln!(console.out, "what they cost is not known: a price is missing in the catalogue")?,
    }
    for (pipeline, ahead) in &sum.budgets {
        let amount = |key: &str| field(ahead, key).parse::<Decimal>().unwrap_or_default();
        let (left, cost) = (amount("/left_usd"), amount("/cost_at_most_usd"));
        if cost > left {
            writeln!(
                console.out,
                "pipeline {pipeline} has {left} US dollars left for this {}, and they may cost it {}: what does not fit \
                 waits until {}, or goes as its `budget` says",
                field(ahead, "/period"),
                cost.round_dp(4).normalize(),
                field(ahead, "/opens_at"),
            )?;
        }
    }
    writeln!(console.out, "({})", sum.assumes)?;
    Ok(())
}

fn in_words(seconds: u64) -> String {
    if seconds == 0 { "less than 1s".to_owned() } else { format_span(Duration::from_secs(seconds)) }
}
