//! Approvals and rules by the command line, as the people of a company type it: what takes effect,
//! what is refused, and what is recorded in vain and found.

use std::{fs, io::Write as _};

use access_ledger_proto::{
    policy::Policy,
    wire::{self, GrantState, Verdict},
};
use access_ledger_tests::desk::Desk;
use anyhow::Context as _;

const REQUEST: &str = "request --key portal.key --ledger VKEY --by p-eng-7 --entity Northwind_Pte \
     --office-country SG --dataset accounts.profile --dataset video.* --action read --action query \
     --country SG --justification Replica_lag_on_shard_12_since_the_deploy --duration 8h \
     --purpose production-alert";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_lives_from_request_to_revocation_by_the_command_line() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.register("portal", "portal.key").await?;
    desk.register_approver("security/ann", "ann.key", "p-sec-1").await?.says(&["is registered"]);

    let id = desk.run(REQUEST).await?.says(&["req-"]).out.trim().to_owned();
    let asked = desk.facts().await?.requests().get(&id).context("no request")?.into_owned();
    assert_eq!((asked.actor.as_str(), asked.requested_nanos), ("p-eng-7", 8 * 3_600_000_000_000));
    // Whoever asks without `--actor` asks for themselves.
    let scope = asked.scope.unwrap_or_default();
    assert_eq!(
        (scope.actors, scope.datasets.len(), scope.actions.len()),
        (vec!["p-eng-7".to_owned()], 2, 2)
    );

    // What waits is for approvers to see.
    desk.run("grants --ledger VKEY --format csv").await?.says(&["p-eng-7", &id]);
    let line = format!(
        "approve {id} --key ann.key --ledger VKEY --entity Northwind_USDS --max-uses 3 --max-records 900 \
         --dataset accounts.profile --reason On_call_this_week --party company --grant gr-1"
    );
    desk.run(&line).await?.says(&[&format!("approved {id} at index "), "grant gr-1"]);
    let facts = desk.facts().await?;
    let grant = facts.grants().get("gr-1").context("no grant")?.into_owned();
    assert_eq!(grant.approvers, ["security/ann"]);
    assert_eq!((grant.max_uses, grant.max_records), (3, 900));
    assert_eq!(grant.scope.unwrap_or_default().datasets, ["accounts.profile"]);
    assert_eq!(grant.not_after - grant.approved_at, 8 * 3_600_000_000_000);
    let decision = facts.requests().get(&id).context("no request")?.decisions[0].clone();
    assert_eq!(
        (decision.entity.as_str(), decision.principal.as_str()),
        ("Northwind USDS", "p-sec-1")
    );

    let ann = "--key ann.key --ledger VKEY";
    for (line, says, state) in [
        ("extend gr-1 --until 2999-01-01", "gr-1 is extended", GrantState::Extended),
        ("suspend gr-1 --reason Too_many_records", "gr-1 is suspended", GrantState::Suspended),
        ("resume gr-1", "gr-1 is active", GrantState::Active),
        ("revoke gr-1 --reason Left_the_team", "gr-1 is revoked", GrantState::Revoked),
        // Nothing brings a revoked grant back.
        ("resume gr-1", "gr-1 is active", GrantState::Revoked),
    ] {
        desk.run(&format!("{line} {ann}")).await?.says(&[says, "since index "]);
        let facts = desk.facts().await?;
        assert_eq!(facts.grants().get("gr-1").context("no grant")?.state(), state, "{line}");
    }
    desk.run("extend gr-1 --key ann.key --ledger VKEY").await?.complains("--until <TIME>");

    let other = desk.run(REQUEST).await?.says(&["req-"]).out.trim().to_owned();
    desk.run(&format!("deny {other} {ann} --need-info --reason Which_shard"))
        .await?
        .says(&["asked for more about req-"]);
    desk.run(&format!("deny {other} {ann} --reason Not_needed")).await?.says(&["denied req-"]);
    let facts = desk.facts().await?;
    let denied = facts.requests().get(&other).context("no request")?.into_owned();
    let verdicts: Vec<_> = denied.decisions.iter().map(wire::DecisionFacts::verdict).collect();
    assert_eq!(verdicts, [Verdict::NeedInfo, Verdict::Deny]);
    assert!(denied.grant_id.is_empty());
    desk.node.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approvals_that_do_not_count_are_recorded_and_found() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.register("portal", "portal.key").await?;
    // The same person as the one who asks.
    desk.register_approver("security/eng", "eng.key", "p-eng-7").await?.says(&["is registered"]);
    let id = desk.run(REQUEST).await?.says(&["req-"]).out.trim().to_owned();
    for key in ["eng.key", "portal.key"] {
        let line = format!("approve {id} --key {key} --ledger VKEY");
        desk.run(&line).await?.says(&["approved req-"]);
    }
    desk.run("approve req-nobody --key eng.key --ledger VKEY").await?.says(&["approved"]);
    let grant = desk.facts().await?.grants().get(&id).map(std::borrow::Cow::into_owned);
    assert!(grant.is_none_or(|grant| grant.approvers.is_empty()));
    desk.run("findings --ledger VKEY").await?.says(&[
        "SELF_APPROVED-",
        "APPROVER_NOT_AUTHORIZED-",
        "GRANT_UNKNOWN-",
    ]);
    desk.node.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_cannot_be_meant_are_not_recorded() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.register("portal", "portal.key").await?;
    for (from, to, complaint) in [
        ("--duration 8h", "--duration=-8h", "expected a duration like"),
        ("--duration 8h", "--duration soon", "expected a duration like 45m, 8h or 30d"),
        ("--action query", "--action peek", "expected one of read, query, list,"),
        ("--dataset accounts.profile --dataset video.*", "", "no --dataset"),
        (
            "--country SG",
            "--country Singapore",
            "access_request.scope.countries[0]: not an ISO 3166",
        ),
        ("--by p-eng-7", "", "--by <ID>"),
        ("portal.key", "nobody.key", "nobody.key: No such file"),
    ] {
        desk.run(&REQUEST.replacen(from, to, 1)).await?.complains(complaint);
    }
    let times = "--not-before 2026-02-01 --not-after 2026-01-01";
    let line = format!("approve req-1 --key portal.key --ledger VKEY {times}");
    desk.run(&line).await?.complains("grant would end at 2026-01-01T00:00:00Z, not later");
    // The genesis, and who was registered.
    assert_eq!(desk.node.clients().size(&desk.node.vkey).await?, 2);
    desk.node.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_changes_by_both_parties_only() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let stricter =
        "@id(\"NO_SHARING\")\nforbid (principal, action == Action::\"SHARE\", resource);\n";
    desk.write("strict.cedar", &format!("{}\n{stricter}", Policy::DEFAULT))?;
    desk.run("policy check strict.cedar").await?.says(&[
        "ok ",
        "NO_GRANT, NO_SHARING, ",
        "version   1-",
    ]);
    let shown = desk.run("policy show --ledger VKEY").await?.says(&["@id(\"NO_GRANT\")"]);
    assert!(shown.err.contains("version 1-"), "{shown:?}");
    // What is shown is the text and nothing else, to be edited and proposed.
    assert_eq!(shown.out.trim_end(), Policy::DEFAULT.trim_end());
    for empty in ["", stricter] {
        desk.write("empty.cedar", empty)?;
        let line = "policy check empty.cedar";
        desk.run(line).await?.complains("empty.cedar: no rule permits anything");
    }

    desk.run("policy propose strict.cedar --ledger VKEY --out change.toml").await?.says(&[
        "change     policy",
        "revision   2",
        "digest     ",
        "NO_SHARING",
    ]);
    // One party alone gets nowhere.
    desk.run("policy apply change.toml --key custodian.key --ledger VKEY")
        .await?
        .complains("PermissionDenied: signed by");
    desk.keygen("stranger", "stranger.key").await?;
    desk.run("policy sign change.toml --key stranger.key --ledger VKEY").await?.complains(
        "key stranger is no governance key of ledger.example/tests, which are company, custodian",
    );
    desk.run("policy sign change.toml --key company.key --ledger VKEY")
        .await?
        .says(&["change     policy", "signed     by company"]);
    desk.run("policy apply change.toml --key company.key --ledger VKEY")
        .await?
        .complains("signed by company, missing is one of custodian");
    desk.run("policy apply change.toml --key custodian.key --ledger VKEY")
        .await?
        .says(&["signed by  company", "in force   since index 1"]);
    let shown = desk.run("policy show --ledger VKEY").await?.says(&["@id(\"NO_SHARING\")"]);
    assert!(shown.err.contains("version 2-"), "{shown:?}");
    assert!(shown.err.contains("in force since index 1"), "{shown:?}");
    // Old signatures bring no rule back.
    desk.run("policy apply change.toml --key custodian.key --ledger VKEY")
        .await?
        .complains("revision");
    assert_eq!(desk.node.clients().size(&desk.node.vkey).await?, 2);
    desk.node.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_signed_cannot_be_edited() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.run("control site sg-1 --country SG --operator Northwind --ledger VKEY --out site.toml")
        .await?
        .says(&["change     site sg-1", "revision   1", "in_custody = false"]);
    desk.run("control sign site.toml --key company.key --ledger VKEY").await?.says(&["signed"]);
    let text = fs::read_to_string(desk.path("site.toml"))?;
    desk.write("edited.toml", &text.replace("in_custody = false", "in_custody = true"))?;
    desk.run("control apply edited.toml --key custodian.key --ledger VKEY")
        .await?
        .complains("PermissionDenied: signed by");
    desk.run("control apply site.toml --key custodian.key --ledger VKEY")
        .await?
        .says(&["in force"]);
    let facts = desk.facts().await?;
    let site = facts.catalogue().site("sg-1").context("no site")?;
    assert!(!site.in_custody && site.country == "SG");

    let build = "ab".repeat(32);
    let lines = [
        format!("control tool desk --owner Northwind --build {build}"),
        "control dataset users --boundary protected --sensitivity restricted --category contact \
         --jurisdiction US"
            .to_owned(),
    ];
    for (number, line) in lines.iter().enumerate() {
        desk.run(&format!("{line} --ledger VKEY --out {number}.toml"))
            .await?
            .says(&["revision   1"]);
        desk.run(&format!("control sign {number}.toml --key company.key --ledger VKEY"))
            .await?
            .says(&["signed"]);
        desk.run(&format!("control apply {number}.toml --key custodian.key --ledger VKEY"))
            .await?
            .says(&["in force"]);
    }
    let facts = desk.facts().await?;
    assert_eq!(facts.catalogue().tool("desk").context("no tool")?.build_digests[0][..], [0xab; 32]);
    let users = facts.catalogue().dataset("users").context("no dataset")?;
    assert_eq!(
        (users.boundary(), users.subject_jurisdiction.as_str()),
        (wire::Boundary::Protected, "US")
    );
    // A proposal is never overwritten: it may carry a signature.
    desk.run("control site sg-2 --ledger VKEY --out site.toml").await?.complains("File exists");
    desk.node.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approver_is_registered_by_both_parties() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let vkey = desk.keygen("security/ann", "ann.key").await?;
    let source = format!("--role approve --principal p-sec-1 --ledger VKEY {vkey}");
    desk.run(&format!("source register --key company.key {source}"))
        .await?
        .complains("the role approve takes both parties");
    let portal = desk.keygen("portal", "portal.key").await?;
    desk.run(&format!("source register --key company.key --sign-with portal.key {source}"))
        .await?
        .complains("key portal is no governance key");
    desk.run(&format!("source register --key company.key --sign-with company.key {source}"))
        .await?
        .complains("PermissionDenied");

    // On two machines: by a file.
    desk.run(&format!("source propose --out ann.toml {source}"))
        .await?
        .says(&["change     source security/ann", "principal = \"p-sec-1\""]);
    desk.run("control sign ann.toml --key custodian.key --ledger VKEY").await?.says(&["signed"]);
    desk.run("control apply ann.toml --key company.key --ledger VKEY").await?.says(&["in force"]);
    let facts = desk.facts().await?;
    let ann = facts.sources().iter().find(|source| source.name.as_str() == "security/ann");
    assert_eq!(ann.context("no ann")?.principal, "p-sec-1");
    // Other roles take one party.
    desk.run(&format!("source register --key company.key --ledger VKEY {portal}"))
        .await?
        .says(&["portal is registered"]);
    desk.node.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_named_with_line_and_column() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.run("policy default").await?.says(&["permit (principal, action, resource);"]);
    desk.run("policy schema").await?.says(&["entity Principal"]);
    for (text, complaint) in [
        ("permit (principal, action resource);", "bad.cedar:1:27: "),
        (
            "permit (principal, action, resource);\nforbid (principal, action, resource);",
            "bad.cedar:2:1: `forbid` without an `@id`",
        ),
        (
            "@id(\"X\")\nforbid (principal, action, resource)\nwhen { resource.boundry == 1 };",
            "bad.cedar:3:",
        ),
    ] {
        desk.write("bad.cedar", text)?;
        desk.run("policy check bad.cedar").await?.complains(complaint);
        desk.run("policy propose bad.cedar --ledger VKEY --out never.toml")
            .await?
            .complains(complaint);
    }
    assert!(!desk.path("never.toml").exists());
    desk.run("policy check nowhere.cedar").await?.complains("nowhere.cedar: No such file");

    for (text, complaint) in [
        ("", "bad.toml:1:1: missing field `ledger`"),
        (
            "ledger = \"l\"\nrevision = 1\n[change.site]\ncustody = true\n",
            "bad.toml:4:1: unknown field `custody`, expected",
        ),
        ("ledger = \"l\"\nrevision = one\n", "bad.toml:2:12: "),
        (
            "ledger = \"l\"\ntarget = \"s\"\n[change.site]\ncountry = \"usa\"\nin_custody = true\n",
            "bad.toml:4:1: country: not an ISO 3166-1",
        ),
    ] {
        desk.write("bad.toml", text)?;
        for command in ["control sign", "control apply", "policy sign", "policy apply"] {
            desk.run(&format!("{command} bad.toml --key company.key --ledger VKEY"))
                .await?
                .complains(complaint);
        }
    }
    desk.write(
        "other.toml",
        "ledger = \"other\"\ntarget = \"s\"\nrevision = 1\n[change.site]\nin_custody = true\n",
    )?;
    desk.run("control sign other.toml --key company.key --ledger VKEY")
        .await?
        .complains("proposal is for the ledger other, this is ledger.example/tests");
    fs::File::create(desk.path("long.toml"))?.write_all(&[b' '; 300_000])?;
    desk.run("control sign long.toml --key company.key --ledger VKEY")
        .await?
        .complains("more than");
    desk.node.stop().await
}
