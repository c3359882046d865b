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
    catalog::Fit,
    engine::{
        explain::{Carriage, Foreseen},
        size::{self, Size},
        world::World,
    },
    job::Envelope,
    names::PipelineName,
    routing,
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
    let mut envelope = Envelope::parse(&bytes).map_err(|error| {
        let param = error.param.as_deref().map_or_else(String::new, |param| format!(" at `{param}`"));
        Failure::new(format!("{name} is not a job{param}: {}", error.message))
    })?;
    if let Some(wanted) = &args.pipeline {
        envelope.pipeline = Some(wanted.clone());
    }
    let snapshot = offline.snapshot;
    let world = World::new(0, snapshot.clone(), snapshot.flags.clone(), Vec::new(), Arc::default());
    let foreseen = world.foresee(&envelope, size::count).map_err(|error| Failure::new(error.to_string()))?;
    let Foreseen { pipeline, decision, chain } = &foreseen;
    let counted = if args.count_tokens { Some(count::count(&offline.settings, chain, &envelope.body)?) } else { None };
    match args.format {
        Format::Json => {
            let mut targets: Vec<Value> = chain.iter().map(Carriage::to_json).collect();
            for (target, counted) in targets.iter_mut().zip(counted.iter().flatten()) {
                target["counted_tokens"] = counted.to_json();
            }
            console.json(&json!({ "pipeline": pipeline, "decision": decision, "targets": targets }))?;
        }
        Format::Human => {
            let file = snapshot.pipelines.get(pipeline).map_or("", |loaded| loaded.file.as_str());
            writeln!(console.out, "pipeline {pipeline} ({file})\n{}", routing::explain(decision))?;
            for (place, carriage) in chain.iter().enumerate() {
                let name = &carriage.target.name;
                for line in carriage.fidelity_in_words() {
                    writeln!(console.out, "target {name}: {line}")?;
                }
                writeln!(console.out, "target {name}: {}", size_in_words(carriage))?;
                if let Some(counted) = counted.as_ref().and_then(|counted| counted.get(place)) {
                    writeln!(console.out, "target {name}: {counted}")?;
                }
            }
        }
    }
    Ok(Exit::Success)
}

fn size_in_words(carriage: &Carriage) -> String {
    let Size { prompt, fit } = carriage.size;
    let tokens = if prompt.least == prompt.most {
        grouped(prompt.most)
    } else {
        format!("{} to {}", grouped(prompt.least), grouped(prompt.most))
    };
    let output = carriage.max_output_tokens();
    let output = output.map(|most| format!(", at most {} of answer", grouped(most))).unwrap_or_default();
    match (fit, carriage.model.as_ref().and_then(|model| model.context_window)) {
        (Fit::TooLong(limit), _) => format!("too long: {}", limit.exceeded_by(prompt)),
        (_, None) => format!("{tokens} prompt tokens{output}; its window is not known"),
        (Fit::MayFit, Some(window)) => {
            format!("{tokens} prompt tokens{output}: may fit its window of {}; the provider will say", grouped(window))
        }
        (Fit::Fits, Some(window)) => {
            format!("{tokens} prompt tokens{output}: fits its window of {}", grouped(window))
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
