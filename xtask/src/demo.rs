//! The demo: a server leaks its clients' passwords, and is repaired while it
//! works, in front of a person.

mod client;
mod timeline;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::invivo::{Invivo, Outcome};
use crate::load::Clients;
use crate::process::{self, Server};
use crate::workspace::Workspace;
use crate::{install, paint};
use client::{Board, CONNECTIONS};
use timeline::Timeline;

const NAME: &str = "heartbeat-fix";
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the demo; `true` when everything it shows was really so.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    install::ensure(install::DEMO)?;
    heading("A server, and a fix for it");
    let [base, fixed] = build(workspace)?;
    show_fix(workspace)?;
    let invivo = Invivo::build(workspace)?;

    heading("What the fix changes in the program");
    let words = ["diff".as_ref(), base.as_os_str(), fixed.as_os_str()];
    let diff = invivo.run(&words)?;
    indent(&diff.stdout);
    indent(&diff.stderr);
    if !diff.status.success() {
        bail!("the two builds cannot be compared");
    }
    let patch = workspace.target.join("demo/heartbeat.invivo");
    invivo.make_patch(&base, &fixed, &patch, NAME, "demo")?;

    heading("The server works, and is repaired while it works");
    let port = process::free_port()?;
    let log = workspace.target.join("demo/log");
    let mut server = Server::start(Command::new(&base).arg(port.to_string()), port, &log)?;
    // Once it has answered, its threads are all there.
    let taste = client::taste(port)?;
    println!(
        "  process {}, {} threads, {CONNECTIONS} connections; every second heartbeat lies about its length",
        server.pid(),
        server.threads()
    );
    println!(
        "  the server answers such a heartbeat: {}\n",
        paint::bad(taste)
    );

    let board = Arc::new(Board::default());
    let mut clients = Clients::default();
    for number in 0..CONNECTIONS {
        let board = Arc::clone(&board);
        clients.start(format!("client {number}"), move |client| {
            client::work(client, port, number, &board)
        })?;
    }
    let meter = Arc::clone(&clients.meter);
    let timeline = Timeline::start(&board);
    let pause = || thread::sleep(Duration::from_secs(2));
    let step = |what: &str, outcome: Result<Outcome>| -> Result<Outcome> {
        let outcome = outcome.with_context(|| {
            let errors = meter.errors();
            let seen = if errors.is_empty() {
                "no client lost its connection".to_owned()
            } else {
                errors.join("; ")
            };
            format!("not {what}; {seen}")
        })?;
        // Only what is sent from here on must be answered by the new code.
        meter.next_phase();
        timeline.event(&tell(what, &outcome));
        pause();
        Ok(outcome)
    };

    pause();
    meter.next_phase();
    let applied = step("patch applied", invivo.apply(&patch, server.pid()))?;
    meter.next_phase();
    let reverted = step("patch reverted", invivo.revert(NAME, server.pid()))?;
    meter.next_phase();
    let again = step("patch applied again", invivo.apply(&patch, server.pid()))?;

    timeline.end();
    let alive = server.alive();
    let records = clients.finish();
    let outcomes = [
        ("applied", applied),
        ("reverted", reverted),
        ("applied", again),
    ];
    Ok(timeline::summary(
        &board,
        &records,
        &meter.errors(),
        alive,
        &outcomes,
    ))
}

fn heading(text: &str) {
    println!("\n{}\n", paint::bold(text));
}

fn indent(text: &str) {
    text.lines().for_each(|line| println!("  {line}"));
}

fn tell(what: &str, outcome: &Outcome) -> String {
    let functions = paint::of(outcome.hooks, "function");
    let stopped = if outcome.stopped_us == 0 {
        format!("nobody stopped ({})", outcome.switch)
    } else {
        format!(
            "all threads stood for {}",
            paint::micros(outcome.stopped_us)
        )
    };
    format!(
        "{what} in {}: {functions}, {stopped}",
        paint::micros(outcome.wall_us)
    )
}

fn show_fix(workspace: &Workspace) -> Result<()> {
    let fix = workspace.root.join("demo/heartbeat.patch");
    let text =
        std::fs::read_to_string(&fix).with_context(|| format!("cannot read {}", fix.display()))?;
    for line in text.lines() {
        let line = match line.chars().next() {
            Some('+') => paint::good(line),
            Some('-') => paint::bad(line),
            _ => paint::dim(line),
        };
        println!("  {line}");
    }
    Ok(())
}

/// Builds the server without and with the fix, in the same folder, so that the
/// fix is the only difference.
fn build(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let work = workspace.fresh_folder("demo")?;
    let source = work.join("source");
    std::fs::create_dir(&source)?;
    let demo = workspace.root.join("demo");
    for file in ["server.c", "heartbeat.c", "heartbeat.h"] {
        std::fs::copy(demo.join(file), source.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    let base = work.join("base/server");
    let fixed = work.join("fixed/server");
    compile(&source, &base)?;
    let mut patch = Command::new("patch");
    patch
        .current_dir(&source)
        .args(["-p1", "--silent", "-i"])
        .arg(demo.join("heartbeat.patch"));
    succeed(&mut patch)?;
    compile(&source, &fixed)?;
    Ok([base, fixed])
}

fn compile(source: &Path, program: &Path) -> Result<()> {
    std::fs::create_dir_all(program.parent().context("a program lies in a folder")?)?;
    let mut cc = Command::new("cc");
    cc.current_dir(source)
        .args([
            "-O2",
            "-g",
            "-fPIE",
            "-pie",
            "-pthread",
            "-Wall",
            "-Wextra",
            "server.c",
            "heartbeat.c",
            "-o",
        ])
        .arg(program);
    succeed(&mut cc)
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = process::capture(command, LIMIT)?;
    if !output.status.success() {
        bail!(
            "{} failed: {}{}",
            command.get_program().to_string_lossy(),
            output.stdout,
            output.stderr
        );
    }
    Ok(())
}
