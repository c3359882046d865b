//! `landbridge rehearse`: would the gates of a rollout notice a regression, and how often would they be wrong without one?
//!
//! Invariant: no daemon and no provider is asked; the same seed gives the same answer.

use std::{collections::BTreeMap, path::Path, str::FromStr};

use clap::Args;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    exit::{Exit, Failure, Result},
    offline,
    print::{Console, Format, Table, grouped},
    rollout::parse_which,
};
use crate::{
    names::{PipelineName, RolloutName},
    rollout::{
        State,
        rehearsal::{Law, Rehearsed, rehearsable, rehearse},
    },
    spec::rollout::Plan,
};

/// Most rehearsals, and most jobs of each.
const MOST_RUNS: u64 = 10_000;
const MOST_JOBS: u64 = 10_000_000;

/// A share such as `5%` or `0.5%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let share = text.strip_suffix('%').and_then(|text| text.trim().parse::<f64>().ok());
        let share = share.filter(|share| (0.0..=100.0).contains(share));
        share.map(|share| Self(share / 100.0)).ok_or_else(|| "write a share such as 5% or 0.5%".to_owned())
    }
}

/// Which rollout, and what is wrong with its candidate
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Made-up jobs go through the rollout's own gates and steps, on a clock of their own: once with
the regression, once without. Left out: minimum times, windows, `undecided` and `no_data`;
approvals are given; gates on scores and pairs are not rehearsed.

Examples:
  landbridge rehearse ticket-triage/to-bedrock --failures 5%
  landbridge rehearse ticket-triage/to-bedrock --latency 1.5 --cost 1.3 --runs 500")]
pub struct RehearseArgs {
    /// The rollout
    #[arg(value_name = "PIPELINE/ROLLOUT", value_parser = parse_which)]
    pub which: (PipelineName, RolloutName),
    /// The share of the candidate's jobs that fails
    #[arg(long, value_name = "SHARE")]
    pub failures: Option<Share>,
    /// The share of the candidate's answers that does not validate
    #[arg(long, value_name = "SHARE")]
    pub invalid: Option<Share>,
    /// How many times the baseline's time the candidate takes
    #[arg(long, value_name = "RATIO")]
    pub latency: Option<f64>,
    /// How many times the baseline's cost the candidate costs
    #[arg(long, value_name = "RATIO")]
    pub cost: Option<f64>,
    /// The share of the baseline's jobs that fails
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub baseline_failures: Share,
    /// The share of the baseline's answers that does not validate
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub baseline_invalid: Share,
    /// How far times and costs spread: the standard deviation of their logarithms
    #[arg(long, value_name = "N", default_value_t = 0.5)]
    pub spread: f64,
    /// What a job of the baseline costs, in dollars: against the gate's `cap_usd`
    #[arg(long, value_name = "USD", default_value_t = 0.001)]
    pub dollars: f64,
    /// Rehearsals with, and as many without the regression
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub runs: u64,
    /// Jobs of one rehearsal, of both arms
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub jobs: u64,
    /// Where chance starts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// json: all figures
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when there is no such rollout, or a figure makes no sense.
pub fn execute(args: &RehearseArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let plan = plan_of(args, config)?;
    let (plan, left_out) = rehearsable(&plan);
    let [baseline, candidate] = laws(args)?;
    let with = many(args, &plan, [baseline, candidate])?;
    let without = many(args, &plan, [baseline, baseline])?;
    if args.format == Format::Json {
        console.json(&json!({
            "rollout": format!("{}/{}", args.which.0, args.which.1),
            "runs": args.runs,
            "jobs": args.jobs,
            "alpha": plan.alpha,
            "not_rehearsed": left_out,
            "with": figures(&with),
            "without": figures(&without),
        }))?;
        return Ok(Exit::Success);
    }
    let out = &mut console.out;
    writeln!(
        out,
        "{}/{}: {} rehearsals with the regression and {} without, of up to {} jobs each",
        args.which.0,
        args.which.1,
        grouped(args.runs),
        grouped(args.runs),
        grouped(args.jobs)
    )?;
    writeln!(out, "  baseline:  {}\n  candidate: {}", words(baseline, baseline), words(candidate, baseline))?;
    for gate in &left_out {
        writeln!(out, "  not rehearsed: gate {gate}")?;
    }
    let mut table = Table::new(&["", "STOPPED", "REACHED THE END", "STILL RUNNING", "CANDIDATE'S JOBS UNTIL STOPPED"]);
    for (name, runs) in [("with the regression", &with), ("without", &without)] {
        let stopped: Vec<&Rehearsed> = runs.iter().filter(|run| is_stopped(run)).collect();
        table.row([
            name.to_owned(),
            share(stopped.len(), runs.len()),
            share(runs.iter().filter(|run| run.state == State::Done).count(), runs.len()),
            share(runs.iter().filter(|run| run.state == State::Running).count(), runs.len()),
            spans(&stopped),
        ]);
    }
    write!(out, "{table}")?;
    for (gate, count) in by_gate(&with) {
        writeln!(out, "  {gate}: stopped {} with the regression", share(count, with.len()))?;
    }
    writeln!(out, "  promised: stopped without a regression at most {:.1} % of the time", plan.alpha * 100.0)?;
    Ok(Exit::Success)
}

fn plan_of(args: &RehearseArgs, config: &Path) -> Result<Plan> {
    let (pipeline, rollout) = &args.which;
    let offline = offline::load(config, &[])?;
    let Some(loaded) = offline.snapshot.pipeline(pipeline) else {
        return Err(Failure::new(format!("no valid spec defines the pipeline {pipeline}; ask `landbridge check`")));
    };
    let found = loaded.pipeline.rollouts.iter().find(|known| known.name == *rollout);
    let Some(found) = found else {
        return Err(Failure::new(format!("pipeline {pipeline} has no rollout {rollout}")));
    };
    let gated = found.gated().ok_or_else(|| {
        Failure::new(format!(
            "rollout {pipeline}/{rollout} follows the `percent` in its file: it has no gates to rehearse"
        ))
    })?;
    Ok(gated.plan.clone())
}

fn laws(args: &RehearseArgs) -> Result<[Law; 2]> {
    let sensible = |what: &str, value: f64, most: f64| {
        if value > 0.0 && value <= most {
            Ok(value)
        } else {
            Err(Failure::usage(format!("--{what} {value}: write a number above 0 and at most {most}")))
        }
    };
    for (what, value, most) in [("runs", args.runs, MOST_RUNS), ("jobs", args.jobs, MOST_JOBS)] {
        if value == 0 || value > most {
            return Err(Failure::usage(format!("--{what} {value}: write a number from 1 to {most}")));
        }
    }
    if args.failures.is_none() && args.invalid.is_none() && args.latency.is_none() && args.cost.is_none() {
        return Err(Failure::usage(
            "say what is wrong with the candidate: --failures 5%, --invalid 3%, --latency 1.5 or --cost 1.3",
        ));
    }
    let baseline = Law {
        failures: args.baseline_failures.0,
        invalid: args.baseline_invalid.0,
        seconds: 1.0,
        dollars: sensible("dollars", args.dollars, 1e6)?,
        spread: sensible("spread", args.spread, 3.0)?,
    };
    let candidate = Law {
        failures: args.failures.map_or(baseline.failures, |share| share.0),
        invalid: args.invalid.map_or(baseline.invalid, |share| share.0),
        seconds: sensible("latency", args.latency.unwrap_or(1.0), 1e3)?,
        dollars: baseline.dollars * sensible("cost", args.cost.unwrap_or(1.0), 1e3)?,
        spread: baseline.spread,
    };
    Ok([baseline, candidate])
}

fn many(args: &RehearseArgs, plan: &Plan, laws: [Law; 2]) -> Result<Vec<Rehearsed>> {
    (0..args.runs)
        .map(|run| {
            let mut chance = StdRng::seed_from_u64(args.seed.wrapping_add(run));
            rehearse(plan, laws, args.jobs, &mut || chance.random::<f64>()).map_err(Failure::new)
        })
        .collect()
}

fn is_stopped(run: &Rehearsed) -> bool {
    matches!(run.state, State::Held | State::RolledBack)
}

fn by_gate(runs: &[Rehearsed]) -> BTreeMap<&str, usize> {
    let mut gates = BTreeMap::new();
    for gate in runs.iter().filter_map(|run| run.failed.as_deref()) {
        *gates.entry(gate).or_default() += 1;
    }
    gates
}

/// Median and ninth decile of the candidate's jobs.
fn quantiles(stopped: &[&Rehearsed]) -> Option<[u64; 2]> {
    let mut jobs: Vec<u64> = stopped.iter().map(|run| run.candidate_jobs).collect();
    jobs.sort_unstable();
    let at = |tenths: usize| jobs.get(((jobs.len().saturating_sub(1)) * tenths) / 10).copied();
    Some([at(5)?, at(9)?])
}

fn spans(stopped: &[&Rehearsed]) -> String {
    quantiles(stopped).map_or_else(String::new, |[median, most]| {
        format!("{} in the middle, {} at most in 90 %", grouped(median), grouped(most))
    })
}

fn share(count: usize, of: usize) -> String {
    format!("{:.1} %", count as f64 * 100.0 / of.max(1) as f64)
}

fn words(law: Law, baseline: Law) -> String {
    format!(
        "{:.2} % fail, {:.2} % do not validate, {:.2} × the time, {:.2} × the cost",
        law.failures * 100.0,
        law.invalid * 100.0,
        law.seconds / baseline.seconds,
        law.dollars / baseline.dollars
    )
}

fn figures(runs: &[Rehearsed]) -> Value {
    let stopped: Vec<&Rehearsed> = runs.iter().filter(|run| is_stopped(run)).collect();
    let of = |state: State| runs.iter().filter(|run| run.state == state).count();
    let [median, most] = quantiles(&stopped).map_or([None; 2], |both| both.map(Some));
    json!({
        "stopped": stopped.len(),
        "rolled_back": of(State::RolledBack),
        "held": of(State::Held),
        "done": of(State::Done),
        "running": of(State::Running),
        "by_gate": by_gate(runs),
        "candidate_jobs": { "median": median, "p90": most },
    })
}
