//! Loads of files held in memory: a small world whose files are saved, broken, moved and removed.

mod conflicts;
mod files;
mod guard;
mod levers;
mod overlap;

use std::{collections::BTreeMap, sync::Arc};

use super::{Apply, FileReport, LoadContext, Loaded, Snapshot, SourceFile, Sources, describe_changes, load};
use crate::{
    diagnostic::Diagnostic,
    names::{PipelineName, ProviderName},
    spec::{Api, Flag, FlagSet, ProviderFacts, Providers},
};

/// A folder, and a daemon that looks at it.
struct World {
    sources: Sources,
    previous: Option<Arc<Snapshot>>,
    last_good: BTreeMap<String, String>,
    generation: u64,
    apply: Apply,
    allow_empty: bool,
    environment: FlagSet,
    override_policy: bool,
}

impl World {
    fn new(specs: &[(&str, &str)]) -> Self {
        let mut world = Self {
            sources: Sources::default(),
            previous: None,
            last_good: BTreeMap::new(),
            generation: 0,
            apply: Apply::PerFile,
            allow_empty: false,
            environment: FlagSet::default(),
            override_policy: false,
        };
        for (file, text) in specs {
            world.save(file, text);
        }
        world
    }

    fn save(&mut self, file: &str, text: &str) -> &mut Self {
        self.sources.unreadable.remove(&SourceFile::Spec(file.to_owned()));
        self.sources.specs.insert(file.to_owned(), text.as_bytes().to_vec());
        self
    }

    fn remove(&mut self, file: &str) -> &mut Self {
        self.sources.specs.remove(file);
        self
    }

    fn save_flags(&mut self, text: &str) -> &mut Self {
        self.sources.flags = Some(text.as_bytes().to_vec());
        self
    }

    fn load(&mut self) -> Loaded {
        let context = LoadContext {
            providers: Arc::new(providers()),
            environment: self.environment.clone(),
            last_good: self.last_good.clone(),
            previous: self.previous.clone(),
            generation: self.generation,
            apply: self.apply,
            allow_empty: self.allow_empty,
            today: "2026-11-22".parse().unwrap(),
            override_policy: self.override_policy,
            begun: crate::snapshot::Begun::new(),
        };
        let loaded = load(&self.sources, &context);
        self.previous = Some(Arc::clone(&loaded.snapshot));
        self.last_good.clone_from(&loaded.last_good);
        self.generation = loaded.snapshot.generation;
        loaded
    }

    /// The daemon is gone; what the store kept is still there.
    fn restart(&mut self) -> &mut Self {
        self.previous = None;
        self
    }

    /// Loads, and tells what serves: for each pipeline its file, its first target's model, and a star if it is stale.
    fn serves(&mut self) -> Vec<String> {
        serving(&self.load().snapshot)
    }
}

fn serving(snapshot: &Snapshot) -> Vec<String> {
    let one = |(name, loaded): (&PipelineName, &Arc<super::LoadedPipeline>)| {
        let star = if loaded.stale { "*" } else { "" };
        format!("{name} {} {}{star}", loaded.file, loaded.pipeline.targets[0].model)
    };
    snapshot.pipelines.iter().map(one).collect()
}

fn report<'s>(snapshot: &'s Snapshot, file: &str) -> &'s FileReport {
    snapshot.files.iter().find(|report| report.file == file).unwrap_or_else(|| panic!("no report of {file}"))
}

/// What is said of a file, but that no catalogue knows the models of these tests.
fn said(snapshot: &Snapshot, file: &str) -> Vec<Diagnostic> {
    let found = report(snapshot, file).diagnostics.iter();
    found.filter(|found| found.code != "unknown-model").cloned().collect()
}

/// Its codes.
fn codes(snapshot: &Snapshot, file: &str) -> Vec<String> {
    said(snapshot, file).into_iter().map(|found| found.code).collect()
}

fn providers() -> Providers {
    [("openai", Api::OpenAi), ("bedrock", Api::Bedrock)]
        .into_iter()
        .map(|(name, api)| {
            let facts = ProviderFacts {
                api,
                family: None,
                region: (api == Api::Bedrock).then(|| "us-east-1".parse().unwrap()),
                data_regions: Vec::new(),
            };
            (ProviderName::new(name).unwrap(), facts)
        })
        .collect()
}

fn name(text: &str) -> PipelineName {
    PipelineName::new(text).unwrap()
}

fn force(provider: &str) -> Flag {
    Flag::Force(ProviderName::new(provider).unwrap())
}

/// A spec with two targets, of which the first has this model.
fn spec(name: &str, model: &str, more: &str) -> String {
    format!(
        "version: 1\nname: {name}\ntargets:\n  first: {{ provider: openai, model: {model} }}\n  \
         second: {{ provider: bedrock, model: us.amazon.nova-micro-v1:0, defaults: {{ max_tokens: 100 }} }}\n\
         route: [{{ to: first }}]\nfallback: [second]\n{more}"
    )
}

const BROKEN: &str = "version: 1\nname: [\n";
