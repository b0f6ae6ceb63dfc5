//! What `invivo audit` finds in programs that are made here.

mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::run_in;
use serde_json::Value;

/// Each entry is written down instruction by instruction, so that its form is known.
const ENTRIES: &str = r#"
#define FUNCTION(name, body) \
    asm(".text\n.globl " #name "\n.type " #name ",@function\n" #name ":\n" \
        body ".size " #name ",.-" #name "\n")
/* Keeps what lies around out of a short jump's reach. */
#define APART(name) FUNCTION(name, ".rept 60\n mov $1,%eax\n .endr\n ret\n")
#define ALIGN asm(".p2align 4\n")

APART(apart_1);
FUNCTION(long_first, "mov $1,%eax\n ret\n");
FUNCTION(behind_endbr, "endbr64\n mov $1,%eax\n ret\n");
FUNCTION(behind_pushes, "push %r12\n push %rbx\n sub $8,%rsp\n mov $1,%eax\n ud2\n");
FUNCTION(several, "push %rbx\n mov %rsi,%rdi\n mov $1,%eax\n ud2\n");
FUNCTION(tiny, "ret\n");
FUNCTION(loops, "push %rbx\n 1: mov %rsi,%rdi\n dec %edi\n jne 1b\n ud2\n");
APART(apart_2);
ALIGN;
FUNCTION(near_padding, "xor %eax,%eax\n ret\n");
ALIGN;
FUNCTION(last, "mov $1,%eax\n ret\n");
int main(void) { return 0; }
"#;

/// Compiled to be patched: five bytes before each function.
const PREPARED: &str = "\
__attribute__((noipa)) int first(int n) { return n; }
__attribute__((noipa)) int ready_one(int n) { return n + 1; }
__attribute__((noipa)) int ready_two(int n) { return n * n; }
__attribute__((noipa)) int ready_three(int *n) { return *n; }
int main(int n, char **v) { (void)v; return first(n) + ready_one(n) + ready_two(n) + ready_three(&n); }
";

fn compile(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let process = std::process::id();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("audit-{name}-{process}"));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    std::fs::write(folder.join("server.c"), source).expect("the source can be written");
    let done = Command::new("cc")
        .current_dir(&folder)
        .args(["-O2", "-fcf-protection=none", "-o", "server", "server.c"])
        .args(flags)
        .output()
        .expect("a C compiler is installed (apt-get install gcc)");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    folder
}

fn audit(folder: &Path, name: &str) -> Value {
    let ran = run_in(folder, &["audit", "server", "--name", name, "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let audited: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(audited["schema"], "invivo.audit/1");
    audited
}

#[test]
fn each_entry_takes_the_form_that_fits() {
    let folder = compile("entries", ENTRIES, &[]);
    let expected = [
        ("long_first", "jump over one instruction", 0, 5),
        ("behind_endbr", "jump over one instruction", 4, 5),
        ("behind_pushes", "jump behind the prologue's start", 7, 5),
        ("several", "jump over several instructions", 0, 9),
        ("near_padding", "short jump to padding", 0, 2),
    ];
    for (name, form, offset, length) in expected {
        let audited = audit(&folder, name);
        let hook = &audited["functions"][0]["hook"];
        assert_eq!(hook["form"], form, "{audited:#}");
        assert_eq!(hook["offset"], offset, "{audited:#}");
        assert_eq!(hook["length"], length, "{audited:#}");
        assert_eq!(hook["needs_stop"], name == "several", "{audited:#}");
    }
    for (name, reason) in [("tiny", "1 bytes are too short"), ("loops", "a loop")] {
        let audited = audit(&folder, name);
        let function = &audited["functions"][0];
        assert!(function.get("hook").is_none(), "{audited:#}");
        let said = function["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{said}");
        assert_eq!(audited["unfit"]["percent"], 100.0);
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_program_that_was_compiled_for_it_needs_no_stop() {
    let flags = ["-fpatchable-function-entry=5,5", "-fno-toplevel-reorder"];
    let folder = compile("prepared", PREPARED, &flags);
    let audited = audit(&folder, "ready_");
    for all in ["prepared", "without_stop"] {
        assert_eq!(audited[all]["count"], 3, "{audited:#}");
        assert_eq!(audited[all]["percent"], 100.0, "{audited:#}");
    }
    assert_eq!(audited["forms"][1]["form"], "short jump to padding");
    assert_eq!(audited["forms"][1]["count"], 3, "{audited:#}");
    for function in audited["functions"].as_array().expect("a list") {
        assert_eq!(function["hook"]["pad"], -5, "right before the entry");
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn the_text_begins_with_the_totals() {
    let folder = compile("text", PREPARED, &["-fpatchable-function-entry=5,5"]);
    let ran = run_in(&folder, &["audit", "server"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.starts_with("server: "), "{}", ran.stdout);
    assert!(!ran.stdout.contains("ready_one"), "{}", ran.stdout);
    let ran = run_in(&folder, &["audit", "server", "--name", "ready_one"]);
    let listed = ran.stdout.lines().last().unwrap_or_default();
    assert!(
        listed.ends_with(" ready_one: short jump to padding"),
        "{}",
        ran.stdout
    );
    let ran = run_in(&folder, &["audit", "server", "--name", "nobody"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("no such function"), "{ran:?}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

/// The totals of a program that nobody made for this: the one that is tested.
#[test]
fn the_totals_of_a_large_program_are_sums_of_what_is_listed() {
    let program = Path::new(env!("CARGO_BIN_EXE_invivo"));
    let folder = program.parent().expect("a program is in a folder");
    let whole = run_in(folder, &["audit", "invivo", "--json"]);
    assert_eq!((whole.code, whole.stderr.as_str()), (0, ""));
    let audited: Value = serde_json::from_str(&whole.stdout).expect("one JSON object");
    let number = |total: &Value| total["count"].as_u64().expect("a number");
    let forms = audited["forms"].as_array().expect("a list");
    let hooked: u64 = forms.iter().map(number).sum();
    let all = hooked + number(&audited["unfit"]);
    assert!(all > 5_000, "only {all} functions");
    let free = forms.iter().filter(|form| form["needs_stop"] == false);
    assert_eq!(
        free.map(number).sum::<u64>(),
        number(&audited["without_stop"])
    );
    for total in forms
        .iter()
        .chain([&audited["unfit"], &audited["without_stop"]])
    {
        let percent = number(total) as f64 * 100.0 / all as f64;
        let told = total["percent"].as_f64().expect("a number");
        // Told to the tenth, never too much.
        assert!(
            (-1e-6..0.1 + 1e-6).contains(&(percent - told)),
            "{percent} {total:#}"
        );
    }
    // Compilers align functions, so that few have no room for any hook.
    assert!(
        number(&audited["without_stop"]) * 2 > all,
        "{}",
        whole.stdout
    );
    assert!(number(&audited["unfit"]) * 100 < all, "{}", whole.stdout);
    let ran = run_in(folder, &["audit", "invivo", "--name", "main", "--json"]);
    let named: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    let functions = named["functions"].as_array().expect("a list");
    let main = functions.iter().find(|function| function["name"] == "main");
    assert!(
        main.is_some_and(|main| main["hook"]["form"].is_string()),
        "{named:#}"
    );
}
