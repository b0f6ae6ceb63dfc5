//! Pairs of object files, compiled here by gcc and clang, and what their comparison must say.

mod rebuilt;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use invivo_compare::{Comparison, Rule, Severity};
use invivo_image::{Image, ObjectFile};

/// The flags that make one section for each function and variable, as build systems do for
/// programs that are patched.
const FLAGS: [&str; 4] = ["-O2", "-g", "-ffunction-sections", "-fdata-sections"];

struct Compiler {
    name: &'static str,
    flags: &'static [&'static str],
}

const fn plain(name: &'static str) -> Compiler {
    Compiler { name, flags: &[] }
}

/// Both compilers, and code that cannot be moved.
const C: [Compiler; 4] = [
    plain("gcc"),
    plain("clang"),
    Compiler {
        name: "gcc",
        flags: &["-fno-pie", "-gz"],
    },
    Compiler {
        name: "clang",
        flags: &["-fPIC", "-fvisibility=hidden"],
    },
];
const CPLUSPLUS: [Compiler; 2] = [plain("g++"), plain("clang++")];

/// Compiles `sources`, each a name and its text, into object files of these names.
fn compile(test: &str, compiler: &Compiler, sources: &[(&str, String)]) -> Vec<ObjectFile> {
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "objects-{test}-{}-{}",
        compiler.name,
        compiler.flags.concat()
    ));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let object = |(name, text): &(&str, String)| {
        std::fs::write(folder.join(name), text).expect("the source can be written");
        let done = Command::new(compiler.name)
            .current_dir(&folder)
            .args(FLAGS)
            .args(compiler.flags)
            .args(["-c", "-o", "file.o", name])
            .output()
            .expect("the compiler is installed (apt-get install g++ clang)");
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{} {name}: {text}", compiler.name);
        ObjectFile {
            label: format!("{name}.o"),
            bytes: Arc::from(std::fs::read(folder.join("file.o")).expect("it was made")),
        }
    };
    sources.iter().map(object).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    hot: Vec<String>,
    left_out: Vec<String>,
    added: Vec<String>,
    refused: Vec<(Rule, String)>,
}

fn said(base: &[ObjectFile], fixed: &[ObjectFile]) -> Said {
    let (base, fixed) = Image::of_objects(base, fixed).expect("they can be read");
    let c = Comparison::new(&base, &fixed);
    let refused = c.findings.iter().filter(|f| f.severity == Severity::Refuse);
    let mut said = Said {
        hot: c.hot.iter().map(|hot| hot.name.clone()).collect(),
        left_out: c.left_out.iter().map(|hot| hot.name.clone()).collect(),
        added: c
            .added
            .iter()
            .map(|id| fixed.entity(*id).name().to_owned())
            .collect(),
        refused: refused.map(|f| (f.rule, f.subject.clone())).collect(),
    };
    said.hot.sort();
    said
}

/// What is said of a pair of single files, by every compiler; and that nothing is said of a
/// file and itself.
fn each(test: &str, compilers: &[Compiler], base: &str, fixed: &str) -> Vec<(String, Said)> {
    let ending = if compilers.iter().any(|c| c.name.ends_with("++")) {
        "cc"
    } else {
        "c"
    };
    let file = format!("file.{ending}");
    let of = |compiler: &Compiler| {
        let one = compile(test, compiler, &[(&file, base.to_owned())]);
        let same = compile(test, compiler, &[(&file, base.to_owned())]);
        let other = compile(test, compiler, &[(&file, fixed.to_owned())]);
        let name = format!("{} {:?}", compiler.name, compiler.flags);
        assert_eq!(said(&one, &same), Said::default(), "{name}: the same again");
        (name, said(&one, &other))
    };
    compilers.iter().map(of).collect()
}

fn hot(names: &[&str]) -> Said {
    Said {
        hot: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Said::default()
    }
}

const N: &str = "#define N __attribute__((noinline,noipa))\n\
                 #if __clang__\n#undef N\n#define N __attribute__((noinline))\n#endif\n\
                 extern int outside(int); extern int shared[8];\n";

#[test]
fn only_the_function_that_changed_is_hot_and_order_does_not_matter() {
    let twice = "N int twice(int x) { return outside(x) * 2; }\n";
    let thrice =
        |by: u32| format!("N int thrice(int x) {{ return outside(x) * {by} + shared[2]; }}\n");
    let base = format!("{N}{twice}{}", thrice(3));
    for (name, said) in each("order", &C, &base, &format!("{N}{}{twice}", thrice(3))) {
        assert_eq!(said, Said::default(), "{name}");
    }
    for (name, said) in each("change", &C, &base, &format!("{N}{}{twice}", thrice(5))) {
        assert_eq!(said, hot(&["thrice"]), "{name}");
    }
}

#[test]
fn what_only_one_side_refers_to_outside_is_told_apart() {
    let of = |index: u32, callee: &str| {
        format!(
            "{N}extern int {callee}(int);\nN int get(int x) {{ return {callee}(x) + shared[{index}]; }}\n"
        )
    };
    for (name, said) in each("element", &C, &of(2, "outside"), &of(3, "outside")) {
        assert_eq!(said, hot(&["get"]), "{name}");
    }
    for (name, said) in each("callee", &C, &of(2, "outside"), &of(2, "inside")) {
        assert_eq!(said, hot(&["get"]), "{name}");
    }
}

#[test]
fn texts_and_constants_are_compared_wherever_they_lie() {
    let of = |before: &str, text: &str, number: &str| {
        format!(
            "{N}extern void say(const char *, double);\n{before}\
             N void tell(void) {{ say(\"{text}\", {number}); }}\n\
             N void other(void) {{ say(\"other\", 0.1); }}\n"
        )
    };
    let base = of("", "hello", "0.25");
    let before = "N void first(void) { say(\"a text before\", 17.5); }\n";
    for (name, said) in each("text-moved", &C, &base, &of(before, "hello", "0.25")) {
        let mut expected = hot(&[]);
        expected.added.push("first".to_owned());
        assert_eq!(said, expected, "{name}");
    }
    for (name, said) in each("text", &C, &base, &of("", "hallo", "0.25")) {
        assert_eq!(said, hot(&["tell"]), "{name}");
    }
    for (name, said) in each("number", &C, &base, &of("", "hello", "0.75")) {
        assert_eq!(said, hot(&["tell"]), "{name}");
    }
}

#[test]
fn statics_with_other_numbers_are_the_same_and_one_more_is_new() {
    let count = |name: &str, by: u32| {
        format!("N int {name}(void) {{ static int last; last += outside({by}); return last; }}\n")
    };
    let base = format!("{N}{}{}", count("one", 1), count("two", 2));
    // gcc numbers them from the end or from the start: the new one moves all numbers.
    let more = format!(
        "{N}{}{}{}",
        count("zero", 0),
        count("one", 1),
        count("two", 2)
    );
    for (name, said) in each("statics", &C, &base, &more) {
        assert_eq!(said.hot, [""; 0], "{name}");
        assert_eq!(said.added, ["zero"], "{name}");
        assert_eq!(said.refused, [], "{name}");
    }
    let other = format!("{N}{}{}", count("one", 1), count("two", 3));
    for (name, said) in each("statics-change", &C, &base, &other) {
        assert_eq!(said, hot(&["two"]), "{name}");
    }
}

#[test]
fn jump_tables_are_compared_by_where_they_lead() {
    let of = |before: &str, third: u32| {
        let cases = (0..9u32).map(|n| {
            let by = if n == 3 { third } else { n * n + 7 };
            format!("case {n}: return outside({by}) + x;\n")
        });
        let cases: String = cases.collect();
        format!(
            "{N}{before}N int pick(int k, int x) {{ switch (k) {{ {cases} default: return x; }} }}\n"
        )
    };
    let base = of("", 3);
    let moved = of("N int first(int x) { return outside(x) - 1; }\n", 3);
    for (name, said) in each("table-moved", &C, &base, &moved) {
        assert_eq!((said.hot, said.refused), (vec![], vec![]), "{name}");
    }
    for (name, said) in each("table", &C, &base, &of("", 4)) {
        assert_eq!(said, hot(&["pick"]), "{name}");
    }
}

#[test]
fn cold_parts_belong_to_their_function() {
    let of = |text: &str| {
        format!(
            "{N}extern void fail(const char *) __attribute__((cold, noreturn));\n\
             N int check(int x) {{ if (__builtin_expect(x > 100, 0)) fail(\"{text}\"); return outside(x); }}\n\
             N int other(int x) {{ if (__builtin_expect(x > 200, 0)) fail(\"other\"); return outside(x); }}\n"
        )
    };
    for (name, said) in each("cold", &C, &of("too much"), &of("far too much")) {
        assert_eq!(said, hot(&["check"]), "{name}");
    }
}

#[test]
fn line_numbers_are_left_out_and_other_numbers_are_not() {
    let of = |lines: &str, number: &str| {
        format!(
            "{N}extern void log_at(const char *, int);\n{lines}\
             N void tell(void) {{ log_at(\"tell\", {number}); }}\n"
        )
    };
    let base = of("", "__LINE__");
    for (name, said) in each("line", &C, &base, &of("\n\n\n", "__LINE__")) {
        assert_eq!(
            (said.hot, said.left_out),
            (vec![], vec!["tell".to_owned()]),
            "{name}"
        );
    }
    for (name, said) in each("no-line", &C, &base, &of("\n\n\n", "__LINE__ + 1")) {
        assert_eq!(
            (said.hot, said.left_out),
            (vec!["tell".to_owned()], vec![]),
            "{name}"
        );
    }
}

#[test]
fn what_lives_on_keeps_its_size_and_its_initial_value() {
    let of = |variable: &str| format!("{N}{variable}\nN int get(int i) {{ return table[i]; }}\n");
    let base = of("int table[4] = {1, 2, 3, 4};");
    for (name, said) in each("value", &C, &base, &of("int table[4] = {1, 2, 3, 5};")) {
        assert_eq!(
            said.refused,
            [(Rule::InitialValue, "table".to_owned())],
            "{name}"
        );
    }
    for (name, said) in each("size", &C, &base, &of("int table[5] = {1, 2, 3, 4};")) {
        let rules: Vec<Rule> = said.refused.iter().map(|(rule, _)| *rule).collect();
        assert_eq!(rules, [Rule::Size], "{name}");
    }
    let grown = |member: &str| {
        format!(
            "{N}struct state {{ int a; {member} int b; }};\nextern struct state *find(int);\n\
             N int get(int i) {{ return find(i)->b; }}\n"
        )
    };
    for (name, said) in each("layout", &C, &grown(""), &grown("int more;")) {
        let rules: Vec<Rule> = said.refused.iter().map(|(rule, _)| *rule).collect();
        assert_eq!(rules, [Rule::Layout], "{name}");
    }
}

#[test]
fn inline_functions_that_several_files_bring_are_one() {
    let of = |by: u32| {
        format!(
            "template <typename T> __attribute__((noinline)) T scale(T x) {{ return x * {by} + 1; }}\n"
        )
    };
    let user = |name: &str, by: u32| {
        format!(
            "{}int {name}(int x) {{ return scale(x) + scale<long>(x); }}\n",
            of(by)
        )
    };
    for compiler in &CPLUSPLUS {
        let files = |by: u32| [("a.cc", user("first", by)), ("b.cc", user("second", by))];
        let base = compile("comdat", compiler, &files(3));
        let same = compile("comdat", compiler, &files(3));
        assert_eq!(said(&base, &same), Said::default(), "{}", compiler.name);
        let fixed = compile("comdat", compiler, &files(5));
        let said = said(&base, &fixed);
        let mangled = ["int scale<int>(int)", "long scale<long>(long)"];
        assert_eq!(said, hot(&mangled), "{}", compiler.name);
    }
}

#[test]
fn names_of_one_file_do_not_reach_into_another() {
    let of = |name: &str, by: u32| {
        format!(
            "{N}static N int step(int x) {{ return outside(x) * {by}; }}\nint {name}(int x) {{ return step(x) + 1; }}\n"
        )
    };
    for compiler in &C {
        let files = |a: u32, b: u32| [("a.c", of("first", a)), ("b.c", of("second", b))];
        let base = compile("local", compiler, &files(3, 5));
        let other = compile("local", compiler, &files(3, 7));
        assert_eq!(said(&base, &other), hot(&["step"]), "{}", compiler.name);
        let (one, two) = Image::of_objects(&base, &other).expect("they can be read");
        let c = Comparison::new(&one, &two);
        let step = one.entity(c.hot[0].base.main).symbol();
        assert_eq!(step.file.as_deref(), Some("b.c"));
    }
}
