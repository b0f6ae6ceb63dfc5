//! Hot patches of older Windows in processes of Windows, made by `invivo.exe`: threads of a program in C
//! call old code, new code, and old code again, and the library is what it was, byte for byte.

use std::path::{Path, PathBuf};

use invivo_compare::Comparison;
use invivo_format::hotp1::{self, HookShape};
use invivo_image::pe::PeImage;
use windows_tests::asked::Asked;
use windows_tests::caller::{Caller, fixed_bytes, mapped};
use windows_tests::wine::{self, Wine, name};
use windows_tests::{Build, Folder, Library, asker, build, by_hand};

fn patch(base: &Library, fixed: &Library, shape: HookShape) -> PathBuf {
    patch_of(base, fixed, Some(shape), shape.name())
}

fn patch_of(base: &Library, fixed: &Library, shape: Option<HookShape>, file: &str) -> PathBuf {
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let plan = invivo_patch::plan_module(&Comparison::new(&old, &new)).expect("nothing is refused");
    let [old, new] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let target = base.path.file_name().expect("a name").to_string_lossy();
    let made = hotp1::build(&old, &new, &plan, &target, shape).expect("there is room");
    let path = base.path.with_file_name(format!("{file}.dll"));
    std::fs::write(&path, made).expect("it is written");
    path
}

fn library(folder: &Path, name: &str, program: &str, how: Build) -> Library {
    build(folder, name, program, &how.roomy()).expect("it is built")
}

#[test]
fn threads_call_old_new_and_old_code() {
    every_shape("hotp1-wine", &[]);
}

/// Functions that begin one byte before an 8-byte boundary: hooks of each shape are written across it.
#[test]
fn functions_across_a_boundary() {
    every_shape("hotp1-wine-odd", &["count", "weigh"]);
}

fn every_shape(test: &str, odd: &[&'static str]) {
    let folder = Folder::new(test);
    let how = Build {
        odd: odd.to_vec(),
        ..Build::base()
    };
    let base = library(&folder, "base", "steady", how);
    let image = base.image().expect("a Windows image");
    for name in ["count", "weigh"] {
        let is_odd = by_hand::place_of(&image, name) % 8 == 7;
        assert_eq!(is_odd, !odd.is_empty(), "where {name} begins");
    }
    let program = wine::c_program("caller").expect("the program");
    let mut caller = Caller::start(&program, &base);
    let pid = caller.pid.to_string();
    let before = fixed_bytes(caller.linux_pid(), &base);
    let shapes = [
        HookShape::Short,
        HookShape::Triple,
        HookShape::Indirect,
        HookShape::Jump,
    ];
    for (number, shape) in shapes.into_iter().enumerate() {
        // Patches that are loaded at once need places of their own that jumps reach.
        let mut how = Build::fixed("count,weigh");
        how.link.push(format!(
            "/base:{:#x}",
            0x1_9000_0000_u64 + 0x10_0000 * number as u64
        ));
        let fixed = library(&folder, &format!("fixed{number}"), "steady", how);
        let file = patch(&base, &fixed, shape);
        let patch = name(&file);
        assert_eq!(caller.answers(), [true, false, false], "{shape}: old");
        let text = caller.done(&["plan", &patch, "--pid", &pid, "--json"]);
        let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let plan = &told["processes"][0];
        assert_eq!(
            (&plan["state"], &plan["needs_stop"]),
            (&"ready".into(), &true.into())
        );
        let hooks = plan["hooks"].as_array().expect("hooks").len();
        assert_eq!(
            caller.answers(),
            [true, false, false],
            "{shape}: nothing was done"
        );
        let text = caller.done(&["apply", &patch, "--pid", &pid]);
        assert!(text.contains("in one step, all threads stopped"), "{text}");
        assert!(
            text.contains(&format!(": {hooks} hook")),
            "{hooks} foretold: {text}"
        );
        assert_eq!(caller.answers(), [false, true, false], "{shape}: new");
        if number == 0 {
            let text = caller.done(&["status", &patch]);
            assert!(text.contains("running: patched; on disk: old"), "{text}");
            let text = caller.done(&["list"]);
            assert!(text.contains("short.dll active, 4 hooks"), "{text}");
            let (text, code) = caller.invivo(&["apply", &patch, "--pid", &pid]);
            assert!(code == 1 && text.contains("active already"), "{text}");
        } else {
            // Others come after, and the first is removed; nothing lies over it.
            let text = caller.done(&["list"]);
            assert!(text.contains("short.dll removed"), "{text}");
        }
        let text = caller.done(&["revert", &patch, "--pid", &pid]);
        assert!(text.contains("removed"), "{text}");
        assert_eq!(caller.answers(), [true, false, false], "{shape}: old again");
        assert!(
            fixed_bytes(caller.linux_pid(), &base) == before,
            "{shape}: byte for byte"
        );
    }
    // One that was removed comes again, without being loaded again.
    let patch = name(&base.path.with_file_name("short.dll"));
    caller.done(&["apply", &patch, "--pid", &pid]);
    assert_eq!(caller.answers(), [false, true, false], "again");
    let text = caller.done(&["revert", "--pid", &pid, "--unload", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(told["processes"][0]["state"], "removed", "{told}");
    let unloaded = told["processes"][1]["unloaded"].as_array();
    let unloaded = unloaded.expect("what became of them");
    assert_eq!(unloaded.len(), shapes.len(), "{told}");
    for one in unloaded {
        let path = one[0].as_str().expect("a path");
        let file = path.rsplit('\\').next().expect("a name");
        assert_eq!(one[1].is_null(), caller.mapped(file).is_none(), "{told}");
    }
    assert_eq!(caller.answers(), [true, false, false], "the base");
    assert!(fixed_bytes(caller.linux_pid(), &base) == before);
    let (seen, counted) = caller.end();
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

/// Hooks in the middle of a function, in an instruction's number and in data; every process with the
/// library is found, and one whose library is another build is left alone.
#[test]
fn hooks_in_the_middle_and_in_data() {
    let folder = Folder::new("hotp1-wine-middle");
    let base = library(&folder, "base", "places", Build::base());
    let other = library(&folder, "other", "places", Build::base().with("-O1"));
    let program = asker(&folder).expect("the program");
    let mut asked = Asked::start(&program, &base.path).expect("it starts");
    let mut apart = Asked::start(&program, &other.path).expect("it starts");
    let answers = |asked: &mut Asked| {
        let questions = ["middle 5", "through 5"];
        questions.map(|question| asked.ask(question).expect("an answer").0)
    };
    let tool = wine::invivo().expect("invivo.exe");
    let invivo = |words: &[&str]| {
        let wine = Wine::ready().expect("Wine");
        let ran = wine.output(wine.command(&tool).args(words));
        ran.expect("it runs")
    };
    for by_hand::Case {
        name: case,
        hook,
        old,
        new,
    } in by_hand::cases(&base)
    {
        assert_eq!(answers(&mut asked), old, "{case}");
        let pid = asked.linux_pid();
        let at = mapped(pid, "places.dll").expect("it is loaded");
        let before = fixed_bytes(pid, &base);
        let code = by_hand::code(&hook, at);
        let behind = Some(at + 0x10_0000 * (1 + u64::from(hook.kind.code())));
        let made: PeImage = by_hand::module(&base, &code, &[hook], behind);
        let patch = folder.join(format!("{case}.dll"));
        std::fs::write(&patch, made.file()).expect("it is written");
        let patch = name(&patch);
        let (text, code) = invivo(&["status", &patch, "--json"]);
        assert_eq!(code, 0, "{text}");
        let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let processes = told["processes"].as_array().expect("processes");
        let [process] = &processes[..] else {
            panic!("{case}: one has the library: {told}");
        };
        assert_eq!(process["state"], "not patched", "{told}");
        let pid_there = process["pid"].to_string();
        let (text, code) = invivo(&["apply", &patch, "--pid", &pid_there]);
        assert_eq!(code, 0, "{case}: {text}");
        assert_eq!(answers(&mut asked), new, "{case}");
        assert_eq!(answers(&mut apart), old, "{case}: another build");
        let (text, code) = invivo(&["revert", "--pid", &pid_there]);
        assert_eq!(code, 0, "{case}: {text}");
        assert_eq!(answers(&mut asked), old, "{case}: again");
        assert!(fixed_bytes(pid, &base) == before, "{case}: byte for byte");
    }
}

/// A function whose begin takes no hook: the planner finds a long instruction in its middle.
#[test]
fn a_long_instruction_that_the_planner_finds() {
    let folder = Folder::new("hotp1-wine-long");
    let plain = Build::default().with("-Os -falign-functions=1");
    let base = build(&folder, "base", "begins", &plain).expect("it is built");
    let mut how = Build::fixed("digits,both").with("-Os");
    how.link.push("/base:0x190000000".to_owned());
    let fixed = library(&folder, "fixed", "begins", how);
    let patch = name(&patch_of(&base, &fixed, None, "long"));
    let program = asker(&folder).expect("the program");
    let mut asked = Asked::start(&program, &base.path).expect("it starts");
    let pid = asked.linux_pid();
    let mut answers =
        || ["digits 5", "both 5"].map(|question| asked.ask(question).expect("an answer").0);
    let tool = wine::invivo().expect("invivo.exe");
    let done = |verb: &str| {
        let wine = Wine::ready().expect("Wine");
        let ran = wine.output(wine.command(&tool).args([verb, &patch, "--all"]));
        let (text, code) = ran.expect("it runs");
        assert!(
            code == 0 && text.contains("2 hooks in one step"),
            "{verb}: {text}"
        );
    };
    assert_eq!(answers(), [2000, 83]);
    let before = fixed_bytes(pid, &base);
    done("apply");
    assert_eq!(answers(), [4000, 84]);
    done("revert");
    assert_eq!(answers(), [2000, 83]);
    assert!(fixed_bytes(pid, &base) == before, "byte for byte");
}

/// A base that nobody made for hot patching: hooks take the place of several instructions, while no
/// thread is between them.
#[test]
fn functions_that_were_not_made_for_it() {
    let folder = Folder::new("hotp1-wine-semi");
    let how = Build::default().with("-fno-omit-frame-pointer -falign-functions=64");
    let base = build(&folder, "base", "steady", &how).expect("it is built");
    let program = wine::c_program("caller").expect("the program");
    let mut caller = Caller::start(&program, &base);
    let pid = caller.pid.to_string();
    let before = fixed_bytes(caller.linux_pid(), &base);
    for (number, shape) in [HookShape::Short, HookShape::Jump].into_iter().enumerate() {
        let mut how = Build::fixed("count,weigh").with("-fno-omit-frame-pointer");
        let own = 0x1_9000_0000_u64 + 0x10_0000 * number as u64;
        how.link.push(format!("/base:{own:#x}"));
        let fixed = library(&folder, &format!("fixed{number}"), "steady", how);
        let patch = name(&patch(&base, &fixed, shape));
        assert_eq!(caller.answers(), [true, false, false], "{shape}: old");
        caller.done(&["apply", &patch, "--pid", &pid]);
        assert_eq!(caller.answers(), [false, true, false], "{shape}: new");
        caller.done(&["revert", &patch, "--pid", &pid]);
        assert_eq!(caller.answers(), [true, false, false], "{shape}: removed");
        let now = fixed_bytes(caller.linux_pid(), &base);
        assert!(now == before, "{shape}: byte for byte");
    }
    let (seen, counted) = caller.end();
    assert_eq!(counted, [seen.calls; 3], "every call was counted once");
}

/// A module that imports functions itself: the loader binds them, as those of any library.
#[test]
fn a_module_with_imports_of_its_own() {
    let folder = Folder::new("hotp1-imports");
    let imports = |how: Build| how.importing(&["GetTickCount"]).with("-DIMPORTS");
    let base = library(&folder, "base", "service", imports(Build::base()));
    let mut how = imports(Build::fixed("answer"));
    how.link.push("/base:0x190000000".to_owned());
    let fixed = library(&folder, "fixed", "service", how);
    let file = patch(&base, &fixed, HookShape::Short);
    let made = std::fs::read(&file).expect("the module");
    let made = PeImage::parse(made.into()).expect("a Windows image");
    let imported: Vec<String> = made.imports.iter().map(|one| format!("{one:?}")).collect();
    assert!(
        imported.iter().any(|one| one.contains("GetTickCount")),
        "{imported:?}"
    );
    let program = asker(&folder).expect("the program");
    let mut asked = Asked::start(&program, &base.path).expect("it starts");
    let mut answers =
        || ["answer 5", "answer -1"].map(|question| asked.ask(question).expect("an answer").0);
    let tool = wine::invivo().expect("invivo.exe");
    let done = |verb: &str| {
        let wine = Wine::ready().expect("Wine");
        let ran = wine.output(wine.command(&tool).args([verb, &name(&file), "--all"]));
        let (text, code) = ran.expect("it runs");
        assert!(code == 0 && text.contains(" in one step"), "{verb}: {text}");
    };
    assert_eq!(answers(), [28, 16]);
    done("apply");
    assert_eq!(answers(), [1028, -1]);
    done("revert");
    assert_eq!(answers(), [28, 16]);
}

/// Every process that has the module is found, and no other; one that starts later is by the next command.
#[test]
fn every_process_that_has_it() {
    let folder = Folder::new("hotp1-every");
    let base = library(&folder, "base", "places", Build::base());
    let other = library(&folder, "other", "places", Build::base().with("-O1"));
    let program = asker(&folder).expect("the program");
    let [case, ..] = by_hand::cases(&base);
    let start = |library: &Library| Asked::start(&program, &library.path).expect("it starts");
    let (mut apart, mut all) = (start(&other), vec![start(&base), start(&base)]);
    let answers = |asked: &mut Asked| {
        let questions = ["middle 5", "through 5"];
        questions.map(|question| asked.ask(question).expect("an answer").0)
    };
    for asked in all.iter_mut().chain([&mut apart]) {
        assert_eq!(answers(asked), case.old);
    }
    let at = mapped(all[0].linux_pid(), "places.dll").expect("it is loaded");
    let code = by_hand::code(&case.hook, at);
    let made: PeImage = by_hand::module(&base, &code, &[case.hook], Some(at + 0x10_0000));
    let patch = folder.join("every.dll");
    std::fs::write(&patch, made.file()).expect("it is written");
    let patch = name(&patch);
    let tool = wine::invivo().expect("invivo.exe");
    let done = |words: &[&str]| {
        let wine = Wine::ready().expect("Wine");
        let ran = wine.output(wine.command(&tool).args(words));
        let (text, code) = ran.expect("it runs");
        assert_eq!(code, 0, "{words:?}: {text}");
        text.matches(" in one step").count()
    };
    assert_eq!(done(&["apply", &patch, "--all"]), 2);
    all.push(start(&base));
    let now = all.iter_mut().map(answers).collect::<Vec<_>>();
    assert_eq!(now, [case.new, case.new, case.old]);
    assert_eq!(
        done(&["apply", &patch, "--all"]),
        1,
        "those that have it are passed over"
    );
    assert_eq!(done(&["revert", &patch, "--all"]), 3);
    for asked in all.iter_mut().chain([&mut apart]) {
        assert_eq!(answers(asked), case.old);
    }
    let wine = Wine::ready().expect("Wine");
    let ran = wine.output(wine.command(&tool).args(["revert", &patch, "--all"]));
    let (text, code) = ran.expect("it runs");
    assert!(
        code == 0 && text.contains("nothing to do: no process is concerned"),
        "{text}"
    );
}
