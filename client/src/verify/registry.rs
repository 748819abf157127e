//! Who may seal what, as the log itself says.

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::SourceError,
    event::{self, Body},
    facts::{
        control::retention_after,
        redactions::{Retention, judge},
        sources::Sources,
    },
    missing::Missing,
    note::VerifierKey,
    position::Index,
    source::SourceName,
    wire,
};
use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use prost::Message as _;

use super::{batch::SealedBatch, error::Fault};

/// The registered sources, the genesis event that they grew from, and how old events get.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) genesis: Bytes,
    pub(super) sources: Sources,
    pub(super) retention: Option<Retention>,
}

impl Registry {
    /// Reads the event of entry 0, which says whose ledger this is: it must be named like the
    /// pinned one, and its own source seals the entry. Whose key it names is compared at the end,
    /// for governance may have changed it since.
    pub(super) fn from_genesis(
        event: Option<&Bytes>,
        sealer: &SourceName,
        ledger: &VerifierKey,
    ) -> Result<Self, Fault> {
        let event = event.ok_or(Fault::Genesis(SourceError::Genesis))?;
        let sources = Sources::from_genesis(event).map_err(Fault::Genesis)?;
        if sources.genesis().origin != ledger.name() {
            return Err(foreign(&sources, ledger));
        }
        if sealer.as_str() != sources.ledger_source() {
            return Err(Fault::Genesis(SourceError::Foreign { name: sealer.clone() }));
        }
        // Copied, for it outlives the message that it came in.
        Ok(Self { genesis: Bytes::copy_from_slice(event), sources, retention: None })
    }

    /// That the pinned key is the ledger's: that of the genesis, or one that took its place.
    pub(super) fn check_pinned(&self, ledger: &VerifierKey) -> Result<(), Fault> {
        if self.sources.ledger_keys().values().any(|key| key == ledger) {
            return Ok(());
        }
        Err(foreign(&self.sources, ledger))
    }

    /// That a checkpoint behind the last entry is signed by the key in force there, not only by one
    /// that it took the place of.
    pub(super) fn check_signed(&self, checkpoint: &VerifiedCheckpoint) -> Result<(), Fault> {
        let keys = self.sources.ledger_keys();
        match keys.changed_at() {
            Some(since) if !checkpoint.is_signed_by(keys.now()) => {
                Err(Fault::LedgerKey { since, key: keys.now().to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Judges a batch by the rules in force at its place and carries out what it changes; the key
    /// that its seal must verify with.
    pub(super) fn judge(
        &mut self,
        batch: &SealedBatch,
        missing: &mut Missing,
    ) -> Result<VerifyingKey, SourceError> {
        let (sealer, &key) = self.sources.sealer(batch.source.as_name(), batch.seal.key_id)?;
        for number in batch.ordinary.numbers() {
            // Only the roles of the sealer decide on what changes no rule.
            let body = Body { number, bytes: &[] };
            let _nothing_changes = self.sources.judge(sealer, batch.first_index, body, false)?;
        }
        let alone = batch.count == 1;
        let mut changes = Vec::new();
        for (index, event) in &batch.notable {
            let Some(body) = event::body(event) else {
                continue;
            };
            changes.push(self.sources.judge(sealer, *index, body, alone)?);
            let retention = &mut self.retention;
            take_rule((&self.sources, retention), batch, (*index, body), missing)?;
        }
        changes.into_iter().for_each(|change| self.sources.apply(change));
        Ok(key)
    }
}

fn foreign(sources: &Sources, pinned: &VerifierKey) -> Fault {
    let genesis = sources.genesis();
    let found = format!("{} with the key {}", genesis.origin, genesis.ledger_vkey);
    Fault::ForeignGenesis { found, pinned: pinned.to_string() }
}

/// A redaction accounts for what it erases, if it is lawful; a change may bring another retention
/// into force. Both stand alone in their batch.
fn take_rule(
    (sources, retention): (&Sources, &mut Option<Retention>),
    batch: &SealedBatch,
    (index, body): (Index, Body<'_>),
    missing: &mut Missing,
) -> Result<(), SourceError> {
    let sealer = batch.source.as_name();
    match body.number {
        Body::REDACTION => {
            let redaction =
                wire::Redaction::decode(body.bytes).map_err(|_| SourceError::Undecodable)?;
            let place = (index, batch.recorded_at);
            if let Ok(erasing) = judge(sources, retention.as_ref(), place, sealer, &redaction) {
                missing.account(&erasing);
            }
        }
        Body::CONTROL_CHANGE => {
            let change =
                wire::ControlChange::decode(body.bytes).map_err(|_| SourceError::Undecodable)?;
            let after = retention_after(sources, retention.as_ref(), (sealer, index), &change);
            if after.is_some() {
                *retention = after;
            }
        }
        _ => {}
    }
    Ok(())
}
