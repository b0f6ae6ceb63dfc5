//! What our writer makes, in all its variety: Xen takes it all. And what Xen looks at when it
//! applies: X43–X48.

use invivo_format::livepatch::{
    Access, Contents, Expectation, Hook, Moment, New, Old, Payload, Reference, Relocation,
    RelocationKind, Rule, Section, Splice, StructureVersion, Symbol, SymbolPlace, splice,
};

use crate::base::{Case, QUIET, Xen, file};

const TARGET: &str = "xen_extra_version";

/// The sound payload, whose calls are redirected and whose function has no jump.
pub(crate) fn spliced(xen: &Xen) -> Payload {
    let mut payload = xen.payload();
    splice(&mut payload, &xen.known, &[Splice::Callers]).expect("it is only called");
    payload
}

pub(crate) fn cases(xen: &Xen) -> Vec<Case> {
    let target = xen.find(TARGET);
    let code = xen.known.code(target).expect("its code");
    let mut cases = vec![
        xen.change("plain", None, |_| {}),
        xen.change("old_by_address", None, |p| {
            p.functions[0].old = Old::Address(target.address)
        }),
        xen.change("old_by_symbol", None, |p| {
            p.functions[0].old = Old::Symbol(undefined(p, TARGET));
            p.functions[0].name = "any name".to_owned();
        }),
        xen.change("new_is_xens_own", None, |p| {
            let code = undefined(p, "xen_compile_date");
            p.functions[0].new = New::Code { code, size: 12 };
            p.symbols[1].name.clear();
        }),
        Case::new("spliced", None, file(&spliced(xen))),
        xen.change("spliced_other_code", Rule::X47, |p| {
            *p = spliced(xen);
            let last = p.functions.last_mut().expect("what is looked at");
            last.expectation = Expectation::new(vec![0xe8, 0, 0, 0, 0]);
        }),
        xen.change("modinfo_of_three", None, |p| {
            p.modinfo = ["a=1", "", "b"].map(str::to_owned).to_vec();
        }),
        xen.change("constant_zeros", None, |p| {
            p.sections.push(section(
                ".rodata.zeros",
                Access::ReadOnly,
                Contents::Zeros(5000),
            ));
        }),
        xen.change("writable", Rule::X43, |p| {
            p.sections
                .push(section(".data", Access::Data, Contents::Bytes(vec![1; 8])));
        }),
        xen.change("writable_zeros", Rule::X43, |p| {
            p.sections
                .push(section(".bss", Access::Data, Contents::Zeros(8)));
        }),
        xen.change("writable_empty", None, |p| {
            p.sections
                .push(section(".data", Access::Data, Contents::Bytes(Vec::new())));
        }),
        xen.change("all_relocations", None, |p| {
            let printk = undefined(p, "printk");
            let mut words = section(
                ".rodata.words",
                Access::ReadOnly,
                Contents::Bytes(vec![0; 16]),
            );
            let kinds = [
                RelocationKind::Absolute64,
                RelocationKind::Relative32,
                RelocationKind::Call32,
            ];
            for (kind, offset) in kinds.into_iter().zip([0, 8, 12]) {
                words.relocations.push(Relocation {
                    offset,
                    kind,
                    to: printk,
                });
            }
            p.sections.push(words);
        }),
        xen.change("version1", Rule::X14, |p| {
            p.version = StructureVersion::V1;
            p.xen_depends = None;
        }),
        xen.change("two_functions", None, |p| {
            p.functions.push(xen.function(QUIET))
        }),
        xen.change("nops", None, |p| {
            p.functions = vec![xen.function(QUIET)];
            p.functions[0].new = New::Nop { size: 12 };
            p.symbols[1].name.clear();
        }),
        xen.change("expected", None, |p| {
            p.functions[0].expectation = xen.known.expectation(target);
            assert!(p.functions[0].expectation.is_some());
        }),
        xen.change("exp_bad", Rule::X47, |p| {
            let mut bytes = code[..5].to_vec();
            bytes[4] ^= 1;
            p.functions[0].expectation = Expectation::new(bytes);
        }),
    ];
    cases.extend(expectations(xen, code));
    for moment in Moment::ALL {
        let around = !moment.is_list();
        if matches!(moment, Moment::Apply | Moment::Revert) {
            continue;
        }
        cases.push(xen.change(
            &format!("hook_at_{moment:?}"),
            around.then_some(Rule::X48),
            |p| {
                p.symbols.push(Symbol {
                    name: String::new(),
                    place: SymbolPlace::Section {
                        section: 0,
                        offset: 8,
                        size: 3,
                    },
                });
                let code = Reference {
                    symbol: 2,
                    addend: 0,
                };
                let count = if around { 1 } else { 3 };
                p.hooks
                    .extend(std::iter::repeat_n(Hook { moment, code }, count));
            },
        ));
    }
    cases
}

/// Spoiled expectations, which the writer does not write.
fn expectations(xen: &Xen, code: &[u8]) -> Vec<Case> {
    let expected = |name: &str, rule: Option<Rule>, header: u8, bytes: &[u8]| {
        xen.spoil(name, rule, |draft| {
            let function = &mut draft.part(".livepatch.funcs").bytes;
            function[72] = header;
            function[73..73 + bytes.len()].copy_from_slice(bytes);
        })
    };
    let length = |length: u8| 1 | length << 1;
    vec![
        expected("exp_disabled", None, 0xfe, &[0xcc; 31]),
        expected("exp_len0", None, length(0), &[0xcc; 31]),
        expected("exp_good", None, length(7), &code[..7]),
        expected("exp_rsv", Rule::X45.into(), length(7) | 0x80, &code[..7]),
        expected(
            "exp_rsv_low",
            Rule::X45.into(),
            length(7) | 0x40,
            &code[..7],
        ),
        expected(
            "exp_first_differs",
            Rule::X47.into(),
            length(1),
            &[!code[0]],
        ),
        expected("exp_len_gt_old", Rule::X46.into(), length(31), &[0; 31]),
    ]
}

fn section(name: &str, access: Access, contents: Contents) -> Section {
    Section {
        name: name.to_owned(),
        access,
        align: 8,
        contents,
        relocations: Vec::new(),
    }
}

fn undefined(payload: &mut Payload, name: &str) -> Reference {
    payload.symbols.push(Symbol {
        name: name.to_owned(),
        place: SymbolPlace::Xen,
    });
    Reference {
        symbol: payload.symbols.len() as u32 - 1,
        addend: 0,
    }
}
