//! What `plan` tells of a process of Windows is what `apply` does then, and nothing is written for it.

mod images;
mod older;
mod process;

use images::scene::{self, Scene, put};
use invivo_apply::{ApplyError, HookChange, Planned, Step, Target, hotp1, hpat};
use invivo_image::LiveAddr;
use older::{example, patch_file, target_file};
use process::Process;

const BASE: &str = r"C:\base.dll";
const PATCH: &str = r"C:\patch.dll";
const SECOND: &str = r"C:\second_patch.dll";
const TARGET: &str = r"C:\target.dll";
const MODULE: &str = r"C:\fix.dll";

/// The worked example and a second patch of it, the target and a module for it; one of the two, `loaded`.
fn process(loaded: &str) -> (Process, LiveAddr) {
    let mut process = Process::default();
    let scene = Scene::with(&scene::example());
    let mut second = scene::example();
    second.sequence += 1;
    // It has one function less, which will be its own again.
    let forward = second.bases[0]
        .chunks
        .iter_mut()
        .find(|chunk| !chunk.inverse);
    forward.expect("functions").records.truncate(1);
    let mut second = Scene::with(&second).patch;
    put(&mut second, 0x88, scene::STAMP + 9);
    let files = [
        (BASE, scene.base.clone()),
        (PATCH, scene.patch.clone()),
        (SECOND, second),
        (TARGET, target_file(None)),
        (MODULE, patch_file(&example())),
    ];
    for (path, file) in files {
        process.files.insert(path.to_owned(), file);
    }
    let at = process.load_image(loaded);
    (process, at)
}

/// A tool that may write nothing asks.
fn asked(
    process: &Process,
    plan: impl Fn(&dyn hpat::Host, &str) -> Result<Planned, ApplyError>,
    path: &str,
) -> Result<Planned, ApplyError> {
    let mut reader = process.clone();
    reader.steps = Some(0);
    let planned = plan(&reader, path);
    assert_eq!(reader.loaded(), process.loaded());
    assert_eq!(reader.reservations(), process.reservations());
    planned
}

/// Bytes at a hook now.
fn bytes(process: &Process, at: LiveAddr) -> [u8; 2] {
    let mut now = [0; 2];
    process.read(at, &mut now).expect("its memory");
    now
}

fn changes(planned: &Planned) -> Vec<HookChange> {
    planned.hooks.iter().map(|hook| hook.change).collect()
}

#[test]
fn a_final_image() {
    let (mut process, base) = process(BASE);
    let planned = asked(&process, hpat::plan, PATCH).expect("nothing stands in the way");
    assert_eq!(planned.base, BASE);
    assert_eq!(changes(&planned), [HookChange::Redirected; 2]);
    let steps: Vec<Step> = planned.stops.iter().map(|stop| stop.step).collect();
    assert_eq!(steps, [Step::Revert], "{:?}", planned.stops);
    let before = process.reservations();
    let done = hpat::apply(&mut process, PATCH, "test").expect("it is applied");
    assert_eq!((done.outcome.fresh, done.stopped().is_zero()), (2, true));
    assert!(process.reservations() > before && planned.memory > 0);
    for hook in &planned.hooks {
        assert_eq!(hook.at.0, base.0 + hook.rva.0);
        assert_eq!(bytes(&process, hook.at), [0xeb, 0xf9], "{hook:?}");
    }
    // Where it leads is known before the loader has brought it anywhere.
    let list = hpat::list(&process).expect("the records");
    let record = list.into_iter().next().expect("one").now();
    for hook in &planned.hooks {
        let entry = record
            .entries
            .iter()
            .find(|entry| u64::from(entry.at) == hook.rva.0);
        let to = entry.expect("an entry").to - record.patches[0].at;
        assert_eq!(hook.to.map(|to| to.0), Some(to), "{hook:?}");
    }

    let why = asked(&process, hpat::plan, PATCH).expect_err("it is live");
    let same = hpat::apply(&mut process.clone(), PATCH, "test").expect_err("it is live");
    assert_eq!(why.to_string(), same.to_string());

    let planned = asked(&process, hpat::plan, SECOND).expect("nothing stands in the way");
    assert_eq!(
        changes(&planned),
        [HookChange::RedirectedAnew, HookChange::Restored]
    );
    let done = hpat::apply(&mut process, SECOND, "test").expect("it is applied");
    assert_eq!((done.outcome.replaced, done.outcome.restored), (1, 1));
}

#[test]
fn a_module() {
    let (mut process, target) = process(TARGET);
    let planned = asked(&process, hotp1::plan, MODULE).expect("nothing stands in the way");
    assert_eq!(planned.base, TARGET);
    assert!(
        changes(&planned)
            .iter()
            .all(|change| *change == HookChange::Redirected)
    );
    let steps: Vec<Step> = planned.stops.iter().map(|stop| stop.step).collect();
    assert_eq!(steps, [Step::Apply, Step::Revert]);
    assert!(
        planned.open.is_some(),
        "where the loader brings it is not known"
    );
    let before = process.bytes_of(target);
    let done = hotp1::apply(&mut process, MODULE, "test").expect("it is applied");
    assert_eq!(done.outcome.hooks, planned.hooks.len());
    // Each place that changed is a hook's, and each hook changed its place.
    let after = process.bytes_of(target);
    let changed = (0..after.len()).filter(|at| before[*at] != after[*at]);
    let mut changed: Vec<u64> = changed.map(|at| at as u64).collect();
    for hook in &planned.hooks {
        assert_ne!(
            before[hook.rva.0 as usize], after[hook.rva.0 as usize],
            "{hook:?}"
        );
        changed.retain(|at| !(hook.rva.0..hook.rva.0 + 16).contains(at));
    }
    assert!(changed.is_empty(), "{changed:x?}");
    let why = asked(&process, hotp1::plan, MODULE).expect_err("it is active");
    assert!(why.to_string().contains("is active already"), "{why}");
    hotp1::revert(&mut process, None, false, "test").expect("it is removed");
    let planned = asked(&process, hotp1::plan, MODULE).expect("it may be applied again");
    assert_eq!(
        (planned.memory, planned.open),
        (0, None),
        "all of it is there"
    );
}

/// The program freed what was patched and loaded it again; the patch of before is still there. Applying
/// begins with giving that back, so it does not stand in the way; whether somebody needs it is open.
#[test]
fn what_was_loaded_again() {
    type Apply = fn(&mut Process) -> Result<(), ApplyError>;
    type Plan = fn(&dyn hpat::Host, &str) -> Result<Planned, ApplyError>;
    let modern: Apply = |process| hpat::apply(process, PATCH, "test").map(|_| ());
    let older: Apply = |process| hotp1::apply(process, MODULE, "test").map(|_| ());
    let plans: [(Apply, Plan, &str, &str); 2] = [
        (modern, hpat::plan, PATCH, BASE),
        (older, hotp1::plan, MODULE, TARGET),
    ];
    for (apply, plan, path, loaded) in plans {
        let (mut process, at) = process(loaded);
        let first = asked(&process, plan, path).expect("nothing stands in the way");
        apply(&mut process).expect("it is applied");
        assert!(process.free_image(at));
        assert_eq!(process.load_image(loaded), at, "at the same place");
        let planned = asked(&process, plan, path).expect("the old copy is given back first");
        assert_eq!(planned.hooks.len(), first.hooks.len());
        let open = planned.open.expect("who needs the old copy is not known");
        assert!(open.contains("copy the patch to another name"), "{open}");
        apply(&mut process).expect("it is applied anew");

        // Beside its own base it stands in the way as any image of the program does.
        let (mut process, _) = loaded_itself(loaded, path);
        let why = asked(&process, plan, path).expect_err("the program loaded it itself");
        let same = apply(&mut process).expect_err("the program loaded it itself");
        assert_eq!(why.to_string(), same.to_string());
    }
}

/// A process that has loaded a patch itself.
fn loaded_itself(loaded: &str, path: &str) -> (Process, LiveAddr) {
    let (mut process, at) = process(loaded);
    process.load_image(path);
    (process, at)
}

/// A base without a checksum is known by its time stamp alone, which is told, before and after.
#[test]
fn a_base_without_a_checksum() {
    let (mut process, _) = process(TARGET);
    let mut example = scene::example();
    example.bases[0].checksum = 0;
    let mut scene = Scene::with(&example);
    put(&mut scene.base, 0xd8, 0);
    process.files.insert(BASE.to_owned(), scene.base);
    process.files.insert(PATCH.to_owned(), scene.patch);
    process.load_image(BASE);
    let planned = asked(&process, hpat::plan, PATCH).expect("nothing stands in the way");
    assert_eq!(planned.warnings.len(), 1, "{planned:?}");
    assert!(planned.warnings[0].contains("/release"), "{planned:?}");
    let done = hpat::apply(&mut process, PATCH, "test").expect("it is applied");
    assert_eq!(done.warnings, planned.warnings);
}

/// Sets of functions are no libraries: the loader knows who has them.
#[test]
fn libraries_that_are_missing() {
    let (mut process, _) = process(TARGET);
    let file = older::importing(&[
        "absent.dll",
        "API-MS-Win-core-file-l1-1-0.dll",
        "ext-ms-win-a.dll",
    ]);
    process.files.insert(MODULE.to_owned(), file);
    let planned = asked(&process, hotp1::plan, MODULE).expect("nothing stands in the way");
    assert_eq!(planned.libraries, ["absent.dll"]);
}

/// A tool that died at any step: what it left is told of, or is nothing that changes what comes next.
#[test]
fn after_a_tool_that_died() {
    type Apply = fn(&mut Process) -> Result<(), ApplyError>;
    type Plan = fn(&dyn hpat::Host, &str) -> Result<Planned, ApplyError>;
    let modern: Apply = |process| hpat::apply(process, PATCH, "test").map(|_| ());
    let older: Apply = |process| hotp1::apply(process, MODULE, "test").map(|_| ());
    let plans: [(Apply, Plan, &str, &str); 2] = [
        (modern, hpat::plan, PATCH, BASE),
        (older, hotp1::plan, MODULE, TARGET),
    ];
    for (apply, plan, path, loaded) in plans {
        let (fresh, _) = process(loaded);
        let mut told = 0;
        for step in 0.. {
            let mut process = fresh.clone();
            process.steps = Some(step);
            let done = apply(&mut process);
            let over = process.steps != Some(0);
            let planned = asked(&process, plan, path);
            process.steps = None;
            let next = apply(&mut process.clone());
            let when = format!("{path} at {step}: {done:?}, {planned:?}, {next:?}");
            match planned {
                Ok(planned) => assert!(next.is_ok() && !planned.hooks.is_empty(), "{when}"),
                Err(why) if why.to_string().contains("a tool died") => told += 1,
                Err(why) => {
                    let next = next.expect_err(&when);
                    assert_eq!(why.to_string(), next.to_string(), "{when}");
                }
            }
            if over {
                break;
            }
        }
        assert!(told > 0, "{path}: no tool died in the middle");
    }
}

/// What is refused is refused in the same words, whoever asks.
#[test]
fn what_is_refused() {
    let (mut process, base) = process(BASE);
    let code = LiveAddr(base.0 + 0x1010);
    process.write(code, &[0x90]).expect("its memory");
    let why = asked(&process, hpat::plan, PATCH).expect_err("somebody changed it");
    let same = hpat::apply(&mut process, PATCH, "test").expect_err("somebody changed it");
    assert_eq!(why.to_string(), same.to_string());
    assert!(why.to_string().contains("in the file they are"), "{why}");
    // Its name is that of no module.
    let why = asked(&process, hotp1::plan, MODULE).expect_err("its target is not loaded");
    let same = hotp1::apply(&mut process, MODULE, "test").expect_err("its target is not loaded");
    assert_eq!(why.to_string(), same.to_string());
    assert!(
        why.to_string().contains("has no module target.dll"),
        "{why}"
    );
}
