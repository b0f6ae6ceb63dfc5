//! What is refused, what is blocked, and what an apply and a revert leave behind.

mod scene;

use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, OutcomeState, Preflight, Stack, State, SwitchKind,
    Target, Thread, apply, list, revert,
};
use invivo_image::LiveAddr;
use invivo_patch::{Relocation, RelocationKind, Section, SectionKind, Symbol, SymbolPlace};
use scene::{
    FAR, Made, ONE, START, TORN, TWO, applied, bytes_of, must_apply, options, patch, target,
};

/// A stopped thread with these frames.
fn stack(frames: &[u64], unknown: Option<&str>) -> Stack {
    Stack {
        thread: Thread {
            tid: 7,
            name: "worker".to_owned(),
        },
        frames: frames
            .iter()
            .map(|offset| LiveAddr(START.0.wrapping_add(*offset)))
            .collect(),
        unknown: unknown.map(str::to_owned),
        running: false,
        handlers: false,
    }
}

fn entry(target: &mut MemoryTarget, made: &Made) -> Result<OutcomeState, ApplyError> {
    apply(target, &made.patch, &made.id, &options(Consistency::Entry)).map(|outcome| outcome.state)
}

fn quiescent(target: &mut MemoryTarget, made: &Made) -> Result<OutcomeState, ApplyError> {
    apply(
        target,
        &made.patch,
        &made.id,
        &options(Consistency::Quiescent),
    )
    .map(|outcome| outcome.state)
}

#[test]
fn apply_list_revert_leaves_the_same_bytes() {
    let made = patch("fix", 1, &[ONE, TWO, FAR], 9);
    let mut target = target();
    let before = bytes_of(&target);
    let outcome = must_apply(&mut target, &made);
    assert_eq!(outcome.state, OutcomeState::Applied);
    assert_eq!(
        (outcome.hooks, outcome.switch),
        (3, Some(SwitchKind::PageSwap))
    );
    let live = list(&target).unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(
        (live[0].name.as_str(), live[0].state),
        ("fix", State::Applied)
    );
    assert_eq!(live[0].functions, ["one", "two", "far"]);
    assert_eq!(live[0].id, made.id.to_string());
    let outcomes = revert(&mut target, Some("fix"), &options(Consistency::Entry)).unwrap();
    assert_eq!(outcomes[0].state, OutcomeState::Reverted);
    assert!(bytes_of(&target) == before);
    assert!(list(&target).unwrap().is_empty());
}

#[test]
fn each_hook_leads_to_its_new_function() {
    let made = patch("fix", 1, &[ONE, TWO, TORN, FAR], 9);
    let (target, bytes) = applied(&made);
    for function in [ONE, TWO, TORN, FAR] {
        let mut at = START.0 + function.at;
        // At most the short jump to the padding and the long one from there.
        for _ in 0..2 {
            let offset = usize::try_from(at - START.0).unwrap();
            match bytes[offset] {
                0xeb => {
                    let distance = i64::from(bytes[offset + 1].cast_signed());
                    at = at.checked_add_signed(2 + distance).unwrap();
                }
                0xe9 => {
                    let raw: [u8; 4] = bytes[offset + 1..offset + 5].try_into().unwrap();
                    at = at
                        .checked_add_signed(5 + i64::from(i32::from_le_bytes(raw)))
                        .unwrap();
                    break;
                }
                other => panic!("{} begins with {other:#x}", function.name),
            }
        }
        let mut code = [0; 6];
        target.read(LiveAddr(at), &mut code).unwrap();
        assert_eq!(code, [0xb8, 9, 0, 0, 0, 0xc3], "{}", function.name);
    }
}

#[test]
fn a_second_apply_and_a_second_revert_find_nothing_to_do() {
    let made = patch("fix", 1, &[ONE], 9);
    let (mut target, bytes) = applied(&made);
    assert_eq!(
        entry(&mut target, &made).unwrap(),
        OutcomeState::NothingToDo
    );
    assert!(bytes_of(&target) == bytes);
    revert(&mut target, None, &options(Consistency::Entry)).unwrap();
    assert!(
        revert(&mut target, None, &options(Consistency::Entry))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn memory_of_a_patch_that_was_taken_back_is_used_again() {
    let made = patch("fix", 1, &[ONE], 9);
    let (mut target, bytes) = applied(&made);
    let regions = target.regions().unwrap();
    for _ in 0..5 {
        revert(&mut target, None, &options(Consistency::Entry)).unwrap();
        assert_eq!(entry(&mut target, &made).unwrap(), OutcomeState::Applied);
    }
    assert_eq!(target.regions().unwrap(), regions);
    assert!(bytes_of(&target) == bytes);
}

#[test]
fn a_quiet_revert_keeps_the_memory_that_live_data_may_point_to() {
    let made = patch("fix", 1, &[ONE], 9);
    let mut target = target();
    quiescent(&mut target, &made).unwrap();
    let regions = target.regions().unwrap();
    for _ in 0..5 {
        revert(&mut target, None, &options(Consistency::Entry)).unwrap();
        assert_eq!(target.regions().unwrap(), regions);
        quiescent(&mut target, &made).unwrap();
    }
}

#[test]
fn a_newer_patch_replaces_an_older_one_and_not_the_reverse() {
    let first = patch("p1", 1, &[ONE, TWO], 8);
    let second = patch("p2", 2, &[ONE, FAR], 9);
    let clean = bytes_of(&target());
    let (_, alone) = applied(&second);
    let (mut target, _) = applied(&first);
    let outcome = must_apply(&mut target, &second);
    assert_eq!(outcome.replaced.as_deref(), Some("p1"));
    let names: Vec<String> = list(&target)
        .unwrap()
        .into_iter()
        .map(|live| live.name)
        .collect();
    assert_eq!(names, ["p2"]);
    // Outside the jumps, whose distances depend on where the patch is, both are the same.
    let now = bytes_of(&target);
    assert_eq!(
        now[0x1f0..0x210],
        clean[0x1f0..0x210],
        "the hook of two is gone"
    );
    assert_eq!(now[0x1100], alone[0x1100]);
    let error = entry(&mut target, &first).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Refused(text) if text.contains("sequence")),
        "{error}"
    );
    assert!(bytes_of(&target) == now);
    revert(&mut target, None, &options(Consistency::Entry)).unwrap();
    assert!(bytes_of(&target) == clean);
}

#[test]
fn other_bytes_are_refused() {
    let made = patch("fix", 1, &[ONE, TWO], 9);
    let mut target = target();
    // A debugger's breakpoint.
    target.write(LiveAddr(START.0 + TWO.at), &[0xcc]).unwrap();
    let before = bytes_of(&target);
    let error = entry(&mut target, &made).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Refused(text) if text.contains("two")),
        "{error}"
    );
    assert!(bytes_of(&target) == before);
    assert_eq!(target.regions().unwrap().len(), 1, "nothing was mapped");
}

#[test]
fn another_build_is_refused_and_both_ids_are_named() {
    let mut made = patch("fix", 1, &[ONE], 9);
    made.patch.target.build_id.0 = vec![0xcd; 20];
    let error = entry(&mut target(), &made).unwrap_err().to_string();
    assert!(
        error.contains(&"ab".repeat(20)) && error.contains(&"cd".repeat(20)),
        "{error}"
    );
}

#[test]
fn a_patch_cannot_reach_outside_its_image() {
    let mut made = patch("fix", 1, &[ONE], 9);
    for place in [0x3000, u64::MAX - 3, 0x2fff] {
        made.patch.redirects[0].at.0 = place;
        made.patch.checks[0].at.0 = place;
        assert!(entry(&mut target(), &made).is_err(), "{place:#x}");
    }
}

/// The place of an import is known in the process only; where nobody has it, nothing is written.
#[test]
fn an_import_is_looked_up_or_refused() {
    let mut made = patch("fix", 1, &[ONE], 9);
    let contents = &mut made.patch.contents;
    let symbol = u32::try_from(contents.symbols.len()).expect("few symbols");
    contents.symbols.push(Symbol {
        name: "strnlen".to_owned(),
        place: SymbolPlace::Import(None),
    });
    contents.sections.push(Section {
        name: ".rodata.slot".to_owned(),
        kind: SectionKind::ReadOnly,
        align: 8,
        bytes: vec![0; 8],
        relocations: vec![Relocation {
            offset: 0,
            kind: RelocationKind::Absolute64,
            symbol,
            addend: 0,
        }],
    });
    let mut target = target();
    let before = bytes_of(&target);
    let error = entry(&mut target, &made).expect_err("nobody has it");
    assert!(error.to_string().contains("strnlen"), "{error}");
    assert_eq!(bytes_of(&target), before);

    target.export("strnlen", LiveAddr(0x7fff_1234_5678));
    let layout = Preflight::new(&target, &made.patch, &made.id)
        .expect("it is known now")
        .layout;
    let slot = 0x7fff_1234_5678_u64.to_le_bytes();
    assert!(layout.contents.windows(8).any(|bytes| bytes == slot));
    assert_eq!(entry(&mut target, &made).ok(), Some(OutcomeState::Applied));
}

#[test]
fn somebody_elses_change_of_a_hook_stops_the_revert() {
    let made = patch("fix", 1, &[ONE], 9);
    let (mut target, _) = applied(&made);
    target.write(LiveAddr(START.0 + ONE.at), &[0xcc]).unwrap();
    let before = bytes_of(&target);
    let error = revert(&mut target, None, &options(Consistency::Entry)).unwrap_err();
    assert!(matches!(error, ApplyError::Refused(_)), "{error}");
    assert!(bytes_of(&target) == before);
}

#[test]
fn a_thread_inside_blocks_a_quiet_apply_and_not_an_entry_one() {
    let made = patch("fix", 1, &[ONE, TWO], 9);
    let mut target = target();
    let before = bytes_of(&target);
    target.set_stacks(vec![stack(&[0x1800, ONE.at + 5], None)]);
    let ApplyError::Blocked(blockers) = quiescent(&mut target, &made).unwrap_err() else {
        panic!("a thread inside blocks");
    };
    assert_eq!(blockers.len(), 1);
    assert_eq!(blockers[0].function.as_deref(), Some("one"));
    assert_eq!(blockers[0].thread.tid, 7);
    assert!(bytes_of(&target) == before);
    assert!(list(&target).unwrap().is_empty());
    assert_eq!(
        target.regions().unwrap().len(),
        1,
        "its memory was given back"
    );
    target.set_stacks(vec![stack(&[0x1800], None)]);
    assert_eq!(
        quiescent(&mut target, &made).unwrap(),
        OutcomeState::Applied
    );
    revert(&mut target, None, &options(Consistency::Entry)).unwrap();
    target.set_stacks(vec![stack(&[ONE.at + 5], None)]);
    assert_eq!(entry(&mut target, &made).unwrap(), OutcomeState::Applied);
}

#[test]
fn a_stack_that_is_not_proved_blocks() {
    let made = patch("fix", 1, &[ONE], 9);
    let mut target = target();
    target.set_stacks(vec![stack(&[0x1800], Some("no unwind data"))]);
    let ApplyError::Blocked(blockers) = quiescent(&mut target, &made).unwrap_err() else {
        panic!("an unknown stack blocks");
    };
    assert_eq!(blockers[0].unknown.as_deref(), Some("no unwind data"));
}

#[test]
fn a_thread_inside_the_patch_blocks_a_quiet_revert() {
    let made = patch("fix", 1, &[ONE], 9);
    let mut target = target();
    quiescent(&mut target, &made).unwrap();
    let live = bytes_of(&target);
    let new = Preflight::new(&target, &made.patch, &made.id).unwrap();
    assert!(new.applied.is_some());
    let memory = target.regions().unwrap();
    let inside = memory
        .iter()
        .find(|region| region.file.is_none())
        .unwrap()
        .range
        .end
        .0
        - 0x1000;
    target.set_stacks(vec![stack(&[inside.wrapping_sub(START.0)], None)]);
    let error = revert(&mut target, None, &options(Consistency::Entry)).unwrap_err();
    assert!(matches!(error, ApplyError::Blocked(_)), "{error}");
    assert!(bytes_of(&target) == live);
    assert_eq!(list(&target).unwrap()[0].state, State::Applied);
}

#[test]
fn a_thread_between_replaced_instructions_blocks_in_any_case() {
    let made = patch("fix", 1, &[TORN], 9);
    let mut target = target();
    assert!(
        Preflight::new(&target, &made.patch, &made.id)
            .unwrap()
            .needs_proof()
    );
    target.set_stacks(vec![stack(&[TORN.at + 1], None)]);
    assert!(matches!(
        entry(&mut target, &made),
        Err(ApplyError::Blocked(_))
    ));
    // At the first replaced byte, or behind the last one, it is in nobody's way.
    target.set_stacks(vec![stack(&[TORN.at], None), stack(&[TORN.at + 9], None)]);
    let outcome = must_apply(&mut target, &made);
    assert_eq!(outcome.switch, Some(SwitchKind::Stopped));
}

#[test]
fn a_plan_changes_nothing() {
    let made = patch("fix", 1, &[ONE, TWO], 9);
    let mut target = target();
    target.fail_after(Some(0));
    let plan = Preflight::new(&target, &made.patch, &made.id).unwrap();
    assert_eq!(plan.hooks.len(), 2);
    assert!(plan.previous.is_none() && plan.kept.is_none() && plan.applied.is_none());
}
