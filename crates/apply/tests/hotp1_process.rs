//! Hot patches of older Windows that outlast the tool, in a process whose loader loads, unloads and loads
//! again, whose files change, and whose tool dies at every step.

mod images;
mod older;
mod process;

use images::scene::{parse, put};
use invivo_apply::hotp1::{apply, list, recover, revert, standing};
use invivo_apply::{ApplyError, Target};
use invivo_image::LiveAddr;
use older::{example, patch_file, target_file};
use process::Process;

const TARGET: &str = r"C:\target.dll";
const PATCH: &str = r"C:\patch.dll";
const LATER: &str = r"C:\later.dll";

fn process() -> (Process, LiveAddr) {
    let mut process = Process::default();
    process.files.insert(TARGET.to_owned(), target_file(None));
    process
        .files
        .insert(PATCH.to_owned(), patch_file(&example()));
    let at = process.load_image(TARGET);
    (process, at)
}

/// The words of the patch that depend on where both images are.
fn words(process: &Process) -> Option<[u32; 2]> {
    use invivo_apply::hpat::Host;
    let images = process.images().expect("images");
    let patch = images.iter().find(|image| image.path == PATCH)?;
    Some([0x1024, 0x1031].map(|at| {
        let mut word = [0; 4];
        let at = LiveAddr(patch.range.start.0 + at);
        process.read(at, &mut word).expect("its memory");
        u32::from_le_bytes(word)
    }))
}

/// A tool that dies at each step of a command, and another one at each step of putting that in order: the
/// module is patched or not, never in part, and what comes next works.
#[test]
fn tools_that_die_at_each_step() {
    let (fresh, at) = process();
    let before = fresh.bytes_of(at);
    let mut patched = fresh.clone();
    apply(&mut patched, PATCH, "test").expect("it is applied");
    let (with, right) = (patched.bytes_of(at), words(&patched).expect("it is loaded"));
    let mut removed = patched.clone();
    revert(&mut removed, None, false, "test").expect("it is removed");
    assert!(removed.bytes_of(at) == before);
    // A thread is always where it must not be, so that the apply fails and is undone.
    let mut busy = fresh.clone();
    busy.inside = Some(LiveAddr(at.0 + 0x1071));
    let mut busy_again = removed.clone();
    busy_again.inside = busy.inside;

    type Command = fn(&mut Process) -> Result<(), ApplyError>;
    let apply_it: Command = |process| apply(process, PATCH, "test").map(|_| ());
    let revert_it: Command = |process| revert(process, None, false, "test").map(|_| ());
    let unload_it: Command = |process| revert(process, None, true, "test").map(|_| ());
    let recover_it: Command = |process| recover(process, "test").map(|_| ());
    for (name, start, first) in [
        ("apply", &fresh, apply_it),
        ("apply again", &removed, apply_it),
        ("busy", &busy, apply_it),
        ("busy again", &busy_again, apply_it),
        ("revert", &patched, revert_it),
        ("revert and unload", &patched, unload_it),
        ("unload", &removed, unload_it),
    ] {
        for step in 0.. {
            let mut process = start.clone();
            process.steps = Some(step);
            let done = first(&mut process);
            let is_over = process.steps != Some(0);
            process.inside = None;
            let when = format!("{name} at {step}: {done:?}");
            for second in 0.. {
                let mut process = process.clone();
                process.steps = Some(second);
                let settled = recover_it(&mut process);
                process.steps = None;
                let when = format!("{when}, recover at {second}: {settled:?}");
                let all = [
                    ("recover", recover_it),
                    ("apply", apply_it),
                    ("revert", revert_it),
                ];
                for (verb, next) in all {
                    let mut process = process.clone();
                    let result = next(&mut process);
                    let again = result
                        .as_ref()
                        .err()
                        .is_some_and(|error| error.to_string().contains("is active already"));
                    assert!(result.is_ok() || again, "{when}, then {verb}: {result:?}");
                    let now = process.bytes_of(at);
                    assert!(now == before || now == with, "{when}, then {verb}: in part");
                    if verb == "apply" {
                        assert!(now == with, "{when}, then {verb}");
                    }
                    if now == with {
                        assert_eq!(words(&process), Some(right), "{when}, then {verb}");
                    }
                    let open = process.open_pages();
                    assert!(open.is_empty(), "{when}, then {verb}: {open:x?} are open");
                    let ended = unload_it(&mut process);
                    assert!(
                        ended.is_ok(),
                        "{when}, then {verb}, then all back: {ended:?}"
                    );
                    assert!(process.bytes_of(at) == before, "{when}, then {verb}");
                    let loaded = process.loaded();
                    assert_eq!(loaded, [(TARGET.to_owned(), 1)], "{when}, then {verb}");
                    let twice = process.given_back_twice.borrow();
                    assert!(twice.is_empty(), "{when}, then {verb}: {twice:?}");
                }
                if settled.is_ok() {
                    break;
                }
            }
            if is_over {
                assert!(step > 1, "{name} has more steps");
                break;
            }
        }
    }
}

/// A fix, and a fix of the fix that lies over it, each put there by a run of the tool of its own: they go in
/// the order in which they came back, whichever tool dies at whichever step.
#[test]
fn two_patches_that_lie_over_each_other() {
    let (mut fresh, at) = process();
    let mut later = patch_file(&example());
    let checksum = parse(&later).header_places().checksum;
    put(&mut later, checksum, 0x78);
    fresh.files.insert(LATER.to_owned(), later);
    let before = fresh.bytes_of(at);
    let mut one = fresh.clone();
    apply(&mut one, PATCH, "test").expect("it is applied");
    let mut two = one.clone();
    apply(&mut two, LATER, "test").expect("it lies over the first");
    let [first, both] = [&one, &two].map(|process| process.bytes_of(at));
    assert!(first != before && both != first && both != before);
    let active = |process: &Process| {
        let records = list(process).expect("the records");
        let patches = records.iter().flat_map(|record| &record.patches);
        let active = patches.filter(|patch| patch.active);
        active.map(|patch| patch.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(active(&two), [PATCH, LATER]);
    let error = revert(&mut two.clone(), Some(PATCH), false, "test").expect_err("it is below");
    assert!(error.to_string().contains("lies over it"), "{error}");
    let mut back = two.clone();
    revert(&mut back, Some(LATER), false, "test").expect("it is above");
    assert!(back.bytes_of(at) == first);
    assert_eq!(active(&back), [PATCH]);

    type Command = fn(&mut Process) -> Result<(), ApplyError>;
    let apply_it: Command = |process| apply(process, LATER, "test").map(|_| ());
    let later_back: Command = |process| revert(process, Some(LATER), false, "test").map(|_| ());
    let all_back: Command = |process| revert(process, None, false, "test").map(|_| ());
    let recover_it: Command = |process| recover(process, "test").map(|_| ());
    for (name, start, command, ends) in [
        ("apply", &one, apply_it, &both),
        ("apply again", &back, apply_it, &both),
        ("revert the later", &two, later_back, &first),
        ("revert all", &two, all_back, &before),
    ] {
        for step in 0.. {
            let mut process = start.clone();
            process.steps = Some(step);
            let done = command(&mut process);
            let is_over = process.steps != Some(0);
            process.steps = None;
            let when = format!("{name} at {step}: {done:?}");
            recover_it(&mut process).unwrap_or_else(|error| panic!("{when}: {error}"));
            let now = process.bytes_of(at);
            let known = [
                (&before, &[][..]),
                (&first, &[PATCH]),
                (&both, &[PATCH, LATER]),
            ];
            let found = known.into_iter().find(|(bytes, _)| **bytes == now);
            let Some((_, expected)) = found else {
                panic!("{when}: in part");
            };
            assert_eq!(active(&process), expected, "{when}");
            assert!(process.open_pages().is_empty(), "{when}");
            let mut again = process.clone();
            let result = command(&mut again);
            let already = |error: &ApplyError| {
                let text = error.to_string();
                text.contains("active already") || text.contains("no patch")
            };
            assert!(
                result.as_ref().err().is_none_or(already),
                "{when}, then again: {result:?}"
            );
            assert!(again.bytes_of(at) == *ends, "{when}, then again");
            revert(&mut process, None, true, "test").unwrap_or_else(|e| panic!("{when}: {e}"));
            assert!(process.bytes_of(at) == before, "{when}, then all back");
            assert_eq!(process.loaded(), [(TARGET.to_owned(), 1)], "{when}");
            if is_over {
                assert!(step > 1, "{name} has more steps");
                break;
            }
        }
    }
}

/// The program unloads the module and loads it again, at the same place: nothing of it is patched, and
/// everything can be done anew.
#[test]
fn a_module_that_was_loaded_again() {
    let (mut process, at) = process();
    let before = process.bytes_of(at);
    apply(&mut process, PATCH, "test").expect("it is applied");
    let with = process.bytes_of(at);
    assert!(standing(&process, PATCH).expect("how it stands")[0].active);
    assert!(process.free_image(at));
    let records = list(&process).expect("the records");
    assert!(!records[0].patches[0].active, "{records:?}");
    recover(&mut process.clone(), "test").expect("it is put in order");
    assert_eq!(process.load_image(TARGET), at, "at the same place");
    let now = standing(&process, PATCH).expect("how it stands");
    assert!(!now[0].active && !now[0].removed, "{now:?}");
    let records = list(&process).expect("the records");
    assert!(!records[0].patches[0].active, "{records:?}");

    let mut settled = process.clone();
    let done = recover(&mut settled, "test").expect("it is put in order");
    assert!(done.len() == 1 && done[0].settled, "{done:?}");
    assert_eq!(settled.loaded(), [(TARGET.to_owned(), 1)]);
    assert_eq!(settled.reservations(), 0);
    apply(&mut process, PATCH, "test").expect("it is applied anew");
    assert!(process.bytes_of(at) == with);
    revert(&mut process, None, true, "test").expect("it is removed");
    assert!(process.bytes_of(at) == before, "byte for byte");
    assert_eq!(process.loaded(), [(TARGET.to_owned(), 1)]);
}

/// To remove a patch takes no file: they may have been exchanged, or be gone.
#[test]
fn files_that_are_others_now() {
    let (mut process, at) = process();
    let before = process.bytes_of(at);
    apply(&mut process, PATCH, "test").expect("it is applied");
    process.files.clear();
    recover(&mut process, "test").expect("nothing is open");
    revert(&mut process, None, true, "test").expect("it is removed");
    assert!(process.bytes_of(at) == before, "byte for byte");
    assert_eq!(process.loaded(), [(TARGET.to_owned(), 1)]);
    assert_eq!(parse(&target_file(None)).checksum, images::scene::CHECKSUM);
}
