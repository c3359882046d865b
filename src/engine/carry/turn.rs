//! Waiting for a turn: at a place in line, ready to decide anew when the world changes.
//!
//! Invariant: whoever leaves the line has a pass, or has taken nothing. A pass that is dropped is ended.

use smallvec::SmallVec;
use tokio::sync::oneshot::error::TryRecvError;

use super::Carried;
use crate::{
    clock::Timestamp,
    engine::{
        Engine,
        health::{LONG, LOOK_AGAIN, Pass, Waiting, Way, Wish},
        spending::Payers,
        world::Lane,
    },
    quota::Caps,
};

/// What a step of priority, and an attempt that failed, are worth in age.
const STEP_MICROS: i64 = 60_000_000;

/// What came of waiting.
pub(super) enum Gate<'a> {
    /// It may call.
    Open(Held<'a>),
    /// Not before this time.
    Later(Timestamp),
    /// The world changed while it waited.
    Changed,
}

/// A pass in hand; ended when it is dropped.
pub(super) struct Held<'a> {
    engine: &'a Engine,
    pass: Option<Pass>,
}

impl Held<'_> {
    /// Which of the ways it is for.
    pub(super) fn option(&self) -> usize {
        self.pass.as_ref().map_or(0, |pass| pass.option)
    }

    /// Nothing was sent.
    pub(super) fn unsent(mut self) {
        if let Some(pass) = self.pass.take() {
            self.engine.health.unsent(pass, self.engine.clock.now());
        }
    }

    /// The pass, to be ended otherwise.
    pub(super) fn take(mut self) -> Option<Pass> {
        self.pass.take()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.engine.health.settled(pass, self.engine.clock.now());
        }
    }
}

impl<'a> Carried<'a> {
    /// Waits for its turn to call one of `ways`, unless that is far off or the world changes meanwhile.
    pub(super) async fn wait_for_turn(&self, lane: &Lane, ways: SmallVec<[Way; 1]>) -> Gate<'a> {
        let engine: &'a Engine = self.engine;
        let mut world = engine.world_version.subscribe();
        if *world.borrow_and_update() != self.version {
            return Gate::Changed;
        }
        let Waiting { ticket, mut pass } = engine.health.ask(self.wish(lane, ways), engine.clock.now());
        loop {
            match pass.try_recv() {
                Ok(pass) => return Gate::Open(Held { engine, pass: Some(pass) }),
                Err(TryRecvError::Closed) => return Gate::Changed,
                Err(TryRecvError::Empty) => {}
            }
            let now = engine.clock.now();
            let far = engine.health.blocked(ticket, now).filter(|blocked| now.until(blocked.until) > LONG);
            if far.is_none() {
                tokio::select! {
                    biased;
                    got = &mut pass => {
                        return got.map_or(Gate::Changed, |pass| Gate::Open(Held { engine, pass: Some(pass) }));
                    }
                    _ = world.changed() => {}
                    _ = self.stop.stopped() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => continue,
                }
            }
            engine.health.withdraw(ticket, engine.clock.now());
            // One that came in this very moment is not used.
            if let Ok(pass) = pass.try_recv() {
                Held { engine, pass: Some(pass) }.unsent();
            }
            return far.map_or(Gate::Changed, |blocked| Gate::Later(blocked.until));
        }
    }

    /// Whom the job belongs to, where its pipeline shares by that.
    fn fair_key(&self, lane: &Lane) -> String {
        if lane.loaded.pipeline.sharing.fair_by.is_none() {
            return String::new();
        }
        let key = self.ask(lane, self.engine.clock.now(), 0, |question| {
            let key = question.pipeline.sharing.fair_by.as_ref()?;
            key.evaluate(&question.facts).map(std::borrow::Cow::into_owned)
        });
        key.unwrap_or_default()
    }

    fn wish(&self, lane: &Lane, ways: SmallVec<[Way; 1]>) -> Wish {
        let spec = &lane.loaded.pipeline;
        let burned = self.past.iter().filter(|past| past.burns()).count();
        // A job that failed goes behind those a little younger: it is not the one that tries every time.
        let steps = i64::try_from(burned).unwrap_or(i64::MAX).saturating_sub(i64::from(self.job.priority));
        let key = self.fair_key(lane);
        Wish {
            job: self.job.id,
            flow: spec.name.as_str().into(),
            weight: spec.sharing.weight,
            most: spec.concurrency,
            key: key.into(),
            interactive: self.live.is_some(),
            payers: Box::new(Payers {
                pipeline: spec.name.clone(),
                caps: spec.budget.filter(|_| !self.thrifty).map(Caps::from),
                caller: self.job.caller.clone(),
            }),
            order: self.job.created_at.as_micros().saturating_add(steps.saturating_mul(STEP_MICROS)),
            ways,
            spill_after: spec.sharing.spill_after,
        }
    }
}
