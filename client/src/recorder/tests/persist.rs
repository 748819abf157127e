//! A recorder that goes on whatever the ledger answers.

use super::*;

/// What a recorder told of the ledger: `None` when it takes events.
type Told = Arc<Mutex<Vec<Option<RecorderError>>>>;

type Spoil = fn(&mut ledger::Faults);
type IsTold = fn(&RecorderError) -> bool;

/// Starts one that persists, and hears what it tells.
async fn persistent(ledger: &FakeLedger, key: Signer, folder: &Path) -> (Recorder, Told) {
    let told = Told::default();
    let hears = told.clone();
    let builder = Recorder::builder(ledger.serve(), key, ledger.key())
        .backoff(Duration::from_millis(1), Duration::from_millis(8))
        .persist(Duration::from_millis(2), move |answer| {
            hears.lock().unwrap().push(answer.err().cloned());
        });
    (start_unlocked(builder, folder).await, told)
}

#[tokio::test]
async fn no_answer_of_the_ledger_keeps_events_from_the_spool() {
    let other = Signer::new(SOURCE, KeyType::Ed25519, [6; 32]).unwrap();
    let spoilt: [(Spoil, IsTold); 2] = [
        (
            |faults| faults.refuse = Some(tonic::Code::PermissionDenied),
            |error| matches!(error, RecorderError::Refused(_)),
        ),
        (
            |faults| faults.lie = Some(Lie::Path),
            |error| matches!(error, RecorderError::Evidence { .. }),
        ),
    ];
    for (spoil, is_told) in spoilt {
        let (ledger, folder) = (registered(), tempfile::tempdir().unwrap());
        let (recorder, told) = persistent(&ledger, key(), folder.path()).await;
        recorder.record(access(0)).await.unwrap().receipt().await.unwrap();
        spoil(&mut ledger.lock().faults);
        let ticket = recorder.record(access(1)).await.unwrap();
        let tells = async {
            while told.lock().unwrap().len() < 3 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), tells).await.expect("it told what the ledger answered");
        // Accepted, and so on disk.
        let later = recorder.record(access(2)).await.unwrap();
        drop(recorder);
        // The same at the start, with a key that the ledger does not know.
        let (recorder, told_of_key) = persistent(&ledger, other.clone(), folder.path()).await;
        let last = recorder.record(access(3)).await.unwrap();
        assert!(matches!(told_of_key.lock().unwrap()[0], Some(RecorderError::Key { .. })));
        drop((recorder, ticket, later, last));

        ledger.lock().faults = ledger::Faults::default();
        let (recorder, told_at_last) = persistent(&ledger, key(), folder.path()).await;
        recorder.flush().await.unwrap();
        assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 0 });
        assert_eq!(names(&ledger), [0, 1, 2, 3]);
        let told = told.lock().unwrap();
        assert!(told[0].is_none(), "{told:?}");
        assert!(told[1..].iter().all(|told| told.as_ref().is_some_and(is_told)), "{told:?}");
        assert!(matches!(told_at_last.lock().unwrap()[..], [None]));
    }
}

#[tokio::test]
async fn a_ledger_that_takes_events_again_is_told_of_once() {
    let (ledger, folder) = (registered(), tempfile::tempdir().unwrap());
    let (recorder, told) = persistent(&ledger, key(), folder.path()).await;
    ledger.lock().faults.refuse = Some(tonic::Code::PermissionDenied);
    let ticket = recorder.record(access(0)).await.unwrap();
    let is_told = async {
        while told.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), is_told).await.expect("it told of the refusal");
    ledger.lock().faults.refuse = None;
    ticket.receipt().await.unwrap();
    recorder.record(access(1)).await.unwrap().receipt().await.unwrap();
    assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 0 });
    let told = told.lock().unwrap();
    let (last, before) = told.split_last().unwrap();
    assert!(last.is_none() && before.iter().all(Option::is_some), "{told:?}");
}

#[tokio::test]
async fn without_a_spool_nothing_outlasts_a_refusal() {
    let ledger = registered();
    ledger.lock().faults.refuse = Some(tonic::Code::PermissionDenied);
    let builder = builder(&ledger).persist(Duration::from_millis(1), |_| {});
    let recorder = builder.start().await.unwrap();
    let refused = recorder.record(access(0)).await.unwrap().receipt().await.unwrap_err();
    assert!(matches!(refused, RecorderError::Refused(_)));
    assert!(recorder.record(access(1)).await.is_err());
}
