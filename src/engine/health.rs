//! How everything that is called is doing: its quota and who waits for it, its breaker, and whether it waits for an
//! operator.
//!
//! Invariant: shared by all pipelines. A [`Pass`] is the right to send one call; every pass ends in exactly one of
//! [`Health::unsent`], [`Health::settled`], [`Health::succeeded`] and [`Health::failed`]. What was learned of quotas
//! survives a restart; breakers and parking are found out again.

mod demand;
mod room;
mod said;
mod standing;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

pub(super) use demand::{charge, demand};
pub(super) use room::Way;
use room::{Parked, Quota, Room, TRY_AGAIN, Waiter};
use said::{throttle, told};
pub use standing::QuotaStanding;

use super::spending::{Payers, Spending};
use crate::{
    clock::{SharedClock, Timestamp},
    ids::JobId,
    job::{Fault, retry::Availability},
    money::Usd,
    names::{ProviderName, Region},
    provider::{CallError, RateLimit},
    quota::{
        Ask, Blocked, BreakerPhase, Ending, Learned, LineIx, Reservation, Scheduler, TicketIx, Verdict,
        allowance::rate_cost,
    },
    settings::QuotaSetting,
    spec::Target,
};

/// What breakers are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// The provider account.
    pub provider: ProviderName,
    /// The model as the target names it: an inference profile breaks apart from its base model.
    pub model: String,
    /// The region called.
    pub region: Option<Region>,
}

impl TargetKey {
    /// A target's.
    pub fn of(target: &Target) -> Self {
        Self { provider: target.provider.clone(), model: target.model.clone(), region: target.region.clone() }
    }
}

/// What a call takes from a quota.
pub use crate::quota::Demand;

/// A parked target is tried again by one job after this long, and twice as long each time it fails.
const FIRST_PROBE: Duration = Duration::from_mins(1);

/// A job that wants to call.
#[derive(Debug)]
pub(super) struct Wish {
    /// Which.
    pub job: JobId,
    /// Its pipeline.
    pub flow: Arc<str>,
    /// The pipeline's weight.
    pub weight: u32,
    /// Calls of the pipeline at once.
    pub most: u32,
    /// Whom it belongs to, inside its pipeline.
    pub key: Arc<str>,
    /// Its caller waits: it goes before what is queued.
    pub interactive: bool,
    /// Who pays.
    pub payers: Box<Payers>,
    /// The lowest goes first.
    pub order: i64,
    /// The target routed to, then equal ones.
    pub ways: SmallVec<[Way; 1]>,
    /// When equal ones serve.
    pub spill_after: Duration,
}

/// The right to send one call.
#[derive(Debug)]
#[must_use = "a pass that is not ended keeps its places for good"]
pub(super) struct Pass {
    /// Which of the ways.
    pub option: usize,
    key: TargetKey,
    flow: Arc<str>,
    line: LineIx,
    reservation: Reservation,
    payers: Box<Payers>,
    /// What it set aside of its payers' budgets.
    most_cost: Usd,
}

/// A wish that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its number.
    pub ticket: TicketIx,
    /// Gives the pass; closed when the job should decide anew.
    pub pass: oneshot::Receiver<Pass>,
}

#[derive(Debug)]
struct Floor {
    room: Room,
    scheduler: Scheduler,
    next: u64,
    /// When the timer was told to look.
    alarm: Option<Timestamp>,
}

/// The health of everything that is called.
#[derive(Debug)]
pub struct Health {
    floor: Mutex<Floor>,
    spending: Arc<Spending>,
    /// The timer has to look earlier than it was told.
    earlier: Notify,
    /// A parked target answered again: held jobs may decide anew.
    mended: AtomicBool,
}

impl Health {
    /// Everything is well, until something else is known.
    pub(super) fn new(spending: Arc<Spending>) -> Self {
        let room = Room::new(spending.clone());
        let floor = Floor { room, scheduler: Scheduler::default(), next: 0, alarm: None };
        Self { floor: Mutex::new(floor), spending, earlier: Notify::new(), mended: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Questions to limits so far.
    #[cfg(test)]
    pub(super) fn questions(&self) -> u64 {
        self.lock().room.questions
    }

    /// Lets go who can go, as time passes, until `stop`.
    pub(super) async fn keep_time(&self, clock: SharedClock, stop: CancellationToken) {
        loop {
            let earlier = self.earlier.notified();
            tokio::pin!(earlier);
            earlier.as_mut().enable();
            let now = clock.now();
            let due = {
                let mut floor = self.lock();
                floor.alarm = None;
                floor.pump(now);
                floor.alarm = floor.scheduler.due();
                floor.alarm
            };
            let nap = due.map_or(Duration::from_hours(1), |due| now.until(due));
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut earlier => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// A job begins to wait for its turn; it may have its pass at once.
    pub(super) fn ask(&self, wish: Wish, now: Timestamp) -> Waiting {
        let mut floor = self.lock();
        let ticket = TicketIx(floor.next);
        floor.next += 1;
        let (go, pass) = oneshot::channel();
        let lines: SmallVec<[LineIx; 2]> = wish.ways.iter().map(|way| floor.room.of(&way.key, now).line).collect();
        let line = lines.first().copied().unwrap_or(LineIx(0));
        let cost = match (floor.room.allowance(line), wish.ways.first()) {
            (Some(allowance), Some(way)) => rate_cost(allowance, way.demand),
            _ => 1,
        };
        let ask = Ask {
            line,
            flow: wish.flow.clone(),
            weight: wish.weight,
            key: wish.key,
            interactive: wish.interactive,
            order: wish.order,
            cost,
            equals: lines.iter().skip(1).copied().collect(),
            spill_after: wish.spill_after,
        };
        let Wish { job, flow, most, ways, payers, .. } = wish;
        let waiter = Waiter { job, flow, most, ways, payers, held: None, go };
        floor.room.waiters.insert(ticket, waiter);
        floor.scheduler.enter(ticket, ask);
        self.serve(&mut floor, now);
        Waiting { ticket, pass }
    }

    /// A job waits no longer. A pass that came in the same moment is its to end.
    pub(super) fn withdraw(&self, ticket: TicketIx, now: Timestamp) {
        let mut floor = self.lock();
        floor.scheduler.withdraw(ticket);
        floor.room.waiters.remove(&ticket);
        self.serve(&mut floor, now);
    }

    /// What a waiting job waits for, and when it may go: not before the line moves again.
    pub(super) fn blocked(&self, ticket: TicketIx, now: Timestamp) -> Option<Blocked> {
        let mut floor = self.lock();
        let line = floor.scheduler.ask(ticket)?.line;
        let key = floor.room.waiters.get(&ticket)?.ways.first()?.key.clone();
        let condition = floor.room.of(&key, now);
        if let Some(parked) = &condition.parked {
            return Some(Blocked { by: crate::quota::Limit::Breaker, until: parked.probe_at });
        }
        floor.scheduler.line(line).blocked
    }

    /// Makes everybody decide anew.
    pub(super) fn scatter(&self) {
        let mut floor = self.lock();
        let tickets: Vec<TicketIx> = floor.room.waiters.keys().copied().collect();
        for ticket in tickets {
            floor.scheduler.withdraw(ticket);
            floor.room.waiters.remove(&ticket);
        }
    }

    /// Puts quotas in force; what was used of a quota that stays the same stays used.
    pub(super) fn install_quotas(&self, settings: &[QuotaSetting], ramps: Vec<ProviderName>, now: Timestamp) {
        let mut floor = self.lock();
        let same = floor.room.ramps == ramps
            && floor.room.quotas.len() == settings.len()
            && floor.room.quotas.iter().zip(settings).all(|(quota, setting)| quota.setting == *setting);
        if same {
            return;
        }
        floor.room.ramps = ramps;
        let moved = floor.room.set_quotas(settings.iter().filter_map(Quota::new).collect(), now);
        floor.scheduler.stir_all();
        self.serve(&mut floor, now);
        drop(floor);
        if moved {
            self.scatter();
        }
    }

    /// What an earlier life learned.
    pub(super) fn remember(&self, learned: HashMap<String, Learned>) {
        self.lock().room.remembered = learned;
    }

    /// What was learned since it was last written down.
    pub(super) fn news(&self, now: Timestamp) -> Vec<(String, Learned)> {
        let mut floor = self.lock();
        let mut news = Vec::new();
        for account in &mut floor.room.accounts {
            let learned = account.allowance.learned(now);
            if learned != account.written {
                account.written = learned.clone();
                news.push((account.name.clone(), learned));
            }
        }
        news
    }

    /// The operator changed something: parked targets are tried again at once.
    pub(super) fn something_changed(&self) {
        let mut floor = self.lock();
        for condition in floor.room.conditions.values_mut() {
            condition.parked = None;
        }
        floor.scheduler.stir_all();
        self.earlier.notify_one();
    }

    /// Whether a parked target answered since this was last asked.
    pub(super) fn take_mended(&self) -> bool {
        self.mended.swap(false, Ordering::AcqRel)
    }

    /// Whether a target waits for an operator; a probe that is due does not change that.
    pub fn is_parked(&self, target: &Target, _now: Timestamp) -> bool {
        self.lock().room.conditions.get(&TargetKey::of(target)).is_some_and(|condition| condition.parked.is_some())
    }

    /// Whether one job may try if a parked target is mended.
    fn probe_is_due(&self, key: &TargetKey, now: Timestamp) -> bool {
        let floor = self.lock();
        let parked = floor.room.conditions.get(key).and_then(|condition| condition.parked.as_ref());
        parked.is_some_and(|parked| parked.probe_at <= now)
    }

    fn availability(&self, key: &TargetKey, now: Timestamp) -> Availability {
        let mut floor = self.lock();
        let condition = floor.room.of(key, now);
        if condition.parked.as_ref().is_some_and(|parked| parked.probe_at > now) {
            return Availability::Parked;
        }
        if let Some(until) = condition.broken_until(now) {
            return Availability::NotBefore(until);
        }
        let line = condition.line;
        match floor.room.allowance(line).and_then(|allowance| allowance.closed_until(now)) {
            Some((until, _)) => Availability::Throttled(until),
            None => Availability::Ready,
        }
    }

    /// Nothing was sent: gives everything back.
    pub(super) fn unsent(&self, pass: Pass, now: Timestamp) {
        let mut floor = self.lock();
        if let Some(allowance) = floor.room.allowance(pass.line) {
            allowance.cancel(pass.reservation);
        }
        self.spending.settle(now, &pass.payers, pass.most_cost, Usd::ZERO);
        // A try that was not made is the next one's.
        floor.room.of(&pass.key, now).breaker.on_fault(now, Fault::Interrupted);
        self.land(&mut floor, &pass, now);
    }

    /// A call ended that says nothing of its target. It may have been billed.
    pub(super) fn settled(&self, pass: Pass, now: Timestamp) {
        self.spending.settle(now, &pass.payers, pass.most_cost, pass.most_cost);
        let mut floor = self.lock();
        if let Some(allowance) = floor.room.allowance(pass.line) {
            allowance.settle(now, pass.reservation, &Ending::default());
        }
        floor.room.of(&pass.key, now).breaker.on_fault(now, Fault::Interrupted);
        self.land(&mut floor, &pass, now);
    }

    /// A call was answered; `bill` is what it cost, as far as that is known.
    pub(super) fn succeeded(
        &self,
        pass: Pass,
        charged: Option<u64>,
        bill: Option<Usd>,
        said: &RateLimit,
        now: Timestamp,
    ) {
        let (requests, tokens) = told(said);
        self.spending.settle(now, &pass.payers, pass.most_cost, bill.unwrap_or_default());
        let mut floor = self.lock();
        if let Some(allowance) = floor.room.allowance(pass.line) {
            let ending = Ending { verdict: Verdict::Answered, charged, requests, tokens };
            allowance.settle(now, pass.reservation, &ending);
        }
        let condition = floor.room.of(&pass.key, now);
        let was_closed = condition.breaker.phase(now) == BreakerPhase::Closed;
        condition.breaker.on_success(now);
        let reopened = !was_closed && condition.breaker.phase(now) == BreakerPhase::Closed;
        let mended = condition.parked.take().is_some();
        if reopened || mended {
            if let Some(allowance) = floor.room.allowance(pass.line) {
                allowance.reopen(now);
            }
            floor.scheduler.reopen(pass.line);
        }
        self.land(&mut floor, &pass, now);
        drop(floor);
        if mended {
            tracing::info!(provider = %pass.key.provider, model = pass.key.model, "a parked target answers again");
            self.mended.store(true, Ordering::Release);
        }
    }

    /// A call failed; `bill` is what it cost, as far as that is known.
    pub(super) fn failed(&self, pass: Pass, error: &CallError, bill: Option<Usd>, now: Timestamp) {
        let (requests, tokens) = told(&error.rate_limit);
        let perhaps = if error.possibly_billed { pass.most_cost } else { Usd::ZERO };
        self.spending.settle(now, &pass.payers, pass.most_cost, bill.unwrap_or(perhaps));
        let verdict = match error.fault {
            Fault::Throttled => Verdict::Throttled(throttle(error), error.retry_after),
            Fault::Unavailable => Verdict::Overloaded,
            _ => Verdict::Other,
        };
        let mut floor = self.lock();
        if let Some(allowance) = floor.room.allowance(pass.line) {
            allowance.settle(now, pass.reservation, &Ending { verdict, charged: None, requests, tokens });
        }
        let condition = floor.room.of(&pass.key, now);
        let was_closed = condition.breaker.phase(now) == BreakerPhase::Closed;
        condition.breaker.on_fault(now, error.fault);
        let phase = condition.breaker.phase(now);
        if error.fault == Fault::Misconfigured {
            let pause = condition.parked.as_ref().map_or(FIRST_PROBE, |parked| parked.pause);
            condition.parked = Some(Parked { probe_at: now + pause, pause });
        }
        if !was_closed && phase == BreakerPhase::Closed {
            floor.scheduler.reopen(pass.line);
        }
        if error.fault == Fault::Misconfigured || (was_closed && phase != BreakerPhase::Closed) {
            // Who waits for it should look for another target.
            floor.send_away(&pass.key);
        }
        self.land(&mut floor, &pass, now);
    }

    fn land(&self, floor: &mut Floor, pass: &Pass, now: Timestamp) {
        floor.room.landed(&pass.flow, &pass.key);
        floor.scheduler.stir(pass.line);
        floor.scheduler.stir_flow(&pass.flow);
        self.serve(floor, now);
    }

    /// Lets go who can go now, and sees that the timer looks in time.
    fn serve(&self, floor: &mut Floor, now: Timestamp) {
        floor.pump(now);
        let due = floor.scheduler.due();
        if due.is_some_and(|due| floor.alarm.is_none_or(|alarm| due < alarm)) {
            floor.alarm = due;
            self.earlier.notify_one();
        }
    }
}

impl Floor {
    /// Gives passes until nobody more can go now.
    fn pump(&mut self, now: Timestamp) {
        while self.scheduler.due().is_some_and(|due| due <= now) {
            for granted in self.scheduler.pump(now, &mut self.room) {
                let Some(waiter) = self.room.waiters.remove(&granted.ticket) else { continue };
                let (Some((option, line, reservation)), Some(way)) = (waiter.held, waiter.ways.get(granted.option))
                else {
                    continue;
                };
                let (key, most_cost) = (way.key.clone(), way.most_cost.unwrap_or_default());
                let (flow, payers) = (waiter.flow.clone(), waiter.payers);
                let pass = Pass { option, key, flow, line, reservation, payers, most_cost };
                if let Err(pass) = waiter.go.send(pass) {
                    // Nobody waits any more: nothing will be sent.
                    if let Some(allowance) = self.room.allowance(pass.line) {
                        allowance.cancel(pass.reservation);
                    }
                    self.room.spending.settle(now, &pass.payers, pass.most_cost, Usd::ZERO);
                    self.room.of(&pass.key, now).breaker.on_fault(now, Fault::Interrupted);
                    self.room.landed(&pass.flow, &pass.key);
                    self.scheduler.stir(pass.line);
                    self.scheduler.stir_flow(&pass.flow);
                }
            }
            self.send_the_poor_away();
        }
    }

    /// Makes those decide anew whose budget turned out to be spent while they waited.
    fn send_the_poor_away(&mut self) {
        let (mut poor, flows) = std::mem::take(&mut self.room.poor);
        if !flows.is_empty() {
            poor.extend(self.room.waiters.iter().filter(|(_, it)| flows.contains(&it.flow)).map(|(ticket, _)| *ticket));
        }
        for ticket in poor {
            if let Some(ask) = self.scheduler.withdraw(ticket) {
                self.scheduler.stir(ask.line);
            }
            self.room.waiters.remove(&ticket);
        }
    }

    /// Makes those who wait for a target decide anew.
    fn send_away(&mut self, key: &TargetKey) {
        let waits = |waiter: &Waiter| waiter.ways.first().is_some_and(|way| way.key == *key);
        let tickets: Vec<TicketIx> =
            self.room.waiters.iter().filter(|(_, waiter)| waits(waiter)).map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            self.scheduler.withdraw(ticket);
            self.room.waiters.remove(&ticket);
        }
    }
}

/// A job in a line is looked at again this often, in case its line stands still for long.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// Only lines that stand still for longer than this send their jobs back to the store.
pub(super) const LONG: Duration = TRY_AGAIN.saturating_mul(20);
