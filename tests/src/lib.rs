//! What the tests share: disks that fail, a model of the log, a model of what was acknowledged, a
//! recording client made of the protocol's own pieces, ledgers to try all of it on, and the load
//! tool.

pub mod adversary;
pub mod clock;
pub mod custodian;
pub mod desk;
pub mod disk;
pub mod double;
pub mod folders;
pub mod fuzz;
pub mod gate;
pub mod generate;
pub mod history;
pub mod hostile;
pub mod load;
pub mod model;
pub mod node;
pub mod offences;
pub mod operator;
pub mod pages;
pub mod parties;
pub mod personal;
pub mod pki;
pub mod process;
pub mod python;
pub mod signed;
pub mod source;
pub mod stopping;
pub mod stored;
pub mod story;
