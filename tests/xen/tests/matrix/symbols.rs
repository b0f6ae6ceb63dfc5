//! Symbols and relocations: X17–X24, X42.

use invivo_format::livepatch::{Rule, Symbol, SymbolPlace, Written};

use crate::base::{Case, Xen, written};
use crate::draft::{Draft, PROGBITS, Part, REL, RELA};

const STATIC: &str = "common/keyhandler.c#key_table";

pub(crate) fn cases(xen: &Xen) -> Vec<Case> {
    let mut cases = Vec::new();
    undefined(xen, &mut cases);
    names(xen, &mut cases);
    entries(xen, &mut cases);
    relocation_sections(xen, &mut cases);
    cases
}

fn undefined(xen: &Xen, cases: &mut Vec<Case>) {
    let symbols: &[(&str, Option<Rule>, &str, u16)] = &[
        ("und_known", None, "printk", 0),
        ("und_static_data", Some(Rule::X18), "key_table", 0),
        (
            "und_static_without_folder",
            Some(Rule::X18),
            "keyhandler.c#key_table",
            0,
        ),
        ("und_static_full", None, STATIC, 0),
        ("und_unknown", Some(Rule::X18), "no_such_symbol", 0),
        ("und_without_name", Some(Rule::X18), "", 0),
        ("sym_common", Some(Rule::X17), "common", 0xfff2),
        ("sym_abs", None, "absolute", 0xfff1),
        ("sym_reserved_shndx", Some(Rule::X19), "reserved", 0xff20),
        ("sym_xindex", Some(Rule::X19), "extended", 0xffff),
        ("sym_shndx_oob", Some(Rule::X20), "outside", 200),
    ];
    for (name, rule, symbol, section) in symbols {
        cases.push(xen.spoil(name, *rule, |draft| {
            draft.add_symbol(symbol, *section, 0);
        }));
    }
}

fn names(xen: &Xen, cases: &mut Vec<Case>) {
    let named = |name: &'static str| {
        move |draft: &mut Draft| {
            let number = draft.number(".rodata.new");
            draft.add_symbol(name, number, 0);
        }
    };
    cases.push(xen.spoil("sym_new", None, named("a_new_name")));
    cases.push(xen.spoil("sym_dup_of_xen", Rule::X42, named("printk")));
    cases.push(xen.spoil("sym_dup_of_static", Rule::X42, named(STATIC)));
    cases.push(xen.spoil("sym_bare_static", None, named("key_table")));
    cases.push(xen.spoil("sym_twice", None, |draft| {
        named("twice")(draft);
        named("twice")(draft);
    }));
    cases.push(
        xen.spoil("sym_label_unmerged_dup", Rule::X42, named(".LC0"))
            .after(other(xen, ".LC0")),
    );
    let label = xen.spoil("sym_label_merged_dup", None, |draft| {
        named(".LC0")(draft);
        draft.part(".rodata.new").flags |= 0x30;
    });
    cases.push(on_top(xen, label, ".LC0"));
    let not_loaded = xen.spoil("sym_not_loaded_dup", None, |draft| {
        let number = draft.add(".comment", 0, b"text");
        draft.add_symbol("printk", number, 0);
    });
    cases.push(not_loaded);
    cases.push(
        xen.spoil("symdup_payload", Rule::X42, named("mine"))
            .after(other(xen, "mine")),
    );
    cases.push(on_top(
        xen,
        xen.spoil("sym_of_payload", None, |draft| {
            draft.add_symbol("mine", 0, 0);
        }),
        "mine",
    ));
    let hidden = xen.spoil("sym_of_payload_gone", Rule::X18, |draft| {
        draft.add_symbol("other", 0, 0);
    });
    cases.push(hidden.after(other(xen, "mine")));
    // What our writer does about it: two payloads with the same names stack.
    for (name, dropped) in [("names_dropped", true), ("names_marked", false)] {
        let make = |mark: &str, depends| {
            let mut payload = xen.payload();
            payload.symbols[0].name = "__func__.2".to_owned();
            payload.modinfo.push(format!("mark={mark}"));
            payload.depends = depends;
            if dropped {
                payload.drop_names()
            } else {
                payload.mark_names(mark)
            }
            written(&payload)
        };
        let first = make("one", xen.id.clone());
        let second = make("two", first.id.clone());
        cases.push(Case::new(name, None, second.file).after(first.file));
    }
}

/// A payload that has a named constant.
fn other(xen: &Xen, name: &str) -> Vec<u8> {
    other_with_id(xen, name).file
}

fn other_with_id(xen: &Xen, name: &str) -> Written {
    let mut payload = xen.payload();
    payload.modinfo.push(format!("other={name}"));
    payload.symbols.push(Symbol {
        name: name.to_owned(),
        place: SymbolPlace::Section {
            section: 1,
            offset: 0,
            size: 1,
        },
    });
    written(&payload)
}

/// The case on top of [`other`], which it names as what it depends on.
fn on_top(xen: &Xen, case: Case, name: &str) -> Case {
    let before = other_with_id(xen, name);
    let mut draft = Draft::of(&case.file);
    draft.part(".livepatch.depends").bytes[16..36].copy_from_slice(&before.id.0);
    Case::new(&case.name, case.rule, draft.file()).after(before.file)
}

fn entries(xen: &Xen, cases: &mut Vec<Case>) {
    // Offset, type, symbol, addend; symbol 4 is undefined and known.
    type Entry = (u64, u32, u32, i64);
    let entries: &[(&str, Option<Rule>, Entry)] = &[
        ("rel_none", None, (0, 0, 1, 0)),
        ("rel_none_anywhere", None, (1 << 40, 0, 1, 0)),
        ("rel_64", None, (0, 1, 4, 0)),
        ("rel_pc32", None, (0, 2, 4, 0)),
        ("rel_plt32", None, (4, 4, 4, -4)),
        ("rel_GOT32", Some(Rule::X22), (0, 3, 4, 0)),
        ("rel_GOTPCREL", Some(Rule::X22), (0, 9, 4, 0)),
        ("rel_32", Some(Rule::X22), (0, 10, 4, 0)),
        ("rel_32S", Some(Rule::X22), (0, 11, 4, 0)),
        ("rel_16", Some(Rule::X22), (0, 12, 4, 0)),
        ("rel_PC64", Some(Rule::X22), (0, 24, 4, 0)),
        ("rel_GOTPCRELX", Some(Rule::X22), (0, 41, 4, 0)),
        ("rel_REX_GOTPCRELX", Some(Rule::X22), (0, 42, 4, 0)),
        ("rel_sym0", Some(Rule::X22), (0, 1, 0, 0)),
        ("rel_sym0_none", Some(Rule::X22), (0, 0, 0, 0)),
        ("rel_sym_oob", Some(Rule::X23), (0, 1, 100, 0)),
        ("rel_off_past_end", Some(Rule::X23), (16, 2, 4, 0)),
        ("rel_off_last_word", None, (12, 2, 4, 0)),
        ("rel_off_partly_past", Some(Rule::X23), (13, 2, 4, 0)),
        ("rel_64_partly_past", Some(Rule::X23), (9, 1, 4, 0)),
        ("rel_off_wraps", Some(Rule::X23), (u64::MAX - 1, 2, 4, 0)),
        ("rel_pc32_far", None, (0, 2, 4, 1 << 30)),
        ("rel_pc32_overflow", Some(Rule::X24), (0, 2, 4, 1 << 32)),
        ("rel_pc32_underflow", Some(Rule::X24), (0, 2, 4, -(1 << 32))),
        ("rel_plt32_overflow", Some(Rule::X24), (0, 4, 4, 1 << 32)),
    ];
    for (name, rule, entry) in entries {
        cases.push(xen.spoil(name, *rule, |draft| {
            let number = draft.add(".rodata.words", 2, &[0; 16]);
            draft.add_symbol("printk", 0, 0);
            draft.relocate(number, *entry);
        }));
    }
    let absolute = |name: &str, rule, value| {
        xen.spoil(name, rule, |draft| {
            let number = draft.add(".rodata.words", 2, &[0; 16]);
            let symbol = draft.add_symbol("number", 0xfff1, value);
            draft.relocate(number, (0, 2, symbol, 0));
        })
    };
    cases.push(absolute("rel_pc32_to_number", Some(Rule::X24), 0x1000));
    cases.push(absolute(
        "rel_pc32_to_near_number",
        None,
        0xffff_82d0_4020_0000,
    ));
    cases.push(xen.spoil("rel_vs_nonalloc_sec", Rule::X23, |draft| {
        let comment = draft.add(".comment", 0, b"text");
        let symbol = draft.add_symbol("", comment, 0);
        let number = draft.add(".rodata.words", 2, &[0; 16]);
        draft.relocate(number, (0, 1, symbol, 0));
    }));
}

fn relocation_sections(xen: &Xen, cases: &mut Vec<Case>) {
    let mut part = |name: &str, rule: Option<Rule>, spoil: fn(&mut Part)| {
        cases.push(xen.spoil(name, rule, |draft| {
            let number = draft.add(".rodata.words", 2, &[0; 16]);
            let symbol = draft.add_symbol("printk", 0, 0);
            draft.relocate(number, (0, 1, symbol, 0));
            spoil(draft.part(".rela.rodata.words"));
        }));
    };
    part("rel_link_bad", Some(Rule::X21), |p| p.link = Some(1));
    part("rel_link0", Some(Rule::X21), |p| p.link = Some(0));
    part("rel_entsize16", Some(Rule::X21), |p| p.entry_size = 16);
    part("rel_entsize0", Some(Rule::X21), |p| p.entry_size = 0);
    part("rel_odd", Some(Rule::X21), |p| p.bytes.push(0));
    part("rel_entsize32", None, |p| {
        p.entry_size = 32;
        p.bytes.extend([0xff; 8]);
    });
    part("rel_empty", None, |p| {
        p.bytes.clear();
        p.entry_size = 0;
    });
    part("rel_empty_unlinked", Some(Rule::X21), |p| {
        p.bytes.clear();
        p.link = Some(1);
    });
    part("rel_type_REL", Some(Rule::X22), |p| {
        p.kind = REL;
        p.entry_size = 16;
        p.bytes.truncate(16);
    });
    part("rel_type_REL_empty", None, |p| {
        p.kind = REL;
        p.bytes.clear();
    });
    part("rel_type_REL_entsize8", Some(Rule::X21), |p| {
        p.kind = REL;
        p.entry_size = 8;
        p.bytes.truncate(16);
    });
    part("rel_info_past", None, |p| {
        p.info = 200;
        p.bytes.fill(0xff);
    });
    part("rel_not_for_loader", None, |p| p.kind = PROGBITS);
    cases.push(xen.spoil("rel_for_unloaded", None, |draft| {
        let number = draft.add(".debug", 0, &[0; 16]);
        draft.relocate(number, (1 << 40, 99, 77, 0));
        assert_eq!(draft.part(".rela.debug").kind, RELA);
    }));
}
