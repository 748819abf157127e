//! Tells a webhook of every alarm: one task, JSON by POST, repeated until it is taken (2xx).
//!
//! The body is the file in `alarms/`, byte for byte; when an alarm ends it is sent once more, with
//! the end. At least once: after a crash something may be sent again, under the same id. The
//! evidence stays here, for it may hold events.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use super::alarms::Alarms;
use crate::outbound::Outbound;

/// Sends what is untold to `url`, for ever.
pub(crate) async fn run(alarms: Arc<Alarms>, outbound: Outbound, url: String) {
    let post = |body: Vec<u8>| {
        let (outbound, url) = (outbound.clone(), url.clone());
        async move {
            let answer = outbound.post(&url, "application/json", body).await;
            answer.map(|answer| answer.status).map_err(|error| error.to_string())
        }
    };
    tell(alarms, post).await;
}

/// Sends what is untold, for ever. `post` sends one body and gives the HTTP status, or why there is
/// none.
///
/// An alarm that is refused does not keep the others waiting; a webhook that cannot be reached
/// does.
async fn tell<F>(alarms: Arc<Alarms>, post: impl Fn(Vec<u8>) -> F)
where
    F: Future<Output = Result<u16, String>>,
{
    let mut delay = DELAY_MIN;
    loop {
        let unsent = alarms.unsent();
        if unsent.is_empty() {
            delay = DELAY_MIN;
            alarms.untold().await;
            continue;
        }
        let (mut taken, mut refused) = (0_u32, 0_u32);
        for (id, body) in unsent {
            let problem = match post(body.clone()).await {
                Ok(200..=299) => {
                    info!(id, "webhook took alarm");
                    let alarms = alarms.clone();
                    // A panic was told; it is sent again then.
                    let _noted = spawn_blocking(move || alarms.sent(&id, &body)).await;
                    taken += 1;
                    continue;
                }
                Ok(status) => format!("status {status}"),
                Err(problem) => {
                    warn!(id, problem, "webhook not reached, will repeat");
                    refused += 1;
                    break;
                }
            };
            warn!(id, problem, "webhook refused alarm, will repeat");
            refused += 1;
        }
        if refused > 0 {
            sleep(delay).await;
            delay = if taken > 0 { DELAY_MIN } else { (delay * 2).min(DELAY_MAX) };
        }
    }
}

/// Before the first repetition.
const DELAY_MIN: Duration = Duration::from_secs(1);

/// Between repetitions, when nothing is taken for long.
const DELAY_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
