//! One step of the target fails while the tool lives: the tool puts everything back
//! itself, or says that it could not.

mod scene;

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, Module, Protection, Region, Stack, State, Stopped,
    Target, TargetError, Visit, apply, list, recover, revert,
};
use invivo_image::LiveAddr;
use invivo_patch::ImportVersion;
use scene::{FAR, Made, ONE, TORN, TWO, applied, bytes_of, must_apply, options, patch, target};

/// Lets the step with this number fail, once.
struct OneFailure {
    inner: MemoryTarget,
    steps: Countdown,
}

#[derive(Debug)]
struct Countdown(Cell<usize>);

impl Countdown {
    fn step(&self) -> Result<(), TargetError> {
        let left = self.0.get();
        self.0.set(left.wrapping_sub(1));
        if left == 0 {
            Err(TargetError::NotNow("this step fails".to_owned()))
        } else {
            Ok(())
        }
    }

    fn has_failed(&self) -> bool {
        self.0.get() > usize::MAX / 2
    }
}

struct FailingVisit<'v>(&'v mut dyn Visit, &'v Countdown);

impl Visit for FailingVisit<'_> {
    fn map(&mut self, range: Range<LiveAddr>, protection: Protection) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.map(range, protection)
    }

    fn unmap(&mut self, range: Range<LiveAddr>) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.unmap(range)
    }

    fn lift(&mut self, range: Range<LiveAddr>, to: LiveAddr) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.lift(range, to)
    }

    fn lower(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.lower(from, range)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.write(at, bytes)
    }

    fn call(&mut self, function: LiveAddr, arguments: [u64; 2]) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.call(function, arguments)
    }
}

struct FailingStopped<'s>(&'s mut dyn Stopped, &'s Countdown);

impl Stopped for FailingStopped<'_> {
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        self.1.step()?;
        self.0.stacks()
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.1.step()?;
        self.0.write(at, bytes)
    }
}

impl Target for OneFailure {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        self.inner.modules()
    }

    fn importers(&self, module: &Module, symbol: &str) -> Result<Vec<String>, TargetError> {
        self.inner.importers(module, symbol)
    }

    fn look_up(
        &self,
        module: &Module,
        imports: &[(&str, Option<&ImportVersion>)],
    ) -> Result<Vec<Result<LiveAddr, String>>, TargetError> {
        self.inner.look_up(module, imports)
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        self.inner.regions()
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        self.inner.read(at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.steps.step()?;
        Target::write(&mut self.inner, at, bytes)
    }

    fn original(&self, range: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError> {
        self.inner.original(range)
    }

    fn visit(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.steps.step()?;
        let steps = &self.steps;
        self.inner
            .visit(&mut |visit| calls(&mut FailingVisit(visit, steps)))
    }

    fn visit_outside_runtime(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.visit(calls)
    }

    fn stop(
        &mut self,
        first: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.steps.step()?;
        let steps = &self.steps;
        self.inner
            .stop(first, &mut |all| during(&mut FailingStopped(all, steps)))
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        self.inner.glimpse()
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        self.inner.unwind_registrar()
    }
}

/// Lets each step of `command` fail in turn and shows `check` what is left, until one
/// run meets no failure.
fn fail_each_step(
    begin: &MemoryTarget,
    command: impl Fn(&mut OneFailure) -> Result<(), ApplyError>,
    check: impl Fn(usize, Result<(), ApplyError>, MemoryTarget),
) {
    for step in 0..200 {
        let steps = Countdown(Cell::new(step));
        let mut target = OneFailure {
            inner: begin.clone(),
            steps,
        };
        let result = command(&mut target);
        let failed = target.steps.has_failed();
        check(step, result, target.inner);
        if !failed {
            assert!(step > 3, "a command that changes nothing proves nothing");
            return;
        }
    }
    unreachable!("the command has no end");
}

/// Every hook of the image leads into memory that is there.
fn hooks_lead_somewhere(step: usize, target: &MemoryTarget) {
    let bytes = bytes_of(target);
    for function in [ONE, TWO, TORN, FAR] {
        let offset = usize::try_from(function.at).expect("a small offset");
        let jump = |at: usize| {
            let raw: [u8; 4] = bytes[at + 1..at + 5].try_into().expect("four bytes");
            let next = scene::START.0 + at as u64 + 5;
            next.checked_add_signed(i64::from(i32::from_le_bytes(raw)))
                .expect("an address")
        };
        let leads = match bytes[offset] {
            0xe9 => jump(offset),
            0xeb => {
                jump((offset + 2).wrapping_add_signed(isize::from(bytes[offset + 1].cast_signed())))
            }
            _ => continue,
        };
        let mut code = [0; 6];
        let there = target.read(LiveAddr(leads), &mut code);
        assert!(
            there.is_ok(),
            "step {step}: the hook of {} leads to nothing",
            function.name
        );
    }
}

fn kinds() -> Vec<(Made, Consistency)> {
    vec![
        (patch("p", 1, &[ONE, TWO, FAR], 9), Consistency::Entry),
        (patch("p", 1, &[ONE, TORN], 9), Consistency::Entry),
        (patch("p", 1, &[ONE, TWO], 9), Consistency::Quiescent),
    ]
}

#[test]
fn a_failed_step_of_an_apply_is_put_back() {
    for (made, consistency) in kinds() {
        let clean = bytes_of(&target());
        fail_each_step(
            &target(),
            |target| apply(target, &made.patch, &made.id, &options(consistency)).map(|_| ()),
            |step, result, mut left| {
                hooks_lead_somewhere(step, &left);
                match result {
                    Ok(()) => assert_eq!(list(&left).unwrap().len(), 1, "step {step}"),
                    Err(ApplyError::Inconsistent(_)) => {}
                    Err(error) => assert!(bytes_of(&left) == clean, "step {step}: {error}"),
                }
                revert(&mut left, None, &options(Consistency::Entry)).unwrap();
                assert!(bytes_of(&left) == clean, "step {step}: not as before");
            },
        );
    }
}

#[test]
fn a_failed_step_of_a_revert_is_put_back() {
    for (made, consistency) in kinds() {
        let clean = bytes_of(&target());
        let mut live = target();
        apply(&mut live, &made.patch, &made.id, &options(consistency)).unwrap();
        fail_each_step(
            &live,
            |target| revert(target, None, &options(consistency)).map(|_| ()),
            |step, result, mut left| {
                hooks_lead_somewhere(step, &left);
                if result.is_ok() {
                    assert!(bytes_of(&left) == clean, "step {step}: not as before");
                }
                revert(&mut left, None, &options(Consistency::Entry))
                    .unwrap_or_else(|error| panic!("step {step}: {error}"));
                assert!(bytes_of(&left) == clean, "step {step}: not as before");
                assert!(list(&left).unwrap().is_empty(), "step {step}");
            },
        );
    }
}

#[test]
fn a_failed_step_of_a_replacement_leaves_one_patch_that_works() {
    let first = patch("p1", 1, &[ONE, TWO], 8);
    let second = patch("p2", 2, &[ONE, FAR], 9);
    let (live, _) = applied(&first);
    let clean = bytes_of(&target());
    fail_each_step(
        &live,
        |target| {
            let options = options(Consistency::Entry);
            apply(target, &second.patch, &second.id, &options).map(|_| ())
        },
        |step, _, mut left| {
            hooks_lead_somewhere(step, &left);
            must_apply(&mut left, &second);
            hooks_lead_somewhere(step, &left);
            let live = list(&left).unwrap();
            assert_eq!(live.len(), 1, "step {step}: {live:?}");
            revert(&mut left, None, &options(Consistency::Entry)).unwrap();
            assert!(bytes_of(&left) == clean, "step {step}: not as before");
        },
    );
}

#[test]
fn text_that_could_not_be_moved_back_is_never_given_up() {
    let clean = bytes_of(&target());
    let made = patch("p", 1, &[ONE, TWO], 9);
    let live = || list_of(&applied(&made).0);
    for losses in 0..10 {
        let mut target = target();
        target.lose_text(losses);
        let result = apply(
            &mut target,
            &made.patch,
            &made.id,
            &options(Consistency::Entry),
        );
        // Four attempts at once, and a last one by itself; from then on it is the next
        // command's, which begins with it.
        assert_eq!(result.is_ok(), losses <= 4, "{losses}: {result:?}");
        if let Err(error) = result {
            assert!(matches!(error, ApplyError::Inconsistent(_)), "{error}");
            target.lose_text(0);
            recover(&mut target, &options(Consistency::Entry)).unwrap();
        }
        assert_eq!(list_of(&target), live(), "{losses}");
        revert(&mut target, None, &options(Consistency::Entry)).unwrap();
        assert!(bytes_of(&target) == clean, "{losses}: not as before");
        assert_eq!(target.regions().unwrap().len(), 2, "{losses}: left aside");
    }
}

fn list_of(target: &MemoryTarget) -> Vec<(String, State)> {
    let live = list(target).expect("it can be read").into_iter();
    live.map(|patch| (patch.name, patch.state)).collect()
}
