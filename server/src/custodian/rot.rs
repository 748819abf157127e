//! Tells when the custodian's own copy is not what it had stored: it cannot serve that, nor vouch
//! for it to who asks for the entries.

use std::sync::Arc;

use tracing::warn;

use super::{
    alarms::{Alarm, AlarmKind, Alarms, Place},
    desk::Desk,
};

/// Raises the alarm when the scrub has found damage, and ends it when a later pass found none.
pub(super) async fn watch_copy(desk: Arc<Desk>, alarms: Arc<Alarms>) {
    let mut books = desk.books();
    let Ok(mut damaged) =
        books.wait_for(Option::is_some).await.map(|book| book.as_ref().map(|book| book.damaged()))
    else {
        return;
    };
    let origin = desk.ledger().name().to_owned();
    while let Some(found) = &mut damaged {
        let is_damaged = *found.borrow_and_update();
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
