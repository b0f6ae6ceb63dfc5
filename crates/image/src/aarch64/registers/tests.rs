//! The registers of random instructions, held against what llvm-objdump writes of them.

use std::path::Path;
use std::process::Command;

use super::{access, bit};

/// How many words are looked at.
const WORDS: usize = 200_000;

/// Random words; most are such as compilers write.
fn words() -> Vec<u32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u32
    };
    // Bits 25 to 28 tell the class.
    const CLASSES: [u32; 12] = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let word = |number: usize| {
        let class = CLASSES[number % CLASSES.len()];
        next() & !(15 << 25) | class << 25
    };
    (0..WORDS).map(word).collect()
}

/// What llvm-objdump says of each, without what it does not know.
fn told(words: &[u32]) -> Vec<(u32, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp");
    let folder = folder.join(format!("registers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(folder.join("words"), bytes).expect("it can be written");
    let run = |tool: &str, words: &[&str]| {
        let output = Command::new(tool).current_dir(&folder).args(words).output();
        let output = output.expect("LLVM 22 is installed; cargo xtask test installs it");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let code = "--rename-section=.data=.text,code";
    run(
        "llvm-objcopy-22",
        &[
            "-I",
            "binary",
            "-O",
            "elf64-littleaarch64",
            code,
            "words",
            "words.o",
        ],
    );
    let text = run("llvm-objdump-22", &["-d", "-z", "--mattr=+all", "words.o"]);
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let lines = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(": ")?;
        let (word, text) = rest.split_once('\t')?;
        let word = u32::from_str_radix(word.trim(), 16).ok()?;
        let text = text.split(['/', '<']).next().unwrap_or(text);
        (!text.trim().is_empty()).then(|| (word, text.trim().replace('\t', " ")))
    });
    lines.collect()
}

/// The registers that a text names, one bit for each.
fn named(text: &str) -> u32 {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let numbers = words.filter_map(|word| word.strip_prefix(['x', 'w'])?.parse::<u32>().ok());
    numbers
        .filter(|number| *number < 31)
        .fold(0, |all, number| all | bit(number))
}

/// What an instruction must read, and what it writes, as its text tells.
fn expected(text: &str) -> (u32, u32) {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    // A number in brackets behind braces is a part of a vector.
    let (operands, place) = match rest.strip_prefix('[') {
        Some(place) => ("", place),
        None => rest.split_once(", [").unwrap_or((rest, "")),
    };
    let list: Vec<&str> = operands.split(',').map(str::trim).collect();
    let first = |count: usize| list.iter().take(count).fold(0, |all, one| all | named(one));
    let behind = |count: usize| list.iter().skip(count).fold(0, |all, one| all | named(one));
    // A base that is written back: `[x1, #8]!`, `[x1], #8`.
    let (inside, after) = place.split_once(']').unwrap_or((place, ""));
    let base = named(inside.split(',').next().unwrap_or(""));
    let stepped = if after.starts_with(['!', ',']) {
        base
    } else {
        0
    };
    let through = named(place);
    const ATOMIC: [&str; 8] = [
        "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin",
    ];
    if is(&["cas"]) {
        let own = if is(&["casp"]) { 2 } else { 1 };
        return (named(rest), first(own));
    }
    if is(&ATOMIC) || is(&["swp"]) {
        return (first(1) | through, list.get(1).map_or(0, |one| named(one)));
    }
    if is(&["ld"]) {
        let pair = is(&["ldp", "ldnp", "ldxp", "ldaxp", "ldtp", "ldtnp", "ldiapp"]);
        let count = if pair { 2 } else { 1 };
        return (behind(count) | through, first(count) | stepped);
    }
    if is(&["stxr", "stlxr", "stxp", "stlxp"]) {
        return (behind(1) | through, first(1));
    }
    const NO_RESULT: [&str; 27] = [
        "st", "prfm", "prfum", "rprfm", "cmp", "cmn", "tst", "ccmp", "ccmn", "cb", "tb", "br",
        "blr", "ret", "msr", "sys", "at", "dc", "ic", "tlbi", "rmif", "setf", "wf", "cfp", "cpp",
        "dvp", "cosp",
    ];
    if is(&NO_RESULT) && !is(&["sysl"]) {
        return (named(rest), stepped);
    }
    let keeps =
        is(&["movk", "bfi", "bfxil", "bfc", "bfm", "xpac", "pac", "aut"]) && !is(&["pacga"]);
    if keeps {
        return (named(rest), first(1));
    }
    (behind(1) | through, first(1) | stepped)
}

#[test]
fn registers_are_those_that_others_tell() {
    let told = told(&words());
    let (mut known, mut wrong) = (0, Vec::new());
    for (word, text) in &told {
        let Some(access) = access(*word) else {
            continue;
        };
        // Vectors have registers of their own, of which tables and tiles of SVE have many.
        known += 1;
        let (reads, writes) = expected(text);
        // Who may be called, and hints that sign `x30`, name no register.
        let unnamed = if named(text) == 0 { bit(30) } else { 0 };
        let lost = reads & !access.reads;
        let invented = access.writes & !writes & !unnamed;
        let missed = named(text) & !(access.reads | access.writes);
        if lost | invented | missed != 0 {
            wrong.push(format!(
                "{word:08x} {text}: {access:x?}, not {reads:x} and {writes:x}"
            ));
        }
    }
    assert!(known > WORDS / 4, "{known} of {}", told.len());
    wrong.truncate(40);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
