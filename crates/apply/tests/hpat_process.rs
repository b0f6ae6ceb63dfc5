//! Hot patches that outlast the tool, in a process whose loader loads, unloads and loads again, whose
//! files change, and whose tool dies at every step.

mod images;
mod process;

use images::scene::{self, Scene, put};
use invivo_apply::hpat::{self, Instance, apply, list, recover, revert};
use invivo_apply::{ApplyError, Target};
use invivo_image::LiveAddr;
use process::Process;

const BASE: &str = r"C:\base.dll";
const PATCH: &str = r"C:\patch.dll";
const COPY: &str = r"C:\copy.dll";
const OTHER: &str = r"C:\other.dll";
const OTHER_PATCH: &str = r"C:\other_patch.dll";

/// Functions of the base that the patch replaces.
const FUNCTIONS: [u64; 2] = [0x1010, 0x1030];

/// The files of the worked example, those of another build with its own patch, and the base loaded.
fn process() -> (Process, LiveAddr) {
    let mut process = Process::default();
    let scene = Scene::with(&scene::example());
    let mut other = scene::example();
    other.bases[0].time_stamp += 1;
    let other = Scene::with(&other);
    let mut other_base = scene.base.clone();
    put(&mut other_base, 0x88, scene::STAMP + 1);
    let mut other_patch = other.patch.clone();
    put(&mut other_patch, 0x88, scene::STAMP + 7);
    for (path, file) in [
        (BASE, &scene.base),
        (PATCH, &scene.patch),
        (COPY, &scene.patch),
        (OTHER, &other_base),
        (OTHER_PATCH, &other_patch),
    ] {
        process.files.insert(path.to_owned(), file.clone());
    }
    let at = process.load_image(BASE);
    (process, at)
}

/// Where each function leads now: into the patch, or to itself. What leads nowhere ends the test.
fn leads(process: &Process, base: LiveAddr, when: &str) -> [bool; 2] {
    let word = |at: u64| {
        let mut word = [0; 8];
        process.read(LiveAddr(at), &mut word).expect("memory");
        u64::from_le_bytes(word)
    };
    FUNCTIONS.map(|function| {
        let function = base.0 + function;
        if word(function) & 0xffff != 0xf9eb {
            return false;
        }
        let jump = word(function - 5);
        assert_eq!(jump & 0xff, 0xe9, "{when}: a function leads into padding");
        let distance = i64::from((jump >> 8) as u32 as i32);
        let slot = function.wrapping_add_signed(distance);
        assert_eq!(
            word(slot) & 0xffff,
            0x25ff,
            "{when}: no jump is in the table"
        );
        let to = word(slot + 0x1000);
        let patch = hpat_patches(process);
        assert!(
            patch.iter().any(|at| (*at..at + 0x9000).contains(&to)),
            "{when}: {to:#x} is in no patch"
        );
        true
    })
}

fn hpat_patches(process: &Process) -> Vec<u64> {
    use invivo_apply::hpat::Host;
    let images = process.images().expect("images").into_iter();
    let patches = images.filter(|image| ![BASE, OTHER].contains(&&image.path[..]));
    patches.map(|image| image.range.start.0).collect()
}

fn sequences(process: &Process) -> Vec<u32> {
    let all = list(process).expect("the records").into_iter();
    all.map(|one| one.now().sequence).collect()
}

/// A tool that dies at each step of a command, and another one at each step of putting that in order:
/// functions lead to a patch or to themselves, what comes next works, and in the end everything is
/// as it was.
#[test]
fn tools_that_die_at_each_step() {
    let (fresh, base) = process();
    let before = fresh.bytes_of(base);
    let mut patched = fresh.clone();
    apply(&mut patched, PATCH, "test").expect("it is applied");
    assert_eq!(leads(&patched, base, "applied"), [true; 2]);
    let mut reverted = patched.clone();
    revert(&mut reverted, false, "test").expect("it is taken back");
    assert!(reverted.bytes_of(base) == before);

    type Command = fn(&mut Process) -> Result<(), ApplyError>;
    let apply_it: Command = |process| apply(process, PATCH, "test").map(|_| ());
    let revert_it: Command = |process| revert(process, false, "test").map(|_| ());
    let unload_it: Command = |process| revert(process, true, "test").map(|_| ());
    let recover_it: Command = |process| recover(process, "test").map(|_| ());
    for (name, start, first) in [
        ("apply", &fresh, apply_it),
        ("apply again", &reverted, apply_it),
        ("revert", &patched, revert_it),
        ("revert and unload", &patched, unload_it),
        ("unload", &reverted, unload_it),
    ] {
        for step in 0.. {
            let mut process = start.clone();
            process.steps = Some(step);
            let done = first(&mut process);
            let when = format!("{name} at {step}");
            leads(&process, base, &when);
            for second in 0.. {
                let mut process = process.clone();
                process.steps = Some(second);
                let settled = recover_it(&mut process);
                process.steps = None;
                let when = format!("{when}, recover at {second}: {settled:?}");
                leads(&process, base, &when);
                for (verb, next) in [
                    ("recover", recover_it),
                    ("apply", apply_it),
                    ("revert", revert_it),
                ] {
                    let mut process = process.clone();
                    let result = next(&mut process);
                    let again = result
                        .as_ref()
                        .err()
                        .is_some_and(|error| error.to_string().contains("sequence 7 is live"));
                    assert!(result.is_ok() || again, "{when}, then {verb}: {result:?}");
                    let now = leads(&process, base, &when);
                    assert!(now[0] == now[1], "{when}, then {verb}: half of it");
                    assert!(verb != "apply" || now[0], "{when}, then {verb}: it is live");
                    let open = process.open_pages();
                    assert!(open.is_empty(), "{when}, then {verb}: {open:x?} are open");
                    let ended = unload_it(&mut process);
                    assert!(
                        ended.is_ok(),
                        "{when}, then {verb}, then all back: {ended:?}"
                    );
                    assert!(process.bytes_of(base) == before, "{when}, then {verb}");
                    let loaded = process.loaded();
                    assert_eq!(loaded, [(BASE.to_owned(), 1)], "{when}, then {verb}");
                    let twice = process.given_back_twice.borrow();
                    assert!(twice.is_empty(), "{when}, then {verb}: {twice:?}");
                }
                if settled.is_ok() {
                    break;
                }
            }
            if done.is_ok() {
                assert!(step > 3, "{name} has more steps");
                break;
            }
        }
    }
}

/// The program unloads the base and loads it again, at the same place: nothing of it is patched, and
/// everything can be done anew.
#[test]
fn a_base_that_was_loaded_again() {
    let (mut process, base) = process();
    let before = process.bytes_of(base);
    apply(&mut process, PATCH, "test").expect("it is applied");
    assert!(process.free_image(base));
    assert_eq!(sequences(&process), [0], "nothing is loaded");
    assert_eq!(process.load_image(BASE), base, "at the same place");
    assert_eq!(sequences(&process), [0], "it is new");
    assert_eq!(
        list(&process).expect("records")[0].instance,
        Instance::Again
    );
    let mut again = process.clone();
    apply(&mut again, PATCH, "test").expect("it is applied anew");
    assert_eq!(leads(&again, base, "anew"), [true; 2]);
    assert_eq!(sequences(&again), [7]);
    revert(&mut again, true, "test").expect("it is taken back");
    assert!(again.bytes_of(base) == before);
    assert_eq!(again.loaded(), [(BASE.to_owned(), 1)]);
    assert_eq!(again.reservations(), 0, "all memory was given back");

    let settled = recover(&mut process, "test").expect("it is put in order");
    assert!(settled.len() == 1 && settled[0].settled, "{settled:?}");
    assert!(process.bytes_of(base) == before);
    assert_eq!(process.loaded(), [(BASE.to_owned(), 1)]);
    assert_eq!(process.reservations(), 0);
}

/// Somebody may still be inside the patch of a base that is gone: its memory stays, and the loader would
/// give it again, with variables of another time.
#[test]
fn a_patch_of_a_base_that_was_loaded_again() {
    let (mut process, base) = process();
    let done = apply(&mut process, PATCH, "test").expect("it is applied");
    assert_eq!(done.sequence, 7);
    let patch = hpat_patches(&process)[0];
    assert!(process.free_image(base));
    assert_eq!(process.load_image(BASE), base);
    process.inside = Some(LiveAddr(patch + 0x1100));
    let error = apply(&mut process, PATCH, "test").expect_err("it is loaded");
    let text = error.to_string();
    assert!(text.contains("copy it to another name"), "{text}");
    assert_eq!(leads(&process, base, "refused"), [false; 2]);
    apply(&mut process, COPY, "test").expect("a copy is another one");
    assert_eq!(leads(&process, base, "the copy"), [true; 2]);
}

/// One base that is gone does not stand in the way of others.
#[test]
fn one_of_two_bases_is_gone() {
    for again in [false, true] {
        let (mut process, first) = process();
        let second = process.load_image(OTHER);
        let before = process.bytes_of(second);
        apply(&mut process, PATCH, "test").expect("it is applied");
        apply(&mut process, OTHER_PATCH, "test").expect("it is applied");
        assert_eq!(leads(&process, second, "both"), [true; 2]);
        assert!(process.free_image(first));
        if again {
            // Another image is in its place.
            let copy = process.files[OTHER].clone();
            process.files.insert("C:\\third.dll".to_owned(), copy);
            assert_eq!(process.load_image("C:\\third.dll"), first);
        }
        let mut settled = process.clone();
        let done = recover(&mut settled, "test").expect("it is put in order");
        assert_eq!(done.len(), 1, "{done:?}");
        assert_eq!(leads(&settled, second, "recovered"), [true; 2]);
        revert(&mut process, true, "test").expect("it is taken back");
        assert!(process.bytes_of(second) == before, "byte for byte");
        if again {
            assert!(process.bytes_of(first) == before, "nothing is written");
        }
    }
}

/// What was left of a base is not written into another image that lies there now.
#[test]
fn another_image_in_the_place_of_a_base() {
    let (mut process, base) = process();
    let mut opened = process.clone();
    apply(&mut opened, PATCH, "test").expect("it is applied");
    // A tool that dies while it makes functions their own again, after a thread stood in the way.
    opened.inside = Some(LiveAddr(base.0 + 0x1010 - 5));
    let done = revert(&mut opened, false, "test").expect("it is taken back");
    assert!(done[0].outcome.left, "jumps are left");
    opened.inside = None;
    assert!(opened.free_image(base));
    process
        .files
        .insert(BASE.to_owned(), process.files[OTHER].clone());
    opened
        .files
        .insert(BASE.to_owned(), process.files[OTHER].clone());
    assert_eq!(opened.load_image(BASE), base);
    let before = opened.bytes_of(base);
    recover(&mut opened, "test").expect("it is put in order");
    assert!(opened.bytes_of(base) == before, "nothing is written");
    let record = hpat::HotPatchRecord::default();
    assert_eq!(record.sequence, 0);
}

/// To take a patch back takes no file: they may have been exchanged, or be gone.
#[test]
fn files_that_are_others_now() {
    let (mut process, base) = process();
    let before = process.bytes_of(base);
    apply(&mut process, PATCH, "test").expect("it is applied");
    process.files.clear();
    recover(&mut process, "test").expect("nothing is open");
    assert_eq!(leads(&process, base, "live"), [true; 2]);
    revert(&mut process, true, "test").expect("it is taken back");
    assert!(process.bytes_of(base) == before, "byte for byte");
    assert_eq!(process.loaded(), [(BASE.to_owned(), 1)]);
}

/// A patch that the program has loaded itself is not led anywhere.
#[test]
fn a_patch_that_the_program_uses_itself() {
    let (mut process, base) = process();
    let own = process.load_image(PATCH);
    let before = process.bytes_of(own);
    let error = apply(&mut process, PATCH, "test").expect_err("it is in use");
    let text = error.to_string();
    assert!(text.contains("copy it to another name"), "{text}");
    assert!(process.bytes_of(own) == before, "nothing is written");
    assert_eq!(process.loaded().len(), 2);
    assert_eq!(process.loaded()[1], (PATCH.to_owned(), 1));
    assert_eq!(leads(&process, base, "refused"), [false; 2]);
}
