//! The principal behind a request.

use std::sync::Arc;

use access_ledger_proto::source::Name;
use tonic::Request;

use super::{
    call::Role,
    principals::{Principal, Sources},
};
use crate::refusal::Refusal;

/// Whoever made a call, known by the guard. It lies in the extensions of every request that reaches
/// a service. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(super) Arc<Principal>);

impl Caller {
    /// The caller of a request.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthenticated`] when no guard let it in: a mistake of ours.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Refusal::Unauthenticated {
            problem: "the call came in by no door".to_owned(),
        })
    }

    /// Whether the principal may read the log, and not only what proves its own records.
    pub(crate) fn is_reader(&self) -> bool {
        self.0.is_reader()
    }

    /// Whether the principal may read everything to judge it, and not only to hold it.
    pub(crate) fn is_auditor(&self) -> bool {
        self.0.has(Role::Audit)
    }

    /// The principal's name.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Why the principal may not make a call, or not with these arguments.
    pub(crate) fn forbidden(&self, wanted: &str) -> Refusal {
        let (principal, wanted) = (self.0.name.clone(), wanted.to_owned());
        Refusal::CallForbidden { principal, wanted }
    }

    /// Checks that the principal may see what a source recorded: whoever reads may, and whoever
    /// speaks for it.
    ///
    /// # Errors
    ///
    /// [`Refusal::SourceForbidden`].
    pub(crate) fn expect_sight_of(&self, source: &str) -> Result<(), Refusal> {
        if self.is_reader() { Ok(()) } else { self.expect_source(source) }
    }

    /// Checks that the principal may speak for a source.
    ///
    /// # Errors
    ///
    /// [`Refusal::SourceForbidden`] when it is bound to others.
    pub(crate) fn expect_source(&self, source: &str) -> Result<(), Refusal> {
        let is_bound_to = match &self.0.sources {
            Sources::Any => return Ok(()),
            // What is no name is refused for that, later.
            Sources::These(bound) => Name::parse(source.as_bytes())
                .map_or(true, |name| bound.iter().any(|bound| bound.covers(name))),
        };
        if is_bound_to {
            return Ok(());
        }
        let principal = self.0.name.clone();
        Err(Refusal::SourceForbidden { principal, source_name: source.to_owned() })
    }
}

#[cfg(test)]
impl Caller {
    /// A principal of these roles.
    pub(crate) fn with_roles(name: &str, roles: &[&str]) -> Self {
        use super::principals::Principals;
        let token = access_ledger_proto::hash::sha256(name.as_bytes());
        let file = format!(
            "[[principal]]\nname = {name:?}\nroles = {roles:?}\ntokens = [\"sha256:{token}\"]\n"
        );
        let principals = Principals::parse(&file, &Principals::default()).unwrap();
        Self(principals.of_token(&token).unwrap().clone())
    }
}
