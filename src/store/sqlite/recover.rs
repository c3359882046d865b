//! Taking back what a dead daemon left running.

use std::{collections::HashSet, time::Duration};

use rusqlite::params;

use super::{
    codes,
    schema::of_job,
    session::{Session, Standing, standing_columns},
    trouble::Trouble,
};
use crate::{
    ids::{AttemptId, NodeId},
    job::{Fault, Outcome, State},
    store::{
        AttemptEnd, Recovered, Unseen,
        crash::{self, Abandoned, Fate},
    },
};

impl Session {
    /// A node begins a new life.
    pub fn register(&mut self, node: NodeId) -> Result<Recovered, Trouble> {
        let number = self.seen(node)?;
        self.resign_all(node)?;
        self.take_back(number, true)
    }

    /// A node stopped in good order.
    pub fn deregister(&mut self, node: NodeId) -> Result<(), Trouble> {
        let number = self.names.node(&self.conn, node)?;
        self.execute("UPDATE nodes SET seen_at = NULL WHERE id = ?1", [number])?;
        self.resign_all(node)?;
        self.take_back(number, false).map(drop)
    }

    /// Takes back what silent nodes left; never from the node that this process is, which lives as long as the lock.
    pub fn reclaim(&mut self, lease: Duration) -> Result<Recovered, Trouble> {
        let local = self.names.node(&self.conn, self.local)?;
        let before = (self.now() - lease).as_micros();
        let silent: Vec<(i64, NodeId)> = {
            let mut statement =
                self.conn.prepare_cached("SELECT id, node FROM nodes WHERE seen_at < ?1 AND id != ?2")?;
            let rows =
                statement.query_map([before, local], |row| Ok((row.get(0)?, NodeId::from_bytes(row.get(1)?))))?;
            rows.collect::<Result<_, _>>()?
        };
        let mut all = Recovered::default();
        for (number, node) in silent {
            self.execute("UPDATE nodes SET seen_at = NULL WHERE id = ?1", [number])?;
            self.resign_all(node)?;
            let one = self.take_back(number, true)?;
            all.requeued += one.requeued;
            all.unknown_attempts += one.unknown_attempts;
            all.suspects += one.suspects;
            all.quarantined.extend(one.quarantined);
            all.unseen.extend(one.unseen);
        }
        Ok(all)
    }

    fn take_back(&mut self, node: i64, crashed: bool) -> Result<Recovered, Trouble> {
        let busy = self.standings(
            concat!("SELECT ", standing_columns!(), " FROM jobs INDEXED BY jobs_busy WHERE node = ?1 ORDER BY id"),
            [node],
        )?;
        let live: HashSet<i64> = {
            let mut statement =
                self.conn.prepare_cached("SELECT seq FROM jobs INDEXED BY jobs_busy WHERE node = ?1 AND live = 1")?;
            let rows = statement.query_map([node], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        let mut recovered = Recovered::default();
        let mut abandoned: Vec<(Standing, Abandoned)> = Vec::new();
        for job in busy {
            let unseen = self.close_unseen(&job)?;
            let closed = unseen.len() as u64;
            recovered.unknown_attempts += closed;
            recovered.unseen.extend(unseen);
            if job.state == State::Running {
                let crashes = u32::try_from(job.crashes).unwrap_or(0);
                let calling = crashed && closed > 0;
                let live = live.contains(&job.seq);
                abandoned.push((job, Abandoned { crashes, suspect: job.suspect, calling, live }));
            } else {
                self.let_go(job.seq)?;
            }
        }
        let suspects = crash::suspects_calling(abandoned.iter().map(|(_, job)| job));
        for (job, left) in abandoned {
            let fate = crash::fate(left, suspects);
            let (crashes, suspect) = match fate {
                Fate::Requeue { crashes, suspect } => (crashes, suspect),
                Fate::Quarantine { crashes } => (crashes, true),
                Fate::LetGo => (left.crashes, left.suspect),
            };
            self.execute(
                "UPDATE jobs SET fence = fence + 1, crashes = ?2, suspect = ?3 WHERE seq = ?1",
                params![job.seq, crashes, suspect],
            )?;
            match fate {
                Fate::Requeue { suspect, .. } => {
                    recovered.requeued += 1;
                    recovered.suspects += u64::from(suspect);
                    self.requeue(&job)?;
                }
                Fate::Quarantine { crashes } => {
                    recovered.quarantined.push(job.id);
                    self.fail(&job, &crash::quarantine_error(job.id, crashes))?;
                }
                Fate::LetGo => self.fail(&job, &crash::caller_gone_error())?,
            }
        }
        Ok(recovered)
    }

    /// Closes a job's open attempts as `unknown`.
    fn close_unseen(&mut self, job: &Standing) -> Result<Vec<Unseen>, Trouble> {
        let open: Vec<AttemptId> = {
            let mut statement = self.conn.prepare_cached(concat!(
                "SELECT id FROM attempts WHERE ",
                of_job!(),
                " AND ended_at IS NULL"
            ))?;
            let rows = statement.query_map([job.seq], |row| row.get(0).map(AttemptId::from_bytes))?;
            rows.collect::<Result<_, _>>()?
        };
        let ended_at = self.now();
        let mut unseen = Vec::new();
        for attempt in &open {
            let end = AttemptEnd {
                attempt: *attempt,
                ended_at,
                outcome: Outcome::Unknown,
                fault: Some(Fault::Unknown),
                message: Some(crash::UNSEEN_END.to_owned()),
                usage: None,
                cost: None,
                possibly_billed: true,
                provider_request_id: None,
                first_token: None,
            };
            if let Some(closed) = self.close(job, &end)? {
                let pipeline = self.names.pipeline_name(job.pipeline).cloned();
                let pipeline = pipeline.ok_or_else(|| Trouble::Row(format!("no pipeline {}", job.pipeline)))?;
                let target = codes::parse(&closed.place.target)?;
                unseen.push(Unseen { pipeline, target, most_cost: closed.most_cost });
            }
        }
        Ok(unseen)
    }
}
