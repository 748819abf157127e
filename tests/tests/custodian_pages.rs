//! What a custodian serves over HTTP is the ledger, from its own copy: under checkpoints that it
//! cosigned with both keys, and to whoever asks for one more.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    hash::Digest,
    note::VerifierKey,
    position::Size,
    wire,
    witness::{AddCheckpoint, SIZE_TYPE, origin_hex},
};
use access_ledger_server::{
    custodian::{Custodian, CustodianOptions},
    os::{Clock, Disk, RealDisk, SystemClock},
    serve::Serving,
};
use access_ledger_tests::{
    node::{Clients, Node},
    pages,
};
use anyhow::{Context as _, Result};
use tokio::{sync::oneshot, task::JoinHandle};

/// A custodian in this process.
struct Mirror {
    address: SocketAddr,
    /// Witness, mirror.
    keys: [VerifierKey; 2],
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<()>>,
}

impl Mirror {
    /// Follows the ledger of `node`; never cosigns unless somebody asks for it.
    async fn start(folder: &Path, node: &Node) -> Result<Self> {
        let mut options = CustodianOptions::new(folder, node.vkey.clone());
        options.cosign_idle = Duration::from_secs(3_600);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let open = move || Custodian::open(options, &disk, &clock, None);
        let custodian = tokio::task::spawn_blocking(open).await??;
        let keys = custodian.vkeys().map(Clone::clone);
        let serving = Serving::bind(custodian, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (address, url) = (serving.address(), format!("http://{}", node.address));
        let (stop, stopped) = oneshot::channel::<()>();
        let run = async move { Ok(serving.run(&url, async { drop(stopped.await) }).await?) };
        Ok(Self { address, keys, stop, run: tokio::spawn(run) })
    }

    /// Asks for a cosignature of the ledger's newest checkpoint, from `old` on; again while the
    /// custodian says that it is not there yet.
    async fn ask(&self, clients: &Clients, old: u64) -> Result<(String, pages::Answer)> {
        let mut auditor = clients.auditor.clone();
        let note = auditor.get_checkpoint(wire::GetCheckpointRequest::default()).await?;
        let note = String::from_utf8(note.into_inner().checkpoint.to_vec())?;
        let size = note.lines().nth(1).context("no size")?.parse()?;
        let mut proof = Vec::new();
        if old > 0 && old <= size {
            let request = wire::GetConsistencyProofRequest { old_size: old, new_size: size };
            let path = auditor.get_consistency_proof(request).await?.into_inner().path;
            proof = path.iter().filter_map(|hash| Digest::from_slice(hash)).collect();
        }
        let body = AddCheckpoint { old: Size(old), proof, note: note.as_bytes() }.to_bytes();
        let asked = async {
            loop {
                // Connections may break when it begins to serve.
                match pages::post(self.address, "/add-checkpoint", &body).await {
                    Ok(answer) if answer.status != 503 => return answer,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        Ok((note, tokio::time::timeout(PATIENCE, asked).await?))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_cosigns_mirrors_and_serves_the_same_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("ledger")).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    clients.record(&source.record(300)?).await?;
    let mirror = Mirror::start(&folder.path().join("custodian"), &node).await?;
    let below = format!("/{}", origin_hex(node.vkey.name()));

    let mut old = 0;
    for count in [1, 77, 200] {
        clients.record(&source.record(count)?).await?;
        let (note, cosigned) = mirror.ask(&clients, old).await?;
        assert_eq!(cosigned.status, 200, "{}", cosigned.text());
        let whole = note + &cosigned.text();
        let checkpoint = VerifiedCheckpoint::open(whole.as_bytes(), &node.vkey, &mirror.keys)?;
        assert_eq!(checkpoint.cosignatures().len(), 2);
        old = checkpoint.size().0;
        let newest = pages::get(mirror.address, &format!("{below}/checkpoint"), &[]).await?;
        assert_eq!(newest.text(), whole);
        // What it cosigned it has, and it serves the same bytes as the ledger.
        let own = pages::read_log(mirror.address, &below, &node.vkey).await?;
        assert_eq!(own.len() as u64, old);
        assert_eq!(own, pages::read_log(node.address, "", &node.vkey).await?);
        assert_eq!(own, pages::read_log(mirror.address, "", &node.vkey).await?);
    }
    let (_, conflict) = mirror.ask(&clients, 1).await?;
    assert_eq!((conflict.status, conflict.header("content-type")), (409, Some(SIZE_TYPE)));
    assert_eq!(conflict.text(), format!("{old}\n"));

    drop(mirror.stop);
    mirror.run.await??;
    node.stop().await
}

/// Far more than it takes to copy a small log.
const PATIENCE: Duration = Duration::from_secs(60);
