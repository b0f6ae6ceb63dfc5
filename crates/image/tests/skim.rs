//! What is read off the bytes of an instruction is what the decoder says of it: for every
//! opcode with every operand form and prefix, for chance, and for all of real programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use iced_x86::{Decoder, DecoderOptions, Instruction};
use invivo_image::x86_64::{
    AddressSpan, Line, Reference, Skim, Step, Traits, decode_all, plain, skim, walk,
};
use invivo_image::{Image, Link, LinkAddr, SectionKind};

const AT: u64 = 0x40_1000;

fn decoded(code: &[u8]) -> Option<Skim> {
    let mut decoder = Decoder::with_ip(64, code, AT, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    decoder.decode_out(&mut instruction);
    let offsets = decoder.get_constant_offsets(&instruction);
    (!instruction.is_invalid()).then(|| Skim::of(&instruction, &offsets))
}

/// True if the bytes were known without the decoder. Panics where it says something else.
fn agrees(code: &[u8; 16]) -> bool {
    let known = skim(code);
    if known.is_some() {
        assert_eq!(known, decoded(code), "{code:02x?}");
    }
    for numbers in [None, Some(few()), Some(all())] {
        if let Some(plain) = plain(code, numbers) {
            agrees_plainly(code, plain, known, numbers);
        }
    }
    known.is_some()
}

/// A program of a mebibyte.
fn few() -> AddressSpan {
    AddressSpan::between(LinkAddr(0x40_0000), LinkAddr(0x50_0000))
}

fn all() -> AddressSpan {
    AddressSpan::between(LinkAddr(0), LinkAddr(u64::MAX))
}

/// What jumps or counts from its end is known in full; of the rest the length, and where control
/// ends or nothing is done, and they have no number that may be an address.
fn agrees_plainly(code: &[u8; 16], plain: Skim, full: Option<Skim>, numbers: Option<AddressSpan>) {
    let full = full.expect("what is plain is known");
    if full.traits.has(Traits::BRANCH.with(Traits::RELATIVE)) {
        assert_eq!(plain, full, "{code:02x?}");
        return;
    }
    let told = [Traits::ENDS, Traits::PADDING];
    let told = told.into_iter().filter(|one| full.traits.has(*one));
    let traits = told.fold(Traits::default(), Traits::with);
    let len = full.len;
    let expected = Skim {
        len,
        traits,
        ..Skim::default()
    };
    assert_eq!(plain, expected, "{code:02x?}");
    let number = Traits::NUMBER.with(Traits::SIGNED).with(Traits::MOV);
    let unused = number.with(Traits::SCALED).with(Traits::LEA).with(traits);
    assert_eq!(full.traits.with(unused), unused, "{full:?}");
    let Some(addresses) = numbers else { return };
    for (at, width) in [
        (full.displacement, 4),
        (full.immediate, full.len - full.immediate),
    ] {
        if at > 0 {
            assert_eq!(width, 4, "{code:02x?}");
            let bytes = code[usize::from(at)..].first_chunk().expect("four bytes");
            let number = i32::from_le_bytes(*bytes);
            let both = [
                i64::from(number).cast_unsigned(),
                number.cast_unsigned().into(),
            ];
            assert!(!both.iter().any(|n| addresses.holds(*n)), "{code:02x?}");
        }
    }
}

/// Every opcode of the four maps with every operand form, behind these prefixes.
fn all_opcodes(prefixes: &[u8], rex: Option<u8>) -> usize {
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    let mut known = 0;
    for map in maps {
        let mut code = [0x91; 16];
        let head: Vec<u8> = prefixes.iter().chain(&rex).chain(map).copied().collect();
        code[..head.len()].copy_from_slice(&head);
        for opcode in 0..=u8::MAX {
            for modrm in 0..=u8::MAX {
                code[head.len()] = opcode;
                code[head.len() + 1] = modrm;
                // A base that is none, an index that is none, a scaled one, and neither.
                for sib in [0x25, 0xe5, 0xca, 0x61]
                    .into_iter()
                    .take(if modrm & 7 == 4 { 4 } else { 1 })
                {
                    code[head.len() + 2] = sib;
                    known += usize::from(agrees(&code));
                }
            }
        }
    }
    known
}

#[test]
fn every_opcode_is_what_the_decoder_says() {
    let prefixes: &[&[u8]] = &[
        &[],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0xf0],
        &[0x64],
        &[0x65],
        &[0x2e],
        &[0x3e],
        &[0x26],
        &[0x36],
        &[0x67],
        &[0x66, 0xf2],
        &[0xf3, 0x66],
        &[0x66, 0x66],
        &[0x66, 0x2e],
        &[0xf2, 0xf3],
        &[0xf0, 0x66],
        &[0x66, 0xf0],
        &[0xf3, 0xf0],
        &[0x64, 0x66],
        &[0xf3, 0x65],
        &[0x64, 0x2e],
        &[0xf0, 0x65],
        &[0x66, 0x66, 0x66, 0x66, 0x66, 0x2e],
        &[0xf3, 0xf3],
        &[0xf0, 0xf0],
    ];
    let mut known = 0;
    for prefix in prefixes {
        let some = [None, Some(0x48), Some(0x41), Some(0x4f), Some(0x42)];
        for rex in some {
            known += all_opcodes(prefix, rex);
        }
    }
    for rex in 0x40..=0x4f {
        known += all_opcodes(&[], Some(rex));
        known += all_opcodes(&[0x66], Some(rex));
    }
    // The test would pass if nothing were known.
    assert!(known > 2_000_000, "{known} are known");
}

#[test]
fn every_address_form_is_what_the_decoder_says() {
    // mov, lea, movsxd, mov of a number, add of one, jump through a table, and with a prefix.
    let opcodes: &[&[u8]] = &[
        &[0x8b],
        &[0x8d],
        &[0x63],
        &[0xc7],
        &[0x81],
        &[0xff],
        &[0x0f, 0x10],
        &[0x64, 0x8b],
    ];
    for opcode in opcodes {
        for rex in [None].into_iter().chain((0x40..=0x4f).map(Some)) {
            let (prefix, opcode) = match opcode {
                [0x64, rest @ ..] => (Some(0x64), rest),
                all => (None, *all),
            };
            let head: Vec<u8> = prefix
                .into_iter()
                .chain(rex)
                .chain(opcode.iter().copied())
                .collect();
            for modrm in 0..=u8::MAX {
                for sib in 0..=u8::MAX {
                    let mut code = [0xe7; 16];
                    code[..head.len()].copy_from_slice(&head);
                    code[head.len()] = modrm;
                    code[head.len() + 1] = sib;
                    agrees(&code);
                }
            }
        }
    }
}

/// Any image at fixed addresses will do for code that is none of its own.
fn fixed_image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| image(&fixed_program()))
}

/// Bytes without a pattern, the same in every run.
fn chance(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    }
}

/// Numbers at both ends of where addresses are, in every form that has some.
#[test]
fn a_number_is_passed_over_only_where_it_is_no_address() {
    let ends = [0x40_0000u32, 0x50_0000];
    let numbers = ends.into_iter().flat_map(|end| [end - 1, end, end + 1]);
    let mut passed = 0;
    for number in numbers.chain([0, u32::MAX, 1 << 31, 0xffc0_0000]) {
        let near = few().holds(number.into());
        let number = number.to_le_bytes();
        for head in [
            &[0x8b, 0x80][..],
            &[0x49, 0x8b, 0x84, 0xcd],
            &[0x8d, 0x83],
            &[0xb8],
            &[0x41, 0xbf],
            &[0x68],
            &[0x48, 0xc7, 0x45, 0x08],
            &[0xc7, 0x45, 0x08],
            &[0x48, 0x81, 0xfb],
            &[0x48, 0x3d],
            &[0x0f, 0x1f, 0x84, 0x00],
        ] {
            let mut code = [0x90; 16];
            code[..head.len()].copy_from_slice(head);
            code[head.len()..head.len() + 4].copy_from_slice(&number);
            assert!(agrees(&code));
            let known = plain(&code, Some(few()));
            assert!(known.is_none() || !near, "{code:02x?}");
            passed += usize::from(known.is_some());
        }
        // Both numbers of one instruction.
        for (first, second) in [(number, [0; 4]), ([0; 4], number)] {
            let code = [&[0x48, 0xc7, 0x80][..], &first, &second, &[0x90; 5]].concat();
            let code: [u8; 16] = code.try_into().expect("sixteen");
            assert!(agrees(&code));
            assert!(plain(&code, Some(few())).is_none() || !near, "{code:02x?}");
        }
    }
    assert!(passed >= 60, "{passed} are passed over");
}

#[test]
fn chance_is_what_the_decoder_says() {
    for seed in 0..200_000 {
        let mut byte = chance(seed);
        let code: [u8; 16] = std::array::from_fn(|_| byte());
        agrees(&code);
        let mut padded = [0; 16];
        let short = usize::from(byte() % 15) + 1;
        padded[..short].copy_from_slice(&code[..short]);
        agrees(&padded);
    }
}

/// Also where an instruction is cut off, and where there is none.
#[test]
fn chance_is_walked_as_it_is_decoded() {
    let image = fixed_image();
    for seed in 0..50_000 {
        let mut byte = chance(seed);
        let length = byte() % 48;
        let code: Vec<u8> = (0..length).map(|_| byte()).collect();
        let lines = decode_all(image, LinkAddr(AT), &code);
        let mut next = lines.iter();
        walk(
            image,
            AddressSpan::of(image),
            LinkAddr(AT),
            &code,
            |step: &Step| {
                same(next.next().expect("as many"), step, AT);
            },
        );
        assert!(next.next().is_none(), "{code:02x?}");
    }
}

/// Code from a compiler, at fixed addresses and with the C library in it.
fn fixed_program() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("skim.c"), folder.join("skim"));
    static ONCE: OnceLock<()> = OnceLock::new();
    let text =
        "#include <stdio.h>\nint main(int n, char **a) { return printf(\"%d %s\", n, *a); }\n";
    ONCE.get_or_init(|| {
        std::fs::write(&source, text).expect("writable");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-no-pie", "-o"])
            .arg(&program)
            .arg(&source);
        assert!(cc.status().expect("there is a compiler").success());
    });
    program
}

/// The library that is the Rust compiler.
fn compiler() -> Vec<PathBuf> {
    let rustc = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc");
    let root = String::from_utf8(rustc.stdout).expect("a path");
    let folder = Path::new(root.trim()).join("lib");
    let files = std::fs::read_dir(folder).expect("libraries");
    let files = files.map(|file| file.expect("readable").path());
    let name = |path: &PathBuf| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    files
        .filter(|path| name(path).starts_with("librustc_driver-"))
        .collect()
}

fn programs() -> Vec<PathBuf> {
    let libc = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let libc = libc.lines().find(|line| line.ends_with("/libc.so.6"));
    let libc = libc
        .and_then(|line| line.split_whitespace().last())
        .expect("libc");
    let own = std::env::current_exe().expect("a path");
    vec![own, fixed_program(), PathBuf::from(libc)]
}

fn image(path: &Path) -> Image {
    let bytes: Arc<[u8]> = std::fs::read(path).expect("readable").into();
    Image::parse(bytes, None).expect("an image")
}

#[test]
fn whole_programs_are_walked_as_they_are_decoded() {
    let mut fixed = 0;
    for path in programs() {
        let image = image(&path);
        let mut absolute = 0;
        for section in image
            .sections
            .iter()
            .filter(|s| s.kind == SectionKind::Text)
        {
            let bytes = image.section_bytes(section);
            let lines = decode_all(&image, section.range.start, bytes);
            let mut next = lines.iter();
            let addresses = AddressSpan::of(&image);
            walk(
                &image,
                addresses,
                section.range.start,
                bytes,
                |step: &Step| {
                    let line = next.next().expect("as many");
                    absolute += usize::from(step.immediate.is_some());
                    same(line, step, section.range.start.0);
                },
            );
            assert!(next.next().is_none(), "{}", path.display());
        }
        if image.link == Link::Fixed {
            assert!(absolute > 100, "{absolute} numbers are addresses");
            fixed += 1;
        }
    }
    assert_eq!(fixed, 1);
}

fn same(line: &Line, step: &Step, start: u64) {
    let what = |of: Option<Reference>| of.map(|r| (r.kind, r.offset, r.width, r.target));
    assert_eq!(line.at().0, start + step.start as u64);
    assert_eq!(
        line.end().0,
        line.at().0 + u64::from(step.skim.len),
        "at {}",
        line.at()
    );
    assert_eq!(what(line.address), what(step.address), "at {}", line.at());
    assert_eq!(
        what(line.immediate),
        what(step.immediate),
        "at {}",
        line.at()
    );
    let code = line.instruction.code() != iced_x86::Code::DeclareByte;
    assert_eq!(
        code,
        !step.skim.traits.has(Traits::DATA),
        "at {}",
        line.at()
    );
    if code {
        assert_eq!(
            line.is_padding(),
            step.skim.traits.has(Traits::PADDING),
            "at {}",
            line.at()
        );
        assert_eq!(
            line.ends_flow(),
            step.skim.traits.has(Traits::ENDS),
            "at {}",
            line.at()
        );
        assert_eq!(
            line.is_call(),
            step.skim.traits.has(Traits::CALL),
            "at {}",
            line.at()
        );
    }
}

/// The compiler itself: a hundred million bytes of code that LLVM made, looked at from every
/// byte on, so that what stands in the middle of instructions is tried as well.
#[test]
fn the_compiler_is_what_the_decoder_says() {
    let (mut known, mut all) = (0, 0);
    for path in compiler() {
        let image = image(&path);
        for section in image
            .sections
            .iter()
            .filter(|s| s.kind == SectionKind::Text)
        {
            let bytes = image.section_bytes(section);
            let mut at = 0;
            while let Some(code) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
                let own = agrees(code);
                known += usize::from(own);
                all += 1;
                // Every third chance the next byte, otherwise the next instruction.
                let length = if all % 3 == 0 { None } else { skim(code) };
                at += length.map_or(1, |skim| usize::from(skim.len));
            }
        }
    }
    assert!(all > 10_000_000, "{all} places");
    assert!(known * 10 > all * 8, "{known} of {all} are known");
}
