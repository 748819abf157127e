//! Targets: what operators write: the settings file and the principals.

use std::{ffi::OsString, path::Path, sync::LazyLock};

use access_ledger_server::{
    config::Cli,
    identity::{Door, DoorFiles},
    settings,
};
use clap::{CommandFactory as _, FromArgMatches as _};

use super::files::disk_with;

static COMMAND: LazyLock<clap::Command> = LazyLock::new(Cli::command);

const FILE: &str = "ledger.toml";

pub(super) fn files() -> Vec<Vec<u8>> {
    const TEXTS: [&str; 4] = [
        "data = '/d'\nqueue-mib = 9 # nine\nsegment-mib = 0x10\ndanger-plaintext = true\n",
        "[metrics]\nlisten = '127.0.0.1:1'\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n",
        "origin = \"a \\\"b\\\"\"\nthreads = 2\n",
        "listen = \"[::1]:7070\"\n",
    ];
    TEXTS.map(|text| text.as_bytes().to_vec()).into()
}

/// What a file sets is what is printed of it, and what is printed is read as the same.
pub(super) fn config(bytes: &[u8]) -> bool {
    let Some(read) = parse(bytes) else { return false };
    let printed = settings::print(&COMMAND, &read);
    let again = parse(printed.as_bytes()).unwrap();
    let understood = |matches| format!("{:?}", Cli::from_arg_matches(matches).unwrap());
    assert_eq!(understood(&again), understood(&read), "{printed}");
    true
}

fn parse(file: &[u8]) -> Option<clap::ArgMatches> {
    let line = ["access-ledger-server", "serve", "--config", FILE].map(OsString::from);
    settings::parse(&COMMAND, line, &*disk_with(FILE, file)).ok()
}

pub(super) fn principals() -> Vec<Vec<u8>> {
    let token = format!("sha256:{}", "0f".repeat(32));
    let one = format!(
        "[[principal]]\nname = \"payments\"\nroles = [\"record\", \"authorize\"]\n\
         sources = [\"payments\", \"payments/*\"]\nuris = [\"spiffe://corp.example/payments\"]\n\
         dns = [\"payments.corp.example\"]\ntokens = [\"{token}\"]\n\
         limits = {{ requests_per_second = 100, bytes_per_second = 10_000_000, calls = 16 }}\n"
    );
    let auditor = "[[principal]]\nname = \"auditor\"\nroles = [\"audit\"]\ndns = [\"a.example\"]\n";
    vec![one.clone().into_bytes(), auditor.into(), [&one, auditor].concat().into_bytes()]
}

/// A file of principals opens the door or is refused, the same way each time.
pub(super) fn door(bytes: &[u8]) -> bool {
    let open = || {
        let principals = Some(Path::new("principals.toml").to_owned());
        Door::open(&disk_with("principals.toml", bytes), DoorFiles { tls: None, principals })
    };
    match (open(), open()) {
        (Ok(_), Ok(_)) => true,
        (Err(error), Err(again)) => {
            assert_eq!(error.to_string(), again.to_string());
            false
        }
        (first, second) => unreachable!("{} and {}", first.is_ok(), second.is_ok()),
    }
}
