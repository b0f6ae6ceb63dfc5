//! Broken and hostile object files: an error or an image, never a panic, never without end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use invivo_image::x86_64::decode;
use invivo_image::{DebugSections, EntityKind, Image, ObjectFile};

const LIMIT: Duration = Duration::from_secs(20);

const SOURCE: &str = r#"
extern int outside(int); extern int shared[8]; int common;
static __thread int mine = 3; __thread int zero;
static const char *const names[] = {"one", "two", shared ? "three" : 0};
__attribute__((noinline)) const char *pick(int k) {
    switch (k) { case 0: return names[outside(0)]; case 1: mine++; return "x"; case 2: zero++; return "y";
        case 3: common = outside(4); return 0; case 4: return names[shared[3]]; default: return names[1]; } }
int both(int x) {
    asm volatile("1: nop\n.pushsection .ex_table,\"a\"\n.long 1b - .\n.long 2f - .\n.popsection\n"
        ".pushsection .fixup,\"ax\"\n2: jmp 1b\n.popsection\n"
        ".pushsection .altinstructions,\"a\"\n.long 1b - .\n.long 3f - .\n.word 7\n.byte 1,1,0,0\n.popsection\n"
        ".pushsection .altinstr_replacement,\"ax\"\n3: nop\n.popsection\n");
    return pick(x)[0]; }
"#;

/// An object file with much in it; made once, as the tests run beside each other.
fn object() -> Vec<u8> {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(compile).clone()
}

fn compile() -> Vec<u8> {
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-objects");
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let source = SOURCE.replace("shared ? \"three\" : 0", "\"three\"");
    std::fs::write(folder.join("file.c"), source).expect("the source can be written");
    let done = Command::new("gcc")
        .current_dir(&folder)
        .args([
            "-O2",
            "-g",
            "-fcommon",
            "-ffunction-sections",
            "-c",
            "file.c",
        ])
        .output()
        .expect("the compiler is installed (apt-get install gcc)");
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    std::fs::read(folder.join("file.o")).expect("it was made")
}

/// Uses what the images offer; true if they are some.
fn look(bytes: &[u8]) -> bool {
    let start = Instant::now();
    let file = [ObjectFile {
        label: "file.o".to_owned(),
        bytes: Arc::from(bytes),
    }];
    let images = Image::of_objects(&file, &file);
    if let Ok((image, _)) = &images {
        for (_, entity) in image.entity_ids().take(500) {
            if entity.kind == EntityKind::Object || entity.size > 1 << 16 {
                continue;
            }
            for line in decode(image, entity).iter().flatten().take(200) {
                for reference in line.references() {
                    let _ = image.place(reference.target);
                }
            }
            let _ = image.annexes_of(entity.addr..entity.end());
        }
        if let Ok(Some(debug)) = DebugSections::of(image) {
            let _ = debug.open().map(|debug| debug.function(image.base));
        }
    }
    assert!(start.elapsed() < LIMIT, "it takes too long");
    images.is_ok()
}

#[test]
fn a_good_file_is_read_with_all_that_is_in_it() {
    let file = [ObjectFile {
        label: "file.o".to_owned(),
        bytes: Arc::from(object()),
    }];
    let (image, _) = Image::of_objects(&file, &file).expect("a good file");
    let names: Vec<&str> = image.entities.iter().map(|entity| entity.name()).collect();
    for name in [
        "pick",
        "both",
        "names",
        "common",
        "outside",
        "shared",
        "both.aside.0",
        "both.aside.1",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let locals: Vec<&str> = image.thread_locals.iter().map(|s| &*s.name).collect();
    assert_eq!(locals, ["mine", "zero"]);
    assert_eq!(image.annexes.len(), 2);
}

#[test]
fn cut_files_are_errors() {
    let file = object();
    for end in (0..file.len()).step_by(97) {
        look(&file[..end]);
    }
    assert!(!look(&file[..file.len() / 2]));
}

#[test]
fn changed_bytes_never_panic() {
    let file = object();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |bound: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        usize::try_from(state % bound as u64).expect("below a usize")
    };
    let values = [0, 1, 0x7f, 0x80, 0xff];
    let (mut read, mut refused) = (0, 0);
    for round in 0..3000 {
        let mut bytes = file.clone();
        // The tables of sections and symbols and the relocations are in the second half.
        let from = if round % 3 == 0 { 0 } else { bytes.len() / 2 };
        for _ in 0..=next(4) {
            let at = from + next(bytes.len() - from);
            bytes[at] = values[next(values.len())];
        }
        if look(&bytes) {
            read += 1;
        } else {
            refused += 1;
        }
    }
    assert!(
        read > 100 && refused > 100,
        "{read} read, {refused} refused"
    );
}

#[test]
fn what_is_not_one_of_a_set_is_named() {
    let object = |label: &str, bytes: Vec<u8>| ObjectFile {
        label: label.to_owned(),
        bytes: Arc::from(bytes),
    };
    let text = |files: &[ObjectFile]| {
        let error = Image::of_objects(files, &[]).expect_err("no set of objects");
        error.to_string()
    };
    let good = self::object();
    assert!(
        text(&[object("a.o", good.clone()), object("b.o", good.clone())])
            .starts_with("b.o: defines")
    );
    assert!(text(&[object("a.o", good.clone()), object("a.o", good.clone())]).contains("twice"));
    assert_eq!(
        text(&[object("c.o", b"BC\xc0\xde1234".to_vec())]),
        "c.o: LLVM bitcode; compile it without -flto"
    );
    let program = std::fs::read(std::env::current_exe().expect("this test")).expect("a program");
    assert_eq!(
        text(&[object("d.o", program)]),
        "d.o: a linked file among object files"
    );
}
