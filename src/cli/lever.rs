//! Levers: what one touches is told before it is pulled and after.
//!
//! Invariant: nothing is pulled that was not rehearsed by the same request; a dry run ends with the rehearsal. Machines
//! get one answer: the rehearsal's on a dry run, else the lever's.

use serde_json::Value;

use super::{
    exit::{Exit, Result},
    print::{Console, Format},
};

/// How a lever is pulled.
#[derive(Debug, Clone, Copy)]
pub struct Pull {
    /// Only say what it would touch.
    pub dry_run: bool,
    /// The form of the answer.
    pub format: Format,
}

impl Pull {
    /// Rehearses, tells, pulls, and tells. `request` is asked once with true, for the rehearsal, and once with false.
    ///
    /// # Errors
    /// The daemon's refusals, of the rehearsal first.
    pub async fn by(
        self,
        request: impl AsyncFn(bool) -> Result<Value>,
        before: impl FnOnce(&Value) -> String,
        after: impl FnOnce(&Value) -> String,
        console: &mut Console<'_>,
    ) -> Result {
        let rehearsal = request(true).await?;
        match self.format {
            Format::Human => write!(console.out, "{}", before(&rehearsal))?,
            Format::Json if self.dry_run => console.json(&rehearsal)?,
            Format::Json => {}
        }
        if self.dry_run {
            return Ok(Exit::Success);
        }
        let answer = request(false).await?;
        match self.format {
            Format::Human => write!(console.out, "{}", after(&answer))?,
            Format::Json => console.json(&answer)?,
        }
        Ok(Exit::Success)
    }
}
