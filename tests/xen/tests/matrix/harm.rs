//! Payloads that Xen takes and does harm with: X49–X68. Each is refused. A sample is shown to
//! crash a hypervisor; all were, where [`Seen`] says so.

use invivo_format::livepatch::{Moment, New, Rule};
use invivo_image::BuildId;

use crate::base::{Case, QUIET, Xen, file};
use crate::draft::Draft;

const FUNCS: &str = ".livepatch.funcs";
const RELOCATIONS: &str = ".rela.livepatch.funcs";

/// What is seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The hypervisor crashes when it is uploaded.
    Upload,
    /// When it is applied.
    Apply,
    /// When the function is called, at the latest when the payload is gone.
    Call,
    /// Nothing that could be told from outside, on the versions at hand.
    Nothing,
}

pub(crate) fn cases(xen: &Xen) -> Vec<(Case, Seen)> {
    let mut cases = Vec::new();
    let mut add = |name: &str, rule: Rule, seen: Seen, spoil: &dyn Fn(&mut Draft)| {
        cases.push((xen.spoil(name, rule, spoil), seen));
    };
    add("modinfo_empty", Rule::X49, Seen::Upload, &|d| {
        d.add(".modinfo", 2, &[]);
    });
    add("rel_info0", Rule::X50, Seen::Upload, &|d| {
        d.relocate(1, (0, 0, 1, 0));
        let part = d.part(".rela.text.new");
        part.info = 0;
    });
    add("old_addr_wrong", Rule::X51, Seen::Upload, &|d| {
        d.part(FUNCS).bytes[16..24].copy_from_slice(&0x1000_u64.to_le_bytes());
    });
    add("old_addr_inside", Rule::X51, Seen::Nothing, &|d| {
        let address = xen.find("xen_extra_version").address + 1;
        d.part(FUNCS).bytes[16..24].copy_from_slice(&address.to_le_bytes());
    });
    add("name_null", Rule::X52, Seen::Upload, &|d| {
        d.part(RELOCATIONS).bytes.drain(..24);
    });
    add("init_function", Rule::X53, Seen::Upload, &|d| {
        old(d, "__start_xen", 100)
    });
    add("sec_align0", Rule::X54, Seen::Call, &|d| {
        let number = d.add(".text.over", 6, &[0x0f, 0x0b, 0x0f, 0x0b]);
        d.parts[usize::from(number) - 1].align = 0;
    });
    for size in [0, 1, 2, 3, 4] {
        let seen = if size == 4 {
            Seen::Nothing
        } else {
            Seen::Apply
        };
        add(&format!("nop{size}_endbr"), Rule::X55, seen, &|d| {
            old(d, QUIET, 40);
            nop(d, size);
        });
    }
    for moment in [Moment::Load, Moment::Unload] {
        let seen = if moment == Moment::Load {
            Seen::Apply
        } else {
            Seen::Call
        };
        add(&format!("null_{moment:?}"), Rule::X56, seen, &|d| {
            d.add(moment.section(), 2, &[0; 8]);
        });
    }
    add("new_in_constants", Rule::X57, Seen::Call, &|d| {
        d.symbols.iter_mut().for_each(|symbol| symbol.name.clear());
        let constants = d.number(".rodata.new");
        let symbol = d.add_symbol("", constants, 0);
        d.part(RELOCATIONS).bytes.truncate(24);
        let funcs = d.number(FUNCS);
        d.relocate(funcs, (8, 1, symbol, 0));
    });
    add("hook_in_constants", Rule::X57, Seen::Apply, &|d| {
        hook(d, Moment::Load, ".rodata.new", 0)
    });
    add("apply_hook", Rule::X58, Seen::Apply, &|d| {
        hook(d, Moment::Apply, ".text.new", 8)
    });
    add("revert_hook", Rule::X58, Seen::Call, &|d| {
        hook(d, Moment::Revert, ".text.new", 8)
    });
    add("function_twice", Rule::X59, Seen::Call, &|d| {
        let (funcs, names) = (d.number(FUNCS), d.number(".livepatch.names"));
        let one = d.part(FUNCS).bytes.clone();
        d.part(FUNCS).bytes.extend(one);
        let names = d.add_symbol("", names, 0);
        d.relocate(funcs, (104, 1, names, 0));
        d.relocate(funcs, (112, 1, 3, 0));
    });
    add("nop_to_the_end", Rule::X61, Seen::Nothing, &|d| nop(d, 12));
    for name in [
        FUNCS,
        ".livepatch.depends",
        ".note.gnu.build-id",
        ".livepatch.xen_depends",
    ] {
        add(&format!("unloaded_{name}"), Rule::X62, Seen::Upload, &|d| {
            d.part(name).flags = 0
        });
    }
    add("unloaded_modinfo", Rule::X62, Seen::Upload, &|d| {
        d.add(".modinfo", 0, b"a=1\0");
    });
    add("unloaded_hook", Rule::X62, Seen::Apply, &|d| {
        hook(d, Moment::Load, ".text.new", 8);
        d.part(Moment::Load.section()).flags = 0;
    });
    add("size_wraps", Rule::X63, Seen::Upload, &|d| {
        d.part(".rodata.new").size = Some(u64::MAX - 100)
    });
    add("strings_are_0", Rule::X63, Seen::Upload, &|d| {
        d.add("table", 0, &[0; 24]);
        let part = d.part("table");
        (part.kind, part.entry_size, part.link) = (crate::draft::SYMTAB, 24, Some(0));
    });
    add("sec_align8192", Rule::X64, Seen::Nothing, &|d| {
        d.part(".rodata.new").align = 8192
    });
    // Xen 4.20 refuses these.
    add("alt_too_long", Rule::X65, Seen::Upload, &|d| {
        alternative(d, [2, 3, 0], 0)
    });
    add("alt_no_feature", Rule::X66, Seen::Upload, &|d| {
        alternative(d, [3, 3, 0], 0x4000)
    });
    add("alt_both", Rule::X65, Seen::Upload, &|d| {
        alternative(d, [2, 3, 0], 0x4000)
    });
    // Later versions have their state elsewhere.
    if xen.version.to_string() == "4.17" {
        add("funcs_read_only", Rule::X60, Seen::Nothing, &|d| {
            d.part(FUNCS).flags = 2
        });
        add("func_applied", Rule::X67, Seen::Nothing, &|d| {
            d.part(FUNCS).bytes[64] = 1
        });
    }
    cases.push((past(xen), Seen::Nothing));
    cases.push((over_the_next(xen), Seen::Nothing));
    cases
}

/// NOPs reach into the next function, which has an entry, too: after a revert they are still there.
fn over_the_next(xen: &Xen) -> Case {
    let names = [
        "xen_extra_version",
        "xen_changeset",
        "xen_banner",
        "xen_deny",
        "xen_compiler",
    ];
    let at = |name: &str| xen.find(name).address;
    let pairs = names
        .iter()
        .flat_map(|one| names.iter().map(move |other| (*one, *other)));
    let mut near = pairs.filter(|(one, other)| (at(one) + 1..at(one) + 20).contains(&at(other)));
    let (first, second) = near
        .next()
        .expect("the file of versions has them side by side");
    xen.change("nops_over_the_next", Rule::X59, |payload| {
        let [mut one, other] = [first, second].map(|name| xen.function(name));
        one.new = New::Nop { size: 20 };
        one.old_size = 31;
        payload.symbols[1].name.clear();
        payload.functions = vec![one, other];
    })
}

/// A function is replaced that an earlier payload's callers go past: nobody meets the jump.
fn past(xen: &Xen) -> Case {
    let below = file(&crate::models::spliced(xen));
    let id = xen_tests::hypervisor::build_id(&below);
    let mut case = xen.change("past", Rule::X68, |payload| {
        payload.depends = BuildId(id.unwrap_or_default());
    });
    case.before.push(below);
    case
}

fn old(draft: &mut Draft, name: &str, size: u32) {
    draft.part(".livepatch.names").bytes = [name.as_bytes(), b"\0"].concat();
    draft.part(FUNCS).bytes[28..32].copy_from_slice(&size.to_le_bytes());
}

fn nop(draft: &mut Draft, size: u32) {
    draft
        .symbols
        .iter_mut()
        .for_each(|symbol| symbol.name.clear());
    draft.part(RELOCATIONS).bytes.truncate(24);
    draft.part(FUNCS).bytes[24..28].copy_from_slice(&size.to_le_bytes());
}

fn hook(draft: &mut Draft, moment: Moment, section: &str, at: i64) {
    let hooks = draft.add(moment.section(), 2, &[0; 8]);
    let section = draft.number(section);
    let code = draft.add_symbol("", section, 0);
    draft.relocate(hooks, (0, 1, code, at));
}

fn alternative(draft: &mut Draft, lengths: [u8; 3], feature: u16) {
    let mut bytes = [0; 14];
    bytes[8..10].copy_from_slice(&feature.to_le_bytes());
    bytes[10..13].copy_from_slice(&lengths);
    let table = draft.add(".altinstructions", 2, &bytes);
    let replacement = draft.add(".altinstr_replacement", 6, &[0x0f, 0x1f, 0]);
    let text = draft.add(".text.altered", 6, &[0x90, 0x90, 0x90, 0xc3]);
    let (text, replacement) = (
        draft.add_symbol("", text, 0),
        draft.add_symbol("", replacement, 0),
    );
    draft.relocate(table, (0, 2, text, 0));
    draft.relocate(table, (4, 2, replacement, 0));
}

/// What is shown on one of the versions in each run of the tests, so that all of it takes seconds.
pub(crate) fn sample(version: &str) -> &'static [&'static str] {
    match version {
        "4.17" => &[
            "modinfo_empty",
            "old_addr_wrong",
            "null_Load",
            "apply_hook",
            "unloaded_.livepatch.funcs",
            "alt_too_long",
        ],
        _ => &[
            "rel_info0",
            "nop0_endbr",
            "new_in_constants",
            "function_twice",
            "size_wraps",
        ],
    }
}
