//! An image of three functions in memory, and patches for it, made by hand.
#![allow(dead_code, reason = "each program of tests uses a part of it")]

use std::time::Duration;

use invivo_apply::{Consistency, MemoryTarget, Options, Outcome, Target, apply};
use invivo_image::{LinkAddr, LiveAddr, Machine, Rva};
use invivo_patch::{
    Check, Contents, Direction, Entry, Hex, Identity, Order, Patch, Redirect, Section, SectionKind,
    Step, Symbol, SymbolPlace, TargetImage,
};
use sha2::{Digest as _, Sha256};

/// Where the image is.
pub(crate) const START: LiveAddr = LiveAddr(0x5555_0000_0000);
/// Its size: a page that tells which image it is, and two of code, so that hooks of one patch lie on both.
const SIZE: usize = 0x3000;
const BUILD_ID: [u8; 20] = [0xab; 20];

/// A function of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) at: u64,
    code: &'static [u8],
}

/// mov eax, 1; ret
pub(crate) const ONE: Function = Function {
    name: "one",
    at: 0x1100,
    code: &[0xb8, 1, 0, 0, 0, 0xc3],
};
/// xor eax, eax; ret: it needs the padding before it.
pub(crate) const TWO: Function = Function {
    name: "two",
    at: 0x1200,
    code: &[0x31, 0xc0, 0xc3],
};
/// push rbx; mov rdi, rsi; mov eax, 3; pop rbx; ret: several instructions must go.
pub(crate) const TORN: Function = Function {
    name: "torn",
    at: 0x2100,
    code: &[0x53, 0x48, 0x89, 0xf7, 0xb8, 3, 0, 0, 0, 0x5b, 0xc3],
};
/// mov eax, 4; ret
pub(crate) const FAR: Function = Function {
    name: "far",
    at: 0x2200,
    code: &[0xb8, 4, 0, 0, 0, 0xc3],
};

/// xor eax, eax; ret: its padding is on the page before it.
pub(crate) const EDGE: Function = Function {
    name: "edge",
    at: 0x2000,
    code: &[0x31, 0xc0, 0xc3],
};

fn image() -> Vec<u8> {
    let mut bytes = vec![0xcc; SIZE];
    for function in [ONE, TWO, EDGE, TORN, FAR] {
        let at = usize::try_from(function.at).expect("small");
        bytes[at - 16..at].fill(0x90);
        bytes[at..at + function.code.len()].copy_from_slice(function.code);
    }
    bytes
}

/// By how much everything lies higher in the other image.
const HIGHER: u64 = 0x40;
const OTHER_ID: [u8; 20] = [0xcd; 20];

/// Lets the image be closed, and another build be loaded in its place.
pub(crate) fn exchange_image(target: &mut MemoryTarget) {
    target.close(START);
    let mut bytes = image();
    bytes.rotate_right(usize::try_from(HIGHER).expect("small"));
    target.load(&OTHER_ID, START, &bytes);
}

/// The same patch for the other build.
pub(crate) fn for_other_image(mut made: Made) -> Made {
    made.patch.target.build_id = Hex(OTHER_ID.to_vec());
    for redirect in &mut made.patch.redirects {
        redirect.at = Rva(redirect.at.0 + HIGHER);
    }
    for check in &mut made.patch.checks {
        check.at = Rva(check.at.0 + HIGHER);
    }
    made.patch.validate().expect("a valid patch");
    made
}

/// A target with the image loaded.
pub(crate) fn target() -> MemoryTarget {
    let mut target = MemoryTarget::default();
    target.load(&BUILD_ID, START, &image());
    target
}

/// The image's bytes as they are now.
pub(crate) fn bytes_of(target: &MemoryTarget) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    target.read(START, &mut bytes).expect("the image is there");
    bytes
}

/// A patch with its digest.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) patch: Patch,
    pub(crate) id: Hex,
}

/// A patch that lets each of `functions` return `answer`.
pub(crate) fn patch(name: &str, sequence: u32, functions: &[Function], answer: u8) -> Made {
    let mut contents = Contents::default();
    let (mut redirects, mut checks) = (Vec::new(), Vec::new());
    for (number, function) in (0u32..).zip(functions) {
        contents.sections.push(Section {
            name: format!(".text.{}", function.name),
            kind: SectionKind::Text,
            align: 16,
            bytes: vec![0xb8, answer, 0, 0, 0, 0xc3],
            relocations: Vec::new(),
        });
        contents.symbols.push(Symbol {
            name: function.name.to_owned(),
            place: SymbolPlace::Patch {
                section: number,
                offset: 0,
                size: 6,
            },
        });
        let size = function.code.len() as u64;
        redirects.push(Redirect {
            direction: Direction::Forward,
            function: function.name.to_owned(),
            at: Rva(function.at),
            size,
            hooked: true,
            entry: Entry {
                clear: u32::try_from(size).expect("small"),
                // Only functions without a long instruction may use it.
                pads: if [TWO.name, EDGE.name].contains(&function.name) {
                    vec![(-16, 16)]
                } else {
                    Vec::new()
                },
                tail: 0,
                steps: Step::all(function.code),
                again: false,
            },
            replacement: number,
            cold: Vec::new(),
        });
        let sum = Sha256::digest(function.code);
        checks.push(Check {
            at: Rva(function.at),
            size,
            sha256: Hex(sum.to_vec()),
        });
    }
    let patch = Patch {
        identity: Identity {
            name: name.to_owned(),
            labels: Vec::new(),
            creator: "test".to_owned(),
        },
        target: TargetImage {
            file_name: "image".to_owned(),
            build_id: Hex(BUILD_ID.to_vec()),
            machine: Machine::X86_64,
            base: LinkAddr(0),
        },
        order: Order {
            sequence,
            quiescent: false,
            apart: Vec::new(),
            unshared: Vec::new(),
        },
        judgements: Vec::new(),
        callouts: Vec::new(),
        redirects,
        checks,
        contents,
    };
    patch.validate().expect("a valid patch");
    let id = Hex(Sha256::digest(format!("{name} {sequence} {answer}")).to_vec());
    Made { patch, id }
}

/// Does not wait for anybody.
pub(crate) fn options(consistency: Consistency) -> Options<'static> {
    Options {
        consistency,
        timeout: Duration::ZERO,
        search: None,
        applied_by: "test".to_owned(),
        interrupted: None,
        waiting: None,
        steps: None,
    }
}

/// Applies with `entry` consistency; it must work.
pub(crate) fn must_apply(target: &mut MemoryTarget, made: &Made) -> Outcome {
    apply(target, &made.patch, &made.id, &options(Consistency::Entry)).expect("it applies")
}

/// A target in which `made` is live, and the bytes of its image.
pub(crate) fn applied(made: &Made) -> (MemoryTarget, Vec<u8>) {
    let mut target = target();
    must_apply(&mut target, made);
    let bytes = bytes_of(&target);
    (target, bytes)
}

/// Every hook of the image leads into memory that is there and filled.
pub(crate) fn hooks_lead_somewhere(target: &MemoryTarget, when: &str) {
    assert_eq!(lost_hooks(target), Ok(()), "{when}");
}

/// The same as an error, for checks that are expected to fail.
pub(crate) fn lost_hooks(target: &MemoryTarget) -> Result<(), String> {
    let bytes = bytes_of(target);
    for function in [ONE, TWO, TORN, FAR] {
        let offset = usize::try_from(function.at).expect("a small offset");
        let Some(leads) = target_of_hook(&bytes, offset) else {
            continue;
        };
        let mut code = [0; 6];
        let there = target.read(leads, &mut code);
        let is_new = there.is_ok() && code[0] == 0xb8 && code[5] == 0xc3;
        let name = function.name;
        if !is_new {
            return Err(format!("the hook of {name} leads to {code:x?}"));
        }
    }
    Ok(())
}

/// What each function of the image returns, where it or its hook leads to a constant.
pub(crate) fn answers(target: &MemoryTarget) -> [Option<u8>; 4] {
    let bytes = bytes_of(target);
    [ONE, TWO, TORN, FAR].map(|function| {
        let offset = usize::try_from(function.at).expect("a small offset");
        match target_of_hook(&bytes, offset) {
            Some(at) => {
                let mut code = [0; 6];
                target.read(at, &mut code).expect("a hook leads somewhere");
                Some(code[1])
            }
            None => {
                let constant = function.code.iter().position(|byte| *byte == 0xb8)?;
                Some(function.code[constant + 1])
            }
        }
    })
}

/// Where the hook at this place of the image leads, if there is one.
fn target_of_hook(bytes: &[u8], offset: usize) -> Option<LiveAddr> {
    let jump = |at: usize| {
        let raw: [u8; 4] = bytes[at + 1..at + 5].try_into().expect("four bytes");
        let next = START.0 + at as u64 + 5;
        let to = next.checked_add_signed(i64::from(i32::from_le_bytes(raw)));
        LiveAddr(to.expect("an address"))
    };
    match bytes[offset] {
        0xe9 => Some(jump(offset)),
        0xeb => {
            let distance = isize::from(bytes[offset + 1].cast_signed());
            Some(jump((offset + 2).wrapping_add_signed(distance)))
        }
        _ => None,
    }
}
