//! A ledger and a custodian that know each other by certificates: each lets the other do what it is
//! there for, and nobody else.

use std::{sync::Arc, time::Duration};

use access_ledger_proto::{quorum::Quorum, wire};
use access_ledger_server::{
    custodian::{Custodian, CustodianOptions},
    identity::Door,
    ledger::Cosigning,
    os::{Clock, Disk, RealDisk, SystemClock},
    serve::Serving,
};
use access_ledger_tests::{
    node::{Clients, Setup},
    pki::Pki,
    source::Refused,
};
use anyhow::{Context as _, ensure};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

const AT_THE_LEDGER: &str = r#"
[[principal]]
name = "payments"
roles = ["record"]
uris = ["spiffe://corp.example/payments"]

[[principal]]
name = "auditor"
roles = ["audit"]
uris = ["spiffe://corp.example/auditor"]

[[principal]]
name = "custodian"
roles = ["custody"]
uris = ["spiffe://custodian.example/custodian"]
"#;

const AT_THE_CUSTODIAN: &str = r#"
[[principal]]
name = "ledger"
roles = ["custody"]
uris = ["spiffe://corp.example/ledger"]

[[principal]]
name = "auditor"
roles = ["audit"]
uris = ["spiffe://corp.example/auditor"]
"#;

const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats until it is true.
async fn wait(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        ensure!(Instant::now() < until, "waited for {what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn checkpoint(clients: &Clients, cosigned: bool) -> Result<usize, Refused> {
    let request = wire::GetCheckpointRequest { cosigned };
    let answer = clients.auditor.clone().get_checkpoint(request).await;
    answer.map(|answer| answer.into_inner().checkpoint.len()).map_err(|status| Refused::of(&status))
}

#[tokio::test(flavor = "multi_thread")]
async fn custodian_and_ledger_work_together_over_tls_and_with_nobody_else() -> anyhow::Result<()> {
    let (pki, theirs) = (Pki::new()?, Pki::new()?);
    let client = |name: &str, uri: &str| pki.client(&format!("{name}.pem"), &["--uri", uri]);
    let payments = client("payments", "spiffe://corp.example/payments")?.read()?;
    let auditor = client("auditor", "spiffe://corp.example/auditor")?.read()?;
    let custodian_shows = client("custodian", "spiffe://custodian.example/custodian")?.read()?;
    let ledger_shows = client("ledger", "spiffe://corp.example/ledger")?.read()?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);

    let door = Door::open(&disk, pki.door(AT_THE_LEDGER)?)?;
    let mut setup = Setup { door, credentials: payments, ..Setup::new(&pki.path("data")) };
    let node = setup.start().await?;
    let vkey = node.vkey.clone();
    let mut source = node.clients().enrolled("payments", 1, &vkey).await?;
    node.clients().record(&source.record(3)?).await?;

    // The custodian's own authority vouches for its server; it believes the ledger's for clients.
    let mut files = pki.door(AT_THE_LEDGER)?;
    files.principals = Some(theirs.principals(AT_THE_CUSTODIAN)?);
    let options = CustodianOptions {
        cosign_idle: Duration::from_millis(10),
        ..CustodianOptions::new(pki.path("custodian"), vkey.clone())
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let door = Door::open(&disk, files)?;
    let open = move || Custodian::open(options, &disk, &clock, None);
    let custodian = tokio::task::spawn_blocking(open).await??.showing(custodian_shows.clone());
    let serving = Serving::bind(custodian, ([127, 0, 0, 1], 0).into()).await?.behind(door);
    let url = format!("https://localhost:{}", serving.address().port());
    let policy = serving.custodian().quorum_policy(&url);
    let ledger = node.url.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let run =
        tokio::spawn(async move { serving.run(&ledger, async { drop(stopped.await) }).await });

    let at_custodian = Clients::over(auditor.link(&url)?);
    wait("a copy", async || checkpoint(&at_custodian, false).await.is_ok()).await?;
    // The sources of the ledger are nobody here, and the custodian may not record there.
    let stranger = Clients::over(setup.credentials.link(&url)?);
    let refused = checkpoint(&stranger, false).await.err().context("let in")?;
    assert_eq!(refused.reason, "UNAUTHENTICATED");
    let posing = Clients::over(custodian_shows.link(&node.url)?);
    let refused = posing.append(&source.record(1)?).await.err().context("recorded")?;
    assert_eq!(Refused::of(&refused).reason, "CALL_FORBIDDEN");

    // The ledger asks it to cosign, showing its own certificate.
    node.stop().await?;
    let quorum = Quorum::parse(&policy)?;
    setup.options.cosigning =
        Cosigning { witnesses: Some(quorum), credentials: ledger_shows, ..Cosigning::default() };
    let node = setup.start().await?;
    let at_ledger = Clients::over(auditor.link(&node.url)?);
    wait("cosignatures", async || checkpoint(&at_ledger, true).await.is_ok()).await?;
    let (plain, cosigned) = (checkpoint(&at_custodian, false), checkpoint(&at_ledger, true));
    ensure!(plain.await.is_ok() && cosigned.await.is_ok());

    drop(stop);
    run.await??;
    node.stop().await
}
