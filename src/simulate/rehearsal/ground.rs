//! Where scenes are played: an event queue, and the daemon's own decisions.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use super::{CURTAIN, Outcome, Scene, SceneJob, ScenePipeline, SceneTarget, Sent};
use crate::{
    clock::Timestamp,
    job::{
        Fault,
        retry::{Availability, Candidate, Past, Policy, Step, after_fault},
    },
    names::TargetName,
    quota::{
        Allowance, Ask, Blocked, Breaker, BreakerPolicy, Demand, Ending, Gate, Limit, LineIx, Reservation, Scheduler,
        Throttle, TicketIx, Told, Verdict, allowance::rate_cost,
    },
    simulate::model::{Behaviour, CallFacts, Chance, Fate, FaultKind, Level, Meter, Plan},
    spec::Api,
};

/// A job that failed goes behind those so much younger: it is not the one that tries every time.
const BEHIND: Duration = Duration::from_mins(1);
/// While another call tries a target.
const TRY_AGAIN: Duration = Duration::from_secs(1);

struct Stand {
    target: SceneTarget,
    allowance: Allowance,
    breaker: Breaker,
}

struct Player {
    pipeline: usize,
    job: usize,
    past: Vec<Past>,
    /// What lets the call under way be sent.
    held: Option<(usize, Reservation)>,
}

enum Event {
    Comes(u64),
    Ends(u64, Box<Plan>),
    Pump,
}

struct Stage<'a> {
    scene: &'a Scene,
    stands: Vec<Stand>,
    flying: Vec<u32>,
    players: HashMap<u64, Player>,
    asked: usize,
}

impl Gate for Stage<'_> {
    fn admit(&mut self, now: Timestamp, ticket: TicketIx, option: usize) -> Result<(), Blocked> {
        self.asked += 1;
        let nobody = Blocked { by: Limit::Turn, until: now + TRY_AGAIN };
        let player = self.players.get_mut(&ticket.0).ok_or(nobody)?;
        let pipeline = self.scene.pipelines.get(player.pipeline).ok_or(nobody)?;
        let flying = self.flying.get_mut(player.pipeline).ok_or(nobody)?;
        if *flying >= pipeline.concurrency {
            return Err(Blocked { by: Limit::PipelineConcurrency, until: now + Duration::from_mins(1) });
        }
        let place = pipeline.targets.get(option).copied().ok_or(nobody)?;
        let stand = self.stands.get_mut(place).ok_or(nobody)?;
        let job = pipeline.jobs.get(player.job).ok_or(nobody)?;
        if let Some(until) = stand.breaker.not_before(now) {
            return Err(Blocked { by: Limit::Breaker, until: until.min(now + TRY_AGAIN) });
        }
        let demand = demand(&stand.target, job);
        stand.allowance.check(now, demand)?;
        if !stand.breaker.on_call(now) {
            return Err(Blocked { by: Limit::Breaker, until: now + TRY_AGAIN });
        }
        *flying += 1;
        player.held = Some((place, stand.allowance.take(now, demand)));
        Ok(())
    }
}

fn demand(target: &SceneTarget, job: &SceneJob) -> Demand {
    let tokens = match target.api {
        Api::Bedrock => job.input.saturating_add(job.most_output),
        Api::OpenAi => job.input.max(job.most_output),
    };
    Demand { requests: 1, tokens }
}

/// Plays a scene to its end.
pub fn rehearse(scene: &Scene) -> Outcome {
    let stands = scene
        .targets
        .iter()
        .map(|target| Stand {
            target: target.clone(),
            allowance: Allowance::new(target.grant, CURTAIN),
            breaker: Breaker::new(BreakerPolicy::default()),
        })
        .collect();
    let flying = vec![0; scene.pipelines.len()];
    let stage = Stage { scene, stands, flying, players: HashMap::new(), asked: 0 };
    let mut play = Play {
        behaviour: Behaviour::new(scene.behaviour.clone(), CURTAIN),
        chance: Chance::of_call(scene.behaviour.seed, u64::MAX),
        scheduler: Scheduler::default(),
        events: BinaryHeap::new(),
        payloads: HashMap::new(),
        outcome: Outcome::default(),
        next_event: 0,
        pump_at: None,
        stage,
    };
    play.begin();
    play.run(CURTAIN + scene.bound);
    play.outcome
}

struct Play<'a> {
    stage: Stage<'a>,
    behaviour: Behaviour,
    chance: Chance,
    scheduler: Scheduler,
    events: BinaryHeap<Reverse<(Timestamp, u64)>>,
    payloads: HashMap<u64, Event>,
    outcome: Outcome,
    next_event: u64,
    pump_at: Option<Timestamp>,
}

impl Play<'_> {
    fn begin(&mut self) {
        let mut ticket = 0;
        let scene = self.stage.scene;
        for (place, pipeline) in scene.pipelines.iter().enumerate() {
            for (job, shape) in pipeline.jobs.iter().enumerate() {
                self.stage.players.insert(ticket, Player { pipeline: place, job, past: Vec::new(), held: None });
                self.at(CURTAIN + shape.at, Event::Comes(ticket));
                ticket += 1;
            }
        }
    }

    fn at(&mut self, time: Timestamp, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.events.push(Reverse((time, number)));
        self.payloads.insert(number, event);
    }

    fn run(&mut self, bound: Timestamp) {
        let mut last = CURTAIN;
        while let Some(Reverse((now, number))) = self.events.pop() {
            if now > bound {
                break;
            }
            let Some(event) = self.payloads.remove(&number) else { continue };
            match event {
                Event::Comes(ticket) => self.comes(ticket),
                Event::Ends(ticket, plan) => {
                    last = last.max(now);
                    self.ends(ticket, *plan, now);
                }
                Event::Pump => self.pump_at = None,
            }
            // Everything of one moment first.
            if self.events.peek().is_none_or(|Reverse((next, _))| *next > now) {
                self.pump(now);
            }
        }
        self.outcome.makespan = CURTAIN.until(last);
        self.outcome.unfinished = self.stage.players.len();
        self.outcome.throttled = self.outcome.calls.iter().filter(|call| call.throttled).count();
        self.outcome.asked = self.stage.asked;
    }

    fn comes(&mut self, ticket: u64) {
        let scene = self.stage.scene;
        let Some(player) = self.stage.players.get(&ticket) else { return };
        let Some(pipeline) = scene.pipelines.get(player.pipeline) else { return };
        let (Some(job), Some(first)) = (pipeline.jobs.get(player.job), pipeline.targets.first()) else { return };
        let line = |place: &usize| LineIx(u32::try_from(*place).unwrap_or(u32::MAX));
        let cost =
            self.stage.stands.get(*first).map_or(0, |stand| rate_cost(&stand.allowance, demand(&stand.target, job)));
        let ask = Ask {
            line: line(first),
            flow: pipeline.name.clone(),
            weight: pipeline.weight,
            key: job.key.clone(),
            interactive: false,
            order: (CURTAIN
                + job.at
                + player.past.iter().filter(|past| past.burns()).map(|_| BEHIND).sum::<Duration>())
            .as_micros(),
            cost,
            equals: pipeline.targets.iter().skip(1).map(line).collect(),
            spill_after: pipeline.spill_after,
        };
        self.scheduler.enter(TicketIx(ticket), ask);
    }

    fn pump(&mut self, now: Timestamp) {
        while self.scheduler.due().is_some_and(|due| due <= now) {
            for granted in self.scheduler.pump(now, &mut self.stage) {
                self.send(granted.ticket.0, now);
            }
        }
        if let Some(due) = self.scheduler.due()
            && self.pump_at.is_none_or(|at| due < at)
        {
            self.pump_at = Some(due);
            self.at(due, Event::Pump);
        }
    }

    fn send(&mut self, ticket: u64, now: Timestamp) {
        let Some(player) = self.stage.players.get(&ticket) else { return };
        let Some((place, _)) = player.held else { return };
        let (Some(stand), Some(pipeline)) =
            (self.stage.stands.get(place), self.stage.scene.pipelines.get(player.pipeline))
        else {
            return;
        };
        let Some(job) = pipeline.jobs.get(player.job) else { return };
        let facts = CallFacts {
            api: stand.target.api,
            model: &stand.target.model,
            region: None,
            input_tokens: job.input,
            max_output_tokens: Some(job.most_output),
            model_max_output_tokens: job.most_output,
            burndown: stand.target.burndown,
            streamed: false,
        };
        let plan = self.behaviour.plan(&facts, now);
        let throttled = matches!(plan.fate, Fate::Throttle(_));
        self.outcome.calls.push(Sent { at: now, target: place, pipeline: player.pipeline, throttled });
        let takes = match plan.fate {
            Fate::Answer => plan.latency,
            Fate::Throttle(_) => self.stage.scene.turned_away_after,
            Fate::Fault(kind) if kind.takes_time() => plan.latency,
            Fate::Fault(FaultKind::Hang) => Duration::from_secs(30),
            Fate::Fault(_) => self.stage.scene.turned_away_after,
        };
        self.at(now + takes, Event::Ends(ticket, Box::new(plan)));
    }

    fn ends(&mut self, ticket: u64, plan: Plan, now: Timestamp) {
        let scene = self.stage.scene;
        let Some(player) = self.stage.players.get_mut(&ticket) else { return };
        let Some((place, reservation)) = player.held.take() else { return };
        let Some(pipeline) = scene.pipelines.get(player.pipeline) else { return };
        let (Some(job), Some(stand)) = (pipeline.jobs.get(player.job), self.stage.stands.get_mut(place)) else {
            return;
        };
        if let Some(flying) = self.stage.flying.get_mut(player.pipeline) {
            *flying = flying.saturating_sub(1);
        }
        let told = |level: Option<Level>| match level {
            Some(level) if stand.target.headers => {
                Told { limit: Some(level.limit), remaining: Some(level.remaining), reset: Some(level.reset) }
            }
            _ => Told::default(),
        };
        let (requests, tokens) = (told(plan.rates.requests), told(plan.rates.tokens));
        let answered = plan.fate == Fate::Answer;
        let charged = (stand.target.api == Api::Bedrock && answered)
            .then(|| job.input + job.output * u64::from(stand.target.burndown));
        if let Some(reserved) = plan.reservation {
            let (input, output) = if answered { (job.input, job.output) } else { (job.input, 0) };
            self.behaviour.settle(reserved, input, output, now);
        }
        let (fault, verdict) = judge(plan.fate);
        stand.allowance.settle(now, reservation, &Ending { verdict, charged, requests, tokens });
        let was_open =
            stand.breaker.not_before(now).is_some() || stand.breaker.phase(now) != crate::quota::BreakerPhase::Closed;
        match fault {
            None => stand.breaker.on_success(now),
            Some(fault) => stand.breaker.on_fault(now, fault),
        }
        let line = LineIx(u32::try_from(place).unwrap_or(u32::MAX));
        if was_open && stand.breaker.phase(now) == crate::quota::BreakerPhase::Closed {
            stand.allowance.reopen(now);
            self.scheduler.reopen(line);
        }
        self.scheduler.stir(line);
        self.scheduler.stir_flow(&pipeline.name);
        match fault {
            None => self.done(ticket, now, true),
            Some(fault) => self.failed(ticket, place, fault, now),
        }
    }

    fn failed(&mut self, ticket: u64, place: usize, fault: Fault, now: Timestamp) {
        let scene = self.stage.scene;
        let Some(player) = self.stage.players.get_mut(&ticket) else { return };
        let Some(stand) = self.stage.stands.get_mut(place) else { return };
        let Some(pipeline) = scene.pipelines.get(player.pipeline) else { return };
        let Ok(name) = TargetName::new(&format!("t{place}")) else { return };
        player.past.push(Past { target: name.clone(), fault, theirs: true, possibly_billed: false });
        let availability = match (stand.breaker.not_before(now), stand.allowance.closed_until(now)) {
            (Some(until), _) => Availability::NotBefore(until.min(now + TRY_AGAIN)),
            (None, Some((until, _))) => Availability::Throttled(until),
            (None, None) => Availability::Ready,
        };
        let chain = [Candidate { name, availability, context_window: None }];
        let policy = Policy { retry: pipeline.retry, spill_after: pipeline.spill_after };
        match after_fault(&chain, &player.past, &policy, now, None, self.chance.unit()) {
            Step::Call(_) => self.at(now, Event::Comes(ticket)),
            Step::Wait { until } => self.at(until, Event::Comes(ticket)),
            Step::Hold(_) | Step::Fail { .. } => self.done(ticket, now, false),
        }
    }

    fn done(&mut self, ticket: u64, now: Timestamp, answered: bool) {
        let Some(player) = self.stage.players.remove(&ticket) else { return };
        let came = job_of(self.stage.scene, &player).map_or(Duration::ZERO, |job| job.at);
        self.outcome.longest = self.outcome.longest.max((CURTAIN + came).until(now));
        if answered {
            self.outcome.succeeded += 1;
        } else {
            self.outcome.failed += 1;
        }
    }
}

fn job_of<'a>(scene: &'a Scene, player: &Player) -> Option<&'a SceneJob> {
    scene.pipelines.get(player.pipeline).and_then(|pipeline: &ScenePipeline| pipeline.jobs.get(player.job))
}

/// What the daemon makes of a fate.
fn judge(fate: Fate) -> (Option<Fault>, Verdict) {
    match fate {
        Fate::Answer => (None, Verdict::Answered),
        Fate::Throttle(exceeded) => {
            let kind = match exceeded.meter {
                Meter::Requests => Throttle::Requests,
                Meter::Tokens => Throttle::Tokens,
                Meter::DailyTokens => Throttle::TokensPerDay,
            };
            (Some(Fault::Throttled), Verdict::Throttled(kind, None))
        }
        Fate::Fault(kind) => match kind {
            FaultKind::Throttled { retry_after } => {
                (Some(Fault::Throttled), Verdict::Throttled(Throttle::Unsaid, retry_after))
            }
            FaultKind::QuotaExhausted => (Some(Fault::Throttled), Verdict::Throttled(Throttle::TokensPerDay, None)),
            FaultKind::Overloaded { .. } => (Some(Fault::Unavailable), Verdict::Overloaded),
            FaultKind::ServerError | FaultKind::BadGateway | FaultKind::ModelTimeout | FaultKind::BrokenJson => {
                (Some(Fault::Transient), Verdict::Other)
            }
            FaultKind::Hang
            | FaultKind::Reset { .. }
            | FaultKind::StreamCut { .. }
            | FaultKind::StreamStall { .. }
            | FaultKind::StreamError { .. } => (Some(Fault::Unknown), Verdict::Other),
            FaultKind::ContentFilter | FaultKind::SlowDrip { .. } => (None, Verdict::Answered),
            FaultKind::Refused => (Some(Fault::Refused), Verdict::Other),
            FaultKind::ContextLength => (Some(Fault::TooLong), Verdict::Other),
            FaultKind::Unauthorized | FaultKind::Forbidden | FaultKind::ModelNotFound | FaultKind::EndOfLife => {
                (Some(Fault::Misconfigured), Verdict::Other)
            }
        },
    }
}
