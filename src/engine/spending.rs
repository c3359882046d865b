//! What each pipeline and each key spends and has reserved, against their budgets.
//!
//! Invariant: starts from the ledger and adds every bill once; a call that may have been billed though nobody saw its
//! answer counts with the most that it may have cost. What a call reserves is taken from its pipeline's budget and its
//! key's at once, or from neither, and given back when it ends. Knows one daemon's calls: who shares budgets between
//! daemons does it behind these few methods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    access::Key,
    clock::Timestamp,
    money::Usd,
    names::PipelineName,
    quota::{Caps, Period, Purse, Short},
    store::{Store, StoreError},
};

/// The longest month, and a day: what a ledger keeps at least, because budgets are by day and month.
pub const MONTH: Duration = Duration::from_hours(32 * 24);
/// Jobs of a key whose budget is reserved come back one after another, so far apart ...
const APART: Duration = Duration::from_millis(10);
/// ... and not before this.
const FIRST_BACK: Duration = Duration::from_secs(1);

/// Who pays for a call.
#[derive(Debug, Clone)]
pub struct Payers {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// What it may spend, where that counts now.
    pub caps: Option<Caps>,
    /// Who handed the job in; empty for nobody in particular.
    pub caller: String,
}

/// Whose budget keeps a call from going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMoney {
    /// The pipeline's.
    Pipeline(Short),
    /// The key's.
    Key(Short),
}

/// How one budget stands.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetStanding {
    /// By which time.
    pub period: Period,
    /// What may be spent in it.
    pub cap: Usd,
    /// What was.
    pub spent: Usd,
}

/// What a ledger says was spent.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    pipelines: BTreeMap<PipelineName, (Usd, Usd)>,
    keys: BTreeMap<String, (Usd, Usd)>,
}

impl Folded {
    /// Sums up this day and month.
    ///
    /// # Errors
    /// [`StoreError`] when the ledger cannot be read.
    pub async fn read(store: &dyn Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut folded = Self::default();
        for period in [Period::Day, Period::Month] {
            let since = period.start(now);
            for (key, sums) in store.traffic(since).await? {
                let part = folded.pipelines.entry(key.pipeline).or_default();
                *side(part, period) += sums.cost + sums.possible_cost;
            }
            for (caller, spent) in store.spending_by_caller(since).await? {
                *side(folded.keys.entry(caller).or_default(), period) += spent;
            }
        }
        Ok(folded)
    }
}

fn side(part: &mut (Usd, Usd), period: Period) -> &mut Usd {
    match period {
        Period::Day => &mut part.0,
        Period::Month => &mut part.1,
    }
}

#[derive(Debug, Default)]
struct Books {
    pipelines: HashMap<PipelineName, Purse>,
    keys: HashMap<String, Purse>,
    /// Keys that have a budget, with their names.
    limits: HashMap<String, (String, Caps)>,
    /// Keys of which jobs are held.
    short: BTreeSet<String>,
    /// When the next job of a key may come back that found everything reserved.
    back: HashMap<String, Timestamp>,
}

/// The running sums.
#[derive(Debug, Default)]
pub struct Spending(Mutex<Books>);

impl Spending {
    /// Starts from what the ledger says.
    pub fn starting(now: Timestamp, folded: Folded) -> Self {
        let purse = |(day, month)| Purse::new(now, day, month);
        let pipelines = folded.pipelines.into_iter().map(|(name, spent)| (name, purse(spent))).collect();
        let keys = folded.keys.into_iter().map(|(name, spent)| (name, purse(spent))).collect();
        Self(Mutex::new(Books { pipelines, keys, ..Books::default() }))
    }

    /// What keys may spend from now on.
    pub fn follow_keys<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let limits = keys
            .map(|key| {
                let caps = Caps { usd_per_day: key.limits.usd_per_day, usd_per_month: key.limits.usd_per_month };
                (key.id.clone(), (key.name.clone(), caps))
            })
            .filter(|(_, (_, caps))| !caps.is_empty())
            .collect();
        self.lock().limits = limits;
    }

    /// Sets aside the most that a call may cost.
    ///
    /// # Errors
    /// [`NoMoney`]; nothing is set aside.
    pub fn reserve(&self, now: Timestamp, payers: &Payers, most: Usd) -> Result<(), NoMoney> {
        let mut books = self.lock();
        let Books { pipelines, keys, limits, .. } = &mut *books;
        let nothing = || Purse::new(now, Usd::ZERO, Usd::ZERO);
        let pipeline = pipelines.entry(payers.pipeline.clone()).or_insert_with(nothing);
        if let Some(caps) = &payers.caps {
            pipeline.check(now, caps, most).map_err(NoMoney::Pipeline)?;
        }
        if !payers.caller.is_empty() {
            if !keys.contains_key(&payers.caller) {
                keys.insert(payers.caller.clone(), nothing());
            }
            if let Some(key) = keys.get_mut(&payers.caller) {
                if let Some((_, caps)) = limits.get(&payers.caller) {
                    key.check(now, caps, most).map_err(NoMoney::Key)?;
                }
                key.reserve(most);
            }
        }
        pipeline.reserve(most);
        Ok(())
    }

    /// A call ended, or was not sent: gives back what it had reserved, and counts its bill.
    pub fn settle(&self, now: Timestamp, payers: &Payers, reserved: Usd, bill: Usd) {
        let mut books = self.lock();
        if let Some(purse) = books.pipelines.get_mut(&payers.pipeline) {
            purse.settle(now, reserved, bill);
        }
        if let Some(purse) = books.keys.get_mut(&payers.caller) {
            purse.settle(now, reserved, bill);
        }
    }

    /// What a pipeline has spent, in this day and month.
    pub fn of(&self, pipeline: &PipelineName, now: Timestamp) -> (Usd, Usd) {
        self.lock().pipelines.get_mut(pipeline).map(|purse| purse.spent(now)).unwrap_or_default()
    }

    /// The limit that a pipeline has reached, if it has: nothing of it may go.
    pub fn spent_of(&self, pipeline: &PipelineName, caps: &Caps, now: Timestamp) -> Option<Short> {
        let mut books = self.lock();
        let nothing = || Purse::new(now, Usd::ZERO, Usd::ZERO);
        books.pipelines.entry(pipeline.clone()).or_insert_with(nothing).is_spent(now, caps)
    }

    /// The limit that keeps a pipeline's call of this price, if one does.
    pub fn short_of(&self, pipeline: &PipelineName, caps: &Caps, most: Usd, now: Timestamp) -> Option<Short> {
        self.lock().pipelines.get_mut(pipeline)?.check(now, caps, most).err()
    }

    /// The limit that keeps a key's call of this price, if one does, and the key's name.
    pub fn short_of_key(&self, caller: &str, most: Usd, now: Timestamp) -> Option<(String, Short)> {
        let mut books = self.lock();
        let Books { keys, limits, .. } = &mut *books;
        let (name, caps) = limits.get(caller)?;
        let nothing = || Purse::new(now, Usd::ZERO, Usd::ZERO);
        let short = keys.entry(caller.to_owned()).or_insert_with(nothing).check(now, caps, most).err()?;
        Some((name.clone(), short))
    }

    /// A job is held for its key's budget: when that opens, [`Spending::take_reopened`] says so.
    pub fn hold_for(&self, caller: &str) {
        self.lock().short.insert(caller.to_owned());
    }

    /// When a job may come back that found its key's budget reserved: as many come back as can be looked at.
    pub fn come_back(&self, caller: &str, now: Timestamp) -> Timestamp {
        let mut books = self.lock();
        let back = books.back.entry(caller.to_owned()).or_insert(now);
        *back = (*back + APART).max(now + FIRST_BACK);
        *back
    }

    /// Whether a budget opened for which jobs are held.
    pub fn take_reopened(&self, now: Timestamp) -> bool {
        let mut books = self.lock();
        let Books { keys, limits, short, .. } = &mut *books;
        let before = short.len();
        short.retain(|caller| match (keys.get_mut(caller), limits.get(caller)) {
            (Some(purse), Some((_, caps))) => purse.is_spent(now, caps).is_some(),
            _ => false,
        });
        short.len() < before
    }

    /// How budgets stand that pipelines have.
    pub fn standings(&self, pipeline: &PipelineName, caps: &Caps, now: Timestamp) -> Vec<BudgetStanding> {
        let spent = self.of(pipeline, now);
        standings(caps, spent)
    }

    /// How budgets stand that keys have, by their names.
    pub fn key_standings(&self, now: Timestamp) -> Vec<(String, Vec<BudgetStanding>)> {
        let mut books = self.lock();
        let Books { keys, limits, .. } = &mut *books;
        limits
            .iter()
            .map(|(id, (name, caps))| {
                let spent = keys.get_mut(id).map(|purse| purse.spent(now)).unwrap_or_default();
                (name.clone(), standings(caps, spent))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standings(caps: &Caps, (day, month): (Usd, Usd)) -> Vec<BudgetStanding> {
    let one = |period, cap: Option<Usd>, spent| cap.map(|cap| BudgetStanding { period, cap, spent });
    [one(Period::Day, caps.usd_per_day, day), one(Period::Month, caps.usd_per_month, month)]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::access::KeyLimits;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn key(usd_per_day: &str) -> Key {
        Key {
            id: "key_1".to_owned(),
            name: "ci".to_owned(),
            scopes: BTreeSet::new(),
            pipelines: BTreeSet::new(),
            limits: KeyLimits { usd_per_day: Some(usd(usd_per_day)), ..KeyLimits::default() },
            created_at: None,
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn a_call_is_paid_by_its_pipeline_and_its_key_or_by_neither() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let spending = Spending::default();
        spending.follow_keys([&key("1")].into_iter());
        let pipeline = PipelineName::new("p").unwrap();
        let caps = Caps { usd_per_day: Some(usd("10")), usd_per_month: None };
        let payers = Payers { pipeline: pipeline.clone(), caps: Some(caps), caller: "key_1".to_owned() };
        spending.reserve(now, &payers, usd("0.8")).unwrap();
        assert!(matches!(spending.reserve(now, &payers, usd("0.8")), Err(NoMoney::Key(short)) if !short.is_spent()));
        // The refused one reserved nothing: other callers have all but the first.
        let others = Payers { caller: String::new(), ..payers.clone() };
        spending.reserve(now, &others, usd("9.2")).unwrap();
        assert!(matches!(spending.reserve(now, &others, usd("0.1")), Err(NoMoney::Pipeline(_))));
        spending.settle(now, &others, usd("9.2"), Usd::ZERO);
        spending.settle(now, &payers, usd("0.8"), usd("1.25"));
        assert_eq!(spending.of(&pipeline, now), (usd("1.25"), usd("1.25")));
        assert!(
            spending
                .short_of_key("key_1", Usd::ZERO, now)
                .is_some_and(|(name, short)| name == "ci" && short.is_spent())
        );
        spending.hold_for("key_1");
        assert!(!spending.take_reopened(now));
        spending.follow_keys([&key("2")].into_iter());
        assert!(spending.take_reopened(now) && !spending.take_reopened(now));
    }

    #[test]
    fn jobs_whose_budget_is_reserved_come_back_one_after_another() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let spending = Spending::default();
        let times: Vec<Timestamp> = (0..1_000).map(|_| spending.come_back("key_1", now)).collect();
        assert_eq!(now.until(times[0]), FIRST_BACK);
        assert!(times.windows(2).all(|pair| pair[0] + APART == pair[1]));
    }
}
