//! The enrolment message: what a new source signs to show that it holds its key, and what a parent
//! signs to vouch for it. Both signatures go into the log, so the operator cannot invent sources.
//!
//! ```text
//! access-ledger/enrol/v1\n
//! <origin>\n
//! <name of the new source>\n
//! <base64 of its public key>\n
//! <roles: enum values, decimal, ascending, joined by ",">\n
//! <heartbeat interval in nanoseconds, decimal; 0: none>\n
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;

use crate::{error::SourceError, facts::sources::Roles, note::verifies, source::Name};

/// What the signatures of an enrolment cover.
#[derive(Clone, Copy, Debug)]
pub struct EnrolmentClaim<'a> {
    /// The new source.
    pub source: Name<'a>,
    /// Its key.
    pub public_key: &'a VerifyingKey,
    /// What it asks to do.
    pub roles: Roles,
    /// Nanoseconds; 0: none.
    pub heartbeat_nanos: u64,
}

impl EnrolmentClaim<'_> {
    /// The text that is signed, for the ledger of this origin.
    #[must_use]
    pub fn message(&self, origin: &str) -> String {
        format!(
            "access-ledger/enrol/v1\n{origin}\n{}\n{}\n{}\n{}\n",
            self.source,
            STANDARD.encode(self.public_key.as_bytes()),
            self.roles_text(),
            self.heartbeat_nanos,
        )
    }

    /// The roles as signed texts hold them: enum values, decimal, ascending, joined by ",".
    pub(crate) fn roles_text(&self) -> String {
        let roles: Vec<String> = self.roles.iter().map(|role| (role as i32).to_string()).collect();
        roles.join(",")
    }

    /// Checks a signature over the claim.
    ///
    /// # Errors
    ///
    /// [`SourceError::Enrolment`] when it is not 64 bytes long or does not verify with `key`.
    pub fn verify(
        &self,
        origin: &str,
        signature: &[u8],
        key: &VerifyingKey,
    ) -> Result<(), SourceError> {
        let signature = signature.try_into().map_err(|_| SourceError::Enrolment)?;
        if verifies(key, self.message(origin).as_bytes(), signature) {
            Ok(())
        } else {
            Err(SourceError::Enrolment)
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::wire::SourceRole;

    #[test]
    fn the_message_binds_ledger_name_key_roles_and_interval() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = key.verifying_key();
        let source = Name::parse(b"payments/pod-1").unwrap();
        let roles = Roles::from_iter([SourceRole::Enrol, SourceRole::Record]);
        let claim = EnrolmentClaim { source, public_key: &public, roles, heartbeat_nanos: 5 };
        let message = claim.message("o");
        assert!(message.starts_with("access-ledger/enrol/v1\no\npayments/pod-1\n"));
        assert!(message.ends_with("\n1,2\n5\n"));
        let signature = key.sign(message.as_bytes()).to_bytes();
        assert_eq!(claim.verify("o", &signature, &public), Ok(()));
        let other = EnrolmentClaim { heartbeat_nanos: 6, ..claim };
        assert_eq!(other.verify("o", &signature, &public), Err(SourceError::Enrolment));
        assert_eq!(claim.verify("o", &signature[1..], &public), Err(SourceError::Enrolment));
    }
}
