//! Broken and hostile files: an error or an image, never a panic, never without end.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use invivo_image::x86_64::decode;
use invivo_image::{DebugSections, EntityKind, Image, LinkAddr, Lsda};
use object::read::{File, Object as _, ObjectSection as _};

/// A whole look at one file must be over by then, on a slow machine too.
const LIMIT: Duration = Duration::from_secs(20);

/// Pseudo-random numbers that are the same in each run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }
}

/// Where a section of a good file is, and its size.
fn section(file: &[u8], name: &str) -> (usize, usize) {
    let object = File::parse(file).expect("an object file");
    let range = object
        .section_by_name(name)
        .and_then(|section| section.file_range());
    let (start, size) = range.expect("the section is there");
    (
        usize::try_from(start).expect("inside"),
        usize::try_from(size).expect("inside"),
    )
}

/// Uses everything that an image offers, as a comparison would; true if it is one.
fn look(bytes: &[u8]) -> bool {
    let start = Instant::now();
    let parsed = Image::parse(Arc::from(bytes), None);
    if let Ok(image) = &parsed {
        for (id, entity) in image.entity_ids().take(500) {
            if entity.kind != EntityKind::Object {
                // A hostile size must not make us decode the whole file for each symbol.
                let lines = if entity.size < 1 << 16 {
                    decode(image, entity)
                } else {
                    None
                };
                for line in lines.iter().flatten().take(200) {
                    for reference in line.references() {
                        let _ = image.place(reference.target);
                        let _ = image.just_before(reference.target);
                    }
                }
            }
            let _ = image.bytes(entity.addr, entity.size);
            let _ = (
                image.place(entity.addr),
                image.rva(entity.addr),
                image.entity(id).end(),
            );
        }
        for fde in image.unwind.fdes.iter().take(2000) {
            let _ = image.unwind.fde_at(fde.range.start);
        }
        look_at_debug_data(image);
        for lsda in image.unwind.lsdas.iter().take(500) {
            let _ = Lsda::parse(image, *lsda);
        }
    }
    assert!(
        start.elapsed() < LIMIT,
        "one file took {:?}",
        start.elapsed()
    );
    parsed.is_ok()
}

fn look_at_debug_data(image: &Image) {
    let Ok(Some(sections)) = DebugSections::of(image) else {
        return;
    };
    let Ok(debug) = sections.open() else {
        return;
    };
    let mut functions = Vec::new();
    for entity in image.entities.iter().take(200) {
        let _ = debug.place_of(entity.addr);
        functions.extend(debug.function(entity.addr));
    }
    for function in &functions {
        let _ = function.chain(LinkAddr(0x1000));
    }
    let asked: Vec<_> = functions
        .iter()
        .map(|f| (f, BTreeSet::from(["main"])))
        .collect();
    let types = debug.types_used(&asked, []);
    let _ = debug.types_beside(&functions.iter().collect::<Vec<_>>());
    let names: BTreeSet<&str> = types.keys().map(String::as_str).collect();
    let _ = debug.types_named(&names);
}

fn system_program() -> Vec<u8> {
    std::fs::read("/bin/true").expect("every system has /bin/true")
}

/// A C++ program with exceptions, whose unwind data and LSDAs are worth breaking.
fn program_with_exceptions() -> Vec<u8> {
    static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(compile);
    PROGRAM.clone()
}

fn compile() -> Vec<u8> {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let (source, program) = (folder.join("throws.cc"), folder.join("throws"));
    let text = "#include <stdexcept>\n\
        int f(int n) { try { if (n > 1) throw std::runtime_error(\"x\"); throw n; }\n\
        catch (const std::runtime_error &) { return 1; } catch (int i) { return i; } catch (...) { return 3; } }\n\
        int main(int n, char **) { return f(n); }\n";
    std::fs::write(&source, text).expect("the source can be written");
    let done = std::process::Command::new("c++")
        .args(["-O2", "-g", "-o"])
        .arg(&program)
        .arg(&source)
        .output()
        .expect("a C++ compiler is installed (apt-get install g++)");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let bytes = std::fs::read(&program).expect("the program was made");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    bytes
}

#[test]
fn the_untouched_files_are_images() {
    assert!(look(&system_program()));
    assert!(look(&program_with_exceptions()));
}

#[test]
fn a_cut_file_is_an_error_or_an_image() {
    let whole = program_with_exceptions();
    // Every length of the headers, and a spread of the rest.
    for size in (0..1024).chain((1024..whole.len()).step_by(97)) {
        look(&whole[..size.min(whole.len())]);
    }
    assert!(!look(&whole[..100]));
    assert!(!look(&[]));
}

#[test]
fn changed_headers_are_errors_or_images() {
    let whole = program_with_exceptions();
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let header = 64 + 56 * 14;
    let sections = u64::from_le_bytes(whole[40..48].try_into().expect("e_shoff"));
    let sections = usize::try_from(sections).expect("inside the file");
    for round in 0..3000 {
        let mut file = whole.clone();
        for _ in 0..=numbers.below(3) {
            let (start, end) = if round % 2 == 0 {
                (0, header)
            } else {
                (sections, whole.len())
            };
            let at = start + numbers.below(end - start);
            file[at] = extreme(&mut numbers);
        }
        look(&file);
    }
}

/// The bytes that break arithmetic, and some others.
fn extreme(numbers: &mut Numbers) -> u8 {
    let other = numbers.next().to_le_bytes()[0];
    [0, 0xff, 0x7f, 0x80, 1, other][numbers.below(6)]
}

#[test]
fn changed_contents_are_errors_or_images() {
    for whole in [system_program(), program_with_exceptions()] {
        let mut numbers = Numbers(0xfeed_0000_beef_0001);
        for _ in 0..1500 {
            let mut file = whole.clone();
            for _ in 0..=numbers.below(64) {
                let at = numbers.below(file.len());
                file[at] = extreme(&mut numbers);
            }
            look(&file);
        }
    }
}

#[test]
fn broken_unwind_and_debug_data_are_errors_or_tables() {
    let whole = program_with_exceptions();
    let names = [
        ".eh_frame",
        ".gcc_except_table",
        ".debug_info",
        ".debug_abbrev",
    ];
    for name in names {
        let (start, size) = section(&whole, name);
        let bytes = &whole[start..start + size];
        let mut numbers = Numbers(0x0dd_ba11_0000_0001);
        for round in 0..2000 {
            let mut file = whole.clone();
            for _ in 0..=numbers.below(4) {
                let at = start + numbers.below(bytes.len());
                file[at] = extreme(&mut numbers);
            }
            if round % 8 == 0 {
                // A long run of one byte: LEB128 numbers without end.
                let at = start + numbers.below(bytes.len());
                let end = (at + 40).min(start + bytes.len());
                file[at..end].fill(extreme(&mut numbers));
            }
            look(&file);
        }
    }
}

/// The largest real file at hand: this test itself.
#[test]
fn a_real_program_of_some_size_is_read_in_time() {
    let own = std::env::current_exe().expect("the test has a file");
    let mut bytes = std::fs::read(own).expect("which can be read");
    assert!(look(&bytes));
    let mut numbers = Numbers(0x5eed_0000_0000_0001);
    for _ in 0..20 {
        for _ in 0..200 {
            let at = numbers.below(bytes.len());
            bytes[at] = extreme(&mut numbers);
        }
        look(&bytes);
    }
}

#[test]
fn a_foreign_debug_file_is_refused() {
    let (one, other) = (system_program(), program_with_exceptions());
    // Without its section headers an image is stripped.
    let debug = Image::parse(Arc::from(&one[..]), Some(&other));
    let has_symbols = Image::parse(Arc::from(&one[..]), None).is_ok_and(|image| image.has_symbols);
    assert!(
        has_symbols || debug.is_err(),
        "symbols of another build were believed"
    );
}

/// The type of a function that returns a pointer to functions of that very type: no source has it.
const OF_ITSELF: &str = r#"
    .text
    .globl f
    .type f, @function
f:  ret
    .size f, 1
    .section .debug_abbrev
    .byte 1, 0x11, 1, 0x11, 1, 0x12, 6, 0, 0 # unit: low_pc, high_pc
    .byte 2, 0x2e, 0, 3, 8, 0x11, 1, 0x12, 6, 0x49, 0x13, 0, 0 # function: name, low_pc, high_pc, type
    .byte 3, 0x0f, 0, 0x49, 0x13, 0, 0 # pointer: type
    .byte 4, 0x15, 0, 0x49, 0x13, 0, 0 # type of a function: type
    .byte 0
    .section .debug_info
info:
    .long end - start
start:
    .value 4
    .long 0
    .byte 8
    .byte 1
    .quad f
    .long 1
    .byte 2
    .asciz "f"
    .quad f
    .long 1
    .long pointer - info
pointer:
    .byte 3
    .long function - info
function:
    .byte 4
    .long pointer - info
    .byte 0
end:
"#;

#[test]
fn function_type_of_itself() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("of-itself");
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let (source, library) = (folder.join("f.s"), folder.join("f.so"));
    std::fs::write(&source, OF_ITSELF).expect("the source can be written");
    let mut gcc = std::process::Command::new("gcc");
    gcc.args(["-shared", "-nostdlib", "-o"]);
    let made = gcc.arg(&library).arg(&source).status();
    assert!(
        made.expect("the compiler is installed (apt-get install gcc)")
            .success()
    );
    let bytes = std::fs::read(&library).expect("it was made");
    let image = Image::parse(bytes.into(), None).expect("it is an image");
    let sections = DebugSections::of(&image).expect("they can be read");
    let sections = sections.expect("it has some");
    let debug = sections.open().expect("they are whole");
    let at = image.entities.iter().find(|entity| entity.name() == "f");
    let function = debug.function(at.expect("it is there").addr);
    let told = format!("{:?}", function.expect("it is described"));
    assert!(told.contains('…'), "{told}");
}
