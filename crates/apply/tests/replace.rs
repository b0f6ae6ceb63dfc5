//! One patch takes the place of another, also of a later one and of one whose hooks have
//! another form; and the plan says for what all threads stop.

mod scene;

use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, OutcomeState, Preflight, Stack, Step, Stop, SwitchKind,
    Target, Thread, apply, list, replace, revert,
};
use invivo_image::LiveAddr;
use scene::{
    FAR, Function, Made, ONE, START, TORN, TWO, applied, bytes_of, options, patch, target,
};

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
    plan.stops(target).expect("it can be read").all
}

#[test]
fn any_earlier_state_comes_back_in_one_switch() {
    for functions in [[ONE, FAR], [ONE, TWO]] {
        come_back(&functions);
    }
}

/// Where several instructions gave way to a jump nobody is between them any more.
#[test]
fn threads_stop_for_the_first_jump_over_several_instructions_only() {
    let (first, second) = (patch("p1", 1, &[TORN], 8), patch("p2", 2, &[TORN], 9));
    let (mut target, _) = applied(&patch("p0", 1, &[FAR], 7));
    assert_eq!(must_replace(&mut target, &first), SwitchKind::Stopped);
    assert_eq!(stops_to_apply(&target, &second), 0);
    assert_eq!(must_replace(&mut target, &second), SwitchKind::PageSwap);
}

/// Nobody stops for any of them: also a jump in padding leads to the new code from one instant on.
fn come_back(functions: &[Function]) {
    let versions: Vec<Made> = (1u8..=3)
        .map(|n| patch(&format!("v{n}"), u32::from(n), functions, n))
        .collect();
    let clean = bytes_of(&target());
    let mut target = target();
    let mut seen = Vec::new();
    for made in &versions {
        assert_eq!(stops_to_apply(&target, made), 0);
        assert_eq!(must_replace(&mut target, made), SwitchKind::PageSwap);
        seen.push(bytes_of(&target));
    }
    // The memory of each is still there, so the very same hooks come back.
    for way in [0usize, 2, 1, 0] {
        let kind = must_replace(&mut target, &versions[way]);
        assert_eq!(kind, SwitchKind::PageSwap);
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
    let memory = target.regions().expect("memory").len();
    revert(&mut target, None, &options(Consistency::Entry)).expect("it goes back");
    assert!(bytes_of(&target) == clean);
    // The clean copy of the code was given back.
    assert_eq!(target.regions().expect("memory").len(), memory - 1);
}

fn stops_to_apply(target: &MemoryTarget, made: &Made) -> usize {
    let stops = stops(target, made);
    stops.iter().filter(|stop| stop.step == Step::Apply).count()
}

/// A plan tells how much address space the copy takes, which stays until no patch is live.
#[test]
fn a_plan_says_what_is_copied() {
    let copy = |target: &MemoryTarget, made: &Made| {
        let plan = Preflight::replacing(target, &made.patch, &made.id).expect("it can be applied");
        plan.stops(target).expect("it can be read").copy
    };
    let (first, second) = (patch("p1", 1, &[ONE], 8), patch("p2", 2, &[ONE, FAR], 9));
    let mut target = target();
    assert_eq!(copy(&target, &first), 0x1000);
    assert_eq!(copy(&target, &second), 0x2000);
    // Threads stop for this one, so that no page is moved.
    assert_eq!(copy(&target, &patch("p", 1, &[TORN], 9)), 0);
    must_replace(&mut target, &first);
    assert_eq!(copy(&target, &first), 0);
    // There is a copy of the first of the two pages.
    assert_eq!(copy(&target, &second), 0x1000);
    must_replace(&mut target, &second);
    assert_eq!(copy(&target, &first), 0);
}

/// More pages than those of which there is a copy since the first patch, before and behind them.
#[test]
fn a_patch_of_other_pages_is_replaced_without_a_stop() {
    let clean = bytes_of(&target());
    for (first, second) in [([ONE], [FAR]), ([FAR], [ONE])] {
        let (mut target, patched) = applied(&patch("p1", 1, &first, 8));
        let back = patch("p1", 1, &first, 8);
        let next = patch("p2", 2, &[first[0], second[0]], 9);
        assert_eq!(stops(&target, &next), []);
        assert_eq!(must_replace(&mut target, &next), SwitchKind::PageSwap);
        assert_eq!(must_replace(&mut target, &back), SwitchKind::PageSwap);
        assert!(bytes_of(&target) == patched);
        revert(&mut target, None, &options(Consistency::Entry)).expect("it goes back");
        assert!(bytes_of(&target) == clean);
        let files = target.regions().expect("memory").into_iter();
        assert_eq!(files.filter(|region| region.file.is_some()).count(), 1);
    }
}

/// What somebody else wrote into the code stays where one patch takes the place of another; and where
/// the copy is not clean, all threads stop.
#[test]
fn what_somebody_else_wrote_stays() {
    let (mut target, _) = applied(&patch("p1", 1, &[ONE], 8));
    let breakpoint = LiveAddr(START.0 + 0x1800);
    Target::write(&mut target, breakpoint, &[0x90]).expect("it can be written");
    let second = patch("p2", 2, &[ONE], 9);
    let mut spoiled = target.clone();
    assert_eq!(must_replace(&mut target, &second), SwitchKind::PageSwap);
    assert!(target.holds(breakpoint, &[0x90]).expect("it is there"));
    let mut regions = spoiled.regions().expect("memory").into_iter();
    let copy = regions.rfind(|region| region.file.is_some());
    let copy = copy.expect("a copy of the code").range.start;
    assert!(copy != START);
    Target::write(&mut spoiled, LiveAddr(copy.0 + 0x900), &[0x90]).expect("it can be written");
    assert_ne!(stops(&spoiled, &second), []);
    assert_eq!(must_replace(&mut spoiled, &second), SwitchKind::Stopped);
}

/// In a child process the kernel keeps neighbouring copies apart, and does not move them together.
#[test]
fn copies_that_are_apart_are_not_moved_together() {
    let clean = bytes_of(&target());
    let (mut target, _) = applied(&patch("p1", 1, &[ONE], 8));
    target.keep_apart();
    let second = patch("p2", 2, &[ONE, FAR], 9);
    assert_eq!(must_replace(&mut target, &second), SwitchKind::Stopped);
    assert_eq!(live(&target), ["p2"]);
    revert(&mut target, None, &options(Consistency::Entry)).expect("it goes back");
    assert!(bytes_of(&target) == clean);
    let files = target.regions().expect("memory").into_iter();
    assert_eq!(files.filter(|region| region.file.is_some()).count(), 1);
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
    assert_eq!(said(&replacing), []);
    // Somebody else's breakpoint on the page: it cannot be swapped for the file's.
    let mut marked = target();
    Target::write(&mut marked, LiveAddr(START.0 + 0x1800), &[0x90]).expect("it can be written");
    let marked = stops(&marked, &patch("p", 1, &[ONE], 9));
    assert_eq!(said(&marked), [(Step::Apply, false)]);
}
