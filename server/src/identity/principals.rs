//! The file of principals.
//!
//! ```toml
//! [[principal]]
//! name = "payments-gateway"
//! roles = ["record", "authorize"]             # record, authorize, audit, custody, operate
//! sources = ["payments", "payments/*"]        # default: any; `x/*` is all below x, but not x
//! uris = ["spiffe://corp.example/payments"]   # names of client certificates
//! dns = ["payments.corp.example"]
//! tokens = ["sha256:<64 hex digits>"]         # what `access-ledger pki token` prints
//! # each default: none
//! limits = { requests_per_second = 100, bytes_per_second = 10_000_000, calls = 16 }
//! ```
//!
//! A credential belongs to one principal. Tokens stand there as digests only: 256 random bits
//! cannot be guessed from one, so nothing slower is needed.

use std::{collections::HashMap, sync::Arc};

use access_ledger_proto::{
    hash::Digest,
    source::{Name, SourceName},
};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use toml::Spanned;

use super::{
    call::Role,
    limits::{Limits, LimitsTable},
};

/// Who may call.
#[derive(Debug, Default)]
pub(super) struct Principals {
    all: Vec<Arc<Principal>>,
    by_name: HashMap<CertificateName, Arc<Principal>>,
    by_token: Vec<([u8; 32], Arc<Principal>)>,
}

/// Somebody who may call.
#[derive(Debug)]
pub(super) struct Principal {
    pub(super) name: String,
    roles: Vec<Role>,
    pub(super) sources: Sources,
    /// With what is used up of them; the next file's principal of this name goes on with it.
    pub(super) limits: Arc<Limits>,
}

/// A name in a client certificate, in the form in which names are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CertificateName {
    Uri(String),
    Dns(String),
}

/// Whom a principal may speak for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sources {
    Any,
    These(Vec<Bound>),
}

/// A source, or all below one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Source(SourceName),
    Below(SourceName),
}

/// What is wrong with a file of principals, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// From 1.
    pub(super) line: usize,
    pub(super) problem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    principal: Vec<Spanned<Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    roles: Vec<Role>,
    sources: Option<Vec<String>>,
    #[serde(default)]
    uris: Vec<String>,
    #[serde(default)]
    dns: Vec<String>,
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    limits: LimitsTable,
}

impl Principals {
    /// Reads the text of a file, which takes the place of `before`: limits that stay the same stay
    /// used up as they are.
    pub(super) fn parse(text: &str, before: &Self) -> Result<Self, Malformed> {
        let file: File = toml::from_str(text).map_err(|error| Malformed {
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            problem: error.message().to_owned(),
        })?;
        let mut principals = Self::default();
        for table in file.principal {
            let line = line_of(text, table.span().start);
            let table = table.into_inner();
            let malformed = |problem| Malformed { line, problem };
            principals.add(table, before).map_err(malformed)?;
        }
        Ok(principals)
    }

    fn named(&self, name: &str) -> Option<&Principal> {
        self.all.iter().find(|principal| principal.name == name).map(|found| &**found)
    }

    fn add(&mut self, table: Table, before: &Self) -> Result<(), String> {
        let Table { name, roles, sources, uris, dns, tokens, limits } = table;
        if self.named(&name).is_some() {
            return Err(format!("a second principal {name:?}"));
        }
        let is_printable = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        if !is_printable || name.chars().any(char::is_control) {
            return Err(format!("name {name:?}, wanted 1 to {NAME_BYTES_MAX} printable bytes"));
        }
        if roles.is_empty() {
            return Err(format!("principal {name:?} without roles"));
        }
        let seals = roles.contains(&Role::Record) || roles.contains(&Role::Authorize);
        if sources.is_some() && !seals {
            return Err(format!("sources for {name:?}, which may not record or authorize"));
        }
        let sources = match sources {
            None => Sources::Any,
            Some(bound) => {
                let bound = bound.iter().map(|bound| Bound::parse(bound));
                Sources::These(bound.collect::<Result<_, _>>()?)
            }
        };
        let uris = uris.iter().map(|uri| CertificateName::parse_uri(uri));
        let hosts = dns.iter().map(|host| CertificateName::parse_dns(host));
        let certificate_names: Vec<_> = uris.chain(hosts).collect::<Result<_, _>>()?;
        if certificate_names.is_empty() && tokens.is_empty() {
            return Err(format!("principal {name:?} without uris, dns or tokens"));
        }
        let used = before.named(&name).map(|before| &before.limits);
        let used = used.filter(|used| used.table() == limits).cloned();
        let limits = used.unwrap_or_else(|| Arc::new(Limits::new(limits)));
        let principal = Arc::new(Principal { name, roles, sources, limits });
        self.all.push(principal.clone());
        for name in certificate_names {
            if let Some(other) = self.by_name.insert(name.clone(), principal.clone()) {
                return Err(format!("{name} belongs to {:?} as well", other.name));
            }
        }
        for token in &tokens {
            let digest = parse_digest(token)?;
            if let Some((_, other)) = self.by_token.iter().find(|(known, _)| *known == digest) {
                return Err(format!("token {token:?} belongs to {:?} as well", other.name));
            }
            self.by_token.push((digest, principal.clone()));
        }
        if self.by_token.len() > TOKENS_MAX {
            return Err(format!("more than {TOKENS_MAX} tokens, all of which are compared"));
        }
        Ok(())
    }

    /// The principal whose token has this digest. Takes as long for every token.
    pub(super) fn of_token(&self, digest: &Digest) -> Option<&Arc<Principal>> {
        let mut found = None;
        for (known, principal) in &self.by_token {
            if bool::from(known.ct_eq(digest.as_bytes())) {
                found = Some(principal);
            }
        }
        found
    }

    /// The principals of these names, each once.
    pub(super) fn of_names(&self, names: &[CertificateName]) -> Vec<&Arc<Principal>> {
        let mut found: Vec<&Arc<Principal>> = Vec::new();
        for principal in names.iter().filter_map(|name| self.by_name.get(name)) {
            if !found.iter().any(|known| Arc::ptr_eq(known, principal)) {
                found.push(principal);
            }
        }
        found
    }
}

impl Principal {
    /// Whoever calls where nobody is asked.
    pub(super) fn anybody() -> Self {
        let (name, roles) = ("anybody".to_owned(), Role::ALL.to_vec());
        Self { name, roles, sources: Sources::Any, limits: Arc::default() }
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether it may read the log, and not only what proves its own records.
    pub(super) fn is_reader(&self) -> bool {
        self.has(Role::Audit) || self.has(Role::Custody)
    }
}

impl CertificateName {
    /// URIs are compared byte by byte: that is how SPIFFE ids are.
    fn parse_uri(text: &str) -> Result<Self, String> {
        let has_scheme = text.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && !rest.is_empty() && !text.contains(char::is_whitespace)
        });
        if has_scheme {
            Ok(Self::Uri(text.to_owned()))
        } else {
            Err(format!("uri {text:?}, wanted one like spiffe://corp.example/payments"))
        }
    }

    fn parse_dns(text: &str) -> Result<Self, String> {
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !text.is_empty() && text.bytes().all(is_host) {
            Ok(Self::dns(text))
        } else {
            Err(format!("dns {text:?}, wanted the name of one host"))
        }
    }

    /// A host's name as a certificate has it.
    pub(super) fn dns(text: &str) -> Self {
        Self::Dns(text.to_ascii_lowercase())
    }
}

impl std::fmt::Display for CertificateName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(uri) => write!(out, "uri {uri:?}"),
            Self::Dns(host) => write!(out, "dns {host:?}"),
        }
    }
}

impl Bound {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, below) = text.strip_suffix("/*").map_or((text, false), |name| (name, true));
        let name = SourceName::parse(name)
            .map_err(|error| format!("source {text:?}, wanted a name or `prefix/*`: {error}"))?;
        Ok(if below { Self::Below(name) } else { Self::Source(name) })
    }

    pub(super) fn covers(&self, name: Name<'_>) -> bool {
        match self {
            Self::Source(source) => source.as_name() == name,
            Self::Below(parent) => name.is_below(parent.as_name()),
        }
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits.
fn parse_digest(text: &str) -> Result<[u8; 32], String> {
    let malformed = || format!("token {text:?}, wanted sha256: and 64 hexadecimal digits");
    let digits = text.strip_prefix("sha256:").ok_or_else(malformed)?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 64 || !digits.bytes().all(is_hex) {
        return Err(malformed());
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
    }
    Ok(digest)
}

/// The line, from 1, of a byte.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// Each is compared with what a stranger shows: a tenth of a millisecond for all of them.
const TOKENS_MAX: usize = 4_096;

/// Names stand in records of who read the ledger.
const NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
