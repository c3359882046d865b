//! One family of series: a metric for each combination of label values.
//!
//! Invariant: two combinations never share a series. (The `prometheus` crate's own vectors hash label values without a
//! separator, so `("a", "bc")` and `("ab", "c")` would be one; here the key keeps them apart.) A family knows nothing
//! of what it measures.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts,
    core::{Collector, Desc, Metric},
    proto::{MetricFamily, MetricType},
};
use smallvec::SmallVec;

/// A metric that a family can hold.
pub(super) trait Kind: Metric + Clone + 'static {
    /// How the family is announced.
    const TYPE: MetricType;

    /// A new metric; `buckets` matter to histograms alone.
    fn create(opts: Opts, buckets: &[f64]) -> prometheus::Result<Self>;
}

macro_rules! plain_kind {
    ($($kind:ident: $type:ident),+) => {$(
        impl Kind for $kind {
            const TYPE: MetricType = MetricType::$type;
            fn create(opts: Opts, _buckets: &[f64]) -> prometheus::Result<Self> {
                Self::with_opts(opts)
            }
        }
    )+};
}

plain_kind!(Counter: COUNTER, IntCounter: COUNTER, Gauge: GAUGE, IntGauge: GAUGE);

impl Kind for Histogram {
    const TYPE: MetricType = MetricType::HISTOGRAM;
    fn create(opts: Opts, buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts { common_opts: opts, buckets: buckets.to_vec() })
    }
}

/// What a family is called and how it is told apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape<const N: usize> {
    /// Its name.
    pub(super) name: &'static str,
    /// Its help text.
    pub(super) help: &'static str,
    /// Its label names.
    pub(super) labels: [&'static str; N],
    /// Upper bounds of a histogram's buckets.
    pub(super) buckets: &'static [f64],
}

/// The labels of one series, for [`Family::retain`].
pub(super) struct Labels<'a> {
    names: &'a [&'static str],
    values: &'a [Box<str>],
}

impl Labels<'_> {
    /// The value of a label, if the family has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let place = self.names.iter().position(|known| *known == name)?;
        self.values.get(place).map(AsRef::as_ref)
    }
}

/// A family with `N` labels. Clones share their series.
pub(super) struct Family<M, const N: usize>(Arc<Inner<M, N>>);

impl<M, const N: usize> Clone for Family<M, N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<M, const N: usize> {
    shape: Shape<N>,
    desc: Desc,
    children: RwLock<HashMap<Box<[u8]>, Child<M, N>>>,
}

struct Child<M, const N: usize> {
    values: [Box<str>; N],
    metric: M,
}

/// Long enough for the label values of most series, so that a lookup does not allocate.
type Key = SmallVec<[u8; 128]>;

/// Joins label values by a byte that never occurs in UTF-8.
fn key<const N: usize>(values: [&str; N]) -> Key {
    let mut key = Key::new();
    for value in values {
        key.extend_from_slice(value.as_bytes());
        key.push(0xff);
    }
    key
}

impl<M: Kind, const N: usize> Family<M, N> {
    /// An empty family; one without labels has its single series at once.
    pub(super) fn new(shape: Shape<N>) -> prometheus::Result<Self> {
        let labels = shape.labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(shape.name.to_owned(), shape.help.to_owned(), labels, HashMap::new())?;
        let family = Self(Arc::new(Inner { shape, desc, children: RwLock::default() }));
        if N == 0 {
            family.on([""; N], |_| ());
        }
        Ok(family)
    }

    /// Does something with the series of these label values, which is made if need be.
    pub(super) fn on(&self, values: [&str; N], act: impl FnOnce(&M)) {
        let key = key(values);
        if let Some(child) = self.read().get(key.as_slice()) {
            act(&child.metric);
            return;
        }
        if let Some(metric) = self.insert(&key, values) {
            act(&metric);
        }
    }

    fn insert(&self, key: &[u8], values: [&str; N]) -> Option<M> {
        let mut children = self.write();
        if let Some(child) = children.get(key) {
            return Some(child.metric.clone());
        }
        let shape = &self.0.shape;
        let constant = shape.labels.iter().zip(values).map(|(&name, value)| (name.to_owned(), value.to_owned()));
        let opts = Opts::new(shape.name, shape.help).const_labels(constant.collect());
        // Fails on malformed names alone, and those were checked when the family was made.
        let metric = M::create(opts, shape.buckets).ok()?;
        children.insert(key.into(), Child { values: values.map(Box::from), metric: metric.clone() });
        Some(metric)
    }

    /// Drops the series whose labels are not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&Labels<'_>) -> bool) {
        let names = &self.0.shape.labels;
        self.write().retain(|_, child| keep(&Labels { names, values: &child.values }));
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Box<[u8]>, Child<M, N>>> {
        self.0.children.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Box<[u8]>, Child<M, N>>> {
        self.0.children.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const N: usize> Family<Gauge, N> {
    /// Sets the family as a whole: series that are not among the readings disappear.
    pub(super) fn replace<S: AsRef<str>>(&self, readings: impl IntoIterator<Item = ([S; N], f64)>) {
        let mut current = HashSet::new();
        for (values, value) in readings {
            let values = values.each_ref().map(AsRef::as_ref);
            self.on(values, |gauge| gauge.set(value));
            current.insert(key(values));
        }
        self.write().retain(|key, _| current.contains(key.as_ref()));
    }
}

impl<M: Kind, const N: usize> Collector for Family<M, N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.0.shape.name.to_owned());
        family.set_help(self.0.shape.help.to_owned());
        family.set_field_type(M::TYPE);
        family.set_metric(self.read().values().map(|child| child.metric.metric()).collect());
        vec![family]
    }
}
