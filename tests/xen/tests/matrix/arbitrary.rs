//! The payloads of the writer's own property test, bound to a real hypervisor: what is drawn there goes
//! through its loader here, the same ones in each run.

use invivo_format::livepatch::{
    Contents, Expectation, New, Old, Payload, StructureVersion, SymbolPlace,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

use crate::base::{Case, Xen, file};
use crate::drawn;

const COUNT: usize = 250;

/// Functions that only tell something, which nobody asks for meanwhile.
const QUIET: [&str; 3] = ["xen_extra_version", "xen_compile_date", "xen_changeset"];
/// What symbols of Xen are called, in the place of what was drawn.
const NAMES: [&str; 3] = ["printk", "xen_compiler", "common/keyhandler.c#key_table"];

pub(crate) fn cases(xen: &Xen) -> Vec<Case> {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let drawn = (0..COUNT).map(|number| {
        let tree = drawn::payload().new_tree(&mut runner);
        let mut payload = tree.expect("nothing is filtered out").current();
        bind(&mut payload, xen, number);
        Case::new(&format!("drawn{number}"), None, file(&payload))
    });
    drawn.collect()
}

/// Makes a payload one for this hypervisor, which can be run there; each fourth keeps what it is for.
fn bind(payload: &mut Payload, xen: &Xen, number: usize) {
    payload.version = StructureVersion::V2;
    payload.depends = xen.id.clone();
    let other = payload
        .xen_depends
        .take()
        .filter(|_| number.is_multiple_of(4));
    payload.xen_depends = Some(other.unwrap_or_else(|| xen.id.clone()));
    // Every way into it returns 0: hooks begin at 8.
    let code = &mut payload.sections[0];
    code.relocations.clear();
    let mut bytes = vec![0xc3; 64];
    bytes[8..11].copy_from_slice(&[0x31, 0xc0, 0xc3]);
    code.contents = Contents::Bytes(bytes);
    for (symbol, drawn) in payload.symbols.iter_mut().zip(0..) {
        match &mut symbol.place {
            SymbolPlace::Xen => {
                // Of each fourth, names stay that Xen does not have.
                if number % 4 != 1 {
                    NAMES[(number + drawn) % NAMES.len()].clone_into(&mut symbol.name);
                }
            }
            SymbolPlace::Section { offset, size, .. } if number.is_multiple_of(2) => {
                *offset %= 64;
                *size %= 64;
            }
            SymbolPlace::Section { .. } => {}
        }
    }
    if number.is_multiple_of(2) {
        let sections = payload.sections.iter_mut();
        for relocation in sections.flat_map(|section| &mut section.relocations) {
            relocation.to.addend %= 1 << 20;
        }
    }
    for (function, name) in payload.functions.iter_mut().zip(QUIET) {
        let known = xen.find(name);
        name.clone_into(&mut function.name);
        match function.old {
            Old::Address(_) => function.old = Old::Address(known.address),
            Old::Symbol(_) => function.old = Old::Name,
            Old::Name => {}
        }
        if !number.is_multiple_of(5) {
            function.old_size = u32::try_from(known.size).unwrap_or(0);
        }
        if let New::Nop { size } = &mut function.new {
            *size = function.old_size.min(*size);
        }
        let expected = function.expectation.take();
        function.expectation = expected.and_then(|drawn| {
            let code = xen.known.code(known).unwrap_or_default();
            let bytes = if number.is_multiple_of(3) {
                drawn.bytes()
            } else {
                code
            };
            let most = code.len().min(function.old_size as usize);
            Expectation::new(bytes.iter().copied().take(most).collect())
        });
    }
    payload.normalize();
}
