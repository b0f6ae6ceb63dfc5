//! Why a function is hot: each sort of reason is given where it is true, with what it says.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use invivo_compare::{Comparison, ReasonKind};
use invivo_image::Image;

/// What goes before each source: a function that is neither inlined nor cloned.
const HEAD: &str = "#include <stdio.h>\n#define N __attribute__((noinline,noclone))\n#define I static inline \
     __attribute__((always_inline))\n";

struct Row {
    /// What is shown.
    name: &'static str,
    base: &'static str,
    fixed: &'static str,
    /// Options for both builds, and more for the fixed one.
    flags: [&'static [&'static str]; 2],
    /// Functions, each with reasons that it must have: the sort, and how its text begins and ends.
    expected: &'static [(&'static str, ReasonKind, &'static str, &'static str)],
}

const DEBUG: [&[&str]; 2] = [&["-g"], &[]];

/// All callers pass 3, so the compiler makes a copy for that; or one of them passes 5.
const SPECIAL: &str = "__attribute__((noinline)) static int check(int x, int mode) {\n\
      if (mode == 3) return printf(\"%d three\", x);\n puts(\"other\"); return x + mode; }\n\
    N int one(int x) { return check(x, 3) + 1; }\n\
    N int two(int x) { return check(x, 3) + 2; }\n\
    int main(int n, char **v) { (void)v; return one(n) + two(n + 1); }\n";
const GENERAL: &str = "__attribute__((noinline)) static int check(int x, int mode) {\n\
      if (mode == 3) return printf(\"%d three\", x);\n puts(\"other\"); return x + mode; }\n\
    N int one(int x) { return check(x, 3) + 1; }\n\
    N int two(int x) { return check(x, 5) + 2; }\n\
    int main(int n, char **v) { (void)v; return one(n) + two(n + 1); }\n";

/// Only a number of the structure is passed instead of its address, unless nobody may do so.
const BY_NUMBER: &str = "struct s { int a, b; };\n\
    __attribute__((noinline)) static int get(struct s *p) { return printf(\"%d\", p->b); }\n\
    N int one(struct s *p) { return get(p) + 1; }\n\
    int main(int n, char **v) { (void)v; struct s s = {n, n + 1}; return one(&s); }\n";
const BY_ADDRESS: &str = "struct s { int a, b; };\n\
    __attribute__((noipa)) static int get(struct s *p) { return printf(\"%d\", p->b); }\n\
    N int one(struct s *p) { return get(p) + 1; }\n\
    int main(int n, char **v) { (void)v; struct s s = {n, n + 1}; return one(&s); }\n";

/// With the option `-fno-partial-inlining` nothing is cut out of `rare`.
const RARE: &str = "static int rare(int x, const char *t) {\n\
      if (__builtin_expect(x > 0, 1)) return x;\n\
      for (int i = 0; i < 10; i++) {\n\
        printf(\"%s %d\", t, x); puts(\"a\"); printf(\"%d %d\", x, i); puts(t);\n\
      }\n\
      puts(\"more\"); return puts(\"end\");\n\
    }\n\
    N int one(int x) { return rare(x, \"one\") + 1; }\n\
    N int two(int x) { return rare(x, \"two\") + 2; }\n\
    N int three(int x) { return rare(x, \"three\") + 3; }\n\
    int main(int n, char **v) { (void)v; return one(n) + two(n + 1) + three(n); }\n";

/// There is enough in its loop for another order.
const LOOP: &str = "N int f(int *a, int *b, int n) {\n\
      int s = 0;\n\
      for (int i = 0; i < n; i++) { s += a[i] * b[n - i]; a[i] ^= s; b[i] += a[i] / 3; }\n\
      return s; }\n\
    int main(int n, char **v) { (void)v; int a[20] = {n}, b[20] = {n}; return f(a, b, n); }\n";

const LINES: &str = "N void check(int ok, int line) { if (!ok) printf(\"%d\", line); }\n\
    N int f(int x) { check(x > 1, __LINE__); check(x > 3, __LINE__); return x; }\n\
    int main(int n, char **v) { (void)v; return f(n); }\n";
const LINES_MOVED: &str = "\n\n\n\
    N void check(int ok, int line) { if (!ok) printf(\"%d\", line); }\n\
    N int f(int x) { check(x > 1, __LINE__); check(x > 3, __LINE__); return x; }\n\
    int main(int n, char **v) { (void)v; return f(n); }\n";

const ROWS: &[Row] = &[
    Row {
        name: "a function inlines one that inlines one that changed",
        base: "I int inner(int x) {\n  return x * 3;\n}\n\
               I int middle(int x) { return inner(x + 1) - 9; }\n\
               N int outer(int x) { return printf(\"%d\", middle(x)); }\n\
               int main(int n, char **v) { (void)v; return outer(n); }\n",
        fixed: "I int inner(int x) {\n  if (x > 77) x = puts(\"much\");\n  return x * 3;\n}\n\
                I int middle(int x) { return inner(x + 1) - 9; }\n\
                N int outer(int x) { return printf(\"%d\", middle(x)); }\n\
                int main(int n, char **v) { (void)v; return outer(n); }\n",
        flags: DEBUG,
        expected: &[(
            "outer",
            ReasonKind::Inlined,
            "inlines inner, whose source changed (",
            "program.c:5): outer ← middle ← inner",
        )],
    },
    Row {
        name: "a callee has another prototype",
        base: "N static int callee(int x) { return printf(\"%d\", x); }\n\
               N int caller(int x) { return callee(x) + 1; }\n\
               int main(int n, char **v) { (void)v; return caller(n); }\n",
        fixed: "N static int callee(int x, int y) { return printf(\"%d\", x + y); }\n\
                N int caller(int x) { return callee(x, 7) + 1; }\n\
                int main(int n, char **v) { (void)v; return caller(n); }\n",
        flags: DEBUG,
        expected: &[
            (
                "callee",
                ReasonKind::Signature,
                "its signature changed: int (int)",
                " became int (int, int)",
            ),
            (
                "caller",
                ReasonKind::Callee,
                "calls callee, whose signature changed",
                "",
            ),
        ],
    },
    Row {
        name: "a copy for a constant is gone",
        base: SPECIAL,
        fixed: GENERAL,
        flags: DEBUG,
        expected: &[
            (
                "check.constprop.0",
                ReasonKind::Clone,
                "the compiler made no clone of it: check.constprop.0 became check",
                "",
            ),
            (
                "one",
                ReasonKind::Clone,
                "called check.constprop.0, a clone that disappeared",
                "",
            ),
        ],
    },
    Row {
        name: "a copy for a constant came",
        base: GENERAL,
        fixed: SPECIAL,
        flags: DEBUG,
        expected: &[
            (
                "check",
                ReasonKind::Clone,
                "the compiler made a clone of it: check became check.constprop.0",
                "",
            ),
            (
                "one",
                ReasonKind::Clone,
                "calls check.constprop.0, a clone that appeared",
                "",
            ),
        ],
    },
    Row {
        name: "parameters are passed in another way",
        base: BY_ADDRESS,
        fixed: BY_NUMBER,
        flags: DEBUG,
        expected: &[
            (
                "get",
                ReasonKind::Clone,
                "the compiler made a clone of it: get became get.isra.0",
                "",
            ),
            (
                "one",
                ReasonKind::Clone,
                "calls get.isra.0, a clone that appeared",
                "",
            ),
        ],
    },
    Row {
        name: "parameters are passed as the source says",
        base: BY_NUMBER,
        fixed: BY_ADDRESS,
        flags: DEBUG,
        expected: &[(
            "one",
            ReasonKind::Clone,
            "called get.isra.0, a clone that disappeared",
            "",
        )],
    },
    Row {
        name: "a part was taken out",
        base: RARE,
        fixed: RARE,
        flags: [&["-g", "-fno-partial-inlining"], &["-fpartial-inlining"]],
        expected: &[(
            "one",
            ReasonKind::Clone,
            "calls rare.part.0, a clone that appeared",
            "",
        )],
    },
    Row {
        name: "a part is in its function again",
        base: RARE,
        fixed: RARE,
        flags: [&["-g"], &["-fno-partial-inlining"]],
        expected: &[(
            "one",
            ReasonKind::Clone,
            "called rare.part.0, a clone that disappeared",
            "",
        )],
    },
    Row {
        name: "a function that was split and put together again",
        base: "struct s { int a, b, c; };\n int want(struct s *p) { if (p->a) return 0; if (p->b > 1) return 1; printf(\"%d K\", p->c); return p->c > 2; }\n int main(int n, char **v) { struct s s = {n, n + 1, n + 2}; return v[1] ? want(&s) : 0; }\n",
        fixed: "struct s { int a, b, c; };\n int want(struct s *p) { if (p->a) return 0; if (p->b > 1) return 1; printf(\"%d Q\", p->c); return p->c > 7; }\n int main(int n, char **v) { struct s s = {n, n + 1, n + 2}; return v[1] ? want(&s) : 0; }\n",
        flags: DEBUG,
        expected: &[("want", ReasonKind::Source, "its own source changed", "")],
    },
    Row {
        name: "the compiler chose another order",
        base: LOOP,
        fixed: LOOP,
        flags: [&["-g"], &["-fno-schedule-insns2"]],
        expected: &[(
            "f",
            ReasonKind::Compiler,
            "the same operations with other registers or in another order",
            " no change of its source was seen",
        )],
    },
    Row {
        name: "line numbers without debug data",
        base: LINES,
        fixed: LINES_MOVED,
        flags: [&[], &[]],
        expected: &[(
            "f",
            ReasonKind::Numbers,
            "only numbers differ, 2 of them by +3, as line numbers do",
            "",
        )],
    },
    Row {
        name: "another variable of the same sort",
        base: "int one, other;\n N int *f(void) { return &one; }\n int main(void) { return *f() + other; }\n",
        fixed: "int one, other;\n N int *f(void) { return &other; }\n int main(void) { return *f() + one; }\n",
        flags: [&[], &[]],
        expected: &[("f", ReasonKind::Reference, "refers to other, was one", "")],
    },
    Row {
        name: "a named constant holds something else",
        base: "const int table[40] = {1, 2};\n N int f(int i) { return table[i]; }\n int main(int n, char **v) { (void)v; return f(n); }\n",
        fixed: "const int table[40] = {1, 3};\n N int f(int i) { return table[i]; }\n int main(int n, char **v) { (void)v; return f(n); }\n",
        flags: DEBUG,
        expected: &[(
            "f",
            ReasonKind::Reference,
            "refers to table, which holds something else",
            "",
        )],
    },
];

fn compile(name: &str, version: &str, source: &str, flags: &[&str]) -> Image {
    let process = std::process::id();
    let folder = format!("reasons-{}-{process}", name.replace(' ', "-"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join("program.c"), format!("{HEAD}{source}")).expect("it is ours");
    let done = Command::new("gcc")
        .current_dir(&folder)
        .args(["-O2", "-o", version, "program.c"])
        .args(flags)
        .output()
        .expect("the compiler is installed (apt-get install gcc)");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{name}: {said}");
    let bytes = std::fs::read(folder.join(version)).expect("the program was made");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    Image::parse(Arc::from(bytes), None).expect("an image")
}

#[test]
fn each_sort_of_reason_is_given_where_it_is_true() {
    let mut wrong = Vec::new();
    for row in ROWS {
        let [both, more] = row.flags;
        let base = compile(row.name, "base", row.base, both);
        let fixed = compile(row.name, "fixed", row.fixed, &[both, more].concat());
        let c = Comparison::new(&base, &fixed);
        for (function, kind, begin, end) in row.expected {
            let hot = c.hot.iter().find(|hot| hot.name == *function);
            let reasons = hot.map(|hot| &hot.reasons[..]).unwrap_or_default();
            let given = reasons.iter().any(|reason| {
                reason.kind == *kind && reason.text.starts_with(begin) && reason.text.ends_with(end)
            });
            if !given {
                let all: Vec<_> = c.hot.iter().map(|hot| (&hot.name, &hot.reasons)).collect();
                wrong.push(format!("{}: {function} {kind:?}: {all:#?}", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
