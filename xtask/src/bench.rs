//! Benchmarks: each number that `SPECIFICATION.md` promises, measured and printed
//! beside its limit.

mod cost;
pub(crate) mod large;
mod live_engine;
mod pe;
mod promise;
mod redis;
mod rounds;
mod spin;
mod windows;
mod xen;

use anyhow::{Context, Result};

use crate::invivo::Invivo;
use crate::workspace::Workspace;
use crate::{install, live, paint};
use promise::Promises;
use redis::Subject;
use spin::Spin;

/// How often each measurement is made.
#[derive(Debug, Clone, Copy)]
struct Effort {
    switches: usize,
    comparisons: usize,
    rounds: usize,
}

const USUAL: Effort = Effort {
    switches: 50,
    comparisons: 7,
    rounds: 1_000,
};

const QUICK: Effort = Effort {
    switches: 6,
    comparisons: 3,
    rounds: 20,
};

/// Measures every promise; `true` when all are kept.
pub(crate) fn run(workspace: &Workspace, quick: bool) -> Result<bool> {
    install::ensure(install::BENCH)?;
    let effort = if quick { QUICK } else { USUAL };
    let case = live::prepare(workspace, "redis-31228")?;
    let invivo = Invivo::build(workspace)?;
    let folder = workspace.fresh_folder("bench")?;
    let programs = workspace.corpus.join(case.name());
    let images = ["base", "fixed"].map(|variant| programs.join(variant).join(case.image()));
    let patch = folder.join("redis.invivo");
    let [base, fixed] = &images;
    invivo.make_patch(base, fixed, &patch, case.name(), case.label())?;
    say_machine()?;

    let mut promises = Promises::default();
    let cost = cost::run(
        workspace,
        &images,
        &patch,
        effort.comparisons,
        &mut promises,
    );
    promises.part("diff", cost);
    let switches = effort.switches;
    let subject = Subject {
        workspace,
        invivo: &invivo,
        case: case.as_ref(),
        patch: &patch,
    };
    redis::run(subject, switches, &mut promises);
    let spin = Spin::build(workspace, &invivo)?;
    let gaps = spin.gaps(&invivo, switches, &[1], &mut promises);
    promises.part("gaps", gaps);
    let stops = spin.stops(&invivo, switches, &mut promises);
    promises.part("stops", stops);
    let rounds = rounds::run(subject, effort.rounds, &mut promises);
    promises.part("rounds", rounds);
    Ok(promises.finish())
}

/// Measures what the engine that changes processes promises, beside the floor of the same
/// run; `true` when all is kept.
pub(crate) fn live(workspace: &Workspace, quick: bool) -> Result<bool> {
    install::ensure(install::BENCH)?;
    let invivo = Invivo::build(workspace)?;
    say_machine()?;
    let mut promises = Promises::default();
    let switches = if quick { QUICK } else { USUAL }.switches;
    live_engine::run(workspace, &invivo, switches, &mut promises)?;
    Ok(promises.finish())
}

/// Measures what making patches of Windows images live takes; `true` when all is kept.
pub(crate) fn windows(workspace: &Workspace, quick: bool) -> Result<bool> {
    install::ensure(install::WINDOWS)?;
    install::ensure(install::BENCH)?;
    Invivo::build(workspace)?;
    say_machine()?;
    let mut promises = Promises::default();
    let effort = if quick { QUICK } else { USUAL };
    pe::run(workspace, effort.switches, &mut promises)?;
    let largest = pe::largest(workspace, effort.comparisons, &mut promises);
    promises.part("the largest image", largest);
    Ok(promises.finish())
}

/// Measures what the tests with Xen take, from nothing; `true` when all is kept.
pub(crate) fn hypervisors(workspace: &Workspace) -> Result<bool> {
    install::ensure(install::XEN)?;
    Invivo::build(workspace)?;
    say_machine()?;
    let mut promises = Promises::default();
    xen::run(workspace, &mut promises)?;
    Ok(promises.finish())
}

/// Figures mean little without the machine they come from.
fn say_machine() -> Result<()> {
    let read =
        |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let load = read("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    println!(
        "{}, Linux {}, load {load} before the start",
        paint::of(std::thread::available_parallelism()?.get() as u64, "core"),
        read("/proc/sys/kernel/osrelease")?.trim(),
    );
    Ok(())
}
