//! Hot patches in processes of Windows, made by `invivo.exe`: programs in Rust and C whose threads
//! call a library without a pause see old code or new, and keep their state.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use windows_tests::caller::{Caller, fixed_bytes, numbers, writable_constants};
use windows_tests::wine::{self, Wine, name};
use windows_tests::{Build, Library, build, by_hand, final_image};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// What a revert says of the patches' memory is true. It need not be given back: Wine keeps the
/// registers of threads that stood on stacks of its own, which any program can write, and an
/// old one among them looks like a use of the patch.
fn expect_told(caller: &Caller, text: &str) {
    for (number, loaded) in [1, 2].into_iter().zip(loaded(caller)) {
        let stays = format!("steady_hotpatch{number}.dll stays loaded: ");
        let unloaded = format!("steady_hotpatch{number}.dll was unloaded");
        let told = (text.contains(&stays), text.contains(&unloaded));
        assert_eq!(told, (loaded, !loaded), "{text}");
    }
}

/// Which of the patches the process has mapped.
fn loaded(caller: &Caller) -> [bool; 2] {
    [1, 2].map(|number| {
        caller
            .mapped(&format!("steady_hotpatch{number}.dll"))
            .is_some()
    })
}

struct Files {
    base: Library,
    first: PathBuf,
    second: PathBuf,
}

/// The library of the tests with threads, and two patches of it.
fn files(test: &str) -> Files {
    files_of(test, &Build::base())
}

fn files_of(test: &str, base: &Build) -> Files {
    let folder = folder(test);
    let library = |name: &str, how: &Build| -> Library {
        build(&folder, name, "steady", how).expect("it is built")
    };
    let base = library("base", base);
    let first = library("first", &Build::fixed("count,weigh"));
    let second = Build::base().with("-DSECOND -fms-secure-hotpatch-functions-list=count");
    let second = library("second", &second);
    let patch = |fixed: &Library, sequence: u32| {
        let made = final_image(&base, fixed, sequence).expect("nothing stands in the way");
        let path = folder.join(format!("steady_hotpatch{sequence}.dll"));
        std::fs::write(&path, made.file()).expect("it is written");
        path
    };
    let (first, second) = (patch(&first, 1), patch(&second, 2));
    Files {
        base,
        first,
        second,
    }
}

/// What apply of the first patch would do is told, and nothing is done: what changes, in the order of
/// places.
fn planned(caller: &Caller, files: &Files, changes: &[&str]) {
    let (patch, pid) = (name(&files.first), caller.pid.to_string());
    let before = fixed_bytes(caller.linux_pid(), &files.base);
    for chosen in [&["--pid", &pid][..], &["--all"]] {
        let words = [&["plan", &patch, "--json"][..], chosen].concat();
        let told: serde_json::Value = serde_json::from_str(&caller.done(&words)).expect("JSON");
        assert_eq!(told["schema"], "invivo.windows-plan/1");
        let all = told["processes"].as_array().expect("a list");
        let own = all
            .iter()
            .find(|one| one["pid"] == caller.pid)
            .expect("its process");
        assert_eq!(own["state"], "ready", "{told}");
        let hooks = own["hooks"].as_array().expect("a list");
        let found: Vec<&str> = hooks
            .iter()
            .filter_map(|one| one["change"].as_str())
            .collect();
        assert_eq!(found, changes, "{told}");
        let names: Vec<&str> = hooks
            .iter()
            .filter_map(|one| one["function"].as_str())
            .collect();
        assert_eq!(names, ["count", "weigh"], "{told}");
        assert_eq!(own["needs_stop"], false, "{told}");
        assert_eq!(own["stops"][0]["step"], "revert", "{told}");
    }
    let text = caller.done(&["plan", &patch, "--pid", &pid]);
    assert!(text.contains("stops no thread"), "{text}");
    assert_eq!(loaded(caller), [false, false], "nothing was loaded");
    assert!(fixed_bytes(caller.linux_pid(), &files.base) == before);
    let text = caller.done(&["list", "--pid", &pid]);
    assert!(!text.contains("steady"), "{text}");
}

/// Applies, replaces and reverts while the program runs.
fn story(program: &Path, test: &str) {
    let files = files(test);
    let (first, second) = (name(&files.first), name(&files.second));
    let mut caller = Caller::start(program, &files.base);
    let pid = caller.pid.to_string();
    assert_eq!(caller.answers(), [true, false, false], "the base");

    planned(&caller, &files, &["redirected", "redirected"]);
    let text = caller.done(&["apply", &first, "--pid", &pid]);
    assert!(
        text.contains("2 functions redirected, no thread stopped"),
        "{text}"
    );
    assert_eq!(caller.answers()[1..], [true, false], "the first patch");
    // The pointers that were led to the base are constants again, and code is code.
    for file in [&files.first, &files.base.path] {
        let open = writable_constants(caller.linux_pid(), file).expect("it is loaded");
        assert!(open.is_empty(), "{}: {open:#?}", file.display());
    }
    let text = caller.done(&["status", &first]);
    let told = "steady.dll: running: patched; on disk: old";
    assert!(text.contains(&pid) && text.contains(told), "{text}");

    let text = caller.done(&["plan", &second, "--pid", &pid]);
    let told = [
        "count: redirected anew (address in the table",
        "weigh: restored",
    ];
    assert!(told.iter().all(|told| text.contains(told)), "{text}");
    let text = caller.done(&["apply", &second, "--pid", &pid]);
    assert!(
        text.contains("1 function redirected anew, 1 function restored"),
        "{text}"
    );
    assert!(caller.answers()[2], "the second patch");
    let text = caller.done(&["list"]);
    assert!(
        text.contains("patch 2 is live, 1 functions redirected"),
        "{text}"
    );

    for verb in ["plan", "apply"] {
        let (text, code) = caller.invivo(&[verb, &first, "--pid", &pid]);
        assert!(code == 1 && text.contains("sequence 2 is live"), "{text}");
    }

    assert_eq!(loaded(&caller), [true, true], "both patches are loaded");
    let text = caller.done(&["revert", "--pid", &pid, "--unload"]);
    assert!(text.contains("1 function restored"), "{text}");
    expect_told(&caller, &text);
    assert_eq!(caller.answers(), [true, false, false], "the base again");
    assert_eq!(
        caller.done(&["recover", "--pid", &pid]),
        "",
        "nothing is open"
    );

    let (seen, counted) = caller.end();
    assert!(seen.added.iter().all(|one| *one > 0), "{seen:?}");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

#[test]
fn a_program_in_rust() {
    story(&wine::example("caller").expect("the program"), "wine-rust");
}

#[test]
fn a_program_in_c() {
    story(&wine::c_program("caller").expect("the program"), "wine-c");
}

/// Functions that begin one byte before an 8-byte boundary: all threads stand while they are led away.
#[test]
fn functions_across_a_boundary() {
    let how = Build {
        odd: vec!["count", "weigh"],
        ..Build::base()
    };
    let files = files_of("wine-odd", &how);
    let image = files.base.image().expect("a Windows image");
    for name in ["count", "weigh"] {
        assert_eq!(by_hand::place_of(&image, name) % 8, 7, "{name}");
    }
    let program = wine::c_program("caller").expect("the program");
    let mut caller = Caller::start(&program, &files.base);
    let pid = caller.pid.to_string();
    let before = fixed_bytes(caller.linux_pid(), &files.base);
    let (first, second) = (name(&files.first), name(&files.second));
    for _ in 0..3 {
        let text = caller.done(&["plan", &first, "--pid", &pid]);
        let told = [
            "stops all threads for a moment",
            "one byte before an 8-byte boundary",
        ];
        assert!(told.iter().all(|told| text.contains(told)), "{text}");
        let text = caller.done(&["apply", &first, "--pid", &pid]);
        assert!(text.contains("all threads stopped for"), "{text}");
        assert_eq!(caller.answers()[1..], [true, false], "the first patch");
        let text = caller.done(&["apply", &second, "--pid", &pid]);
        assert!(text.contains("all threads stopped for"), "{text}");
        assert!(caller.answers()[2], "the second patch");
        caller.done(&["revert", "--pid", &pid]);
        assert_eq!(caller.answers(), [true, false, false], "the base");
    }
    // A thread may have stood where it was on its way; what was left for it is taken away then.
    for _ in 0..20 {
        if fixed_bytes(caller.linux_pid(), &files.base) != before {
            caller.done(&["revert", "--pid", &pid]);
        }
    }
    let after = fixed_bytes(caller.linux_pid(), &files.base);
    assert!(after == before, "byte for byte");
    let (seen, counted) = caller.end();
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

/// Windows resumes nobody whom a tool suspended that died: the next one does.
#[test]
fn threads_that_stand_since_a_tool_died_go_on() {
    let files = files("wine-dead");
    let dies = wine::example("dies").expect("the tool that dies");
    let program = wine::example("caller").expect("the program");
    let mut caller = Caller::start(&program, &files.base);
    let pid = caller.pid.to_string();
    caller.done(&["apply", &name(&files.first), "--pid", &pid]);
    assert_eq!(caller.answers()[1..], [true, false], "the first patch");
    let text = caller.done(&["list", "--pid", &pid]);
    assert!(!text.contains("stand"), "{text}");

    let wine = Wine::ready().expect("Wine");
    let (text, code) = wine.output(wine.command(&dies).arg(&pid)).expect("it runs");
    assert_eq!(code, 3, "{text}");
    let before = caller.ticks();
    std::thread::sleep(Duration::from_millis(300));
    assert!(caller.ticks() - before <= 1, "nothing of it runs");
    let text = caller.done(&["list", "--pid", &pid]);
    // Eight that call, and the one that listens.
    let told = "threads stand, since a tool died; invivo recover lets them go";
    let line = text.lines().find(|line| line.contains(told));
    let standing = numbers(line.unwrap_or_else(|| panic!("{text}")))[0];
    assert!(standing >= 9, "{text}");

    // Nothing is foretold of what is in no order.
    let (text, code) = caller.invivo(&["plan", &name(&files.second), "--pid", &pid]);
    assert!(code == 3 && text.contains("threads of process"), "{text}");

    let text = caller.done(&["recover", "--pid", &pid]);
    let told = format!("process {pid}: {standing} threads go on");
    assert!(text.contains(&told), "{text}");
    assert_eq!(
        caller.answers()[1..],
        [true, false],
        "the first patch goes on"
    );
    assert_eq!(
        caller.done(&["recover", "--pid", &pid]),
        "",
        "nobody stands"
    );
    // What comes next finds nothing in its way, whether or not it is called recover.
    let (text, code) = wine.output(wine.command(&dies).arg(&pid)).expect("it runs");
    assert_eq!(code, 3, "{text}");
    let text = caller.done(&["revert", "--pid", &pid]);
    assert!(text.contains("2 functions restored"), "{text}");
    let (seen, counted) = caller.end();
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

/// Anybody may make memory of the name in which tools note who stands: what somebody else wrote into it is
/// not believed, and no thread is stopped that could not be noted.
#[test]
fn a_note_that_somebody_else_made() {
    let files = files("wine-squat");
    let dies = wine::example("dies").expect("the tool that dies");
    let squats = wine::example("squats").expect("somebody else");
    let program = wine::example("caller").expect("the program");
    let mut caller = Caller::start(&program, &files.base);
    let pid = caller.pid.to_string();
    let wine = Wine::ready().expect("Wine");
    let mut command = wine.command(&squats);
    command
        .arg(&pid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut other = command.spawn().expect("it starts");
    let mut output = BufReader::new(other.stdout.take().expect("its output"));
    let said = wine::line(&mut output).expect("it says something");
    assert_eq!(said, "ready");
    let text = caller.done(&["list", "--pid", &pid]);
    assert!(!text.contains("stand"), "{text}");
    assert_eq!(
        caller.done(&["recover", "--pid", &pid]),
        "",
        "nobody goes on"
    );
    let (text, code) = wine.output(wine.command(&dies).arg(&pid)).expect("it runs");
    assert!(
        code != 3 && text.contains("belongs to somebody else"),
        "{text}"
    );
    assert_eq!(caller.answers(), [true, false, false], "they all go on");
    // What takes no stop is done all the same.
    caller.done(&["apply", &name(&files.first), "--pid", &pid]);
    assert_eq!(caller.answers()[1..], [true, false], "the first patch");
    drop(other.stdin.take());
    assert!(other.wait().expect("it ends").success());
    let (text, code) = wine.output(wine.command(&dies).arg(&pid)).expect("it runs");
    assert_eq!(code, 3, "{text}");
    let text = caller.done(&["recover", "--pid", &pid]);
    assert!(text.contains("threads go on"), "{text}");
    caller.done(&["revert", "--pid", &pid]);
    let (seen, counted) = caller.end();
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

#[test]
fn rounds_while_threads_call() {
    let files = files("wine-rounds");
    let program = wine::example("caller").expect("the program");
    let rounds = wine::example("rounds").expect("the program");
    let caller = Caller::start(&program, &files.base);
    let before = fixed_bytes(caller.linux_pid(), &files.base);
    let count = std::env::var("INVIVO_WINE_ROUNDS").unwrap_or_else(|_| "5".to_owned());
    let wine = Wine::ready().expect("Wine");
    let mut command = wine.command(rounds);
    command
        .arg(caller.pid.to_string())
        .arg(&count)
        .arg(name(&files.first))
        .arg(name(&files.second));
    // A round takes a quarter of a second on a machine that has nothing else to do.
    let number: u32 = count.parse().expect("a number");
    let patience = Duration::from_secs(120) + number * Duration::from_secs(5);
    let ran = wine.output_within(patience, &mut command);
    let (text, code) = ran.expect("it runs");
    assert_eq!(code, 0, "{text}");
    println!("{text}");
    // Nothing stays live, nothing is left in the code, and no thread was stopped.
    let expected = format!("{count} rounds: 0 live, 0 left, stopped 0ns");
    assert!(text.contains(&expected), "{text}");
    let after = fixed_bytes(caller.linux_pid(), &files.base);
    assert!(after == before, "the library is what it was, byte for byte");
    let (seen, counted) = caller.end();
    println!("{seen:?}, counted {counted:?}");
    assert_eq!(seen.wrong, 0, "an answer of nobody");
    if number >= 1000 {
        assert!(seen.calls >= 10_000_000, "only {} calls", seen.calls);
    }
    // The library counts with 32 bits.
    let calls = seen.calls & 0xffff_ffff;
    assert_eq!(counted, [calls; 3], "every call was counted once");
}
