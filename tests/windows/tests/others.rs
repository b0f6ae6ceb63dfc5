//! What other readers say of images as well: delay-loaded libraries, threads' variables, images for
//! ARM64. And what only debug data tell: changes of types that keep their size.

use invivo_compare::{Comparison, Rule};
use invivo_image::pe::{ImportedSymbol, Pdb, PeMachine};
use invivo_image::{Image, Rva};
use windows_tests::{Build, Folder, build, readobj};

/// The numbers behind `name` in what llvm-readobj prints.
fn numbers(text: &str, name: &str) -> Vec<u64> {
    let words = text.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix(name)?.strip_prefix(": ")?;
        let word = rest.split([' ', '(', ')']).rfind(|word| !word.is_empty())?;
        Some(match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).expect(name),
            None => word.parse().expect(name),
        })
    });
    words.collect()
}

#[test]
fn libraries_that_are_loaded_at_the_first_call() {
    let folder = Folder::new("others-late");
    let mut how = Build::base().importing(&["GetTickCount", "GetCurrentThreadId"]);
    how.link.push("/delayload:kernel32.dll".to_owned());
    let library = build(&folder, "late", "late", &how).expect("built");
    let image = library.image().expect("read");
    let [late] = &image.imports[..] else {
        panic!("{:?}", image.imports);
    };
    assert!(late.delayed && late.name == "kernel32.dll", "{late:?}");
    let told = readobj(&["--coff-imports"], &library.path).expect("llvm-readobj reads it");
    assert!(told.contains("DelayImport {"), "{told}");
    let slots: Vec<u64> = late.thunks.iter().map(|thunk| thunk.slot.0).collect();
    let first = numbers(&told, "ImportAddressTable")[0];
    assert_eq!(slots, [first, first + 8]);
    // What a slot holds before the first call is what llvm-readobj prints.
    let held = slots
        .iter()
        .map(|slot| image.pointer(Rva(*slot)).expect("a slot"));
    assert_eq!(held.collect::<Vec<_>>(), numbers(&told, "Address"));
    for thunk in &late.thunks {
        let ImportedSymbol::Name(name) = &thunk.symbol else {
            panic!("{thunk:?}");
        };
        assert!(told.contains(&format!("Symbol: {name} (")), "{told}");
    }
    // It is equal to itself, and another function in a slot is another function.
    let view = library.view().expect("read");
    assert!(Comparison::new(&view, &view).is_unchanged());
}

#[test]
fn variables_of_threads() {
    let folder = Folder::new("others-threads");
    let how = Build::base().with("-DTHREAD");
    let library = build(&folder, "threads", "service", &how).expect("built");
    let image = library.image().expect("read");
    let tls = image.tls.as_ref().expect("it has some");
    let told = readobj(&["--coff-tls-directory"], &library.path).expect("llvm-readobj reads it");
    let field = |name: &str| numbers(&told, name)[0];
    let base = image.image_base;
    assert_eq!(tls.template.start.0 + base, field("StartAddressOfRawData"));
    assert_eq!(tls.template.end.0 + base, field("EndAddressOfRawData"));
    assert_eq!(tls.index.0 + base, field("AddressOfIndex"));
    assert_eq!(u64::from(tls.zeros), field("SizeOfZeroFill"));
    assert!(tls.callbacks.is_empty() && field("AddressOfCallBacks") == 0);
}

/// Functions of ARM64, with unwind data of their own and packed ones.
#[test]
fn images_for_arm64_are_read() {
    let folder = Folder::new("others-arm");
    let mut packed = 0;
    for (program, words) in [("service", "-O2"), ("privates", "-fno-omit-frame-pointer")] {
        let how = Build::base()
            .with("--target=aarch64-windows-msvc")
            .with(words);
        let library = build(&folder, "arm", program, &how).expect("built");
        let image = library.image().expect("read");
        assert_eq!(image.machine, PeMachine::Arm64);
        let told = readobj(&["--unwind"], &library.path).expect("llvm-readobj reads it");
        let starts = numbers(&told, "Function")
            .into_iter()
            .map(|at| at - image.image_base);
        let lengths = numbers(&told, "FunctionLength");
        let theirs: Vec<(u64, u64)> = starts.zip(lengths).collect();
        let ours = image.functions.iter().map(|one| {
            let code = &one.code;
            (code.start.0, code.end.0 - code.start.0)
        });
        assert_eq!(ours.collect::<Vec<_>>(), theirs);
        assert!(!theirs.is_empty());
        packed += image
            .functions
            .iter()
            .filter(|one| one.unwind.is_none())
            .count();

        let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("a file")).expect("read");
        pdb.check(&image).expect("it belongs to it");
        let answer = pdb.symbols.iter().find(|symbol| &*symbol.name == "answer");
        let answer = answer.expect("it is named");
        assert!(answer.is_function && answer.size % 4 == 0 && answer.size > 0);
        let text = &image.sections[usize::from(answer.section) - 1];
        let at = Rva(text.range.start.0 + u64::from(answer.offset));
        let exported = image
            .exports
            .iter()
            .find(|export| export.names == ["answer"]);
        assert_eq!(exported.and_then(|export| export.at), Some(at));
    }
    assert!(packed > 0, "no packed unwind data");
}

#[test]
fn types_of_live_data_that_keep_their_size() {
    let folder = Folder::new("others-layouts");
    let view = |name: &str, how: &Build| {
        let built = build(&folder, name, "layouts", how).expect("built");
        built.view().expect("read")
    };
    let base = view("base", &Build::base());
    let layouts = |words: &str| -> Vec<String> {
        let fixed = view("fixed", &Build::fixed("answer").with(words));
        let c = Comparison::new(&base, &fixed);
        let layouts = c.findings.iter().filter(|one| one.rule == Rule::Layout);
        layouts.map(|one| one.subject.clone()).collect()
    };
    assert_eq!(layouts(""), [""; 0]);
    for (words, subject) in [
        ("-DENUM", "Mode"),
        ("-DBITS", "Flags"),
        ("-DBASE", "Both"),
        ("-DVIRTUAL", "Plain"),
    ] {
        let found = layouts(words);
        assert!(
            found.iter().any(|one| one.contains(subject)),
            "{words}: {found:?}"
        );
    }
}

/// LLVM's linker leaves the compiler's records of hot-patch functions out of the PDB file: what an
/// object file says is not there.
#[test]
fn the_linker_leaves_marks_out() {
    use invivo_image::pe::HotPatchObject;
    let folder = Folder::new("others-marks");
    let fixed = build(&folder, "fixed", "service", &Build::fixed("answer")).expect("built");
    let object = fixed.path.with_file_name("service.obj");
    let object = std::fs::read(object).expect("a file");
    let object = HotPatchObject::parse(&object).expect("read");
    assert_eq!(object.functions, ["answer"]);
    let pdb = Pdb::parse(&std::fs::read(&fixed.pdb).expect("a file")).expect("read");
    assert!(
        pdb.hot_patch_functions.is_empty(),
        "{:?}",
        pdb.hot_patch_functions
    );
}

#[test]
fn what_compiled_two_builds_is_held_against_each_other() {
    let folder = Folder::new("compilers");
    let view = |name: &str, how: Build| {
        let built = build(&folder, name, "service", &how).expect("it is built");
        built.view().expect("read")
    };
    let told = |base: &Image, fixed: &Image| {
        let findings = Comparison::new(base, fixed).findings.into_iter();
        let of_builds = findings.filter(|one| one.rule == Rule::Build);
        of_builds.map(|one| one.text).collect::<Vec<_>>()
    };
    let mut plain = Build::base();
    plain.compile.clear();
    let (base, other) = (view("base", Build::base()), view("other", plain));
    let facts = base.pdb.as_ref().expect("its PDB file is read");
    let clang = |one: &&String| one.contains("clang") && one.contains(" hot-patch");
    assert!(
        facts.compilers.iter().any(|one| clang(&one)),
        "{:?}",
        facts.compilers
    );
    let found = told(&base, &other);
    assert!(
        found.iter().any(|one| one.contains("hot-patch")),
        "{found:?}"
    );
    assert_eq!(
        told(&base, &view("again", Build::base())),
        Vec::<String>::new()
    );
}
