//! A tool that dies at any step leaves the old code or the new, never a mixture, and
//! the next command goes on from there.

mod scene;

use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, Stack, SwitchKind, Target, Thread, apply, list, recover,
    revert, revert_to,
};
use invivo_image::LiveAddr;
use scene::{
    FAR, Made, ONE, START, TORN, TWO, answers, applied, bytes_of, must_apply, options, patch,
    target,
};

/// More steps than any command makes.
const MANY: usize = 200;

/// Lets `command` die after each number of steps, beginning with a copy of `begin`;
/// the first number that lets it finish ends the search.
fn die_at_every_step(
    begin: &MemoryTarget,
    command: impl Fn(&mut MemoryTarget) -> Result<(), ApplyError>,
    mut check: impl FnMut(usize, MemoryTarget),
) {
    for steps in 0..MANY {
        let mut target = begin.clone();
        target.fail_after(Some(steps));
        let result = command(&mut target);
        target.fail_after(None);
        let finished = result.is_ok();
        check(steps, target);
        if finished {
            assert!(steps > 2, "a command that changes nothing proves nothing");
            return;
        }
    }
    unreachable!("the command never finished");
}

fn apply_it(
    target: &mut MemoryTarget,
    made: &Made,
    consistency: Consistency,
) -> Result<(), ApplyError> {
    apply(target, &made.patch, &made.id, &options(consistency)).map(|_| ())
}

fn revert_all(target: &mut MemoryTarget) -> Result<(), ApplyError> {
    revert(target, None, &options(Consistency::Entry)).map(|_| ())
}

/// Patches whose switch goes each way.
fn kinds() -> Vec<(&'static str, Made, Consistency)> {
    vec![
        (
            "one function on one page",
            patch("p", 1, &[ONE], 9),
            Consistency::Entry,
        ),
        (
            "one page is swapped",
            patch("p", 1, &[ONE, TWO], 9),
            Consistency::Entry,
        ),
        (
            "two pages are swapped",
            patch("p", 1, &[ONE, FAR], 9),
            Consistency::Entry,
        ),
        (
            "threads stop for a torn hook",
            patch("p", 1, &[ONE, TORN], 9),
            Consistency::Entry,
        ),
        (
            "threads stop for a quiet moment",
            patch("p", 1, &[ONE, TWO, FAR], 9),
            Consistency::Quiescent,
        ),
    ]
}

#[test]
fn a_dead_apply_is_undone_or_finished_by_the_next_command() {
    for (kind, made, consistency) in kinds() {
        let clean = bytes_of(&target());
        let mut live = target();
        let outcome = apply(&mut live, &made.patch, &made.id, &options(consistency)).unwrap();
        let patched = bytes_of(&live);
        // Threads stand while several places are written: only then may a tool that dies
        // leave some of them, which the next command has to undo.
        let stops = outcome.switch == Some(SwitchKind::Stopped);
        die_at_every_step(
            &target(),
            |target| apply_it(target, &made, consistency),
            |steps, left| {
                let now = bytes_of(&left);
                assert!(
                    stops || now == clean || now == patched,
                    "{kind}, step {steps}: a mixture"
                );

                let mut again = left.clone();
                apply_it(&mut again, &made, consistency)
                    .unwrap_or_else(|error| panic!("{kind}, apply after step {steps}: {error}"));
                assert_eq!(list(&again).unwrap().len(), 1, "{kind}, step {steps}");
                revert_all(&mut again).unwrap_or_else(|error| panic!("{kind}, revert: {error}"));
                assert!(
                    bytes_of(&again) == clean,
                    "{kind}, step {steps}: not as before"
                );
                assert_eq!(list(&again).unwrap().len(), 0);

                let mut back = left;
                revert_all(&mut back)
                    .unwrap_or_else(|error| panic!("{kind}, revert after step {steps}: {error}"));
                assert!(
                    bytes_of(&back) == clean,
                    "{kind}, revert after step {steps}"
                );
                assert_eq!(list(&back).unwrap().len(), 0);
            },
        );
    }
}

#[test]
fn a_dead_revert_is_undone_or_finished_by_the_next_command() {
    for (kind, made, consistency) in kinds() {
        let clean = bytes_of(&target());
        let mut live = target();
        apply_it(&mut live, &made, consistency).unwrap();
        let patched = bytes_of(&live);
        let mut back = live.clone();
        let outcomes = revert(&mut back, None, &options(consistency)).unwrap();
        let stops = outcomes[0].switch == Some(SwitchKind::Stopped);
        die_at_every_step(&live, revert_all, |steps, left| {
            let now = bytes_of(&left);
            assert!(
                stops || now == clean || now == patched,
                "{kind}, step {steps}: a mixture"
            );

            let mut back = left.clone();
            revert_all(&mut back)
                .unwrap_or_else(|error| panic!("{kind}, revert after step {steps}: {error}"));
            assert!(
                bytes_of(&back) == clean,
                "{kind}, revert after step {steps}"
            );
            assert_eq!(list(&back).unwrap().len(), 0);

            let mut again = left;
            apply_it(&mut again, &made, consistency)
                .unwrap_or_else(|error| panic!("{kind}, apply after step {steps}: {error}"));
            assert_eq!(
                list(&again).unwrap().len(),
                1,
                "{kind}, apply after step {steps}"
            );
            revert_all(&mut again).unwrap();
            assert!(
                bytes_of(&again) == clean,
                "{kind}, step {steps}: not as before"
            );
        });
    }
}

#[test]
fn a_live_patch_survives_a_tool_that_dies_while_it_finds_nothing_to_do() {
    let made = patch("p", 1, &[ONE, TWO], 9);
    let (mut live, patched) = applied(&made);
    live.fail_after(Some(0));
    apply_it(&mut live, &made, Consistency::Entry).expect("nothing has to be written");
    assert!(bytes_of(&live) == patched);
}

#[test]
fn a_listing_changes_nothing() {
    let made = patch("p", 1, &[ONE], 9);
    die_at_every_step(
        &target(),
        |target| apply_it(target, &made, Consistency::Entry),
        |_, mut left| {
            left.fail_after(Some(0));
            list(&left).expect("a listing needs no step");
        },
    );
}

#[test]
fn a_dead_replace_leaves_the_old_patch_or_the_new_one() {
    let first = patch("p1", 1, &[ONE, TWO], 8);
    let second = patch("p2", 2, &[ONE, FAR], 9);
    let (live, _) = applied(&first);
    let clean = bytes_of(&target());
    die_at_every_step(
        &live,
        |target| apply_it(target, &second, Consistency::Entry),
        |steps, left| {
            let mut again = left.clone();
            apply_it(&mut again, &second, Consistency::Entry)
                .unwrap_or_else(|error| panic!("apply after step {steps}: {error}"));
            let live = list(&again).unwrap();
            assert_eq!(live.len(), 1, "after step {steps}: {live:?}");
            assert_eq!(live[0].name, "p2");
            revert_all(&mut again).unwrap_or_else(|error| panic!("after step {steps}: {error}"));
            assert!(bytes_of(&again) == clean, "after step {steps}");

            let mut back = left;
            revert_all(&mut back)
                .unwrap_or_else(|error| panic!("revert after step {steps}: {error}"));
            assert!(bytes_of(&back) == clean, "revert after step {steps}");
            assert_eq!(list(&back).unwrap().len(), 0);
            must_apply(&mut back, &second);
        },
    );
}

/// The two share no function: in between neither of them is live by its hooks.
#[test]
fn a_dead_replacement_of_other_functions_loses_none_of_the_two() {
    let first = patch("p1", 1, &[ONE, TWO], 8);
    let second = patch("p2", 2, &[FAR], 9);
    let clean = bytes_of(&target());
    for consistency in [Consistency::Entry, Consistency::Quiescent] {
        let (live, _) = applied(&first);
        die_at_every_step(
            &live,
            |target| apply_it(target, &second, consistency),
            |steps, left| {
                let mut settled = left.clone();
                recover(&mut settled, &options(Consistency::Entry))
                    .unwrap_or_else(|error| panic!("after step {steps}: {error}"));
                let names = list(&settled).unwrap().into_iter().map(|patch| patch.name);
                let names: Vec<String> = names.collect();
                assert!(
                    names == ["p1"] || names == ["p2"],
                    "after step {steps}: {names:?}"
                );
                let mut alone = target();
                must_apply(&mut alone, if names == ["p1"] { &first } else { &second });
                assert_eq!(answers(&settled), answers(&alone), "after step {steps}");
                revert_all(&mut settled).unwrap();
                assert!(bytes_of(&settled) == clean, "after step {steps}");
            },
        );
    }
}

/// In between the base's instructions are there again over which the first patch has its jump, and threads run
/// through them.
#[test]
fn a_dead_replacement_is_not_undone_around_a_thread() {
    let first = patch("p1", 1, &[TORN], 8);
    let second = patch("p2", 2, &[FAR], 9);
    let (live, patched) = applied(&first);
    let (clean, at) = (bytes_of(&target()), usize::try_from(TORN.at).unwrap());
    let mut between = 0;
    die_at_every_step(
        &live,
        |target| apply_it(target, &second, Consistency::Quiescent),
        |steps, mut left| {
            let now = bytes_of(&left);
            // Neither patch's hooks are there.
            if now[at..at + 16] == clean[at..at + 16] && answers(&left) == answers(&target()) {
                between += 1;
                left.set_stacks(vec![Stack {
                    thread: Thread {
                        tid: 7,
                        name: "worker".to_owned(),
                    },
                    frames: vec![LiveAddr(START.0 + TORN.at + 1)],
                    unknown: None,
                    running: false,
                    handlers: false,
                }]);
                let blocked = recover(&mut left, &options(Consistency::Entry));
                assert!(
                    matches!(blocked, Err(ApplyError::Blocked(_))),
                    "after step {steps}: {blocked:?}"
                );
                assert!(bytes_of(&left) == now, "after step {steps}");
                left.set_stacks(Vec::new());
                recover(&mut left, &options(Consistency::Entry)).unwrap();
                assert!(bytes_of(&left) == patched, "after step {steps}");
            }
        },
    );
    assert_eq!(between, 1);
}

#[test]
fn a_dead_way_back_leaves_the_old_patch_or_the_new_one() {
    let first = patch("p1", 1, &[ONE, TWO], 8);
    let second = patch("p2", 2, &[ONE, FAR], 9);
    let clean = bytes_of(&target());
    let (mut live, patched) = applied(&first);
    must_apply(&mut live, &second);
    let back = |target: &mut MemoryTarget| {
        revert_to(target, "p1", &options(Consistency::Entry)).map(|_| ())
    };
    let mut whole = live.clone();
    back(&mut whole).unwrap();
    assert!(
        bytes_of(&whole) == patched,
        "the first patch is not live again"
    );
    die_at_every_step(&live, back, |steps, left| {
        let mut again = left.clone();
        back(&mut again).unwrap_or_else(|error| panic!("again after step {steps}: {error}"));
        assert!(bytes_of(&again) == patched, "after step {steps}");
        assert_eq!(list(&again).unwrap()[0].name, "p1");

        let mut none = left;
        revert_all(&mut none).unwrap_or_else(|error| panic!("revert after step {steps}: {error}"));
        assert!(bytes_of(&none) == clean, "revert after step {steps}");
        assert_eq!(list(&none).unwrap().len(), 0);
    });
}

#[test]
fn a_way_back_is_refused_where_something_changed() {
    let first = patch("p1", 1, &[ONE], 8);
    let second = patch("p2", 2, &[ONE, FAR], 9);
    let (mut live, _) = applied(&first);
    let memory = live.regions().unwrap();
    let known: Vec<_> = target().regions().unwrap();
    let new = memory
        .iter()
        .find(|region| !known.contains(region))
        .unwrap();
    let last = LiveAddr(new.range.end.0 - 1);
    must_apply(&mut live, &second);
    let before = bytes_of(&live);
    let refused = |mut target: MemoryTarget| {
        let error = revert_to(&mut target, "p1", &options(Consistency::Entry)).unwrap_err();
        assert!(bytes_of(&target) == before || target.holds(last, &[0xcc]).unwrap());
        error.to_string()
    };
    let mut damaged = live.clone();
    damaged.write(last, &[0xcc]).unwrap();
    assert!(refused(damaged).contains("its memory is not what it was"));
    let mut none = live.clone();
    let error = revert_to(&mut none, "p0", &options(Consistency::Entry)).unwrap_err();
    assert!(
        error.to_string().contains("holds no patch called p0"),
        "{error}"
    );
}
