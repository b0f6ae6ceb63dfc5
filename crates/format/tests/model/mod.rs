//! Arbitrary patches that keep every invariant of the model.

use invivo_image::{LinkAddr, Machine, Rva};
use invivo_patch::{
    Callout, Check, Contents, Direction, Entry, Hex, Identity, ImportVersion, Judgement, Moment,
    Order, Patch, Redirect, Relocation, RelocationKind, Rule, Section, SectionKind, Step, Symbol,
    SymbolPlace, TargetImage,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const NAME: &str = "[a-zA-Z_][a-zA-Z0-9_.$@ü]{0,20}";

/// One section without its relocations.
fn section() -> impl Strategy<Value = Section> {
    let kind = prop_oneof![
        Just(SectionKind::Text),
        Just(SectionKind::ReadOnly),
        Just(SectionKind::Unwind),
        Just(SectionKind::Data),
    ];
    (kind, NAME, 0u32..=12, vec(any::<u8>(), 0..80)).prop_map(|(kind, name, align, bytes)| {
        let name = match kind {
            SectionKind::Text => format!(".text.{name}"),
            SectionKind::ReadOnly => format!(".rodata.{name}"),
            SectionKind::Unwind => ".eh_frame".to_owned(),
            SectionKind::Data => format!(".data.{name}"),
        };
        Section {
            name,
            kind,
            align: 1 << align,
            bytes,
            relocations: Vec::new(),
        }
    })
}

/// Numbers from which a relocation is made once the sections and symbols are known.
type RawRelocation = (Index, Index, RelocationKind, Index, i64);

fn relocation() -> impl Strategy<Value = RawRelocation> {
    let kind = prop_oneof![
        Just(RelocationKind::Relative32),
        Just(RelocationKind::Absolute64),
        Just(RelocationKind::Absolute32),
        Just(RelocationKind::Absolute32Signed),
    ];
    (
        any::<Index>(),
        any::<Index>(),
        kind,
        any::<Index>(),
        any::<i64>(),
    )
}

/// Its own symbols: name, section, offset, size.
type RawSymbol = (String, Index, Index, Index);

fn symbol() -> impl Strategy<Value = RawSymbol> {
    let name = prop_oneof![1 => Just(String::new()), 4 => NAME];
    (name, any::<Index>(), any::<Index>(), any::<Index>())
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let pads = vec((-4096i64..=4096, 0u32..=4096), 0..3);
    let facts = (
        NAME,
        1u64..5000,
        any::<Index>(),
        pads,
        0u32..=4096,
        any::<bool>(),
    );
    let cold = vec((any::<u64>().prop_map(Rva), any::<u64>()), 0..3);
    let code = vec(any::<u8>(), 0..40);
    let rest = (cold, code);
    (facts, rest).prop_map(
        |((function, size, clear, pads, tail, hooked), (cold, code))| {
            let clear = clear.index(usize::try_from(size).expect("small") + 1);
            Redirect {
                direction: Direction::Forward,
                function,
                at: Rva(0),
                size,
                hooked,
                entry: Entry {
                    clear: u32::try_from(clear).expect("small"),
                    pads,
                    tail,
                    steps: Step::all(
                        &code[..code.len().min(usize::try_from(size).expect("small"))],
                    ),
                    again: size % 2 == 1,
                },
                replacement: 0,
                cold,
            }
        },
    )
}

fn identity() -> impl Strategy<Value = Identity> {
    let labels = vec("[A-Z]{3}-[0-9]{4}-[0-9]{1,5}", 0..4);
    ("[^\\p{Cc}]{1,40}", labels, ".{0,20}").prop_map(|(name, labels, creator)| Identity {
        name,
        labels,
        creator,
    })
}

fn target() -> impl Strategy<Value = TargetImage> {
    let build_id = vec(any::<u8>(), 1..=64);
    (".{0,30}", build_id, any::<u64>()).prop_map(|(file_name, build_id, base)| TargetImage {
        file_name,
        build_id: Hex(build_id),
        machine: Machine::X86_64,
        base: LinkAddr(base),
    })
}

fn contents() -> impl Strategy<Value = Contents> {
    let bindings = vec((NAME, any::<u64>()), 0..5);
    let version = proptest::option::of((".{0,20}", ".{0,20}"));
    let imports = vec((NAME, version), 0..3);
    (
        vec(section(), 0..6),
        vec(symbol(), 0..6),
        (bindings, imports),
        vec(relocation(), 0..12),
    )
        .prop_map(
            |(mut sections, symbols, (bindings, imports), relocations)| {
                // The first section and symbol are code, so that a redirect has somewhere to lead.
                sections.insert(0, code());
                let place = SymbolPlace::Patch {
                    section: 0,
                    offset: 0,
                    size: 6,
                };
                let mut all = vec![Symbol {
                    name: "first".to_owned(),
                    place,
                }];
                all.extend(symbols.into_iter().map(|raw| own(&sections, raw)));
                all.extend(bindings.into_iter().map(|(name, at)| Symbol {
                    name,
                    place: SymbolPlace::Base(Rva(at)),
                }));
                all.extend(imports.into_iter().map(|(name, version)| Symbol {
                    name,
                    place: SymbolPlace::Import(
                        version.map(|(version, library)| ImportVersion { version, library }),
                    ),
                }));
                for raw in relocations {
                    relocate(&mut sections, all.len(), raw);
                }
                Contents {
                    sections,
                    symbols: all,
                }
            },
        )
}

fn code() -> Section {
    Section {
        name: ".text.first".to_owned(),
        kind: SectionKind::Text,
        align: 16,
        bytes: vec![0xb8, 1, 0, 0, 0, 0xc3],
        relocations: Vec::new(),
    }
}

fn own(sections: &[Section], (name, section, offset, size): RawSymbol) -> Symbol {
    let section = section.index(sections.len());
    let room = sections[section].bytes.len();
    let offset = offset.index(room + 1);
    let size = size.index(room - offset + 1);
    let place = SymbolPlace::Patch {
        section: u32::try_from(section).expect("few sections"),
        offset: offset as u64,
        size: size as u64,
    };
    Symbol { name, place }
}

fn relocate(
    sections: &mut [Section],
    symbols: usize,
    (section, offset, kind, symbol, addend): RawRelocation,
) {
    let section = section.index(sections.len());
    let section = &mut sections[section];
    let Some(last) = section.bytes.len().checked_sub(kind.width()) else {
        return;
    };
    section.relocations.push(Relocation {
        offset: offset.index(last + 1) as u64,
        kind,
        symbol: u32::try_from(symbol.index(symbols)).expect("few symbols"),
        addend,
    });
}

fn judgement() -> impl Strategy<Value = Judgement> {
    (any::<Index>(), NAME, NAME).prop_map(|(rule, name, because)| Judgement {
        rule: *rule.get(&Rule::ALL),
        name,
        because,
    })
}

/// Any patch that keeps the invariants.
pub(crate) fn patch() -> impl Strategy<Value = Patch> {
    let redirects = vec(redirect(), 1..5);
    let checks = vec((any::<u64>(), 0u64..100_000, any::<[u8; 32]>()), 0..4);
    (
        identity(),
        target(),
        (any::<u32>(), vec(judgement(), 0..3)),
        contents(),
        redirects,
        checks,
    )
        .prop_map(
            |(identity, target, (sequence, judgements), contents, mut redirects, checks)| {
                let mut checks: Vec<Check> = checks
                    .into_iter()
                    .map(|(at, size, sum)| Check {
                        at: Rva(at),
                        size,
                        sha256: Hex(sum.to_vec()),
                    })
                    .collect();
                redirects[0].hooked = true;
                for (redirect, at) in redirects.iter_mut().zip((0x1000..).step_by(0x2000)) {
                    redirect.at = Rva(at);
                    checks.push(Check {
                        at: redirect.at,
                        size: redirect.size,
                        sha256: Hex(vec![7; 32]),
                    });
                }
                let order = Order {
                    sequence,
                    quiescent: sequence % 2 == 1,
                    apart: (0..sequence % 2).map(|n| format!("apart{n}")).collect(),
                    unshared: (0..sequence % 3).map(|n| format!("symbol{n}")).collect(),
                };
                // Up to four, in the order that the sequence number says.
                let moments = Moment::ALL.into_iter().skip(sequence as usize % 5);
                let callouts = moments.map(|moment| Callout {
                    moment,
                    function: format!("call_{moment}"),
                    symbol: 0,
                });
                Patch {
                    callouts: callouts.collect(),
                    identity,
                    target,
                    order,
                    judgements,
                    redirects,
                    checks,
                    contents,
                }
            },
        )
}
