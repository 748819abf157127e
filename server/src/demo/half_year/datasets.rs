//! The data that the company keeps, where it lies, and the tools that reach it: what governance
//! registers.

use access_ledger_proto::{
    hash::sha256,
    wire::{self, Boundary, ControlChange, ControlKind, DataCategory, Sensitivity},
};
use bytes::Bytes;
use prost::Message as _;

use super::company::HOME;

/// Data of one kind in one place.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) datastore_type: &'static str,
    pub(super) name: &'static str,
    pub(super) region: &'static str,
    pub(super) jurisdiction: &'static str,
    pub(super) boundary: Boundary,
    pub(super) sensitivity: Sensitivity,
    pub(super) categories: &'static [DataCategory],
    pub(super) fields: &'static [&'static str],
    pub(super) record_bytes: u64,
    /// Records that the company holds when the half-year begins.
    pub(super) holding: u64,
    /// The day on which it has moved to the custodian; 0: it does not.
    pub(super) moved_on: u64,
}

impl Dataset {
    /// Where it lies on a day.
    pub(super) fn region(&self, day: u64) -> &'static str {
        if self.moved_on > 0 && day >= self.moved_on { CUSTODY } else { self.region }
    }

    pub(super) fn is_protected(&self) -> bool {
        self.boundary == Boundary::Protected
    }

    /// The data of an access or transfer, without counts.
    pub(super) fn data(&self, day: u64) -> wire::Data {
        wire::Data {
            datastore_type: self.datastore_type.to_owned(),
            dataset: self.name.to_owned(),
            region: self.region(day).to_owned(),
            subject_jurisdiction: self.jurisdiction.to_owned(),
            boundary: self.boundary.into(),
            sensitivity: self.sensitivity.into(),
            categories: self.categories.iter().map(|&category| category.into()).collect(),
            fields: self.fields.iter().map(|&field| field.to_owned()).collect(),
            ..wire::Data::default()
        }
    }
}

/// All of them.
pub(super) static DATASETS: [&Dataset; 10] = [
    &PROFILE,
    &DEVICES,
    &MESSAGES,
    &DRAFTS,
    &BACKUPS,
    &FEED_EVENTS,
    &PAYOUTS,
    &WATCH_TIME,
    &AD_METRICS,
    &PUBLIC_VIDEOS,
];

/// The custodian's own data centre.
pub(super) const CUSTODY: &str = "custodian-us";

/// The company's two data centres that hold backups.
pub(super) const VIRGINIA: &str = "us-east";
pub(super) const SINGAPORE: &str = "sg-1";

/// Name, country, operator, and whether protected data may be copied there.
const SITES: [(&str, &str, &str, bool); 7] = [
    (CUSTODY, HOME, "Contoso Trust", true),
    (VIRGINIA, HOME, "Northwind USDS", true),
    ("us-west", HOME, "Northwind USDS", true),
    ("us-central", HOME, "Northwind USDS", true),
    // Backups went there before; from the summer on they must not.
    (SINGAPORE, "SG", "Northwind Pte", false),
    ("export-bucket", HOME, "Northwind USDS", true),
    ("feature-store", HOME, "Northwind USDS", true),
];

/// The tools, and the versions of each that were vetted.
const TOOLS: [(&str, &[&str]); 8] = [
    ("support-console", &["4.12.0", "4.12.1"]),
    ("moderation-tool", &["2.31.4"]),
    ("trino-notebook", &["468.2", "470.0"]),
    ("oncall-shell", &["1.9.3"]),
    ("payments-desk", &["7.0.2"]),
    ("legal-portal", &["3.4"]),
    ("feed-pipeline", &["311", "312"]),
    ("retention-bot", &["58"]),
];

/// The owner of every tool.
pub(super) const TOOL_OWNER: &str = "Northwind Platform";

/// SHA-256 of a build.
pub(super) fn build_digest(tool: &str, version: &str) -> Bytes {
    let build = sha256(format!("{tool}@{version}").as_bytes());
    Bytes::copy_from_slice(build.as_bytes())
}

/// What governance registers on the first day.
pub(super) fn registrations() -> impl Iterator<Item = ControlChange> {
    let datasets = DATASETS.iter().map(|dataset| {
        let registered = wire::Dataset {
            boundary: dataset.boundary.into(),
            sensitivity: dataset.sensitivity.into(),
            categories: dataset.categories.iter().map(|&category| category.into()).collect(),
            subject_jurisdiction: dataset.jurisdiction.to_owned(),
            owner: "Northwind USDS".to_owned(),
        };
        change(ControlKind::Dataset, dataset.name, registered.encode_to_vec())
    });
    let sites = SITES.iter().map(|&(name, country, operator, in_custody)| {
        let (country, site_operator) = (country.to_owned(), operator.to_owned());
        let site = wire::Site { country, site_operator, in_custody };
        change(ControlKind::Site, name, site.encode_to_vec())
    });
    let tools = TOOLS.iter().map(|&(id, versions)| {
        let tool = wire::RegisteredTool {
            owner_entity: TOOL_OWNER.to_owned(),
            build_digests: versions.iter().map(|version| build_digest(id, version)).collect(),
            withdrawn: false,
        };
        change(ControlKind::Tool, id, tool.encode_to_vec())
    });
    datasets.chain(sites).chain(tools)
}

/// The first revision of a rule.
fn change(kind: ControlKind, target: &str, content: Vec<u8>) -> ControlChange {
    ControlChange {
        kind: kind.into(),
        target: target.to_owned(),
        content: content.into(),
        approvals: Vec::new(),
        revision: 1,
    }
}

pub(super) static PROFILE: Dataset = Dataset {
    datastore_type: "mysql",
    name: "accounts.profile",
    region: "us-east",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::Restricted,
    categories: &[DataCategory::Identifier, DataCategory::Contact],
    fields: &["email", "phone"],
    record_bytes: 900,
    holding: 148_000_000,
    moved_on: 92,
};

pub(super) static DEVICES: Dataset = Dataset {
    datastore_type: "mysql",
    name: "accounts.devices",
    region: "us-east",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::Confidential,
    categories: &[DataCategory::Device, DataCategory::IpAddress],
    fields: &["device_id", "last_ip"],
    record_bytes: 240,
    holding: 310_000_000,
    moved_on: 62,
};

pub(super) static MESSAGES: Dataset = Dataset {
    datastore_type: "object-store",
    name: "direct-messages",
    region: "us-west",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::SpecialCategory,
    categories: &[DataCategory::CommunicationContent],
    fields: &["body"],
    record_bytes: 1_400,
    holding: 2_900_000_000,
    moved_on: 123,
};

pub(super) static DRAFTS: Dataset = Dataset {
    datastore_type: "object-store",
    name: "video.drafts",
    region: "us-west",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::Restricted,
    categories: &[DataCategory::PrivateMedia, DataCategory::Minor],
    fields: &[],
    record_bytes: 4_200_000,
    holding: 410_000_000,
    moved_on: 153,
};

pub(super) static BACKUPS: Dataset = Dataset {
    datastore_type: "backup",
    name: "accounts.backup",
    region: "us-central",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::Restricted,
    categories: &[DataCategory::Identifier, DataCategory::Credential],
    fields: &[],
    record_bytes: 2_100,
    holding: 96_000_000,
    moved_on: 0,
};

pub(super) static FEED_EVENTS: Dataset = Dataset {
    datastore_type: "kafka",
    name: "feed.events",
    region: "us-east",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::Confidential,
    categories: &[DataCategory::Behavioural, DataCategory::Device],
    fields: &[],
    record_bytes: 310,
    holding: 88_000_000_000,
    moved_on: 0,
};

pub(super) static PAYOUTS: Dataset = Dataset {
    datastore_type: "mysql",
    name: "payments.payouts",
    region: "us-east",
    jurisdiction: "US",
    boundary: Boundary::Protected,
    sensitivity: Sensitivity::Restricted,
    categories: &[DataCategory::Financial, DataCategory::Identifier],
    fields: &["iban", "amount"],
    record_bytes: 420,
    holding: 6_400_000,
    moved_on: 31,
};

pub(super) static WATCH_TIME: Dataset = Dataset {
    datastore_type: "hive",
    name: "agg.watch_time_daily",
    region: "us-east",
    jurisdiction: "US",
    boundary: Boundary::Aggregated,
    sensitivity: Sensitivity::Internal,
    categories: &[DataCategory::Behavioural],
    fields: &[],
    record_bytes: 64,
    holding: 52_000_000,
    moved_on: 0,
};

pub(super) static AD_METRICS: Dataset = Dataset {
    datastore_type: "hive",
    name: "ads.metrics_hourly",
    region: "sg-1",
    jurisdiction: "",
    boundary: Boundary::BusinessMetrics,
    sensitivity: Sensitivity::Internal,
    categories: &[],
    fields: &["spend", "clicks"],
    record_bytes: 96,
    holding: 7_800_000,
    moved_on: 0,
};

pub(super) static PUBLIC_VIDEOS: Dataset = Dataset {
    datastore_type: "object-store",
    name: "video.public",
    region: "us-west",
    jurisdiction: "US",
    boundary: Boundary::Public,
    sensitivity: Sensitivity::Public,
    categories: &[DataCategory::PublicContent],
    fields: &[],
    record_bytes: 5_300_000,
    holding: 1_100_000_000,
    moved_on: 0,
};
