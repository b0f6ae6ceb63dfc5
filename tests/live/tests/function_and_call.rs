//! Functions of every shape, called in every way. What each shows and why it is hard stands in its fixture.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, tool};
use live_tests::invivo::{apply, invivo, revert};
use live_tests::pair::Pair;
use live_tests::round_trip::{round_trip, round_trip_as, there_and_back};
use live_tests::target::Side;
use live_tests::workdir::in_workdir;

/// Six integers and eight doubles in registers, the rest on the stack: a hook may touch none of them.
#[test]
fn ten_integer_and_ten_float_arguments() -> Result<()> {
    round_trip("args20.c")
}

/// Inner calls through the old symbol must reach the new code at every depth.
#[test]
fn double_and_mutual_recursion() -> Result<()> {
    round_trip("recursion.c")
}

/// The register al counts the vector arguments, and is easily lost in a stub.
#[test]
fn variadic_function() -> Result<()> {
    round_trip("varargs.c")
}

/// A hidden pointer argument that must also be returned.
#[test]
fn structure_returned_in_memory() -> Result<()> {
    round_trip("struct_return.c")
}

/// The only thread is nearly always inside a leaf, with values below its stack pointer, while it is visited.
#[test]
fn leaf_keeps_its_red_zone() -> Result<()> {
    round_trip("red_zone.c")
}

/// The new jump table lies in the patch and counts from there.
#[test]
fn function_with_a_jump_table() -> Result<()> {
    round_trip("jump_table.c")
}

/// No call site names the function; the running program's table keeps its old address.
#[test]
fn function_reached_only_through_a_pointer_table() -> Result<()> {
    round_trip("pointer_table.c")
}

/// The kernel holds the handler's address, and the handler may interrupt anything.
#[test]
fn patched_function_called_from_a_signal_handler() -> Result<()> {
    round_trip("signal_handler.c")
}

/// New code calls an added function, which calls an unchanged one in the base.
#[test]
fn new_function_is_added() -> Result<()> {
    round_trip("new_function.c")
}

/// All callers change together with the callee; mixing them up passes a wrong argument.
#[test]
fn changed_signature_of_a_static_function() -> Result<()> {
    round_trip("signature.c")
}

/// The first instruction must stay what it is, or an indirect call faults.
#[test]
fn entry_that_starts_with_endbr64() -> Result<()> {
    round_trip("endbr.c")
}

/// Reached by a jump and left by a jump: no return address of its own.
#[test]
fn tail_call() -> Result<()> {
    round_trip("tail_call.c")
}

/// One to four bytes of code: nothing in it is long enough for a jump.
#[test]
fn function_of_one_to_four_bytes() -> Result<()> {
    in_workdir("tiny.c", |dir| {
        let pair = Pair::build(dir, "tiny.c", Build::default())?;
        let mut nm = Command::new("nm");
        nm.arg("-S").arg(&pair.base);
        let symbols = tool(nm)?.stdout;
        for (size, name) in (1..).zip(&pair.fixture.hot) {
            let line = format!("{size:016x} T {name}");
            ensure!(
                symbols.lines().any(|symbol| symbol.ends_with(&line)),
                "{name} is not of {size} bytes:\n{symbols}"
            );
        }
        there_and_back(&pair, &pair.patch()?, &mut pair.start()?)
    })
}

/// It leaves by longjmp or ends its process.
#[test]
fn function_that_never_returns() -> Result<()> {
    round_trip("leave.c")
}

/// The compiler let a caller rely on registers which only the old callee leaves alone.
#[test]
fn caller_that_relies_on_the_callees_registers() -> Result<()> {
    round_trip("register_contract.c")
}

/// A store over a border of pages or cache lines may be seen in halves, so it must not be a plain store.
#[test]
fn entries_that_cross_a_page_and_a_line() -> Result<()> {
    round_trip("crossing.c")?;
    while_threads_run_through("crossing.c", "jump over one instruction", false)
}

/// The threads stop for a moment, and whoever stands between the replaced instructions is let go first.
#[test]
fn several_instructions_at_once() -> Result<()> {
    round_trip("overwritten.c")?;
    while_threads_run_through("overwritten.c", "jump over several instructions", true)
}

// Two threads do nothing but call the functions; `form` is the hook that they get, for which the threads stop or not.
fn while_threads_run_through(source: &str, form: &str, stops: bool) -> Result<()> {
    const ROUNDS: usize = 150;
    in_workdir(source, |dir| {
        let pair = Pair::build(dir, source, Build::default())?;
        let (patch, mut target) = (pair.patch()?, pair.start()?);
        let (file, pid) = (patch.display().to_string(), target.pid().to_string());
        let plan = invivo(&["plan", &file, "-p", &pid])?;
        let told = plan.stdout.contains("a stop of all threads now");
        ensure!(
            plan.stdout.contains(form) && told == stops,
            "{}",
            plan.told()
        );
        for round in 0..ROUNDS {
            (|| -> Result<()> {
                let applied = apply(&patch, target.pid(), &[])?.expect_state("applied")?;
                let stood = applied["stopped_us"].as_u64().unwrap_or(0) > 0;
                ensure!(stood == stops, "{applied}");
                target.expect_all(&pair.fixture.asks, Side::New)?;
                revert(None, target.pid())?.expect_state("reverted")?;
                target.expect_all(&pair.fixture.asks, Side::Old)
            })()
            .with_context(|| format!("round {round}"))?;
        }
        let passes = target.ask("passes")?;
        let enough = |count: &str| count.parse::<usize>().is_ok_and(|count| count > ROUNDS);
        ensure!(
            passes.split(' ').all(enough),
            "the threads hardly ran: {passes} calls"
        );
        Ok(())
    })
}

/// The loader chose the implementation long ago; the slot keeps the old address.
#[test]
fn ifunc_and_its_callers() -> Result<()> {
    round_trip("ifunc.c")
}

/// What ran at the start is not run again.
#[test]
fn called_in_a_constructor_before() -> Result<()> {
    in_workdir("constructor.c", |dir| {
        let pair = Pair::build(dir, "constructor.c", Build::default())?;
        let (patch, mut target) = (pair.patch()?, pair.start()?);
        for _ in 0..2 {
            target.expect("early", "old")?;
            apply(&patch, target.pid(), &[])?.expect_state("applied")?;
            target.expect_all(&pair.fixture.asks, Side::New)?;
            target.expect("early", "old")?;
            revert(None, target.pid())?.expect_state("reverted")?;
            target.expect_all(&pair.fixture.asks, Side::Old)?;
        }
        target.expect("early", "old")
    })
}

/// The old function stays, and is not called any more.
#[test]
fn function_is_removed() -> Result<()> {
    round_trip("removed.c")
}

/// Nothing but a return is left of it.
#[test]
fn function_made_empty() -> Result<()> {
    round_trip("emptied.c")
}

/// All of them go live in one step.
#[test]
fn a_thousand_functions() -> Result<()> {
    round_trip("thousands.c")
}

/// The record, the hooks and the checks are ten thousand as well.
#[test]
fn ten_thousand_functions() -> Result<()> {
    let flags = ["-DTEN"];
    let build = Build {
        flags: &flags,
        ..Build::default()
    };
    round_trip_as("thousands.c", build)
}
