//! Makes the key that is to take the place of one of the ledger's, and says how governance puts it
//! there.

use std::{io::Write, path::Path};

use access_ledger_proto::facts::sources::possession_message;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    folder::{Folder, Purpose},
    os::Disk,
};

/// Makes the next key in the folder of a ledger, which may be served meanwhile, unless one waits
/// there already; tells its verifier key and that it is held here. Nothing is signed with it until
/// governance has recorded the change.
///
/// # Errors
///
/// When the folder holds no ledger, or the disk refuses.
pub fn run(
    disk: &dyn Disk,
    folder: &Path,
    purpose: Purpose,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let folder = Folder::new(folder);
    let origin = folder.origin(disk)?.ok_or_else(|| folder.uninitialised())?;
    let key = folder.next_key(disk, purpose)?;
    let (vkey, name) = (key.verifier(), key.name());
    let message = possession_message(&origin, name, vkey.public_key());
    let possession = STANDARD.encode(key.sign(message.as_bytes()));
    let (what, file) = match purpose {
        Purpose::Ledger => ("ledger-key".to_owned(), "ledger-key"),
        Purpose::Source => (format!("key {name}"), "source-key"),
    };
    writeln!(out, "next key    {vkey}")?;
    writeln!(out, "possession  {possession}")?;
    writeln!(out, "\nNext, on a machine of the governance:")?;
    writeln!(out, "  access-ledger control {what} --ledger VKEY-OF-NOW --out {file}.toml \\")?;
    writeln!(out, "    --new-key '{vkey}' \\\n    --possession '{possession}'")?;
    Ok(())
}
