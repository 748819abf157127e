//! What auditors read verifies, wherever they begin and however the ledger grows meanwhile.

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    hash::{Digest, leaf_hash},
    position::{Index, Size},
    proof::{verify_consistency, verify_inclusion},
    tree::Frontier,
    wire::{self, get_receipt_request::Entry as Wanted},
};
use access_ledger_tests::{
    model::Audit,
    node::{Clients, Node},
    source::{Refused, Sealed},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use tonic::Code;

/// A ledger with some 1,400 entries of two sources.
struct Bench {
    _folder: tempfile::TempDir,
    node: Node,
    clients: Clients,
    batches: Vec<Sealed>,
    audit: Audit,
    /// By size, from 0 on.
    roots: Vec<Digest>,
}

impl Bench {
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path()).await?;
        let clients = node.clients();
        let mut batches = Vec::new();
        let mut payments = clients.enrolled("payments", 1, &node.vkey).await?;
        let mut support = clients.enrolled("support", 2, &node.vkey).await?;
        for count in [1, 300, 7, 256, 1, 1, 500, 31, 255, 40] {
            let source = if count % 2 == 0 { &mut support } else { &mut payments };
            let sealed = source.record(count)?;
            clients.record(&sealed).await?;
            batches.push(sealed);
        }
        let mut audit = Audit::new(&node.vkey);
        audit.pull(&clients).await?;
        let mut tree = Frontier::new();
        let mut roots = vec![tree.root()];
        roots.extend(audit.entries.iter().map(|entry| {
            tree.append(entry.leaf);
            tree.root()
        }));
        Ok(Self { _folder: folder, node, clients, batches, audit, roots })
    }

    fn size(&self) -> u64 {
        self.audit.entries.len() as u64
    }

    fn root(&self, size: u64) -> anyhow::Result<Digest> {
        self.roots.get(usize::try_from(size)?).copied().context("beyond the log")
    }

    fn leaf(&self, index: u64) -> anyhow::Result<Digest> {
        let entry = self.audit.entries.get(usize::try_from(index)?);
        entry.map(|entry| entry.leaf).context("beyond the log")
    }

    async fn entries(
        &self,
        request: wire::ReadEntriesRequest,
    ) -> Result<Vec<wire::EntryRun>, tonic::Status> {
        let mut answers = self.clients.auditor.clone().read_entries(request).await?.into_inner();
        let mut runs = Vec::new();
        while let Some(answer) = answers.message().await? {
            runs.extend(answer.run);
        }
        Ok(runs)
    }
}

fn digests(path: &[Bytes]) -> anyhow::Result<Vec<Digest>> {
    path.iter().map(|hash| Digest::from_slice(hash).context("not 32 bytes")).collect()
}

fn sizes(random: &mut ChaCha8Rng, newest: u64) -> Vec<u64> {
    let fixed = [1, 2, 3, 255, 256, 257, 512, 513, newest - 1, newest];
    fixed.into_iter().chain((0..20).map(|_| random.random_range(1..=newest))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_of_entries_comes_back_whole_with_and_without_events() -> anyhow::Result<()> {
    let bench = Bench::new().await?;
    let size = bench.size();
    for (first_index, end_index) in [
        (0, 0),
        (0, size),
        (0, 1),
        (5, 300),
        (299, 0),
        (size - 1, 0),
        (size, 0),
        (size, size),
        (3, 3),
    ] {
        for with_events in [false, true] {
            let request = wire::ReadEntriesRequest { first_index, end_index, with_events };
            let runs = bench.entries(request).await?;
            let mut next = first_index;
            for run in runs {
                assert_eq!(run.first_index, next);
                assert!(!run.entries.is_empty());
                assert_eq!(run.events.len(), if with_events { run.entries.len() } else { 0 });
                for entry in &run.entries {
                    assert_eq!(leaf_hash(entry), bench.leaf(next)?);
                    next += 1;
                }
            }
            assert_eq!(next, if end_index == 0 { size } else { end_index });
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_beyond_the_tree_is_refused_with_its_size() -> anyhow::Result<()> {
    let bench = Bench::new().await?;
    let size = bench.size();
    let beyond = [(size + 1, 0), (0, size + 1), (size + 1, size + 2), (u64::MAX, u64::MAX)];
    for (first_index, end_index) in beyond {
        let request = wire::ReadEntriesRequest { first_index, end_index, with_events: false };
        let refused = Refused::of(&bench.entries(request).await.unwrap_err());
        assert_eq!(refused.kind(), (Code::OutOfRange, "BEYOND_TREE"), "{first_index} {end_index}");
        assert_eq!(refused.metadata["size"], size.to_string());
    }
    // Inside the tree, but the wrong way round: not beyond anything.
    let request = wire::ReadEntriesRequest { first_index: 5, end_index: 3, with_events: false };
    let refused = Refused::of(&bench.entries(request).await.unwrap_err());
    assert_eq!(refused.code, Code::InvalidArgument);

    let mut auditor = bench.clients.auditor.clone();
    let watched = auditor.watch(wire::WatchRequest { first_index: size + 1, with_events: false });
    let refused = Refused::of(&watched.await.unwrap_err());
    assert_eq!(refused.kind(), (Code::OutOfRange, "BEYOND_TREE"));
    assert_eq!(refused.metadata["size"], size.to_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn inclusion_holds_for_every_pair_of_index_and_size() -> anyhow::Result<()> {
    let bench = Bench::new().await?;
    let mut auditor = bench.clients.auditor.clone();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for size in sizes(&mut random, bench.size()) {
        let root = bench.root(size)?;
        for index in [0, size - 1, size / 2, random.random_range(0..size)] {
            let request = wire::GetInclusionProofRequest { index, tree_size: size };
            let proof = auditor.get_inclusion_proof(request).await?.into_inner();
            assert_eq!(proof.tree_size, size);
            let path = digests(&proof.path)?;
            verify_inclusion(Index(index), Size(size), bench.leaf(index)?, &path, root)?;
        }
        let beyond = wire::GetInclusionProofRequest { index: size, tree_size: size };
        let refused = Refused::of(&auditor.get_inclusion_proof(beyond).await.unwrap_err());
        assert_eq!(refused.kind(), (Code::OutOfRange, "BEYOND_TREE"));
    }
    let newest = wire::GetInclusionProofRequest { index: 0, tree_size: 0 };
    assert_eq!(auditor.get_inclusion_proof(newest).await?.into_inner().tree_size, bench.size());
    let beyond = wire::GetInclusionProofRequest { index: 0, tree_size: bench.size() + 1 };
    let refused = Refused::of(&auditor.get_inclusion_proof(beyond).await.unwrap_err());
    assert_eq!(refused.kind(), (Code::OutOfRange, "BEYOND_TREE"));
    assert_eq!(refused.metadata["size"], bench.size().to_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn consistency_holds_between_all_sizes() -> anyhow::Result<()> {
    let bench = Bench::new().await?;
    let mut auditor = bench.clients.auditor.clone();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let sizes = sizes(&mut random, bench.size());
    for &new_size in &sizes {
        let new_root = bench.root(new_size)?;
        for &old_size in sizes.iter().filter(|&&old| old <= new_size).take(12) {
            let request = wire::GetConsistencyProofRequest { old_size, new_size };
            let proof = auditor.get_consistency_proof(request).await?.into_inner();
            let old_root = bench.root(old_size)?;
            let path = digests(&proof.path)?;
            verify_consistency(Size(old_size), Size(new_size), old_root, new_root, &path)?;
        }
    }
    let mut refused = async |old_size, new_size| {
        let request = wire::GetConsistencyProofRequest { old_size, new_size };
        Refused::of(&auditor.get_consistency_proof(request).await.unwrap_err())
    };
    let size = bench.size();
    for (old_size, new_size) in [(1, size + 1), (size + 1, 0), (size + 1, size + 2)] {
        let beyond = refused(old_size, new_size).await;
        assert_eq!(beyond.kind(), (Code::OutOfRange, "BEYOND_TREE"), "{old_size} {new_size}");
        assert_eq!(beyond.metadata["size"], size.to_string());
    }
    for (old_size, new_size) in [(0, 0), (0, 5), (6, 5)] {
        let malformed = refused(old_size, new_size).await;
        assert_eq!(malformed.code, Code::InvalidArgument, "{old_size} {new_size}");
        assert_eq!(malformed.field.as_deref(), Some("old_size"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_found_by_index_and_by_number_and_holds_for_entry_and_batch()
-> anyhow::Result<()> {
    let bench = Bench::new().await?;
    let mut auditor = bench.clients.auditor.clone();
    for sealed in &bench.batches {
        let last = sealed.last_seq();
        for seq in [sealed.first_seq(), last, sealed.first_seq().midpoint(last)] {
            let source = sealed.source().as_str().to_owned();
            let by_number = Wanted::Position(wire::SourcePosition { source, seq });
            let request = wire::GetReceiptRequest { entry: Some(by_number) };
            let found = auditor.get_receipt(request).await?.into_inner();
            let entry = Entry::parse(&found.entry)?;
            assert_eq!((entry.source, entry.source_seq), (sealed.source(), seq));
            let head = sealed.verify(&found.receipt.clone().context("no receipt")?)?;
            let (size, root) = (head.checkpoint().size(), head.checkpoint().root());
            let path = digests(&found.inclusion_path)?;
            verify_inclusion(Index(found.index), size, leaf_hash(&found.entry), &path, root)?;
            assert_eq!(found.first_seq, sealed.first_seq());
            assert_eq!(u64::from(found.count), last - sealed.first_seq() + 1);

            let by_index = wire::GetReceiptRequest { entry: Some(Wanted::Index(found.index)) };
            assert_eq!(auditor.get_receipt(by_index).await?.into_inner(), found);
        }
    }
    let position = |source: &str, seq| {
        Some(Wanted::Position(wire::SourcePosition { source: source.to_owned(), seq }))
    };
    let cases = [
        (Some(Wanted::Index(bench.size())), Code::OutOfRange, "BEYOND_TREE"),
        (position("payments", 0), Code::NotFound, "EVENT_UNKNOWN"),
        (position("payments", u64::MAX), Code::NotFound, "EVENT_UNKNOWN"),
        (position("nobody", 1), Code::NotFound, "SOURCE_UNKNOWN"),
        (position("No Name", 1), Code::NotFound, "SOURCE_UNKNOWN"),
    ];
    for (entry, code, reason) in cases {
        let answer = auditor.get_receipt(wire::GetReceiptRequest { entry }).await;
        assert_eq!(Refused::of(&answer.unwrap_err()).kind(), (code, reason));
    }
    let answer = auditor.get_receipt(wire::GetReceiptRequest { entry: None }).await;
    assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_every_entry_once_in_order_while_the_ledger_grows() -> anyhow::Result<()> {
    let bench = Bench::new().await?;
    let (size, vkey) = (bench.size(), bench.node.vkey.clone());
    let end = size + 2_000;
    let begun = Instant::now();
    let mut watchers = tokio::task::JoinSet::new();
    for first_index in [0, 100, size] {
        let (mut auditor, vkey) = (bench.clients.auditor.clone(), vkey.clone());
        let request = wire::WatchRequest { first_index, with_events: first_index > 0 };
        let mut runs = auditor.watch(request).await?.into_inner();
        watchers.spawn(async move {
            let (mut next, mut leaves, mut heads) = (first_index, Vec::new(), Vec::new());
            while next < end {
                let answer = runs.message().await?.context("the watch ended")?;
                let run = answer.run.context("an answer without a run")?;
                ensure!(run.first_index == next, "a run from {}, due was {next}", run.first_index);
                next += run.entries.len() as u64;
                leaves.extend(run.entries.iter().map(|entry| leaf_hash(entry)));
                if !answer.checkpoint.is_empty() {
                    let head = VerifiedCheckpoint::open(&answer.checkpoint, &vkey, &[])?;
                    ensure!(head.size().0 == next, "a checkpoint of {} at {next}", head.size());
                    heads.push((head.size(), head.root()));
                }
            }
            anyhow::Ok((first_index, leaves, heads))
        });
    }
    let mut source = bench.clients.enrolled("late", 3, &vkey).await?;
    while bench.clients.size(&vkey).await? < end {
        bench.clients.record(&source.record(45)?).await?;
    }
    let mut audit = bench.audit;
    audit.pull(&bench.clients).await?;
    while let Some(watched) = watchers.join_next().await {
        let (first_index, leaves, heads) = watched??;
        let first = usize::try_from(first_index)?;
        let expected = audit.entries.iter().skip(first).map(|entry| entry.leaf);
        assert!(leaves.iter().copied().eq(expected.take(leaves.len())));
        // Nothing waits for those who watch, so groups are gathered.
        let most = begun.elapsed().as_millis() / 100 + 2;
        assert!(heads.len() > 1 && heads.len() as u128 <= most, "{} checkpoints", heads.len());
        for (size, root) in heads {
            assert_eq!(audit.root_at(size)?, root);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_listed_page_by_page_each_once_and_found_by_name() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut names = ["company", "custodian", "ledger"].map(str::to_owned).to_vec();
    for number in 0..7 {
        let name = format!("service-{number}");
        let mut source = clients.enrolled(&name, number, &node.vkey).await?;
        if number % 2 == 0 {
            clients.record(&source.record(5)?).await?;
        }
        names.push(name);
    }
    let mut auditor = clients.auditor.clone();
    for page_size in [0, 1, 2, 3, 8, 9, 10, u32::MAX] {
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = wire::ListSourcesRequest { page_size, page_token };
            let page = auditor.list_sources(request).await?.into_inner();
            assert!(page_size == 0 || page.sources.len() <= page_size as usize);
            listed.extend(page.sources);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!(listed.iter().map(|source| &source.name).eq(&names), "page size {page_size}");
        for source in listed {
            let request = wire::GetSourceRequest { source: source.name.clone() };
            let found = auditor.get_source(request).await?.into_inner().source;
            assert_eq!(found, Some(source.clone()));
            assert_eq!(clients.last_seq(&source.name).await?, source.last_seq);
        }
    }
    let request = wire::GetSourceRequest { source: "nobody".to_owned() };
    let refused = Refused::of(&auditor.get_source(request).await.unwrap_err());
    assert_eq!(refused.kind(), (Code::NotFound, "SOURCE_UNKNOWN"));
    Ok(())
}
