//! One patch takes the place of another, also of a later one and of one whose hooks have
//! another form; and the plan says for what all threads stop.

mod scene;

use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, OutcomeState, Preflight, Stack, Step, Stop, SwitchKind,
    Thread, apply, list, replace, revert,
};
use invivo_image::LiveAddr;
use scene::{FAR, Made, ONE, START, TORN, TWO, applied, bytes_of, options, patch, target};

/// A patch of `TORN`, hooked through padding: the one of [`patch`] overwrites instructions.
fn through_padding(name: &str, sequence: u32, answer: u8) -> Made {
    let mut made = patch(name, sequence, &[TORN], answer);
    made.patch.redirects[0].entry.pads = vec![(-16, 16)];
    made
}

fn must_replace(target: &mut MemoryTarget, made: &Made) -> SwitchKind {
    let options = options(Consistency::Entry);
    let outcome = replace(target, &made.patch, &made.id, &options).expect("it replaces");
    assert_eq!(outcome.state, OutcomeState::Applied);
    outcome.switch.expect("a switch was made")
}

fn live(target: &MemoryTarget) -> Vec<String> {
    let live = list(target).expect("it can be read").into_iter();
    live.map(|patch| patch.name).collect()
}

fn stops(target: &MemoryTarget, made: &Made) -> Vec<Stop> {
    let plan = Preflight::new(target, &made.patch, &made.id).expect("it can be applied");
    plan.stops(target).expect("it can be read")
}

#[test]
fn any_earlier_state_comes_back_in_one_switch() {
    let versions: Vec<Made> = (1u8..=3)
        .map(|n| patch(&format!("v{n}"), u32::from(n), &[ONE, TWO], n))
        .collect();
    let clean = bytes_of(&target());
    let mut target = target();
    let mut seen = Vec::new();
    for made in &versions {
        must_replace(&mut target, made);
        seen.push(bytes_of(&target));
    }
    // The memory of each is still there, so the very same hooks come back.
    for way in [0usize, 2, 1, 0] {
        must_replace(&mut target, &versions[way]);
        assert_eq!(live(&target), [format!("v{}", way + 1)]);
        assert!(bytes_of(&target) == seen[way], "v{}", way + 1);
    }
    let older = apply(
        &mut target.clone(),
        &versions[0].patch,
        &versions[0].id,
        &options(Consistency::Entry),
    );
    assert_eq!(older.expect("it is live").state, OutcomeState::NothingToDo);
    revert(&mut target, None, &options(Consistency::Entry)).expect("it goes back");
    assert!(bytes_of(&target) == clean);
}

#[test]
fn hooks_of_another_form_are_replaced_in_one_stop() {
    let clean = bytes_of(&target());
    let ways = [
        (through_padding("p1", 1, 8), patch("p2", 2, &[TORN], 9)),
        (patch("p1", 1, &[TORN], 8), through_padding("p2", 2, 9)),
    ];
    for (first, second) in ways {
        let (mut target, _) = applied(&first);
        let reasons = stops(&target, &second);
        assert!(
            reasons
                .iter()
                .any(|stop| stop.step == Step::Apply && stop.reason.contains("p1")),
            "{reasons:?}"
        );
        // Between instructions of the base that one of the two forms covers nobody may be.
        let inside = Stack {
            thread: Thread {
                tid: 7,
                name: "worker".to_owned(),
            },
            frames: vec![LiveAddr(START.0 + TORN.at + 1)],
            unknown: None,
            running: false,
            handlers: false,
        };
        target.set_stacks(vec![inside]);
        let before = bytes_of(&target);
        let blocked = apply(
            &mut target,
            &second.patch,
            &second.id,
            &options(Consistency::Entry),
        );
        assert!(
            matches!(blocked, Err(ApplyError::Blocked(_))),
            "{blocked:?}"
        );
        assert!(bytes_of(&target) == before);
        target.set_stacks(Vec::new());
        assert_eq!(must_replace(&mut target, &second), SwitchKind::Stopped);
        assert_eq!(live(&target), ["p2"]);
        let (other, alone) = applied(&second);
        // The jumps' distances depend on where the patch is; all else is as if it came first.
        assert_eq!(live(&other), ["p2"]);
        let at = usize::try_from(TORN.at).expect("small");
        let kinds = |bytes: &[u8]| -> Vec<bool> {
            let near = clean[at - 16..at + 16].iter().zip(&bytes[at - 16..at + 16]);
            near.map(|(old, new)| old == new).collect()
        };
        assert_eq!(kinds(&bytes_of(&target)), kinds(&alone));
        revert(&mut target, None, &options(Consistency::Entry)).expect("it goes back");
        assert!(bytes_of(&target) == clean);
    }
}

#[test]
fn a_dead_replacement_of_another_form_is_undone_or_finished() {
    let clean = bytes_of(&target());
    let ways = [
        (through_padding("p1", 1, 8), patch("p2", 2, &[TORN], 9)),
        (patch("p1", 1, &[TORN], 8), through_padding("p2", 2, 9)),
    ];
    for (first, second) in ways {
        let (begin, _) = applied(&first);
        for steps in 0.. {
            let mut target = begin.clone();
            target.fail_after(Some(steps));
            let options = options(Consistency::Entry);
            let result = replace(&mut target, &second.patch, &second.id, &options);
            target.fail_after(None);
            let mut back = target.clone();
            revert(&mut back, None, &options)
                .unwrap_or_else(|error| panic!("after step {steps}: {error}"));
            assert!(bytes_of(&back) == clean, "after step {steps}");
            must_go_on(&mut target, &second, steps);
            if result.is_ok() {
                assert!(steps > 5);
                break;
            }
        }
    }
}

fn must_go_on(target: &mut MemoryTarget, second: &Made, steps: usize) {
    let options = options(Consistency::Entry);
    let result = replace(target, &second.patch, &second.id, &options);
    assert!(result.is_ok(), "after step {steps}: {result:?}");
    assert_eq!(live(target), ["p2"], "after step {steps}");
}

#[test]
fn a_plan_says_for_what_all_threads_stop() {
    let said = |stops: &[Stop]| -> Vec<(Step, bool)> {
        let torn = |stop: &Stop| stop.reason.contains("torn");
        stops.iter().map(|stop| (stop.step, torn(stop))).collect()
    };
    let clean = target();
    assert_eq!(stops(&clean, &patch("p", 1, &[ONE, FAR], 9)), []);
    let overwritten = stops(&clean, &patch("p", 1, &[ONE, TORN], 9));
    assert_eq!(said(&overwritten), [(Step::Apply, true)]);
    let padded = stops(&clean, &through_padding("p", 1, 9));
    assert_eq!(said(&padded), [(Step::Revert, true)]);
    let mut quiet = patch("p", 1, &[ONE], 9);
    quiet.patch.order.quiescent = true;
    let quiet = stops(&clean, &quiet);
    assert_eq!(said(&quiet), [(Step::Apply, false), (Step::Revert, false)]);
    let (other, _) = applied(&patch("p1", 1, &[ONE], 8));
    let replacing = stops(&other, &patch("p2", 2, &[ONE], 9));
    assert_eq!(said(&replacing), [(Step::Apply, false)]);
    // Somebody else's breakpoint on the page: it cannot be swapped for the file's.
    let mut marked = target();
    invivo_apply::Target::write(&mut marked, LiveAddr(START.0 + 0x800), &[0x90])
        .expect("it can be written");
    let marked = stops(&marked, &patch("p", 1, &[ONE], 9));
    assert_eq!(said(&marked), [(Step::Apply, false)]);
}
