//! What is replaced, hooks, build ids, special sections: X14, X25–X41.

use invivo_format::livepatch::{Moment, Rule, has_endbr};

use crate::base::{Case, QUIET, Xen, file, written};
use crate::draft::{Draft, RELA};

const FUNCS: &str = ".livepatch.funcs";
const NEW_SIZE: usize = 24;
const OLD_SIZE: usize = 28;
const VERSION: usize = 32;

pub(crate) fn cases(xen: &Xen) -> Vec<Case> {
    let mut cases = Vec::new();
    functions(xen, &mut cases);
    nops(xen, &mut cases);
    hooks(xen, &mut cases);
    notes(xen, &mut cases);
    records(xen, &mut cases);
    alternatives(xen, &mut cases);
    cases
}

/// Sets a number of 32 bits in the only function.
fn field(at: usize, value: u32) -> impl Fn(&mut Draft) {
    move |draft| draft.part(FUNCS).bytes[at..at + 4].copy_from_slice(&value.to_le_bytes())
}

/// Makes the only function another one.
fn named(draft: &mut Draft, name: &str, old_size: u32) {
    draft.part(".livepatch.names").bytes = [name.as_bytes(), b"\0"].concat();
    field(OLD_SIZE, old_size)(draft);
}

/// Makes it NOPs: takes away the relocation of the new code.
fn nop(draft: &mut Draft, size: u32) {
    unnamed(draft);
    draft.part(".rela.livepatch.funcs").bytes.truncate(24);
    field(NEW_SIZE, size)(draft);
}

/// Code that replaces nothing cannot have the name of a function of Xen.
fn unnamed(draft: &mut Draft) {
    draft
        .symbols
        .iter_mut()
        .for_each(|symbol| symbol.name.clear());
}

fn functions(xen: &Xen, cases: &mut Vec<Case>) {
    let mut add = |name: &str, rule: Option<Rule>, spoil: &dyn Fn(&mut Draft)| {
        cases.push(xen.spoil(name, rule, spoil));
    };
    let quiet = xen.find(QUIET);
    assert!(
        has_endbr(xen.known.code(quiet).expect("the code")),
        "{QUIET} begins with ENDBR64"
    );
    add("empty_funcs", Some(Rule::X26), &|d| {
        d.part(FUNCS).bytes.clear();
        d.part(".rela.livepatch.funcs").bytes.clear();
    });
    add("nothing_to_patch", Some(Rule::X26), &|d| {
        d.part(FUNCS).name = ".other".to_owned()
    });
    add("f_size_not_mult", Some(Rule::X27), &|d| {
        d.part(FUNCS).bytes.push(0)
    });
    add("f_version0", Some(Rule::X28), &|d| {
        d.part(FUNCS).bytes[VERSION] = 0
    });
    add("f_version1", Some(Rule::X28), &|d| {
        d.part(FUNCS).bytes[VERSION] = 1
    });
    add("f_version3", Some(Rule::X28), &|d| {
        d.part(FUNCS).bytes[VERSION] = 3
    });
    add("f_newsize0", None, &field(NEW_SIZE, 0));
    add("f_newsize_huge", None, &field(NEW_SIZE, u32::MAX));
    add("f_oldsize0", Some(Rule::X29), &field(OLD_SIZE, 0));
    add("f_oldsize4", Some(Rule::X33), &field(OLD_SIZE, 4));
    add("f_oldsize5", None, &field(OLD_SIZE, 5));
    add("f_oldsize_huge", None, &field(OLD_SIZE, u32::MAX));
    add("f_pad", None, &|d| d.part(FUNCS).bytes[66..72].fill(0xff));
    add("f_unknown_old", Some(Rule::X30), &|d| {
        named(d, "no_such_function", 12)
    });
    add("f_empty_name", Some(Rule::X30), &|d| named(d, "", 12));
    add("static_bare_name", Some(Rule::X30), &|d| {
        named(d, "dump_timerq", 12)
    });
    add("static_without_folder", Some(Rule::X30), &|d| {
        named(d, "timer.c#dump_timerq", 12)
    });
    add("static_full_name", None, &|d| named(d, QUIET, 12));
    add("endbr_old8", Some(Rule::X33), &|d| named(d, QUIET, 8));
    add("endbr_old9", None, &|d| named(d, QUIET, 9));
    add("f_far", Some(Rule::X34), &|d| {
        let number = d.add_symbol("far", 0xfff1, 0xffff_8300_0000_0000);
        let funcs = d.number(FUNCS);
        d.part(".rela.livepatch.funcs").bytes.truncate(24);
        d.relocate(funcs, (8, 1, number, 0));
    });
    add("f_two_good", None, &|d| {
        let (funcs, names) = (d.number(FUNCS), d.symbols.len());
        let one = d.part(FUNCS).bytes.clone();
        let twice = [one.clone(), one].concat();
        d.part(FUNCS).bytes = twice;
        let start = d.part(".livepatch.names").bytes.len() as i64;
        d.part(".livepatch.names")
            .bytes
            .extend([QUIET.as_bytes(), b"\0"].concat());
        let names_section = d.number(".livepatch.names");
        let symbol = d.add_symbol("", names_section, 0);
        assert!(names > 2);
        d.relocate(funcs, (104, 1, symbol, start));
        d.relocate(funcs, (112, 1, 3, 0));
    });
    add("f_second_bad", Some(Rule::X28), &|d| {
        d.part(FUNCS).bytes.extend([0; 104]);
    });
}

fn nops(xen: &Xen, cases: &mut Vec<Case>) {
    let size = u32::try_from(xen.find(QUIET).size).expect("a small function");
    let mut add = |name: &str, rule: Option<Rule>, old_size: u32, new_size: u32| {
        cases.push(xen.spoil(name, rule, |draft| {
            named(draft, QUIET, old_size);
            nop(draft, new_size);
        }));
    };
    assert!(size > 40, "{QUIET} has {size} bytes");
    add("nop31", None, size, 31);
    add("nop32", Some(Rule::X31), size, 32);
    add("nop_gt_old", Some(Rule::X32), 8, 9);
    add("nop_5_of_endbr", None, size, 5);
    let target = xen.find("xen_extra_version");
    assert!(target.size > 10);
    cases.push(xen.spoil("nop0_of_plain", None, |draft| nop(draft, 0)));
    cases.push(xen.spoil("nop_5_of_plain", None, |draft| nop(draft, 5)));
}

fn hooks(xen: &Xen, cases: &mut Vec<Case>) {
    for moment in Moment::ALL {
        let hook = |name: &str, rule: Option<Rule>, count: usize, more: usize| {
            xen.spoil(
                &format!("hook_{}_{name}", moment.section()),
                rule,
                |draft| {
                    let section = draft.add(moment.section(), 2, &vec![0; count * 8 + more]);
                    let text = draft.number(".text.new");
                    let code = draft.add_symbol("", text, 8);
                    (0..count as u64).for_each(|n| draft.relocate(section, (n * 8, 1, code, 0)));
                },
            )
        };
        let broken = Some(Rule::X35);
        cases.push(hook("empty", Some(Rule::X26), 0, 0));
        cases.push(hook("size7", broken, 0, 7));
        cases.push(hook("size9", broken, 1, 1));
        let is_action = matches!(moment, Moment::Apply | Moment::Revert);
        if !is_action {
            let (one, two) = match moment.is_list() {
                true => (None, None),
                false => (Some(Rule::X48), broken),
            };
            cases.push(hook("one", one, 1, 0));
            cases.push(hook("two", two, 2, 0));
        }
        if !moment.is_list() {
            // A pointer that is 0 is no hook.
            cases.push(hook("null", None, 0, 8));
        }
    }
    // Nothing but hooks: then an apply hook does no harm.
    cases.push(xen.spoil("hooks_alone", None, |draft| {
        unnamed(draft);
        draft.part(FUNCS).name = ".other".to_owned();
        draft.part(".other").flags = 2;
        draft.part(".rela.livepatch.funcs").bytes.clear();
        let text = draft.number(".text.new");
        let code = draft.add_symbol("", text, 8);
        for moment in [Moment::Apply, Moment::Revert, Moment::Load] {
            let section = draft.add(moment.section(), 2, &[0; 8]);
            draft.relocate(section, (0, 1, code, 0));
        }
    }));
}

fn notes(xen: &Xen, cases: &mut Vec<Case>) {
    for (short, name, missing) in [
        ("depends", ".livepatch.depends", Rule::X25),
        ("own_id", ".note.gnu.build-id", Rule::X25),
        ("xen_depends", ".livepatch.xen_depends", Rule::X14),
    ] {
        let mut add = |case: &str, rule, spoil: fn(&mut Vec<u8>)| {
            cases.push(xen.spoil(&format!("{short}_{case}"), rule, |draft| {
                spoil(&mut draft.part(name).bytes);
            }));
        };
        let (sizes, other) = match missing {
            Rule::X14 => (Rule::X14, Rule::X14),
            _ => (Rule::X36, Rule::X37),
        };
        add("empty", missing, Vec::clear);
        add("header_alone", sizes, |note| note.truncate(12));
        add("cut", sizes, |note| note.truncate(30));
        add("descsz", sizes, |note| note[4] = 200);
        add("descsz_huge", sizes, |note| note[4..8].fill(0xff));
        add("descsz0", sizes, |note| note[4] = 0);
        add("namesz3", sizes, |note| note[0] = 3);
        add("type", other, |note| note[8] = 1);
        add("name", other, |note| note[12..16].copy_from_slice(b"XEN\0"));
        cases.push(xen.spoil(&format!("no_{short}"), missing, |draft| {
            draft.part(name).name = ".other".to_owned();
        }));
    }
    let efi = xen.efi.clone();
    cases.push(xen.change("xen_depends_efi", Rule::X14, |payload| {
        *payload = payload.for_hypervisor(&efi)
    }));
    cases.push(xen.spoil("wrong_xen_id", Rule::X14, |draft| {
        draft.part(".livepatch.xen_depends").bytes[16] ^= 1;
    }));
    cases.push(xen.spoil("wrong_depends", Rule::X44, |draft| {
        draft.part(".livepatch.depends").bytes[16] ^= 1;
    }));
    let first = written(&xen.payload());
    cases.push(Case::new("dup_buildid", Rule::X38, first.file.clone()).after(first.file.clone()));
    let next = |depends| {
        let mut payload = xen.payload();
        payload.depends = depends;
        payload.modinfo.push("second".to_owned());
        file(&payload)
    };
    cases.push(Case::new("stacked", None, next(first.id)).after(first.file.clone()));
    cases.push(Case::new("stacked_wrongly", Rule::X44, next(xen.id.clone())).after(first.file));
}

fn records(xen: &Xen, cases: &mut Vec<Case>) {
    let mut add = |case: &str, name: &str, rule: Option<Rule>, size: usize| {
        cases.push(xen.spoil(case, rule, |draft| {
            draft.add(name, 2, &vec![0; size]);
        }));
    };
    for frame in 0..4 {
        let name = format!(".bug_frames.{frame}");
        add(
            &format!("bugframes{frame}_size7"),
            &name,
            Some(Rule::X39),
            7,
        );
        add(&format!("bugframes{frame}_size8"), &name, None, 8);
    }
    add("bugframes4_size7", ".bug_frames.4", None, 7);
    add("ex_table_size7", ".ex_table", Some(Rule::X39), 7);
    add("ex_table_size8", ".ex_table", None, 8);
    add("ex_table_size24", ".ex_table", None, 24);
    add("alt_empty", ".altinstructions", None, 0);
    add("alt_size13", ".altinstructions", Some(Rule::X40), 13);
    add(
        "alt_no_replacement",
        ".altinstructions",
        Some(Rule::X40),
        14,
    );
    // Only Xen 4.21 and later look at these.
    add("alt_call_sites_size7", ".alt_call_sites", None, 7);
    let mut text = |case: &str, rule: Option<Rule>, bytes: &[u8]| {
        cases.push(xen.spoil(case, rule, |draft| {
            draft.add(".modinfo", 2, bytes);
        }));
    };
    text("modinfo", None, b"a=1\0b=2\0");
    text("modinfo_zero", None, b"\0");
    text("modinfo_unterminated", Some(Rule::X41), b"a=1");
}

fn alternatives(xen: &Xen, cases: &mut Vec<Case>) {
    /// Where the record leads, its lengths, and how much replacement there is.
    struct Record {
        original: i64,
        replacement: i64,
        lengths: [u8; 3],
    }
    let mut add = |name: &str, rule: Option<Rule>, record: Record| {
        cases.push(xen.spoil(name, rule, |draft| {
            // Three bytes that do nothing, for a feature that every processor has.
            let [length, with, padding] = record.lengths;
            let mut bytes = [0; 14];
            bytes[10..13].copy_from_slice(&[length, with, padding]);
            let table = draft.add(".altinstructions", 2, &bytes);
            let replacement = draft.add(".altinstr_replacement", 6, &[0x0f, 0x1f, 0]);
            let text = draft.add(".text.altered", 6, &[0x90, 0x90, 0x90, 0xc3]);
            let text = draft.add_symbol("", text, 0);
            let replacement = draft.add_symbol("", replacement, 0);
            draft.relocate(table, (0, 2, text, record.original));
            draft.relocate(table, (4, 2, replacement, record.replacement));
            assert_eq!(draft.part(".rela.altinstructions").kind, RELA);
        }));
    };
    let record = |original, replacement, lengths| Record {
        original,
        replacement,
        lengths,
    };
    add("alt_good", None, record(0, 0, [3, 3, 0]));
    add("alt_shorter", None, record(0, 0, [3, 2, 0]));
    add("alt_none", None, record(0, 0, [3, 0, 0]));
    add(
        "alt_orig_behind",
        Some(Rule::X40),
        record(5000, 0, [3, 3, 0]),
    );
    add(
        "alt_orig_before",
        Some(Rule::X40),
        record(-5000, 0, [3, 3, 0]),
    );
    add("alt_repl_behind", Some(Rule::X40), record(0, 4, [3, 3, 0]));
    add(
        "alt_repl_partly_behind",
        Some(Rule::X40),
        record(0, 1, [3, 3, 0]),
    );
    add("alt_repl_before", Some(Rule::X40), record(0, -1, [3, 3, 0]));
}
