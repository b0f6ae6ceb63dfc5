//! Tables beside the code in object files: written as Xen's headers write them, compiled by
//! gcc and clang.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use invivo_compare::{Comparison, Severity};
use invivo_image::{Image, ObjectFile};

/// `ALTERNATIVE`, `BUG_FRAME` and `_ASM_EXTABLE` in small.
const HEAD: &str = r#"
#define N __attribute__((noinline))
extern int outside(int);
#define ALTERNATIVE(old, new, feature) \
    "661:\n" old "\n662:\n" \
    ".pushsection .altinstructions,\"a\",@progbits\n" \
    ".long 661b - .\n .long 663f - .\n .word " #feature "\n" \
    ".byte 662b-661b\n .byte 664f-663f\n .byte 0\n .byte 0\n.popsection\n" \
    ".pushsection .altinstr_replacement,\"ax\",@progbits\n663:\n" new "\n664:\n.popsection\n"
#define BUG(line, file) \
    asm volatile(".Lbug%=: ud2\n.pushsection .bug_frames.2,\"a\",@progbits\n.p2align 2\n" \
        ".Lfrm%=:\n.long (.Lbug%= - .Lfrm%=) + %c0\n.long (%c1 - .Lfrm%=) + %c2\n.popsection\n" \
        :: "i" (((line) >> 7) << 24), "i" (file), "i" (((line) & 127) << 24))
#define FAULT(insn, fixup) \
    "1: " insn "\n2:\n.pushsection .fixup,\"ax\",@progbits\n3: " fixup "\n jmp 2b\n.popsection\n" \
    ".pushsection .ex_table,\"a\",@progbits\n.balign 4\n.long 1b - .\n.long 3b - .\n.popsection\n"
"#;

fn compile(test: &str, compiler: &str, text: &str) -> ObjectFile {
    let name = format!("annexes-{test}-{compiler}");
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join("file.c"), format!("{HEAD}{text}")).expect("written");
    let done = Command::new(compiler)
        .current_dir(&folder)
        .args([
            "-O2",
            "-g",
            "-ffunction-sections",
            "-fdata-sections",
            "-fPIC",
        ])
        .args(["-fvisibility=hidden", "-fno-asynchronous-unwind-tables"])
        .args(["-c", "-o", "file.o", "file.c"])
        .output()
        .expect("the compiler is installed (apt-get install gcc clang)");
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{compiler}: {text}");
    ObjectFile {
        label: "file.o".to_owned(),
        bytes: Arc::from(std::fs::read(folder.join("file.o")).expect("it was made")),
    }
}

/// Names of hot functions, with the texts of their reasons, and of those left out.
type Said = (Vec<(String, String)>, Vec<String>);

fn said(base: &ObjectFile, fixed: &ObjectFile) -> Said {
    let sides = (std::slice::from_ref(base), std::slice::from_ref(fixed));
    let (base, fixed) = Image::of_objects(sides.0, sides.1).expect("they can be read");
    let c = Comparison::new(&base, &fixed);
    let refused = c.findings.iter().filter(|f| f.severity == Severity::Refuse);
    assert_eq!(refused.count(), 0, "{:?}", c.findings);
    let hot = c.hot.iter().map(|hot| {
        let reasons: Vec<&str> = hot.reasons.iter().map(|r| r.text.as_str()).collect();
        (hot.name.clone(), reasons.join("; "))
    });
    (
        hot.collect(),
        c.left_out.iter().map(|hot| hot.name.clone()).collect(),
    )
}

fn each(test: &str, base: &str, fixed: &str) -> Vec<Said> {
    let of = |compiler: &&str| {
        let one = compile(test, compiler, base);
        let same = compile(test, compiler, base);
        assert_eq!(
            said(&one, &same),
            (vec![], vec![]),
            "{compiler}: the same again"
        );
        said(&one, &compile(test, compiler, fixed))
    };
    ["gcc", "clang"].iter().map(of).collect()
}

fn clac(before: &str, new: &str, feature: u32) -> String {
    format!(
        "{before}\
         N int guard(int x) {{ asm volatile(ALTERNATIVE(\"nopl (%rax)\", \"{new}\", {feature})); return outside(x); }}\n\
         N int other(int x) {{ asm volatile(ALTERNATIVE(\"nopl (%rax)\", \"clac\", 20)); return outside(x + 1); }}\n"
    )
}

#[test]
fn another_replacement_makes_its_function_hot_and_a_moved_one_does_not() {
    let base = clac("", "clac", 20);
    for (hot, _) in each("replacement", &base, &clac("", "stac", 20)) {
        let names: Vec<&str> = hot.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["guard"]);
    }
    for (hot, _) in each("feature", &base, &clac("", "clac", 21)) {
        let names: Vec<&str> = hot.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["guard"]);
        assert!(
            hot[0].1.contains("its entries in .altinstructions differ"),
            "{}",
            hot[0].1
        );
    }
    let before = "N int first(int x) { asm volatile(ALTERNATIVE(\"nopl (%rax)\", \"stac\", 20)); return outside(x) - 1; }\n";
    for said in each("moved", &base, &clac(before, "clac", 20)) {
        assert_eq!(said, (vec![], vec![]));
    }
}

#[test]
fn a_replacement_that_one_side_lacks_makes_its_function_hot() {
    let of = |body: &str| format!("N int guard(int x) {{ {body} return outside(x); }}\n");
    let with = of("asm volatile(ALTERNATIVE(\"nopl (%rax)\", \"clac\", 20));");
    for (hot, _) in each("added", &of("asm volatile(\"nopl (%rax)\");"), &with) {
        assert_eq!(hot.len(), 1, "{hot:?}");
    }
}

#[test]
fn the_line_of_a_trap_is_a_line_number_and_its_file_is_not() {
    let of = |before: &str, line: &str, file: &str| {
        format!(
            "{before}N int check(int x) {{ if (x > 9) {{ BUG({line}, {file}); __builtin_unreachable(); }} return outside(x); }}\n"
        )
    };
    let base = of("", "__LINE__", "\"common/event.c\"");
    let lines = "\n".repeat(200);
    for said in each("line", &base, &of(&lines, "__LINE__", "\"common/event.c\"")) {
        assert_eq!(said, (vec![], vec!["check".to_owned()]));
    }
    for (hot, _) in each(
        "not-line",
        &base,
        &of(&lines, "__LINE__ + 9", "\"common/event.c\""),
    ) {
        assert_eq!(hot.len(), 1, "{hot:?}");
    }
    for (hot, _) in each("file", &base, &of("", "__LINE__", "\"common/evtch.c\"")) {
        assert_eq!(hot.len(), 1, "{hot:?}");
        assert!(hot[0].1.contains(".bug_frames.2"), "{hot:?}");
    }
}

#[test]
fn the_way_on_after_a_fault_is_a_part_of_its_function() {
    let of = |before: &str, value: i32| {
        format!(
            "{before}\
             N int read_at(const int *p) {{ int v; asm volatile(FAULT(\"movl (%1), %0\", \"movl ${value}, %0\") : \"=r\" (v) : \"r\" (p)); return outside(v); }}\n\
             N int other(const int *p) {{ int v; asm volatile(FAULT(\"movl 4(%1), %0\", \"movl $-1, %0\") : \"=r\" (v) : \"r\" (p)); return outside(v); }}\n"
        )
    };
    let base = of("", -14);
    for (hot, _) in each("fixup", &base, &of("", -22)) {
        let names: Vec<&str> = hot.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["read_at"]);
    }
    let before = "N int first(const int *p) { int v; asm volatile(FAULT(\"movl 8(%1), %0\", \"movl $-2, %0\") : \"=r\" (v) : \"r\" (p)); return outside(v); }\n";
    for said in each("fixup-moved", &base, &of(before, -14)) {
        assert_eq!(said, (vec![], vec![]));
    }
}

fn names(hot: &[(String, String)]) -> Vec<&str> {
    hot.iter().map(|(name, _)| name.as_str()).collect()
}

/// An indirect call that becomes a direct one is in a table from Xen 4.21 on.
#[test]
fn a_call_that_becomes_direct_is_a_part_of_its_function() {
    let call = |name: &str, slot: &str, value: u32| {
        format!("N int {name}(int x) {{ {slot}; return outside(x + {value}); }}\n")
    };
    let of = |order: [usize; 2], slot: &str| {
        let both = [call("one", slot, 1), call("two", "CALL(hooks[1])", 2)];
        let both: String = order.map(|at| both[at].as_str()).concat();
        format!("extern void (*hooks[4])(void);\n{both}")
    };
    let base = of([0, 1], "CALL(hooks[0])");
    for said in each("sites-moved", &base, &of([1, 0], "CALL(hooks[0])")) {
        assert_eq!(said, (vec![], vec![]));
    }
    for (hot, _) in each("site", &base, &of([0, 1], "CALL(hooks[2])")) {
        assert_eq!(names(&hot), ["one"]);
    }
    // The same instruction, which nobody makes direct.
    let plain = "asm volatile(\"call *%0\" :: \"m\" (hooks[0]) : \"rax\", \"rcx\", \"rdx\", \"rsi\", \
                 \"rdi\", \"r8\", \"r9\", \"r10\", \"r11\", \"memory\")";
    for (hot, _) in each("no-site", &base, &of([0, 1], plain)) {
        assert_eq!(names(&hot), ["one"]);
    }
}

/// `run_in_exception_handler`, `WARN`, `BUG` and `ASSERT` have a table each.
#[test]
fn each_kind_of_trap_is_compared_wherever_its_record_lies() {
    let of = |order: [u32; 4], kind: &dyn Fn(u32) -> u32| {
        let check = |at: u32| {
            let kind = kind(at);
            format!(
                "N int check{at}(int x) {{ if (x > {at}) TRAP({kind}, {at} + 9, \"a.c\"); return outside(x); }}\n"
            )
        };
        order.map(check).concat()
    };
    let base = of([0, 1, 2, 3], &|at| at);
    for said in each("traps-moved", &base, &of([2, 0, 3, 1], &|at| at)) {
        assert_eq!(said, (vec![], vec![]));
    }
    for at in 0..4_u32 {
        let changed = |one: u32| if one == at { (at + 1) % 4 } else { one };
        for (hot, _) in each(&format!("trap{at}"), &base, &of([2, 0, 3, 1], &changed)) {
            assert_eq!(names(&hot), [format!("check{at}")]);
        }
    }
}
