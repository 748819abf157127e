//! A verified query by rule pulls its hits once more, behind the audit: an event that is held back
//! then convicts the ledger, and one that was erased in between does not.

use std::sync::Arc;

use access_ledger_client::{
    audit::audit_observed,
    evidence::Caught,
    query::{ErasedBy, Hit, SelectError, Selection},
};
use access_ledger_proto::{
    position::Index,
    quorum::Quorum,
    terms::Criteria,
    wire::{Filter, event::Body},
};
use access_ledger_server::demo::tamper::Seized;
use access_ledger_tests::{
    adversary::{gone_on, signed},
    hostile::{Hostile, Server, whole},
    operator::{Crime, SECOND, append},
    personal::redaction,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

/// What a verified query by rule says of a server.
async fn hits(
    crime: &Crime,
    name: &str,
    served: Hostile,
) -> anyhow::Result<Result<Vec<Hit>, SelectError>> {
    let (server, mut view) = (Server::start(served).await?, crime.fresh(name)?);
    let filter = Filter {
        rules: vec!["NO_GRANT".to_owned()],
        sources: vec!["payments".to_owned()],
        ..Default::default()
    };
    let selection = Selection::new(Criteria::parse(&filter)?, false, usize::MAX);
    let (puller, quiet) = (server.puller()?, Arc::new(|_, _| ()));
    let audited = audit_observed(&puller, &mut view, Quorum::default(), quiet, selection);
    let (audited, selection) = Box::pin(audited).await?;
    let selected = Box::pin(selection.conclude(&puller, &audited, &crime.vkey)).await;
    Ok(selected.map(|selected| selected.hits))
}

/// Serves a log whose events are there for an audit, and one of them not for who asks for its entry
/// alone. With `first`, that is the first checkpoint that is seen.
fn holding_back(log: &Seized, held: Index, first: Option<&Seized>) -> anyhow::Result<Hostile> {
    let first = first.map(Seized::serve).transpose()?.map(|liar| liar.checkpoint().clone());
    let hostile = signed(log)?
        .checkpoint(move |call, note| Ok(first.clone().filter(|_| call == 0).unwrap_or(note)));
    Ok(hostile.read(move |_, request, mut runs| {
        if (request.first_index, request.end_index) == (held.0, held.0 + 1) {
            runs.iter_mut().flat_map(|run| &mut run.events).for_each(Bytes::clear);
        }
        whole(runs)
    }))
}

/// The honest hits, the one to be held back, and the log with its redaction.
async fn scene(crime: &mut Crime) -> anyhow::Result<(Vec<Hit>, Index, Seized)> {
    let honest = hits(crime, "honest.json", signed(&crime.honest)?).await??;
    let held = honest.get(honest.len() / 2).context("nobody broke the rule")?.index;
    let wanted = redaction(&crime.governance, held.0, held.0);
    let company = &mut crime.governance.company;
    let (mut redacted, event) = (crime.honest.clone(), company.event(Body::Redaction(wanted)));
    append(&mut redacted, company, vec![event])?;
    Ok((honest, held, redacted))
}

#[tokio::test]
async fn an_event_that_is_held_back_from_the_second_read_convicts() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let (honest, held, _) = scene(&mut crime).await?;
    let grown = gone_on(&mut crime, SECOND)?;
    let log = &crime.honest;
    for (name, served) in [
        ("same.json", holding_back(log, held, None)?),
        ("grown.json", holding_back(&grown, held, Some(log))?),
    ] {
        let told = hits(&crime, name, served).await?;
        let Err(SelectError::Caught(caught)) = told else {
            anyhow::bail!("{name}: {told:?}, the log has {}", honest.len());
        };
        ensure!(matches!(*caught, Caught::Withheld { index, .. } if index == held), "{caught}");
    }
    let same = hits(&crime, "twin.json", signed(&grown)?).await??;
    ensure!(same.len() > honest.len() && same.starts_with(&honest), "the honest twin");
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_erased_while_a_query_runs_convicts_nobody() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let (honest, held, redacted) = scene(&mut crime).await?;
    let index = Index(crime.size());
    for (name, first) in [("recorded.json", None), ("later.json", Some(&crime.honest))] {
        let told = hits(&crime, name, holding_back(&redacted, held, first)?).await??;
        let mut wanted = honest.clone();
        let erased = wanted.iter_mut().find(|hit| hit.index == held).context("no hit")?;
        erased.record.event = None;
        let legal_basis = "request of a data subject".to_owned();
        erased.erased_by = Some(ErasedBy { index, legal_basis });
        ensure!(told == wanted, "{name}: {told:?}");
    }
    Ok(())
}
