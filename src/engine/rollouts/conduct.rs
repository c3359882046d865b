//! The leader's pass: reads what happened to each rollout, and moves those whose time has come.
//!
//! Invariant: idempotent and bounded; a pass that is lost, or made twice, changes nothing. A step is taken only with a state
//! that nobody else has changed meanwhile, and only while this daemon leads.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    Desk, Which,
    keep::{change, entry, key_of, read, unchanged},
};
use crate::{
    clock::Timestamp,
    engine::{Engine, levers::Act, world::Lane},
    rollout::{Casebook, Controller, Event, Readings, Refusal, State, Turn},
    spec::{Gated, RolloutIx},
    store::{Condition, DocumentKind, Lead, NewObservation, Observation, ObservationQuery, Observed, StoreError, Told},
};

/// What is led.
const LEAD: &str = "rollouts";
/// Observations that one reading takes at most.
const PAGE: u32 = 5_000;
/// Pages of one rollout in one pass.
const PAGES: usize = 20;
/// So long after it was written, everything of a moment has surely been read: longer than a transaction may last.
const SLACK: Duration = Duration::from_secs(5);
/// What was read is saved this often, so that a restart need not read it again.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Observations that are deleted at once.
const FORGET: u32 = 5_000;

/// One rollout in the leader's hand.
pub(super) struct Book {
    pub(super) casebook: Casebook,
    /// The state, with what changes too often to be written each time.
    controller: Controller,
    /// The state as it is written.
    written: Value,
    saved_at: Timestamp,
    saved_to: u64,
}

impl Engine {
    /// One pass over all rollouts with steps. Pipelines without them cost nothing.
    pub(in crate::engine) async fn conduct(&self) -> Result<(), StoreError> {
        let world = self.world();
        let mut led: Vec<(Arc<Lane>, RolloutIx)> = Vec::new();
        for (_, lane) in world.lanes() {
            let places = (0..).map(RolloutIx).zip(&lane.loaded.pipeline.rollouts);
            led.extend(places.filter(|(_, rollout)| rollout.gated().is_some()).map(|(ix, _)| (lane.clone(), ix)));
        }
        if led.is_empty() {
            return Ok(());
        }
        let mut desk = self.rollouts.desk.lock().await;
        if let Some(lead) = self.take_lead(&mut desk).await? {
            for (lane, ix) in &led {
                self.conduct_one(&mut desk, &lead, lane, *ix).await?;
            }
        } else {
            desk.books.clear();
        }
        drop(desk);
        self.follow_courses().await
    }

    async fn take_lead(&self, desk: &mut Desk) -> Result<Option<Lead>, StoreError> {
        let now = self.clock.now();
        if let Some((lead, at)) = &desk.lead
            && now.since(*at) < self.lease / 3
        {
            return Ok(Some(lead.clone()));
        }
        let lead = self.store.lead(LEAD, self.node, self.lease).await?;
        if lead.as_ref() != desk.lead.as_ref().map(|(lead, _)| lead) {
            // Whoever led meanwhile may have gone further.
            desk.books.clear();
        }
        desk.lead = lead.clone().map(|lead| (lead, now));
        Ok(lead)
    }

    async fn conduct_one(&self, desk: &mut Desk, lead: &Lead, lane: &Lane, ix: RolloutIx) -> Result<(), StoreError> {
        let spec = &lane.loaded.pipeline;
        let rollout = spec.rollout(ix);
        let Some(gated) = rollout.gated() else { return Ok(()) };
        let which = (spec.name.clone(), rollout.name.clone());
        let key = key_of(&which);
        let Some(written) = self.store.document(DocumentKind::Rollout, &key).await? else {
            return self.begin_rollout(lead, &which, gated).await;
        };
        let Some(mut book) = self.open_book(desk, &key, &which, written).await? else { return Ok(()) };
        let head = self.catch_up(&which, &mut book.casebook).await?;
        let switched = lane.flags.overrides_rollouts() || lane.flags.pause.is_some();
        self.go_on(lead, &which, &mut book, (gated, switched, head)).await?;
        self.save(lead, &which, &mut book).await?;
        desk.books.insert(which, book);
        Ok(())
    }

    /// A rollout that has no state yet gets one, before its first step.
    async fn begin_rollout(&self, lead: &Lead, which: &Which, gated: &Gated) -> Result<(), StoreError> {
        let (key, now) = (key_of(which), self.clock.now());
        let after = self.store.last_observation(&which.0, &which.1).await?;
        let controller = match Controller::new(gated.plan.clone(), after, now) {
            Ok(controller) => controller,
            Err(refusal) => {
                tracing::error!(rollout = key, %refusal, "this rollout cannot begin");
                return Ok(());
            }
        };
        let audit = crate::engine::levers::audit(now, &itself(), "rollout.begun", &key, Value::Null);
        let conditions = vec![unchanged(&key, None), Condition::Leads(lead.clone())];
        if self.store.apply_if(conditions, vec![change(DocumentKind::Rollout, &key, &controller)], Some(audit)).await? {
            tracing::info!(rollout = key, "this rollout begins, before its first step");
        }
        Ok(())
    }

    /// What is known of a rollout: in hand, or saved, or from the beginning of its launch.
    async fn open_book(
        &self,
        desk: &mut Desk,
        key: &str,
        which: &Which,
        written: Value,
    ) -> Result<Option<Book>, StoreError> {
        let now = self.clock.now();
        let in_hand = desk.books.remove(which);
        if let Some(book) = in_hand
            && book.written == written
        {
            return Ok(Some(book));
        }
        let Some(controller) = read::<Controller>(DocumentKind::Rollout, key, written.clone()) else { return Ok(None) };
        let casebook = match self.saved_casebook(key, &controller).await? {
            Some(casebook) => Ok(casebook),
            None => Casebook::new(&controller),
        };
        match casebook {
            Ok(casebook) => {
                let saved_to = casebook.read_to();
                Ok(Some(Book { casebook, controller, written, saved_at: now, saved_to }))
            }
            Err(invalid) => {
                tracing::error!(rollout = key, %invalid, "no test can be made of this gate");
                Ok(None)
            }
        }
    }

    /// Reads what was written since, and counts it. The number up to which it has read.
    async fn catch_up(&self, which: &Which, casebook: &mut Casebook) -> Result<u64, StoreError> {
        let looked_at = self.store.now().await?;
        let mut caught_up = false;
        for _ in 0..PAGES {
            let query = ObservationQuery {
                pipeline: which.0.clone(),
                rollout: which.1.clone(),
                after: casebook.read_to(),
                limit: PAGE,
            };
            let page = self.store.observations(query).await?;
            for Observation { number, at, job, what } in &page {
                casebook.read(*number, *at, *job, what);
            }
            caught_up = page.len() < PAGE as usize;
            if caught_up {
                break;
            }
        }
        let known_until = if caught_up { looked_at } else { casebook.last_at().unwrap_or(looked_at) };
        casebook.fold(known_until - SLACK);
        Ok(casebook.read_to())
    }

    /// Lets happen what there is to happen, one after the other, until nothing more does.
    async fn go_on(
        &self,
        lead: &Lead,
        which: &Which,
        book: &mut Book,
        (gated, switched, head): (&Gated, bool, u64),
    ) -> Result<(), StoreError> {
        if book.controller.plan() != &gated.plan
            && !self
                .step(lead, which, book, |controller, _, now| controller.on(Event::Edited(&gated.plan, head), now))
                .await?
        {
            return Ok(());
        }
        if switched != book.controller.is_switched() {
            if switched {
                // What is in flight now was not let end by the candidate's own doing.
                let told = Told { rollout: which.1.clone(), what: Observed::Switched };
                let observation = NewObservation { pipeline: which.0.clone(), job: None, told };
                self.store.observe(vec![observation]).await?;
                self.catch_up(which, &mut book.casebook).await?;
            }
            let event = if switched { Event::SwitchOn } else { Event::SwitchOff };
            if !self.step(lead, which, book, |controller, _, now| controller.on(event, now)).await? {
                return Ok(());
            }
        }
        if let Some(failures) = book.casebook.take_trip()
            && !self
                .step(lead, which, book, |controller, _, now| controller.on(Event::BreakerTripped(failures), now))
                .await?
        {
            return Ok(());
        }
        self.step(lead, which, book, |controller, readings, now| controller.on(Event::Tick(readings), now))
            .await
            .map(drop)
    }

    /// One event; whether what came of it is in force.
    async fn step(
        &self,
        lead: &Lead,
        which: &Which,
        book: &mut Book,
        event: impl FnOnce(&Controller, &Readings, Timestamp) -> Result<Turn, Refusal>,
    ) -> Result<bool, StoreError> {
        let (key, now) = (key_of(which), self.clock.now());
        let readings = book.casebook.readings();
        let Turn { controller, transition } = match event(&book.controller, &readings, now) {
            Ok(turn) => turn,
            Err(refusal) => {
                tracing::error!(rollout = key, %refusal, "the rollout stands still");
                return Ok(false);
            }
        };
        let Some(transition) = transition else {
            book.controller = controller;
            return Ok(true);
        };
        let mut casebook = book.casebook.clone();
        if let Err(invalid) = casebook.follow(&controller) {
            tracing::error!(rollout = key, %invalid, "no test can be made of this gate; the rollout stands still");
            return Ok(false);
        }
        let state = change(DocumentKind::Rollout, &key, &controller);
        let written = state.value.clone().unwrap_or_default();
        let changes = vec![state, change(DocumentKind::Evidence, &key, &casebook)];
        let conditions = vec![unchanged(&key, Some(book.written.clone())), Condition::Leads(lead.clone())];
        let audit = entry(&key, &transition, &controller, &itself(), now);
        if !self.store.apply_if(conditions, changes, Some(audit)).await? {
            tracing::info!(rollout = key, "somebody else moved this rollout meanwhile; looking again");
            return Ok(false);
        }
        let words = format!("{} to {}: {}", transition.percent_before, transition.percent_after, transition.reason);
        if matches!(transition.to, State::RolledBack | State::Held) {
            tracing::warn!(rollout = key, change = %transition.change, "{words}");
        } else {
            tracing::info!(rollout = key, change = %transition.change, "{words}");
        }
        (book.controller, book.casebook, book.written) = (controller, casebook, written);
        (book.saved_at, book.saved_to) = (now, book.casebook.read_to());
        // What routing reads follows at once, not with the next pass.
        self.follow_courses().await?;
        Ok(true)
    }

    /// Saves what was read now and then, and lets go what is counted for good.
    async fn save(&self, lead: &Lead, which: &Which, book: &mut Book) -> Result<(), StoreError> {
        let (key, now) = (key_of(which), self.clock.now());
        if book.casebook.read_to() == book.saved_to || now.since(book.saved_at) < SAVE_EVERY {
            return Ok(());
        }
        let state = change(DocumentKind::Rollout, &key, &book.controller);
        let written = state.value.clone().unwrap_or_default();
        let changes = vec![state, change(DocumentKind::Evidence, &key, &book.casebook)];
        let conditions = vec![unchanged(&key, Some(book.written.clone())), Condition::Leads(lead.clone())];
        if self.store.apply_if(conditions, changes, None).await? {
            book.written = written;
            (book.saved_at, book.saved_to) = (now, book.casebook.read_to());
            while self.store.forget_observations(&which.0, &which.1, book.casebook.floor(), FORGET).await?
                >= u64::from(FORGET)
            {}
        }
        Ok(())
    }
}

/// What happens by itself.
fn itself() -> Act {
    Act { actor: "landbridge".to_owned(), ..Act::default() }
}
