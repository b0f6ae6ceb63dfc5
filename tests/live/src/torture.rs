//! Kills at random instants and many rounds, against a server whose clients check every answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill as kill_process};
use nix::unistd::Pid;

use crate::binary;
use crate::clients::Clients;
use crate::compile::{Build, Version, compile};
use crate::invivo::{self, apply, listed, recover, revert};
use crate::killed::{Whom, most_interrupted};
use crate::memory::{Snapshot, expect_no_writable_code, mappings, resident_kb};
use crate::pair::Pair;
use crate::target::Target;
use crate::workdir::in_workdir;

/// Clients that ask at the same time.
const CLIENTS: usize = 2;
/// Memory that the target may take meanwhile for its own purposes, in kB.
const SLACK: u64 = 256;
/// One kill in so many hits the tool's deputy too.
const EVERYTHING: usize = 4;
/// A thread whose call was interrupted has said so after this time, also on a busy machine.
const RETURN: Duration = Duration::from_millis(50);
/// After so many kills the target is brought back and compared byte by byte.
const COMPARED: usize = 40;

/// A server at work, and three versions of its fix; the third is the first once more.
struct Scene {
    target: Target,
    clients: Clients,
    patches: [PathBuf; 3],
    before: Snapshot,
}

fn scene(source: &str, body: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    in_workdir("torture", |dir| {
        let pair = Pair::build(dir, source, Build::default())?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, Build::default())?;
        let patch = |fixed: &Path, name: &str, sequence: &str| -> Result<PathBuf> {
            let patch = dir.join(name).with_extension("patch");
            let more = ["--name", name, "--sequence", sequence];
            invivo::build(&pair.base, fixed, &patch, &more)?;
            Ok(patch)
        };
        let patches = [
            patch(&pair.fixed, "first", "1")?,
            patch(&again, "second", "2")?,
            patch(&pair.fixed, "third", "3")?,
        ];
        let mut target = pair.start()?;
        let port = target.ask("port")?.parse()?;
        let mut scene = Scene {
            clients: Clients::start(CLIENTS, port)?,
            before: Snapshot::of(target.pid())?,
            patches,
            target,
        };
        body(&mut scene)?;
        let answers = scene.clients.end()?;
        println!("    {answers} answers, all of them right");
        Ok(())
    })
}

impl Scene {
    fn pid(&self) -> u32 {
        self.target.pid()
    }

    /// Nobody was answered wrongly, and no call but an interrupted one came back; tells how many were.
    fn is_well(&mut self) -> Result<usize> {
        self.clients.are_well()?;
        let trouble = self.target.ask("trouble")?;
        let words: Vec<&str> = trouble.split(' ').collect();
        let ["interrupted", interrupted, "early", "0", "strange", "0"] = words[..] else {
            anyhow::bail!("the target says: {trouble}");
        };
        Ok(interrupted.parse()?)
    }

    /// What is listed as live is what answers; nothing is between two states.
    fn is_settled(&mut self) -> Result<()> {
        let live = listed(self.pid())?;
        let one = live.len() <= 1 && live.iter().all(|patch| patch["state"] == "applied");
        ensure!(one, "not settled: {live:?}");
        let expected = match live.first() {
            None => "10",
            Some(patch) if patch["name"] == "second" => "13",
            Some(_) => "12",
        };
        self.target.expect("price", expected)
    }

    fn back_to_base(&mut self) -> Result<()> {
        revert(None, self.pid())?.expect_code(0)?;
        self.target.expect("price", "10")?;
        expect_no_writable_code(self.pid())?;
        self.before.expect_same()
    }

    /// The commands of a round: forth, on, back to the first version, and off.
    fn commands(&self) -> Result<Vec<Vec<String>>> {
        let pid = self.pid().to_string();
        let line = |words: &[&str]| -> Vec<String> {
            let rest = ["-p", &pid, "--timeout", "20", "--json"];
            words
                .iter()
                .chain(&rest)
                .map(|word| (*word).to_owned())
                .collect()
        };
        let mut all = Vec::new();
        for consistency in ["entry", "quiescent"] {
            for patch in &self.patches {
                let patch = patch.to_str().context("a strange path")?;
                all.push(line(&["apply", patch, "--consistency", consistency]));
            }
            all.push(line(&["revert"]));
        }
        Ok(all)
    }

    /// How long each command runs, and how much of that, at its end, it works on the target.
    fn usual(&mut self, commands: &[Vec<String>]) -> Result<Vec<(Duration, Duration)>> {
        let mut usual = Vec::new();
        for command in commands {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let started = Instant::now();
            let ran = invivo::invivo(&words)?;
            let took = started.elapsed();
            ran.expect_code(0)?;
            let json = ran.json("invivo.outcome/1")?;
            let wall = json["processes"][0]["wall_us"]
                .as_u64()
                .context("no wall_us")?;
            usual.push((took, Duration::from_micros(wall).min(took)));
        }
        Ok(usual)
    }
}

/// A plain congruential generator: the instants are spread, and that is all they have to be.
struct Chance(u64);

impl Chance {
    /// Between 0 and 1.
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }
}

/// Kills the tool `count` times beside the fixture `source`, a server: apply, replace and revert, half of the instants anywhere in its run and half of them
/// while it works on the target.
///
/// # Errors
///
/// When the target is harmed in any way, or is not settled afterwards.
pub fn kill(source: &str, count: usize) -> Result<()> {
    scene(source, |scene| {
        let commands = scene.commands()?;
        let usual = scene.usual(&commands)?;
        let mut chance = Chance(u64::from(std::process::id()));
        let mut first_third = None;
        let (mut early, mut in_time, mut interrupted) = (0, 0, [0, 0]);
        let mut of_everything = 0;
        let mut pace = 1.0;
        for number in 0.. {
            if in_time == count {
                break;
            }
            ensure!(
                number < 4 * count + 100,
                "hardly any kill met the tool alive"
            );
            let which = number % commands.len();
            let (run, live) = usual[which];
            let after = match number / commands.len() % 2 {
                0 => run.mul_f64(chance.next() * 1.1),
                _ => run - live + live.mul_f64(chance.next() * 1.2),
            };
            let after = after.mul_f64(pace);
            let whom = if chance.next() < 1.0 / EVERYTHING as f64 {
                Whom::Everything
            } else {
                Whom::Tool
            };
            let was_alive = killed_after(&commands[which], after, whom)?;
            // What else the machine does makes the tool slower or faster than it was at first.
            if was_alive {
                in_time += 1;
                of_everything += usize::from(whom == Whom::Everything);
                pace *= 1.01;
            } else {
                early += 1;
                pace *= 0.97;
            }
            pace = f64::clamp(pace, 0.1, 10.0);
            let told = || {
                format!(
                    "kill {number} of {whom:?}, {after:?} after the start of {:?}",
                    commands[which]
                )
            };
            // What is killed in the middle of a stop lets go a moment later.
            if number % 3 == 0 || whom == Whom::Everything {
                recover(scene.pid())?.expect_code(0).with_context(told)?;
                scene.is_settled().with_context(told)?;
            }
            if whom == Whom::Everything {
                // Whose call ended with its tracer counts it as soon as it gets a processor.
                sleep(RETURN);
            }
            let now = scene.is_well().with_context(told)?;
            interrupted[usize::from(whom == Whom::Everything)] +=
                now - interrupted[0] - interrupted[1];
            if number % COMPARED == COMPARED - 1 {
                scene.back_to_base().with_context(told)?;
            }
            if first_third.is_none() && in_time >= count / 3 {
                recover(scene.pid())?.expect_code(0).with_context(told)?;
                scene.back_to_base().with_context(told)?;
                first_third = Some((resident_kb(scene.pid())?, mappings(scene.pid())?.len()));
            }
        }
        recover(scene.pid())?.expect_code(0)?;
        scene.is_settled()?;
        scene.back_to_base()?;
        let (resident, maps) = first_third.context("no kill met the tool alive")?;
        let (last, last_maps) = (resident_kb(scene.pid())?, mappings(scene.pid())?.len());
        println!("    {count} kills while the tool ran; {early} more came after its end");
        println!(
            "    interrupted calls: {} where the tool was killed, {} in {of_everything} kills of its deputy, too",
            interrupted[0], interrupted[1]
        );
        println!(
            "    from the first third to the end: {maps} and {last_maps} mappings, {resident} and {last} kB resident"
        );
        ensure!(
            last <= resident + SLACK,
            "memory grew from {resident} to {last} kB"
        );
        ensure!(
            last_maps == maps,
            "{maps} mappings became {last_maps}: {:x?}",
            mappings(scene.pid())?
        );
        let kills = [
            (Whom::Tool, in_time - of_everything),
            (Whom::Everything, of_everything),
        ];
        for ((whom, kills), calls) in kills.into_iter().zip(interrupted) {
            ensure!(
                calls <= most_interrupted(whom, kills),
                "{calls} calls were interrupted in {kills} kills of {whom:?}"
            );
        }
        Ok(())
    })
}

/// Runs the command and kills it `after` its start. True if it still ran.
fn killed_after(words: &[String], after: Duration, whom: Whom) -> Result<bool> {
    let mut child = Command::new(binary::invivo()?)
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    sleep(after);
    let was_alive = child.try_wait()?.is_none();
    if was_alive {
        match whom {
            Whom::Tool => child.kill()?,
            Whom::Everything => {
                // The deputy first: alive it would go on when it sees the other one dead.
                for deputy in deputies(child.id())? {
                    // One that has just ended, or begins only now, is missed.
                    let _ = kill_process(Pid::from_raw(deputy), Signal::SIGKILL);
                }
                child.kill()?;
            }
        }
        child.wait()?;
    }
    Ok(was_alive)
}

/// The processes that a thread of the tool has started.
fn deputies(tool: u32) -> Result<Vec<i32>> {
    let mut all = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{tool}/task"))? {
        let children = std::fs::read_to_string(thread?.path().join("children"));
        // A thread that has ended meanwhile has none.
        let children = children.unwrap_or_default();
        for child in children.split_whitespace() {
            all.push(child.parse()?);
        }
    }
    Ok(all)
}

/// Applies, replaces twice and reverts, `rounds` times, beside the fixture `source`, a server.
///
/// # Errors
///
/// When a request is lost, the target grows, or is not as before in the end.
pub fn soak(source: &str, rounds: usize) -> Result<()> {
    scene(source, |scene| {
        let pid = scene.pid();
        let size = || -> Result<(usize, u64, u64)> {
            let maps = mappings(pid)?;
            let bytes: u64 = maps.iter().map(|mapping| mapping.end - mapping.start).sum();
            Ok((maps.len(), bytes / 1024, resident_kb(pid)?))
        };
        let mut first = None;
        for round in 0..rounds {
            let more = [
                "--consistency",
                ["entry", "quiescent"][round % 2],
                "--timeout",
                "20",
            ];
            for (patch, price) in scene.patches.clone().iter().zip(["12", "13", "12"]) {
                apply(patch, pid, &more)?.expect_state("applied")?;
                scene.target.expect("price", price)?;
            }
            revert(None, pid)?.expect_state("reverted")?;
            scene.target.expect("price", "10")?;
            let interrupted = scene.is_well().with_context(|| format!("round {round}"))?;
            ensure!(
                interrupted == 0,
                "{interrupted} calls were interrupted, round {round}"
            );
            // Each way to go live has been gone once.
            if round == 1 {
                first = Some(size()?);
            }
        }
        let (first, last) = (first.context("at least two rounds, please")?, size()?);
        scene.back_to_base()?;
        println!("    {rounds} rounds of apply, two replacements and revert");
        println!(
            "    after the second and the last round: {} and {} mappings, {} and {} kB, {} and {} kB resident",
            first.0, last.0, first.1, last.1, first.2, last.2
        );
        ensure!(
            (first.0, first.1) == (last.0, last.1),
            "mappings were left behind"
        );
        ensure!(
            last.2 <= first.2 + SLACK,
            "memory grew from {} to {} kB",
            first.2,
            last.2
        );
        Ok(())
    })
}
