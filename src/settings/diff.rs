//! What a change of the settings file means for a daemon that runs.
//!
//! Invariant: every setting is either taken over while running or needs a restart; none is passed over in silence.

use super::Settings;

/// The settings that differ, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsDiff {
    /// Taken over while running.
    pub hot: Vec<&'static str>,
    /// Only taken over by a restart.
    pub restart: Vec<&'static str>,
}

impl SettingsDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.hot.is_empty() && self.restart.is_empty()
    }
}

/// What differs between the settings in force and those newly read.
pub fn diff(old: &Settings, new: &Settings) -> SettingsDiff {
    // Taken apart by name, so that a new setting cannot be forgotten here.
    let Settings {
        listen,
        ops_listen,
        pipelines,
        models,
        flags_file,
        catalog_file,
        policy,
        store,
        providers,
        quotas,
        prices,
        lease,
        drain,
        retention,
        watch,
        media,
        keys,
        tls,
        live,
        batches,
        callbacks,
    } = old;
    let changed = |names: &[(&'static str, bool)]| -> Vec<&'static str> {
        names.iter().filter(|(_, equal)| !equal).map(|(name, _)| *name).collect()
    };
    SettingsDiff {
        hot: changed(&[
            ("quotas", *quotas == new.quotas),
            ("prices", *prices == new.prices),
            ("drain", *drain == new.drain),
            ("retention", *retention == new.retention),
            ("keys", *keys == new.keys),
            ("live", *live == new.live),
            ("batches", *batches == new.batches),
            ("callbacks", *callbacks == new.callbacks),
            ("watch.apply", watch.apply == new.watch.apply),
            ("watch.allow_empty", watch.allow_empty == new.watch.allow_empty),
        ]),
        restart: changed(&[
            ("listen", *listen == new.listen),
            ("ops_listen", *ops_listen == new.ops_listen),
            ("pipelines", *pipelines == new.pipelines),
            ("models", *models == new.models),
            ("the settings' folder", *flags_file == new.flags_file && *catalog_file == new.catalog_file),
            ("policy", *policy == new.policy),
            ("store", *store == new.store),
            ("providers", *providers == new.providers),
            ("media", *media == new.media),
            ("lease", *lease == new.lease),
            ("tls", *tls == new.tls),
            ("watch.mode", watch.mode == new.watch.mode),
            ("watch.quiet", watch.quiet == new.watch.quiet),
            ("watch.rescan", watch.rescan == new.watch.rescan),
        ]),
    }
}

impl Settings {
    /// These settings with everything that [`diff`] calls hot taken over from `new`.
    #[must_use]
    pub fn with_hot_parts_of(&self, new: &Self) -> Self {
        let mut watch = self.watch;
        watch.apply = new.watch.apply;
        watch.allow_empty = new.watch.allow_empty;
        Self {
            quotas: new.quotas.clone(),
            prices: new.prices.clone(),
            drain: new.drain,
            retention: new.retention,
            watch,
            keys: new.keys.clone(),
            live: new.live,
            batches: new.batches,
            callbacks: new.callbacks.clone(),
            ..self.clone()
        }
    }
}
