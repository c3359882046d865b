//! `landbridge iam-policy`: the least that AWS must allow for the specs at hand.
//!
//! Invariant: nothing is granted that no target needs. A model behind an inference profile is granted through that profile
//! alone, in the regions that its geography reaches; targets of OpenAI's protocol elsewhere need nothing.

mod policy;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::Path};

use self::policy::{Need, Policy};
use super::{
    exit::{Exit, Failure, Result},
    offline,
    print::Console,
};
use crate::{
    catalog::CountTokens,
    names::PipelineName,
    settings::{ApiSettings, Settings},
    spec::{Target, residency},
};

/// A managed policy has at most so many characters, white space aside.
const MANAGED_POLICY: usize = 6_144;

/// What to allow
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Converse and InvokeModel calls need bedrock:InvokeModel; so do calls in OpenAI's form on Bedrock.
A model behind an inference profile is allowed through that profile alone, in every region that
the profile's geography reaches.

Examples:
  landbridge iam-policy
  landbridge iam-policy --format json --account 123456789012 > policy.json
  landbridge iam-policy --pipeline ticket-triage --streaming

Exit codes: 0; 1 no target needs anything of AWS; 78 bad settings")]
pub struct IamPolicyArgs {
    /// For this pipeline alone
    #[arg(long, short, value_name = "PIPELINE")]
    pub pipeline: Option<PipelineName>,
    /// The AWS account that inference profiles belong to
    #[arg(long, value_name = "ID", default_value = "ACCOUNT_ID", value_parser = account)]
    pub account: String,
    /// Also what streamed answers of every target need: for live requests that stream
    #[arg(long)]
    pub streaming: bool,
    /// Also what `landbridge explain --count-tokens` needs
    #[arg(long)]
    pub count_tokens: bool,
    /// json: the policy document alone, as AWS takes it
    #[arg(long, value_enum, default_value_t)]
    pub format: super::print::Format,
}

fn account(text: &str) -> std::result::Result<String, String> {
    if text == "ACCOUNT_ID" || text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an AWS account has twelve digits".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] for wrong settings, and when there is no such pipeline.
pub fn execute(args: &IamPolicyArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let offline = offline::load(config, &[])?;
    let snapshot = &offline.snapshot;
    if let Some(wanted) = &args.pipeline
        && !snapshot.pipelines.contains_key(wanted)
    {
        return Err(Failure::new(snapshot.explain_missing(wanted)));
    }
    let broken = snapshot.files.iter().filter(|file| !file.valid).map(|file| file.file.as_str());
    let mut notes: BTreeSet<String> =
        broken.map(|file| format!("{file} is broken and left out; `landbridge check` says why")).collect();
    let mut needs: Vec<Need> = Vec::new();
    for (name, loaded) in &snapshot.pipelines {
        if args.pipeline.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        for target in &loaded.pipeline.targets {
            if !is_on_aws(target, &offline.settings, &mut notes) {
                continue;
            }
            let counts = snapshot
                .catalog
                .find(target.api, &target.model)
                .is_some_and(|model| model.capabilities.count_tokens == CountTokens::Runtime);
            needs.push(Need {
                used_by: format!("{name}/{}", target.name),
                model: target.model.clone(),
                region: region_of(target, &mut notes),
                guardrail: guardrail_of(target),
                whole: !target.stream,
                streamed: target.stream || args.streaming,
                counts: counts && args.count_tokens,
            });
        }
    }
    if needs.is_empty() {
        writeln!(console.err, "no target is on Bedrock: AWS need not allow anything")?;
        return Ok(Exit::Failed);
    }
    let mut policy = Policy::of(&needs, &args.account);
    if offline.settings.quotas.iter().any(|quota| quota.from_aws) {
        policy = policy.reading_quotas();
    }
    notes.extend(policy.notes());
    let document = policy.document();
    let size = document.to_string().len();
    if size > MANAGED_POLICY {
        notes.insert(format!(
            "the policy has {size} characters, a managed one may have {MANAGED_POLICY}: write one for each --pipeline"
        ));
    }
    if args.account == "ACCOUNT_ID" {
        notes.insert("put your account's number for ACCOUNT_ID, or say --account".to_owned());
    }
    match args.format {
        super::print::Format::Json => console.json(&document)?,
        super::print::Format::Human => {
            write!(console.out, "{}", policy.in_words())?;
            writeln!(
                console.out,
                "\nRegions of inference profiles as of {}. --format json prints the policy.",
                residency::REGIONS_AS_OF
            )?;
        }
    }
    for note in notes {
        writeln!(console.err, "note: {note}")?;
    }
    Ok(Exit::Success)
}

/// Whether a target's calls are signed for Bedrock's runtime, or show its key.
fn is_on_aws(target: &Target, settings: &Settings, notes: &mut BTreeSet<String>) -> bool {
    match settings.providers.get(&target.provider).map(|provider| &provider.api) {
        Some(ApiSettings::OpenAi { region: None, .. }) | None => false,
        Some(ApiSettings::OpenAi { aws, base_url, .. }) => {
            if base_url.contains("bedrock-mantle") {
                notes.insert(format!(
                    "provider {} calls Bedrock's Mantle endpoint, whose permissions are its own and not among these",
                    target.provider
                ));
                return false;
            }
            if aws.is_none() {
                notes.insert(format!(
                    "provider {} shows a Bedrock API key: whoever that key stands for needs this policy, and \
                     bedrock:CallWithBearerToken",
                    target.provider
                ));
            }
            true
        }
        Some(ApiSettings::Bedrock { .. }) => true,
    }
}

fn region_of(target: &Target, notes: &mut BTreeSet<String>) -> String {
    if let Some(region) = &target.region {
        return region.to_string();
    }
    notes.insert(format!("target {} names no region: put the one that is called for REGION", target.name));
    "REGION".to_owned()
}

fn guardrail_of(target: &Target) -> Option<String> {
    let set = [&target.overrides, &target.defaults].into_iter().find_map(|parameters| parameters.get("guardrail"))?;
    set.get("id").and_then(serde_json::Value::as_str).map(str::to_owned)
}
