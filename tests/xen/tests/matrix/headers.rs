//! The ELF header, sections, names, the symbol table: X01–X16.

use invivo_format::livepatch::Rule;

use crate::base::{Case, Xen, file};
use crate::draft::{Draft, NOBITS, PROGBITS, Part, STRTAB, SYMTAB};

const TEXT: &str = ".text.new";

pub(crate) fn cases(xen: &Xen) -> Vec<Case> {
    let mut cases = vec![
        Case::new("size0", Rule::X01, Vec::new()),
        Case::new("size2M1", Rule::X01, vec![0; (2 << 20) + 1]),
        Case::new("short", Rule::X02, file(&xen.payload())[..63].to_vec()),
        Case::new(
            "only-header",
            Rule::X05,
            file(&xen.payload())[..64].to_vec(),
        ),
    ];
    header(xen, &mut cases);
    sections(xen, &mut cases);
    tables(xen, &mut cases);
    cases
}

fn header(xen: &Xen, cases: &mut Vec<Case>) {
    let fields: &[(&str, Option<Rule>, usize, &[u8])] = &[
        ("ei_mag", Some(Rule::X02), 1, b"e"),
        ("ei_class", Some(Rule::X04), 4, &[1]),
        ("ei_data", Some(Rule::X04), 5, &[2]),
        ("ei_version", Some(Rule::X03), 6, &[0]),
        ("ei_osabi_linux", Some(Rule::X03), 7, &[3]),
        ("ei_osabi_freebsd", None, 7, &[9]),
        ("ei_abiversion", Some(Rule::X03), 8, &[1]),
        ("ei_pad", None, 12, &[1]),
        ("e_type_exec", Some(Rule::X03), 16, &[2]),
        ("e_type_dyn", Some(Rule::X03), 16, &[3]),
        ("e_machine", Some(Rule::X04), 18, &[183]),
        ("e_version", Some(Rule::X03), 20, &[2]),
        ("e_entry", None, 24, &[1]),
        ("e_phoff", None, 32, &[1]),
        ("e_flags", None, 48, &[1]),
        ("e_ehsize", None, 52, &[0]),
        ("e_phentsize", None, 54, &[1]),
        ("e_phnum", Some(Rule::X03), 56, &[1]),
        ("e_shentsize", Some(Rule::X05), 58, &[63]),
        ("e_shstrndx0", Some(Rule::X05), 62, &[0]),
        ("e_shstrndx_past", Some(Rule::X05), 62, &[200]),
        ("e_shnum0", Some(Rule::X05), 60, &[0, 0]),
        ("e_shnum1024", Some(Rule::X06), 60, &[0, 4]),
        ("e_shnum_past", Some(Rule::X05), 60, &[100, 0]),
        ("e_shoff_past", Some(Rule::X05), 40, &[0, 0, 0xff]),
        ("e_shoff_huge", Some(Rule::X05), 40, &[0xff; 8]),
    ];
    for (name, rule, at, bytes) in fields {
        cases.push(xen.spoil(name, *rule, |draft| {
            draft.spoiled.push((*at, bytes.to_vec()))
        }));
    }
}

fn sections(xen: &Xen, cases: &mut Vec<Case>) {
    let mut part = |name: &str, rule: Option<Rule>, spoil: fn(&mut Part)| {
        cases.push(xen.spoil(name, rule, |draft| spoil(draft.part(TEXT))));
    };
    part("sec_in_header", Some(Rule::X07), |p| p.offset = Some(63));
    part("sec_past_end", Some(Rule::X07), |p| p.size = Some(1 << 20));
    part("sec_offset_past", Some(Rule::X07), |p| {
        p.offset = Some(1 << 40)
    });
    part("sec_align3", Some(Rule::X08), |p| p.align = 3);
    part("sec_align_page", None, |p| p.align = 4096);
    part("sec_addr_misaligned", Some(Rule::X09), |p| p.addr = 1);
    part("sec_addr_aligned", None, |p| p.addr = 1 << 20);
    part("sec_WX", Some(Rule::X15), |p| p.flags |= 1);
    part("sec_more_flags", None, |p| p.flags |= 0x200);
    let zeros = |size| {
        move |draft: &mut Draft| {
            let number = draft.add(".bss", 3, &[]);
            let part = &mut draft.parts[usize::from(number) - 1];
            (part.kind, part.size) = (NOBITS, Some(size));
        }
    };
    cases.push(xen.spoil("bss_2M", Rule::X43, zeros(2 << 20)));
    cases.push(xen.spoil("bss_gt_2M", Rule::X10, zeros((2 << 20) + 1)));
    cases.push(xen.spoil("bss_elsewhere_in_file", Rule::X43, |draft| {
        zeros(64)(draft);
        draft.part(".bss").offset = Some(1 << 40);
    }));
    cases.push(xen.spoil("bss_not_loaded", None, |draft| {
        zeros(1 << 40)(draft);
        draft.part(".bss").flags = 0;
    }));
    cases.push(xen.spoil("no_room", Rule::X16, |draft| {
        for name in ["a", "b", "c"] {
            draft.add(name, 2, &[1]);
            draft.part(name).align = 1 << 29;
        }
    }));
    cases.push(xen.spoil("many_sections", None, |draft| {
        for _ in 0..1000 {
            draft.add("n", 2, &[1]);
        }
    }));
}

fn tables(xen: &Xen, cases: &mut Vec<Case>) {
    cases.push(xen.spoil("two_symtabs", Rule::X11, |draft| {
        for name in ["one", "two"] {
            draft.add(name, 0, &[0; 24]);
            let part = draft.part(name);
            (part.kind, part.entry_size) = (SYMTAB, 24);
        }
    }));
    // The draft makes the tables where it has none: these take their place, spoiled.
    let mut table = |name: &str, spoil: fn(&mut Part)| {
        let whole = Draft::of(&file(&xen.payload()));
        let mut entries = vec![0; 24];
        entries.resize(24 * (whole.symbols.len() + 1), 0);
        cases.push(xen.spoil(name, Rule::X12, |draft| {
            draft.add("table", 0, &entries);
            let part = draft.part("table");
            (part.kind, part.entry_size) = (SYMTAB, 24);
            spoil(part);
        }));
    };
    table("symtab_link_past", |p| p.link = Some(200));
    table("symtab_link_text", |p| p.link = Some(1));
    table("symtab_empty", |p| p.bytes.clear());
    table("symtab_entsize16", |p| p.entry_size = 16);
    table("symtab_entsize0", |p| p.entry_size = 0);
    table("symtab_odd", |p| p.bytes.push(0));
    let strings = |bytes: &'static [u8], kind| {
        move |draft: &mut Draft| {
            let number = draft.add("strings", 0, bytes);
            draft.part("strings").kind = kind;
            draft.add("table", 0, &[0; 24]);
            let part = draft.part("table");
            (part.kind, part.entry_size, part.link) = (SYMTAB, 24, Some(number.into()));
        }
    };
    cases.push(xen.spoil("strtab_type", Rule::X12, strings(&[0, 0], PROGBITS)));
    cases.push(xen.spoil("strtab_empty", Rule::X12, strings(&[], STRTAB)));
    cases.push(xen.spoil("strtab_begin", Rule::X12, strings(b"a\0", STRTAB)));
    cases.push(xen.spoil("strtab_end", Rule::X12, strings(b"\0a", STRTAB)));
    cases.push(xen.spoil("no_symtab", Rule::X12, |draft| {
        let number = draft.add("table", 0, &[0; 24]);
        draft.part("table").kind = SYMTAB;
        draft.part("table").entry_size = 24;
        // Its type in the file becomes that of ordinary bytes.
        let at = usize::try_from(header_of(draft, number)).unwrap_or(0) + 4;
        draft.spoiled.push((at, vec![1, 0, 0, 0]));
    }));
    cases.push(xen.spoil("sym_name_oob", Rule::X12, |draft| {
        draft.symbols[0].name_at = Some(1 << 20)
    }));
    cases.push(xen.spoil("sh_name_oob", Rule::X13, |draft| {
        draft.part(TEXT).name_at = Some(1 << 20)
    }));
    cases.push(xen.spoil("shstrtab_is_text", Rule::X13, |draft| {
        draft.spoiled.push((62, vec![1, 0]))
    }));
}

/// Where the header of a section is in the file.
fn header_of(draft: &Draft, number: u16) -> u64 {
    let file = draft.file();
    let table = *file[40..].first_chunk().expect("a header");
    u64::from_le_bytes(table) + u64::from(number) * 64
}
