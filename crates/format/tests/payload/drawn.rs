//! Arbitrary payloads that keep the model.

use invivo_format::livepatch::{
    Access, Contents, Expectation, Function, Hook, Moment, New, Old, Payload, Reference,
    Relocation, RelocationKind, Section, StructureVersion, Symbol, SymbolPlace,
};
use invivo_image::BuildId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

const NAME: &str = "[a-zA-Z_.][a-zA-Z0-9_./#@]{0,20}";

fn section() -> impl Strategy<Value = Section> {
    let access = prop_oneof![
        Just(Access::Code),
        Just(Access::ReadOnly),
        Just(Access::Data)
    ];
    let contents = prop_oneof![
        4 => vec(any::<u8>(), 0..80).prop_map(Contents::Bytes),
        1 => (0u64..5000).prop_map(Contents::Zeros),
    ];
    let name = "(\\.text|\\.rodata|\\.data|\\.altinstructions|\\.ex_table)[.a-z0-9]{0,9}";
    (name, access, 0u32..=12, contents).prop_map(|(name, access, align, contents)| Section {
        name,
        access,
        align: 1 << align,
        contents,
        relocations: Vec::new(),
    })
}

fn symbol(sections: u32) -> impl Strategy<Value = Symbol> {
    let own = (0..sections, any::<u64>(), any::<u64>());
    let place = own.prop_map(|(section, offset, size)| SymbolPlace::Section {
        section,
        offset,
        size,
    });
    let own = (
        prop_oneof![Just(String::new()), NAME.prop_map(String::from)],
        place,
    );
    let xen = (NAME.prop_map(String::from), Just(SymbolPlace::Xen));
    prop_oneof![own, xen].prop_map(|(name, place)| Symbol { name, place })
}

fn reference(symbols: u32) -> impl Strategy<Value = Reference> {
    (0..symbols, any::<i64>()).prop_map(|(symbol, addend)| Reference { symbol, addend })
}

type RawRelocation = (Index, Index, RelocationKind, Reference);

fn relocation(symbols: u32) -> impl Strategy<Value = RawRelocation> {
    let kind = prop_oneof![
        Just(RelocationKind::Absolute64),
        Just(RelocationKind::Relative32),
        Just(RelocationKind::Call32)
    ];
    (any::<Index>(), any::<Index>(), kind, reference(symbols))
}

/// What [`payload`] makes functions and hooks of. Symbol 0 is code of 64 bytes.
fn function(symbols: u32) -> impl Strategy<Value = Function> {
    let code = Reference {
        symbol: 0,
        addend: 0,
    };
    let new = prop_oneof![
        any::<u32>().prop_map(move |size| New::Code { code, size }),
        (0u32..=31).prop_map(|size| New::Nop { size })
    ];
    let old = prop_oneof![
        Just(Old::Name),
        (1..=u64::MAX).prop_map(Old::Address),
        reference(symbols).prop_map(Old::Symbol)
    ];
    let expectation = option::of(vec(any::<u8>(), 1..=31).prop_map(Expectation::new));
    (new, old, 31..=u32::MAX, expectation).prop_map(|(new, old, old_size, expectation)| Function {
        name: String::new(),
        new,
        old,
        old_size,
        expectation: expectation.flatten(),
    })
}

fn hooks() -> impl Strategy<Value = Vec<Hook>> {
    let moment = proptest::sample::subsequence(Moment::ALL.to_vec(), 0..=8);
    (moment, 1usize..3).prop_map(|(moments, several)| {
        let code = Reference {
            symbol: 0,
            addend: 8,
        };
        let count = |moment: &Moment| if moment.is_list() { several } else { 1 };
        let hooks = moments
            .iter()
            .flat_map(|m| std::iter::repeat_n(*m, count(m)));
        hooks.map(|moment| Hook { moment, code }).collect()
    })
}

/// Arbitrary payloads, in the order of a file.
pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    let sections = vec(section(), 0..5);
    let parts = sections.prop_flat_map(|mut sections| {
        sections.insert(
            0,
            Section {
                name: ".text".to_owned(),
                access: Access::Code,
                align: 16,
                contents: Contents::Bytes(vec![0xcc; 64]),
                relocations: Vec::new(),
            },
        );
        let count = sections.len() as u32;
        (Just(sections), vec(symbol(count), 0..6))
    });
    let parts = parts.prop_flat_map(|(sections, mut symbols)| {
        let place = SymbolPlace::Section {
            section: 0,
            offset: 0,
            size: 64,
        };
        let name = String::new();
        symbols.insert(0, Symbol { name, place });
        let count = symbols.len() as u32;
        let functions = vec(function(count), 1..4);
        let relocations = vec(relocation(count), 0..8);
        (
            Just(sections),
            Just(symbols),
            functions,
            relocations,
            hooks(),
        )
    });
    let ids = (
        vec(any::<u8>(), 1..=64),
        option::of(vec(any::<u8>(), 1..=64)),
    );
    let modinfo = vec("[a-z=]{0,9}", 0..3);
    let made = (parts, ids, modinfo).prop_map(
        |((sections, symbols, functions, raw, hooks), ids, modinfo)| {
            let mut payload = Payload {
                version: match ids.1 {
                    Some(_) => StructureVersion::V2,
                    None => StructureVersion::V1,
                },
                functions,
                hooks,
                sections,
                symbols,
                depends: BuildId(ids.0),
                xen_depends: ids.1.map(BuildId),
                modinfo,
            };
            for (number, function) in payload.functions.iter_mut().enumerate() {
                function.name = format!("f{number}");
                if payload.version == StructureVersion::V1 {
                    function.expectation = None;
                }
            }
            payload
                .hooks
                .retain(|hook| !matches!(hook.moment, Moment::Apply | Moment::Revert));
            for (section, offset, kind, to) in raw {
                let section = section.get(&payload.sections).clone();
                let place = payload.sections.iter().position(|other| *other == section);
                let room = section.contents.size().checked_sub(kind.width());
                if let (Contents::Bytes(_), Some(place), Some(room)) =
                    (&section.contents, place, room)
                {
                    let offset = offset.index(room as usize + 1) as u64;
                    let relocation = Relocation { offset, kind, to };
                    payload.sections[place].relocations.push(relocation);
                }
            }
            payload.normalize();
            payload
        },
    );
    made.boxed()
}
