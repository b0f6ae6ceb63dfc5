//! What linkers put beside a constant is no part of it: constants in another order, with what each
//! function says of them written in assembly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use invivo_compare::Comparison;
use invivo_image::Image;

/// A program in which `code` refers to what stands in `constants`.
fn build(name: &str, code: &str, constants: &str) -> Image {
    let process = std::process::id();
    let folder: PathBuf =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("placement-{name}-{process}"));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let program =
        format!(".text\n{code}\n.section .rodata\n{constants}\n.section .note.GNU-stack\n");
    std::fs::write(folder.join("program.s"), program).expect("the source can be written");
    let done = Command::new("cc")
        .current_dir(&folder)
        .args(["-nostdlib", "-pie", "-o", "program", "program.s"])
        .output()
        .expect("the compiler is installed (apt-get install gcc)");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let bytes = std::fs::read(folder.join("program")).expect("the program was made");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    Image::parse(Arc::from(bytes), None).expect("an image")
}

fn function(name: &str, body: &str) -> String {
    format!(".globl {name}\n.type {name}, @function\n{name}:\n{body}\n.size {name}, .-{name}\n")
}

/// The functions that differ where only the constants do.
fn hot(name: &str, code: &str, base: &str, fixed: &str) -> Vec<String> {
    let base = build(&format!("{name}-base"), code, base);
    let fixed = build(&format!("{name}-fixed"), code, fixed);
    let c = Comparison::new(&base, &fixed);
    let mut names: Vec<String> = c.hot.iter().map(|hot| hot.name.clone()).collect();
    names.sort();
    names
}

/// A text behind an empty one, which `_start` tells by its own address.
fn behind_empty(text: &str) -> String {
    format!(".Lempty: .byte 0\n.Lword: .asciz \"{text}\"\n")
}

fn with_start(used: &str, body: &str) -> String {
    let start = function("_start", &format!("lea {used}(%rip), %rdi\ncall used\nhlt"));
    format!(
        "{start}{}{}",
        function("used", "ret"),
        function("says", body)
    )
}

#[test]
fn what_follows_an_empty_text_that_is_handed_on_is_no_part_of_it() {
    let body = "sub $8, %rsp\nlea .Lempty(%rip), %rsi\ntest %edi, %edi\njs 1f\nxor %eax, %eax\n\
                call used\n1: add $8, %rsp\nret";
    let code = with_start(".Lword", body);
    let said = hot(
        "handed",
        &code,
        &behind_empty("unknown"),
        &behind_empty("via"),
    );
    assert_eq!(said, ["_start"], "says hands on nothing but the empty text");
    // One of two texts, which comes to the call on the stack.
    let chosen = "mov %rsi, %rax\ncmp $1, %edi\nlea .Lempty(%rip), %rdx\ncmovne %rdx, %rax\n\
                  xor %edx, %edx\npush %rax\npush %rdi\nxor %eax, %eax\ncall used\n\
                  pop %rsi\npop %rdi\nxor %esi, %esi\nxor %edi, %edi\nret";
    let code = with_start(".Lword", chosen);
    let (base, fixed) = (behind_empty("unknown"), behind_empty("via"));
    assert_eq!(hot("chosen", &code, &base, &fixed), ["_start"]);
}

#[test]
fn padding_behind_an_empty_text_that_is_handed_on_is_no_part_of_it() {
    let code = with_start(".Lword", "lea .Lempty(%rip), %rsi\ncall used\nret");
    let padded = |what: &str| format!(".Lempty: .byte {what}\n.balign 8\n.Lword: .asciz \"via\"\n");
    let close = behind_empty("via");
    assert_eq!(hot("padded", &code, &close, &padded("0")), [""; 0]);
    // It is no padding.
    assert_eq!(hot("padded-not", &code, &close, &padded("0, 1")), ["says"]);
}

#[test]
fn constants_that_lead_back_to_themselves_are_compared_once() {
    let code = with_start(".Lword", "lea .Lone(%rip), %rax\nret");
    let ring = |last: &str| {
        format!(
            ".Lword: .asciz \"via\"\n.section .data.rel.ro, \"aw\"\n\
             .Lone: .quad .Lother, 7\n.Lother: .quad .Lone, {last}\n"
        )
    };
    assert_eq!(hot("ring", &code, &ring("11, 0"), &ring("11, 0")), [""; 0]);
    assert_eq!(hot("ring-other", &code, &ring("11"), &ring("12")), ["says"]);
    let (base, fixed) = (ring("11, .Lone"), ring("11, .Lother"));
    assert_eq!(hot("ring-turned", &code, &base, &fixed), ["says"]);
}

#[test]
fn what_is_counted_from_an_empty_text_is_compared() {
    let counted = [
        // In the function itself, before and behind the call.
        "lea .Lempty(%rip), %rsi\nmov %edi, %edi\nmovzbl (%rsi,%rdi), %eax\ncall used\nret",
        "lea .Lempty(%rip), %rsi\ncall used\nmov %edi, %edi\nmovzbl (%rsi,%rdi), %eax\nret",
        "lea .Lempty(%rip), %rsi\ncall used\njmp 2f\n1: movzbl (%rsi,%rdi), %eax\nret\n\
         2: mov %edi, %edi\njs 1b\nret",
        // Kept elsewhere, or for where an exception leads.
        "lea .Lempty(%rip), %rsi\nmov %rsi, 8(%rdi)\ncall used\nret",
        "lea .Lempty(%rip), %rbx\ncall used\nret",
        // One of two, counted from; taken back from the stack, or read there.
        "lea .Lempty(%rip), %rdx\ncmp $1, %edi\ncmovne %rdx, %rsi\nmov %edi, %edi\n\
         movzbl (%rsi,%rdi), %eax\nxor %edx, %edx\ncall used\nret",
        "lea .Lempty(%rip), %rsi\npush %rsi\ncall used\npop %rcx\nxor %esi, %esi\n\
         mov %edi, %edi\nmovzbl (%rcx,%rdi), %eax\nret",
        "lea .Lempty(%rip), %rsi\npush %rsi\ncall used\nmov (%rsp), %rdx\nxor %esi, %esi\n\
         mov %edi, %edi\nmovzbl (%rdx,%rdi), %eax\npop %rcx\nret",
        // Nobody gets it.
        "lea .Lempty(%rip), %rsi\nxor %esi, %esi\nret",
    ];
    for (number, body) in counted.into_iter().enumerate() {
        let code = with_start(".Lword", body);
        let name = format!("counted-{number}");
        let said = hot(&name, &code, &behind_empty("unknown"), &behind_empty("via"));
        assert_eq!(said, ["_start", "says"], "{body}");
    }
}

#[test]
fn bytes_that_begin_with_a_nul_are_compared_whole() {
    let body = "lea .Lempty(%rip), %rsi\nmov $4, %edx\ncall used\nret";
    // Nobody refers to what follows the NUL.
    let code = with_start(".Lother", body);
    let magic = |last: char| format!(".Lempty: .ascii \"\\0AB{last}\\0\"\n.Lother: .asciz \"o\"\n");
    let said = hot("magic", &code, &magic('C'), &magic('D'));
    assert_eq!(said, ["says"]);
}

/// A jump table with a guard, and a text that a table of distances alone names.
const PICKS: &str = "cmp $2, %edi\nja 3f\nlea .Ltable(%rip), %rdx\nmovslq (%rdx,%rdi,4), %rax\n\
                     add %rdx, %rax\njmp *%rax\n1: mov $1, %eax\nret\n2: mov $2, %eax\nret\n\
                     3: xor %eax, %eax\nret\n.section .rodata\n.balign 4\n\
                     .Ltable: .long 1b-.Ltable, 2b-.Ltable, 1b-.Ltable\n";

#[test]
fn what_follows_a_jump_table_that_is_as_long_as_its_guard_says_is_no_part_of_it() {
    let code = with_start(".Lword", &format!("{PICKS}\n.text"));
    // Nobody refers to the numbers.
    let numbers = ".long 131073, 7\n.Lword: .asciz \"word\"\n";
    let said = hot("table", &code, numbers, ".Lword: .asciz \"word\"\n");
    assert!(said.is_empty(), "{said:?}");
    // Numbers behind the table on both sides may be entries of it.
    let others = ".long 131074, 7\n.Lword: .asciz \"word\"\n";
    assert_eq!(hot("table-end", &code, numbers, others), ["says"]);
}

#[test]
fn a_table_of_distances_says_where_texts_begin() {
    let picks = "mov %edi, %eax\nlea picked(%rip), %rcx\nmovslq (%rcx,%rax,4), %rax\n\
                 add %rcx, %rax\nret";
    let code = with_start(".Lword", "lea .Lunknown(%rip), %rax\nret") + &function("picks", picks);
    let table = "\n.balign 4\n.type picked, @object\npicked: .long .Lone-picked, .Ltwo-picked\n\
                 .size picked, 8\n";
    let one = ".Lunknown: .asciz \"unknown\"\n.Lone: .asciz \"one\"\n.Ltwo: .asciz \"two\"\n\
               .Lword: .asciz \"word\"";
    let other = ".Lunknown: .asciz \"unknown\"\n.Lword: .asciz \"word\"\n.Ltwo: .asciz \"two\"\n\
                 .Lone: .asciz \"one\"";
    let said = hot(
        "distances",
        &code,
        &format!("{one}{table}"),
        &format!("{other}{table}"),
    );
    assert!(said.is_empty(), "{said:?}");
    let changed = one.replace("\"two\"", "\"2\"");
    let said = hot(
        "distances-text",
        &code,
        &format!("{one}{table}"),
        &format!("{changed}{table}"),
    );
    assert_eq!(said, ["picks"]);
}
