//! `invivo check` and `invivo inspect` of payloads for Xen, of which the format's writer makes one.
//!
//! Renew the expected output with `INVIVO_BLESS=1 cargo test -p invivo-cli`.

#[path = "../../format/tests/payload/example.rs"]
mod example;
mod golden;
#[path = "../../format/tests/payload/kept.rs"]
mod kept;
mod program;

use std::path::{Path, PathBuf};

use golden::compare;
use invivo_format::livepatch::{
    Access, Contents, Expectation, Function, Hook, Moment, New, Old, Payload, Reference,
    Relocation, RelocationKind, Section, Symbol, SymbolPlace,
};
use invivo_image::BuildId;
use kept::{keep, write};
use program::run_in;
use serde_json::Value;

/// A hypervisor of a few names.
const MAP: &str = "\
0xffff82d040200000 T _start
0xffff82d040234b20 T xen_extra_version
0xffff82d0403b7000 T __init_begin
0xffff82d04045b000 D __init_end
0xffff82d04045bdc0 d common/keyhandler.c#key_table
";

/// One that begins with a hook, and expects the first bytes of the function.
fn payload() -> Payload {
    let mut payload = example::replacing(b"-fixed\0", &BuildId(vec![7; 20]));
    payload.functions[0].expectation = Expectation::new(vec![0x48, 0x8d, 5]);
    payload.hooks.push(Hook {
        moment: Moment::Load,
        code: Reference {
            symbol: 1,
            addend: 8,
        },
    });
    payload.symbols.push(Symbol {
        name: "common/keyhandler.c#key_table".to_owned(),
        place: SymbolPlace::Xen,
    });
    payload.modinfo.push("fixes=XSA-400".to_owned());
    payload
}

/// Adds what `build --splice tables` adds, but for the hooks: a record, and an entry that only looks.
fn redirect(payload: &mut Payload) {
    let place = Reference {
        symbol: 2,
        addend: 16,
    };
    let to = |symbol| Reference { symbol, addend: 0 };
    let words = [place, to(3), to(1)].into_iter().zip([0, 8, 16]);
    let words = words.map(|(to, offset)| Relocation {
        offset,
        kind: RelocationKind::Absolute64,
        to,
    });
    payload.symbols[1].name.clear();
    payload.symbols.push(Symbol {
        name: "xen_extra_version".to_owned(),
        place: SymbolPlace::Xen,
    });
    payload.sections.push(Section {
        name: ".rodata.splice.tables".to_owned(),
        access: Access::ReadOnly,
        align: 8,
        contents: Contents::Bytes(vec![0; 24]),
        relocations: words.collect(),
    });
    payload.functions.push(Function {
        name: "common/keyhandler.c#key_table+0x10".to_owned(),
        new: New::Nop { size: 0 },
        old: Old::Symbol(place),
        old_size: 8,
        expectation: Expectation::new(vec![7; 8]),
    });
}

/// A folder with files for one test; it has its name.
fn folder(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("invivo-payload-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    for (file, bytes) in files {
        std::fs::write(folder.join(file), bytes).expect("a file can be written");
        if bytes.starts_with(b"\x7fELF") {
            keep(bytes);
        }
    }
    folder
}

fn check(folder: &Path, words: &[&str]) -> (i32, Value) {
    let ran = run_in(folder, &[&["check", "--json"], words].concat());
    let json = serde_json::from_str(&ran.stdout);
    (ran.code, json.unwrap_or_else(|_| panic_with(&ran)))
}

fn panic_with(ran: &program::Ran) -> Value {
    unreachable!("{ran:?}")
}

#[test]
fn a_payload_is_shown() {
    let mut payload = payload();
    redirect(&mut payload);
    let file = write(&payload).expect("the model is sound").file;
    let folder = folder(
        "inspect",
        &[("fix.livepatch", &file), ("cut", &file[..200])],
    );
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let ran = run_in(&folder, &["inspect", "fix.livepatch"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    compare(&golden.join("payload.txt"), &ran.stdout);
    let ran = run_in(&folder, &["inspect", "fix.livepatch", "--json"]);
    compare(&golden.join("payload.json"), &ran.stdout);
    assert_eq!(run_in(&folder, &["inspect", "cut"]).code, 1);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_sound_payload_is_sound_on_each_release() {
    let file = write(&payload()).expect("the model is sound").file;
    let folder = folder("sound", &[("fix", &file), ("map", MAP.as_bytes())]);
    let ran = run_in(&folder, &["check", "fix", "--xen", "map"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("upload done, apply done"),
        "{}",
        ran.stdout
    );
    let (code, json) = check(&folder, &["fix", "--xen", "map"]);
    assert_eq!(
        (code, &json["sound"], &json["upload"]),
        (0, &true.into(), &"done".into())
    );
    assert_eq!(json["elsewhere"], Value::Array(Vec::new()));
    // Without names it is told what was not looked at.
    let (code, json) = check(&folder, &["fix"]);
    let unseen = json["without_xen"].as_array().expect("a list");
    assert!(code == 0 && unseen.contains(&"X18".into()), "{json}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn the_errno_is_told_and_where_it_differs() {
    let mut wrong = payload();
    wrong.symbols[2].name = "key_table".to_owned();
    let wrong = write(&wrong).expect("the model is sound").file;
    let mut note = write(&payload()).expect("the model is sound").file;
    // The type of the note with what the payload depends on; the first of three.
    let at = note
        .windows(16)
        .position(|bytes| bytes.ends_with(b"\x03\0\0\0GNU\0"));
    note[at.expect("a note") + 8] = 1;
    let folder = folder(
        "errno",
        &[("wrong", &wrong), ("note", &note), ("map", MAP.as_bytes())],
    );
    let ran = run_in(
        &folder,
        &["check", "wrong", "--xen", "map", "--xen-version", "4.17"],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    for text in [
        "X18 ",
        "key_table",
        "(upload: ENOENT)",
        "Xen 4.17",
        "invivo explain X18",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let (code, json) = check(&folder, &["note", "--xen", "map"]);
    assert_eq!((code, &json["upload"]), (1, &"ENODATA".into()), "{json}");
    let older = json["elsewhere"].as_array().expect("a list");
    assert_eq!(older.len(), 6, "4.14 to 4.19: {json}");
    assert!(older.iter().all(|one| one["upload"] == "EINVAL"));
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn what_harms_the_hypervisor_is_refused() {
    let mut file = write(&payload()).expect("the model is sound").file;
    let text = file.windows(13).position(|bytes| bytes == b"fixes=XSA-400");
    let (at, header) = (text.expect("the text") as u64, 32);
    // `.modinfo` becomes empty: its header is the one with that place.
    let place = file.windows(8).rposition(|bytes| bytes == at.to_le_bytes());
    let size = place.expect("a header") + header - 24;
    file[size..size + 8].fill(0);
    let folder = folder("harm", &[("fix", &file), ("map", MAP.as_bytes())]);
    let (code, json) = check(&folder, &["fix", "--xen", "map", "--xen-version", "4.17"]);
    assert_eq!(
        (code, &json["upload"], &json["sound"]),
        (1, &"harm".into(), &false.into()),
        "{json}"
    );
    assert_eq!(json["findings"][0]["rule"], "X49");
    let ran = run_in(&folder, &["explain", "X49"]);
    assert!(ran.stdout.contains("upload: harm"), "{}", ran.stdout);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn payloads_that_were_applied_before_count() {
    let first = write(&payload()).expect("the model is sound");
    let mut next = payload();
    next.depends = first.id.clone();
    next.modinfo.push("second".to_owned());
    let next = write(&next).expect("the model is sound").file;
    let files = [
        ("first", &first.file[..]),
        ("next", &next),
        ("map", MAP.as_bytes()),
    ];
    let folder = folder("after", &files);
    let (code, json) = check(&folder, &["next", "--xen", "map", "--after", "first"]);
    assert_eq!(code, 0, "{json}");
    let (code, json) = check(&folder, &["first", "--xen", "map", "--after", "first"]);
    assert_eq!((code, &json["upload"]), (1, &"EEXIST".into()), "{json}");
    let ran = run_in(
        &folder,
        &["check", "next", "--xen", "map", "--after", "map"],
    );
    assert!(
        ran.code == 1 && ran.stderr.contains("does not take it"),
        "{ran:?}"
    );
    let ran = run_in(&folder, &["check", "next", "--xen", "next"]);
    assert!(ran.code == 2 && ran.stderr.contains("hint: "), "{ran:?}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

/// An error with that code and these words, and nothing on standard output.
fn is_error(ran: &program::Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    for word in ["error: ", "hint: "].iter().chain(words) {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}

/// No machine that runs these tests is a dom0; the tests with Xen show the rest.
#[test]
fn the_common_verbs_take_payloads_to_xen_alone() {
    let file = write(&payload()).expect("the model is sound").file;
    let mut cut = file.clone();
    // `.modinfo` has no zero at its end any more.
    let at = cut
        .windows(14)
        .position(|bytes| bytes == b"fixes=XSA-400\0");
    cut[at.expect("the text") + 13] = b'!';
    let longest = "x".repeat(200);
    let files = [
        ("fix.livepatch", &file[..]),
        ("cut.livepatch", &cut),
        (&longest, &file),
        ("text", b"no payload"),
    ];
    let folder = folder("verbs", &files);
    let run = |words: &[&str]| run_in(&folder, words);
    for verb in ["plan", "apply", "replace", "status"] {
        let elsewhere = run(&[verb, "fix.livepatch"]);
        is_error(&elsewhere, 6, &["does not run on Xen", "dom0"]);
        for chosen in [&["-p", "1"][..], &["--comm", "xenstored"]] {
            let process = run(&[&[verb, "fix.livepatch"], chosen].concat());
            is_error(
                &process,
                2,
                &["fix.livepatch", "no process", "leave -p out"],
            );
        }
        let broken = run(&[verb, "cut.livepatch"]);
        is_error(&broken, 1, &["X41", "invivo check cut.livepatch"]);
        is_error(&run(&[verb, &longest]), 2, &["1 to 127 bytes"]);
    }
    // What needs no hypervisor is named where there is none.
    for plan in [
        &["plan", "fix.livepatch"][..],
        &["apply", "fix.livepatch", "--dry-run"],
        &["replace", "fix.livepatch", "--dry-run"],
    ] {
        let remedy = "invivo check fix.livepatch --xen-version";
        is_error(&run(plan), 6, &[remedy]);
    }
    is_error(
        &run(&["apply", "fix.livepatch", "--all"]),
        2,
        &["no process"],
    );
    is_error(
        &run(&["blocking", "fix.livepatch", "-p", "1"]),
        1,
        &["is a payload for Xen"],
    );
    is_error(
        &run(&["status", "fix.livepatch", "--watch"]),
        2,
        &["--watch"],
    );
    let unsigned = run(&["apply", "fix.livepatch", "--cert", "text"]);
    is_error(&unsigned, 2, &["text: the certificate"]);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
