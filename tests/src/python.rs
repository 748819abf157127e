//! The clients in Python, in a virtual environment of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, ensure};

/// A script of `tests/python`, ready for its arguments. The environment lies in `scratch`, cargo's
/// folder for files of integration tests, and stays there.
///
/// # Errors
///
/// When the environment cannot be made: it needs `python3` with `venv`, and a package index.
pub fn script(name: &str, scratch: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(environment(scratch)?.join("bin/python"));
    // -B: no compiled files beside the sources.
    command.arg("-B").arg(Path::new(PACKAGE).join("python").join(name));
    Ok(command)
}

/// Runs a command to its end; an error with all that it printed unless it succeeds.
///
/// # Errors
///
/// When it cannot be started, and when it fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    Ok(())
}

/// A virtual environment with exactly the packages of `requirements.txt`.
fn environment(scratch: &str) -> anyhow::Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let folder = Path::new(scratch).join("python");
    let requirements = Path::new(PACKAGE).join("python/requirements.txt");
    // Copied last, so that it is there only when all the rest is.
    let installed = folder.join("requirements.txt");
    if fs::read(&installed).ok() == Some(fs::read(&requirements)?) {
        return Ok(folder);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .context("this test needs python3 with the module venv (Debian: python3-venv)")?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(pip.arg(&requirements)).context("pip could not install tests/python/requirements.txt")?;
    fs::copy(&requirements, &installed)?;
    Ok(folder)
}

/// The folder of this package.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
