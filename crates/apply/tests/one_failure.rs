//! One step of the target fails while the tool lives: the tool puts everything back
//! itself, or says that it could not.

mod gated;
mod scene;

use std::cell::Cell;

use gated::{Gate, Gated, Step};
use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, Region, Stack, State, SwitchKind, Target, TargetError,
    Thread, apply, list, recover, replace, revert,
};
use invivo_image::LiveAddr;
use scene::{
    EDGE, FAR, Made, ONE, START, TORN, TWO, applied, bytes_of, hooks_lead_somewhere, must_apply,
    options, patch, target,
};

/// Lets the step with this number fail, once.
#[derive(Debug)]
struct Countdown(Cell<usize>);

impl Countdown {
    fn has_failed(&self) -> bool {
        self.0.get() > usize::MAX / 2
    }
}

impl Gate for Countdown {
    fn step(&self, _: Step) -> Result<(), TargetError> {
        let left = self.0.get();
        self.0.set(left.wrapping_sub(1));
        if left == 0 {
            Err(TargetError::NotNow("this step fails".to_owned()))
        } else {
            Ok(())
        }
    }
}

/// Lets each step of `command` fail in turn and shows `check` what is left, until one
/// run meets no failure.
fn fail_each_step(
    begin: &MemoryTarget,
    command: impl Fn(&mut Gated<Countdown>) -> Result<(), ApplyError>,
    check: impl Fn(usize, Result<(), ApplyError>, MemoryTarget),
) {
    for step in 0..200 {
        let steps = Countdown(Cell::new(step));
        let mut target = Gated::new(begin.clone(), steps);
        let result = command(&mut target);
        let failed = target.gate.has_failed();
        check(step, result, target.inner());
        if !failed {
            assert!(step > 3, "a command that changes nothing proves nothing");
            return;
        }
    }
    unreachable!("the command has no end");
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
                hooks_lead_somewhere(&left, &format!("step {step}"));
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
                hooks_lead_somewhere(&left, &format!("step {step}"));
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
            hooks_lead_somewhere(&left, &format!("step {step}"));
            must_apply(&mut left, &second);
            hooks_lead_somewhere(&left, &format!("step {step}"));
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

/// The same where a copy goes there: then the new hooks are in what waits aside.
#[test]
fn a_copy_that_could_not_be_moved_there_is_never_given_up() {
    let clean = bytes_of(&target());
    let first = patch("p1", 1, &[ONE], 8);
    let second = patch("p2", 2, &[ONE, FAR], 9);
    let (begin, _) = applied(&first);
    let options = options(Consistency::Entry);
    for losses in 0..10 {
        let mut target = begin.clone();
        target.lose_text(losses);
        let result = replace(&mut target, &second.patch, &second.id, &options);
        assert_eq!(result.is_ok(), losses <= 4, "{losses}: {result:?}");
        if let Err(error) = result {
            assert!(matches!(error, ApplyError::Inconsistent(_)), "{error}");
            target.lose_text(0);
            recover(&mut target, &options).unwrap();
        }
        assert_eq!(list_of(&target), [("p2".to_owned(), State::Applied)]);
        hooks_lead_somewhere(&target, &format!("{losses} losses"));
        revert(&mut target, None, &options).unwrap();
        assert!(bytes_of(&target) == clean, "{losses}: not as before");
    }
}

/// A way back that leaves padding as it is moves less than the patch changes: the page of the padding
/// is not the one that is lost.
#[test]
fn what_could_not_be_moved_back_goes_where_it_was() {
    let made = patch("p", 1, &[EDGE], 9);
    let (mut target, _) = applied(&made);
    // Somebody else's breakpoint, so that the file's own page cannot take its place.
    let breakpoint = LiveAddr(START.0 + 0x2800);
    Target::write(&mut target, breakpoint, &[0x90]).unwrap();
    let mut expected = bytes_of(&scene::target());
    expected[0x2800] = 0x90;
    target.set_stacks(vec![Stack {
        thread: Thread {
            tid: 7,
            name: "worker".to_owned(),
        },
        frames: vec![breakpoint],
        unknown: Some("nothing is known of it".to_owned()),
        running: false,
        handlers: true,
    }]);
    target.lose_text(5);
    let options = options(Consistency::Entry);
    let error = revert(&mut target, None, &options).unwrap_err();
    assert!(matches!(error, ApplyError::Inconsistent(_)), "{error}");
    assert!(target.region_at(breakpoint).unwrap().is_none());
    target.set_stacks(Vec::new());
    recover(&mut target, &options).unwrap();
    assert!(bytes_of(&target) == expected, "not as before");
}

#[test]
fn what_somebody_else_has_put_where_text_was_to_go_stays() {
    let made = patch("p", 1, &[ONE, TWO], 9);
    let mut target = target();
    let before = target.regions().unwrap().len();
    target.take_place();
    let options = options(Consistency::Entry);
    let outcome = apply(&mut target, &made.patch, &made.id, &options).unwrap();
    // All stand for a moment instead.
    assert_eq!(outcome.switch, Some(SwitchKind::Stopped));
    let live = target.regions().unwrap();
    revert(&mut target, None, &options).unwrap();
    let of_files = |all: &[Region]| all.iter().filter(|r| r.file.is_some()).count();
    assert_eq!(of_files(&live), 2);
    assert_eq!(of_files(&target.regions().unwrap()), 2);
    assert_eq!(before, 1);
}

fn list_of(target: &MemoryTarget) -> Vec<(String, State)> {
    let live = list(target).expect("it can be read").into_iter();
    live.map(|patch| (patch.name, patch.state)).collect()
}
