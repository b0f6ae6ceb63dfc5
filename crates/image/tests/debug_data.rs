//! Debug data in the forms that compilers and linkers leave them in: each must tell the
//! same of one small program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use invivo_image::{DebugSections, Image, SourcePlace};

const SOURCE: &str = "\
struct inner { long a; char name[8]; };
struct outer { int count; struct inner *first; unsigned flag : 3; enum { OFF, ON = 5 } mode; };
static struct outer state;

static inline int twice(int x)
{
    return x * 2 + state.count;
}

__attribute__((noipa)) long look(struct outer *o, int x)
{
    return twice(x) + o->first->a;
}

int main(int argc, char **argv)
{
    (void)argv;
    return (int)look(&state, argc);
}
";

/// Compiles in two steps, because split debug data stay beside the object.
fn program(name: &str, flags: &[&str]) -> Image {
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("debug-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join("look.c"), SOURCE).expect("the source can be written");
    let run = |arguments: &[&str]| {
        let output = Command::new("cc")
            .current_dir(&folder)
            .args(flags)
            .args(arguments)
            .output()
            .expect("the compiler is installed (apt-get install gcc)");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
    };
    run(&["-O2", "-c", "look.c"]);
    run(&["-O2", "-o", "program", "look.o"]);
    let file = std::fs::read(folder.join("program")).expect("the program was made");
    let mut image = Image::parse(Arc::from(file), None).expect("an image");
    let missing = image.missing_split_units().expect("a list of units");
    if !missing.is_empty() {
        let file = std::fs::read(folder.join("look.dwo")).expect("the unit was split off");
        image
            .attach_split(Arc::from(file), &missing)
            .expect("it belongs to the program");
    }
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    image
}

fn line(line: u32) -> Option<SourcePlace> {
    let file = "look.c".to_owned();
    Some(SourcePlace { file, line })
}

fn tells_all(name: &str, flags: &[&str]) {
    let image = program(name, flags);
    let sections = DebugSections::of(&image).expect("whole sections");
    let sections = sections.expect("the program has debug data");
    let debug = sections.open().expect("whole units");
    let mut entities = image.entities.iter();
    let entity = entities.find(|entity| entity.name() == "look");
    let at = entity.expect("the program has it").addr;

    let look = debug.function(at).expect("it is described");
    assert_eq!(look.name, "look", "{name}");
    assert_eq!(look.declared, line(10), "{name}");
    assert_eq!(look.prototype_text, "long int (outer *, int)", "{name}");
    let inlined: Vec<_> = look
        .inlined
        .iter()
        .map(|i| (&i.name[..], i.called.clone()))
        .collect();
    assert_eq!(inlined, [("twice", line(12))], "{name}");
    let place = debug.place_of(at).expect("it has a line");
    assert!(
        place.file == "look.c" && (6..=13).contains(&place.line),
        "{name}: {place}"
    );
    assert!(
        debug
            .compiled_at(at)
            .is_some_and(|unit| unit.producer.contains("GNU")),
        "{name}"
    );

    let types = debug.types_used(&[(&look, BTreeSet::new())], []);
    let outer = types["outer"].layouts.first().expect("it has a layout");
    assert_eq!((outer.kind, outer.size), ("struct", 24), "{name}");
    let members: Vec<_> = outer
        .members
        .iter()
        .map(|m| (&m.name[..], m.at, m.bits))
        .collect();
    let expected = [
        ("count", 0, None),
        ("first", 8, None),
        ("flag", 128, Some(3)),
        ("mode", 20, None),
    ];
    assert_eq!(members, expected, "{name}");
    assert!(types.contains_key("inner"), "{name}: a member leads there");
    let named = debug.types_named(&BTreeSet::from(["inner"]));
    assert_eq!(named["inner"].layouts, types["inner"].layouts, "{name}");
}

#[test]
fn every_form_of_debug_data_tells_the_same() {
    let forms: [(&str, &[&str]); 7] = [
        ("dwarf-4", &["-gdwarf-4"]),
        ("dwarf-5", &["-gdwarf-5"]),
        ("compressed", &["-gdwarf-5", "-gz=zlib"]),
        ("type-units", &["-gdwarf-4", "-fdebug-types-section"]),
        ("type-units-5", &["-gdwarf-5", "-fdebug-types-section"]),
        ("split", &["-gdwarf-5", "-gsplit-dwarf"]),
        ("lto", &["-gdwarf-5", "-flto"]),
    ];
    for (name, flags) in forms {
        tells_all(name, flags);
    }
}

/// What two files have in common, and what has one name in both and is not the same.
const HEADER: &str = "\
typedef struct { short small; union { int number; float real; }; } unnamed;
enum state { OFF, ON = 5 };
struct common { unnamed parts[2]; enum state state; unsigned low : 3, high : 5; struct common *next; };
struct holder { struct same { int value; } same; };
";

#[test]
fn types_of_one_name_are_all_seen() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debug-same-name");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let one = "struct mine { long a; int b; }; struct pair { struct mine *m; };
        __attribute__((noipa)) int one(struct pair *p, struct common *c)
        { return p->m->b + c->low; }
        int two(void *, struct common *);
        int main(int n, char **v) { (void)v; struct common c = {.low = n};
        struct mine m = {1, 2}; struct pair p = {&m}; return one(&p, &c) + two(&m, &c); }";
    let two = "struct mine { int a; long b; };
        __attribute__((noipa)) int two(struct mine *m, struct common *c)
        { return (int)m->b + c->high; }";
    for (name, text) in [("one.c", one), ("two.c", two)] {
        std::fs::write(folder.join(name), format!("{HEADER}{text}")).expect("a source");
    }
    let done = Command::new("cc")
        .current_dir(&folder)
        .args(["-O2", "-g", "-o", "program", "one.c", "two.c"])
        .output()
        .expect("the compiler is installed (apt-get install gcc)");
    assert!(done.status.success());
    let file = std::fs::read(folder.join("program")).expect("the program was made");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let image = Image::parse(Arc::from(file), None).expect("an image");
    let sections = DebugSections::of(&image).expect("whole sections");
    let debug = sections.as_ref().expect("debug data").open();
    let debug = debug.expect("whole units");
    let function = |name: &str| {
        let mut entities = image.entities.iter();
        let at = entities.find(|entity| entity.name() == name);
        debug.function(at.expect("the program has it").addr)
    };
    let both = [function("one"), function("two")];
    let both = both.map(|function| function.expect("it is described"));
    let known = debug.types_beside(&[&both[0], &both[1]]);
    let named = debug.types_named(&known.keys().map(String::as_str).collect());
    for (name, layouts) in [
        ("mine", 2),
        ("common", 1),
        ("unnamed", 1),
        ("state", 1),
        ("pair", 1),
    ] {
        assert_eq!(known[name].layouts.len(), layouts, "{name}");
        assert_eq!(named[name].layouts, known[name].layouts, "{name}");
    }
    assert_eq!((known["mine"].by, known["pair"].by), (0, 0));
    let members = |name: &str| known[name].layouts.first().map(|l| l.members.len());
    assert_eq!(members("unnamed"), Some(2));
    assert_eq!(members("common"), Some(5));
}

/// A fuzzer found it: the size of a function may lead beyond the address space.
#[test]
fn a_function_without_an_end_is_not_described() {
    let image = program("endless", &["-gdwarf-4", "-no-pie"]);
    let mut entities = image.entities.iter();
    let look = entities.find(|entity| entity.name() == "look");
    let (at, size) = look.map(|e| (e.addr, e.size)).expect("the program has it");
    let told: Vec<u8> = [at.0.to_le_bytes(), size.to_le_bytes()].concat();
    let mut file = image.file().to_vec();
    // Its entry does, and so do the list of ranges and the symbol.
    let places = (0..file.len() - 16).filter(|at| file[*at..*at + 16] == told);
    let places: Vec<usize> = places.collect();
    assert!(places.len() >= 2, "{places:?}");
    for place in places {
        file[place + 8..place + 16].fill(0xff);
    }
    let image = Image::parse(Arc::from(file), None).expect("an image");
    let sections = DebugSections::of(&image).expect("debug data");
    let sections = sections.expect("debug data");
    let debug = sections.open().expect("debug data that can be read");
    assert!(debug.function(at).is_none());
}
