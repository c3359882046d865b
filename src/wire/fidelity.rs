//! The account of what a translation could not carry exactly, and what the target's fidelity says to that.
//!
//! Invariant: whatever is left out or bent passes through here, so it is either on the list or the request is refused.

use crate::{
    job::{FidelityAction, FidelityNote},
    spec::{Api, Fidelity, Target},
    wire::Refusal,
};

pub(super) struct Ledger<'a> {
    target: &'a Target,
    notes: Vec<FidelityNote>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        Self { target, notes: Vec::new() }
    }

    pub(super) fn into_notes(self) -> Vec<FidelityNote> {
        self.notes
    }

    /// Something that no fidelity forbids, listed all the same.
    pub(super) fn note_always(
        &mut self,
        parameter: impl Into<String>,
        action: FidelityAction,
        detail: impl Into<String>,
    ) {
        self.notes.push(FidelityNote { parameter: parameter.into(), action, detail: detail.into() });
    }

    /// Sampling, bookkeeping, or an emulation with the same meaning: noted, and refused only by a strict target.
    pub(super) fn inexact(
        &mut self,
        parameter: impl Into<String>,
        action: FidelityAction,
        detail: impl Into<String>,
    ) -> Result<(), Refusal> {
        let (parameter, detail) = (parameter.into(), detail.into());
        if self.target.fidelity == Fidelity::Strict {
            let message = format!(
                "target {:?} is `fidelity: strict`, and {parameter} cannot be carried to it exactly ({detail}): \
                 change the parameter, or set `fidelity: warn` on the target",
                self.target.name.as_str(),
            );
            return Err(Refusal::of(parameter, message));
        }
        self.note_always(parameter, action, detail);
        Ok(())
    }

    /// Part of what the answer promises: dropped by a loose target only, refused by every other.
    pub(super) fn breach(&mut self, parameter: impl Into<String>, detail: &str) -> Result<(), Refusal> {
        self.breach_as(parameter, FidelityAction::Dropped, detail)
    }

    /// The same, where a loose target still makes something of it.
    pub(super) fn breach_as(
        &mut self,
        parameter: impl Into<String>,
        action: FidelityAction,
        detail: &str,
    ) -> Result<(), Refusal> {
        let parameter = parameter.into();
        if self.target.fidelity == Fidelity::Loose {
            self.note_always(parameter, action, detail);
            return Ok(());
        }
        let message = format!(
            "{parameter}: {detail} (target {:?}): send such jobs to {}, leave the parameter out, or set `fidelity: \
             loose` on the target to go without it",
            self.target.name.as_str(),
            self.others(),
        );
        Err(Refusal::of(parameter, message))
    }

    /// What a job sets though only targets may.
    pub(super) fn uninvited(&mut self, parameter: &str) -> Result<(), Refusal> {
        const DETAIL: &str = "only a target sets it, in its `defaults` or `override`";
        if self.target.fidelity == Fidelity::Loose {
            self.note_always(parameter, FidelityAction::Dropped, DETAIL);
            return Ok(());
        }
        Err(Refusal::of(parameter, format!("{parameter}: {DETAIL}; leave it out of the job")))
    }

    /// What cannot be left out without making nonsense of the request, whatever the fidelity.
    pub(super) fn impossible(&self, parameter: impl Into<String>, detail: &str) -> Refusal {
        let parameter = parameter.into();
        let message = format!(
            "{parameter}: {detail} (target {:?}): send such jobs to {}",
            self.target.name.as_str(),
            self.others(),
        );
        Refusal::of(parameter, message)
    }

    /// Who may take what this target cannot.
    fn others(&self) -> &'static str {
        match self.target.api {
            Api::Bedrock => "an OpenAI target",
            Api::OpenAi => "another target",
        }
    }
}
