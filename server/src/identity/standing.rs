//! Whether a call that goes on may still go on: a principal that is taken away, or loses the role
//! that the call needs, loses its streams too.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use access_ledger_proto::hash::Digest;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{
    call::{Permission, Role},
    door::{Admission, State},
    principals::{CertificateName, Principal, Principals},
};
use crate::refusal::Refusal;

/// By what a principal is known.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    Token(Digest),
    Names(Arc<[CertificateName]>),
}

impl Credential {
    /// Whose it is.
    pub(super) fn principal<'a>(
        &self,
        principals: &'a Principals,
    ) -> Result<&'a Arc<Principal>, Refusal> {
        let unknown = |problem: &str| Refusal::Unauthenticated { problem: problem.to_owned() };
        match self {
            Self::Token(digest) => {
                principals.of_token(digest).ok_or_else(|| unknown("token is unknown"))
            }
            Self::Names(names) => match principals.of_names(names)[..] {
                [principal] => Ok(principal),
                [] => Err(unknown("names of the client certificate are unknown")),
                _ => Err(unknown("client certificate has names of several principals")),
            },
        }
    }
}

/// The ground on which a call was let in.
pub(crate) struct Standing {
    credential: Credential,
    principal: Arc<Principal>,
    roles: &'static [Role],
    states: watch::Receiver<Arc<State>>,
    /// Made when there is something to wait for.
    changed: Option<BoxFuture<'static, ()>>,
}

impl Standing {
    /// Of a call that needs one of these roles, as what the door says in `states`.
    pub(super) const fn new(
        credential: Credential,
        principal: Arc<Principal>,
        roles: &'static [Role],
        states: watch::Receiver<Arc<State>>,
    ) -> Self {
        Self { credential, principal, roles, states, changed: None }
    }

    /// Why the call may not go on, as soon as that is so.
    pub(crate) fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        loop {
            if let Some(refusal) = self.lost() {
                return Poll::Ready(refusal);
            }
            let states = &self.states;
            let changed = self.changed.get_or_insert_with(|| {
                let mut states = states.clone();
                // A door that is gone says nothing more, and its calls go with it.
                Box::pin(async move { drop(states.changed().await) })
            });
            ready!(changed.as_mut().poll(context));
            self.changed = None;
            if self.states.has_changed().is_err() {
                return Poll::Pending;
            }
        }
    }

    /// Why the call may not go on, if there is news of that.
    pub(crate) fn lost(&mut self) -> Option<Refusal> {
        if !self.states.has_changed().unwrap_or(false) {
            return None;
        }
        let state = self.states.borrow_and_update().clone();
        let Admission::Known(principals) = &state.admission else { return None };
        self.renew(principals).err()
    }

    fn renew(&mut self, principals: &Principals) -> Result<(), Refusal> {
        let principal = self.credential.principal(principals)?;
        let may_still = self.roles.iter().any(|&role| principal.has(role));
        if !may_still || principal.sources != self.principal.sources {
            let wanted = Permission::AnyOf(self.roles).roles();
            return Err(Refusal::CallForbidden { principal: principal.name.clone(), wanted });
        }
        self.principal = principal.clone();
        Ok(())
    }
}
