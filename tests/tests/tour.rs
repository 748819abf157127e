//! The tours of the README, taken from its text: every command is run as it stands there, and
//! prints what stands there, but for keys, hashes, times and ports.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use access_ledger_tests::process::{Process, binaries};
use anyhow::{Context as _, ensure};

/// A command of the tour with what the README says that it prints.
#[derive(Debug, Default, PartialEq)]
struct Step {
    /// One line, or more with a here-document.
    command: String,
    printed: Vec<String>,
}

/// The steps below a heading, in order: the lines of its indented blocks that begin with a prompt,
/// and what follows each of them.
fn steps(readme: &str, heading: &str) -> anyhow::Result<Vec<Step>> {
    let (_, tour) = readme.split_once(heading).context("the README has no such part")?;
    let (tour, _) = tour.split_once("\n## ").context("the part has no end")?;
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = tour.lines();
    let mut in_step = false;
    while let Some(line) = lines.next() {
        match line.strip_prefix("    ") {
            Some(line) if line.starts_with("$ ") => {
                let mut command = line.trim_start_matches("$ ").to_owned();
                while command.contains("<<'EOF'") && !command.ends_with("\nEOF") {
                    let line = lines.next().context("a here-document has no end")?;
                    command = format!("{command}\n{}", line.trim_start());
                }
                steps.push(Step { command, printed: Vec::new() });
                in_step = true;
            }
            Some(line) if in_step => {
                steps.last_mut().context("no step")?.printed.push(line.to_owned());
            }
            Some(_) => {}
            // An empty line stands inside a block too.
            None => in_step &= line.is_empty(),
        }
    }
    Ok(steps)
}

const TOUR: &str = "## Five-minute tour\n";

/// What two runs have in common: words without what is made anew for each.
fn lasting<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let lines = lines.into_iter().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| line.split_whitespace().map(lasting_word).collect::<Vec<_>>().join(" "))
        .collect()
}

fn lasting_word(word: &str) -> String {
    let name = word.trim_end_matches([',', ':', ';', '"']);
    let is_made = ["localhost", "my-service+", "us-user-data+", "evidence-", "://"]
        .iter()
        .any(|part| name.contains(part))
        || name.ends_with("==");
    // A digest, or the version of a policy, which ends with some of one.
    let hex = name.rsplit('-').next().unwrap_or(name);
    let is_hex = [8, 64].contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_time = name.ends_with('Z') && name.starts_with("20");
    // How long an entry is depends on its time.
    let is_offset = name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_made || is_hex || is_time || is_offset { "*".to_owned() } else { word.to_owned() }
}

/// How many batches three events become depends on when they come.
fn without_batches(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("batches ")).collect()
}

/// Runs the steps in one shell, as somebody types them; what each printed, and its exit code.
fn run(steps: &[Step], folder: &Path, server: &Process) -> anyhow::Result<Vec<(String, String)>> {
    let mut script = String::new();
    for (number, step) in steps.iter().enumerate() {
        let command = &step.command;
        script
            .push_str(&format!("{{\n{command}\n}} > {number}.out 2>&1\necho $? > {number}.code\n"));
    }
    let path = std::env::var("PATH")?;
    let done = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", binaries()?.display()))
        .env("ACCESS_LEDGER_SERVER", format!("http://{}", server.address))
        .env("LEDGER", server.vkey.to_string())
        .output()?;
    ensure!(done.stderr.is_empty(), "the shell said {}", String::from_utf8_lossy(&done.stderr));
    let read = |number: usize, what| fs::read_to_string(folder.join(format!("{number}.{what}")));
    let results = (0..steps.len()).map(|number| Ok((read(number, "out")?, read(number, "code")?)));
    results.collect()
}

/// Compares a step with what came of it.
fn expect(step: &Step, printed: &str, code: &str) {
    let command = &step.command;
    let wanted = without_batches(lasting(step.printed.iter().map(String::as_str)));
    let found = without_batches(lasting(printed.lines()));
    assert_eq!(found, wanted, "`{command}` printed\n{printed}");
    let is_caught = printed.contains("caught") || printed.contains("DAMAGED");
    let is_denied = printed.starts_with("denied: ");
    let wanted = match (is_denied, is_caught) {
        (true, _) => "3",
        (false, true) => "1",
        (false, false) => "0",
    };
    assert_eq!(code.trim(), wanted, "`{command}` printed\n{printed}");
}

#[test]
fn the_tour_of_the_readme_does_what_it_says() -> anyhow::Result<()> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let steps = steps(&readme, TOUR)?;
    let (serve, steps) = steps.split_first().context("the tour has no step")?;
    let (check, steps) = steps.split_last().context("the tour has one step")?;
    assert_eq!(serve.command, "access-ledger-server serve");
    assert_eq!(check.command, "access-ledger-server check");
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("access-ledger-data");

    let server = Process::serve(&data, &[])?;
    let results = run(steps, folder.path(), &server)?;
    for (step, (printed, code)) in steps.iter().zip(&results) {
        expect(step, printed, code);
    }
    // That the README shows the catch at all.
    let (caught, _) = results.last().context("no step before the check")?;
    assert!(caught.contains("caught: at index 3"), "{caught}");
    let evidence = caught.lines().find_map(|line| line.strip_prefix("evidence: "));
    let evidence = fs::read_to_string(folder.path().join(evidence.context("no evidence")?))?;
    assert!(evidence.contains("index 3") && evidence.contains(&server.vkey.to_string()));

    // The README's exports are those that the server tells to type.
    server.terminate()?;
    let (status, told) = server.wait_telling()?;
    assert!(status.success(), "{status}");
    let wanted = lasting(serve.printed.iter().skip(3).map(String::as_str));
    assert_eq!(lasting(told.lines()), wanted);
    for export in told.lines().map(str::trim).filter(|line| line.starts_with("export ")) {
        let wanted = lasting([export]);
        assert!(
            readme.lines().any(|line| line.starts_with("    export") && lasting([line]) == wanted)
        );
    }

    let checked = Command::new(binaries()?.join("access-ledger-server"))
        .args(["--log", "error", "check"])
        .current_dir(folder.path())
        .output()?;
    let printed = String::from_utf8(checked.stdout)?;
    expect(check, &printed, if checked.status.code() == Some(1) { "1" } else { "0" });
    assert!(printed.contains("DAMAGED") && printed.contains("entry 3:"), "{printed}");
    Ok(())
}

/// A program of the tour that goes on while others run.
struct Running {
    child: Child,
    printed: Vec<String>,
}

impl Running {
    /// Starts `command`, and reads what it prints up to the line that begins with `ready`; all of
    /// it, should it end before that.
    fn start(command: &mut Command, ready: &str) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut printed = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut errors = child.stderr.take().context("no errors")?;
        while let Some(line) = lines.next().transpose()? {
            let is_ready = line.starts_with(ready);
            printed.push(line);
            if is_ready {
                // It must not wait for somebody to read the rest.
                std::thread::spawn(move || lines.for_each(drop));
                std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
                return Ok(Self { child, printed });
            }
        }
        let mut told = String::new();
        errors.read_to_string(&mut told)?;
        printed.extend(told.lines().map(str::to_owned));
        Ok(Self { child, printed })
    }

    /// Asks it to stop, unless it ended by itself.
    fn stop(mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            let status = self.child.wait()?;
            ensure!(status.success(), "{status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (_killed_or_gone, _waited_for) = (self.child.kill(), self.child.wait());
    }
}

/// A bash in `folder` in which the programs are found.
fn shell(folder: &Path, command: &str) -> anyhow::Result<Command> {
    let path = format!("{}:{}", binaries()?.display(), std::env::var("PATH")?);
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(folder).env("PATH", path);
    Ok(shell)
}

/// Ports that nobody uses, in place of the tour's, which are everybody's.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [ledger, custodian] = listeners.each_ref().map(TcpListener::local_addr);
    Ok([ledger?.port(), custodian?.port()])
}

#[test]
fn the_second_tour_of_the_readme_does_what_it_says() -> anyhow::Result<()> {
    const SERVE: &str = "access-ledger-server serve";
    const CUSTODIAN: &str = "access-ledger-server custodian";
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let steps = steps(&readme, "## Second tour: a company outside holds a copy\n")?;
    let folder = tempfile::tempdir()?;
    let [ledger_port, custodian_port] = free_ports()?;
    let (mut key, mut assigned) = (String::new(), String::new());
    let (mut ledger, mut custodian): (Option<Running>, Option<Running>) = (None, None);
    for step in &steps {
        let command = step.command.replace(":7070", &format!(":{ledger_port}"));
        let command = command.replace(":7170", &format!(":{custodian_port}"));
        let started = [(SERVE, ledger_port), (CUSTODIAN, custodian_port)];
        let started = started.into_iter().find(|(start, _)| command.starts_with(start));
        // The text between the steps says when to stop the ledger.
        if command.starts_with(SERVE) || command.contains("ledger-backup") {
            ledger.take().map_or(Ok(()), Running::stop)?;
        }
        if command.starts_with("SEGMENT=") || command.starts_with("OFFSET=") {
            assigned = format!("{assigned}{command}\n");
            continue;
        }
        let typed = match started {
            Some((_, port)) => format!(
                "exec {command} --log error --listen 127.0.0.1:{port} --metrics-listen 127.0.0.1:0"
            ),
            None => format!("{assigned}{command}"),
        };
        let mut typed = shell(folder.path(), &typed)?;
        typed.env("ACCESS_LEDGER_SERVER", format!("http://127.0.0.1:{ledger_port}"));
        typed.env("LEDGER", &key);
        let wanted = lasting(step.printed.iter().map(String::as_str));
        if let Some((start, _)) = started {
            let ready = if start == SERVE { "  access-ledger verify" } else { "policy" };
            let running = Running::start(&mut typed, ready)?;
            let found = lasting(running.printed.iter().map(String::as_str));
            assert_eq!(found.get(..wanted.len()), Some(&wanted[..]), "`{command}`: {found:?}");
            *(if start == SERVE { &mut ledger } else { &mut custodian }) = Some(running);
            continue;
        }
        let done = typed.output()?;
        let printed = String::from_utf8(done.stdout)? + &String::from_utf8(done.stderr)?;
        let found = lasting(printed.lines());
        assert!(done.status.success(), "`{command}` printed\n{printed}");
        assert_eq!(without_batches(found), without_batches(wanted), "`{command}`\n{printed}");
        if let Some(made) = printed.lines().find_map(|line| line.strip_prefix("ledger key")) {
            made.trim().clone_into(&mut key);
        }
    }
    assert!(custodian.is_some() && ledger.is_some(), "the tour ends with both running");
    Ok(())
}

#[test]
fn the_third_tour_of_the_readme_does_what_it_says() -> anyhow::Result<()> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let steps = steps(&readme, "## Third tour: on a network, where everybody has a name\n")?;
    let folder = tempfile::tempdir()?;
    let [port, _] = free_ports()?;
    let mut ledger: Option<(Running, String)> = None;
    for step in &steps {
        let command = &step.command;
        let wanted = lasting(step.printed.iter().map(String::as_str));
        if command.starts_with("access-ledger-server serve") {
            let typed = format!(
                "exec {command} --log error --listen 127.0.0.1:{port} --metrics-listen 127.0.0.1:0"
            );
            let running =
                Running::start(&mut shell(folder.path(), &typed)?, "  access-ledger verify")?;
            let found = lasting(running.printed.iter().map(String::as_str));
            assert_eq!(found.get(..wanted.len()), Some(&wanted[..]), "`{command}`: {found:?}");
            let key = running.printed.iter().find_map(|line| line.strip_prefix("ledger key"));
            let key = key.context("no ledger key")?.trim().to_owned();
            ledger = Some((running, key));
            continue;
        }
        let mut typed = shell(folder.path(), command)?;
        if let Some((_, key)) = &ledger {
            typed.env("ACCESS_LEDGER_SERVER", format!("https://localhost:{port}"));
            typed.env("ACCESS_LEDGER_CA", "ca.pem").env("LEDGER", key);
        }
        let done = typed.output()?;
        let printed = String::from_utf8(done.stdout)? + &String::from_utf8(done.stderr)?;
        assert_eq!(done.status.success(), !printed.contains("error:"), "`{command}`: {printed}");
        assert_eq!(lasting(printed.lines()), wanted, "`{command}` printed\n{printed}");
    }
    let (ledger, _) = ledger.context("the tour starts no ledger")?;
    ledger.stop()
}

#[test]
fn the_leaking_tool_is_found_as_the_readme_says() -> anyhow::Result<()> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let steps = steps(&readme, "## Find the tool that data leaves through\n")?;
    let folder = tempfile::tempdir()?;
    // The story is the same among any number of everyday accesses.
    let demo = Command::new(binaries()?.join("access-ledger-server"))
        .args(["--log", "error", "demo", "--accesses", "2000", "--keep", "half-year"])
        .current_dir(folder.path())
        .output()?;
    ensure!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    let server = Process::serve(&folder.path().join("half-year/ledger"), &[])?;
    let results = run(&steps, folder.path(), &server)?;
    let printed: Vec<&str> = results.iter().map(|(printed, _)| printed.as_str()).collect();
    let [flows, copies, findings] = printed[..] else {
        anyhow::bail!("{} commands", printed.len());
    };
    // Which tool, which data, where to, how much: word by word.
    assert!(flows.contains("moderation-tool,2.32.1,no,"), "{flows}");
    let rows = flows.lines().filter(|line| line.starts_with("moderation-tool,"));
    let told = steps.first().map(|step| step.printed.clone()).unwrap_or_default();
    assert_eq!(rows.collect::<Vec<_>>(), told);
    assert_eq!(copies.matches("moderation-tool #").count(), 3, "{copies}");
    assert!(findings.contains("COPY_OUTSIDE_CUSTODY-"), "{findings}");
    assert!(findings.contains("to=sg-review-cache SG"), "{findings}");
    Ok(())
}

#[test]
fn who_asks_first_is_answered_as_the_readme_says() -> anyhow::Result<()> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let steps = steps(&readme, "## Ask first: approvals, policy, authorize\n")?;
    let (serve, steps) = steps.split_first().context("the tour has no step")?;
    assert_eq!(serve.command, "access-ledger-server serve --data office");
    let folder = tempfile::tempdir()?;
    let server = Process::serve(&folder.path().join("office"), &[])?;
    let results = run(steps, folder.path(), &server)?;
    for (step, (printed, code)) in steps.iter().zip(&results) {
        expect(step, printed, code);
    }
    // That the README shows all three answers.
    let printed = |wanted: &str| results.iter().any(|(printed, _)| printed.starts_with(wanted));
    for answer in ["denied: GRANT_UNKNOWN", "allowed ", "denied: GRANT_REVOKED"] {
        assert!(printed(answer), "{answer}: {results:?}");
    }
    Ok(())
}

#[test]
fn commands_and_what_they_print_are_told_apart() -> anyhow::Result<()> {
    let text = "## Five-minute tour\n\n    $ one <<'EOF'\n    {a}\n    EOF\n    $ two\n    out\n\n      more\n\nWords:\n\n    export X=1\n\n## Next\n";
    let one = Step { command: "one <<'EOF'\n{a}\nEOF".to_owned(), printed: Vec::new() };
    let printed = ["out", "  more"].map(str::to_owned).to_vec();
    assert_eq!(steps(text, TOUR)?, [one, Step { command: "two".to_owned(), printed }]);
    Ok(())
}
