//! A payload that goes through a file comes back as it was; a file that is cut off or changed is
//! told to be broken, and harms nobody.

mod payload;

use invivo_format::livepatch::{
    Access, Contents, Expectation, LISTED_ID, New, Old, Payload, Read, Rule, is_payload, read,
    write_listed,
};
use invivo_image::BuildId;
use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _};
use payload::example;
use payload::kept::{keep, write};
use proptest::prelude::*;

fn file_of(payload: &Payload) -> Vec<u8> {
    write(payload).expect("the model is sound").file
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(payload in payload::payload()) {
        let written = write(&payload).expect("the model is sound");
        let again = read(&written.file).expect("it was written");
        prop_assert_eq!(&again, &Read { payload, id: written.id.clone() });
        prop_assert_eq!(write(&again.payload).expect("it was read"), written);
    }

    #[test]
    fn a_changed_byte_harms_nobody(at in any::<prop::sample::Index>(), value: u8, more: u8) {
        let mut file = file_of(&example());
        *at.get_mut(&mut file) = value;
        let next = (at.index(file.len()) + 1) % file.len();
        file[next] = more;
        keep(&file);
        if let Ok(found) = read(&file) {
            let written = write(&found.payload).expect("what is read can be written");
            prop_assert_eq!(read(&written.file).expect("again").payload, found.payload);
        }
    }
}

/// Xen lists texts and no build ids: what differs in anything differs in that text.
#[test]
fn a_payload_can_have_a_text_of_its_own() {
    let text = |payload: &Payload| {
        let written = write_listed(payload).expect("the model is sound");
        assert_eq!(write_listed(payload).expect("again"), written);
        keep(&written.file);
        let read = read(&written.file).expect("it was written").payload;
        let (own, others) = read.modinfo.split_last().expect("a text");
        assert_eq!(others, payload.modinfo);
        assert!(own.starts_with(LISTED_ID), "{own}");
        own.clone()
    };
    let (one, mut other) = (example(), example());
    other.depends = BuildId(vec![9; 20]);
    assert_ne!(text(&one), text(&other));
}

#[test]
fn a_file_that_was_cut_off_is_broken() {
    let file = file_of(&example());
    for end in 0..file.len() {
        assert!(read(&file[..end]).is_err(), "cut at {end}");
    }
    assert!(is_payload(&file) && !is_payload(&file[..100]) && !is_payload(b""));
}

/// Xen's demands that no relocatable file has by itself.
#[test]
fn another_reader_sees_what_xen_demands() {
    let mut payload = example();
    payload.symbols[1].name = "xen_extra_version".to_owned();
    let file = file_of(&payload);
    assert_eq!(
        (file[7], file[8], file[16]),
        (0, 0, 1),
        "System V, relocatable"
    );
    let object = object::read::File::parse(&*file).expect("an ELF file");
    let flags = |name: &str| match object.section_by_name(name).map(|section| section.flags()) {
        Some(object::SectionFlags::Elf { sh_flags, .. }) => sh_flags.0,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(flags(".livepatch.funcs"), 3, "loaded and writable");
    for name in [
        ".livepatch.depends",
        ".livepatch.xen_depends",
        ".note.gnu.build-id",
        ".modinfo",
    ] {
        assert_eq!(flags(name), 2, "{name} is loaded");
    }
    let mut sections = object.sections();
    assert!(
        sections.all(|s| s.align() > 0),
        "Xen would put one over another"
    );
    let named: Vec<_> = object
        .symbols()
        .filter_map(|s| s.name().ok().filter(|n| !n.is_empty()))
        .collect();
    assert_eq!(named, ["xen_extra_version"]);
}

#[test]
fn the_build_id_follows_the_contents() {
    let first = write(&example()).expect("sound");
    assert_eq!(first.id.0.len(), 20);
    let mut other = example();
    other.modinfo[0].push('0');
    assert_ne!(write(&other).expect("sound").id, first.id);
    assert_eq!(write(&example()).expect("sound"), first);
    let efi = example().for_hypervisor(&BuildId(vec![9; 16]));
    assert_eq!(
        (
            efi.depends.0.len(),
            efi.xen_depends.as_ref().map(|id| id.0.len())
        ),
        (16, Some(16))
    );
    assert_ne!(write(&efi).expect("sound").id, first.id);
    // One that is built upon another payload stays so.
    let mut second = example();
    second.depends = first.id.clone();
    assert_eq!(
        second.for_hypervisor(&BuildId(vec![9; 16])).depends,
        first.id
    );
}

#[test]
fn names_are_dropped_or_made_unique() {
    let mut payload = example();
    payload.symbols[0].name = "__func__.2".to_owned();
    let mut marked = payload.clone();
    marked.mark_names("fix");
    let names = |payload: &Payload| {
        payload
            .symbols
            .iter()
            .map(|s| s.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&marked), ["__func__.2@fix", "xen_extra_version"]);
    payload.drop_names();
    assert_eq!(names(&payload), ["", "xen_extra_version"]);
}

#[test]
fn an_expectation_ends_before_what_may_differ_in_memory() {
    let code: Vec<u8> = (0..40).collect();
    let bytes = |changed: &[std::ops::Range<u64>]| {
        Expectation::beginning(&code, changed).map(|expected| expected.bytes().to_vec())
    };
    assert_eq!(bytes(&[]).as_deref(), Some(&code[..31]));
    assert_eq!(bytes(&[20..22, 9..12, 3..3]).as_deref(), Some(&code[..9]));
    assert_eq!(bytes(&[0..2, 5..6]), None);
    let endbr = [0xf3, 0x0f, 0x1e, 0xfa, 0x90];
    assert_eq!(Expectation::beginning(&endbr, &[]), None);
    assert_eq!(Expectation::new(vec![0; 32]), None);
}

/// A way to spoil a model, and the rule that then forbids to write it.
type Spoiled = (Rule, fn(&mut Payload));

#[test]
fn a_model_that_xen_would_refuse_is_not_written() {
    let spoiled: [Spoiled; 12] = [
        (Rule::X08, |p| p.sections[0].align = 3),
        (Rule::X64, |p| p.sections[0].align = 8192),
        (Rule::X13, |p| {
            p.sections[1].name = ".livepatch.funcs".to_owned()
        }),
        (Rule::X14, |p| p.xen_depends = None),
        (Rule::X18, |p| {
            p.symbols[0] = invivo_format::livepatch::Symbol {
                name: String::new(),
                place: invivo_format::livepatch::SymbolPlace::Xen,
            }
        }),
        (Rule::X23, |p| p.sections[0].relocations[0].offset = 8),
        (Rule::X26, |p| p.functions.clear()),
        (Rule::X29, |p| p.functions[0].old_size = 0),
        (Rule::X31, |p| {
            p.functions[0].new = New::Nop { size: 32 };
            p.functions[0].old_size = 40;
        }),
        (Rule::X51, |p| p.functions[0].old = Old::Address(0)),
        (Rule::X57, |p| p.sections[0].access = Access::ReadOnly),
        (Rule::X59, |p| p.functions.push(p.functions[0].clone())),
    ];
    for (rule, spoil) in spoiled {
        let mut payload = example();
        spoil(&mut payload);
        assert_eq!(write(&payload).map_err(|error| error.rule), Err(rule));
    }
    let mut payload = example();
    payload.sections[0].contents = Contents::Zeros(8);
    assert!(write(&payload).is_err(), "zeros hold no relocation");
}
