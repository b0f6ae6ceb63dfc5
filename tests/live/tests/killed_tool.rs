//! The tool is killed at any instant: the process goes on with the old code or the new, answers what it must, and the
//! next command brings it back to one of the two.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::{Build, Version, compile};
use live_tests::invivo::{self, apply, listed, recover, revert};
use live_tests::killed::{Whom, killed_before, most_interrupted};
use live_tests::memory::{Snapshot, resident_kb};
use live_tests::pair::Pair;
use live_tests::target::Target;
use live_tests::workdir::in_workdir;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// How often the tool is killed at random.
const KILLS: u32 = 300;

struct Scene {
    target: Target,
    first: PathBuf,
    second: PathBuf,
    before: Snapshot,
}

// A program in which threads run through the patched function all the time, and two versions of its fix.
fn scene(body: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    in_workdir("killed", |dir| {
        let pair = Pair::build(dir, "crowd.c", Build::default())?;
        let again = compile(dir, &pair.fixture, Version::FixedAgain, Build::default())?;
        let second = dir.join("second.patch");
        invivo::build(
            &pair.base,
            &again,
            &second,
            &["--name", "second", "--sequence", "2"],
        )?;
        let target = pair.start()?;
        let before = Snapshot::of(target.pid())?;
        let mut scene = Scene {
            first: pair.patch()?,
            second,
            target,
            before,
        };
        body(&mut scene)
    })
}

impl Scene {
    /// The deputy sees to it that epoll_wait goes on where its thread was stopped, whenever the tool is killed, unless
    /// somebody kills the deputy, too.
    fn few_interrupted(&mut self, kills: usize, most: usize) -> Result<()> {
        let interrupted: usize = self.target.ask("interrupted")?.parse()?;
        println!("{interrupted} calls of epoll_wait were interrupted in {kills} kills");
        ensure!(interrupted <= most, "{interrupted} in {kills} kills");
        Ok(())
    }

    fn pid(&self) -> u32 {
        self.target.pid()
    }

    /// The price is that of one version, and no thread was disturbed.
    fn is_well(&mut self) -> Result<String> {
        let price = self.target.ask("price")?;
        ensure!(
            ["10", "12", "13"].contains(&price.as_str()),
            "the price is {price}"
        );
        let who = self.target.ask("who")?;
        self.target
            .expect("trouble", "early 0 strange 0")
            .context(who)?;
        Ok(price)
    }

    /// What is listed as live is what answers; nothing is between two states.
    fn is_settled(&mut self) -> Result<()> {
        let price = self.is_well()?;
        let live = listed(self.pid())?;
        let expected = match live.first() {
            None => "10",
            Some(patch) if patch["name"] == "second" => "13",
            Some(_) => "12",
        };
        ensure!(
            live.len() <= 1 && live.iter().all(|patch| patch["state"] == "applied"),
            "not settled: {live:?}"
        );
        ensure!(
            price == expected,
            "{price} is answered, but live is {live:?}"
        );
        Ok(())
    }

    fn back_to_base(&mut self) -> Result<()> {
        let ran = revert(None, self.pid())?;
        ran.expect_code(0)?;
        self.target.expect("price", "10")?;
        self.before.expect_same().with_context(|| ran.told())
    }
}

fn words<'a>(verb: &'a str, patch: Option<&'a Path>, pid: &'a str) -> Result<Vec<&'a str>> {
    let mut words = vec![verb];
    if let Some(patch) = patch {
        words.push(patch.to_str().context("a strange path")?);
    }
    words.extend(["-p", pid, "--timeout", "20"]);
    Ok(words)
}

// Kills the command before its first step, its second, and so on until it lives to its end. `prepare` makes the state
// that it begins with.
fn at_every_step(
    more: &[&str],
    verb: &str,
    prepare: impl Fn(&Scene) -> Result<()>,
    patch: impl Fn(&Scene) -> Option<PathBuf>,
) -> Result<()> {
    for whom in [Whom::Tool, Whom::Everything] {
        scene(|scene| each_step(scene, whom, (verb, more), &prepare, &patch))
            .with_context(|| format!("{whom:?} killed"))?;
    }
    Ok(())
}

fn each_step(
    scene: &mut Scene,
    whom: Whom,
    (verb, more): (&str, &[&str]),
    prepare: &impl Fn(&Scene) -> Result<()>,
    patch: &impl Fn(&Scene) -> Option<PathBuf>,
) -> Result<()> {
    let pid = scene.pid().to_string();
    let patch = patch(scene);
    let command = [&words(verb, patch.as_deref(), &pid)?[..], more].concat();
    for step in 0.. {
        prepare(scene)?;
        let killed = killed_before(&command, step, whom)?;
        scene
            .is_well()
            .with_context(|| format!("killed before step {step}"))?;
        recover(scene.pid())?
            .expect_code(0)
            .with_context(|| format!("after step {step}"))?;
        scene
            .is_settled()
            .with_context(|| format!("recovered after step {step}"))?;
        recover(scene.pid())?.expect_state("nothing to do")?;
        scene
            .back_to_base()
            .with_context(|| format!("after step {step}"))?;
        if !killed {
            ensure!(step > 20, "only {step} steps: they are not counted");
            let most = most_interrupted(whom, step);
            return scene.few_interrupted(step, most);
        }
    }
    Ok(())
}

fn nothing(_: &Scene) -> Result<()> {
    Ok(())
}

fn with_the_first(scene: &Scene) -> Result<()> {
    apply(&scene.first, scene.pid(), &[])?.expect_state("applied")?;
    Ok(())
}

/// An apply that stops nobody.
#[test]
fn apply_killed_at_every_step() -> Result<()> {
    at_every_step(&[], "apply", nothing, |scene| Some(scene.first.clone()))
}

/// An apply for which all threads stand.
#[test]
fn quiescent_apply_killed_at_every_step() -> Result<()> {
    let quiescent = ["--consistency", "quiescent"];
    at_every_step(&quiescent, "apply", nothing, |scene| {
        Some(scene.first.clone())
    })
}

/// A second version takes the place of the first.
#[test]
fn replace_killed_at_every_step() -> Result<()> {
    at_every_step(&[], "apply", with_the_first, |scene| {
        Some(scene.second.clone())
    })
}

/// The same in a quiet moment.
#[test]
fn quiescent_replace_killed_at_every_step() -> Result<()> {
    let quiescent = ["--consistency", "quiescent"];
    at_every_step(&quiescent, "apply", with_the_first, |scene| {
        Some(scene.second.clone())
    })
}

/// What went live in a quiet moment is taken back in one.
#[test]
fn quiescent_revert_killed_at_every_step() -> Result<()> {
    let prepare = |scene: &Scene| -> Result<()> {
        let quiescent = ["--consistency", "quiescent", "--timeout", "20"];
        apply(&scene.first, scene.pid(), &quiescent)?.expect_state("applied")?;
        Ok(())
    };
    at_every_step(&[], "revert", prepare, |_| None)
}

/// A revert that stops nobody.
#[test]
fn revert_killed_at_every_step() -> Result<()> {
    at_every_step(&[], "revert", with_the_first, |_| None)
}

/// A recover that is killed in turn.
#[test]
fn recover_killed_at_every_step() -> Result<()> {
    scene(|scene| {
        let (first, pid) = (scene.first.clone(), scene.pid().to_string());
        let command = words("apply", Some(&first), &pid)?;
        // The step in the middle of an apply after which most is left to do is not known, so all of them are tried.
        let mut open = 0;
        for step in 0.. {
            if !killed_before(&command, step, Whom::Everything)? {
                break;
            }
            for inner in 0.. {
                if !killed_before(&words("recover", None, &pid)?, inner, Whom::Everything)? {
                    break;
                }
                open += 1;
                scene
                    .is_well()
                    .with_context(|| format!("steps {step} and {inner}"))?;
            }
            scene
                .is_settled()
                .with_context(|| format!("after step {step}"))?;
            scene
                .back_to_base()
                .with_context(|| format!("after step {step}"))?;
        }
        ensure!(open > 10, "hardly anything was left to recover");
        Ok(())
    })
}

/// A busy neighbour, so that a thread on its processor hardly gets any time. It ends with this.
struct Neighbour(Child);

impl Neighbour {
    fn of(pid: u32) -> Result<Self> {
        let spins = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()?;
        let neighbour = Self(spins);
        let mut one = CpuSet::new();
        one.set(0)?;
        for pid in [pid, neighbour.0.id()] {
            sched_setaffinity(Pid::from_raw(pid.try_into()?), &one)?;
        }
        // The lowest of all: others run first, also when it has just been woken.
        let idle = ["--idle", "--pid", "0", &pid.to_string()];
        let set = Command::new("chrt").args(idle).output()?;
        ensure!(set.status.success(), "{set:?}");
        Ok(neighbour)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thread that was sent to make a call hardly gets a processor: `recover` waits for it, and does not keep it from
/// getting there by looking too often.
#[test]
fn thread_without_processor_when_killed() -> Result<()> {
    in_workdir("starved", |dir| {
        let pair = Pair::build(dir, "asked.c", Build::default())?;
        let (patch, mut target) = (pair.patch()?, pair.start()?);
        let (before, pid) = (Snapshot::of(target.pid())?, target.pid().to_string());
        let neighbours = (0..8).map(|_| Neighbour::of(target.pid()));
        let _neighbours: Vec<Neighbour> = neighbours.collect::<Result<_>>()?;
        let command = words("apply", Some(&patch), &pid)?;
        // Each takes a second or so.
        for step in (0..).step_by(4) {
            let killed = killed_before(&command, step, Whom::Everything)?;
            recover(target.pid())?.expect_code(0)?;
            let live = !listed(target.pid())?.is_empty();
            target.expect("price", if live { "new 12" } else { "old 10" })?;
            revert(None, target.pid())?.expect_code(0)?;
            before
                .expect_same()
                .with_context(|| format!("killed before step {step}"))?;
            if !killed {
                ensure!(step > 20, "only {step} steps: they are not counted");
                break;
            }
        }
        Ok(())
    })
}

/// Killed at random instants, under load, many times: what the next command is makes no difference.
#[test]
fn killed_at_random() -> Result<()> {
    scene(|scene| {
        let pid = scene.pid().to_string();
        let (first, second) = (scene.first.clone(), scene.second.clone());
        let commands = [
            words("apply", Some(&first), &pid)?,
            [
                &words("apply", Some(&second), &pid)?[..],
                &["--consistency", "quiescent"],
            ]
            .concat(),
            words("revert", None, &pid)?,
        ];
        let started = Instant::now();
        scene.back_to_base()?;
        let usual = started.elapsed();
        let mut resident = 0;
        let mut chance = u64::from(std::process::id());
        for kill in 0..KILLS {
            // A plain congruential generator: the times are spread, and that is all they have to be.
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mut child = Command::new(binary::invivo()?)
                .args(&commands[kill as usize % commands.len()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            sleep(usual.mul_f64((chance >> 40) as f64 / f64::from(1 << 24)));
            child.kill()?;
            child.wait()?;
            scene.is_well().with_context(|| format!("kill {kill}"))?;
            if kill % 2 == 0 {
                recover(scene.pid())?.expect_code(0)?;
                scene.is_settled().with_context(|| format!("kill {kill}"))?;
            }
            if kill == KILLS / 3 {
                resident = resident_kb(scene.pid())?;
            }
        }
        recover(scene.pid())?.expect_code(0)?;
        scene.is_settled()?;
        scene.back_to_base()?;
        let now = resident_kb(scene.pid())?;
        ensure!(now <= resident + 200, "{resident} kB became {now} kB");
        scene.few_interrupted(KILLS as usize, 0)
    })
}
