//! What Xen will answer, as far as that can be held against itself without a hypervisor; the
//! answers of real ones are in `tests/xen`.

mod payload;

use std::time::{Duration, Instant};

use invivo_format::livepatch::{
    Access, Contents, Effect, Errno, Hypervisor, Loaded, Options, Prediction, Reference,
    Relocation, RelocationKind, Rule, Section, XenVersion, efi_build_id, predict, read,
};
use object::{File, Object as _, ObjectSection as _};
use payload::example;
use payload::kept::{keep, write};
use proptest::prelude::*;

fn versions() -> impl Iterator<Item = XenVersion> {
    (14..=23).filter_map(XenVersion::new)
}

fn ask(file: &[u8], version: &str, xen: Option<&Hypervisor<'_>>, loaded: &[Loaded]) -> Prediction {
    let version = version.parse().expect("a version");
    let options = Options {
        version,
        xen,
        running: None,
        loaded,
    };
    predict(file, &options)
}

/// A hypervisor of a few names.
const MAP: &str = "\
0xffff82d040200000 T _start
0xffff82d040234b20 T xen_extra_version
0xffff82d0403b7000 T __init_begin
0xffff82d0403b7100 t common/setup.c#at_boot
0xffff82d04045b000 D __init_end
0xffff82d04045bdc0 d common/keyhandler.c#key_table
";

#[test]
fn a_sound_payload_is_taken_by_each_version() {
    let file = write(&example()).expect("sound").file;
    let xen = Hypervisor::parse(MAP.as_bytes()).expect("a map");
    for version in versions() {
        let prediction = ask(&file, &version.to_string(), Some(&xen), &[]);
        assert!(
            prediction.is_sound(),
            "{version}: {:?}",
            prediction.findings
        );
        // A map tells neither the build id nor the code.
        assert_eq!(prediction.without_xen, [Rule::X14, Rule::X44]);
        assert_eq!((prediction.upload(), prediction.apply()), (None, None));
    }
    let blind = ask(&file, "4.17", None, &[]);
    assert!(blind.is_sound());
    assert_eq!(
        blind.without_xen,
        [Rule::X14, Rule::X30, Rule::X44, Rule::X53]
    );
}

#[test]
fn the_errno_and_the_order_follow_the_version() {
    assert_eq!(
        Rule::X37.effect("4.19".parse().expect("")),
        Effect::Upload(Errno::EINVAL)
    );
    assert_eq!(
        Rule::X37.effect("4.20.1".parse().expect("")),
        Effect::Upload(Errno::ENODATA)
    );
    assert_eq!(Errno::EOPNOTSUPP.number(), 95);
    for text in ["4.13", "4.24", "5.17", "4", "", "4.x"] {
        assert!(text.parse::<XenVersion>().is_err(), "{text}");
    }
    // For another hypervisor, and with an undefined symbol: which one is told first?
    let mut payload = example();
    payload.symbols.push(invivo_format::livepatch::Symbol {
        name: "no_such_symbol".to_owned(),
        place: invivo_format::livepatch::SymbolPlace::Xen,
    });
    let file = write(&payload).expect("sound").file;
    let other = invivo_image::BuildId(vec![1; 20]);
    let xen = Hypervisor::parse(MAP.as_bytes()).expect("a map");
    for (version, first, then) in [
        ("4.19", Rule::X18, Rule::X14),
        ("4.20", Rule::X14, Rule::X18),
    ] {
        let options = Options {
            version: version.parse().expect("a version"),
            xen: Some(&xen),
            running: Some(&other),
            loaded: &[],
        };
        let rules: Vec<Rule> = predict(&file, &options)
            .findings
            .iter()
            .map(|f| f.rule)
            .collect();
        assert_eq!(rules, [first, then, Rule::X44], "{version}");
    }
}

#[test]
fn names_are_those_of_the_hypervisor() {
    let xen = Hypervisor::parse(MAP.as_bytes()).expect("a map");
    assert_eq!(
        xen.find(b"common/keyhandler.c#key_table")
            .map(|k| k.address),
        Some(0xffff_82d0_4045_bdc0)
    );
    assert_eq!(xen.find(b"key_table"), None);
    assert!(xen.build_id().is_none() && xen.is_for_boot(0xffff_82d0_403b_7100));
    let mut payload = example();
    payload.functions[0].name = "common/setup.c#at_boot".to_owned();
    let file = write(&payload).expect("sound").file;
    let prediction = ask(&file, "4.17", Some(&xen), &[]);
    assert_eq!(
        prediction.upload(),
        Some((Rule::X53, Effect::Harm("upload")))
    );
    for broken in ["", "text", "0x1 T", "0xg T a", "\u{7f}ELF"] {
        assert!(Hypervisor::parse(broken.as_bytes()).is_err(), "{broken:?}");
    }
    assert_eq!(efi_build_id(b"MZ"), None);
}

/// A file may say that Xen ends where no payload has room behind it, up to the last address.
#[test]
fn an_end_of_xen_that_leaves_no_room_is_not_believed() {
    let file = write(&example()).expect("sound").file;
    for end in ["ffffffffffffffff", "ffffffffffe00000", "ffffffffc0000001"] {
        let map = format!("{MAP}0x{end} D _end\n");
        let xen = Hypervisor::parse(map.as_bytes()).expect("a map");
        assert!(ask(&file, "4.17", Some(&xen), &[]).is_sound(), "{end}");
    }
}

/// One section is aligned to more than all memory, and a later one without an alignment makes
/// Xen forget how far that was.
#[test]
fn alignments_lead_nowhere() {
    let file = write(&example()).expect("sound").file;
    let table = usize::from_le_bytes(file[0x28..0x30].try_into().expect("eight bytes"));
    let sections = usize::from(u16::from_le_bytes([file[0x3c], file[0x3d]]));
    let mut is_harm = false;
    for far in 1..sections {
        for none in far + 1..sections {
            let mut file = file.clone();
            for (section, align) in [(far, 1_u64 << 63), (none, 0)] {
                let at = table + section * 0x40 + 0x30;
                file[at..at + 8].copy_from_slice(&align.to_le_bytes());
            }
            let answer = ask(&file, "4.17", None, &[]);
            let found = |rule| answer.findings.iter().any(|found| found.rule == rule);
            is_harm |= found(Rule::X54) && found(Rule::X64);
        }
    }
    assert!(is_harm);
}

/// Indirect calls that Xen makes direct: from 4.21 on it knows their table, and looks at it.
#[test]
fn call_sites_are_looked_at_by_the_versions_that_know_them() {
    // The code, the text, which is no code, and half a record.
    for (to, length, refused) in [(1, 4, false), (0, 4, true), (1, 7, true)] {
        let mut payload = example();
        let to = Reference {
            symbol: to,
            addend: 0,
        };
        payload.sections.push(Section {
            name: ".alt_call_sites".to_owned(),
            access: Access::ReadOnly,
            align: 4,
            contents: Contents::Bytes(vec![0; length]),
            relocations: vec![Relocation {
                offset: 0,
                kind: RelocationKind::Relative32,
                to,
            }],
        });
        let file = write(&payload).expect("sound").file;
        let xen = Hypervisor::parse(MAP.as_bytes()).expect("a map");
        for version in versions() {
            let is_known = version >= "4.21".parse().expect("a version");
            let expected =
                (refused && is_known).then_some((Rule::X40, Effect::Upload(Errno::EINVAL)));
            let prediction = ask(&file, &version.to_string(), Some(&xen), &[]);
            assert_eq!(prediction.upload(), expected, "{version} {to:?} {length}");
        }
    }
}

/// A branch is known and not its point release: 4.17.2 and 4.18.0 write to the functions' structures and
/// read them, 4.17.7 and 4.18.1 do not. What one of a branch fails with is refused for all of it.
#[test]
fn the_stricter_of_a_branchs_answers_is_told() {
    let file = write(&example()).expect("sound").file;
    let object = File::parse(&*file).expect("ELF");
    let functions = object.section_by_name(".livepatch.funcs");
    let functions = functions.expect("it replaces something");
    let (number, (at, _)) = (
        functions.index().0,
        functions.file_range().expect("bytes are in the file"),
    );
    let mut applied = file.clone();
    applied[at as usize + 64] = 1;
    let table = usize::from_le_bytes(file[0x28..0x30].try_into().expect("eight bytes"));
    let mut read_only = file.clone();
    // Its flags: allocated, and not to be written.
    read_only[table + number * 0x40 + 8] = 2;
    for (file, rule) in [(applied, Rule::X67), (read_only, Rule::X60)] {
        keep(&file);
        for version in [
            "4.16", "4.17", "4.17.2", "4.17.7", "4.18", "4.18.0", "4.18.4",
        ] {
            let found = ask(&file, version, None, &[]);
            assert!(
                found.findings.iter().any(|one| one.rule == rule),
                "{version}"
            );
            assert!(!found.is_sound(), "{version}");
        }
        for version in ["4.19", "4.20.0", "4.23"] {
            let found = ask(&file, version, None, &[]);
            assert!(found.is_sound(), "{version}: {:?}", found.findings);
        }
    }
}

/// Xen holds what is expected against memory only when it has taken all others back.
#[test]
fn a_replace_that_would_leave_nothing_live_is_known() {
    let on_xen = example();
    let id = on_xen.xen_depends.clone().expect("it is for a hypervisor");
    let mut on_another = example();
    on_another.depends = invivo_image::BuildId(vec![1; 20]);
    let unpatched = |file: &[u8]| {
        let options = Options {
            version: "4.20".parse().expect("a version"),
            xen: None,
            running: Some(&id),
            loaded: &[],
        };
        predict(file, &options).unpatched
    };
    for (payload, is_asked) in [(on_xen, true), (on_another, false)] {
        let mut file = write(&payload).expect("sound").file;
        assert_eq!(unpatched(&file), None);
        let at = {
            let object = File::parse(&*file).expect("ELF");
            let functions = object.section_by_name(".livepatch.funcs");
            let range = functions.and_then(|section| section.file_range());
            usize::try_from(range.expect("it is in the file").0).expect("a place")
        };
        // More bytes are expected than the function has; then the reserved bits are not zero, too. What is
        // not built on Xen itself is refused before.
        file[at + 72] = 31 << 1 | 1;
        keep(&file);
        assert_eq!(unpatched(&file), is_asked.then_some(Rule::X46));
        file[at + 72] |= 0x80;
        keep(&file);
        assert_eq!(unpatched(&file), is_asked.then_some(Rule::X45));
        // This one is not even uploaded.
        file[at + 32] = 3;
        keep(&file);
        assert_eq!(unpatched(&file), None);
    }
}

#[test]
fn what_was_uploaded_before_counts() {
    let first = write(&example()).expect("sound");
    let xen = Hypervisor::parse(MAP.as_bytes()).expect("a map");
    let loaded = ask(&first.file, "4.17", Some(&xen), &[])
        .loaded
        .expect("it is taken");
    assert_eq!(loaded.id, first.id);
    let again = ask(
        &first.file,
        "4.17",
        Some(&xen),
        std::slice::from_ref(&loaded),
    );
    assert_eq!(
        again.upload(),
        Some((Rule::X38, Effect::Upload(Errno::EEXIST)))
    );
    let mut second = example();
    second.depends = first.id.clone();
    let second = write(&second).expect("sound").file;
    let stacked = ask(&second, "4.17", Some(&xen), &[loaded]);
    assert!(stacked.is_sound(), "{:?}", stacked.findings);
}

#[test]
fn each_rule_is_told_and_found_by_its_id() {
    for rule in Rule::ALL {
        for text in [rule.meaning(), rule.why(), rule.remedy(), rule.example()] {
            assert!(text.len() > 3, "{rule}");
        }
        assert_eq!(rule.id().to_lowercase().parse(), Ok(*rule));
    }
    assert!("X99".parse::<Rule>().is_err());
}

/// A file of 2 MiB whose parts all name the same bytes: a quadratic loader would take hours.
#[test]
fn a_file_that_names_its_bytes_many_times_takes_no_time() {
    let mut file = vec![0; 2 << 20];
    let table = 0x1000;
    file[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0");
    file[20] = 1;
    file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
    file[58..64].copy_from_slice(&[64, 0, 0xff, 3, 1, 0]);
    // All sections: relocations of section 3, with all of the file as their entries.
    for number in 1..1023_usize {
        let at = table + number * 64;
        let (kind, size, info) = match number {
            1 => (3_u32, 0x1000, 0_u32),
            2 => (2, (2 << 20) - 0x20000, 0),
            3 => (1, 0x1000, 0),
            _ => (4, (2 << 20) - 0x20000, 3),
        };
        file[at + 4..at + 8].copy_from_slice(&kind.to_le_bytes());
        file[at + 8] = if number == 3 { 2 } else { 0 };
        let offset = if number == 1 { 0x200_u64 } else { 0x20000 };
        file[at + 24..at + 32].copy_from_slice(&offset.to_le_bytes());
        let size = size as u64 / 24 * 24;
        file[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        let link = if number == 2 { 1_u32 } else { 2 };
        file[at + 40..at + 44].copy_from_slice(&link.to_le_bytes());
        file[at + 44..at + 48].copy_from_slice(&info.to_le_bytes());
        file[at + 48..at + 64].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0]);
    }
    keep(&file);
    let begun = Instant::now();
    assert!(read(&file).is_err());
    let prediction = ask(&file, "4.20", None, &[]);
    assert!(prediction.more, "{:?}", prediction.findings.last());
    // And so that each of them is right, as a relocation that changes nothing and as a symbol.
    file[0x20000..].fill(0);
    for at in (0x20000..file.len()).step_by(24) {
        (file[at + 6], file[at + 12]) = (3, 3);
    }
    keep(&file);
    assert!(read(&file).is_err());
    let prediction = ask(&file, "4.20", None, &[]);
    assert!(!prediction.more, "{:?}", prediction.findings.last());
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

proptest! {
    #[test]
    fn a_changed_file_harms_nobody(
        payload in payload::payload(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        minor in 14_u8..=23,
    ) {
        let mut file = write(&payload).expect("the model is sound").file;
        for (at, value) in changes {
            *at.get_mut(&mut file) = value;
        }
        keep(&file);
        let xen = Hypervisor::parse(MAP.as_bytes()).expect("a map");
        for xen in [None, Some(&xen)] {
            ask(&file, &format!("4.{minor}"), xen, &[]);
            ask(&file[..cut.index(file.len())], &format!("4.{minor}"), xen, &[]);
        }
    }
}
