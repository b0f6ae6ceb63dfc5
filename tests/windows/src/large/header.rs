//! What is declared: types, variables, classes, and what a library begins with.

use std::fmt::Write as _;

use super::{FUNCTIONS, Numbers, body};

/// Types of records that all files know.
pub(super) const RECORDS: usize = 240;

/// Functions that any file may inline.
pub(super) const WEIGHTS: usize = 40;

/// Variables of each file.
pub(super) const STATICS: usize = 60;

/// What all files include.
pub(super) fn text() -> String {
    let mut numbers = Numbers::new(9_999);
    let mut text = String::from(
        "#ifdef __cplusplus\n#define C_NAMES_BEGIN extern \"C\" {\n#define C_NAMES_END }\n\
         #else\n#define C_NAMES_BEGIN\n#define C_NAMES_END\n#endif\n\
         typedef unsigned long long u64;\nC_NAMES_BEGIN\n\
         extern volatile int note_level;\nint note(const char *text, int value);\n\
         enum phase { PHASE_IDLE, PHASE_READ, PHASE_WRITE, PHASE_SYNC = 40, PHASE_END };\n",
    );
    for record in 0..RECORDS {
        let _ = writeln!(
            text,
            "struct record_{record} {{\n    int kind, count;\n    double share;\n    struct record_{record} *next;\n    int (*act)(struct record_{record} *, int);\n    const char *title;\n    enum phase phase;"
        );
        for field in 0..3 + record % 9 {
            let _ = match numbers.below(6) {
                0 => writeln!(text, "    unsigned char bytes_{field}[{}];", 4 + field * 4),
                1 => writeln!(text, "    u64 mask_{field};"),
                2 => writeln!(
                    text,
                    "    struct record_{} *peer_{field};",
                    numbers.below(RECORDS)
                ),
                3 => writeln!(
                    text,
                    "    unsigned flag_{field} : {}, rest_{field} : {};",
                    1 + numbers.below(9),
                    3 + numbers.below(9)
                ),
                4 => writeln!(
                    text,
                    "    union {{ float real_{field}; unsigned bits_{field}; }};"
                ),
                _ => writeln!(text, "    short pair_{field}[2];"),
            };
        }
        text.push_str("    int slots[8];\n};\n");
    }
    for weight in 0..WEIGHTS {
        let record = weight * 5;
        let _ = writeln!(
            text,
            "static inline int weigh_{weight}(const struct record_{record} *r, int x) {{\n    int sum = x;\n    for (int i = 0; i < {}; i++)\n        sum += r->slots[i] * {} + r->count;\n    return sum ^ r->kind;\n}}",
            2 + weight % 6,
            3 + numbers.below(90),
        );
    }
    text.push_str("C_NAMES_END\n");
    text.push_str(CLASSES);
    text
}

/// What all files in C++ share.
const CLASSES: &str = "
#ifdef __cplusplus
template <class T, int N> struct ring {
    T items[N];
    int begin, used;
    int push(const T &one) {
        if (used == N) return -1;
        items[(begin + used++) % N] = one;
        return used;
    }
    T sum() const {
        T all = T();
        for (int i = 0; i < used; i++) all += items[(begin + i) % N];
        return all;
    }
    int find(const T &one) const {
        for (int i = 0; i < used; i++)
            if (items[(begin + i) % N] == one) return i;
        return -1;
    }
};
struct shape {
    int id;
    explicit shape(int id) : id(id) {}
    virtual int area(int scale) const;
    virtual int move(int by) { return id += by; }
    virtual const char *name() const { return \"shape\"; }
};
#endif
";

/// Variables, tables and texts of one file.
pub(super) fn statics(unit: usize, numbers: &mut Numbers, text: &mut String) {
    for at in 0..STATICS {
        let record = body::record_of(unit, at);
        let _ = match at % 6 {
            0 => writeln!(
                text,
                "static int counter_{unit}_{at} = {};",
                numbers.below(900)
            ),
            1 => {
                let words: Vec<String> = (0..24 + numbers.below(80))
                    .map(|_| numbers.below(70_000).to_string())
                    .collect();
                writeln!(
                    text,
                    "static const int table_{unit}_{at}[] = {{{}}};",
                    words.join(", ")
                )
            }
            2 => writeln!(
                text,
                "static struct record_{record} state_{unit}_{at} = {{{}, {at}, 0.5, 0, 0, \"state {at} of file {unit}\"}};",
                numbers.below(9)
            ),
            3 => writeln!(
                text,
                "static int room_{unit}_{at}[{}];",
                16 + numbers.below(100)
            ),
            4 => {
                let names: Vec<String> = (0..6)
                    .map(|name| {
                        format!(
                            "\"the {} of {unit}-{at}-{name}\"",
                            ["limit", "owner", "depth", "colour"][numbers.below(4)]
                        )
                    })
                    .collect();
                writeln!(
                    text,
                    "static const char *const names_{unit}_{at}[] = {{{}}};",
                    names.join(", ")
                )
            }
            _ => writeln!(
                text,
                "static double share_{unit}_{at} = {}.25;",
                numbers.below(5_000)
            ),
        };
    }
}

/// Classes of one file, and what uses them.
pub(super) fn classes(unit: usize, numbers: &mut Numbers, text: &mut String) {
    if unit == 0 {
        text.push_str("int shape::area(int scale) const { return id * scale; }\n");
    }
    for class in 0..25 {
        let name = format!("shape_{unit}_{class}");
        let (a, b, c) = (
            numbers.below(90) + 1,
            numbers.below(9_000),
            numbers.below(30) + 3,
        );
        let _ = writeln!(
            text,
            "struct {name} : shape {{\n    ring<int, {c}> sizes;\n    ring<double, {a}> shares;\n    {name}(int id) : shape(id) {{ sizes.used = shares.used = 0; }}\n    int area(int scale) const override {{ return sizes.sum() * scale + {b}; }}\n    const char *name() const override {{ return \"{name}\"; }}\n    __declspec(noinline) int grow(int by) {{ shares.push(by / {a}.5); return sizes.push(by + {b}) + sizes.find(by); }}\n}};\n\
             int use_{name}(shape *other, int x) {{\n    static {name} own({class});\n    auto twice = [&](int n) {{ return own.grow(n) + other->area(n); }};\n    return twice(x) + own.move(x) + (int)own.shares.sum() + other->name()[0];\n}}"
        );
    }
}

/// The function that the fix changes: reached by its variables, which it keeps.
pub(super) fn fix(unit: usize, at: usize, text: &mut String) {
    let check = ["size > 64", "size > 64 || size < 0", "!r->title"][at];
    let record = body::record_of(unit, 2);
    let _ = writeln!(
        text,
        "__declspec(dllexport) __declspec(noinline) int fix_{unit}(struct record_{record} *r, int size) {{\n#ifdef FIXED\n    if ({check})\n        return -1;\n#endif\n    counter_{unit}_0 += size;\n    for (int i = 0; i < size; i++)\n        room_{unit}_3[i & 15] += r->slots[i & 7] * table_{unit}_1[i & 7];\n    return note(names_{unit}_4[size & 3], counter_{unit}_0);\n}}"
    );
}

/// Functions that are called through a table.
pub(super) fn table(unit: usize, text: &mut String) {
    let _ = write!(text, "__declspec(dllexport) void *entries_{unit}[] = {{");
    for number in 0..FUNCTIONS {
        let _ = write!(text, "(void *)f_{unit}_{number}, ");
    }
    text.push_str("};\n");
}

/// What the linker wants of a C runtime.
pub(super) fn start(text: &mut String) {
    text.push_str(
        "volatile int note_level;\nint note(const char *text, int value) { return note_level + *text + value; }\n\
         int _fltused = 1;\n\
         __declspec(align(8)) extern const unsigned char _load_config_used[0x140] = {0x40, 0x01};\n\
         int __stdcall _DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }\n\
         void *memset(void *to, int byte, u64 many) { volatile char *at = (volatile char *)to; while (many--) *at++ = (char)byte; return to; }\n\
         void *memcpy(void *to, const void *from, u64 many) { volatile char *at = (volatile char *)to; const char *of = (const char *)from; while (many--) *at++ = *of++; return to; }\n\
         void __chkstk(void) {}\n",
    );
}
