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
    audits(&crime, &attack, &server, &twin).await?;
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
        let found = findings(crime, server, "found.json").await?;
        let found: Vec<_> = found.iter().filter(|found| found.rule == rule).collect();
        let places: Vec<_> = found.iter().map(|found| found.index).collect();
        ensure!(places == [index], "{rule} at {places:?}, wanted at {index}");
        let innocent = findings(crime, twin, "innocent.json").await?;
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
