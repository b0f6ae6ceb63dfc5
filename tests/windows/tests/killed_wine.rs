//! `invivo.exe` that dies at each of its steps, or is killed by the clock: what comes next finds the library
//! as it was or patched, never in part, and every call was counted.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use invivo_compare::Comparison;
use invivo_format::hotp1::{self, HookShape};
use windows_tests::caller::{Caller, fixed_bytes, open_pages};
use windows_tests::wine::{self, Wine, name};
use windows_tests::{Build, Folder, Library, build, final_image};

fn library(folder: &Path, name: &str, program: &str, how: Build) -> Library {
    build(folder, name, program, &how.roomy()).expect("it is built")
}

fn patch(base: &Library, fixed: &Library, shape: HookShape) -> PathBuf {
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let plan = invivo_patch::plan_module(&Comparison::new(&old, &new)).expect("nothing is refused");
    let [old, new] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let target = base.path.file_name().expect("a name").to_string_lossy();
    let made = hotp1::build(&old, &new, &plan, &target, Some(shape)).expect("there is room");
    let path = base.path.with_file_name(format!("{}.dll", shape.name()));
    std::fs::write(&path, made).expect("it is written");
    path
}

fn modern(base: &Library, fixed: &Library) -> PathBuf {
    let made = final_image(base, fixed, 1).expect("nothing stands in the way");
    let path = base.path.with_file_name("steady_hotpatch.dll");
    std::fs::write(&path, made.file()).expect("it is written");
    path
}

/// Which code the threads run: the base's or the patch's.
fn is_patched(caller: &mut Caller, when: &str) -> bool {
    let answers = caller.answers();
    let known = [[true, false, false], [false, true, false]];
    assert!(
        known.contains(&[answers[0], answers[1], answers[2]]),
        "{when}: {answers:?}"
    );
    answers[1]
}

/// Takes everything back, also jumps that were left since a thread was on its way through them.
fn take_back(caller: &Caller, base: &Library, patch: &str, old: &[u8]) {
    let pid = caller.pid.to_string();
    let is_whole = (0..20).any(|attempt| {
        if attempt > 0 {
            caller.done(&["apply", patch, "--pid", &pid]);
        }
        caller.done(&["revert", "--pid", &pid]);
        fixed_bytes(caller.linux_pid(), base) == old
    });
    assert!(is_whole, "the library is not what it was");
}

/// A tool that dies at each of its steps, also when half of what a step writes is written: what comes next
/// finds the library as it was or patched, whole, and every call was counted.
#[test]
fn a_tool_that_dies_at_work_on_hooks() {
    let folder = Folder::new("hotp1-wine-dies");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    let file = patch(&base, &fixed, HookShape::Short);
    let patch = name(&file);
    let program = wine::c_program("caller").expect("the program");
    let dies = wine::example("dies_at").expect("the tool that dies");
    let wine = Wine::ready().expect("Wine");
    let mut caller = Caller::start(&program, &base);
    let pid = caller.pid.to_string();
    let old = fixed_bytes(caller.linux_pid(), &base);
    caller.done(&["apply", &patch, "--pid", &pid]);
    let new = fixed_bytes(caller.linux_pid(), &base);
    assert!(old != new);
    let mut is_new = true;
    // What the next command finds, and where that leaves the library.
    let next = |verb: &str, step: u32, is_new: &mut bool| {
        let other = if verb == "apply" { "revert" } else { "apply" };
        match step % 3 {
            // The same again; it may have been done all the same.
            0 => {
                let (text, code) = caller.invivo(&[verb, &patch, "--pid", &pid]);
                assert!(code <= 1, "{verb} at {step}: {text}");
                *is_new = verb == "apply";
            }
            1 => {
                caller.done(&["recover", "--pid", &pid]);
                let now = fixed_bytes(caller.linux_pid(), &base);
                assert!(now == old || now == new, "{verb} at {step}: half of it");
                *is_new = now == new;
            }
            _ => {
                let (text, code) = caller.invivo(&[other, &patch, "--pid", &pid]);
                assert!(code <= 1, "{other} after {verb} at {step}: {text}");
                *is_new = other == "apply";
            }
        }
        let now = fixed_bytes(caller.linux_pid(), &base);
        assert!(
            now == if *is_new { &new[..] } else { &old[..] },
            "{verb} at {step}"
        );
        if step % 3 == 1 {
            let text = caller.done(&["list", "--pid", &pid]);
            assert!(!text.contains("died"), "{verb} at {step}: {text}");
        }
    };
    let to = |wanted: bool, is_new: &mut bool| {
        if *is_new != wanted {
            let verb = if wanted { "apply" } else { "revert" };
            caller.done(&[verb, &patch, "--pid", &pid]);
            *is_new = wanted;
        }
    };
    for verb in ["revert", "apply"] {
        for step in 0.. {
            to(verb == "revert", &mut is_new);
            let mut command = wine.command(&dies);
            command.args([&step.to_string(), &pid, verb, &patch]);
            let (text, code) = wine.output(&mut command).expect("it runs");
            if code == 0 {
                assert!(step > 3, "it has more steps");
                is_new = verb == "apply";
                break;
            }
            assert_eq!(code, 3, "{verb} at {step}: {text}");
            next(verb, step, &mut is_new);
        }
    }
    to(false, &mut is_new);
    assert_eq!(caller.answers(), [true, false, false], "the base");
    let (seen, counted) = caller.end();
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

/// The same with a final image: whoever dies in an apply, a revert, an unload or in putting that in order,
/// the next one does it. `INVIVO_WINE_STEP` is how many steps are gone on by; 1 is each of them.
#[test]
fn a_tool_that_dies_at_work_on_a_final_image() {
    let by = std::env::var("INVIVO_WINE_STEP").unwrap_or_else(|_| "3".to_owned());
    let by: usize = by.parse().expect("a number of steps");
    let folder = Folder::new("hpat-wine-dies");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    let patch = name(&modern(&base, &fixed));
    let program = wine::c_program("caller").expect("the program");
    let dies = wine::example("dies_at").expect("the tool that dies");
    let wine = Wine::ready().expect("Wine");
    let mut caller = Caller::start(&program, &base);
    let pid = caller.pid.to_string();
    let old = fixed_bytes(caller.linux_pid(), &base);
    let die = |step: usize, verb: &str| {
        let mut command = wine.command(&dies);
        command.args([&step.to_string(), &pid, verb, &patch]);
        let (text, code) = wine.output(&mut command).expect("it runs");
        assert!(matches!(code, 0 | 3), "{verb} at {step}: {text}");
        code == 0
    };
    let mut deaths = 0;
    for (verb, applied) in [("apply", false), ("revert", true), ("unload", true)] {
        for step in (0..).step_by(by) {
            let when = format!("{verb} at {step}");
            match (is_patched(&mut caller, &when), applied) {
                (false, true) => drop(caller.done(&["apply", &patch, "--pid", &pid])),
                (true, false) => drop(caller.done(&["revert", "--pid", &pid])),
                _ => {}
            }
            if die(step, verb) {
                assert!(step > 3, "{verb} has more steps");
                break;
            }
            deaths += 1;
            // The next one dies, too, and the one after it does what is left. Until then all threads
            // may stand.
            die(step / 2, "recover");
            caller.done(&["recover", "--pid", &pid]);
            is_patched(&mut caller, &when);
            let text = caller.done(&["list", "--pid", &pid]);
            assert!(
                !text.contains("died") && !text.contains("stand"),
                "{when}: {text}"
            );
            let open = open_pages(caller.linux_pid(), &base);
            assert!(open.is_empty(), "{when}: {open:?}");
        }
    }
    println!("{deaths} deaths");
    if !is_patched(&mut caller, "in the end") {
        caller.done(&["apply", &patch, "--pid", &pid]);
    }
    take_back(&caller, &base, &patch, &old);
    let (seen, counted) = caller.end();
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

/// A tool that is killed at some moment, whatever it does then: `list` tells of it, `recover` puts it in
/// order, and neither says no without a word. `INVIVO_WINE_KILLS` asks for more kills.
#[test]
fn a_tool_that_is_killed_by_the_clock_at_hooks() {
    let folder = Folder::new("hotp1-wine-killed");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    killed(&base, &patch(&base, &fixed, HookShape::Short));
}

/// The same with a final image.
#[test]
fn a_tool_that_is_killed_by_the_clock_at_a_final_image() {
    let folder = Folder::new("hpat-wine-killed");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    killed(&base, &modern(&base, &fixed));
}

fn killed(base: &Library, patch: &Path) {
    let count = std::env::var("INVIVO_WINE_KILLS").unwrap_or_else(|_| "6".to_owned());
    let count: u32 = count.parse().expect("a number of kills");
    let patch = name(patch);
    let program = wine::c_program("caller").expect("the program");
    let tool = wine::invivo().expect("invivo.exe");
    let wine = Wine::ready().expect("Wine");
    let mut caller = Caller::start(&program, base);
    let pid = caller.pid.to_string();
    let old = fixed_bytes(caller.linux_pid(), base);
    let begin = Instant::now();
    caller.done(&["apply", &patch, "--pid", &pid]);
    let whole = begin.elapsed();
    let (mut is_new, mut part, mut open) = (true, 0.0, 0);
    for number in 0..count {
        let words = match is_new {
            true => vec!["revert", "--pid", &pid],
            false => vec!["apply", &patch, "--pid", &pid],
        };
        // Moments that lie evenly in the time that it takes, however many there are.
        part = (part + 0.618_034) % 1.0;
        let mut command = wine.command(&tool);
        command.args(&words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        std::thread::sleep(whole.mul_f64(part));
        // It is ours; where it has ended nothing happens.
        let _ = child.kill();
        let ended = child.wait().expect("it ended");
        let when = format!(
            "{} {number}, killed after {part:.3} of {whole:?}: {ended}",
            words[0]
        );
        let done = |verb: &str| {
            let (text, code) = caller.invivo(&[verb, "--pid", &pid]);
            assert!(code == 0, "{when}, then {verb} ends with {code}: {text:?}");
            text
        };
        let listed = done("list");
        let told = ["a tool died at work", "threads stand"];
        let is_open = told.iter().any(|told| listed.contains(told));
        open += u32::from(is_open);
        let settled = done("recover");
        let words = settled.contains("settled") || settled.contains("go on");
        assert!(!is_open || words, "{when}: {listed}{settled}");
        let listed = done("list");
        assert!(
            !told.iter().any(|told| listed.contains(told)),
            "{when}: {listed}"
        );
        let pages = open_pages(caller.linux_pid(), base);
        assert!(pages.is_empty(), "{when}: {pages:?}");
        is_new = is_patched(&mut caller, &when);
    }
    println!("{count} kills, {open} of them left something open");
    if !is_new {
        caller.done(&["apply", &patch, "--pid", &pid]);
    }
    take_back(&caller, base, &patch, &old);
    assert_eq!(caller.answers(), [true, false, false], "the base");
    let (seen, counted) = caller.end();
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}
