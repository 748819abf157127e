//! What the custodian finds about approvals and rules, in its own copy, is what an auditor computes
//! from the log, and raises no alarm: the log is in order, and tells on people.

use std::sync::Arc;

use access_ledger_client::{audit::audit_observed, fold::FindingsList, pull::Puller};
use access_ledger_proto::{
    quorum::Quorum,
    wire::{FindingRecord, ListFindingsRequest},
};
use access_ledger_tests::{
    adversary::{Act, Says, approval},
    custodian::{Keeper, until},
    hostile::Server,
    operator::Crime,
};
use anyhow::ensure;

/// All findings that a server tells of, in pages of two.
async fn told(puller: &Puller, size: u64) -> anyhow::Result<Vec<FindingRecord>> {
    until(async || {
        let mut request = ListFindingsRequest { page_size: 2, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let page = puller.findings(request.clone()).await?;
            if page.indexed_size < size {
                return Ok(None);
            }
            found.extend(page.findings);
            if page.next_page_token.is_empty() {
                return Ok(Some(found));
            }
            request.page_token = page.next_page_token;
        }
    })
    .await
}

/// All findings as an auditor computes them from what is served.
async fn computed(
    crime: &Crime,
    puller: &Puller,
    view: &str,
) -> anyhow::Result<Vec<FindingRecord>> {
    let (mut view, progress) = (crime.fresh(view)?, Arc::new(|_, _| ()));
    let list = FindingsList::default();
    let (_, list) = audit_observed(puller, &mut view, Quorum::default(), progress, list).await?;
    Ok(list.conclude()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_custodians_findings_are_those_of_the_log_and_no_alarms() -> anyhow::Result<()> {
    let acts: [Act; 4] = [
        approval::approve_without_the_role,
        approval::approve_ones_own_request,
        approval::change_the_policy_with_one_signature,
        approval::change_the_policy_with_a_forged_signature,
    ];
    for act in acts {
        let mut crime = Crime::scene().await?;
        let attack = act(&mut crime)?;
        let Says::Finding(rule, index) = attack.first else { anyhow::bail!("{:?}", attack.first) };
        let server = Server::start(attack.served.clone()).await?;
        let folder = tempfile::tempdir()?;
        let keeper = Keeper::start(folder.path(), &crime.vkey, server.address).await?;
        let size = computed_size(&server, &crime).await?;
        keeper.cosigns(size).await?;
        let own = told(&keeper.puller()?, size).await?;
        let by_ledger = computed(&crime, &server.puller()?, "ledger.json").await?;
        let by_custodian = computed(&crime, &keeper.puller()?, "custodian.json").await?;
        ensure!(own == by_ledger && by_ledger == by_custodian, "{own:?}, wanted {by_ledger:?}");
        ensure!(own.iter().any(|found| found.rule == rule && found.index == index), "{own:?}");
        ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
        keeper.stop().await?;
    }
    Ok(())
}

/// The size that a server's checkpoint covers.
async fn computed_size(server: &Server, crime: &Crime) -> anyhow::Result<u64> {
    let mut view = crime.fresh("size.json")?;
    Ok(server.audit(&mut view).await?.checkpoint.size().0)
}
