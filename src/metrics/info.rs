//! `landbridge_pipeline_info`: the labels that specs give their pipelines, for joins in queries.
//!
//! Invariant: label names are legal and unique within a pipeline, whatever a spec calls its labels.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::series::SeriesInfo;

/// What the family is. Its `label_*` names come from specs and are not listed.
pub(super) const SHAPE: SeriesInfo = SeriesInfo {
    name: "landbridge_pipeline_info",
    labels: &["pipeline"],
    histogram: false,
    help: "Always 1; one series for each pipeline in force, with its spec's labels as label_*.",
};

/// The family. Clones share their series.
#[derive(Clone)]
pub(super) struct PipelineInfo {
    desc: Desc,
    pipelines: Arc<RwLock<Vec<Metric>>>,
}

impl PipelineInfo {
    /// Without any pipeline yet.
    pub(super) fn new() -> prometheus::Result<Self> {
        let labels = SHAPE.labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(SHAPE.name.to_owned(), SHAPE.help.to_owned(), labels, HashMap::new())?;
        Ok(Self { desc, pipelines: Arc::default() })
    }

    /// Sets the family as a whole.
    pub(super) fn replace<'a>(&self, pipelines: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>)>) {
        let metrics = pipelines.into_iter().map(|(name, labels)| metric(name, labels)).collect();
        *self.pipelines.write().unwrap_or_else(PoisonError::into_inner) = metrics;
    }
}

impl Collector for PipelineInfo {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(SHAPE.name.to_owned());
        family.set_help(SHAPE.help.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(self.pipelines.read().unwrap_or_else(PoisonError::into_inner).clone());
        vec![family]
    }
}

fn metric(pipeline: &str, labels: &BTreeMap<String, String>) -> Metric {
    let mut pairs = vec![pair("pipeline".to_owned(), pipeline)];
    let mut taken = BTreeSet::new();
    for (name, value) in labels {
        let legal = label_name(name);
        let mut unique = legal.clone();
        for n in 2..=labels.len() {
            if taken.contains(&unique) {
                unique = format!("{legal}_{n}");
            }
        }
        pairs.push(pair(unique.clone(), value));
        taken.insert(unique);
    }
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    let mut gauge = Gauge::default();
    gauge.set_value(1.0);
    let mut metric = Metric::from_gauge(gauge);
    metric.set_label(pairs);
    metric
}

fn pair(name: String, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name);
    pair.set_value(value.to_owned());
    pair
}

/// `label_` and the name with everything but ASCII letters, digits and `_` as `_`.
fn label_name(name: &str) -> String {
    let legal = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    "label_".chars().chain(legal).collect()
}
