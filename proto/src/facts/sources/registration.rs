//! Whether a registration is lawful: who vouches for a new source, and for which roles.

use super::{Roles, Source, Sources};
use crate::{
    enrolment::EnrolmentClaim,
    error::SourceError,
    facts::control::{PARTIES_MIN, parties, registration_message},
    position::Index,
    source::Name,
    wire::{self, SourceRole},
};

impl Sources {
    /// Who approves requests is for both parties of the governance to say.
    pub(super) fn judge_parties(
        &self,
        sealer: &Source,
        claim: &EnrolmentClaim<'_>,
        status: &wire::SourceStatus,
    ) -> Result<(), SourceError> {
        let message = registration_message(&self.genesis.origin, claim, &status.principal);
        let found = parties(self, sealer.name.as_name(), &message, &status.approvals).len();
        if found < PARTIES_MIN {
            return Err(SourceError::Parties { found });
        }
        Ok(())
    }

    /// One governance party must not end another, nor anybody the source that seals what the ledger
    /// itself records.
    pub(super) fn judge_end(&self, sealer: &Source, target: &Source) -> Result<(), SourceError> {
        let founding = target.registered_at == Index::GENESIS;
        let by_itself = target.name == sealer.name && target.name.as_str() != self.ledger_source();
        if founding && !by_itself {
            return Err(SourceError::Founding { name: target.name.clone() });
        }
        Ok(())
    }

    /// Whether the registration is lawful, and whether nobody vouched for it.
    pub(super) fn judge_registration(
        &self,
        sealer: &Source,
        claim: &EnrolmentClaim<'_>,
        enrolment: Option<&wire::Enrolment>,
    ) -> Result<bool, SourceError> {
        if claim.roles.contains(SourceRole::Govern) {
            return Err(SourceError::Governance);
        }
        let Some(enrolment) = enrolment else {
            if !sealer.roles.now().contains(SourceRole::Govern) {
                Self::judge_parent(sealer, claim)?;
            }
            return Ok(false);
        };
        // Others vouch by their seal; signatures that nobody checks would only look like proof.
        if sealer.name.as_str() != self.ledger_source() {
            return Err(SourceError::Enrolment);
        }
        let origin = &self.genesis.origin;
        claim.verify(origin, &enrolment.possession, claim.public_key)?;
        if enrolment.parent.is_empty() {
            return self.judge_self_enrolment(claim).map(|()| true);
        }
        let parent = self.active(Name::parse(enrolment.parent.as_bytes())?)?;
        Self::judge_parent(parent, claim)?;
        let key = parent.key().ok_or(SourceError::Enrolment)?;
        claim.verify(origin, &enrolment.parent_signature, key)?;
        Ok(false)
    }

    /// A parent registers children below its own name, with no role that it lacks itself, and none
    /// that counts heads: an approver could otherwise multiply itself.
    fn judge_parent(parent: &Source, claim: &EnrolmentClaim<'_>) -> Result<(), SourceError> {
        parent.require(SourceRole::Enrol)?;
        if !claim.source.is_below(parent.name.as_name()) {
            return Err(SourceError::NotBelow { parent: parent.name.clone() });
        }
        claim.roles.iter().try_for_each(|role| match role {
            SourceRole::Record | SourceRole::Enrol => parent.require(role),
            _ => parent.require(SourceRole::Govern),
        })
    }

    /// Where the genesis allows it, a source may register itself: only to record, and not below a
    /// name that is somebody's.
    fn judge_self_enrolment(&self, claim: &EnrolmentClaim<'_>) -> Result<(), SourceError> {
        if !self.genesis.self_enrolment {
            return Err(SourceError::SelfEnrolment);
        }
        if claim.roles != Roles::RECORDER {
            return Err(SourceError::SelfEnrolmentRoles);
        }
        match claim.source.ancestors().find_map(|ancestor| self.get(ancestor)) {
            Some(ancestor) => Err(SourceError::Ancestor { ancestor: ancestor.name.clone() }),
            None => Ok(()),
        }
    }
}
