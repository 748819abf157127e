//! Whatever order and cut the events come in, the ledger is the one that pure code computes.

use access_ledger_proto::{
    chain::Link,
    checkpoint::VerifiedCheckpoint,
    entry::Seal,
    hash::Digest,
    note::KeyId,
    position::{Index, count_of},
    proof::verify_inclusion,
    seal::Batch,
    tree::Frontier,
    wire,
};
use access_ledger_tests::{
    model::Audit,
    node::{Clients, Node},
    source::{Sealed, Source},
};
use anyhow::{Context as _, ensure};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// What some sources send: for each batch the source, the number of events, and whether it waits
/// for the answer to the batch before it.
type Plan = Vec<(usize, usize, bool)>;

const SOURCES: usize = 4;

/// Chain and tree that follow from batches in the order in which they were placed.
struct Reference {
    link: Link,
    tree: Frontier,
}

impl Reference {
    /// Begins behind what the ledger held before the test's batches.
    fn behind(audit: &Audit) -> anyhow::Result<Self> {
        let mut tree = Frontier::new();
        audit.entries.iter().for_each(|entry| tree.append(entry.leaf));
        let last = audit.entries.last().context("an empty ledger")?;
        let link = Link { size: tree.size(), last_leaf: last.leaf, recorded_at: last.recorded_at };
        Ok(Self { link, tree })
    }

    fn append(&mut self, sealed: &Sealed, recorded_at: u64) -> anyhow::Result<()> {
        let batch = Batch {
            source: sealed.source(),
            first_seq: sealed.first_seq(),
            digests: &sealed.digests,
        };
        let seal = Seal {
            count: batch.count()?,
            key_id: KeyId(sealed.batch.key_id.as_ref().try_into()?),
            signature: sealed.batch.signature.as_ref().try_into()?,
        };
        let tree = &mut self.tree;
        self.link.extend(&batch, recorded_at, seal, |_, leaf| tree.append(leaf))?;
        Ok(())
    }
}

/// Carries out a plan: each source on a stream of its own, all at once.
async fn play(
    clients: &Clients,
    sources: &mut [Source],
    plan: &Plan,
) -> anyhow::Result<Vec<(Sealed, wire::Receipt)>> {
    let mut streams = tokio::task::JoinSet::new();
    for (number, source) in sources.iter_mut().enumerate() {
        let mut batches = Vec::new();
        for &(_, count, waits) in plan.iter().filter(|(of, ..)| *of == number) {
            batches.push((source.record(count)?, waits));
        }
        let clients = clients.clone();
        streams.spawn(send(clients, batches));
    }
    let mut placed = Vec::new();
    while let Some(sent) = streams.join_next().await {
        placed.extend(sent??);
    }
    placed.sort_by_key(|(_, receipt)| receipt.first_index);
    Ok(placed)
}

async fn send(
    clients: Clients,
    batches: Vec<(Sealed, bool)>,
) -> anyhow::Result<Vec<(Sealed, wire::Receipt)>> {
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut recorder = clients.recorder.clone();
    let mut answers = recorder.append_stream(requests).await?.into_inner();
    let mut placed: Vec<(Sealed, wire::Receipt)> = Vec::new();
    let mut sent = 0;
    for (sealed, waits) in &batches {
        sender.send(sealed.request()).await?;
        sent += 1;
        while *waits && placed.len() < sent {
            placed.push(answer(&batches, placed.len(), &mut answers).await?);
        }
    }
    drop(sender);
    while placed.len() < batches.len() {
        placed.push(answer(&batches, placed.len(), &mut answers).await?);
    }
    Ok(placed)
}

async fn answer(
    batches: &[(Sealed, bool)],
    number: usize,
    answers: &mut tonic::Streaming<wire::AppendResponse>,
) -> anyhow::Result<(Sealed, wire::Receipt)> {
    let answer = answers.message().await?.context("the stream ended early")?;
    let (sealed, _) = batches.get(number).context("more answers than batches")?;
    let receipt = answer.receipt.context("an answer without a receipt")?;
    sealed.verify(&receipt)?;
    Ok((sealed.clone(), receipt))
}

async fn check(plan: &Plan) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut sources = Vec::new();
    for number in 0..SOURCES {
        let name = format!("service-{number}");
        sources.push(clients.enrolled(&name, count_of(number), &node.vkey).await?);
    }
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&clients).await?;
    let mut reference = Reference::behind(&audit)?;

    let placed = play(&clients, &mut sources, plan).await?;
    let mut leaves = Vec::new();
    for (sealed, receipt) in &placed {
        ensure!(receipt.first_index == reference.link.size.0, "batches overlap or leave a gap");
        ensure!(receipt.prev == reference.link.last_leaf.as_bytes()[..], "another link");
        ensure!(receipt.recorded_at >= reference.link.recorded_at, "time ran backwards");
        reference.append(sealed, receipt.recorded_at)?;
        leaves.push(reference.link.last_leaf);
    }
    let head = audit.pull(&clients).await?;
    ensure!(head.size() == reference.tree.size(), "{} entries", head.size());
    ensure!(head.root() == reference.tree.root(), "another root at {}", head.size());
    // Every receipt was under the very tree that the reference had at that size.
    for ((sealed, receipt), leaf) in placed.iter().zip(leaves) {
        let under = VerifiedCheckpoint::open(&receipt.checkpoint, &node.vkey, &[])?;
        ensure!(audit.root_at(under.size())? == under.root(), "another root at {}", under.size());
        let last = Index(receipt.first_index + sealed.last_seq() - sealed.first_seq());
        let path: Vec<_> =
            receipt.inclusion_path.iter().filter_map(|hash| Digest::from_slice(hash)).collect();
        verify_inclusion(last, under.size(), leaf, &path, under.root())?;
    }
    Ok(())
}

#[test]
fn any_order_and_any_cut_give_the_root_that_pure_code_computes() -> anyhow::Result<()> {
    const SEED: u64 = 8_128;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&SEED.to_be_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let batch = (0..SOURCES, 1..60_usize, proptest::bool::weighted(0.2));
    let plans = proptest::collection::vec(batch, 1..80);
    for case in 0..16 {
        let plan = plans.new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        runtime
            .block_on(check(&plan))
            .with_context(|| format!("case {case} of seed {SEED}: {plan:?}"))?;
    }
    Ok(())
}
