//! `landbridge explain`: where a job would go, and why, without a daemon.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    exit::{Exit, Failure, Result},
    offline,
    print::{Console, Format},
};
use crate::{
    catalog::tokens::estimate_prompt_tokens,
    engine::world::World,
    job::Envelope,
    names::PipelineName,
    routing::{self, Question, Route, decide},
    spec::condition::Facts,
    wire,
};

/// Say where a job would go, and each reason for it
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Decides with the specs and flags files at hand. Needs no daemon and calls no provider; what only
a daemon knows (runtime flags, rollbacks) is left out. `landbridge jobs why` explains real jobs.

Examples:
  landbridge explain job.json --pipeline ticket-triage
  echo '{\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}' | landbridge explain - -p ticket-triage

Exit codes: 0; 1 no such pipeline, or not a job; 78 bad settings")]
pub struct ExplainArgs {
    /// A file with one job as it would be submitted; `-` for standard input
    #[arg(value_name = "JOB.json")]
    pub job: PathBuf,
    /// The pipeline, instead of the job's own
    #[arg(long, short)]
    pub pipeline: Option<PipelineName>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Largest job that is read.
const MAX_JOB: u64 = 32 * 1024 * 1024;

/// Explains; nothing is stored or called.
///
/// # Errors
/// [`Failure`] when the job or the settings cannot be read, or no pipeline takes it.
pub fn execute(args: &ExplainArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let offline = offline::load(config, &[])?;
    let name = args.job.display();
    let bytes = read_bounded(&args.job).map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    let envelope = Envelope::parse(&bytes).map_err(|error| {
        let param = error.param.as_deref().map_or_else(String::new, |param| format!(" at `{param}`"));
        Failure::new(format!("{name} is not a job{param}: {}", error.message))
    })?;
    let snapshot = offline.snapshot;
    let world = World::new(0, snapshot.clone(), snapshot.flags.clone(), Vec::new());
    let loaded = if let Some(wanted) = args.pipeline.as_ref().or(envelope.pipeline.as_ref()) {
        snapshot.pipelines.get(wanted).ok_or_else(|| Failure::new(snapshot.explain_missing(wanted)))?
    } else {
        let model = envelope.body.get("model").and_then(serde_json::Value::as_str).unwrap_or_default();
        snapshot.accepting(model).ok_or_else(|| {
            Failure::new(format!("{name} names no pipeline, and none accepts model {model:?}; use --pipeline"))
        })?
    };
    let spec = &loaded.pipeline;
    let lane = world.lane(&spec.name).ok_or_else(|| Failure::new(snapshot.explain_missing(&spec.name)))?;
    let prompt_tokens = || estimate_prompt_tokens(&envelope.body);
    let facts = Facts {
        id: "job_explained",
        pipeline: spec.name.as_str(),
        metadata: &envelope.metadata,
        labels: &spec.labels,
        priority: i64::from(envelope.priority.unwrap_or(spec.priority)),
        body: &envelope.body,
        prompt_tokens: &prompt_tokens,
        age_seconds: 0,
    };
    let decision = decide(&Question { pipeline: spec, flags: &lane.flags, facts });
    let record = decision.record(spec, snapshot.generation);
    let mut carried = Vec::new();
    if let Route::Dispatch(chain) = &decision.route {
        for ix in chain {
            let target = spec.target(*ix);
            let model = snapshot.catalog.find(target.api, &target.model);
            carried.push((target, wire::prepare(target, model, &envelope.body)));
        }
    }
    match args.format {
        Format::Json => {
            let targets: Vec<_> = carried
                .iter()
                .map(|(target, prepared)| match prepared {
                    Ok(prepared) => json!({ "target": target.name, "fidelity": prepared.fidelity }),
                    Err(refusal) => {
                        json!({ "target": target.name, "refused": refusal.message, "param": refusal.param })
                    }
                })
                .collect();
            console.json(&json!({ "pipeline": spec.name, "decision": record, "targets": targets }))?;
        }
        Format::Human => {
            writeln!(console.out, "pipeline {} ({})\n{}", spec.name, loaded.file, routing::explain(&record))?;
            for (target, prepared) in &carried {
                match prepared {
                    Ok(prepared) if prepared.fidelity.is_empty() => {
                        writeln!(console.out, "target {}: carried exactly", target.name)?;
                    }
                    Ok(prepared) => {
                        for note in &prepared.fidelity {
                            writeln!(
                                console.out,
                                "target {}: {} {}: {}",
                                target.name, note.parameter, note.action, note.detail
                            )?;
                        }
                    }
                    Err(refusal) => writeln!(console.out, "target {}: cannot carry it: {refusal}", target.name)?,
                }
            }
        }
    }
    Ok(Exit::Success)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_JOB + 1).read_to_end(&mut bytes)?
    } else {
        std::fs::File::open(path)?.take(MAX_JOB + 1).read_to_end(&mut bytes)?
    };
    if read as u64 > MAX_JOB {
        return Err(std::io::Error::other(format!("larger than {} MiB", MAX_JOB >> 20)));
    }
    Ok(bytes)
}
