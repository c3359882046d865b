//! Which version of each file is in force, when files claim the same pipeline's name or the same models.
//!
//! Invariant: the one that serves stays, the other is broken; where neither serves, both are. A broken file falls back to
//! its last good version, and last good versions never meet, because they served side by side.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    LoadedPipeline,
    accept::{Overlap, overlaps},
    place,
    specs::Candidate,
};
use crate::{diagnostic::Diagnostic, names::PipelineName};

/// Which version of a file is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stand {
    /// None: it has no valid version yet.
    Nothing,
    /// What it says now.
    New,
    /// What it said when it was last good.
    Old,
}

/// What serves, by name.
pub(super) type Served = HashMap<PipelineName, Arc<LoadedPipeline>>;

/// Settles every file; what loses gets a diagnostic.
pub(super) fn resolve(candidates: &mut [Candidate<'_>], served: &Served) -> Vec<Stand> {
    let mut stands: Vec<Stand> = candidates
        .iter()
        .map(|candidate| match (&candidate.new, &candidate.old) {
            (Some(_), _) => Stand::New,
            (None, Some(_)) => Stand::Old,
            (None, None) => Stand::Nothing,
        })
        .collect();
    // Each round that goes on takes at least one new version out.
    for _ in 0..=candidates.len() {
        let names = settle_names(candidates, &mut stands, served);
        if names || settle_models(candidates, &mut stands, served) {
            continue;
        }
        break;
    }
    stands
}

/// The version of a file that is in force.
pub(super) fn standing<'c>(candidate: &'c Candidate<'_>, stand: Stand) -> Option<&'c Arc<LoadedPipeline>> {
    match stand {
        Stand::Nothing => None,
        Stand::New => candidate.new.as_ref(),
        Stand::Old => candidate.old.as_ref(),
    }
}

fn in_force<'c>(
    candidates: &'c [Candidate<'_>],
    stands: &'c [Stand],
) -> impl Iterator<Item = (usize, Stand, &'c Arc<LoadedPipeline>)> {
    candidates
        .iter()
        .zip(stands)
        .enumerate()
        .filter_map(|(place, (candidate, stand))| standing(candidate, *stand).map(|loaded| (place, *stand, loaded)))
}

fn demote(place: usize, candidates: &mut [Candidate<'_>], stands: &mut [Stand], problem: Diagnostic) {
    let (Some(candidate), Some(stand)) = (candidates.get_mut(place), stands.get_mut(place)) else { return };
    *stand = if *stand == Stand::New && candidate.old.is_some() { Stand::Old } else { Stand::Nothing };
    candidate.diagnostics.push(problem);
}

/// Whether any file lost its claim to a name.
fn settle_names(candidates: &mut [Candidate<'_>], stands: &mut [Stand], served: &Served) -> bool {
    let mut claims: BTreeMap<&PipelineName, Vec<usize>> = BTreeMap::new();
    for (place, _, loaded) in in_force(candidates, stands) {
        claims.entry(&loaded.pipeline.name).or_default().push(place);
    }
    let mut losers: Vec<(usize, Diagnostic)> = Vec::new();
    for (name, places) in claims.into_iter().filter(|(_, places)| places.len() > 1) {
        let winner = winner_of_name(name, &places, candidates, stands, served);
        for &loser in places.iter().filter(|place| Some(**place) != winner) {
            let others =
                places.iter().filter(|place| **place != loser && winner.is_none_or(|winner| winner == **place));
            let others: Vec<&str> =
                others.filter_map(|place| candidates.get(*place)).map(|candidate| candidate.file.as_str()).collect();
            let others = others.join(" and ");
            let message = match winner {
                Some(_) => format!("the pipeline `{name}` is {others}'s already"),
                None => format!("the pipeline `{name}` is also defined by {others}, so neither counts"),
            };
            let Some(candidate) = candidates.get(loser) else { continue };
            let problem = Diagnostic::error("name-taken", &candidate.file, message)
                .help("give one of them another name, or remove one");
            let problem = match place::of_value(&candidate.file, candidate.bytes, &["name"]) {
                Some((position, text)) => problem.at(position, &text),
                None => problem,
            };
            losers.push((loser, problem));
        }
    }
    let any = !losers.is_empty();
    for (loser, problem) in losers {
        demote(loser, candidates, stands, problem);
    }
    any
}

fn winner_of_name(
    name: &PipelineName,
    places: &[usize],
    candidates: &[Candidate<'_>],
    stands: &[Stand],
    served: &Served,
) -> Option<usize> {
    // A last good version serves by definition.
    if let Some(old) = places.iter().find(|place| stands.get(**place) == Some(&Stand::Old)) {
        return Some(*old);
    }
    let serving = served.get(name)?;
    let of = |matches: &dyn Fn(&Candidate<'_>) -> bool| {
        places.iter().copied().find(|place| candidates.get(*place).is_some_and(matches))
    };
    // The file that serves it, or, where the file has moved, the one that holds the same text.
    of(&|candidate| candidate.file == serving.file)
        .or_else(|| of(&|candidate| candidate.new.as_ref().is_some_and(|new| new.text == serving.text)))
}

/// Whether any file lost its claim to models.
fn settle_models(candidates: &mut [Candidate<'_>], stands: &mut [Stand], served: &Served) -> bool {
    let accepts: Vec<_> =
        in_force(candidates, stands).map(|(place, _, loaded)| (place, &loaded.pipeline.accept)).collect();
    let mut losers: Vec<(usize, Diagnostic)> = Vec::new();
    let mut lost: HashSet<usize> = HashSet::new();
    for Overlap { one, other } in overlaps(&accepts) {
        let rank = |(place, glob): (usize, &str)| rank(place, glob, candidates, stands, served);
        let (a, b) = (rank(one), rank(other));
        let mut lose = |(loser, glob): (usize, &str), (winner, its): (usize, &str), alone: bool| {
            if stands.get(loser) != Some(&Stand::New) || !lost.insert(loser) {
                return;
            }
            losers.extend(clash(loser, glob, winner, its, alone, candidates));
        };
        if a <= b {
            lose(one, other, a < b);
        }
        if b <= a {
            lose(other, one, b < a);
        }
    }
    let any = !losers.is_empty();
    for (loser, problem) in losers {
        demote(loser, candidates, stands, problem);
    }
    any
}

/// How strong a claim to a glob is: of a last good version, of a pipeline that serves it already, of a new one.
fn rank(place: usize, glob: &str, candidates: &[Candidate<'_>], stands: &[Stand], served: &Served) -> u8 {
    if stands.get(place) == Some(&Stand::Old) {
        return 2;
    }
    let name = candidates.get(place).and_then(|candidate| candidate.new.as_ref()).map(|new| &new.pipeline.name);
    let serving = name.and_then(|name| served.get(name));
    u8::from(serving.is_some_and(|serving| serving.pipeline.accept.models.iter().any(|held| held.text == glob)))
}

fn clash(
    loser: usize,
    glob: &str,
    winner: usize,
    its: &str,
    alone: bool,
    candidates: &[Candidate<'_>],
) -> Option<(usize, Diagnostic)> {
    let (candidate, other) = (candidates.get(loser)?, candidates.get(winner)?);
    let both = if glob == its {
        format!("`{glob}` is accepted by {}, too", other.file)
    } else {
        format!("some models match both `{glob}` and `{its}` of {}", other.file)
    };
    let message = if alone {
        format!("{both}, which serves them already")
    } else {
        format!("{both}; since neither serves them yet, neither counts")
    };
    let problem = Diagnostic::error("accept-overlap", &candidate.file, message)
        .help("a job that names only a model must have one way to go: narrow one of the two");
    let problem = match place::of_item(&candidate.file, candidate.bytes, &["accept", "models"], glob) {
        Some((position, text)) => problem.at(position, &text),
        None => problem,
    };
    Some((loser, problem))
}
