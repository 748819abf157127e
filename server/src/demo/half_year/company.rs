//! The company: its offices, the desks that people sit at, and how accesses end there.
//!
//! Tables only. Weights are relative to the other rows of the same table.

use access_ledger_proto::wire::{Action, LocationEvidence, Outcome, PrincipalKind, Purpose};

use super::datasets::{
    AD_METRICS, BACKUPS, DEVICES, DRAFTS, Dataset, FEED_EVENTS, MESSAGES, PAYOUTS, PROFILE,
    PUBLIC_VIDEOS, WATCH_TIME,
};

/// A place of work, and the employer there.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) country: &'static str,
    pub(super) entity: &'static str,
    pub(super) entity_country: &'static str,
    /// East of Greenwich: 0 to 23.
    pub(super) utc_offset_hours: u64,
    pub(super) hours: &'static Hours,
    pub(super) closed_at_weekends: bool,
    /// Share of the company's accesses that the office makes when it is fully awake.
    pub(super) weight: u64,
    /// How many people sit at which desk.
    pub(super) desks: &'static [(u32, &'static Desk)],
}

/// How busy an office is in each hour of its local day.
pub(super) type Hours = [u64; 24];

/// A kind of work: who does it with what on which data, and why.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) role: &'static str,
    pub(super) kind: PrincipalKind,
    pub(super) privileged: bool,
    /// Whether an AI assistant does some of the work.
    pub(super) assisted: bool,
    /// The source that records this desk's accesses.
    pub(super) source: &'static str,
    pub(super) tool: ToolLine,
    /// What the desk's cases are called: `CASE-48213`.
    pub(super) case_prefix: &'static str,
    pub(super) data: &'static [(u32, &'static Dataset)],
    pub(super) actions: &'static [(u32, Action)],
    pub(super) reasons: &'static [(u32, Reason)],
}

/// A tool, and the versions of it that are in use.
#[derive(Debug)]
pub(super) struct ToolLine {
    pub(super) id: &'static str,
    pub(super) versions: &'static [(u32, &'static str)],
    pub(super) gateway: &'static str,
}

/// A purpose, and what people write who have it.
#[derive(Debug)]
pub(super) struct Reason {
    pub(super) purpose: Purpose,
    pub(super) justifications: &'static [&'static str],
}

/// Where the protected users live, and where their data may be reached without more ado.
pub(super) const HOME: &str = "US";

/// The sources that record the half-year, in the order of their names, but for those who approve.
pub const SOURCES: [&str; 9] = [
    ACCESS_PORTAL,
    "data-platform/trino",
    "gateway/us-1",
    LEGAL_DESK,
    "moderation-tool",
    "oncall-shell",
    "payments",
    STORAGE_FLEET,
    "support-console",
];

/// Where people ask for access.
pub(super) const ACCESS_PORTAL: &str = "access-portal";

/// Where requests of authorities are answered.
pub(super) const LEGAL_DESK: &str = "legal-desk";

/// What knows where data lies.
pub(super) const STORAGE_FLEET: &str = "storage-fleet";

/// Those of the home security team who approve: their sources, and the persons whose keys these
/// are.
pub const APPROVERS: [(&str, &str); 3] =
    [(LEAD, "p-sec-lead"), (DEPUTY, "p-sec-deputy"), (NIGHT, "p-sec-night")];

pub(super) const LEAD: &str = "security/lead";
pub(super) const DEPUTY: &str = "security/deputy";

/// Approves whatever comes at night, within minutes.
pub(super) const NIGHT: &str = "security/night";

/// The company at home, which the security team works for too.
pub(super) const HOME_ENTITY: &str = "Northwind USDS";

/// The assistant that does some of the support desk's work.
pub(super) const ASSISTANT: &str = "agent-support-assistant";

pub(super) const OFFICES: &[Office] = &[
    Office {
        country: HOME,
        entity: "Northwind USDS",
        entity_country: "US",
        utc_offset_hours: 16,
        hours: &WORKING_DAY,
        closed_at_weekends: true,
        weight: 40,
        desks: &[(10, &SUPPORT), (6, &MODERATION), (6, &ANALYTICS), (4, &ONCALL), (4, &PAYMENTS)],
    },
    Office {
        country: "IE",
        entity: "Northwind Ireland",
        entity_country: "IE",
        utc_offset_hours: 0,
        hours: &WORKING_DAY,
        closed_at_weekends: true,
        weight: 12,
        desks: &[(4, &MODERATION), (3, &SUPPORT), (1, &PAYMENTS)],
    },
    Office {
        country: "GB",
        entity: "Northwind UK",
        entity_country: "GB",
        utc_offset_hours: 0,
        hours: &WORKING_DAY,
        closed_at_weekends: true,
        weight: 8,
        desks: &[(3, &ANALYTICS), (2, &ONCALL), (1, &PAYMENTS)],
    },
    Office {
        country: "SG",
        entity: "Northwind Pte",
        entity_country: "SG",
        utc_offset_hours: 8,
        hours: &WORKING_DAY,
        closed_at_weekends: true,
        weight: 14,
        desks: &[(3, &ANALYTICS), (3, &ONCALL), (4, &SUPPORT), (2, &PAYMENTS)],
    },
    Office {
        country: "CN",
        entity: "Northwind Beijing",
        entity_country: "CN",
        utc_offset_hours: 8,
        hours: &WORKING_DAY,
        closed_at_weekends: true,
        weight: 12,
        desks: &[(6, &ANALYTICS), (4, &ONCALL)],
    },
    // A vendor that employs moderators for several companies.
    Office {
        country: "PH",
        entity: "Fabrikam Services",
        entity_country: "US",
        utc_offset_hours: 8,
        hours: &AROUND_THE_CLOCK,
        closed_at_weekends: false,
        weight: 10,
        desks: &[(6, &MODERATION), (2, &SUPPORT)],
    },
    // What runs by itself in the home region.
    Office {
        country: HOME,
        entity: "Northwind USDS",
        entity_country: "US",
        utc_offset_hours: 16,
        hours: &AROUND_THE_CLOCK,
        closed_at_weekends: false,
        weight: 25,
        desks: &[(5, &PIPELINE), (1, &RETENTION_BOT)],
    },
];

const WORKING_DAY: Hours = [
    2, 1, 1, 1, 1, 2, 5, 20, 60, 100, 100, 90, 60, 90, 100, 100, 90, 60, 25, 12, 8, 6, 4, 3, //
];

const AROUND_THE_CLOCK: Hours = [
    40, 40, 40, 40, 40, 40, 45, 50, 55, 60, 60, 60, 60, 60, 60, 60, 60, 55, 50, 45, 45, 40, 40,
    40, //
];

static SUPPORT: Desk = Desk {
    role: "support-agent",
    kind: PrincipalKind::Human,
    privileged: false,
    assisted: true,
    source: "support-console",
    tool: ToolLine {
        id: "support-console",
        versions: &[(8, "4.12.0"), (2, "4.12.1")],
        gateway: "access-proxy",
    },
    case_prefix: "CASE",
    data: &[(6, &PROFILE), (3, &DEVICES), (2, &MESSAGES), (2, &PUBLIC_VIDEOS)],
    actions: &[(80, Action::Read), (12, Action::List), (7, Action::Update), (1, Action::Delete)],
    reasons: &[
        (
            8,
            Reason {
                purpose: Purpose::CustomerSupport,
                justifications: &[
                    "User cannot log in after changing the phone",
                    "User reports that the account was taken over",
                    "Appeal against a locked account",
                    "User asks why a video is not shown",
                ],
            },
        ),
        (
            1,
            Reason {
                purpose: Purpose::SubjectRequest,
                justifications: &["User asked for a copy of the data", "User asked for erasure"],
            },
        ),
    ],
};

static MODERATION: Desk = Desk {
    role: "moderator",
    kind: PrincipalKind::Human,
    privileged: false,
    assisted: false,
    source: "moderation-tool",
    tool: ToolLine { id: "moderation-tool", versions: &[(1, "2.31.4")], gateway: "access-proxy" },
    case_prefix: "REPORT",
    data: &[(7, &PUBLIC_VIDEOS), (2, &DRAFTS), (1, &MESSAGES), (1, &PROFILE)],
    actions: &[(85, Action::Read), (10, Action::Update), (4, Action::List), (1, Action::Delete)],
    reasons: &[
        (
            9,
            Reason {
                purpose: Purpose::ContentModeration,
                justifications: &[
                    "Reported for harassment",
                    "Reported as dangerous act",
                    "Second review of a removed video",
                    "Queue: possible minor",
                ],
            },
        ),
        (
            1,
            Reason {
                purpose: Purpose::FraudAbuse,
                justifications: &["Spam wave, same caption", "Account sells followers"],
            },
        ),
    ],
};

static ANALYTICS: Desk = Desk {
    role: "data-analyst",
    kind: PrincipalKind::Human,
    privileged: false,
    assisted: false,
    source: "data-platform/trino",
    tool: ToolLine {
        id: "trino-notebook",
        versions: &[(5, "468.2"), (1, "470.0")],
        gateway: "query-gateway",
    },
    case_prefix: "TASK",
    data: &[(4, &AD_METRICS), (3, &WATCH_TIME), (3, &FEED_EVENTS), (1, &PROFILE)],
    actions: &[(94, Action::Query), (4, Action::List), (1, Action::Download), (1, Action::Export)],
    reasons: &[
        (
            5,
            Reason {
                purpose: Purpose::Analytics,
                justifications: &[
                    "Weekly retention by cohort",
                    "Why watch time fell in the south",
                    "Check of the experiment's guard metrics",
                ],
            },
        ),
        (
            2,
            Reason {
                purpose: Purpose::Monetisation,
                justifications: &["Advertiser disputes the invoice", "Fill rate by ad format"],
            },
        ),
        (
            1,
            Reason {
                purpose: Purpose::ModelTraining,
                justifications: &["Sample for the ranking model"],
            },
        ),
    ],
};

static ONCALL: Desk = Desk {
    role: "sre",
    kind: PrincipalKind::Human,
    privileged: true,
    assisted: false,
    source: "oncall-shell",
    tool: ToolLine { id: "oncall-shell", versions: &[(1, "1.9.3")], gateway: "bastion-us-1" },
    case_prefix: "INC",
    data: &[(4, &DEVICES), (3, &PROFILE), (2, &FEED_EVENTS), (2, &BACKUPS), (2, &WATCH_TIME)],
    actions: &[
        (60, Action::Read),
        (25, Action::Query),
        (8, Action::List),
        (2, Action::Decrypt),
        (2, Action::SchemaChange),
        (1, Action::RestoreBackup),
    ],
    reasons: &[
        (
            5,
            Reason {
                purpose: Purpose::ProductionAlert,
                justifications: &[
                    "Replica lag above 30 s on shard 12",
                    "Login errors after the deploy",
                    "Consumer stuck on one partition",
                ],
            },
        ),
        (
            4,
            Reason {
                purpose: Purpose::Maintenance,
                justifications: &["Check of last night's backup", "Index rebuild on shard 7"],
            },
        ),
    ],
};

static PAYMENTS: Desk = Desk {
    role: "payments-analyst",
    kind: PrincipalKind::Human,
    privileged: false,
    assisted: false,
    source: "payments",
    tool: ToolLine { id: "payments-desk", versions: &[(1, "7.0.2")], gateway: "access-proxy" },
    case_prefix: "PAY",
    data: &[(5, &PAYOUTS), (2, &PROFILE), (2, &AD_METRICS)],
    actions: &[(80, Action::Read), (12, Action::List), (8, Action::Update)],
    reasons: &[
        (
            5,
            Reason {
                purpose: Purpose::FraudAbuse,
                justifications: &["Chargebacks from one card range", "Payout to a new account"],
            },
        ),
        (
            3,
            Reason {
                purpose: Purpose::Monetisation,
                justifications: &["Creator asks for a missing payout", "Refund of a gift"],
            },
        ),
    ],
};

static PIPELINE: Desk = Desk {
    role: "pipeline",
    kind: PrincipalKind::Service,
    privileged: false,
    assisted: false,
    source: "gateway/us-1",
    tool: ToolLine { id: "feed-pipeline", versions: &[(3, "311"), (1, "312")], gateway: "us-1" },
    case_prefix: "RUN",
    data: &[(4, &FEED_EVENTS), (3, &WATCH_TIME), (2, &PUBLIC_VIDEOS), (1, &DEVICES)],
    actions: &[(90, Action::Read), (8, Action::Create), (2, Action::Copy)],
    reasons: &[(
        1,
        Reason {
            purpose: Purpose::SystemOperation,
            justifications: &["Scheduled run of the feed pipeline"],
        },
    )],
};

static RETENTION_BOT: Desk = Desk {
    role: "retention",
    kind: PrincipalKind::Bot,
    privileged: true,
    assisted: false,
    source: "gateway/us-1",
    tool: ToolLine { id: "retention-bot", versions: &[(1, "58")], gateway: "us-1" },
    case_prefix: "RUN",
    data: &[(2, &BACKUPS), (2, &DRAFTS), (1, &DEVICES)],
    actions: &[(3, Action::List), (1, Action::Delete)],
    reasons: &[(
        1,
        Reason {
            purpose: Purpose::ComplianceReview,
            justifications: &["Older than the retention period"],
        },
    )],
};

/// What the outcome of an access rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Protected data without a grant that covers the access.
    Forbidden,
    /// Protected data with one.
    Granted,
    /// Data that is not protected.
    Open,
}

impl Reach {
    /// How such accesses end.
    pub(super) const fn outcomes(self) -> &'static [(u32, Outcome)] {
        match self {
            // The tools hold most people back, not all.
            Self::Forbidden => {
                &[(960, Outcome::Denied), (30, Outcome::AllowedUnapproved), (10, Outcome::Error)]
            }
            Self::Granted => &[
                (970, Outcome::Allowed),
                (10, Outcome::Denied),
                (10, Outcome::Partial),
                (10, Outcome::Error),
            ],
            Self::Open => &[
                (960, Outcome::Allowed),
                (5, Outcome::Denied),
                (10, Outcome::Error),
                (25, Outcome::ObservedOnly),
            ],
        }
    }
}

pub(super) const DENY_REASONS: &[&str] =
    &["no grant names this person", "grant does not cover this dataset", "grant has expired"];

/// Where people are who are not at their office, and how one knows.
pub(super) const ELSEWHERE: &[(&str, LocationEvidence)] = &[
    ("JP", LocationEvidence::Geoip),
    ("DE", LocationEvidence::Gateway),
    ("AE", LocationEvidence::Geoip),
    ("ZZ", LocationEvidence::SelfDeclared),
];

/// How one knows where people are who are at their office.
pub(super) const AT_THE_OFFICE: &[(u32, LocationEvidence)] = &[
    (16, LocationEvidence::DeviceAttested),
    (3, LocationEvidence::Gateway),
    (2, LocationEvidence::Idp),
];
