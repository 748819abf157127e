//! A log that a test tells, entry by entry, for what follows from entries: facts, findings and
//! reports. No server takes part; keys, times and ids follow from the order of the telling.
//!
//! A [`Story`] opens with a company that keeps every rule: its sources, datasets, tools and sites
//! are registered by both governance parties, and one grant is in force. What a test adds says all
//! the more.

use std::collections::BTreeMap;

use access_ledger_client::verify::Record;
use access_ledger_proto::{
    chain::Link,
    enrolment::EnrolmentClaim,
    facts::{
        control::{control_message, registration_message},
        redactions::redaction_message,
        sources::Roles,
    },
    hash::{Digest, sha256},
    note::{KeyType, Signer},
    policy::Policy,
    position::{Index, count_of},
    seal::Batch,
    source::{Name, SourceName},
    wire::{
        self, Access, AccessRequest, Boundary, ControlKind, Dataset, Decision, Event,
        RegisteredTool, Site, SourceRole, SourceStatus, event::Body,
    },
};
use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;

pub mod fold;
pub mod parts;

use self::parts::{duration, event_id, person, reference, timestamp};

/// The ledger's origin.
pub const ORIGIN: &str = "ledger.example/story";

/// The ledger's own source.
pub const LEDGER: &str = "ledger";

/// The governance parties.
pub const PARTIES: [&str; 2] = ["governance/company", "governance/custodian"];

/// A source that records accesses.
pub const GATEWAY: &str = "gateway";

/// A source that records what the business does: legal requests, erasures, holdings.
pub const RECORDER: &str = "office";

/// Approvers, and the persons whose keys they are.
pub const APPROVERS: [(&str, &str); 2] = [("security/ana", "p-ana"), ("security/bo", "p-bo")];

/// The person who holds [`GRANT`], at home.
pub const PERSON: &str = "p-1";

/// The grant of the opening: [`PERSON`] may read and export [`DATASET`].
pub const GRANT: &str = "g-1";

/// A registered dataset of protected data, whose home is [`HOME`].
pub const DATASET: &str = "users.profile";

/// A registered dataset that everybody may see.
pub const PUBLIC: &str = "posts.public";

/// Whose law protects the data.
pub const HOME: &str = "IE";

/// Sites: one in custody, one that is not.
pub const SITES: [(&str, bool); 2] = [("ie-1", true), ("sg-1", false)];

/// The registered tool, and the build of it that was vetted.
pub const TOOL: (&str, [u8; 32]) = ("console", [7; 32]);

/// When a story begins, in nanoseconds since the Unix epoch: 2026-03-02, 08:00 UTC.
pub const BEGIN: u64 = 1_772_438_400 * SECOND;

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds.
pub const DAY: u64 = 86_400 * SECOND;

/// One entry.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was recorded, in nanoseconds since the Unix epoch.
    pub recorded_at: u64,
    /// Who sealed it.
    pub source: SourceName,
    /// The event's bytes; `None` when they were erased.
    pub event: Option<Bytes>,
}

/// A log under way.
#[derive(Debug)]
pub struct Story {
    lines: Vec<Line>,
    revisions: BTreeMap<(i32, String), u64>,
    now: u64,
}

impl Story {
    /// The genesis, and nothing else.
    ///
    /// # Errors
    ///
    /// None: all names are good.
    pub fn bare() -> anyhow::Result<Self> {
        let mut story = Self { lines: Vec::new(), revisions: BTreeMap::new(), now: BEGIN };
        let genesis = wire::Genesis {
            origin: ORIGIN.to_owned(),
            ledger_vkey: key(ORIGIN)?.verifier().to_string(),
            ledger_source: Some(initial(LEDGER)?),
            governance: vec![initial(PARTIES[0])?, initial(PARTIES[1])?],
            self_enrolment: true,
            policy: Policy::DEFAULT.to_owned(),
        };
        let change = wire::ControlChange {
            kind: ControlKind::Genesis.into(),
            content: genesis.encode_to_vec().into(),
            ..Default::default()
        };
        story.tell(LEDGER, Body::ControlChange(change))?;
        Ok(story)
    }

    /// A company in order: see the consts of this module for what is registered.
    ///
    /// # Errors
    ///
    /// None: all names are good.
    pub fn open() -> anyhow::Result<Self> {
        let mut story = Self::bare()?;
        story.register(GATEWAY, &[SourceRole::Record], 0, "")?;
        story.register(RECORDER, &[SourceRole::Record], 0, "")?;
        for (name, person) in APPROVERS {
            story.register(name, &[SourceRole::Record, SourceRole::Approve], 0, person)?;
        }
        story.classify(DATASET, Boundary::Protected)?;
        story.classify(PUBLIC, Boundary::Public)?;
        for (site, in_custody) in SITES {
            let country = if in_custody { HOME } else { "SG" }.to_owned();
            let content = Site { country, in_custody, ..Default::default() };
            story.control(ControlKind::Site, site, &content.encode_to_vec())?;
        }
        let (tool, build) = TOOL;
        let digests = vec![Bytes::copy_from_slice(&build)];
        let content = RegisteredTool { build_digests: digests, ..Default::default() };
        story.control(ControlKind::Tool, tool, &content.encode_to_vec())?;
        // For longer than any story goes on.
        story.request(GRANT, |request| {
            request.requested_duration = Some(duration(10 * 365 * DAY));
        })?;
        story.approve(GRANT, 0, |_| {})?;
        Ok(story)
    }

    /// The log so far.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The index of the next entry.
    #[must_use]
    pub const fn next_index(&self) -> Index {
        Index(count_of(self.lines.len()))
    }

    /// An id that nothing in the story has.
    #[must_use]
    pub fn fresh(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.lines.len())
    }

    /// The time of the next entry, in nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Lets time pass.
    pub const fn wait(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos);
    }

    /// Records an event of this source, about nobody.
    ///
    /// # Errors
    ///
    /// For a name that no source can have.
    pub fn tell(&mut self, source: &str, body: Body) -> anyhow::Result<Index> {
        self.record(source, Event { body: Some(body), ..Default::default() })
    }

    /// Records an event of this source. What it lacks of an id and a time is filled in.
    ///
    /// # Errors
    ///
    /// For a name that no source can have.
    pub fn record(&mut self, source: &str, mut event: Event) -> anyhow::Result<Index> {
        let index = self.next_index();
        if event.event_id.is_empty() {
            event.event_id = event_id(index);
        }
        event.occurred_at.get_or_insert_with(|| timestamp(self.now));
        let source = SourceName::parse(source)?;
        let event = Some(event.encode_to_vec().into());
        self.lines.push(Line { recorded_at: self.now, source, event });
        // As if no two batches came in the same instant.
        self.wait(1_000);
        Ok(index)
    }

    /// Erases an event.
    pub fn erase(&mut self, Index(index): Index) {
        let place = usize::try_from(index).ok();
        if let Some(line) = place.and_then(|place| self.lines.get_mut(place)) {
            line.event = None;
        }
    }

    /// Both parties register a source.
    ///
    /// # Errors
    ///
    /// For a name that no source can have.
    pub fn register(
        &mut self,
        name: &str,
        roles: &[SourceRole],
        heartbeat_nanos: u64,
        principal: &str,
    ) -> anyhow::Result<Index> {
        let key = key(name)?;
        let set = Roles::from_iter(roles.iter().copied());
        let claim = EnrolmentClaim {
            source: Name::parse(name.as_bytes())?,
            public_key: key.verifier().public_key(),
            roles: set,
            heartbeat_nanos,
        };
        let message = registration_message(ORIGIN, &claim, principal);
        let status = SourceStatus {
            phase: wire::SourcePhase::Registered.into(),
            source: name.to_owned(),
            public_key: public_key(&key),
            roles: set.values(),
            heartbeat_interval: (heartbeat_nanos > 0).then(|| duration(heartbeat_nanos)),
            principal: principal.to_owned(),
            approvals: vec![approval(PARTIES[1], &message)?],
            ..Default::default()
        };
        self.tell(PARTIES[0], Body::SourceStatus(status))
    }

    /// A source enrols itself; nobody vouches for it.
    ///
    /// # Errors
    ///
    /// For a name that no source can have.
    pub fn enrol(&mut self, name: &str) -> anyhow::Result<Index> {
        let key = key(name)?;
        let claim = EnrolmentClaim {
            source: Name::parse(name.as_bytes())?,
            public_key: key.verifier().public_key(),
            roles: Roles::RECORDER,
            heartbeat_nanos: 0,
        };
        let possession = Bytes::copy_from_slice(&key.sign(claim.message(ORIGIN).as_bytes()));
        let status = SourceStatus {
            phase: wire::SourcePhase::Registered.into(),
            source: name.to_owned(),
            public_key: public_key(&key),
            roles: Roles::RECORDER.values(),
            enrolment: Some(wire::Enrolment { possession, ..Default::default() }),
            ..Default::default()
        };
        self.tell(LEDGER, Body::SourceStatus(status))
    }

    /// Both parties register a dataset of subjects at [`HOME`].
    ///
    /// # Errors
    ///
    /// None: the parties' names are good.
    pub fn classify(&mut self, dataset: &str, boundary: Boundary) -> anyhow::Result<Index> {
        let content = Dataset {
            boundary: boundary.into(),
            sensitivity: wire::Sensitivity::Confidential.into(),
            categories: vec![wire::DataCategory::Contact.into()],
            subject_jurisdiction: HOME.to_owned(),
            ..Default::default()
        };
        self.control(ControlKind::Dataset, dataset, &content.encode_to_vec())
    }

    /// Both parties change a rule.
    ///
    /// # Errors
    ///
    /// None: the parties' names are good.
    pub fn control(
        &mut self,
        kind: ControlKind,
        target: &str,
        content: &[u8],
    ) -> anyhow::Result<Index> {
        let change = self.change(kind, target, content)?;
        *self.revisions.entry((kind.into(), target.to_owned())).or_default() = change.revision;
        self.tell(PARTIES[0], Body::ControlChange(change))
    }

    /// The next change of a rule, signed by the second party, for the first to seal.
    ///
    /// # Errors
    ///
    /// None: the parties' names are good.
    pub fn change(
        &self,
        kind: ControlKind,
        target: &str,
        content: &[u8],
    ) -> anyhow::Result<wire::ControlChange> {
        let before = self.revisions.get(&(kind.into(), target.to_owned())).copied();
        // The policy of the genesis counts as the first.
        let first = u64::from(kind == ControlKind::Policy);
        let mut change = wire::ControlChange {
            kind: kind.into(),
            target: target.to_owned(),
            content: Bytes::copy_from_slice(content),
            revision: before.unwrap_or(first) + 1,
            ..Default::default()
        };
        let message = control_message(ORIGIN, &change);
        change.approvals.push(approval(PARTIES[1], &message)?);
        Ok(change)
    }

    /// A redaction that the second of [`PARTIES`] has signed, for the first to record.
    ///
    /// # Errors
    ///
    /// None: the party's name is good.
    pub fn redaction(&self, first: Index, last: Index) -> anyhow::Result<wire::Redaction> {
        let mut redaction = wire::Redaction {
            first_index: first.0,
            last_index: last.0,
            legal_basis: "court order 17".to_owned(),
            ..Default::default()
        };
        let message = redaction_message(ORIGIN, &redaction);
        redaction.approvals.push(approval(PARTIES[1], &message)?);
        Ok(redaction)
    }

    /// [`PERSON`] asks for access to [`DATASET`] for a week, or what `edit` makes of that.
    ///
    /// # Errors
    ///
    /// None: the gateway's name is good.
    pub fn request(
        &mut self,
        request_id: &str,
        edit: impl FnOnce(&mut AccessRequest),
    ) -> anyhow::Result<Index> {
        let mut request = parts::request(request_id);
        edit(&mut request);
        let body = Some(Body::AccessRequest(request));
        self.record(GATEWAY, Event { actor: Some(person()), body, ..Default::default() })
    }

    /// An approver approves a request, or what `edit` makes of that; `by` counts [`APPROVERS`].
    ///
    /// # Errors
    ///
    /// When there is no such approver.
    pub fn approve(
        &mut self,
        request_id: &str,
        by: usize,
        edit: impl FnOnce(&mut Decision),
    ) -> anyhow::Result<Index> {
        let (source, _) = APPROVERS.get(by).context("no such approver")?;
        let mut decision = parts::approval(request_id);
        edit(&mut decision);
        self.tell(source, Body::Decision(decision))
    }

    /// [`PERSON`] reads [`DATASET`] under [`GRANT`], or what `edit` makes of that.
    ///
    /// # Errors
    ///
    /// None: the gateway's name is good.
    pub fn access(&mut self, edit: impl FnOnce(&mut Event, &mut Access)) -> anyhow::Result<Index> {
        let (mut event, mut access) = parts::access();
        edit(&mut event, &mut access);
        event.body = Some(Body::Access(access));
        self.record(GATEWAY, event)
    }

    /// The verdict of a source, which should be the ledger's own, on the intent at an index.
    ///
    /// # Errors
    ///
    /// For a name that no source can have.
    pub fn verdict(
        &mut self,
        source: &str,
        intent: Index,
        decision: wire::AuthorizationDecision,
    ) -> anyhow::Result<Index> {
        let (intent, decision) = (Some(reference(intent)), decision.into());
        let verdict = wire::Authorization { intent, decision, ..Default::default() };
        self.tell(source, Body::Authorization(verdict))
    }

    /// The records of the log, as a ledger would hold them: one batch for each entry.
    ///
    /// # Errors
    ///
    /// None for lines that this module made.
    pub fn records(&self) -> anyhow::Result<Vec<Record>> {
        let mut link = Link::GENESIS;
        let mut seqs = BTreeMap::<&SourceName, u64>::new();
        let mut records = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            let seq = seqs.entry(&line.source).or_default();
            *seq += 1;
            let digest = line.event.as_deref().map_or(Digest::ZERO, sha256);
            let (source, digests) = (line.source.as_name(), [digest]);
            let batch = Batch { source, first_seq: *seq, digests: &digests };
            let seal = batch.seal(ORIGIN, &key(line.source.as_str())?)?;
            link.extend(&batch, line.recorded_at, seal, |entry, _| {
                let (entry, event) = (Bytes::copy_from_slice(entry), line.event.clone());
                records.push(Record { entry, event });
            })?;
        }
        Ok(records)
    }
}

fn initial(name: &str) -> anyhow::Result<wire::InitialSource> {
    Ok(wire::InitialSource { name: name.to_owned(), public_key: public_key(&key(name)?) })
}

/// A party's signature.
fn approval(party: &str, message: &str) -> anyhow::Result<wire::Approval> {
    let key = key(party)?;
    Ok(wire::Approval {
        source: party.to_owned(),
        key_id: Bytes::copy_from_slice(&key.verifier().id().0),
        signature: Bytes::copy_from_slice(&key.sign(message.as_bytes())),
    })
}

/// The key that a name makes.
fn key(name: &str) -> anyhow::Result<Signer> {
    Ok(Signer::new(name, KeyType::Ed25519, *sha256(name.as_bytes()).as_bytes())?)
}

fn public_key(signer: &Signer) -> Bytes {
    Bytes::copy_from_slice(signer.verifier().public_key().as_bytes())
}
