//! What a record tells of an image that is no longer there, or no longer as it was, is not
//! written over what is there now.

#[expect(dead_code, reason = "others make a target with a gate in another way")]
mod gated;
mod scene;

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use gated::{Gate, Gated, Step};
use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, OutcomeState, Standing, State, Target, TargetError,
    apply, list, list_all, recover, revert, revert_to, status, unload,
};
use invivo_image::LiveAddr;
use scene::{
    FAR, ONE, START, TWO, applied, bytes_of, exchange_image, for_other_image, must_apply, options,
    patch, target,
};

const ENTRY: Consistency = Consistency::Entry;

/// A target in which `p1` was live when its image was closed, and the other image's bytes.
fn exchanged() -> (MemoryTarget, Vec<u8>) {
    // A later one than what comes for the other image.
    let (mut target, _) = applied(&patch("p1", 9, &[ONE, TWO], 8));
    exchange_image(&mut target);
    let bytes = bytes_of(&target);
    (target, bytes)
}

#[test]
fn a_patch_of_the_next_image_replaces_nothing() {
    for consistency in [ENTRY, Consistency::Quiescent] {
        let (mut target, clean) = exchanged();
        let made = for_other_image(patch("p2", 1, &[ONE, FAR], 7));
        let outcome = apply(&mut target, &made.patch, &made.id, &options(consistency)).unwrap();
        assert_eq!(
            (outcome.state, outcome.replaced),
            (OutcomeState::Applied, None)
        );
        let mut alone = scene::target();
        exchange_image(&mut alone);
        let changed = |bytes: Vec<u8>| -> Vec<bool> {
            let pairs = bytes.iter().zip(&clean);
            pairs.map(|(now, old)| now == old).collect()
        };
        must_apply(&mut alone, &made);
        assert_eq!(changed(bytes_of(&target)), changed(bytes_of(&alone)));
        revert(&mut target, None, &options(ENTRY)).unwrap();
        assert!(bytes_of(&target) == clean);
    }
}

#[test]
fn a_patch_of_an_image_that_was_closed_is_not_live() {
    let (mut target, clean) = exchanged();
    assert!(list(&target).unwrap().is_empty());
    assert_eq!(list_all(&target).unwrap()[0].state, State::Reverted);
    let made = patch("p1", 9, &[ONE, TWO], 8);
    let stands = status(&target, &made.patch.target.build_id, None).unwrap();
    assert_eq!(stands.standing, Standing::Reverted);
    assert!(stands.reason.unwrap().contains("p1 was lost"));
    assert!(
        revert(&mut target, None, &options(ENTRY))
            .unwrap()
            .is_empty()
    );
    let error = revert_to(&mut target, "p1", &options(ENTRY)).unwrap_err();
    assert!(error.to_string().contains("loaded elsewhere"), "{error}");
    let unloaded = unload(&mut target, None, &options(ENTRY)).unwrap();
    assert_eq!((unloaded.len(), &unloaded[0].kept), (1, &None));
    assert!(list_all(&target).unwrap().is_empty());
    assert!(bytes_of(&target) == clean);
}

#[test]
fn what_a_dead_tool_left_of_a_closed_image_is_forgotten() {
    let made = patch("p1", 1, &[ONE, FAR], 8);
    for consistency in [ENTRY, Consistency::Quiescent] {
        for steps in 0.. {
            let mut target = target();
            target.fail_after(Some(steps));
            let done = apply(&mut target, &made.patch, &made.id, &options(consistency));
            target.fail_after(None);
            exchange_image(&mut target);
            let clean = bytes_of(&target);
            recover(&mut target, &options(ENTRY))
                .unwrap_or_else(|error| panic!("after step {steps}: {error}"));
            assert!(recover(&mut target, &options(ENTRY)).unwrap().is_empty());
            assert!(bytes_of(&target) == clean, "after step {steps}");
            let other = for_other_image(patch("p2", 1, &[ONE, FAR], 7));
            must_apply(&mut target, &other);
            revert(&mut target, None, &options(ENTRY)).unwrap();
            assert!(bytes_of(&target) == clean, "after step {steps}");
            if done.is_ok() {
                assert!(steps > 5);
                break;
            }
        }
    }
}

/// Somebody changes a place while the tool works.
struct Meddler {
    shared: Arc<Mutex<MemoryTarget>>,
    at: LiveAddr,
    left: Cell<usize>,
    /// True once something of the patch was there by then.
    late: Cell<bool>,
}

impl Gate for Meddler {
    fn step(&self, step: Step) -> Result<(), TargetError> {
        if step == Step::Look {
            return Ok(());
        }
        if self.left.get() == 0 {
            let mut target = self.shared.lock().expect("nobody panics");
            self.late
                .set(bytes_of(&target) != bytes_of(&scene::target()));
            Target::write(&mut *target, self.at, &[0xcc])?;
        }
        self.left.set(self.left.get().wrapping_sub(1));
        Ok(())
    }
}

/// Applies a patch while somebody changes a place of it before the step with this number.
fn meddled_with(steps: usize) -> (Result<OutcomeState, ApplyError>, Gated<Meddler>) {
    let made = patch("p1", 1, &[ONE, TWO, FAR], 8);
    let shared = Arc::new(Mutex::new(target()));
    let gate = Meddler {
        shared: Arc::clone(&shared),
        at: LiveAddr(START.0 + FAR.at),
        left: Cell::new(steps),
        late: Cell::new(false),
    };
    let mut tool = Gated::shared(shared, gate);
    let options = options(Consistency::Quiescent);
    let done = apply(&mut tool, &made.patch, &made.id, &options);
    (done.map(|outcome| outcome.state), tool)
}

#[test]
fn code_that_changes_while_threads_are_waited_for_is_not_written_over() {
    let made = patch("p1", 1, &[ONE, TWO, FAR], 8);
    let first_late = (0..200).find(|steps| meddled_with(*steps).1.gate.late.get());
    // The step before is the first write, while all threads stand.
    let first_write = first_late.expect("it is never written") - 1;
    assert!(first_write > 5, "{first_write}");
    for steps in 0..first_write {
        let (result, tool) = meddled_with(steps);
        let error = result.expect_err("it was applied over somebody else's change");
        assert!(matches!(error, ApplyError::Refused(_)), "{steps}: {error}");
        let mut expected = bytes_of(&target());
        expected[usize::try_from(FAR.at).expect("small")] = 0xcc;
        let mut after = tool.inner();
        assert!(bytes_of(&after) == expected, "at step {steps}");
        let left = recover(&mut after, &options(ENTRY)).unwrap();
        assert!(left.is_empty(), "at step {steps}: {left:?}");
        assert!(list(&after).unwrap().is_empty());
        // Once that is gone again, nothing is in the way.
        Target::write(&mut after, tool.gate.at, &[0xb8]).unwrap();
        must_apply(&mut after, &made);
    }
}

#[test]
fn a_patch_of_which_a_page_is_lost_is_not_live_as_a_whole() {
    let made = patch("p1", 1, &[ONE, FAR], 8);
    let clean = bytes_of(&target());
    let (mut target, patched) = applied(&made);
    // The target gives one of the two pages back, and its file's show again.
    Target::write(&mut target, LiveAddr(START.0 + 0x2000), &clean[0x2000..]).unwrap();
    let listed = list(&target).unwrap();
    let reason = listed[0].reason.as_ref().expect("half of it is lost");
    assert!(reason.starts_with("1 of 2 places"), "{reason}");
    let build_id = &made.patch.target.build_id;
    let stands = status(&target, build_id, Some((&made.patch, &made.id))).unwrap();
    assert_eq!(stands.standing, Standing::Unpatched);
    let next = patch("p2", 2, &[ONE, FAR], 9);
    for made in [&made, &next] {
        let refused = apply(&mut target, &made.patch, &made.id, &options(ENTRY)).unwrap_err();
        assert!(refused.to_string().contains("invivo revert"), "{refused}");
    }
    let error = revert_to(&mut target, "p1", &options(ENTRY)).unwrap_err();
    assert!(error.to_string().contains("1 of 2 places"), "{error}");
    revert(&mut target, None, &options(ENTRY)).unwrap();
    assert!(bytes_of(&target) == clean);
    must_apply(&mut target, &made);
    assert!(bytes_of(&target) == patched);
    assert_eq!(list(&target).unwrap()[0].reason, None);
}
