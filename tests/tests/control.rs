//! Rules change by two parties together, in order, and by sound content; what would have no effect
//! is refused, and nothing of it is recorded.

use access_ledger_proto::{
    policy::Policy,
    wire::{self, ControlKind, SourceRole, event::Body},
};
use access_ledger_server::{error::LedgerError, folder::Genesis, ledger::Ledger};
use access_ledger_tests::{
    model::Audit,
    node::{Clients, Node, Setup},
    parties::Governance,
    source::{Refused, Source},
};
use prost::Message as _;
use tonic::Code;

async fn change(
    clients: &Clients,
    sealer: &mut Source,
    change: wire::ControlChange,
) -> anyhow::Result<Result<(), Refused>> {
    let event = sealer.event(Body::ControlChange(change));
    let sealed = sealer.seal_at(sealer.next_seq, vec![event])?;
    match clients.append(&sealed).await {
        Ok(answer) => {
            sealed.place(&answer)?;
            sealer.next_seq += 1;
            Ok(Ok(()))
        }
        Err(status) => Ok(Err(Refused::of(&status))),
    }
}

fn site() -> Vec<u8> {
    wire::Site { country: "IE".to_owned(), in_custody: true, ..Default::default() }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_one_party_changes_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let before = clients.size(&node.vkey).await?;
    let mut alone = governance.change(ControlKind::Site, "dublin", 1, site());
    alone.approvals.clear();
    let refused = change(&clients, &mut governance.company, alone).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    // A signature for another content is none.
    let mut other = governance.change(ControlKind::Site, "dublin", 1, site());
    other.content = wire::Site::default().encode_to_vec().into();
    let refused = change(&clients, &mut governance.company, other).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    // Nor is it for a service to change rules, whoever signed.
    let mut service = clients.enrolled("service", 3, &node.vkey).await?;
    let both = governance.change(ControlKind::Site, "dublin", 1, site());
    let refused = change(&clients, &mut service, both.clone()).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ROLE_MISSING"));
    assert_eq!(clients.size(&node.vkey).await?, before + 1);

    change(&clients, &mut governance.company, both).await?.unwrap();
    Audit::new(&node.vkey).pull(&clients).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_rule_does_not_come_back_with_old_signatures() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let first = governance.change(ControlKind::Site, "dublin", 1, site());
    let second =
        governance.change(ControlKind::Site, "dublin", 2, wire::Site::default().encode_to_vec());
    let clients = node.clients();
    let refused = change(&clients, &mut governance.company, second.clone()).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::FailedPrecondition, "CONTROL_REVISION"));
    assert_eq!(refused.metadata["expected_revision"], "1");
    change(&clients, &mut governance.company, first.clone()).await?.unwrap();
    change(&clients, &mut governance.company, second).await?.unwrap();
    for _ in 0..2 {
        let refused =
            change(&node.clients(), &mut governance.company, first.clone()).await?.unwrap_err();
        assert_eq!(refused.kind(), (Code::FailedPrecondition, "CONTROL_REVISION"));
        assert_eq!(refused.metadata["expected_revision"], "3");
        node.stop().await?;
        node = Node::start(folder.path()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_none_is_refused_with_its_place() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let broken = "permit (principal, action, resource);\nforbid (principal, action, ;\n";
    let broken = governance.change(ControlKind::Policy, "", 2, broken);
    let refused = change(&clients, &mut governance.company, broken).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::InvalidArgument, "CONTROL_INVALID"));
    assert_eq!(refused.field.as_deref(), Some("batch.events[0].control_change.content"));
    assert_eq!(refused.metadata["line"], "2");
    assert!(refused.metadata["column"].parse::<u32>()? > 20, "{refused:?}");
    let garbage = governance.change(ControlKind::Dataset, "users", 1, &b"\xff\xff"[..]);
    let refused = change(&clients, &mut governance.company, garbage).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::InvalidArgument, "CONTROL_INVALID"));
    let unsupported = governance.change(ControlKind::Retention, "users", 1, &b""[..]);
    let refused = change(&clients, &mut governance.company, unsupported).await?.unwrap_err();
    assert_eq!(refused.kind(), (Code::InvalidArgument, "CONTROL_INVALID"));

    let sound = governance.change(ControlKind::Policy, "", 2, Policy::DEFAULT);
    change(&clients, &mut governance.company, sound).await?.unwrap();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approver_takes_both_parties() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut governance = Governance::of(folder.path(), &node.vkey)?;
    let approver = Source::new("security/ann", 1, &node.vkey)?;
    let event = governance.company.status(approver.registration(&[SourceRole::Approve]));
    let alone = governance.company.seal_at(1, vec![event])?;
    let refused = clients.refused(alone.batch).await?;
    assert_eq!(refused.kind(), (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"));
    governance.register_approver(&clients, &approver).await
}

#[test]
fn a_ledger_with_a_single_governance_party_is_not_made() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path());
    let key = access_ledger_proto::note::Signer::new(
        "company",
        access_ledger_proto::note::KeyType::Ed25519,
        [1; 32],
    )?;
    let governance = vec![key.verifier().clone()];
    let genesis = Genesis { governance, ..Genesis::new("ledger.example/one") };
    let made = Ledger::init(&setup.options, &setup.disk, &setup.clock, &genesis);
    assert!(matches!(made, Err(LedgerError::GovernanceAlone { .. })), "{made:?}");
    Ok(())
}
