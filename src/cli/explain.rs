//! `landbridge explain`: where a job would go, and why, without a daemon.

mod count;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    exit::{Exit, Failure, Result},
    offline,
    print::{Console, Format, grouped},
};
use crate::{
    catalog::{Fit, Model},
    engine::{
        size::{self, Size},
        world::World,
    },
    job::Envelope,
    names::PipelineName,
    routing::{self, Question, Route, decide_counting, prompt::prompt_tokens},
    spec::{Target, condition::Facts},
    wire::{self, Prepared, Refusal},
};

/// Say where a job would go, and each reason for it
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Decides with the specs and flags files at hand. Needs no daemon and calls no provider, unless
--count-tokens asks Bedrock; what only a daemon knows (runtime flags, rollbacks) is left out.
`landbridge jobs why` explains real jobs. Prompt tokens are estimated between bounds, and counted
where the bounds leave a doubt.

Examples:
  landbridge explain job.json --pipeline ticket-triage
  landbridge explain job.json --count-tokens
  echo '{\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}' | landbridge explain - -p ticket-triage

Exit codes: 0; 1 no such pipeline, or not a job; 78 bad settings")]
pub struct ExplainArgs {
    /// A file with one job as it would be submitted; `-` for standard input
    #[arg(value_name = "JOB.json")]
    pub job: PathBuf,
    /// The pipeline, instead of the job's own
    #[arg(long, short)]
    pub pipeline: Option<PipelineName>,
    /// Also have the prompt counted: here for OpenAI's models, by Bedrock's CountTokens (no charge) for those that it
    /// serves
    #[arg(long)]
    pub count_tokens: bool,
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
        let model = envelope.body.get("model").and_then(Value::as_str).unwrap_or_default();
        snapshot.accepting(model).ok_or_else(|| {
            Failure::new(format!("{name} names no pipeline, and none accepts model {model:?}; use --pipeline"))
        })?
    };
    let spec = &loaded.pipeline;
    let lane = world.lane(&spec.name).ok_or_else(|| Failure::new(snapshot.explain_missing(&spec.name)))?;
    let prompt_tokens = || prompt_tokens(&envelope.body);
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
    let decision = decide_counting(&Question { pipeline: spec, flags: &lane.flags, facts });
    let record = decision.record(spec, snapshot.generation);
    let mut carried = Vec::new();
    if let Route::Dispatch(chain) = &decision.route {
        for ix in chain {
            let target = spec.target(*ix);
            let model = snapshot.catalog.find(target.api, &target.model);
            let prepared = wire::prepare(target, model, &envelope.body);
            let output = prepared.as_ref().ok().and_then(|prepared| prepared.max_output_tokens);
            let size = size::count(&envelope.body, target, model, output);
            carried.push(Carried { target, model, body: &envelope.body, prepared, output, size });
        }
    }
    let counted = if args.count_tokens { Some(count::count(&offline.settings, &carried)?) } else { None };
    match args.format {
        Format::Json => {
            let mut targets: Vec<Value> = carried.iter().map(Carried::to_json).collect();
            for (target, counted) in targets.iter_mut().zip(counted.iter().flatten()) {
                target["counted_tokens"] = counted.to_json();
            }
            console.json(&json!({ "pipeline": spec.name, "decision": record, "targets": targets }))?;
        }
        Format::Human => {
            writeln!(console.out, "pipeline {} ({})\n{}", spec.name, loaded.file, routing::explain(&record))?;
            for (place, target) in carried.iter().enumerate() {
                for line in target.in_words() {
                    writeln!(console.out, "target {}: {line}", target.target.name)?;
                }
                if let Some(counted) = counted.as_ref().and_then(|counted| counted.get(place)) {
                    writeln!(console.out, "target {}: {counted}", target.target.name)?;
                }
            }
        }
    }
    Ok(Exit::Success)
}

/// A target of the chain, and what would be sent there.
pub(super) struct Carried<'a> {
    pub(super) target: &'a Arc<Target>,
    pub(super) model: Option<&'a Model>,
    pub(super) body: &'a Value,
    pub(super) prepared: std::result::Result<Prepared, Refusal>,
    /// The longest answer.
    output: Option<u64>,
    size: Size,
}

impl Carried<'_> {
    fn to_json(&self) -> Value {
        let Size { prompt, fit } = self.size;
        let mut json = match &self.prepared {
            Ok(prepared) => json!({ "target": self.target.name, "fidelity": prepared.fidelity }),
            Err(refusal) => json!({ "target": self.target.name, "refused": refusal.message, "param": refusal.param }),
        };
        json["prompt_tokens"] = json!({ "at_least": prompt.least, "at_most": prompt.most });
        json["max_output_tokens"] = json!(self.output);
        json["context_window"] = json!(self.model.and_then(|model| model.context_window));
        json["fits"] = match fit {
            Fit::Fits => json!(true),
            Fit::MayFit => Value::Null,
            Fit::TooLong(_) => json!(false),
        };
        json
    }

    fn in_words(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.prepared {
            Ok(prepared) if prepared.fidelity.is_empty() => lines.push("carried exactly".to_owned()),
            Ok(prepared) => lines.extend(
                prepared.fidelity.iter().map(|note| format!("{} {}: {}", note.parameter, note.action, note.detail)),
            ),
            Err(refusal) => lines.push(format!("cannot carry it: {refusal}")),
        }
        lines.push(self.size_in_words());
        lines
    }

    fn size_in_words(&self) -> String {
        let Size { prompt, fit } = self.size;
        let tokens = if prompt.least == prompt.most {
            grouped(prompt.most)
        } else {
            format!("{} to {}", grouped(prompt.least), grouped(prompt.most))
        };
        let output = self.output.map(|most| format!(", at most {} of answer", grouped(most))).unwrap_or_default();
        match (fit, self.model.and_then(|model| model.context_window)) {
            (Fit::TooLong(limit), _) => format!("too long: {}", limit.exceeded_by(prompt)),
            (_, None) => format!("{tokens} prompt tokens{output}; its window is not known"),
            (Fit::MayFit, Some(window)) => format!(
                "{tokens} prompt tokens{output}: may fit its window of {}; the provider will say",
                grouped(window)
            ),
            (Fit::Fits, Some(window)) => {
                format!("{tokens} prompt tokens{output}: fits its window of {}", grouped(window))
            }
        }
    }
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
