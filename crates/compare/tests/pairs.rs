//! Small pairs of C programs, compiled here, and what their comparison must say.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use invivo_compare::{Comparison, Hot, ReasonKind, Rule, Severity};
use invivo_image::Image;

/// Compiles `source`; both programs of a pair get the same file name, because it is
/// part of a program.
fn compile(name: &str, version: &str, source: &str, flags: &[&str]) -> Image {
    compile_with("cc", name, version, source, flags)
}

fn compile_with(compiler: &str, name: &str, version: &str, source: &str, flags: &[&str]) -> Image {
    let process = std::process::id();
    let folder: PathBuf =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{version}-{process}"));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let program = folder.join("program");
    let ending = if compiler == "c++" {
        "program.cc"
    } else {
        "program.c"
    };
    std::fs::write(folder.join(ending), source).expect("the source can be written");
    let done = Command::new(compiler)
        .current_dir(&folder)
        .args(["-O2", "-g", "-o", "program", ending])
        .args(flags)
        .output()
        .expect("the compiler is installed (apt-get install g++)");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let bytes = std::fs::read(program).expect("the program was made");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    Image::parse(Arc::from(bytes), None).expect("an image")
}

struct Said {
    /// Hot functions with their reasons.
    hot: Vec<Told>,
    /// The same for those in which only line numbers moved.
    left_out: Vec<Told>,
    added: Vec<String>,
    refused: Vec<(Rule, String)>,
}

impl Said {
    fn names(&self) -> Vec<&str> {
        self.hot.iter().map(|(name, _)| name.as_str()).collect()
    }
}

type Told = (String, Vec<(ReasonKind, String)>);

fn told(functions: &[Hot]) -> Vec<Told> {
    let reasons = |hot: &Hot| {
        hot.reasons
            .iter()
            .map(|r| (r.kind, r.text.clone()))
            .collect()
    };
    functions
        .iter()
        .map(|hot| (hot.name.clone(), reasons(hot)))
        .collect()
}

fn compare_with(name: &str, base: &str, fixed: &str, flags: &[&str]) -> Said {
    let (base, fixed) = (
        compile(name, "base", base, flags),
        compile(name, "fixed", fixed, flags),
    );
    let c = Comparison::new(&base, &fixed);
    let mut hot = told(&c.hot);
    hot.sort_by(|a, b| a.0.cmp(&b.0));
    let refusals = c.findings.iter().filter(|f| f.severity == Severity::Refuse);
    Said {
        hot,
        left_out: told(&c.left_out),
        added: c
            .added
            .iter()
            .map(|id| fixed.entity(*id).name().to_owned())
            .collect(),
        refused: refusals.map(|f| (f.rule, f.subject.clone())).collect(),
    }
}

fn compare(name: &str, base: &str, fixed: &str) -> Said {
    compare_with(name, base, fixed, &[])
}

const NOINLINE: &str = "#define N __attribute__((noinline,noclone))\n#include <stdio.h>\n";

fn source(text: &str) -> String {
    format!("{NOINLINE}{text}")
}

#[test]
fn a_function_that_only_moved_is_equal() {
    let one = "N int a(int x) { printf(\"a %d\", x); return x * 3; }\n";
    let other = "N int b(int x) { printf(\"b %d\", x); return x * 5; }\n";
    let main = "int main(int n, char **v) { (void)v; return a(n) + b(n); }\n";
    let heads = "N int a(int); N int b(int);\n";
    for flags in [&[][..], &["-no-pie"][..]] {
        let base = source(&format!("{heads}{one}{other}{main}"));
        let fixed = source(&format!("{heads}{other}{one}{main}"));
        let said = compare_with("moved", &base, &fixed, flags);
        assert_eq!(said.names(), Vec::<&str>::new(), "{flags:?} {:?}", said.hot);
        assert_eq!(said.refused, []);
    }
}

#[test]
fn a_changed_text_makes_its_reader_hot() {
    let text = |word: &str| {
        source(&format!(
            "N int say(int x) {{ return printf(\"%d {word}\\n\", x); }}\n\
             N int other(int x) {{ return printf(\"%d other\\n\", x); }}\n\
             int main(int n, char **v) {{ (void)v; return say(n) + other(n); }}\n"
        ))
    };
    let said = compare("text", &text("wrong"), &text("right"));
    assert_eq!(said.names(), ["say"]);
    let reasons = &said.hot[0].1;
    assert_eq!(reasons[0].0, ReasonKind::Source);
    let (kind, why) = &reasons[1];
    assert_eq!(*kind, ReasonKind::Constant);
    assert!(why.contains("wrong") && why.contains("right"), "{why}");
}

#[test]
fn a_moved_line_number_is_told_from_a_change() {
    let text = "N void check(int ok, int line) { if (!ok) printf(\"%d\", line); }\n\
                N int f(int x) { check(x > 1, __LINE__); return x; }\n\
                int main(int n, char **v) { (void)v; return f(n); }\n";
    let said = compare("line", &source(text), &source(&format!("\n\n\n{text}")));
    assert_eq!(said.names(), [""; 0]);
    let (name, reasons) = &said.left_out[0];
    assert_eq!((name.as_str(), reasons[0].0), ("f", ReasonKind::Lines));
    assert!(reasons[0].1.contains("+3"), "{reasons:?}");
}

#[test]
fn a_changed_number_is_a_change() {
    let text = |limit: u32| {
        source(&format!(
            "N int f(unsigned x) {{ return x < {limit}u ? puts(\"in\") : 0; }}\n\
             int main(int n, char **v) {{ (void)v; return f(n); }}\n"
        ))
    };
    let said = compare("number", &text(70_000), &text(1_000_000));
    assert_eq!(said.names(), ["f"]);
    let kinds: Vec<ReasonKind> = said.hot[0].1.iter().map(|reason| reason.0).collect();
    assert_eq!(kinds, [ReasonKind::Source, ReasonKind::Code]);
}

/// Compilers number private names of functions anew in each build: `counter.0` of today
/// may be what was `counter.1` yesterday.
#[test]
fn statics_that_got_other_numbers_are_not_mistaken_for_each_other() {
    let first = "N int first(int x) { static int counter = 10; counter += x; return counter; }\n";
    let second = "N int second(int x) { static int counter = 20; counter -= x; return counter; }\n";
    let main = "int main(int n, char **v) { (void)v; return first(n) + second(n); }\n";
    let heads = "N int first(int); N int second(int);\n";
    let base = source(&format!("{heads}{first}{second}{main}"));
    let fixed = source(&format!("{heads}{second}{first}{main}"));
    let (one, other) = (
        compile("statics", "base", &base, &[]),
        compile("statics", "fixed", &fixed, &[]),
    );
    let c = Comparison::new(&one, &other);
    let users = |image: &Image, usage: &invivo_compare::Usage, id| -> Vec<String> {
        let uses = usage.uses.get(&id).into_iter().flatten();
        let mut users: Vec<_> = uses.map(|u| image.entity(u.by).name().to_owned()).collect();
        users.dedup();
        users
    };
    let mut seen = 0;
    for (a, b) in c
        .pairs
        .iter()
        .filter(|(a, _)| one.entity(*a).name().starts_with("counter"))
    {
        assert_eq!(
            users(&one, &c.base_usage, a),
            users(&other, &c.fixed_usage, b)
        );
        seen += 1;
    }
    assert_eq!(seen, 2, "both are paired, by who uses them");
    assert!(c.hot.is_empty(), "{:?}", c.hot);
    assert!(!c.is_refused(), "{:?}", c.findings);
}

/// `once.0` and `once.1` of one function, alike in all but where they are used.
#[test]
fn statics_of_one_function_are_told_apart_by_where_they_are_used() {
    let text = |number: u32| {
        source(&format!(
            "N int log_to(int x) {{\n\
             if (x > 9) {{ static char once; if (!once) {{ once = 1; puts(\"many\"); }} }}\n\
             if (x < 0) {{ static char once; if (!once) {{ once = 1; puts(\"few\"); }} }}\n\
             return x; }}\n\
             N int other(int x) {{ return x * {number}; }}\n\
             int main(int n, char **v) {{ (void)v; return log_to(n) + other(n); }}\n"
        ))
    };
    let said = compare("blocks", &text(3), &text(5));
    assert_eq!(said.names(), ["other"], "{:?}", said.hot);
}

/// `buffer + sizeof buffer` is no address inside anything, and may be the address of
/// the next variable.
#[test]
fn the_end_of_a_variable_belongs_to_it() {
    let text = |number: u32| {
        source(&format!(
            "N void fill(char *from, char *to, int x) {{ while (from < to) *from++ = x; }}\n\
             N char *text(int x) {{ static char text[11]; fill(text, text + sizeof text, x); return text; }}\n\
             N int other(int x) {{ return x * {number}; }}\n\
             int main(int n, char **v) {{ (void)v; puts(text(n)); return other(n); }}\n"
        ))
    };
    let said = compare("end", &text(3), &text(5));
    assert_eq!(said.names(), ["other"], "{:?}", said.hot);
}

/// A comparison before a `ret` says nothing about a table behind it: `utf8_next` of
/// HAProxy compares one register with 0x7f in one branch, and indexes a table of thirty
/// entries with it in another.
#[test]
fn what_lies_before_a_table_says_nothing_about_it() {
    // clang writes `mov eax, [table-4+rdi*4]`, an address in padding or in another variable.
    let text = |first: &str, second: &str, table: &str| {
        source(&format!(
            "static int {first}[3], {second}[3], rest[8];\n\
             N int read(long i) {{ return {table}[i - 1]; }}\n\
             int main(int n, char **v) {{ (void)v; first[n] = second[n] = rest[n] = n;\n\
             return read(n) + first[n + 1] + second[n + 1]; }}\n"
        ))
    };
    let build = |version: &str, text: &str| {
        compile_with(
            "clang",
            "before",
            version,
            text,
            &["-no-pie", "-fno-pie", "-w"],
        )
    };
    let base = build("base", &text("first", "second", "first"));
    let hot = |fixed: &Image| {
        let c = Comparison::new(&base, fixed);
        let names: Vec<String> = c.hot.iter().map(|hot| hot.name.clone()).collect();
        names
    };
    assert_eq!(hot(&base), Vec::<String>::new());
    let other = build("fixed", &text("first", "second", "second"));
    assert_eq!(hot(&other), ["read"]);
}

#[test]
fn a_comparison_of_another_branch_guards_no_table() {
    let text = |size: u32| {
        source(&format!(
            "asm(\".section .rodata; .globl banner; .type banner, @object; banner: .fill {size}, 1, 65\\n\"\n\
                 \".size banner, {size}; .balign 4; 9: .rept 30; .long 3f - 9b; .endr; .text\\n\"\n\
                 \".globl pick; .type pick, @function; pick: .cfi_startproc; mov %edi, %edx\\n\"\n\
                 \"cmp $29, %edx; jbe 1f; cmp $127, %edx; ja 2f; mov $1, %eax; ret\\n\"\n\
                 \"1: lea 9b(%rip), %rcx; movslq (%rcx,%rdx,4), %rdx; add %rcx, %rdx; jmp *%rdx\\n\"\n\
                 \"3: mov $3, %eax; ret; 2: xor %eax, %eax; ret; .cfi_endproc; .size pick, . - pick\");\n\
             int pick(int); extern char banner[];\n\
             int main(int n, char **v) {{ (void)v; return pick(n) + banner[n]; }}\n"
        ))
    };
    let said = compare("branch", &text(64), &text(128));
    assert!(!said.names().contains(&"pick"), "{:?}", said.hot);
}

#[test]
fn a_variable_whose_type_grew_is_refused() {
    let text = |field: &str| {
        source(&format!(
            "struct s {{ int a; {field} int b; }} state = {{ .a = 1, .b = 2 }};\n\
             N int f(void) {{ return state.b++ + state.a; }}\n\
             int main(void) {{ return f(); }}\n"
        ))
    };
    let said = compare("grew", &text(""), &text("long more;"));
    assert!(
        said.refused.contains(&(Rule::Size, "state".to_owned())),
        "{:?}",
        said.refused
    );
}

/// No variable has the type: its values live on the heap, where no symbol shows them.
#[test]
fn a_type_whose_layout_changed_is_refused() {
    let text = |field: &str, limit: u32| {
        source(&format!(
            "#include <stdlib.h>\n\
             struct peer {{ int id; {field} int state; }};\n\
             N struct peer *make(int id) {{ struct peer *p = calloc(1, sizeof *p); p->id = id; p->state = {limit}; return p; }}\n\
             int main(int n, char **v) {{ (void)v; return make(n)->state; }}\n"
        ))
    };
    let said = compare("layout", &text("", 1), &text("long seen;", 1));
    assert!(
        said.refused
            .iter()
            .any(|(rule, name)| *rule == Rule::Layout && name.contains("peer")),
        "{:?}",
        said.refused
    );
    let said = compare("layout", &text("", 1), &text("", 2));
    assert_eq!(said.names(), ["make"]);
    assert_eq!(said.refused, []);
    let said = compare_with("layout", &text("", 1), &text("", 2), &["-g0"]);
    let rules: Vec<Rule> = said.refused.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(
        rules,
        [Rule::Layout; 2],
        "what is not known is not safe: {:?}",
        said.refused
    );
}

#[test]
fn a_changed_initial_value_is_refused() {
    let text = |value: u32| {
        source(&format!(
            "int limit = {value};\n\
             N int f(int x) {{ limit += x; return limit; }}\n\
             int main(int n, char **v) {{ (void)v; return f(n); }}\n"
        ))
    };
    let said = compare("initial", &text(10), &text(11));
    assert_eq!(said.refused, [(Rule::InitialValue, "limit".to_owned())]);
}

#[test]
fn a_new_thread_local_is_refused() {
    let base =
        "N int f(int x) { return x; }\nint main(int n, char **v) { (void)v; return f(n); }\n";
    let fixed = "static __thread int mine;\n\
                 N int f(int x) { mine += x; return mine; }\n\
                 int main(int n, char **v) { (void)v; return f(n); }\n";
    let said = compare("local", &source(base), &source(fixed));
    assert!(
        said.refused
            .contains(&(Rule::ThreadLocals, "mine".to_owned())),
        "{:?}",
        said.refused
    );
}

#[test]
fn a_new_function_is_added_and_its_caller_hot() {
    let main = "int main(int n, char **v) { (void)v; return f(n); }\n";
    let base = format!("N int f(int x) {{ return puts(\"x\") + x; }}\n{main}");
    let fixed = format!(
        "N static int checked(int x) {{ return x > 5 ? puts(\"much\") : x; }}\n\
         N int f(int x) {{ return puts(\"x\") + checked(x); }}\n{main}"
    );
    let said = compare("added", &source(&base), &source(&fixed));
    assert_eq!(said.names(), ["f"]);
    assert_eq!(said.added, ["checked"]);
    assert_eq!(said.refused, []);
}

#[test]
fn a_program_with_exceptions_is_equal_to_itself() {
    let text = "struct broken { int code; broken(int c) : code(c) {} virtual ~broken() {} };\n\
        struct guard { int *n; ~guard() { ++*n; } };\n\
        static int left;\n\
        N int f(int n) {\n\
            guard g{&left};\n\
            try { if (n > 2) throw broken(n); if (n > 1) throw n; }\n\
            catch (const broken &b) { return b.code; } catch (int i) { return i; } catch (...) { }\n\
            switch (n) { case -1: return 7; case -2: return 9; case -3: return 31; case -4: return 2; }\n\
            return puts(\"none\");\n\
        }\n\
        int main(int n, char **) { return f(n) + left; }\n";
    let image = compile_with(
        "c++",
        "exceptions",
        "base",
        &source(text),
        &["-fexceptions"],
    );
    let c = Comparison::new(&image, &image);
    assert!(c.hot.is_empty(), "{:?}", c.hot);
    assert!(c.is_unchanged(), "{:?}", c.findings);
}

/// This test itself: Rust, with names, tables and constants of all kinds.
#[test]
fn a_rust_program_is_equal_to_itself() {
    let own = std::env::current_exe().expect("the test has a file");
    let bytes: Arc<[u8]> = std::fs::read(own).expect("which can be read").into();
    let image = Image::parse(bytes, None).expect("an image");
    let c = Comparison::new(&image, &image);
    let names: Vec<&str> = c.hot.iter().map(|hot| hot.name.as_str()).collect();
    assert_eq!(names, Vec::<&str>::new());
    assert!(c.is_unchanged(), "{:?}", c.findings);
}

/// The instructions are equal; only the table of what is caught where differs.
#[test]
fn a_call_that_moved_into_a_try_block_is_a_change() {
    let text = |body: &str| {
        source(&format!(
            "N void g(int n) {{ if (n == 2) throw 1; }}\n\
         N void h(int n) {{ if (n == 1) throw 2; }}\n\
         N int f(int n) {{ {body} return 0; }}\n\
         int main(int n, char **) {{ return f(n); }}\n"
        ))
    };
    let base = text("try { g(n); } catch (int i) { return i; } h(n);");
    let fixed = text("try { g(n); h(n); } catch (int i) { return i; }");
    let base = compile_with("c++", "try", "base", &base, &[]);
    let fixed = compile_with("c++", "try", "fixed", &fixed, &[]);
    let c = Comparison::new(&base, &fixed);
    let names: Vec<&str> = c.hot.iter().map(|hot| hot.name.as_str()).collect();
    assert_eq!(names, ["f(int)"]);
}

/// Two files have a variable of the same name; the fix removes the one and adds the other.
/// They are two variables: the running value of the first is none of the second's business.
#[test]
fn a_variable_that_left_one_file_is_not_the_one_that_came_to_another() {
    let source = "static int ready; __attribute__((noinline)) int go(int n) { ready += n; return ready; }\n\
                  int main(int n, char **v) { (void)v; return go(n); }\n";
    let one = compile_file("a.c", source);
    let other = compile_file("b.c", source);
    let id = |image: &Image| {
        let found = image
            .entity_ids()
            .find(|(_, entity)| entity.name() == "ready");
        found.map(|(id, _)| id).expect("the variable is there")
    };
    let c = Comparison::new(&one, &other);
    assert_eq!(c.pairs.fixed_of(id(&one)), None);
    let same = compile_file("a.c", source);
    let c = Comparison::new(&one, &same);
    assert_eq!(c.pairs.fixed_of(id(&one)), Some(id(&same)));
}

/// Compiles `source` as a file called `name`: symbols of one file carry its name.
fn compile_file(name: &str, source: &str) -> Image {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("file-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join(name), source).expect("the source can be written");
    let done = Command::new("cc")
        .current_dir(&folder)
        .args(["-O2", "-g", "-o", "program", name])
        .status()
        .expect("the compiler is installed (apt-get install gcc)");
    assert!(done.success(), "{name} does not compile");
    let bytes = std::fs::read(folder.join("program")).expect("the program was made");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    Image::parse(Arc::from(bytes), None).expect("an image")
}

/// A program with `assembly` in it, between code and data.
fn with_assembly(assembly: &str) -> String {
    let lines: Vec<String> = assembly.lines().map(|l| format!("\"{l}\\n\"")).collect();
    source(&format!(
        "__asm__({}); int odd(void); int main(void) {{ return odd(); }}\n",
        lines.join("\n")
    ))
}

#[test]
fn code_with_data_in_it_is_compared_by_what_it_refers_to() {
    let text = |word: &str| {
        with_assembly(&format!(
            ".text\n.globl odd\n.type odd, @function\nodd:\nlea word(%rip), %rax\njmp 1f\n\
             .byte 6, 7, 14, 22\n1: movzbl (%rax), %eax\nret\n.size odd, .-odd\n\
             .section .rodata\nword: .asciz \\\"{word}\\\"\n.text"
        ))
    };
    let said = compare("mixed", &text("one"), &text("one"));
    assert_eq!(said.names(), Vec::<&str>::new());
    let said = compare("mixed", &text("one"), &text("two"));
    assert_eq!(said.names(), ["odd"]);
}

#[test]
fn a_table_in_code_whose_bytes_are_those_of_a_nop_is_no_padding() {
    // `nop [rax+4]`, or the numbers 15, 31, 64, 4.
    let text = |before: &str, last: u32| {
        with_assembly(&format!(
            ".text\n.globl odd\n.type odd, @function\nodd:\n{before}\nlea 1f(%rip), %rdx\nxor %eax, %eax\n\
             mov $3, %ecx\ntest %edi, %edi\nje 2f\nmovzbl (%rdx,%rcx), %eax\nret\n\
             1: .byte 15, 31, 64, {last}\n.balign 16\n2: ret\n.size odd, .-odd"
        ))
    };
    let base = text("xor %ecx, %ecx", 4);
    let said = compare("nop-table", &base, &text("xor %ecx, %ecx", 8));
    assert_eq!(said.names(), ["odd"]);
    // What fills up behind it is none of it, however long that is.
    let said = compare("nop-table", &base, &base);
    assert_eq!(said.names(), Vec::<&str>::new());
}

#[test]
fn a_changed_routine_without_a_size_is_refused() {
    let text = |number: u32| {
        with_assembly(&format!(
            ".text\n.globl odd\n.type odd, @function\nodd:\nmov ${number}, %eax\nret"
        ))
    };
    let said = compare("unsized", &text(1), &text(1));
    assert_eq!(said.refused, []);
    let said = compare("unsized", &text(1), &text(2));
    assert_eq!(said.refused, [(Rule::Symbols, "odd".to_owned())]);
}

#[test]
fn a_trap_is_no_padding() {
    let text = |middle: &str| {
        with_assembly(&format!(
            ".text\n.globl odd\n.type odd, @function\nodd:\nxor %eax, %eax\n{middle}\nret\n\
             .size odd, .-odd"
        ))
    };
    let said = compare("trap", &text("nop"), &text("int3"));
    assert_eq!(said.names(), ["odd"]);
}

#[test]
fn changed_frame_data_are_a_change() {
    let text = |offset: u32| {
        with_assembly(&format!(
            ".text\n.globl odd\n.type odd, @function\nodd:\n.cfi_startproc\npush %rbx\n\
             .cfi_def_cfa_offset {offset}\nxor %eax, %eax\npop %rbx\nret\n.cfi_endproc\n\
             .size odd, .-odd"
        ))
    };
    let said = compare("frame", &text(16), &text(16));
    assert_eq!(said.names(), Vec::<&str>::new());
    let said = compare("frame", &text(16), &text(24));
    assert_eq!(said.names(), ["odd"]);
}

#[test]
fn a_table_of_pointers_without_a_name_is_no_empty_text() {
    let text = |last: &str| {
        with_assembly(&format!(
            ".text\n.globl odd\n.type odd, @function\nodd:\nlea .Ltable(%rip), %rax\n\
             mov 8(%rax), %rax\nmovzbl (%rax), %eax\nret\n.size odd, .-odd\n\
             .section .data.rel.ro,\\\"aw\\\"\n.balign 8\n.Ltable: .quad .Lone, {last}\n\
             .section .rodata\n.Lone: .asciz \\\"one\\\"\n.Ltwo: .asciz \\\"two\\\"\n\
             .Lthree: .asciz \\\"three\\\"\n.text"
        ))
    };
    let said = compare("pointers", &text(".Ltwo"), &text(".Ltwo"));
    assert_eq!(said.names(), Vec::<&str>::new());
    let said = compare("pointers", &text(".Ltwo"), &text(".Lthree"));
    assert_eq!(said.names(), ["odd"]);
}

/// Assembly of functions `before`, as long as `length` says, and `work` behind it: 64 KiB at
/// about 0x401200 to 0x411200 that begin with `first`.
fn with_work(length: u32, first: &str, text: &str) -> String {
    let function = |name: &str, body: &str| {
        format!(
            ".globl {name}\\n.type {name},@function\\n{name}:\\n{body}ret\\n.size {name},.-{name}\\n"
        )
    };
    let before = function("before", &format!(".rept {length}\\nincl %eax\\n.endr\\n"));
    let work = function(
        "work",
        &format!("{first}.rept 32768\\nincl %eax\\n.endr\\n"),
    );
    let asm = format!("asm(\".text\\n{before}{work}\");\nvoid before(void); void work(void);\n");
    source(&format!("{asm}{text}"))
}

const FIXED_ADDRESSES: &[&str] = &["-no-pie", "-fno-pie"];

const READS: &str = "const unsigned long numbers[4] = {0x409000, 1, 2, 3};\n\
    const void *const holder[2] = {numbers, numbers};\n\
    N unsigned long reads(int i) { return ((const volatile unsigned long *)numbers)[i & 3]; }\n\
    int main(int n, char **v) { (void)v; before(); work(); return holder[n & 1] && reads(n); }\n";

#[test]
fn a_number_that_looks_like_a_place_in_a_function_is_a_number() {
    let base = with_work(8, "", READS);
    let fixed = with_work(40, "", READS);
    let said = compare_with("place", &base, &fixed, FIXED_ADDRESSES);
    assert_eq!(said.names(), ["before"], "{:?}", said.hot);
}

/// `work` may jump to where the word leads, which is another instruction of it now.
#[test]
fn a_function_has_places_in_itself_in_its_tables() {
    for first in ["mov numbers(%rip),%rax\\n", "mov holder(%rip),%rax\\n"] {
        let base = with_work(8, first, READS);
        let fixed = with_work(40, first, READS);
        let said = compare_with("label", &base, &fixed, FIXED_ADDRESSES);
        let names = said.names();
        assert!(names.contains(&"work"), "{first} {:?}", said.hot);
        assert!(names.contains(&"reads"), "{first} {:?}", said.hot);
    }
}

#[test]
fn a_mask_that_looks_like_an_address_is_a_number() {
    let text = |room: u32| {
        source(&format!(
            "asm(\".section .rodata\\n.globl big\\n.type big,@object\\n.skip {room}\\nbig:\\n\
             .skip 1048576\\n.size big,.-big\\n.text\\n\");\nextern const char big[];\n\
             N unsigned mask(unsigned x) {{ return x & 0x484848; }}\n\
             N const char *place(unsigned x) {{ return big + x; }}\n\
             int main(int n, char **v) {{ (void)v; return *place(mask(n)); }}\n"
        ))
    };
    let said = compare_with("mask", &text(64), &text(4096), FIXED_ADDRESSES);
    assert_eq!(said.names(), Vec::<&str>::new(), "{:?}", said.hot);
}

/// Assembly keeps constants without a symbol between its functions.
#[test]
fn constants_between_functions_are_compared() {
    let constant = |length: u32, number: u32| {
        let load = "asm(\".text\\n.globl load\\n.type load,@function\\nload:\\n\
             mov 1f(%rip),%rax\\nret\\n.size load,.-load\\n1: .quad NUMBER\\n\");\n\
             long load(void);\n\
             int main(int n, char **v) { (void)v; before(); work(); return n + load(); }\n";
        let load = load.replace("NUMBER", &number.to_string());
        with_work(length, "", &load)
    };
    for flags in [&[][..], FIXED_ADDRESSES] {
        let base = constant(8, 7);
        let said = compare_with("between", &base, &constant(40, 7), flags);
        assert_eq!(said.names(), ["before"], "{:?}", said.hot);
        let said = compare_with("between", &base, &constant(40, 8), flags);
        assert_eq!(said.names(), ["before", "load"], "{:?}", said.hot);
    }
}

/// A place in the source, as Rust hands it to `panic`, and behind the call another block that
/// has a table in the same register.
const RECORD_BEFORE_TABLE: &str = r#"
#include <stdlib.h>
void lost(int a, int b, const void *record) { (void)record; exit(a + b); }
long pick(long which, long index);
__asm__(
    ".text\n.globl pick\n.type pick, @function\npick:\n"
    "test %rdi, %rdi\n"
    "je 1f\n"
    "lea .Lrecord(%rip), %rdx\n"
    "call lost\n"
    "1: lea .Ltable(%rip), %rdx\n"
    "movslq (%rdx,%rsi,4), %rax\n"
    "add %rdx, %rax\n"
    "ret\n"
    ".size pick, . - pick\n"
    ".section .data.rel.ro,\"aw\"\n.balign 8\n"
    ".Lrecord: .quad puts, 5\n.long 4, 4\n"
    ".section .rodata\n.balign 4\n"
    ".Ltable: .long .Lone - .Ltable, .Lother - .Ltable\n"
    ".Lone: .asciz \"one\"\n"
    ".Lother: .asciz \"other\"\n"
    ".text\n");
int main(int n, char **v) { (void)v; return *(const char *)pick(n - 1, n & 1); }
"#;

#[test]
fn a_record_is_no_table_because_a_table_follows_in_its_register() {
    let said = compare("record-table", RECORD_BEFORE_TABLE, RECORD_BEFORE_TABLE);
    assert_eq!(said.names(), Vec::<&str>::new(), "{:?}", said.hot);
    let fixed = RECORD_BEFORE_TABLE.replace("\\\"other\\\"", "\\\"O\\\"");
    assert_ne!(fixed, RECORD_BEFORE_TABLE);
    let said = compare("record-table-text", RECORD_BEFORE_TABLE, &fixed);
    assert_eq!(said.names(), ["pick"], "the table itself is compared");
}

/// A table of places in its own function, and a number that looks like the address of one of
/// its entries.
const CUT_TABLE: &str = r#"
#include <stdio.h>
long pick(long which);
__asm__(
    ".text\n.globl pick\n.type pick, @function\npick:\n"
    "cmp $5, %rdi\n"
    "ja 9f\n"
    "jmp *.Ltable(,%rdi,8)\n"
    "1: mov $11, %eax\n ret\n"
    "2: mov $22, %eax\n ret\n"
    "3: mov $33, %eax\n ret\n"
    "9: xor %eax, %eax\n ret\n"
    ".size pick, . - pick\n"
    ".section .rodata\n.balign 8\n"
    ".Ltable: .quad 1b, 2b, 3b, 2b, 1b, 3b\n"
    ".data\n.balign 8\n.type number, @object\nnumber: .quad .Ltable + 16\n.size number, 8\n"
    ".text\n");
N int before(int x) { return printf("%d\n", x); }
int main(int n, char **v) { (void)v; return before(n) + (int)pick(n); }
"#;

#[test]
fn a_table_is_as_long_as_its_guard_says() {
    let base = source(CUT_TABLE);
    let moved = base.replace(
        "printf(\"%d\\n\", x)",
        "printf(\"%d\\n\", x) + printf(\"%x\\n\", x * 77)",
    );
    // The number is another one, too, and seems to cut the table elsewhere.
    let moved = moved.replace(".Ltable + 16", ".Ltable + 24");
    // In the order of the source, so that the table's function moves.
    let flags = ["-no-pie", "-fno-pie", "-fno-toplevel-reorder"];
    let said = compare_with("cut-table", &base, &moved, &flags);
    assert_eq!(said.names(), ["before"], "{:?}", said.hot);
    let other = moved.replace("3b, 2b, 1b, 3b", "3b, 2b, 1b, 2b");
    let said = compare_with("cut-table-end", &base, &other, &flags);
    assert_eq!(said.names(), ["before", "pick"], "its last entry");
}

/// Both numbers lie in `large`, which moved: perhaps they mean something in it.
#[test]
fn a_number_that_may_be_an_address_is_told_as_a_doubt() {
    let text = |room: u32| {
        source(&format!(
            "__attribute__((used)) char first[{room}]; __attribute__((used)) char large[0x200000];\n\
             __attribute__((used)) char last[{room}];\n\
             const unsigned long numbers[4] = {{0x480000, 1, 2, 3}};\n\
             N unsigned plain(void) {{ return 0x480000; }}\n\
             N unsigned long reads(int i) {{\n\
               return ((const volatile unsigned long *)numbers)[i & 3]; }}\n\
             int main(int n, char **v) {{ (void)v; return plain() + reads(n); }}\n"
        ))
    };
    let (base, fixed) = (text(64), text(4096));
    let said = compare_with("doubt", &base, &fixed, FIXED_ADDRESSES);
    let doubtful = |name: &str| {
        let hot = said.hot.iter().find(|hot| hot.0 == name);
        let (_, reasons) = hot.unwrap_or_else(|| panic!("{name}: {:?}", said.hot));
        assert!(
            reasons.iter().all(|reason| reason.0 == ReasonKind::Doubt),
            "{name}: {reasons:?}"
        );
        reasons[0].1.clone()
    };
    assert!(doubtful("plain").contains("0x480000"), "{:?}", said.hot);
    assert!(doubtful("reads").contains("numbers"), "{:?}", said.hot);
    // Where the linker kept what it knew, there is no doubt about code.
    let kept = [FIXED_ADDRESSES, &["-Wl,--emit-relocs"]].concat();
    let said = compare_with("doubt-kept", &base, &fixed, &kept);
    assert!(!said.names().contains(&"plain"), "{:?}", said.hot);
}
