//! Quotas as operators see and set them, and what was learned of them, kept across restarts.
//!
//! Invariant: what an operator sets is durable and audited before it counts, and counts before what the settings say. A
//! document that cannot be read is as good as none; nothing learned is ever needed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    Engine, granted,
    health::QuotaStanding,
    levers::{Act, LeverError, audit},
};
use crate::{
    names::{ProviderName, Region, nearest},
    quota::{Learned, ProfileClass, grant::BURST},
    settings::QuotaSetting,
    store::{DocumentChange, DocumentKind, StoreError},
};

/// What keys of learned quotas begin with.
const LEARNED: &str = "learned ";
/// What keys of quotas that an operator set begin with.
const SET: &str = "set ";
/// No limit is larger.
const LARGEST: u64 = 1_000_000_000_000_000;
/// Most quotas that are set at run time.
const MOST_SET: usize = 1_000;

/// A quota that an operator sets at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQuota {
    /// The provider.
    pub provider: ProviderName,
    /// A glob over models.
    pub model: String,
    /// Of this region alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Of profiles of this reach alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileClass>,
    /// Requests a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Tokens a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Calls at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

impl SetQuota {
    /// What it is called: `PROVIDER/REGION/PROFILE/MODEL`, with what it does not say left out.
    pub fn name(&self) -> String {
        let region = self.region.as_ref().map(ToString::to_string);
        let profile = self.profile.map(|profile| profile.to_string());
        let parts = [Some(self.provider.to_string()), region, profile, Some(self.model.clone())];
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    }

    fn check(&self) -> Result<(), String> {
        let limits = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_day", self.tokens_per_day),
            ("concurrency", self.concurrency.map(u64::from)),
        ];
        if limits.iter().all(|(_, limit)| limit.is_none()) {
            return Err("this quota limits nothing: name requests_per_minute, tokens_per_minute, tokens_per_day or \
                        concurrency"
                .to_owned());
        }
        for (key, limit) in limits {
            if limit.is_some_and(|limit| limit == 0 || limit > LARGEST) {
                return Err(format!("`{key}` is from 1 to {LARGEST}; to stop a pipeline, set the flag PAUSE"));
            }
        }
        globset::Glob::new(&self.model)
            .map(|_| ())
            .map_err(|error| format!("`model` is not a pattern: {}", error.kind()))
    }

    fn setting(&self) -> QuotaSetting {
        QuotaSetting {
            provider: self.provider.clone(),
            model: self.model.clone(),
            region: self.region.clone(),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            tokens_per_day: self.tokens_per_day,
            concurrency: self.concurrency,
            profile: self.profile,
            burst: BURST,
            ramp: None,
            share: Decimal::ONE,
            pool: false,
            from_aws: false,
        }
    }
}

/// The quotas that are configured, and those that operators set.
#[derive(Debug, Default)]
pub(super) struct QuotaBook {
    book: Mutex<Book>,
    /// Somebody wants to know now what AWS grants.
    pub(super) asked: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) configured: Vec<QuotaSetting>,
    ramps: Vec<ProviderName>,
    set: BTreeMap<String, SetQuota>,
    /// What AWS said, by account and region ...
    pub(super) read: granted::Read,
    /// ... and what it means for the targets of this moment.
    pub(super) granted: Vec<QuotaSetting>,
}

impl Engine {
    /// Takes up what operators set, and what an earlier life learned.
    pub(super) fn remember_quotas(&self, documents: BTreeMap<String, Value>) {
        let mut learned = std::collections::HashMap::new();
        let mut set = BTreeMap::new();
        for (key, value) in documents {
            if let Some(name) = key.strip_prefix(LEARNED) {
                if let Ok(value) = serde_json::from_value::<Learned>(value) {
                    learned.insert(name.to_owned(), value);
                }
            } else if let Some(name) = key.strip_prefix(SET) {
                match serde_json::from_value::<SetQuota>(value) {
                    Ok(quota) => {
                        set.insert(name.to_owned(), quota);
                    }
                    Err(error) => {
                        tracing::warn!(name, %error, "a quota that was set cannot be read; it does not count");
                    }
                }
            }
        }
        self.health.remember(learned);
        self.book().set = set;
        self.apply_quotas();
    }

    /// Puts configured quotas in force, under those that operators set.
    pub(super) fn configure_quotas(&self, configured: &[QuotaSetting], ramps: Vec<ProviderName>) {
        let mut book = self.book();
        book.configured = configured.to_vec();
        book.ramps = ramps;
        drop(book);
        self.apply_quotas();
        self.ask_aws_for_quotas();
    }

    pub(super) fn apply_quotas(&self) {
        let book = self.book();
        let mut quotas: Vec<QuotaSetting> = book.set.values().map(SetQuota::setting).collect();
        // What somebody wrote down goes before what AWS says.
        quotas.extend(book.configured.iter().filter(|quota| !quota.from_aws).cloned());
        quotas.extend(book.granted.iter().cloned());
        let ramps = book.ramps.clone();
        drop(book);
        self.health.install_quotas(&quotas, ramps, self.clock.now());
    }

    /// Every quota in use, and those that operators set.
    pub fn quotas(&self) -> (Vec<QuotaStanding>, Vec<SetQuota>) {
        (self.health.quotas(self.now()), self.book().set.values().cloned().collect())
    }

    /// Sets a quota: it counts from now on, before what the settings say, until it is reset.
    ///
    /// # Errors
    /// [`LeverError`]; nothing changed then.
    pub async fn set_quota(&self, quota: SetQuota, act: Act) -> Result<String, LeverError> {
        quota.check().map_err(LeverError::Conflict)?;
        let world = self.world();
        if !world.snapshot.providers.contains_key(&quota.provider) {
            let known = world.snapshot.providers.keys().map(ProviderName::as_str);
            let hint =
                nearest(quota.provider.as_str(), known).map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(LeverError::Conflict(format!("there is no provider {}{hint}", quota.provider)));
        }
        let name = quota.name();
        let _steering = self.steering.lock().await;
        if self.book().set.len() >= MOST_SET && !self.book().set.contains_key(&name) {
            return Err(LeverError::Conflict(format!(
                "{MOST_SET} quotas are set already: write them into the settings"
            )));
        }
        let value = serde_json::to_value(&quota).ok();
        let entry = audit(self.now(), &act, "quota.set", &name, json!({ "quota": quota }));
        let change = DocumentChange { kind: DocumentKind::Quota, key: format!("{SET}{name}"), value };
        self.store.apply(vec![change], Some(entry)).await?;
        self.book().set.insert(name.clone(), quota);
        self.apply_quotas();
        Ok(name)
    }

    /// Takes back what was set under that name, and forgets what was learned under it.
    ///
    /// # Errors
    /// [`LeverError`] when there is neither; nothing changed then.
    pub async fn reset_quota(&self, name: &str, act: Act) -> Result<String, LeverError> {
        let _steering = self.steering.lock().await;
        let was_set = self.book().set.contains_key(name);
        let in_use = self.health.quotas(self.now()).iter().any(|quota| quota.quota == name);
        if !was_set && !in_use {
            let (standings, set) = self.quotas();
            let known: Vec<String> =
                standings.into_iter().map(|quota| quota.quota).chain(set.iter().map(SetQuota::name)).collect();
            let hint = nearest(name, known.iter().map(String::as_str))
                .map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(LeverError::Conflict(format!("there is no quota {name}{hint}")));
        }
        let changes = [SET, LEARNED].map(|prefix| DocumentChange {
            kind: DocumentKind::Quota,
            key: format!("{prefix}{name}"),
            value: None,
        });
        let detail = json!({ "was_set": was_set, "forgotten": in_use });
        let entry = audit(self.now(), &act, "quota.reset", name, detail);
        self.store.apply(changes.into(), Some(entry)).await?;
        self.book().set.remove(name);
        self.apply_quotas();
        self.health.forget(name, self.now());
        Ok(match (was_set, in_use) {
            (true, false) => format!("{name}: what the settings and the provider say counts again"),
            (false, _) => format!("{name}: what was learned is forgotten"),
            (true, true) => format!("{name}: taken back, and what was learned is forgotten"),
        })
    }

    /// Writes down what was learned since the last time.
    pub(super) async fn write_down_quotas(&self) -> Result<(), StoreError> {
        let news = self.health.news(self.clock.now());
        if news.is_empty() {
            return Ok(());
        }
        let changes = news
            .into_iter()
            .map(|(name, learned)| DocumentChange {
                kind: DocumentKind::Quota,
                key: format!("{LEARNED}{name}"),
                value: serde_json::to_value(learned).ok(),
            })
            .collect();
        self.store.apply(changes, None).await
    }

    pub(super) fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.quota_book.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rates a minute, as far as they are known: of requests, and of tokens.
pub(super) type Rates = (Option<f64>, Option<f64>);

/// How long so much work takes under a rate a minute.
pub(super) fn at_rate(amount: f64, per_minute: Option<f64>) -> Duration {
    let minutes = per_minute.filter(|rate| *rate > 0.0).map_or(0.0, |rate| amount / rate);
    Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX)
}
