//! Which of the files that looks found hold still. A fifth of all beginnings of a valid spec are valid specs themselves,
//! so reading cannot tell a file that is still being written: only a second, equal look can.
//!
//! Invariant: bytes are handed out only when two looks, at least a quiet time apart, found them equal. Time is an
//! argument.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    Folders,
    scan::{Content, Look, Part, Scan, assemble, restless},
};

/// A file in motion for this long is reported.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What the looks so far amount to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing to hand out before another look at this time.
    LookAgain(Instant),
    /// This is what the files hold; `Some` when a part is in motion and wants another look.
    Settled(Box<Scan>, Option<Instant>),
}

/// Compares looks.
#[derive(Debug)]
pub(super) struct Settler {
    quiet: Duration,
    sightings: BTreeMap<Part, Sighting>,
    /// Something has settled on new contents that were not handed out yet, since then.
    unclaimed: Option<Instant>,
}

/// What is known of one part.
#[derive(Debug)]
struct Sighting {
    /// The newest contents; `None` when it is not there.
    seen: Option<Content>,
    /// When `seen` was first seen.
    since: Instant,
    /// What two looks agreed on.
    agreed: Option<Content>,
    /// Since when it has been in motion.
    moving: Option<Instant>,
}

fn digest(content: Option<&Content>) -> Option<[u8; 32]> {
    content.map(|content| content.digest)
}

impl Settler {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, sightings: BTreeMap::new(), unclaimed: None }
    }

    /// Takes in a look that lasted from `started` to `ended`.
    pub(super) fn observe(&mut self, mut look: Look, started: Instant, ended: Instant) {
        let quiet = self.quiet;
        let mut settled_on_news = false;
        self.sightings.retain(|part, sighting| {
            let seen = look.parts.remove(part);
            if digest(seen.as_ref()) != digest(sighting.seen.as_ref()) {
                sighting.seen = seen;
                sighting.since = ended;
                sighting.moving.get_or_insert(ended);
            } else if sighting.moving.is_some() && started.duration_since(sighting.since) >= quiet {
                sighting.moving = None;
                if digest(sighting.agreed.as_ref()) != digest(sighting.seen.as_ref()) {
                    sighting.agreed.clone_from(&sighting.seen);
                    settled_on_news = true;
                }
            }
            sighting.seen.is_some() || sighting.moving.is_some()
        });
        for (part, content) in look.parts {
            let sighting = Sighting { seen: Some(content), since: ended, agreed: None, moving: Some(ended) };
            self.sightings.insert(part, sighting);
        }
        if settled_on_news {
            self.unclaimed.get_or_insert(ended);
        }
    }

    /// What to do after the looks so far, the last of which ended `now`.
    pub(super) fn verdict(&mut self, folders: &Folders, now: Instant) -> Verdict {
        let moving = || self.sightings.values().filter(|sighting| sighting.moving.is_some());
        let next = moving().map(|sighting| sighting.since + self.quiet).min();
        let Some(next) = next else { return Verdict::Settled(self.hand_out(folders, now), None) };
        // One file in motion must not hold up the others for long: a kill switch may be among them.
        let others_waited = self.unclaimed.is_some_and(|since| now.duration_since(since) >= self.quiet);
        let patience_ends = moving().filter_map(|sighting| sighting.moving).any(|since| is_restless(since, now));
        if others_waited || patience_ends {
            Verdict::Settled(self.hand_out(folders, now), Some(next))
        } else {
            Verdict::LookAgain(next)
        }
    }

    /// What is known now, files in motion as they were before; those without a before, and those in motion for long, are
    /// reported instead.
    fn hand_out(&mut self, folders: &Folders, now: Instant) -> Box<Scan> {
        self.unclaimed = None;
        let parts = self.sightings.iter().filter_map(|(part, sighting)| {
            let content = match sighting.moving {
                None => sighting.seen.clone()?,
                Some(since) if is_restless(since, now) => restless(part, folders),
                Some(_) => match (&sighting.agreed, &sighting.seen) {
                    (Some(agreed), _) => agreed.clone(),
                    (None, Some(_)) => restless(part, folders),
                    (None, None) => return None,
                },
            };
            Some((part.clone(), content))
        });
        Box::new(assemble(parts.collect()))
    }
}

fn is_restless(moving_since: Instant, now: Instant) -> bool {
    now.duration_since(moving_since) >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SourceFile;

    const QUIET: Duration = Duration::from_millis(150);

    fn folders() -> Folders {
        Folders {
            pipelines: "pipelines".into(),
            models: "models".into(),
            flags_file: "flags.yaml".into(),
            catalog_file: "catalog.yaml".into(),
            policy_file: "policy.yaml".into(),
            settings_file: "landbridge.yaml".into(),
        }
    }

    /// Looks at given milliseconds, each finding these specs; what the verdict after the last was: the specs handed out
    /// and the files reported, or nothing.
    fn after(looks: &[(u64, &[(&str, &str)])]) -> Option<(Vec<String>, Vec<String>)> {
        let start = Instant::now();
        let mut settler = Settler::new(QUIET);
        let mut answer = None;
        for (millis, files) in looks {
            let at = start + Duration::from_millis(*millis);
            let mut look = Look::default();
            for (name, text) in *files {
                let part = Part::Source(SourceFile::Spec((*name).to_owned()));
                look.parts.insert(part, Content::bytes(text.as_bytes().to_vec()));
            }
            settler.observe(look, at, at);
            answer = match settler.verdict(&folders(), at) {
                Verdict::LookAgain(next) => {
                    assert!(next > at, "a look at the same time again would spin");
                    None
                }
                Verdict::Settled(scan, next) => {
                    assert!(next.is_none_or(|next| next > at), "a look at the same time again would spin");
                    let specs = scan.sources.specs.iter();
                    let specs = specs.map(|(name, bytes)| format!("{name}={}", String::from_utf8_lossy(bytes)));
                    Some((specs.collect(), scan.sources.unreadable.keys().map(ToString::to_string).collect()))
                }
            };
        }
        answer
    }

    fn handed_out(specs: &[&str], reported: &[&str]) -> Option<(Vec<String>, Vec<String>)> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Some((owned(specs), owned(reported)))
    }

    #[test]
    fn two_equal_looks_a_quiet_time_apart_settle() {
        assert_eq!(after(&[(0, &[("a", "1")])]), None, "one look");
        assert_eq!(after(&[(0, &[("a", "1")]), (149, &[("a", "1")])]), None, "too soon");
        assert_eq!(after(&[(0, &[("a", "1")]), (150, &[("a", "1")])]), handed_out(&["a=1"], &[]));
        assert_eq!(after(&[(0, &[("a", "1")]), (150, &[("a", "2")])]), None, "not equal");
        assert_eq!(after(&[(0, &[("a", "1")]), (150, &[("a", "2")]), (300, &[("a", "1")])]), None, "there and back");
    }

    #[test]
    fn a_disappearance_settles_like_a_change() {
        let there: (u64, &[(&str, &str)]) = (0, &[("a", "1"), ("b", "1")]);
        let settled: (u64, &[(&str, &str)]) = (150, &[("a", "1"), ("b", "1")]);
        assert_eq!(after(&[there, settled, (1000, &[("a", "1")])]), None);
        assert_eq!(after(&[there, settled, (1000, &[("a", "1")]), (1150, &[("a", "1")])]), handed_out(&["a=1"], &[]));
        assert_eq!(after(&[there, settled, (1000, &[("a", "1")]), (1100, there.1)]), None, "it came back: wait");
        assert_eq!(
            after(&[there, settled, (1000, &[("a", "1")]), (1100, there.1), (1250, there.1)]),
            handed_out(&["a=1", "b=1"], &[])
        );
    }

    #[test]
    fn one_file_in_motion_holds_up_the_others_only_for_a_moment() {
        let start: [(u64, &[(&str, &str)]); 2] =
            [(0, &[("hot", "0"), ("calm", "1")]), (150, &[("hot", "0"), ("calm", "1")])];
        let mut looks = start.to_vec();
        looks.push((1000, &[("hot", "1"), ("calm", "2")]));
        looks.push((1150, &[("hot", "2"), ("calm", "2")]));
        assert_eq!(after(&looks), None, "calm has settled; hot may still join it");
        looks.push((1300, &[("hot", "3"), ("calm", "2")]));
        assert_eq!(after(&looks), handed_out(&["calm=2", "hot=0"], &[]), "hot stays as it was");
        looks.push((1450, &[("hot", "4"), ("calm", "2")]));
        assert_eq!(after(&looks), None, "nothing new has settled");
        looks.push((3000, &[("hot", "5"), ("calm", "2")]));
        assert_eq!(after(&looks), handed_out(&["calm=2"], &["spec hot"]), "out of patience");
        looks.push((3150, &[("hot", "5"), ("calm", "2")]));
        assert_eq!(after(&looks), handed_out(&["calm=2", "hot=5"], &[]), "at rest at last");
    }

    #[test]
    fn a_new_file_in_motion_is_reported_rather_than_left_out() {
        let looks: [(u64, &[(&str, &str)]); 3] = [
            (0, &[("hot", "0"), ("calm", "1")]),
            (150, &[("hot", "1"), ("calm", "1")]),
            (300, &[("hot", "2"), ("calm", "1")]),
        ];
        assert_eq!(after(&looks), handed_out(&["calm=1"], &["spec hot"]));
    }
}
