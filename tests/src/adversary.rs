//! The adversary: an operator with full control of its ledger's disks, keys and cables, and every
//! attack that it has.
//!
//! An attack is a function: it is given a ledger that recorded honestly ([`Crime`]), does what it
//! does to a copy, and tells what is served from then on and what each party must say to that.
//! [`play`] lets them look: an auditor who comes for the first time, one who has a pin, one who has
//! a pin and reads everything again; the custodian, who has followed the honest ledger until then.
//! Then all of them look at the honest twin: the same ledger, gone on as it should.
//!
//! Some changes leave a log that is in order in itself. Then only memory convicts: a pin, a proof
//! that somebody kept, or the custodian.

use std::{fs, sync::Arc};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, audit_observed},
    evidence::Caught,
    fold::FindingsList,
    verify::Fault,
};
use access_ledger_proto::{
    error::ProofError,
    position::{Index, Size},
    quorum::Quorum,
    wire::FindingRecord,
};
use access_ledger_server::{
    custodian::alarms::{AlarmKind, Place},
    demo::tamper::Seized,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

use crate::{
    hostile::{Hostile, Server, options},
    operator::{Crime, SECOND, append_at, newest_time},
};

pub mod approval;
pub mod custody;
pub mod damage;
pub mod erasure;
pub mod history;
pub mod identity;
pub mod order;
pub mod time;

/// The attacks that the design names, in its words, and the tests that play each of them. A test
/// compares this list with the table in `README.md` and with the tests that there are.
pub const DESIGN: [(&str, &[&str]); 31] = [
    (
        "flip a byte of an event",
        &["flip_a_byte_of_an_event", "flip_a_byte_of_an_event_on_the_ledgers_disk"],
    ),
    (
        "flip a byte of an entry",
        &[
            "flip_a_byte_of_an_entry",
            "flip_a_byte_of_an_entry_and_sign_again",
            "flip_any_byte_of_an_entry",
            "flip_a_byte_of_an_entry_on_the_ledgers_disk",
        ],
    ),
    (
        "flip a byte of a tree file",
        &[
            "flip_a_byte_of_a_tree_file",
            "prove_from_a_flipped_tree",
            "flip_a_byte_of_a_tree_file_under_a_running_ledger",
        ],
    ),
    (
        "flip a byte of a segment header",
        &["flip_a_byte_of_a_segment_header", "flip_a_byte_of_a_segment_header_and_never_come_back"],
    ),
    ("delete the last entry", &["delete_the_last_entry"]),
    ("delete the last entry and re-sign", &["delete_the_last_entry_and_sign_again"]),
    (
        "delete one in the middle and re-chain and re-sign",
        &[
            "delete_one_in_the_middle_and_chain_and_sign_again",
            "delete_a_seal_and_chain_and_sign_again",
            "delete_a_batch_and_chain_and_sign_again",
        ],
    ),
    ("swap two", &["swap_two", "swap_two_and_chain_again"]),
    ("insert one", &["insert_one", "insert_one_and_number_again"]),
    ("change `recorded_at`", &["change_recorded_at", "change_recorded_at_alone"]),
    ("backdate a batch", &["backdate_a_batch", "backdate_a_new_batch"]),
    ("drop one event of a batch", &["drop_one_event_of_a_batch"]),
    (
        "replace an event of a source",
        &["replace_an_event_of_a_source", "replace_an_event_and_seal_again"],
    ),
    (
        "forge a source",
        &["forge_a_source", "forge_a_source_upon_signatures", "record_as_a_stranger"],
    ),
    (
        "forge an approval",
        &[
            "forge_an_approval",
            "forge_an_approver",
            "register_an_approver_alone",
            "approve_as_the_ledger",
            "approve_without_the_role",
        ],
    ),
    ("approve one's own request", &["approve_ones_own_request"]),
    (
        "replay a batch under another number",
        &["replay_a_batch_under_another_number", "replay_a_batch"],
    ),
    ("restore an old backup", &["restore_an_old_backup", "restore_an_old_backup_and_record_on"]),
    (
        "fork (two custodians shown two trees)",
        &["fork", "fork_and_record_on", "show_two_custodians_two_trees"],
    ),
    (
        "serve an old checkpoint for ever",
        &[
            "serve_an_old_checkpoint_for_ever",
            "serve_an_old_checkpoint_to_a_service_that_holds_a_receipt",
        ],
    ),
    (
        "answer a query with one result left out",
        &[
            "a_hit_that_is_left_out_is_unmasked_by_the_verified_log",
            "answer_a_query_with_one_result_left_out",
        ],
    ),
    (
        "give a receipt and then not include it",
        &[
            "give_a_receipt_and_then_not_include_it",
            "show_the_custodian_a_receipt_that_was_not_included",
        ],
    ),
    (
        "change the genesis",
        &[
            "change_the_genesis",
            "change_the_genesis_and_seal_again",
            "serve_the_genesis_of_another_ledger",
        ],
    ),
    ("swap the ledger key", &["swap_the_ledger_key"]),
    ("swap a source key", &["swap_a_source_key"]),
    (
        "change the policy with one signature",
        &["change_the_policy_with_one_signature", "change_the_policy_with_a_forged_signature"],
    ),
    ("erase an event without a record", &["erase_events_without_a_record"]),
    ("mark an erasure that never happened", &["mark_an_erasure_that_never_happened"]),
    (
        "hide a source's silence",
        &[
            "keep_quiet_about_a_silent_source",
            "hide_a_silence_by_an_old_heartbeat",
            "hide_a_silence_by_a_forged_heartbeat",
            "hide_a_silence_by_a_slow_clock",
        ],
    ),
    ("a custodian that cosigns two histories", &["cosign_two_histories"]),
    ("truncate an export", &["truncate_an_export", "truncate_an_export_of_the_custodians"]),
];

/// What came of an attack.
pub struct Attack {
    /// What the operator serves.
    pub served: Arc<Hostile>,
    /// What an auditor says who comes for the first time.
    pub first: Says,
    /// What one says who has seen the honest log.
    pub pinned: Says,
    /// The same, reading everything again.
    pub full: Says,
    /// What the custodian raises, who has followed the honest log until then; in any order.
    pub alarms: Vec<(AlarmKind, Place)>,
    /// What an honest operator would have served instead.
    pub twin: Seized,
    /// Nanoseconds that have passed since the last honest entry.
    pub later: u64,
}

/// A way to attack a ledger.
pub type Act = fn(&mut Crime) -> anyhow::Result<Attack>;

/// What an audit says.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    /// This fault at this index.
    Log(u64, fn(&Fault) -> bool),
    /// No entry is served at this index.
    Withheld(u64),
    /// The checkpoint is not one that the ledger's key signed.
    Checkpoint,
    /// Smaller than the pin.
    Rollback,
    /// As large as the pin, with another root.
    Fork,
    /// Larger than the pin, and no continuation of it.
    Inconsistent,
    /// The log is in order, but tells of this: rule and index.
    Finding(&'static str, u64),
    /// Nothing: the log is in order in itself.
    InOrder,
}

impl Attack {
    /// An attack that an auditor with a pin notices in the same way, whatever it reads.
    ///
    /// # Errors
    ///
    /// When the twin cannot be told.
    pub fn new(
        crime: &mut Crime,
        served: Hostile,
        [first, pinned]: [Says; 2],
        alarm: impl Into<Option<(AlarmKind, Place)>>,
    ) -> anyhow::Result<Self> {
        let (twin, later) = (gone_on(crime, SECOND)?, SECOND);
        let alarms = alarm.into().into_iter().collect();
        let served = Arc::new(served);
        Ok(Self { served, first, pinned, full: pinned, alarms, twin, later })
    }

    /// An attack on what is behind the pin: its owner notices only when it reads everything again.
    ///
    /// # Errors
    ///
    /// As [`Attack::new`].
    pub fn behind_pin(
        crime: &mut Crime,
        served: Hostile,
        says: Says,
        alarm: (AlarmKind, Place),
    ) -> anyhow::Result<Self> {
        Ok(Self { full: says, ..Self::new(crime, served, [says, Says::InOrder], alarm)? })
    }
}

/// Serves a log under the note that its ledger signs over it.
///
/// # Errors
///
/// None: the ledger's key signs anything.
pub fn signed(log: &Seized) -> anyhow::Result<Hostile> {
    Ok(Hostile::new(log.serve()?.with_run_entries(5)))
}

/// Serves a log under the note of the honest one.
///
/// # Errors
///
/// As [`signed`].
pub fn unsigned(crime: &Crime, log: &Seized) -> anyhow::Result<Hostile> {
    let honest = crime.honest.serve()?.checkpoint().clone();
    Ok(signed(log)?.checkpoint(move |_, _| Ok::<Bytes, _>(honest.clone())))
}

/// The custodian proves that the ledger forked.
#[must_use]
pub const fn forked(size: u64) -> (AlarmKind, Place) {
    (AlarmKind::Fork, Place::Size(Size(size)))
}

/// The ledger went back to a size.
#[must_use]
pub const fn rolled_back(size: u64) -> (AlarmKind, Place) {
    (AlarmKind::Rollback, Place::Size(Size(size)))
}

/// Something is wrong with the entry at an index.
#[must_use]
pub const fn at(kind: AlarmKind, index: u64) -> (AlarmKind, Place) {
    (kind, Place::Index(Index(index)))
}

/// The honest log, gone on by a batch, so many nanoseconds later.
///
/// # Errors
///
/// None: a source seals whatever it records.
pub fn gone_on(crime: &mut Crime, later: u64) -> anyhow::Result<Seized> {
    let mut log = crime.honest.clone();
    let time = newest_time(&log)? + later;
    let [source, _] = &mut crime.sources;
    let events = source.events(3);
    append_at(&mut log, source, time, events)?;
    Ok(log)
}

/// Plays an attack: all who look say what they must, and nothing about the honest twin.
///
/// # Errors
///
/// When one of them says something else.
pub async fn play(act: Act) -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let attack = act(&mut crime)?;
    let server = Server::start(attack.served.clone()).await?;
    let twin = Server::start(signed(&attack.twin)?).await?;
    Box::pin(audits(&crime, &attack, &server, &twin)).await?;
    custody::custodian(&crime, &attack, &server).await.context("the custodian")?;
    custody::twin(&crime, &attack, &twin).await.context("the custodian of the honest twin")
}

/// What auditors say.
async fn audits(
    crime: &Crime,
    attack: &Attack,
    server: &Server,
    twin: &Server,
) -> anyhow::Result<()> {
    let &Attack { first, pinned, full, .. } = attack;
    let known = Size(crime.size());

    let mut view = crime.fresh("first.json")?;
    let audited = server.audit(&mut view).await.map(drop);
    first.judge(known, audited).context("an auditor who comes for the first time")?;
    if first.is_caught() {
        ensure!(view.pinned().is_none() && !view.path().exists(), "a failed audit pins nothing");
    }
    let mut view = crime.fresh("twin.json")?;
    twin.audit(&mut view).await.context("the honest twin, for the first time")?;

    for (name, is_full, says) in [("pinned.json", false, pinned), ("full.json", true, full)] {
        let mut view = crime.pinned(name).await?;
        let before = fs::read(view.path())?;
        let options = AuditOptions { full: is_full, ..options() };
        let audited = server.audit_with(&mut view, &options).await.map(drop);
        says.judge(known, audited)
            .with_context(|| format!("an auditor with a pin, full: {is_full}"))?;
        if says.is_caught() {
            ensure!(fs::read(view.path())? == before, "a failed audit moves no pin");
            twin.audit_with(&mut view, &options).await.context("the honest twin, with a pin")?;
        }
    }
    if let Says::Finding(rule, index) = first {
        let found = Box::pin(findings(crime, server, "found.json")).await?;
        let found: Vec<_> = found.iter().filter(|found| found.rule == rule).collect();
        let places: Vec<_> = found.iter().map(|found| found.index).collect();
        ensure!(places == [index], "{rule} at {places:?}, wanted at {index}");
        let innocent = Box::pin(findings(crime, twin, "innocent.json")).await?;
        ensure!(!innocent.iter().any(|found| found.rule == rule), "{rule} in the honest twin");
    }
    Ok(())
}

/// All findings of a log that is in order.
async fn findings(
    crime: &Crime,
    server: &Server,
    view: &str,
) -> anyhow::Result<Vec<FindingRecord>> {
    let (mut view, progress) = (crime.fresh(view)?, Arc::new(|_, _| ()));
    let list = FindingsList::default();
    let puller = server.puller()?;
    let (_, list) = audit_observed(&puller, &mut view, Quorum::default(), progress, list).await?;
    Ok(list.conclude()?)
}

impl Says {
    const fn is_caught(self) -> bool {
        !matches!(self, Self::InOrder | Self::Finding(..))
    }

    /// Compares with what an audit said, whose pin, if any, is of the size `known`.
    ///
    /// # Errors
    ///
    /// What it said instead.
    pub fn judge(self, known: Size, audited: Result<(), AuditError>) -> anyhow::Result<()> {
        let caught = match audited {
            Ok(()) => {
                ensure!(!self.is_caught(), "nothing was noticed, wanted {self:?}");
                return Ok(());
            }
            Err(AuditError::Caught(caught)) => caught,
            Err(error) => return Err(error.into()),
        };
        let holds = match (self, &*caught) {
            (Self::Log(index, is), Caught::Log { violation, .. }) => {
                violation.index == Index(index) && is(&violation.what)
            }
            (Self::Withheld(wanted), Caught::Withheld { index, .. }) => *index == Index(wanted),
            (Self::Rollback, Caught::Rollback { .. })
            | (Self::Fork, Caught::Fork { .. })
            | (Self::Checkpoint, Caught::Checkpoint { .. }) => true,
            // The ledger's own path leads to its new root, and so convicts it of another past.
            (Self::Inconsistent, Caught::Inconsistent { error, .. }) => {
                matches!(error, ProofError::Root { size, .. } if *size == known)
            }
            _ => false,
        };
        ensure!(holds, "{caught}, wanted {self:?}");
        Ok(())
    }
}
