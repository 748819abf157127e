//! Tells when the custodian's own copy is not what it had stored: it cannot serve that, nor vouch
//! for it to who asks for the entries. The mirror signs nothing from then on, across restarts,
//! until all was read again and holds.

use std::sync::Arc;

use tracing::warn;

use super::{
    alarms::{Alarm, AlarmKind, Alarms, Place},
    desk::Desk,
};
use crate::{
    error::LedgerError,
    folder::Folder,
    os::{Clock, Disk},
    witness::Holding,
};

/// Whether the copy was found damaged, and was not read again as a whole since.
pub(super) fn is_damaged(alarms: &Alarms, origin: &str) -> bool {
    !alarms.places(AlarmKind::CopyDamaged, origin).is_empty()
}

/// Ends the alarm about the copy in a folder that nobody has open: all of it was read again, and
/// mended. Nothing in a folder that has no alarms.
///
/// # Errors
///
/// As [`Alarms::open`].
pub(crate) fn mended(
    disk: &Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    folder: &Folder,
) -> Result<(), LedgerError> {
    if disk.list(&folder.alarms()).is_err() {
        return Ok(());
    }
    let alarms = Alarms::open(disk.clone(), clock, &folder.alarms())?;
    let lasting = alarms.lasting().into_iter();
    for record in lasting.filter(|record| record.kind == AlarmKind::CopyDamaged) {
        alarms.end_record(&record, "the copy was restored, and all of it was read again");
    }
    Ok(())
}

/// Raises the alarm when the scrub has found damage, and ends it when a later pass found none.
/// `holding` is told first.
pub(super) async fn watch_copy(desk: Arc<Desk>, holding: Arc<Holding>, alarms: Arc<Alarms>) {
    let mut books = desk.books();
    let Ok(mut damaged) =
        books.wait_for(Option::is_some).await.map(|book| book.as_ref().map(|book| book.damaged()))
    else {
        return;
    };
    let origin = desk.ledger().name().to_owned();
    while let Some(found) = &mut damaged {
        let is_damaged = *found.borrow_and_update();
        if let Some(is_damaged) = is_damaged {
            holding.damaged(is_damaged);
        }
        let (desk, alarms, origin) = (desk.clone(), alarms.clone(), origin.clone());
        let judge = move || match is_damaged {
            Some(true) => {
                let held = desk.newest().map(|newest| newest.size()).unwrap_or_default();
                let told = "bytes of its own copy are damaged: stop, and restore from the ledger";
                alarms.raise(Alarm::new(AlarmKind::CopyDamaged, &origin, held, told));
            }
            Some(false) => {
                let why = "all of the copy was read again and holds";
                alarms.end(AlarmKind::CopyDamaged, &origin, Place::Ledger, why);
            }
            None => {}
        };
        if tokio::task::spawn_blocking(judge).await.is_err() {
            warn!("judging the copy panicked");
        }
        if found.changed().await.is_err() {
            return;
        }
    }
}
