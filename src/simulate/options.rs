//! The command line of simulated endpoints.

use std::{sync::Arc, time::Duration};

use super::{
    config::{DEFAULT_JOURNAL, LARGEST_JOURNAL, ModelPolicy, SimulationConfig},
    model::{FaultRule, Latency, Quota, Scope, Scoped},
};
use crate::{catalog::Catalog, clock::parse_span, spec::Api};

/// How simulated endpoints behave. SCOPE is `all`, `openai`, `bedrock`, `openai/MODEL-GLOB` or `bedrock/MODEL-GLOB`.
#[derive(Debug, Clone, clap::Args)]
pub struct SimulateOptions {
    /// Port on 127.0.0.1; 0 takes any that is free
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub port: u16,
    /// Latency of OpenAI calls: 200ms, uniform:100ms,300ms or lognormal:median=800ms,p95=3s
    #[arg(long, value_name = "LATENCY")]
    pub openai_latency: Option<Latency>,
    /// Latency of Bedrock calls, in the same forms
    #[arg(long, value_name = "LATENCY")]
    pub bedrock_latency: Option<Latency>,
    /// Latency of some calls, as SCOPE=LATENCY, such as bedrock/us.anthropic.*=2s; the last that covers a call holds
    #[arg(long, value_name = "SCOPE=LATENCY")]
    pub latency: Vec<Scoped<Latency>>,
    /// What is granted, for each model and region, such as openai/gpt-5.4-mini=requests_per_minute=500,tokens_per_minute=200000
    #[arg(long, value_name = "SCOPE=QUOTA")]
    pub quota: Vec<Scoped<Quota>>,
    /// What goes wrong, such as bedrock=throttled,retry_after=2s,probability=0.1 or all=server-error,count=5,from=10s,for=30s
    #[arg(
        long,
        value_name = "SCOPE=FAULT",
        long_help = "What goes wrong, such as bedrock=throttled,retry_after=2s,probability=0.1. The first that strikes a \
                     call holds. Faults: throttled, quota-exhausted, server-error, overloaded (status=503|529), \
                     model-timeout, hang, reset (bytes=N), bad-gateway, broken-json, unauthorized, forbidden, \
                     model-not-found, end-of-life, context-length, content-filter, refused, slow-drip (over=10s); and of \
                     streamed calls stream-cut, stream-stall, stream-error (pieces=N). Each with probability=, count=, from= and for=; throttled and overloaded with retry_after="
    )]
    pub fault: Vec<Scoped<FaultRule>>,
    /// How much refill a quota's bucket holds
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = parse_span)]
    pub burst: Duration,
    /// Where chance starts: the same seed, the same latencies and faults
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Which models there are
    #[arg(long, value_enum, default_value_t = ModelPolicy::Catalogue)]
    pub simulated_models: ModelPolicy,
    /// Refuse calls without credentials (any credentials do)
    #[arg(long)]
    pub require_auth: bool,
    /// Calls kept in the journal; 0 for none
    #[arg(long, default_value_t = DEFAULT_JOURNAL, value_name = "CALLS", value_parser = journal_size)]
    pub journal: usize,
    /// What is known of models.
    #[arg(skip)]
    pub catalog: Arc<Catalog>,
}

fn journal_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    if size > LARGEST_JOURNAL { Err(format!("at most {LARGEST_JOURNAL} calls are kept")) } else { Ok(size) }
}

impl Default for SimulateOptions {
    fn default() -> Self {
        let SimulationConfig { seed, burst, latency, quotas, faults, models, require_auth, journal } =
            SimulationConfig::default();
        Self {
            port: 0,
            openai_latency: None,
            bedrock_latency: None,
            latency,
            quota: quotas,
            fault: faults,
            burst,
            seed,
            simulated_models: models,
            require_auth,
            journal,
            catalog: Arc::default(),
        }
    }
}

impl SimulateOptions {
    /// As the settings that can be changed at run time.
    pub fn config(&self) -> SimulationConfig {
        let whole = [(Api::OpenAi, self.openai_latency), (Api::Bedrock, self.bedrock_latency)]
            .into_iter()
            .filter_map(|(api, latency)| latency.map(|value| Scoped { scope: Scope::of(api), value }));
        SimulationConfig {
            seed: self.seed,
            burst: self.burst,
            latency: whole.chain(self.latency.iter().cloned()).collect(),
            quotas: self.quota.clone(),
            faults: self.fault.clone(),
            models: self.simulated_models,
            require_auth: self.require_auth,
            journal: self.journal,
        }
    }
}
