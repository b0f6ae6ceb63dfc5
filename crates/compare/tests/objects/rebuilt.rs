//! Builds of the same source in another order: the compiler gives its own names other numbers, and puts
//! constants elsewhere. Nothing of that is hot, and a real change is, beside all of it.

use super::{C, CPLUSPLUS, Compiler, N, Said, compile, hot, said};

/// Files of these parts, in this order and from the last to the first, by every compiler; `ending` is that of the
/// language.
fn rebuilt(test: &str, ending: &str, head: &str, parts: &[&str; 3], other: &[&str; 3], name: &str) {
    let compilers: &[Compiler] = if ending == "c" { &C } else { &CPLUSPLUS };
    let file = format!("file.{ending}");
    let text = |parts: [&str; 3]| vec![(&*file, format!("{N}{head}{}", parts.concat()))];
    for compiler in compilers {
        let shown = format!("{test}: {} {:?}", compiler.name, compiler.flags);
        let build = |parts| compile(test, compiler, &text(parts));
        let base = build(*parts);
        let order = [2, 1, 0];
        let again = build(order.map(|at| parts[at]));
        assert_ne!(base[0].bytes, again[0].bytes, "{shown}");
        assert_eq!(said(&base, &again), Said::default(), "{shown}");
        let fixed = build(order.map(|at| other[at]));
        assert_eq!(said(&base, &fixed), hot(&[name]), "{shown}");
    }
}

/// Three functions, of which the last two keep what they say.
fn three(
    part: impl Fn(&str, &str) -> String,
    text: [&str; 2],
    others: [&str; 2],
    test: &str,
    head: &str,
) {
    let rest = [part("two", others[0]), part("three", others[1])];
    let [base, fixed] = text.map(|text| part("one", text));
    let of = |first| [first, rest[0].as_str(), rest[1].as_str()];
    rebuilt(test, "c", head, &of(&base), &of(&fixed), "one");
}

#[test]
fn statics_of_one_name() {
    let counter = |name: &str, by: &str| {
        format!(
            "N int {name}(int x) {{ static int last; static int seen[3]; last += outside({by});\n\
             return seen[x & 1] += last; }}\n"
        )
    };
    three(
        counter,
        ["x * 3", "x * 5"],
        ["x * 7", "x * 9"],
        "counters",
        "",
    );
}

#[test]
fn tables_of_one_name() {
    let table = |name: &str, text: &str| {
        format!(
            "N const char *{name}(int x) {{ static const char *const names[] = {{ \"{name}\", \"{text}\", \"c\" }};\n\
             static const int sizes[] = {{ 5, 6, sizeof \"{text}\" }};\n\
             return names[outside(sizes[x])]; }}\n"
        )
    };
    three(table, ["red", "rot"], ["green", "blue"], "tables", "");
}

#[test]
fn texts_of_all_widths() {
    let head = "extern int tell(const char *, const int *, const unsigned short *);\n";
    let part = |name: &str, text: &str| {
        format!(
            "N int {name}(void) {{ return tell(\"{text}\", (const int *)L\"{text}\", (const unsigned short *)u\"{text}\") + 1; }}\n"
        )
    };
    let long = "a text that is longer than what a compiler puts into the section for short ones";
    three(part, ["a", "b"], [long, "the last one"], "texts", head);
    let longer = format!("{long}, and longer");
    three(part, [long, &longer], ["a", "a text"], "long-texts", head);
}

#[test]
fn numbers_of_all_widths() {
    let head = "typedef double pair __attribute__((vector_size(16)));\n\
                extern double mix(float, double, pair, double);\n";
    let part = |name: &str, number: &str| {
        format!(
            "N double {name}(double x) {{ return mix({number}f, {number}, (pair){{ {number}, 7.5 }}, -__builtin_fabs(x)) * {number}; }}\n"
        )
    };
    three(part, ["1.25", "1.75"], ["2.25", "3.25"], "numbers", head);
}

#[test]
fn cold_parts() {
    let head = "extern void fail(const char *, int) __attribute__((cold, noreturn));\n";
    let part = |name: &str, text: &str| {
        format!(
            "N int {name}(int x) {{ static int failed; if (__builtin_expect(x > 100, 0)) {{ failed++; fail(\"{text}\", failed); }}\n\
             return outside(x); }}\n"
        )
    };
    three(part, ["one", "eins"], ["two", "three"], "cold-parts", head);
}

#[test]
fn jump_tables_and_labels() {
    let part = |name: &str, by: &str| {
        let cases = (0..9).map(|n| format!("case {n}: return outside({n} * {n} + {by}) - x;\n"));
        let cases: String = cases.collect();
        format!("N int {name}(int k, int x) {{ switch (k) {{ {cases} default: return x; }} }}\n")
    };
    three(part, ["3", "4"], ["5", "6"], "switches", "");
}

#[test]
fn clones_that_the_compiler_makes() {
    // Of a static function with an argument that is always the same, or of which only a part is used.
    let head = "struct big { int a, b, c[9]; };\n";
    let part = |name: &str, by: &str| {
        format!(
            "static __attribute__((noinline)) int {name}_step(struct big *s, int k) {{ return outside(s->a + k * {by}) + s->b; }}\n\
             N int {name}(struct big *s) {{ return {name}_step(s, 3) + outside(1) + {name}_step(s, 3); }}\n"
        )
    };
    let rest = [part("two", "5"), part("three", "7")];
    let [base, fixed] = ["2", "3"].map(|by| part("one", by));
    let of = |first| [first, rest[0].as_str(), rest[1].as_str()];
    for compiler in &C {
        let text = |parts: [&str; 3]| vec![("file.c", format!("{N}{head}{}", parts.concat()))];
        let build = |parts| compile("clones", compiler, &text(parts));
        let all = of(&base);
        let one = build(all);
        assert_eq!(
            said(&one, &build([all[2], all[1], all[0]])),
            Said::default()
        );
        let told = said(&one, &build([all[2], all[1], &fixed]));
        assert_eq!(told.hot.len(), 1, "{told:?}");
        assert!(told.hot[0].starts_with("one_step"), "{told:?}");
        assert_eq!(told.refused, [], "{told:?}");
    }
}

#[test]
fn groups_of_inline_functions_and_variables() {
    let head = "inline int shared_count = 3;\n\
                template <typename T> struct table { static inline int last; };\n\
                struct base { virtual ~base() {} virtual int get(int x) { return outside(x); } };\n";
    let part = |name: &str, by: &str| {
        format!(
            "template <int B> N int {name}_step(int x) {{ static int seen; seen += x; return outside(seen * {by} + B); }}\n\
             struct {name}_type : base {{ int get(int x) override {{ return {name}_step<4>(x) + shared_count; }} }};\n\
             base *{name}() {{ table<int>::last += {name}_step<2>(1); return new {name}_type; }}\n"
        )
    };
    let rest = [part("two", "5"), part("three", "7")];
    let [base, fixed] = ["2", "3"].map(|by| part("one", by));
    let head = format!("#include <new>\n{head}");
    for compiler in &CPLUSPLUS {
        let text = |parts: [&str; 3]| vec![("file.cc", format!("{N}{head}{}", parts.concat()))];
        let build = |parts| compile("groups", compiler, &text(parts));
        let one = build([&base, &rest[0], &rest[1]]);
        let again = build([&rest[1], &base, &rest[0]]);
        assert_ne!(one[0].bytes, again[0].bytes);
        assert_eq!(said(&one, &again), Said::default(), "{}", compiler.name);
        let told = said(&one, &build([&rest[1], &fixed, &rest[0]]));
        let steps = ["int one_step<2>(int)", "int one_step<4>(int)"];
        assert_eq!(told, hot(&steps), "{}", compiler.name);
    }
}
