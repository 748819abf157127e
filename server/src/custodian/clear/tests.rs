//! Only the very evidence of a halt clears it.

use access_ledger_client::evidence::Caught;

use super::*;
use crate::{
    custodian::alarms::{
        Alarm, Raised,
        tests::{NOW, TestClock, fork, open},
    },
    folder::real_disk,
};

#[test]
fn a_halt_is_cleared_by_its_own_evidence_and_by_nothing_else() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let (disk, data) = (real_disk(), folder.path());
    let time: Arc<dyn Clock> = clock.clone();
    let clear = |evidence: &Path| clear(&disk, &time, data, evidence);
    let alarms = open(&folder, &clock);
    let (caught, ledger) = fork();
    let Raised::New(record) = alarms.raise(Alarm::of_caught(&caught, &ledger)) else { panic!() };
    let evidence = alarms.evidence(&record).unwrap();
    assert!(matches!(clear(&evidence), Err(ClearError::NotHalted { .. })));

    let halt = Halt::of(&record);
    halt.write(&*disk, data).unwrap();
    // What came first is what must be looked at.
    Halt { alarm: "later".into(), ..halt.clone() }.write(&*disk, data).unwrap();
    assert_eq!(Halt::read(&*disk, data).unwrap(), Some(halt.clone()));

    let other = data.join("other");
    let twin = caught.evidence(&ledger).replace("finding: ", "finding: not ");
    os::replace(&*disk, &other, twin.as_bytes()).unwrap();
    assert!(matches!(clear(&other), Err(ClearError::Evidence { .. })));
    let (Caught::Fork { pinned, served }, true) = (caught, true) else { panic!() };
    let swapped = Caught::Fork { pinned: served, served: pinned }.evidence(&ledger);
    os::replace(&*disk, &other, swapped.as_bytes()).unwrap();
    assert!(matches!(clear(&other), Err(ClearError::OtherEvidence { .. })));
    assert!(matches!(clear(&data.join("none")), Err(ClearError::Folder(_))));
    assert!(Halt::read(&*disk, data).unwrap().is_some());

    assert_eq!(clear(&evidence).unwrap(), halt);
    assert_eq!(Halt::read(&*disk, data).unwrap(), None);
    let alarms = open(&folder, &clock);
    let ended = alarms.all().into_iter().find(|ended| ended.id == record.id).unwrap();
    assert!(!ended.is_lasting() && ended.evidence.is_some());
    assert!(matches!(clear(&evidence), Err(ClearError::NotHalted { .. })));
    // The next fork is an alarm of its own.
    let (caught, ledger) = fork();
    assert!(matches!(alarms.raise(Alarm::of_caught(&caught, &ledger)), Raised::New(_)));
}

#[test]
fn a_marker_that_cannot_be_read_keeps_the_custodian_halted() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, data) = (real_disk(), folder.path());
    os::replace(&*disk, &data.join("halted"), b"?").unwrap();
    assert!(matches!(Halt::read(&*disk, data), Err(LedgerError::File { .. })));
}
