//! Whether a call that goes on may still go on: a principal that is taken away, or loses the role
//! that the call needs or the right to read, loses its streams too.

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

    /// The same, for whoever else has to ask.
    pub(super) fn again(&self) -> Self {
        let (credential, principal) = (self.credential.clone(), self.principal.clone());
        Self::new(credential, principal, self.roles, self.states.clone())
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
        let before = &self.principal;
        let may_still = self.roles.iter().any(|&role| principal.has(role));
        // What a call may see of the log was decided at its beginning, and by whom it is noted.
        let is_same = principal.name == before.name
            && principal.sources == before.sources
            && principal.is_reader() >= before.is_reader();
        if !may_still || !is_same {
            let wanted = Permission::AnyOf(self.roles).roles();
            return Err(Refusal::CallForbidden { principal: principal.name.clone(), wanted });
        }
        self.principal = principal.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::hash::sha256;

    use super::*;
    use crate::{
        folder::real_disk,
        identity::{Door, DoorFiles},
        os,
    };

    const ROLES: &[Role] = &[Role::Audit, Role::Record];

    /// Whether a call that principal `before` makes goes on when the file says `after`.
    fn goes_on(before: &str, after: &str) -> bool {
        let (disk, folder) = (real_disk(), tempfile::tempdir().unwrap());
        let path = folder.path().join("principals.toml");
        let token = sha256(b"token");
        let write = |principal: &str| {
            let text = format!("[[principal]]\n{principal}\ntokens = [\"sha256:{token}\"]\n");
            os::replace(&*disk, &path, text.as_bytes()).unwrap();
        };
        write(before);
        let files = DoorFiles { tls: None, principals: Some(path.clone()) };
        let door = Door::open(&disk, files).unwrap();
        let credential = Credential::Token(token);
        let states = door.states();
        let state = states.borrow().clone();
        let Admission::Known(principals) = &state.admission else { panic!() };
        let principal = credential.principal(principals).unwrap().clone();
        let mut standing = Standing::new(credential, principal, ROLES, states);
        let mut beside = standing.again();
        assert!(standing.lost().is_none());
        write(after);
        door.reload().unwrap();
        let lost = standing.lost().is_some();
        assert_eq!(beside.lost().is_some(), lost);
        !lost
    }

    #[test]
    fn a_call_goes_on_as_what_it_began_as_or_ends() {
        let both = "name = \"a\"\nroles = [\"audit\", \"record\"]";
        let records = "name = \"a\"\nroles = [\"record\"]";
        assert!(goes_on(both, "name = \"a\"\nroles = [\"operate\", \"record\", \"audit\"]"));
        assert!(goes_on(records, both), "what it may not see it was not shown");
        assert!(!goes_on(both, records), "reads on without the right to");
        assert!(!goes_on(both, "name = \"a\"\nroles = [\"operate\"]"));
        let bound = "name = \"a\"\nroles = [\"record\"]\nsources = [\"shop\"]";
        assert!(!goes_on(records, bound));
        assert!(!goes_on(records, "name = \"b\"\nroles = [\"record\"]"), "another's token");
    }
}
