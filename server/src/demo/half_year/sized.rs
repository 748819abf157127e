//! Accesses of an exact size, for load tests.

use access_ledger_proto::wire::{Access, Action, Data, Event, Outcome, Principal, event::Body};
use bytes::Bytes;
use prost::Message as _;
use rand::{Rng, RngExt as _};

use super::event_at;

/// Fewest bytes of an event of [`access_of_len`].
pub const ACCESS_LEN_MIN: usize = 128;

/// Most bytes of an event of [`access_of_len`]: the justification, which fills it, holds 4,096.
pub const ACCESS_LEN_MAX: usize = 4_096;

/// What [`access_of_len`] is mostly called with: what an access of the half-year has, about.
pub const ACCESS_LEN: usize = 320;

/// A valid, encoded access of exactly `len` bytes, for load tests; cheap to make.
///
/// `time` is in nanoseconds since the Unix epoch. `None` unless `len` is [`ACCESS_LEN_MIN`] to
/// [`ACCESS_LEN_MAX`].
#[must_use]
pub fn access_of_len(rng: &mut impl Rng, time: u64, len: usize) -> Option<Bytes> {
    if !(ACCESS_LEN_MIN..=ACCESS_LEN_MAX).contains(&len) {
        return None;
    }
    let body = Access {
        action: Action::Read.into(),
        data: vec![Data { dataset: "accounts.profile".to_owned(), ..Data::default() }],
        outcome: Outcome::Allowed.into(),
        ..Access::default()
    };
    let mut event = event_at(rng, time, Body::Access(body));
    let actor = format!("p-{:08x}", rng.random::<u32>());
    event.actor = Some(Principal { id: actor, ..Principal::default() });
    // A length prefix that grows by a byte jumps over one total; a longer correlation id fills it.
    (1..=4).find_map(|slack| {
        event.correlation_id = "c".repeat(slack);
        pad(&mut event, len);
        (event.encoded_len() == len).then(|| event.encode_to_vec().into())
    })
}

/// Fills the justification so that the event comes as close to `len` bytes as it can from below.
fn pad(event: &mut Event, len: usize) {
    for _ in 0..3 {
        let now = event.encoded_len();
        let Some(Body::Access(access)) = &mut event.body else { return };
        let wanted = (access.justification.len() + len).saturating_sub(now);
        access.justification = PROSE.chars().cycle().take(wanted).collect();
    }
}

const PROSE: &str = "User cannot log in after changing the phone. ";

#[cfg(test)]
mod tests {
    use access_ledger_proto::event::validate;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const START: u64 = 1_772_409_600_000_000_000;

    #[test]
    fn load_events_have_exactly_the_length_asked_for() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for len in ACCESS_LEN_MIN..=ACCESS_LEN_MAX {
            let time = START + rng.random_range(0..1_000_000_000);
            let event = access_of_len(&mut rng, time, len).unwrap();
            assert_eq!(event.len(), len);
            validate(&event, time).unwrap();
        }
        assert_eq!(access_of_len(&mut rng, START, ACCESS_LEN_MIN - 1), None);
        assert_eq!(access_of_len(&mut rng, START, ACCESS_LEN_MAX + 1), None);
    }
}
