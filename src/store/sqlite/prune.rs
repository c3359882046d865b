//! Deleting what is old enough to go. Jobs that have not ended are never touched; the ledger outlives its jobs.

use std::collections::BTreeSet;

use rusqlite::params;

use super::{
    codes,
    schema::of_job,
    session::{Session, Standing, standing_columns},
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    store::{MOVE_MAX, PruneCut, Pruned, traffic::hour_of},
};

/// Ended jobs of a pipeline, oldest first, whose worker has reported. `blanked` is 0 while the prompt is there.
const ENDED: &str = concat!(
    "SELECT ",
    standing_columns!(),
    " FROM jobs INDEXED BY jobs_ended WHERE finished_at IS NOT NULL AND blanked = ?1 AND pipeline = ?2 ",
    "AND finished_at < ?3 AND node IS NULL ORDER BY finished_at LIMIT ?4"
);

impl Session {
    /// Deletes jobs, blanks prompts, deletes ledger rows and audit entries; at most `limit` of each.
    pub fn prune(&mut self, cut: &PruneCut, limit: u32) -> Result<Pruned, Trouble> {
        let limit = u64::from(limit.min(MOVE_MAX));
        let pipelines = self.names.pipelines();
        let mut pruned = Pruned::default();
        let mut batches = BTreeSet::new();
        for (name, number) in &pipelines {
            let before = *cut.results.get(name).unwrap_or(&cut.default_results);
            for blanked in [0, 1] {
                for job in self.ended(blanked, *number, before, limit.saturating_sub(pruned.jobs))? {
                    self.delete(&job)?;
                    batches.extend(job.batch);
                    pruned.jobs += 1;
                }
            }
        }
        for (name, number) in &pipelines {
            let before = *cut.prompts.get(name).unwrap_or(&cut.default_prompts);
            for job in self.ended(0, *number, before, limit.saturating_sub(pruned.prompts))? {
                self.execute("UPDATE contents SET body = NULL WHERE seq = ?1", [job.seq])?;
                self.execute("UPDATE jobs SET blanked = 1 WHERE seq = ?1", [job.seq])?;
                pruned.prompts += 1;
            }
        }
        self.forget_batches(batches)?;
        pruned.attempts = self.prune_ledger(cut.ledger, limit)?;
        let audit = self.execute(
            "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < ?1 ORDER BY at, seq LIMIT ?2)",
            params![cut.audit.as_micros(), codes::signed(limit)],
        )?;
        pruned.audit = audit as u64;
        Ok(pruned)
    }

    fn ended(&self, blanked: i64, pipeline: i64, before: Timestamp, limit: u64) -> Result<Vec<Standing>, Trouble> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.standings(ENDED, params![blanked, pipeline, before.as_micros(), codes::signed(limit)])
    }

    fn delete(&mut self, job: &Standing) -> Result<(), Trouble> {
        self.execute(
            "DELETE FROM keys WHERE job = ?1 AND (key, pipeline, caller) = \
             (SELECT key, ?2, caller FROM contents WHERE seq = ?1)",
            [job.seq, job.pipeline],
        )?;
        self.execute("DELETE FROM contents WHERE seq = ?1", [job.seq])?;
        self.execute("DELETE FROM results WHERE seq = ?1", [job.seq])?;
        self.execute("DELETE FROM jobs WHERE seq = ?1", [job.seq])?;
        // The ledger keeps the bill; the reasons go with the job that they explain.
        self.execute(concat!("UPDATE attempts SET decision = NULL, fidelity = NULL WHERE ", of_job!()), [job.seq])?;
        self.tally.leave(job.pipeline, job.batch, job.state);
        Ok(())
    }

    /// Forgets the names of batches that no job names any more.
    fn forget_batches(&mut self, batches: BTreeSet<i64>) -> Result<(), Trouble> {
        if batches.is_empty() {
            return Ok(());
        }
        self.tally.write_batches(&self.conn)?;
        for batch in batches {
            self.execute("DELETE FROM batch_counts WHERE batch = ?1 AND n <= 0", [batch])?;
            let gone = self.execute(
                "DELETE FROM batches WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM batch_counts WHERE batch = ?1)",
                [batch],
            )?;
            if gone > 0 {
                self.names.forget_batch(batch);
            }
        }
        Ok(())
    }

    fn prune_ledger(&mut self, before: Timestamp, limit: u64) -> Result<u64, Trouble> {
        let attempts = self.execute(
            "DELETE FROM attempts WHERE seq IN (SELECT seq FROM attempts INDEXED BY attempts_ended \
             WHERE ended_at < ?1 AND NOT EXISTS \
             (SELECT 1 FROM jobs WHERE jobs.seq = attempts.seq >> 20 AND jobs.finished_at IS NULL) \
             ORDER BY ended_at LIMIT ?2)",
            params![before.as_micros(), codes::signed(limit)],
        )?;
        // Sums of hours that are wholly gone.
        let hour = hour_of(before);
        self.execute("DELETE FROM spending WHERE hour < ?1", [hour])?;
        self.execute("DELETE FROM traffic WHERE hour < ?1", [hour])?;
        Ok(attempts as u64)
    }
}
