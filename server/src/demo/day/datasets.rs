//! The data that the company keeps.

use access_ledger_proto::wire::{Boundary, DataCategory, Sensitivity};

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
};
