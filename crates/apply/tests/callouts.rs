//! Functions that a patch has called before and after: once each, in order, and those
//! before may refuse; also where the tool dies at any step.

mod scene;

use invivo_apply::{ApplyError, Consistency, MemoryTarget, Outcome, apply, list, recover, revert};
use invivo_patch::{Callout, Moment};
use scene::{
    Made, ONE, TWO, applied, bytes_of, exchange_image, must_apply, options, patch, target,
};

fn with_callouts(name: &str, sequence: u32) -> Made {
    let mut made = patch(name, sequence, &[ONE, TWO], 9);
    made.patch.callouts = Moment::ALL
        .map(|moment| Callout {
            moment,
            function: format!("call_{moment}"),
            symbol: 0,
        })
        .to_vec();
    made.patch.validate().expect("a valid patch");
    made
}

fn apply_it(target: &mut MemoryTarget, made: &Made) -> Result<Outcome, ApplyError> {
    apply(target, &made.patch, &made.id, &options(Consistency::Entry))
}

fn revert_it(target: &mut MemoryTarget) -> Result<Vec<Outcome>, ApplyError> {
    revert(target, None, &options(Consistency::Entry))
}

fn called(outcome: &Outcome) -> Vec<(Moment, u32)> {
    let called = outcome.called.iter();
    called
        .map(|called| (called.moment, called.answer))
        .collect()
}

/// Its functions use what the image had.
#[test]
fn none_is_called_once_the_image_is_closed() {
    let made = with_callouts("p", 1);
    let mut target = target();
    target.set_answers(&[0, 0]);
    apply_it(&mut target, &made).unwrap();
    exchange_image(&mut target);
    target.set_answers(&[7]);
    for _ in 0..2 {
        assert!(revert_it(&mut target).unwrap().is_empty());
        let done = recover(&mut target, &options(Consistency::Entry)).unwrap();
        assert!(done.is_empty(), "{done:?}");
        assert_eq!(target.answers_left(), 1, "a callout was called");
    }
}

#[test]
fn each_is_called_once_and_in_order() {
    let made = with_callouts("p", 1);
    let mut target = target();
    for _ in 0..3 {
        // Those after cannot refuse; what they answer is told.
        target.set_answers(&[0, 5, 0, 6]);
        let outcome = apply_it(&mut target, &made).unwrap();
        assert_eq!(
            called(&outcome),
            [(Moment::BeforeApply, 0), (Moment::AfterApply, 5)]
        );
        let again = apply_it(&mut target, &made).unwrap();
        assert_eq!(called(&again), []);
        let outcomes = revert_it(&mut target).unwrap();
        assert_eq!(
            called(&outcomes[0]),
            [(Moment::BeforeRevert, 0), (Moment::AfterRevert, 6)]
        );
        assert!(
            recover(&mut target, &options(Consistency::Entry))
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn those_before_refuse_and_nothing_has_changed() {
    let made = with_callouts("p", 1);
    let clean = bytes_of(&target());
    let mut target = target();
    target.set_answers(&[7]);
    let error = apply_it(&mut target, &made).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Refused(text)
            if text.contains("call_before-apply") && text.contains("refuses with 7")),
        "{error}"
    );
    assert!(bytes_of(&target) == clean && list(&target).unwrap().is_empty());
    // It had not agreed, so nothing has to be undone.
    assert!(
        recover(&mut target, &options(Consistency::Entry))
            .unwrap()
            .is_empty()
    );
    apply_it(&mut target, &made).unwrap();
    let patched = bytes_of(&target);
    target.set_answers(&[u32::MAX]);
    let error = revert_it(&mut target).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Refused(text) if text.contains("refuses with -1")),
        "{error}"
    );
    assert!(bytes_of(&target) == patched && list(&target).unwrap().len() == 1);
    revert_it(&mut target).unwrap();
    assert!(bytes_of(&target) == clean);
}

#[test]
fn a_patch_that_is_replaced_is_not_asked() {
    let mut target = target();
    apply_it(&mut target, &with_callouts("p1", 1)).unwrap();
    let outcome = must_apply(&mut target, &with_callouts("p2", 2));
    assert_eq!(
        called(&outcome),
        [(Moment::BeforeApply, 0), (Moment::AfterApply, 0)]
    );
    assert!(
        recover(&mut target, &options(Consistency::Entry))
            .unwrap()
            .is_empty()
    );
}

/// How often the callout for each moment has answered, by the answers that are left: each
/// one that is called takes the next.
fn taken(target: &MemoryTarget, of: usize) -> usize {
    of - target.answers_left()
}

#[test]
fn a_tool_that_dies_leaves_to_the_next_one_what_is_due() {
    let made = with_callouts("p", 1);
    let clean = bytes_of(&target());
    let options = options(Consistency::Entry);
    for steps in 0.. {
        let mut target = target();
        target.set_answers(&[0; 20]);
        target.fail_after(Some(steps));
        let result = apply_it(&mut target, &made);
        target.fail_after(None);
        recover(&mut target, &options)
            .unwrap_or_else(|error| panic!("after step {steps}: {error}"));
        let is_live = !list(&target).unwrap().is_empty();
        assert_eq!(bytes_of(&target) != clean, is_live, "after step {steps}");
        // Live: before and after the apply. Not live: none, or before the apply and after
        // the revert.
        let calls = taken(&target, 20);
        assert!(
            calls == 2 || (calls == 0 && !is_live),
            "after step {steps}: {calls} calls, live: {is_live}"
        );
        assert!(
            recover(&mut target, &options).unwrap().is_empty(),
            "after step {steps}"
        );
        let finished = result.is_ok();
        if finished {
            assert!(is_live && steps > 5);
            break;
        }
    }
}

#[test]
fn a_dead_revert_calls_what_comes_after_it() {
    let made = with_callouts("p", 1);
    let clean = bytes_of(&target());
    let options = options(Consistency::Entry);
    let (live, _) = applied(&made);
    for steps in 0.. {
        let mut target = live.clone();
        target.set_answers(&[0; 20]);
        target.fail_after(Some(steps));
        let result = revert_it(&mut target);
        target.fail_after(None);
        recover(&mut target, &options)
            .unwrap_or_else(|error| panic!("after step {steps}: {error}"));
        let is_live = !list(&target).unwrap().is_empty();
        assert_eq!(bytes_of(&target) != clean, is_live, "after step {steps}");
        let calls = taken(&target, 20);
        assert!(
            calls == 2 && !is_live || calls <= 1 && is_live,
            "after step {steps}: {calls} calls, live: {is_live}"
        );
        if result.is_ok() {
            assert!(!is_live && steps > 5);
            break;
        }
    }
}

#[test]
fn a_second_one_for_a_moment_or_one_that_is_no_code_is_no_patch() {
    let mut made = with_callouts("p", 1);
    made.patch.callouts[1].moment = Moment::BeforeApply;
    let error = made.patch.validate().unwrap_err().to_string();
    assert!(error.contains("a second one before-apply"), "{error}");
    for symbol in [1000, u32::MAX] {
        let mut made = with_callouts("p", 1);
        made.patch.callouts[3].symbol = symbol;
        let error = made.patch.validate().unwrap_err().to_string();
        assert!(error.contains("no code of the patch"), "{error}");
    }
}
