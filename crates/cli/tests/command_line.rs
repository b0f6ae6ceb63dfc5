//! The command line: help, exit codes, texts of errors.

mod program;

use std::path::{Path, PathBuf};

use program::{Ran, run_in};

const COMMANDS: [&str; 17] = [
    "audit",
    "diff",
    "build",
    "inspect",
    "plan",
    "apply",
    "replace",
    "revert",
    "blocking",
    "recover",
    "status",
    "list",
    "install",
    "uninstall",
    "xen",
    "sign",
    "verify",
];

fn invivo(words: &[&str]) -> Ran {
    run_in(Path::new("."), words)
}

/// A folder with files that are not what a command wants.
fn folder(name: &str) -> PathBuf {
    let process = std::process::id();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("line-{name}-{process}"));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join("text"), "not a program\n").expect("a file can be written");
    std::fs::write(folder.join("empty"), "").expect("a file can be written");
    folder
}

fn is_error(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(
        ran.stdout.is_empty(),
        "standard output holds only data: {ran:?}"
    );
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}

#[test]
fn each_command_has_help_with_an_example() {
    for command in COMMANDS.iter().chain(&["schema", "completions", "man"]) {
        let ran = invivo(&[command, "--help"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.is_empty(), "{ran:?}");
        let example = ran.stdout.split("Example").nth(1).unwrap_or_default();
        assert!(
            example.contains(&format!("invivo {command}")),
            "{command}: {}",
            ran.stdout
        );
    }
}

#[test]
fn the_help_lists_commands_and_exit_codes() {
    let ran = invivo(&["--help"]);
    assert_eq!(ran.code, 0);
    for command in COMMANDS {
        assert!(
            ran.stdout.contains(&format!("\n  {command} ")),
            "{}",
            ran.stdout
        );
    }
    assert!(ran.stdout.contains("Exit codes:"), "{}", ran.stdout);
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 8, 70] {
        assert!(
            ran.stdout.contains(&format!("\n  {code:<3} ")),
            "{code}: {}",
            ran.stdout
        );
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let ran = invivo(&["--version"]);
    assert_eq!(
        ran.stdout,
        format!("invivo {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_words_are_usage_errors() {
    // Without any word the help itself is what is printed.
    let wrong: [&[&str]; 32] = [
        &[],
        &["mend"],
        &["diff"],
        &["diff", "one"],
        &["build", "one", "other"],
        &["build", "-o", "out"],
        &["build", "--trace", "function", "-o", "out"],
        &[
            "build", "one", "other", "--trace", "function", "--xen", "xen-syms", "-o", "out",
        ],
        &["inspect"],
        &["apply", "a.patch", "-p", "1", "--comm", "a"],
        &["apply", "a.patch", "--all", "--unit", "a"],
        &["apply", "a.patch", "--comm", "["],
        &["status", "--build-id", "0g"],
        &["revert", "name", "--to", "other", "-p", "1"],
        &["list", "-q", "-v"],
        &["apply", "a.patch", "-p", "0"],
        &["apply", "a.patch", "-p", "-5"],
        &["apply", "a.patch", "-p", "1", "--consistency", "perhaps"],
        &["apply", "a.patch", "-p", "1", "--timeout", "-1"],
        &["revert"],
        &["revert", "name"],
        &["revert", "name", "--rendezvous", "30", "--all"],
        &["revert", "--xen"],
        &["revert", "name", "--xen", "-p", "1"],
        &["revert", "name", "--xen", "--all"],
        &["revert", "--xen", "--to", "name"],
        &["recover"],
        &["apply", "fix.livepatch", "--rendezvous", "0"],
        &["xen"],
        &["xen", "apply", "two\nlines"],
        &["xen", "apply", "fix", "--rendezvous", "0"],
        &["xen", "revert", "fix", "--nodeps"],
    ];
    for words in wrong {
        let ran = invivo(words);
        assert_eq!(ran.code, 2, "{words:?} {ran:?}");
        assert!(
            ran.stdout.is_empty() && ran.stderr.contains("--help"),
            "{words:?} {ran:?}"
        );
    }
}

#[test]
fn times_that_are_no_times_are_usage_errors() {
    for time in ["NaN", "inf", "1e300", "soon", ""] {
        let ran = invivo(&["apply", "a.patch", "-p", "1", "--timeout", time]);
        assert_eq!(ran.code, 2, "{time} {ran:?}");
        assert!(ran.stderr.contains("--timeout"), "{time} {ran:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = folder("missing");
    for words in [
        &["diff", "gone", "/bin/true"][..],
        &["diff", "/bin/true", "gone", "--base-debug", "gone"],
        &["build", "gone", "/bin/true", "-o", "out"],
        &["build", "--trace", "function", "--xen", "gone", "-o", "out"],
        &["inspect", "gone"],
        &["plan", "gone", "-p", "1"],
        &["plan", "gone"],
        &["apply", "gone", "-p", "1"],
        &["status", "gone"],
    ] {
        is_error(&run_in(&folder, words), 2, &["gone", "No such file"]);
    }
    for (path, hint) in [("gone", "ls ."), ("away/far/gone", "no folder away\n")] {
        is_error(&run_in(&folder, &["inspect", path]), 2, &["hint:", hint]);
    }
    assert!(!folder.join("out").exists());
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_folder_is_not_a_file() {
    let folder = folder("folder");
    std::fs::create_dir(folder.join("inner")).expect("a folder can be made");
    is_error(&run_in(&folder, &["inspect", "inner"]), 2, &["inner"]);
    is_error(&run_in(&folder, &["diff", "inner", "inner"]), 2, &["inner"]);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn what_is_no_program_is_named() {
    let folder = folder("program");
    for file in ["text", "empty"] {
        let words = ["build", file, file, "-o", "out"];
        is_error(
            &run_in(&folder, &words),
            2,
            &[file, "not an ELF file", "hint: "],
        );
        is_error(
            &run_in(&folder, &["diff", file, file]),
            2,
            &[file, "not an ELF file"],
        );
    }
    assert!(!folder.join("out").exists());
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn what_is_no_patch_is_refused() {
    let folder = folder("patch");
    for file in ["text", "empty", "/bin/true"] {
        is_error(
            &run_in(&folder, &["inspect", file]),
            1,
            &[file, "not an Invivo patch", "hint: "],
        );
        is_error(
            &run_in(&folder, &["apply", file, "-p", "1"]),
            1,
            &["not an Invivo patch"],
        );
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_process_that_does_not_exist_has_its_own_exit_code() {
    // Larger than any number that Linux gives.
    let nobody = "2147483647";
    let ran = invivo(&["list", "-p", nobody]);
    is_error(&ran, 6, &[nobody, "does not exist", "hint: "]);
    let ran = invivo(&["revert", "-p", nobody, "--json"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let outcome: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(outcome["schema"], "invivo.outcome/1");
    assert_eq!(outcome["processes"][0]["pid"], 2_147_483_647);
}

#[test]
fn completions_and_manual_are_printed() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = invivo(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        assert!(
            ran.stdout.contains("invivo") && ran.stdout.contains("revert"),
            "{shell}"
        );
    }
    let ran = invivo(&["man"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains(".TH invivo 1"), "{}", ran.stdout);
    assert!(ran.stdout.contains(".SH"), "{}", ran.stdout);
    let ran = invivo(&["completions", "abacus"]);
    assert_eq!(ran.code, 2);
}

#[test]
fn colour_is_a_choice() {
    let folder = folder("colour");
    let ran = run_in(&folder, &["--color", "always", "inspect", "text"]);
    assert!(ran.stderr.contains("\u{1b}["), "{ran:?}");
    let ran = run_in(&folder, &["inspect", "text"]);
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

/// No machine that runs these tests is a dom0.
#[test]
fn elsewhere_xen_is_told_to_be_missing() {
    let folder = folder("xen");
    for words in [
        &["xen", "list"][..],
        &["xen", "get", "fix"],
        &["xen", "upload", "text"],
        &["xen", "apply", "fix", "--nodeps", "--timeout", "1"],
        &["xen", "replace", "fix"],
        &["xen", "revert", "fix"],
        &["xen", "unload", "fix", "--json"],
        &["revert", "fix", "--xen"],
        &[
            "revert",
            "fix",
            "--xen",
            "--unload",
            "--rendezvous",
            "100",
            "--json",
        ],
    ] {
        let ran = run_in(&folder, words);
        is_error(&ran, 6, &["does not run on Xen", "hint: ", "dom0"]);
    }
    // What is wrong with the file is told first.
    is_error(
        &run_in(&folder, &["xen", "upload", "nothing"]),
        2,
        &["nothing"],
    );
    let longest = "x".repeat(200);
    let name = run_in(&folder, &["xen", "upload", &longest]);
    is_error(&name, 2, &["1 to 127 bytes", "--name"]);
    let name = run_in(&folder, &["revert", &longest, "--xen"]);
    is_error(&name, 2, &["1 to 127 bytes"]);
    let file = run_in(
        &folder,
        &["build", "--trace", "f", "--xen", "text", "-o", "out"],
    );
    is_error(&file, 2, &["text", "xen-syms"]);
}

/// A trace is built as everything else is: one name for one thing.
#[test]
fn a_trace_is_a_form_of_build() {
    let help = invivo(&["build", "--help"]);
    assert_eq!(help.code, 0, "{help:?}");
    for form in [
        "build --trace <FUNCTION>...",
        "--output <PATCH> <BASE> <FIXED>",
    ] {
        assert!(help.stdout.contains(form), "{form}: {}", help.stdout);
    }
    assert_eq!(invivo(&["xen", "trace", "f"]).code, 2);
}

#[test]
fn each_command_for_xen_has_help_with_an_example() {
    for command in [
        "list", "get", "upload", "apply", "replace", "revert", "unload",
    ] {
        let ran = invivo(&["xen", command, "--help"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let example = format!("invivo xen {command}");
        assert!(ran.stdout.contains(&example), "{command}: {}", ran.stdout);
    }
}

#[test]
fn options_come_from_a_file() {
    let folder = folder("config");
    let config = folder.join("invivo.toml");
    let named = ["--config", "invivo.toml"];
    let run = |text: &str, words: &[&str]| {
        std::fs::write(&config, text).expect("a file can be written");
        run_in(&folder, &[&named, words].concat())
    };
    let ran = run("json = true\n[apply]\ntimeout = 1", &["explain", "R-INIT"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(json["schema"], "invivo.explain/1");
    // A value that an option does not take is told as if it were given there.
    for (file, option) in [
        ("color = 'red'", "--color"),
        ("[recover]\ntimeout = -1", "--timeout"),
    ] {
        let ran = run(file, &["recover", "-p", "1"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(option), "{ran:?}");
    }
    let is_error_of = |ran: &Ran, words: &[&str]| is_error(ran, 2, words);
    is_error_of(
        &run("[audit]\nnaem = 'x'", &["audit", "/bin/true"]),
        &["invivo.toml", "naem", "--help"],
    );
    is_error_of(&run("[adit]", &["list"]), &["no command \"adit\""]);
    is_error_of(
        &run("not toml", &["list"]),
        &["invivo.toml", "INVIVO_CONFIG"],
    );
    let ran = run_in(&folder, &["--config=none.toml", "list"]);
    is_error_of(&ran, &["none.toml"]);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn progress_is_told_to_programs() {
    let ran = invivo(&["audit", "/bin/true", "--progress", "json"]);
    let events: Vec<serde_json::Value> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("one JSON object in each line"))
        .collect();
    let told: Vec<_> = events.iter().map(|event| event["event"].as_str()).collect();
    assert_eq!(told, [Some("begin"), Some("end")], "{ran:?}");
    assert!(
        events
            .iter()
            .all(|event| event["schema"] == "invivo.progress/1")
    );
    assert!(events[1]["took_ms"].is_u64(), "{ran:?}");
    let both = invivo(&["list", "--no-progress", "--progress", "json"]);
    assert_eq!(both.code, 2, "{both:?}");
}

#[test]
fn a_run_is_saved_for_a_report() {
    let folder = folder("repro");
    std::fs::write(folder.join("key"), "secret").expect("a file can be written");
    let own = std::process::id().to_string();
    let words = ["apply", "text", "-p", &own, "--save-repro", "saved"];
    let ran = run_in(&folder, &words);
    is_error(
        &ran,
        1,
        &["not an Invivo patch", "saved for a report: saved"],
    );
    let read = |name: &str| std::fs::read(folder.join("saved").join(name)).expect(name);
    let repro: serde_json::Value = serde_json::from_slice(&read("repro.json")).expect("JSON");
    assert_eq!(repro["schema"], "invivo.repro/1");
    assert_eq!(repro["exit_code"], 1);
    assert!(
        repro["error"]
            .as_str()
            .is_some_and(|text| text.contains("not an Invivo patch"))
    );
    let files = repro["files"].as_array().expect("files");
    let saved = |named: &str| {
        let file = files
            .iter()
            .find(|file| file["named"] == named)
            .expect("it is saved");
        read(file["saved_as"].as_str().expect("a name"))
    };
    assert_eq!(saved("text"), b"not a program\n");
    let maps = String::from_utf8(saved(&format!("/proc/{own}/maps"))).expect("text");
    assert!(maps.contains("r-xp"), "{maps}");
    // Nothing is written over, and no key is taken along.
    is_error(&run_in(&folder, &words), 2, &["saved", "--save-repro"]);
    let words = [
        "sign",
        "text",
        "--key",
        "key",
        "--cert",
        "text",
        "-o",
        "out",
        "--save-repro",
        "two",
    ];
    assert_ne!(run_in(&folder, &words).code, 0);
    for file in std::fs::read_dir(folder.join("two")).expect("a folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("it can be read");
        assert!(!bytes.windows(6).any(|part| part == b"secret"));
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
