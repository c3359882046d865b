//! Quotas that the settings leave to AWS (`source: aws`): read at the start, when files are read again, and every so often.
//!
//! Invariant: what was read stays in force until it is read again; what cannot be read counts as unknown and is learned.
//! Each remark is made once. Nothing here holds up a job.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use globset::Glob;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::{
    names::{ProviderName, Region},
    quota::applied::Applied,
    settings::QuotaSetting,
};

/// A granted increase counts after this at the latest; a reload reads at once.
const REFRESH: Duration = Duration::from_mins(15);
/// After a failure.
const TRY_AGAIN: Duration = Duration::from_mins(1);

/// An account in a region; `None` for the region that its credentials name.
pub(super) type Place = (ProviderName, Option<Region>);

/// What was read, by place.
pub(super) type Read = BTreeMap<Place, Vec<Applied>>;

/// Reads quotas until `stop`.
pub(super) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut world = engine.world_version.subscribe();
    let mut due: BTreeMap<Place, Instant> = BTreeMap::new();
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        world.borrow_and_update();
        let wanted = engine.places_on_aws();
        due.retain(|place, _| wanted.contains(place));
        let mut read = false;
        for place in wanted {
            let now = Instant::now();
            if due.get(&place).is_some_and(|due| *due > now) {
                continue;
            }
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = engine.read_granted(&place) => looked,
            };
            read |= looked.is_ok();
            if let Err(message) = &looked
                && told.insert(message.clone())
            {
                tracing::warn!("{message}");
            }
            due.insert(place, now + if looked.is_ok() { REFRESH } else { TRY_AGAIN });
        }
        for remark in engine.put_granted_in_force() {
            if told.insert(remark.clone()) {
                tracing::warn!("{remark}");
            }
        }
        if read {
            tracing::debug!("quotas read from AWS Service Quotas");
        }
        let next = due.values().min().copied();
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = world.changed() => {}
            () = engine.quota_book.asked.notified() => {
                due.clear();
                told.clear();
            }
            () = async { tokio::time::sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {}
        }
    }
}

impl Engine {
    /// Reads what AWS grants again, now.
    pub fn ask_aws_for_quotas(&self) {
        self.quota_book.asked.notify_one();
    }

    /// Targets of providers whose quotas are left to AWS: account, region called, model.
    fn targets_on_aws(&self) -> BTreeSet<(ProviderName, Option<Region>, String)> {
        let templates: Vec<QuotaSetting> = self.book().configured.iter().filter(|it| it.from_aws).cloned().collect();
        if templates.is_empty() {
            return BTreeSet::new();
        }
        let world = self.world();
        let targets = world.lanes().flat_map(|(_, lane)| &lane.loaded.pipeline.targets);
        let left_to_aws = |provider: &ProviderName, region: Option<&Region>| {
            templates.iter().any(|it| it.provider == *provider && (it.region.is_none() || it.region.as_ref() == region))
        };
        targets
            .filter(|target| left_to_aws(&target.provider, target.region.as_ref()))
            .map(|target| (target.provider.clone(), target.region.clone(), target.model.clone()))
            .collect()
    }

    fn places_on_aws(&self) -> BTreeSet<Place> {
        self.targets_on_aws().into_iter().map(|(provider, region, _)| (provider, region)).collect()
    }

    async fn read_granted(&self, place: &Place) -> Result<(), String> {
        let (provider, region) = place;
        let words = region.as_ref().map_or(String::new(), |region| format!(" in {region}"));
        let unknown = |why: String| {
            format!("quotas of {provider}{words} cannot be read from AWS: {why}; they count as unknown and are learned")
        };
        let client = self.providers.get(provider).ok_or_else(|| unknown("it is not connected".to_owned()))?;
        let quotas = client.service_quotas(region.as_ref()).await.map_err(|error| {
            let advice = error.advice.map_or(String::new(), |advice| format!("; {advice}"));
            unknown(format!("{}{advice}", error.message))
        })?;
        let applied = quotas.iter().filter_map(|quota| Applied::read(&quota.name, quota.value)).collect();
        self.book().read.insert(place.clone(), applied);
        Ok(())
    }

    /// Puts what was read in force, for the targets of this moment; what an operator should know of it.
    fn put_granted_in_force(&self) -> Vec<String> {
        let targets = self.targets_on_aws();
        let mut remarks = Vec::new();
        let mut book = self.book();
        let mut granted: Vec<QuotaSetting> = Vec::new();
        for template in book.configured.iter().filter(|it| it.from_aws) {
            let Ok(glob) = Glob::new(&template.model) else { continue };
            let models = glob.compile_matcher();
            let ours = targets.iter().filter(|(provider, region, model)| {
                *provider == template.provider
                    && (template.region.is_none() || template.region == *region)
                    && models.is_match(model)
            });
            for (provider, region, model) in ours {
                let Some(applied) = book.read.get(&(provider.clone(), region.clone())) else { continue };
                let words = region.as_ref().map_or(String::new(), |region| format!(" in {region}"));
                let grants = Applied::grants(applied, model);
                for name in &grants.nothing {
                    remarks.push(format!(
                        "AWS grants nothing for {model}{words} (\"{name}\" is 0): it refuses every call until an increase is \
                         granted"
                    ));
                }
                if grants.is_empty() {
                    if grants.nothing.is_empty() {
                        remarks
                            .push(format!("AWS names no quota of {model}{words}; it counts as unknown and is learned"));
                    }
                    continue;
                }
                granted.push(QuotaSetting {
                    model: globset::escape(model),
                    region: region.clone(),
                    requests_per_minute: grants.requests_per_minute,
                    tokens_per_minute: grants.tokens_per_minute,
                    tokens_per_day: grants.tokens_per_day,
                    ..template.clone()
                });
            }
        }
        let news = book.granted != granted;
        book.granted = granted;
        drop(book);
        if news {
            self.apply_quotas();
        }
        remarks
    }
}
