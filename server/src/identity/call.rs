//! Which role each call needs: every gRPC method and every HTTP path that is served.
//!
//! The README of this crate shows the same table; `tests/tests/roles.rs` holds both against the
//! descriptors of the services, with every role and with none.

use std::fmt;

use serde::Deserialize;

use super::limits::Holds;

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Append the batches of sources.
    Record,
    /// Ask for verdicts on intended accesses.
    Authorize,
    /// Read and query everything.
    Audit,
    /// Follow the log and exchange cosignatures: custodians at a ledger, ledgers at a custodian.
    Custody,
    /// See how the server does.
    Operate,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Record, Self::Authorize, Self::Audit, Self::Custody, Self::Operate];

    /// The word for it in files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Authorize => "authorize",
            Self::Audit => "audit",
            Self::Custody => "custody",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Anybody, known or not.
    Open,
    /// A principal with one of these roles.
    AnyOf(&'static [Role]),
}

impl Permission {
    /// The roles that suffice, as a person reads them.
    #[must_use]
    pub fn roles(self) -> String {
        match self {
            Self::Open => "none".to_owned(),
            Self::AnyOf(roles) => {
                roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ")
            }
        }
    }
}

use Role::{Audit, Authorize, Custody, Operate, Record};

/// Whoever records proves what it recorded, and reads the genesis to know the ledger's own source.
const PROVE: Permission = Permission::AnyOf(&[Audit, Custody, Record, Authorize]);

const READ: Permission = Permission::AnyOf(&[Audit, Custody]);

const KNOWN: Permission = Permission::AnyOf(&Role::ALL);

/// Every gRPC method by its path.
pub const CALLS: &[(&str, Permission)] = &[
    ("/access_ledger.v1.RecorderService/Append", Permission::AnyOf(&[Record])),
    ("/access_ledger.v1.RecorderService/AppendStream", Permission::AnyOf(&[Record])),
    ("/access_ledger.v1.RecorderService/Authorize", Permission::AnyOf(&[Authorize])),
    ("/access_ledger.v1.RecorderService/Enroll", Permission::AnyOf(&[Record, Authorize])),
    ("/access_ledger.v1.RecorderService/GetSourceState", Permission::AnyOf(&[Record, Authorize])),
    ("/access_ledger.v1.AuditService/GetCheckpoint", PROVE),
    ("/access_ledger.v1.AuditService/GetInclusionProof", PROVE),
    ("/access_ledger.v1.AuditService/GetConsistencyProof", PROVE),
    ("/access_ledger.v1.AuditService/GetReceipt", PROVE),
    ("/access_ledger.v1.AuditService/ReadEntries", PROVE),
    ("/access_ledger.v1.AuditService/Watch", READ),
    ("/access_ledger.v1.AuditService/GetSource", READ),
    ("/access_ledger.v1.AuditService/ListSources", READ),
    ("/access_ledger.v1.AuditService/Query", Permission::AnyOf(&[Audit])),
    ("/access_ledger.v1.AuditService/ListFindings", Permission::AnyOf(&[Audit])),
    ("/access_ledger.v1.AuditService/GetReport", Permission::AnyOf(&[Audit])),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", KNOWN),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", KNOWN),
    ("/grpc.health.v1.Health/Check", Permission::Open),
    // It lasts as long as the caller likes, so it is not for everybody.
    ("/grpc.health.v1.Health/Watch", KNOWN),
];

/// Methods whose answers are long, or go on for long.
const BULKY: [&str; 8] = [
    "/access_ledger.v1.AuditService/ReadEntries",
    "/access_ledger.v1.AuditService/Watch",
    "/access_ledger.v1.AuditService/ListSources",
    "/access_ledger.v1.AuditService/Query",
    "/access_ledger.v1.AuditService/ListFindings",
    "/access_ledger.v1.AuditService/GetReport",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What the server may hold of a call until the caller takes it.
pub(super) fn holds(path: &str) -> Holds {
    if BULKY.contains(&path) || path.contains("/tile/") {
        Holds::Answer
    } else if path == "/access_ledger.v1.RecorderService/AppendStream" {
        Holds::Receipts
    } else {
        Holds::Little
    }
}

/// Who may make a gRPC call; `None` for one that is not served.
pub(super) fn of_method(path: &str) -> Option<Permission> {
    CALLS.iter().find(|(known, _)| *known == path).map(|&(_, permission)| permission)
}

/// Who may ask for a page; `None` for one that is not served.
pub(super) fn of_page(method: &str, path: &str) -> Option<Permission> {
    // A browser asks what it may ask, without credentials; the answer tells nothing else.
    if method == "OPTIONS" {
        return Some(Permission::Open);
    }
    // Whoever restarts or balances servers knows no secret of theirs.
    if path == "/healthz" || path == "/readyz" {
        return Some(Permission::Open);
    }
    if path == "/add-checkpoint" {
        return Some(Permission::AnyOf(&[Custody]));
    }
    if path == "/metrics" {
        return Some(Permission::AnyOf(&[Operate]));
    }
    let log = path.strip_prefix('/')?;
    // Of another log than the ledger's own: below the digest of its name.
    let log = match log.split_once('/') {
        Some((origin, rest)) if is_origin(origin) => rest,
        _ => log,
    };
    (log == "checkpoint" || log.starts_with("tile/")).then_some(READ)
}

fn is_origin(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use access_ledger_proto::wire;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_every_service_has_a_permission_and_no_other_has() {
        let sets = [
            wire::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut served = BTreeSet::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        let (package, service) = (file.package(), service.name());
                        served.insert(format!("/{package}.{service}/{}", method.name()));
                    }
                }
            }
        }
        let named: BTreeSet<_> = CALLS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(named, served);
        assert_eq!(named.len(), CALLS.len(), "a method stands there twice");
    }

    #[test]
    fn calls_that_hold_much_are_calls() {
        assert!(BULKY.iter().all(|path| of_method(path).is_some()));
        let receipts = CALLS.iter().filter(|(path, _)| holds(path) == Holds::Receipts);
        assert_eq!(receipts.count(), 1);
        assert_eq!(holds("/tile/entries/000"), Holds::Answer);
        assert_eq!(holds("/checkpoint"), Holds::Little);
    }

    #[test]
    fn every_page_has_a_permission_and_what_is_none_has_not() {
        let hex = "0f".repeat(32);
        for (path, wanted) in [
            ("/checkpoint", Some(READ)),
            ("/tile/0/000", Some(READ)),
            ("/tile/entries/x001/000.p/7", Some(READ)),
            (&format!("/{hex}/checkpoint"), Some(READ)),
            (&format!("/{hex}/tile/0/000"), Some(READ)),
            ("/add-checkpoint", Some(Permission::AnyOf(&[Custody]))),
            ("/metrics", Some(Permission::AnyOf(&[Operate]))),
            ("/healthz", Some(Permission::Open)),
            ("/readyz", Some(Permission::Open)),
            ("/", None),
            ("/metrics/", None),
            ("/tile", None),
            ("//checkpoint", None),
            ("/0f/checkpoint", None),
            (&format!("/{}/checkpoint", hex.to_uppercase()), None),
            (&format!("/{hex}/add-checkpoint"), None),
            ("/access_ledger.v1.AuditService/Query", None),
        ] {
            assert_eq!(of_page("GET", path), wanted, "{path}");
        }
        assert_eq!(of_page("OPTIONS", "/checkpoint"), Some(Permission::Open));
    }
}
