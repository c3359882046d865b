//! `landbridge doctor`: would a daemon with these settings be able to work? Asks the providers one token each.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::json;

use super::{
    exit::{Exit, Failure, Result},
    offline,
    print::{Console, Format},
};
use crate::{
    engine::health::TargetKey,
    ids::JobId,
    provider::{self, Call},
    spec::{Parameters, Target},
    wire,
};

/// Check credentials, regions, quotas and limits of this machine
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Makes one tiny call to each target (which is billed), unless --no-calls is given.

Examples:
  landbridge doctor
  landbridge doctor --no-calls --format json

Exit codes: 0 all well; 1 problems; 78 bad settings")]
pub struct DoctorArgs {
    /// Call no provider
    #[arg(long)]
    pub no_calls: bool,
    /// The form of the findings
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// How long one test call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Open files below which a daemon with many calls in flight would starve.
const FEW_FILES: u64 = 4_096;

struct Finding {
    what: String,
    fine: bool,
    detail: String,
}

/// Examines settings, specs, limits and one call for each target; exit code 1 when something is wrong.
///
/// # Errors
/// [`Failure`] for wrong settings.
pub async fn execute(args: &DoctorArgs, config: &Path, console: &mut Console<'_>) -> Result {
    provider::install_crypto();
    let offline = offline::load(config, &[])?;
    let mut findings = vec![Finding {
        what: format!("settings {}", config.display()),
        fine: true,
        detail: format!("{} provider(s)", offline.settings.providers.len()),
    }];
    for file in &offline.snapshot.files {
        let errors = file.diagnostics.iter().filter(|problem| problem.is_error()).count();
        let warnings = file.diagnostics.len() - errors;
        let detail = format!("{errors} error(s), {warnings} warning(s); see `landbridge check`");
        let fine = file.valid && errors == 0;
        findings.push(Finding { what: file.file.clone(), fine, detail });
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    findings.push(Finding {
        what: "open files".to_owned(),
        fine: files >= FEW_FILES,
        detail: format!("at most {files}; each call in flight needs one, raise `ulimit -n` for more"),
    });
    for quota in &offline.settings.quotas {
        let known = offline.settings.providers.contains_key(&quota.provider);
        let detail = if quota.from_aws && known {
            "left to AWS Service Quotas; the daemon's log says what cannot be read".to_owned()
        } else if known {
            "configured".to_owned()
        } else {
            "names a provider that is not configured".to_owned()
        };
        findings.push(Finding { what: format!("quota {}/{}", quota.provider, quota.model), fine: known, detail });
    }
    if !args.no_calls {
        let providers = provider::connect_all(&offline.settings).await.map_err(|errors| {
            Failure::settings(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let mut seen = BTreeSet::new();
        for loaded in offline.snapshot.pipelines.values() {
            for target in &loaded.pipeline.targets {
                if !seen.insert(TargetKey::of(target)) {
                    continue;
                }
                let region = target.region.as_ref().map_or_else(String::new, |region| format!(" in {region}"));
                let what = format!("{} {}{region}", target.provider, target.model);
                let model = offline.snapshot.catalog.find(target.api, &target.model);
                let body = json!({ "messages": [{ "role": "user", "content": "Say OK." }], "max_tokens": 16 });
                let plain =
                    Target { defaults: Parameters::default(), overrides: Parameters::default(), ..(**target).clone() };
                let prepared = wire::prepare(&plain, model, &body);
                let client = providers.get(&target.provider);
                let (fine, detail) = match (prepared, client) {
                    (Ok(prepared), Some(client)) => {
                        let call = Call {
                            job: JobId::generate(),
                            target: target.clone(),
                            payload: prepared.payload,
                            reading: prepared.reading,
                            timeout: CALL_TIMEOUT,
                            idle_timeout: target.idle_timeout,
                        };
                        // As jobs are called: what only streams or only invokes must be seen to do so.
                        let asked = if target.stream {
                            match client.stream(call).await {
                                Ok(stream) => stream.gather(tokio::time::Instant::now()).await.outcome,
                                Err(error) => Err(error),
                            }
                        } else {
                            client.chat(call).await
                        };
                        match asked {
                            Ok(_) => (true, "answers".to_owned()),
                            Err(error) => {
                                let advice = error.advice.map_or_else(String::new, |advice| format!("; {advice}"));
                                (false, format!("{}: {}{advice}", error.fault, error.message))
                            }
                        }
                    }
                    (Err(refusal), _) => (false, refusal.message),
                    (_, None) => (false, "its provider is not configured".to_owned()),
                };
                findings.push(Finding { what, fine, detail });
            }
        }
    }
    match args.format {
        Format::Json => {
            let rows: Vec<_> = findings
                .iter()
                .map(|finding| json!({ "what": finding.what, "fine": finding.fine, "detail": finding.detail }))
                .collect();
            console.json(&json!({ "findings": rows }))?;
        }
        Format::Human => {
            for finding in &findings {
                let mark = if finding.fine { "ok     " } else { "PROBLEM" };
                writeln!(console.out, "{mark}  {}: {}", finding.what, finding.detail)?;
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.fine) { Exit::Success } else { Exit::Failed })
}
