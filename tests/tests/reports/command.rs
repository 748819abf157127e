//! `access-ledger report` against a running ledger.
