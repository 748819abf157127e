//! Who may call: TLS, principals, roles, and the door that all calls to a listener pass.
//!
//! ```text
//! connection -> link (handshake: names of the client certificate) -> guard (call -> role,
//!               token or name -> principal; limits) -> services, with the `Caller` beside
//!               the request
//! ```
//!
//! Everything here fails closed: a call that no table names is refused, a request without a
//! `Caller` is nobody's, and a file that cannot be used keeps the one before in force. Without a
//! file of principals everybody holds all roles, which is for loopback.

mod call;
mod caller;
mod door;
mod guard;
mod intake;
mod limits;
mod link;
mod patient;
mod principals;
mod standing;
mod tls;

pub use self::{
    call::{CALLS, Permission, Role},
    door::{Door, DoorFiles, TlsFiles},
};
pub(crate) use self::{
    caller::Caller,
    guard::{Admitted, Held, admit, refuse},
    link::{Link, Peer, links},
};
