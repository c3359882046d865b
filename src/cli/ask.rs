//! `landbridge ask`: one prompt to one model, streamed to the terminal, then what it took.
//!
//! Invariant: what the model says goes to standard output and nothing else does; notes, numbers and problems go to standard
//! error. A model that no longer exists is not called, and nothing stands in for it unasked.

mod answer;
mod choose;
mod conversation;
mod render;
#[cfg(test)]
mod tests;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use self::{
    answer::Answered,
    choose::{Chosen, Wish},
    conversation::History,
    render::Render,
};
use super::{
    exit::{Exit, Failure, Result},
    local::Local,
    print::{Console, printable},
};
use crate::{
    catalog::{Catalog, Fit},
    clock::{Clock, SystemClock, parse_span},
    engine::size,
    names::ProviderName,
    provider,
    settings::{self, Settings},
    simulate::{SimulateOptions, Simulation},
    spec::model_definition::{self, AnswerFormat},
    wire::{self, Prepared},
};

/// Provider accounts where no settings file says which there are.
const DEFAULT_ACCOUNTS: &str = "\
providers:
  openai: { api: openai, api_key: { env: OPENAI_API_KEY } }
  bedrock: { api: bedrock }
";
/// Where the settings are when nobody says otherwise.
const DEFAULT_SETTINGS: &str = "config/landbridge.yaml";
/// Largest model definition.
const MAX_DEFINITION: u64 = 1 << 20;

/// What to ask, and whom
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The answer goes to standard output; tokens, time and cost go to standard error. Accounts are those
of the settings file; without one, OPENAI_API_KEY and the AWS credentials of the environment.

Examples:
  landbridge ask -m config/models/claude-haiku-4-5.json -p prompt.txt
  landbridge ask -m config/models/gpt-5.4-mini.json -p - -c notes.md -c log.txt < question.txt
  landbridge ask -m config/models/claude-3-sonnet.json -p prompt.txt --use-substitute
  landbridge ask -m config/models/claude-haiku-4-5.json -p prompt.txt --provider openai

Exit codes: 0; 1 no answer, or not all of it; 78 bad settings")]
pub struct AskArgs {
    /// The model's definition, such as config/models/claude-haiku-4-5.json
    #[arg(long = "model-file", short, value_name = "MODEL.json")]
    pub model_file: PathBuf,
    /// The prompt; `-` for standard input
    #[arg(long, short, value_name = "PROMPT.txt")]
    pub prompt: PathBuf,
    /// A file that the prompt speaks of; may be given many times
    #[arg(long, short, value_name = "FILE")]
    pub context: Vec<PathBuf>,
    /// A conversation that goes on, and is kept: OpenAI's messages as JSON; made when it is not there
    #[arg(long, value_name = "H.json")]
    pub history: Option<PathBuf>,
    /// Another provider than the definition's, with the model's substitute there
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<ProviderName>,
    /// Another model than the definition's, as the provider names it
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Where the definition's model is shut down, use what the catalogue recommends instead
    #[arg(long, conflicts_with = "model")]
    pub use_substitute: bool,
    /// The longest wait for the whole answer
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = parse_span)]
    pub timeout: Duration,
    /// Print the answer as it comes, whatever the definition's `format`
    #[arg(long)]
    pub plain: bool,
    /// Ask simulated endpoints: no call leaves this machine
    #[arg(long)]
    pub simulate: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] for files that cannot be read, models that no longer serve, and calls that fail.
pub async fn execute(args: &AskArgs, config: &Path, console: &mut Console<'_>) -> Result {
    provider::install_crypto();
    let catalog = Arc::new(Local::read(config)?.catalog()?);
    let mut settings = accounts(config, console)?;
    let simulation = if args.simulate { Some(simulate(&catalog, &mut settings).await?) } else { None };
    let definition = definition(&args.model_file, console)?;
    let wish = Wish {
        provider: args.provider.as_ref(),
        model: args.model.as_deref(),
        use_substitute: args.use_substitute,
        timeout: args.timeout,
    };
    let file = args.model_file.display().to_string();
    let today = SystemClock.now().date();
    let chosen = choose::choose(&file, &definition, &wish, &settings.provider_facts(), &catalog, today)?;
    for note in &chosen.notes {
        writeln!(console.err, "note: {}", printable(note))?;
    }
    let history = args.history.as_deref().map(History::read).transpose()?;
    let said = conversation::message(&args.prompt, &args.context)?;
    let messages = history.as_ref().map_or(&[][..], History::messages);
    let body = json!({ "messages": messages.iter().chain([&said]).collect::<Vec<_>>() });
    let prepared = prepare(&chosen, &catalog, &body, console)?;
    let client = {
        let account = settings.providers.get(&chosen.target.provider);
        let account = account.ok_or_else(|| Failure::new(format!("no provider {}", chosen.target.provider)))?;
        let connected = provider::connect(&chosen.target.provider, account, &settings.media).await;
        connected.map_err(|error| Failure::settings(error.to_string()))?
    };
    let markdown = definition.format == Some(AnswerFormat::Markdown) && !args.plain;
    let terminal = std::io::stdout().is_terminal();
    let render = Render::new(terminal, markdown && terminal && std::env::var_os("NO_COLOR").is_none());
    let answered = answer::ask(client.as_ref(), &chosen.target, prepared, render, console).await;
    if let Some(simulation) = simulation {
        simulation.stop().await;
    }
    let answered = answered?;
    if let (Some(history), Some(text)) = (history, &answered.text) {
        history.keep(said, text)?;
    }
    let multiplier = settings.prices.get(&chosen.target.provider).map(|price| price.multiplier);
    tell(&answered, &chosen, &catalog, multiplier.unwrap_or(rust_decimal::Decimal::ONE), console)?;
    Ok(Exit::Success)
}

/// The settings at hand; the usual accounts where there is no settings file.
fn accounts(config: &Path, console: &mut Console<'_>) -> Result<Settings> {
    let environment = settings::environment();
    let loaded = if config == Path::new(DEFAULT_SETTINGS) && !config.exists() {
        Settings::read(config, DEFAULT_ACCOUNTS.as_bytes(), &environment, &[])
    } else {
        Settings::load(config, &environment, &[])
    };
    let loaded = loaded.map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::settings(words.join("\n\n"))
    })?;
    for warning in loaded.warnings {
        writeln!(console.err, "{warning}")?;
    }
    Ok(loaded.settings)
}

async fn simulate(catalog: &Arc<Catalog>, settings: &mut Settings) -> Result<Simulation> {
    let options = SimulateOptions { catalog: Arc::clone(catalog), ..SimulateOptions::default() };
    let simulation = Simulation::start(options).await.map_err(|error| Failure::new(error.to_string()))?;
    settings.point_at(&simulation.openai_base_url(), &simulation.bedrock_endpoint_url());
    Ok(simulation)
}

fn definition(path: &Path, console: &mut Console<'_>) -> Result<model_definition::ModelDefinition> {
    let name = path.display().to_string();
    let bytes = conversation::read_bounded(path, MAX_DEFINITION)?;
    let (definition, problems) = model_definition::read(&name, &bytes);
    let Some(definition) = definition else {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(Failure::new(words.join("\n\n")));
    };
    for problem in problems {
        writeln!(console.err, "{problem}")?;
    }
    Ok(definition)
}

/// Translates the request; tells what is inexact, and refuses what cannot fit.
fn prepare(chosen: &Chosen, catalog: &Catalog, body: &Value, console: &mut Console<'_>) -> Result<Prepared> {
    let target = &chosen.target;
    let model = catalog.find(target.api, &target.model);
    let prepared = wire::prepare(target, model, body).map_err(|refusal| Failure::new(refusal.message))?;
    let sized = size::count(body, target, model, prepared.max_output_tokens);
    if let Fit::TooLong(limit) = sized.fit {
        return Err(Failure::new(format!(
            "the prompt is too long for {}, and nothing was sent: {}",
            target.model,
            limit.exceeded_by(sized.prompt)
        )));
    }
    for note in &prepared.fidelity {
        writeln!(console.err, "note: {} {}: {}", note.parameter, note.action, printable(&note.detail))?;
    }
    Ok(prepared)
}

/// What it took.
fn tell(
    answered: &Answered,
    chosen: &Chosen,
    catalog: &Catalog,
    multiplier: rust_decimal::Decimal,
    console: &mut Console<'_>,
) -> Result<()> {
    let target = &chosen.target;
    let mut parts = vec![format!("{} on {}", target.model, target.provider)];
    if let Some(usage) = &answered.usage {
        let of = |count: u64, what: &str| if count > 0 { format!(" ({count} {what})") } else { String::new() };
        parts.push(format!("{} tokens in{}", usage.prompt(), of(usage.cache_read, "from the cache")));
        parts.push(format!("{} out{}", usage.output, of(usage.reasoning, "of reasoning")));
    } else {
        parts.push("the provider did not say how many tokens".to_owned());
    }
    if let Some(first) = answered.first_token {
        parts.push(format!("first token after {:.2} s", first.as_secs_f64()));
        let speaking = answered.took.saturating_sub(first).as_secs_f64();
        if let Some(usage) = answered.usage.filter(|usage| usage.output > 1 && speaking > 0.0) {
            parts.push(format!("{:.0} tokens/s", usage.output as f64 / speaking));
        }
    }
    parts.push(format!("{:.2} s in all", answered.took.as_secs_f64()));
    let cost =
        answered.usage.and_then(|usage| catalog.cost(target.api, &target.model, &usage, answered.tier, multiplier));
    parts.push(match cost {
        Some(cost) => format!("{cost} US dollars"),
        None => "cost not known: the catalogue has no price for it".to_owned(),
    });
    writeln!(console.err, "{}", printable(&parts.join(" · ")))?;
    Ok(())
}
