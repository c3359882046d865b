//! A decision in names and plain sentences: what the ledger keeps, `jobs why` prints and `explain` predicts.
//!
//! Invariant: every reason becomes a sentence that an operator understands without this source; names come from the
//! pipeline that decided. A record is bounded: long runs of rules that did not match become one sentence.

use std::fmt::Write;

use super::{
    decision::{Assignment, Counted, Decision, DecisionRecord, Reason, Route},
    flags::{EffectiveFlags, FlagSource},
};
use crate::{
    job::HoldReason,
    money::BasisPoints,
    names::ProviderName,
    spec::{Confinement, Course, Destination, Flag, MissingKey, OnMissing, Pipeline, TargetIx, flags::FlagLevel},
};

/// From so many rules in a row that did not match, they share a sentence.
const RUN: usize = 4;
/// A longer value from a job or a spec is cut here in a sentence.
const LONGEST_QUOTE: usize = 120;

impl Decision {
    /// The decision in names and words.
    pub fn record(&self, pipeline: &Pipeline, generation: u64) -> DecisionRecord {
        let rollout = self.arm.map(|choice| pipeline.rollout(choice.rollout));
        let (chain, held) = match &self.route {
            Route::Dispatch(chain) => (chain.iter().map(|target| target_name(pipeline, *target)).collect(), None),
            Route::Hold(reason) => (Vec::new(), Some(*reason)),
        };
        DecisionRecord {
            generation,
            rule: self.rule.and_then(|rule| pipeline.route.get(usize::from(rule))).map(|rule| rule.name.to_string()),
            chain,
            held,
            rollout: rollout.map(|rollout| rollout.name.clone()),
            assigned: self.arm.map(|choice| choice.assigned),
            served: self.arm.map(|choice| choice.served),
            bucket: self.arm.and_then(|choice| choice.bucket),
            reasons: self.sentences(pipeline),
        }
    }

    /// The evidence that this decision is, when it leads to a rollout: kept for good at a job's first dispatch. It counts
    /// only where chance alone chose the arm: not without a key, under a confinement, a forced provider or a rollback.
    pub fn assignment(&self, pipeline: &Pipeline, flags: &EffectiveFlags) -> Option<Assignment> {
        let choice = self.arm?;
        let keyless = self.reasons.iter().any(|reason| matches!(reason, Reason::KeyMissing { .. }));
        let confined = self.rule.and_then(|rule| pipeline.route.get(usize::from(rule)))?.confine.is_some();
        let evidence = !keyless && !confined && !flags.overrides_rollouts();
        let counted = (evidence && choice.revision > 0).then_some(Counted {
            revision: choice.revision,
            share: choice.percent,
            number: None,
        });
        Some(Assignment {
            rollout: pipeline.rollout(choice.rollout).name.clone(),
            arm: choice.assigned,
            bucket: choice.bucket,
            evidence,
            counted,
        })
    }

    fn sentences(&self, pipeline: &Pipeline) -> Vec<String> {
        let mut sentences = Vec::with_capacity(self.reasons.len());
        let mut rest = self.reasons.as_slice();
        while let Some((first, after)) = rest.split_first() {
            let run = rest.iter().take_while(|reason| matches!(reason, Reason::RuleSkipped { .. })).count();
            if let (true, Reason::RuleSkipped { rule }) = (run >= RUN, first) {
                let first = usize::from(*rule) + 1;
                sentences.push(format!("Rules {first} to {} do not match.", first + run - 1));
                rest = rest.get(run..).unwrap_or_default();
            } else {
                sentences.push(self.sentence(first, pipeline));
                rest = after;
            }
        }
        sentences
    }

    fn sentence(&self, reason: &Reason, pipeline: &Pipeline) -> String {
        match reason {
            Reason::RuleSkipped { rule } => format!("{} does not match.", rule_name(pipeline, *rule)),
            Reason::RuleMissing { rule, path, then } => {
                let path = quote(path);
                format!("{} needs {path}, which the job lacks; {}.", rule_name(pipeline, *rule), on_missing(*then))
            }
            Reason::RuleFailed { rule, why, then } => {
                let (rule, why) = (rule_name(pipeline, *rule), quote(why));
                format!("{rule} cannot be evaluated on this job ({why}); {}.", on_missing(*then))
            }
            Reason::RuleMatched { rule } => matched(*rule, pipeline),
            Reason::KeyMissing { then } => self.keyless(*then, pipeline),
            Reason::Bucketed { bucket, percent, arm } => {
                let below = percent.get();
                format!(
                    "Its bucket is {bucket} of 10,000; the candidate takes those below {below} ({percent}), so its arm is \
                     the {arm}."
                )
            }
            Reason::RolledBack => "A rollback is in force, so the rollout serves its baseline.".to_owned(),
            Reason::Confined { removed } => {
                let where_to = self
                    .rule
                    .and_then(|rule| pipeline.route.get(usize::from(rule)))
                    .and_then(|rule| rule.confine.as_ref())
                    .map_or_else(String::new, |confinement| format!(" to {}", confined_to(confinement)));
                format!("Its confinement{where_to} takes {} out of the chain.", targets(*removed))
            }
            Reason::Forced { provider, level, removed } => forced(provider, *level, *removed),
            Reason::ForcedOutsideChain { count } => format!(
                "Nothing of the chain is of that provider, so the pipeline's own {} of it {} instead.",
                targets(*count),
                if *count == 1 { "serves" } else { "serve" }
            ),
            Reason::CandidateWithheld => {
                "The rollout's candidate is left out of the fallback: a job of the baseline does \
                                          not fall back to it before 100 % unless fallback_to_candidate says so, nor \
                                          during a rollback."
                    .to_owned()
            }
            Reason::FallbackDisabled { level } => {
                format!("DISABLE_FALLBACK, set {}, leaves only the first target.", level_words(*level))
            }
            Reason::Held { reason } => format!("The job is held: {}.", hold_words(*reason)),
        }
    }

    fn keyless(&self, then: MissingKey, pipeline: &Pipeline) -> String {
        let rollout = match (self.arm, self.rule.and_then(|rule| pipeline.route.get(usize::from(rule)))) {
            (Some(choice), _) => Some(pipeline.rollout(choice.rollout)),
            (None, Some(rule)) => match rule.to {
                Destination::Rollout(ix) => Some(pipeline.rollout(ix)),
                Destination::Target(_) => None,
            },
            (None, None) => None,
        };
        let key = rollout.map_or("the key of its rollout", |rollout| rollout.key.source());
        let everybody = match (self.arm, rollout.map(|rollout| &rollout.course)) {
            (Some(choice), _) => choice.percent == BasisPoints::ALL,
            (None, course) => course == Some(&Course::Percent(BasisPoints::ALL)),
        };
        let then = match then {
            MissingKey::JobId => "missing_key says job_id, so the job's id is bucketed instead",
            _ if everybody => "at 100 % everybody goes to the candidate all the same",
            MissingKey::Baseline => "missing_key says baseline, so the baseline serves it",
            MissingKey::Hold => "missing_key says hold",
        };
        format!("The job lacks {}, by which the rollout tells jobs apart; {then}.", quote(key))
    }
}

fn matched(place: u16, pipeline: &Pipeline) -> String {
    let name = rule_name(pipeline, place);
    let Some(rule) = pipeline.route.get(usize::from(place)) else { return format!("{name} matches.") };
    let leads = match rule.to {
        Destination::Target(target) => format!("target {}", target_name(pipeline, target)),
        Destination::Rollout(rollout) => format!("rollout {}", pipeline.rollout(rollout).name),
    };
    if rule.when.is_some() {
        format!("{name} matches; it leads to {leads}.")
    } else {
        format!("{name} takes every job that reaches it; it leads to {leads}.")
    }
}

/// The sentences of a decision, numbered, with what comes of it: what `jobs why` prints for an attempt of the ledger.
pub fn explain(record: &DecisionRecord) -> String {
    let mut text = String::new();
    for (n, reason) in (1..).zip(&record.reasons) {
        line(&mut text, n, reason);
    }
    let generation = record.generation;
    let sentence = match record.chain.as_slice() {
        [] => return text,
        [only] => format!("Target {only} is tried, and no other (generation {generation})."),
        [first, rest @ ..] => {
            format!("Target {first} is tried first, then {} (generation {generation}).", rest.join(", "))
        }
    };
    line(&mut text, record.reasons.len() + 1, &sentence);
    text
}

/// [`explain`] after the flags in force, each with where it was set: what `landbridge explain` prints.
pub fn explain_with_flags(record: &DecisionRecord, flags: &EffectiveFlags) -> String {
    let in_force = flags_in_force(flags);
    let mut text = if in_force.is_empty() { "No flag is in force.\n".to_owned() } else { String::new() };
    for flag in in_force {
        text.push_str(&flag);
        text.push('\n');
    }
    text.push_str(&explain(record));
    text
}

/// A sentence for each flag in force, with where it was set.
pub fn flags_in_force(flags: &EffectiveFlags) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut tell = |what: String, source: FlagSource| {
        let scope = match (source.level, source.pipeline_only) {
            (FlagLevel::Spec, _) => "",
            (_, true) => " for this pipeline",
            (_, false) => " for all pipelines",
        };
        sentences.push(format!("{what} is in force: set {}{scope}.", level_words(source.level)));
    };
    if let Some(source) = flags.pause {
        tell(Flag::Pause.to_string(), source);
    }
    for (provider, source) in &flags.forced {
        tell(Flag::Force(provider.clone()).to_string(), *source);
    }
    if let Some(source) = flags.disable_fallback {
        tell(Flag::DisableFallback.to_string(), source);
    }
    if flags.rolled_back {
        sentences.push("A rollback is in force: every rollout serves its baseline.".to_owned());
    }
    sentences
}

/// What a hold means, as the end of a sentence.
pub fn hold_words(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::Paused => "PAUSE is set; it goes on once PAUSE is cleared",
        HoldReason::Budget => "its pipeline's budget is spent; it goes on when the budget allows",
        HoldReason::Confined => "no target that could serve it keeps its data where it must stay",
        HoldReason::PipelineRemoved => "no spec defines its pipeline; it goes on when one does",
        HoldReason::ForcedProviderHasNoTarget => "the pipeline has no target of the forced provider",
        HoldReason::ForcedProvidersConflict => "two different providers are forced at once; clear one of the flags",
        HoldReason::TargetsParked => "every target that could serve it waits for an operator",
        HoldReason::MissingValue => "it lacks a value that its route needs, and the spec says to hold such jobs",
    }
}

fn line(text: &mut String, n: usize, sentence: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{n:>3}. {sentence}");
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn rule_name(pipeline: &Pipeline, place: u16) -> String {
    match pipeline.route.get(usize::from(place)) {
        Some(rule) => format!("Rule {} \"{}\"", usize::from(place) + 1, quote(&rule.name)),
        None => format!("Rule {}", usize::from(place) + 1),
    }
}

fn target_name(pipeline: &Pipeline, target: TargetIx) -> String {
    pipeline.target(target).name.to_string()
}

fn targets(count: u16) -> String {
    if count == 1 { "1 target".to_owned() } else { format!("{count} targets") }
}

fn on_missing(then: OnMissing) -> &'static str {
    match then {
        OnMissing::NoMatch => "on_missing says no_match, so it is passed over",
        OnMissing::Hold => "on_missing says hold",
        OnMissing::Match => "on_missing says match",
    }
}

fn confined_to(confinement: &Confinement) -> String {
    let regions = (!confinement.regions.is_empty()).then(|| format!("regions {}", confinement.regions.join(", ")));
    let providers = (!confinement.providers.is_empty()).then(|| {
        let names: Vec<&str> = confinement.providers.iter().map(ProviderName::as_str).collect();
        format!("providers {}", names.join(", "))
    });
    match (regions, providers) {
        (Some(regions), Some(providers)) => format!("{regions} and {providers}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "nothing".to_owned(),
    }
}

fn forced(provider: &ProviderName, level: FlagLevel, removed: u16) -> String {
    let taken = match removed {
        0 => "nothing had to go".to_owned(),
        removed => format!("{} taken out of the chain", targets(removed)),
    };
    let flag = Flag::Force(provider.clone());
    format!("{flag}, set {}, lets only provider {provider} and its family serve: {taken}.", level_words(level))
}

fn level_words(level: FlagLevel) -> &'static str {
    match level {
        FlagLevel::Spec => "in the pipeline's spec",
        FlagLevel::File => "in config/flags.yaml",
        FlagLevel::Environment => "in the daemon's environment",
        FlagLevel::Runtime => "at run time",
    }
}
