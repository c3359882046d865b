//! Lines and turns: shares, passing, and waits that end.

use proptest::prelude::*;

use super::{line::QUEUED_TURN, *};
use crate::quota::{Allowance, Demand, Grant, Limit, Reservation};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn at(seconds: f64) -> Timestamp {
    NOW + Duration::from_secs_f64(seconds)
}

type Ways = Vec<(LineIx, Demand)>;

/// Lines with an allowance each, and bounds for pipelines.
struct Room {
    allowances: Vec<Allowance>,
    demands: HashMap<TicketIx, (Arc<str>, Ways)>,
    in_flight: HashMap<Arc<str>, u32>,
    most: HashMap<Arc<str>, u32>,
    held: Vec<Reservation>,
    asked: usize,
}

impl Room {
    fn new(grants: &[Grant]) -> Self {
        let allowances = grants.iter().map(|grant| Allowance::new(*grant, NOW)).collect();
        Self {
            allowances,
            demands: HashMap::new(),
            in_flight: HashMap::new(),
            most: HashMap::new(),
            held: Vec::new(),
            asked: 0,
        }
    }
}

impl Gate for Room {
    fn admit(&mut self, now: Timestamp, ticket: TicketIx, option: usize) -> Result<(), Blocked> {
        self.asked += 1;
        let (flow, options) = &self.demands[&ticket];
        let (line, demand) = options[option];
        let flying = self.in_flight.entry(flow.clone()).or_default();
        if self.most.get(flow).is_some_and(|most| *flying >= *most) {
            return Err(Blocked { by: Limit::PipelineConcurrency, until: now + Duration::from_hours(1) });
        }
        let reservation = self.allowances[line.0 as usize].admit(now, demand)?;
        *flying += 1;
        self.held.push(reservation);
        Ok(())
    }
}

struct Job {
    flow: &'static str,
    weight: u32,
    key: &'static str,
    tokens: u64,
    interactive: bool,
    order: i64,
    equals: usize,
}

const JOB: Job = Job { flow: "a", weight: 1, key: "", tokens: 0, interactive: false, order: 0, equals: 0 };

fn enter(scheduler: &mut Scheduler, room: &mut Room, number: u64, job: &Job) -> TicketIx {
    let ticket = TicketIx(number);
    let demand = Demand { requests: 1, tokens: job.tokens };
    let options = (0..=job.equals).map(|line| (LineIx(u32::try_from(line).unwrap()), demand)).collect();
    room.demands.insert(ticket, (job.flow.into(), options));
    let ask = Ask {
        line: LineIx(0),
        flow: job.flow.into(),
        weight: job.weight,
        key: job.key.into(),
        interactive: job.interactive,
        order: job.order,
        cost: 1_000 + job.tokens * 10,
        equals: (1..=job.equals).map(|line| LineIx(u32::try_from(line).unwrap())).collect(),
        spill_after: Duration::from_secs(10),
    };
    scheduler.enter(ticket, ask);
    ticket
}

fn per_second(requests: u64) -> Grant {
    Grant { requests_per_minute: Some(requests * 60), ..Grant::UNKNOWN }
}

/// Pumps until `until`; who went when.
fn run(scheduler: &mut Scheduler, room: &mut Room, from: Timestamp, until: Timestamp) -> Vec<(Timestamp, Granted)> {
    let mut now = from;
    let mut went = Vec::new();
    while now < until {
        went.extend(scheduler.pump(now, room).into_iter().map(|granted| (now, granted)));
        match scheduler.due() {
            Some(due) if due <= now => {}
            Some(due) => now = due,
            None => break,
        }
    }
    went
}

#[test]
fn pipelines_share_by_weight_and_keys_evenly() {
    let mut room = Room::new(&[per_second(100)]);
    let mut scheduler = Scheduler::default();
    let flows = [("a", 1_u32, ["x", "y"]), ("b", 2, ["x", "x"]), ("c", 5, ["p", "q"])];
    let mut of = HashMap::new();
    for number in 0..9_000_u64 {
        let (flow, weight, keys) = flows[usize::try_from(number % 3).unwrap()];
        // Key y has one job for three of x.
        let key = keys[usize::from(number / 3 % 4 == 3)];
        of.insert(enter(&mut scheduler, &mut room, number, &Job { flow, weight, key, ..JOB }), (flow, key));
    }
    let went = run(&mut scheduler, &mut room, NOW, at(25.0));
    for window in [0.0, 5.0, 10.0, 15.0] {
        let mut counts: HashMap<&str, f64> = HashMap::new();
        let mut keys: HashMap<(&str, &str), f64> = HashMap::new();
        for (_, granted) in went.iter().filter(|(when, _)| (at(window)..at(window + 10.0)).contains(when)) {
            let (flow, key) = of[&granted.ticket];
            *counts.entry(flow).or_default() += 1.0;
            *keys.entry((flow, key)).or_default() += 1.0;
        }
        let all: f64 = counts.values().sum();
        for (flow, weight, _) in flows {
            let share = counts[flow] / all;
            let wanted = f64::from(weight) / 8.0;
            assert!((share / wanted - 1.0).abs() < 0.05, "{flow} had {share} instead of {wanted} from second {window}");
        }
        assert!((keys[&("a", "x")] / keys[&("a", "y")] - 1.0).abs() < 0.05, "{keys:?}");
    }
}

#[test]
fn who_was_away_gets_no_credit_and_who_is_alone_gets_all() {
    let mut room = Room::new(&[per_second(100)]);
    let mut scheduler = Scheduler::default();
    for number in 0..5_000 {
        enter(&mut scheduler, &mut room, number, &JOB);
    }
    assert_eq!(run(&mut scheduler, &mut room, NOW, at(10.0)).len(), 1_094, "all the rate for one");
    for number in 5_000..9_000 {
        enter(&mut scheduler, &mut room, number, &Job { flow: "late", ..JOB });
    }
    let late = run(&mut scheduler, &mut room, at(10.0), at(20.0));
    let share = late.iter().filter(|(_, granted)| granted.ticket.0 >= 5_000).count();
    assert!((480..=520).contains(&share), "{share} of 1,000");
}

#[test]
fn inside_a_key_the_lowest_order_goes_first_and_age_tells() {
    let mut room = Room::new(&[per_second(10)]);
    let mut scheduler = Scheduler::default();
    // Priority 10 is ten minutes of age: see the order key of jobs.
    let minutes = |age: i64, priority: i64| -(age + priority) * 60_000_000;
    for (number, order) in [(0, minutes(0, 0)), (1, minutes(5, 0)), (2, minutes(0, 10)), (3, minutes(11, 0))] {
        enter(&mut scheduler, &mut room, number, &Job { order, ..JOB });
    }
    let order: Vec<u64> = run(&mut scheduler, &mut room, NOW, at(60.0)).iter().map(|(_, it)| it.ticket.0).collect();
    assert_eq!(order, [3, 2, 1, 0]);
}

#[test]
fn interactive_calls_go_first_and_starve_nobody() {
    let mut room = Room::new(&[per_second(100)]);
    let mut scheduler = Scheduler::default();
    for number in 0..4_000 {
        enter(&mut scheduler, &mut room, number, &Job { interactive: number % 2 == 0, flow: "a", ..JOB });
    }
    let went = run(&mut scheduler, &mut room, NOW, at(10.0));
    let queued = went.iter().filter(|(_, granted)| granted.ticket.0 % 2 == 1).count();
    assert!((went.len() / QUEUED_TURN as usize).abs_diff(queued) < 3, "{queued} of {}", went.len());
}

#[test]
fn small_jobs_pass_a_large_one_for_a_while_only() {
    let mut room = Room::new(&[Grant { tokens_per_minute: Some(60_000), ..Grant::UNKNOWN }]);
    let mut scheduler = Scheduler::default();
    // The bucket is empty; then a large job comes, and a stream of small ones that would eat all that refills.
    enter(&mut scheduler, &mut room, 0, &Job { tokens: 950, ..JOB });
    run(&mut scheduler, &mut room, NOW, at(0.001));
    enter(&mut scheduler, &mut room, 1, &Job { tokens: 900, order: -1, ..JOB });
    for number in 2..2_000 {
        enter(
            &mut scheduler,
            &mut room,
            number,
            &Job { tokens: 10, flow: if number % 2 == 0 { "a" } else { "b" }, ..JOB },
        );
    }
    let went = run(&mut scheduler, &mut room, at(0.001), at(10.0));
    let large = went.iter().position(|(_, granted)| granted.ticket.0 == 1).unwrap();
    assert!(large > 20, "nobody passed");
    let waited = NOW.until(went[large].0);
    assert!(waited <= PASSING + Duration::from_secs(1), "{waited:?}");
}

#[test]
fn a_pipeline_at_its_bound_holds_nobody_else_up() {
    let mut room = Room::new(&[per_second(100)]);
    room.most.insert("a".into(), 3);
    let mut scheduler = Scheduler::default();
    for number in 0..200 {
        enter(&mut scheduler, &mut room, number, &Job { flow: if number % 2 == 0 { "a" } else { "b" }, ..JOB });
    }
    let went = run(&mut scheduler, &mut room, NOW, at(20.0));
    let a = went.iter().filter(|(_, granted)| granted.ticket.0 % 2 == 0).count();
    assert_eq!((a, went.len() - a), (3, 100));
    assert!(room.asked < 400, "benched pipelines are not asked again and again: {}", room.asked);
    *room.in_flight.get_mut("a").unwrap() -= 1;
    scheduler.stir_flow(&"a".into());
    assert_eq!(scheduler.pump(at(20.0), &mut room).len(), 1);
}

#[test]
fn a_line_exhausted_for_long_spills_to_an_equal_one() {
    let mut room = Room::new(&[per_second(10), per_second(30)]);
    let mut scheduler = Scheduler::default();
    for number in 0..2_000 {
        enter(&mut scheduler, &mut room, number, &Job { equals: 1, ..JOB });
    }
    let went = run(&mut scheduler, &mut room, NOW, at(20.0));
    let equal: Vec<Timestamp> = went.iter().filter(|(_, granted)| granted.option == 1).map(|(when, _)| *when).collect();
    assert!(equal[0] >= at(10.0) && equal[0] < at(10.2), "{}", equal[0]);
    assert!((310..=335).contains(&equal.len()), "at the equal line's own rate: {}", equal.len());
    // Short waits never spill.
    let mut scheduler = Scheduler::default();
    let mut room = Room::new(&[per_second(10), per_second(30)]);
    for number in 0..50 {
        enter(&mut scheduler, &mut room, number, &Job { equals: 1, ..JOB });
    }
    assert!(run(&mut scheduler, &mut room, NOW, at(60.0)).iter().all(|(_, granted)| granted.option == 0));
}

#[test]
fn who_withdraws_leaves_nothing_behind() {
    let mut room = Room::new(&[per_second(1)]);
    let mut scheduler = Scheduler::default();
    let tickets: Vec<TicketIx> = (0..50).map(|number| enter(&mut scheduler, &mut room, number, &JOB)).collect();
    assert_eq!(scheduler.pump(NOW, &mut room).len(), 1);
    for ticket in &tickets {
        scheduler.withdraw(*ticket);
    }
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.line(LineIx(0)).waiting, 0);
    let asked = room.asked;
    assert!(run(&mut scheduler, &mut room, NOW, at(100.0)).is_empty());
    assert!(room.asked - asked < 3, "an empty room is quiet");
}

#[test]
fn while_nothing_can_go_nothing_spins() {
    let mut room = Room::new(&[per_second(0)]);
    let mut scheduler = Scheduler::default();
    for number in 0..1_000 {
        enter(&mut scheduler, &mut room, number, &JOB);
    }
    run(&mut scheduler, &mut room, NOW, at(3_600.0));
    assert!(room.asked <= 130, "asked {} times in an hour", room.asked);
}

proptest! {
    /// Everybody goes in the end, once, whoever they are; and nobody waits longer than those before it take, by much.
    #[test]
    fn everybody_goes_once_and_in_time(
        jobs in prop::collection::vec((0_usize..4, 0_usize..3, 0_u64..2_000, any::<bool>(), 0_u64..500), 1..150),
        leave in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut room = Room::new(&[Grant { requests_per_minute: Some(3_000), tokens_per_minute: Some(60_000), ..Grant::UNKNOWN }]);
        let mut scheduler = Scheduler::default();
        let (mut now, mut went) = (NOW, Vec::new());
        let mut withdrawn = 0;
        for (number, (flow, key, tokens, interactive, gap)) in jobs.iter().enumerate() {
            let job = Job {
                flow: ["a", "b", "c", "d"][*flow],
                weight: u32::try_from(*flow).unwrap() + 1,
                key: ["", "x", "y"][*key],
                tokens: *tokens,
                interactive: *interactive,
                order: i64::try_from(number).unwrap(),
                equals: 0,
            };
            enter(&mut scheduler, &mut room, number as u64, &job);
            let next = now + Duration::from_millis(*gap);
            went.extend(run(&mut scheduler, &mut room, now, next));
            now = next;
        }
        for index in leave {
            withdrawn += usize::from(scheduler.withdraw(TicketIx(index.index(jobs.len()) as u64)).is_some());
        }
        let tokens: u64 = jobs.iter().map(|job| job.2).sum();
        let bound = Duration::from_secs_f64(tokens as f64 / 1_000.0 + jobs.len() as f64 / 50.0) + PASSING * 2;
        went.extend(run(&mut scheduler, &mut room, now, now + bound));
        let mut tickets: Vec<u64> = went.iter().map(|(_, granted)| granted.ticket.0).collect();
        tickets.sort_unstable();
        tickets.dedup();
        prop_assert_eq!(tickets.len(), went.len());
        prop_assert_eq!(went.len() + withdrawn, jobs.len());
        prop_assert!(scheduler.is_empty());
    }
}
