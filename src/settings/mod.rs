//! The daemon's own settings: `config/landbridge.yaml`, then the environment, then flags.
//!
//! Invariant: no secret is ever inside a settings value; it holds where to find one. Unknown keys are errors with a
//! position; keys that are documented but not built are refused by name.

mod diff;
mod environment;
mod layers;
mod load;
mod secret;
mod sections;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use rust_decimal::Decimal;

use crate::{
    access::{KeyLimits, Scope},
    names::{PipelineName, ProviderName, Region},
    quota::{Grant, ProfileClass},
    spec::{Api, Providers},
};

pub use diff::{SettingsDiff, diff};
pub use environment::{Environment, Override, environment, environment_flags};
pub use load::Loaded;
pub use secret::{SecretError, SecretValue};
pub use sections::{addresses::AddressRule, callbacks::Callable};

/// The whole of the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where health and metrics are served alone, without keys.
    pub ops_listen: Option<SocketAddr>,
    /// The watched folder of specs.
    pub pipelines: PathBuf,
    /// The watched folder of model definitions.
    pub models: PathBuf,
    /// `flags.yaml`, beside the settings file; watched.
    pub flags_file: PathBuf,
    /// `catalog.yaml`, beside the settings file; watched.
    pub catalog_file: PathBuf,
    /// What must hold of every spec; may be missing.
    pub policy: PathBuf,
    /// Where jobs are kept.
    pub store: StoreSetting,
    /// By name; never empty.
    pub providers: BTreeMap<ProviderName, ProviderSettings>,
    /// What the providers grant; hot.
    pub quotas: Vec<QuotaSetting>,
    /// Negotiated discounts by provider; hot.
    pub prices: BTreeMap<ProviderName, PriceSetting>,
    /// How long a silent daemon keeps its jobs.
    pub lease: Duration,
    /// How long calls in flight may go on after a signal to stop.
    pub drain: Duration,
    /// How long ledger and audit are kept.
    pub retention: RetentionSettings,
    /// How the folders are watched.
    pub watch: WatchSettings,
    /// Which remote media may be fetched.
    pub media: MediaSettings,
    /// Keys that the settings declare; hot.
    pub keys: Vec<DeclaredKey>,
    /// What the API's listener shows; plain HTTP when `None`.
    pub tls: Option<TlsSettings>,
    /// Requests whose callers wait; hot.
    pub live: LiveSettings,
    /// How large a batch of the OpenAI form may be; hot.
    pub batches: BatchSettings,
    /// Who may be told of ends; nobody when `None`. Hot.
    pub callbacks: Option<CallbackSettings>,
}

/// Who may be told of ends, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct CallbackSettings {
    /// Where the secrets are that sign, each for itself; more than one while they are changed over.
    pub secrets: Vec<Secret>,
    /// Who may be called.
    pub allow: Vec<Callable>,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
}

/// A key by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredKey {
    /// Its name, unique among the declared.
    pub name: String,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// The pipelines it is bound to; empty for all.
    pub pipelines: BTreeSet<PipelineName>,
    /// Where its hash is, as `sha256sum` prints it.
    pub hash: Secret,
    /// What it may use up.
    pub limits: KeyLimits,
}

/// Where the API's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The chain in PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Requests whose callers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveSettings {
    /// From the request to the end of its answer.
    pub deadline: Duration,
}

/// Bounds of batches of the OpenAI form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Lines of an input file.
    pub max_requests: u64,
    /// Bytes of an uploaded file.
    pub max_bytes: u64,
}

/// Where jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSetting {
    /// `memory:`: gone with the process; for simulation.
    Memory,
    /// `sqlite:PATH`.
    Sqlite(PathBuf),
    /// `postgres://…`: shared by several daemons.
    Postgres {
        /// The database.
        url: DatabaseUrl,
        /// `store_direct`: the same database past a pooler, where a connection may listen.
        direct: Option<DatabaseUrl>,
    },
}

/// A database's address, or where it is. An address that stands here holds no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// As written.
    Plain(String),
    /// In the environment, with its password.
    Secret(Secret),
}

impl DatabaseUrl {
    /// Reads it now.
    ///
    /// # Errors
    /// [`SecretError`] when the variable is gone.
    pub fn read(&self) -> Result<SecretValue, SecretError> {
        match self {
            Self::Plain(url) => Ok(SecretValue::of(url)),
            Self::Secret(secret) => secret.read(),
        }
    }
}

/// One provider account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Another provider's kill switch that also matches this one.
    pub family: Option<ProviderName>,
    /// Where a provider without regions keeps data.
    pub data_regions: Vec<Region>,
    /// What its protocol needs.
    pub api: ApiSettings,
}

/// What a protocol needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiSettings {
    /// OpenAI's.
    OpenAi {
        /// Without a slash at the end, such as `https://api.openai.com/v1`.
        base_url: String,
        /// Where the key is; none for servers that want none.
        api_key: Option<Secret>,
        /// Sent as `OpenAI-Organization`.
        organization: Option<String>,
        /// Sent as `OpenAI-Project`.
        project: Option<String>,
        /// The AWS region that the address is of: Bedrock's own endpoint in this form.
        region: Option<Region>,
        /// Sign as AWS wants it, or show a Bedrock API key; none for OpenAI itself.
        aws: Option<AwsAuth>,
    },
    /// Bedrock's.
    Bedrock {
        /// Of targets that name none.
        region: Option<Region>,
        /// Of the AWS configuration files.
        profile: Option<String>,
        /// Assumed before calling.
        role_arn: Option<String>,
        /// For tests and private endpoints.
        endpoint_url: Option<String>,
        /// Sign with made-up credentials; for simulated endpoints, never read from a file.
        anonymous: bool,
    },
}

/// How calls in OpenAI's form prove to AWS who makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsAuth {
    /// What a signature is made for: `bedrock` or `bedrock-mantle`.
    pub service: &'static str,
    /// Of the AWS configuration files.
    pub profile: Option<String>,
    /// Assumed before calling.
    pub role_arn: Option<String>,
    /// Sign with made-up credentials; for simulated endpoints, never read from a file.
    pub anonymous: bool,
}

/// Which remote pictures and documents are fetched for targets that take bytes alone.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaSettings {
    /// Where from; nothing while it is empty.
    pub allow: Vec<AddressRule>,
    /// Most bytes of one.
    pub max_bytes: usize,
    /// From looking up the host to the last byte.
    pub timeout: Duration,
    /// Whether hosts may have addresses of this machine or its network.
    pub private: bool,
}

/// Where a secret is. Read when it is needed; never kept in a settings value, printed or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file, read again when it changes.
    File(PathBuf),
}

/// What a provider grants.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaSetting {
    /// The provider.
    pub provider: ProviderName,
    /// A glob over models.
    pub model: String,
    /// Of this region alone.
    pub region: Option<Region>,
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// Tokens a day (UTC).
    pub tokens_per_day: Option<u64>,
    /// Calls in flight at once.
    pub concurrency: Option<u32>,
    /// Of profiles of this reach alone.
    pub profile: Option<ProfileClass>,
    /// What refills in this time may be used at once.
    pub burst: Duration,
    /// Whether heavy traffic has to grow slowly; by the provider's address, when absent.
    pub ramp: Option<bool>,
    /// Ours of it, in (0, 1].
    pub share: Decimal,
    /// One allowance for all that the glob matches, instead of one each.
    pub pool: bool,
    /// What is granted is read from AWS Service Quotas.
    pub from_aws: bool,
}

impl QuotaSetting {
    /// What is granted; `ramp` where the setting does not say.
    pub fn grant(&self, ramp: bool) -> Grant {
        Grant {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            tokens_per_day: self.tokens_per_day,
            concurrency: self.concurrency,
            share: self.share,
            burst: self.burst,
            ramp: self.ramp.unwrap_or(ramp),
        }
    }
}

/// A negotiated discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceSetting {
    /// Of the list price.
    pub multiplier: Decimal,
}

/// How long ended work stays on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Attempts.
    pub ledger: Duration,
    /// Audit entries.
    pub audit: Duration,
}

/// How the folders are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// By the system's events, or by looking.
    pub mode: WatchMode,
    /// Stillness that ends a change.
    pub quiet: Duration,
    /// A full look at least this often.
    pub rescan: Duration,
    /// One bad file, or the whole change, is rejected.
    pub apply: ApplyMode,
    /// Whether the removal of every spec is believed.
    pub allow_empty: bool,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            mode: WatchMode::Auto,
            quiet: Duration::from_millis(150),
            rescan: Duration::from_secs(15),
            apply: ApplyMode::PerFile,
            allow_empty: false,
        }
    }
}

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum WatchMode {
    /// By events where the system has them, by looking elsewhere.
    Auto,
    /// By looking.
    Poll,
}

/// What a broken file does to a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum ApplyMode {
    /// Only that file keeps its last good version.
    PerFile,
    /// The whole change is rejected.
    All,
}

impl Settings {
    /// Points every provider at these endpoints, without credentials of its own: for simulation.
    pub fn point_at(&mut self, openai_base_url: &str, bedrock_endpoint_url: &str) {
        for provider in self.providers.values_mut() {
            match &mut provider.api {
                ApiSettings::OpenAi { base_url, api_key, region, aws, .. } => {
                    *base_url = match region {
                        None => openai_base_url.to_owned(),
                        Some(_) => format!("{bedrock_endpoint_url}/openai/v1"),
                    };
                    *api_key = None;
                    if let Some(aws) = aws {
                        *aws = AwsAuth { profile: None, role_arn: None, anonymous: true, service: aws.service };
                    }
                }
                ApiSettings::Bedrock { profile, role_arn, endpoint_url, anonymous, .. } => {
                    (*profile, *role_arn) = (None, None);
                    *endpoint_url = Some(bedrock_endpoint_url.to_owned());
                    *anonymous = true;
                }
            }
        }
    }

    /// What specs are checked against.
    pub fn provider_facts(&self) -> Providers {
        self.providers
            .iter()
            .map(|(name, provider)| {
                let (api, region) = match &provider.api {
                    ApiSettings::OpenAi { region, .. } => (Api::OpenAi, region.clone()),
                    ApiSettings::Bedrock { region, .. } => (Api::Bedrock, region.clone()),
                };
                let facts = crate::spec::ProviderFacts {
                    api,
                    family: provider.family.clone(),
                    region,
                    data_regions: provider.data_regions.clone(),
                };
                (name.clone(), facts)
            })
            .collect()
    }
}
