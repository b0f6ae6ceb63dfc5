//! One hand-broken image for each rule, named after the attack. What is sound
//! before the change must be refused after it, by that rule.

mod scene;

use std::sync::Arc;

use invivo_format::hpat::{
    Base, Chunk, ChunkKind, HotPatch, Judge, MOST_FINDINGS, Options, Report, Rule, Weight, read,
    validate,
};
use invivo_image::pe::PeImage;
use scene::{Scene, base_recipe, example, get, parse, put, record};

fn report(scene: &Scene) -> Report {
    let base = parse(&scene.base);
    let options = Options {
        base: Some(&base),
        capacity: None,
    };
    validate(&parse(&scene.patch), &options)
}

/// Changes the scene, and demands that `rule` tells it and, where it refuses, the patch is refused.
fn attack(rule: Rule, change: impl FnOnce(&mut Scene)) -> Report {
    let mut scene = Scene::new();
    change(&mut scene);
    expect(rule, &scene)
}

fn expect(rule: Rule, scene: &Scene) -> Report {
    let report = report(scene);
    let told = report.findings.iter().find(|found| found.rule == rule);
    assert!(
        told.is_some(),
        "{rule} does not see it: {:#?}",
        report.findings
    );
    let told = told.expect("it was just found");
    assert_eq!(
        report.is_sound(),
        report.findings.iter().all(|f| f.weight == Weight::Warned)
    );
    if told.weight == Weight::Refused {
        assert!(!report.is_sound());
    }
    for found in &report.findings {
        let (rule, weights) = (found.rule, found.rule.weights());
        assert!(
            weights.contains(&found.weight),
            "{rule} says what nobody explains"
        );
    }
    report
}

/// Demands that only this rule is broken.
fn only(rule: Rule, change: impl FnOnce(&mut Scene)) {
    let report = attack(rule, change);
    assert!(
        report.findings.iter().all(|found| found.rule == rule),
        "{:#?}",
        report.findings
    );
}

/// The same with other metadata, written as they are.
fn model(rule: Rule, change: impl FnOnce(&mut HotPatch)) -> Report {
    let mut patch = example();
    change(&mut patch);
    expect(rule, &Scene::with(&patch))
}

fn only_model(rule: Rule, change: impl FnOnce(&mut HotPatch)) {
    let report = model(rule, change);
    assert!(
        report.findings.iter().all(|found| found.rule == rule),
        "{:#?}",
        report.findings
    );
}

fn chunks(patch: &mut HotPatch) -> &mut Vec<Chunk> {
    &mut patch.bases[0].chunks
}

// Offsets in the metadata of the worked example.
const BASE: usize = 0x28;
const TABLE: usize = 0x48;
const FORWARD: usize = 0x84;

#[test]
fn a01_a_configuration_that_is_cut_off() {
    only(Rule::A01, |scene| scene.set_config(0, 0xf0));
    // Long enough by its own word, but the directory says otherwise.
    only(Rule::A01, |scene| scene.set_config(0, 0x148));
}

#[test]
fn a01_no_configuration() {
    let mut scene = Scene::new();
    let directory = parse(&scene.patch).header_places().directories + 8 * 10;
    put(&mut scene.patch, directory, 0);
    expect(Rule::A01, &scene);
}

#[test]
fn a02_metadata_behind_the_image() {
    only(Rule::A02, |scene| scene.set_config(0xf0, 0xfff0_0000));
    only(Rule::A02, |scene| scene.set_config(0xf0, 0xffff_fffc));
    only(Rule::A02, |scene| scene.set_config(0xf0, 0));
}

#[test]
fn a03_a_version_of_tomorrow() {
    only(Rule::A03, |scene| scene.set(0, 5));
    only(Rule::A03, |scene| scene.set(0, 0));
}

#[test]
fn a04_a_size_that_wraps_around() {
    only(Rule::A04, |scene| scene.set(4, 0xffff_f000));
    only(Rule::A04, |scene| scene.set(4, 0x20));
    // Inside the image, but behind the section: zeros that no file holds.
    only(Rule::A04, |scene| scene.set(4, 0xfff));
}

#[test]
fn a05_sequence_zero() {
    only(Rule::A05, |scene| scene.set(8, 0));
}

#[test]
fn a06_no_base_at_all() {
    only(Rule::A06, |scene| scene.set(0x10, 0));
}

#[test]
fn a06_two_bases() {
    only_model(Rule::A06, |patch| {
        let mut second = Base {
            checksum: 1,
            ..patch.bases[0].clone()
        };
        second.chunks.clear();
        patch.bases.push(second);
    });
}

#[test]
fn a07_a_base_outside_the_metadata() {
    only(Rule::A07, |scene| scene.set(0x24, 0x90));
    only(Rule::A07, |scene| scene.set(0x24, 0));
    only(Rule::A07, |scene| scene.set(0x0c, 0xffff_fff0));
    only(Rule::A07, |scene| scene.set(0x10, 0x4000_0001));
}

#[test]
fn a08_a_base_for_another_machine() {
    only(Rule::A08, |scene| scene.set(BASE + 4, 8));
    only(Rule::A08, |scene| scene.set(BASE + 4, 0x14));
}

#[test]
fn a09_arm64ec_inside() {
    only(Rule::A09, |scene| scene.set_config(0xc8, 0x1000));
}

#[test]
fn a10_a_patch_table_outside_the_metadata() {
    only(Rule::A10, |scene| scene.set(BASE + 0x18, 0xa4));
    only(Rule::A10, |scene| scene.set(BASE + 0x18, 0));
}

#[test]
fn a10_a_patch_table_inside_the_header() {
    // The header's own words as chunks: the word 0 at 0x14 ends the stream.
    attack(Rule::A10, |scene| scene.set(BASE + 0x18, 0x14));
}

/// A file of 40 KiB that, taken at its word, holds a thousand times its table of a thousand records.
#[test]
fn a10_bases_that_share_one_table() {
    let mut patch = example();
    *chunks(&mut patch) = vec![Chunk::new(
        true,
        ChunkKind::Absolute,
        vec![record(0x5000, 0x4010, 0); 1000],
    )];
    patch.bases = vec![patch.bases[0].clone(); 1000];
    for base in &mut patch.bases[1..] {
        base.chunks.clear();
    }
    let mut scene = Scene::with(&patch);
    let first = 0x24 + 4 * 1000;
    let table = get(&scene.patch, scene.info + first + 0x18);
    for base in 0..1000 {
        scene.set(first + 32 * base + 0x18, table);
    }
    expect(Rule::A10, &scene);
    assert_eq!(
        read(&parse(&scene.patch)).expect_err("too much").rule,
        Rule::A10
    );
}

#[test]
fn a11_records_behind_the_end() {
    only(Rule::A11, |scene| scene.set(FORWARD, 0x0001_cfff));
    // The zero word at the end is gone.
    only(Rule::A11, |scene| scene.set(4, 0xa0));
}

#[test]
fn a12_a_reserved_bit() {
    only(Rule::A12, |scene| scene.set(FORWARD, 0x0001_d002));
}

#[test]
fn a13_an_obligatory_chunk() {
    only(Rule::A13, |scene| scene.set(FORWARD, 0x4001_c002));
}

#[test]
fn a14_a_kind_that_nobody_knows() {
    only(Rule::A14, |scene| scene.set(TABLE, 0x8002_0001));
}

#[test]
fn a15_a_pointer_written_into_the_base() {
    attack(Rule::A15, |scene| scene.set(TABLE + 0x10, 0x0002_c002));
}

#[test]
fn a16_a_target_behind_the_end() {
    attack(Rule::A16, |scene| scene.set(FORWARD + 8, 0x9ff9));
    attack(Rule::A16, |scene| scene.set(TABLE + 8, 0xffff_ffff));
}

#[test]
fn a17_a_site_behind_the_image() {
    attack(Rule::A17, |scene| scene.set(TABLE + 0x14, 0xb000));
    // The page that the kernel lets through.
    attack(Rule::A17, |scene| scene.set(TABLE + 0x14, 0xa000));
    attack(Rule::A17, |scene| scene.set(TABLE + 0x14, 0xffff_ffff));
}

#[test]
fn a18_a_function_in_the_file_header() {
    attack(Rule::A18, |scene| scene.set(FORWARD + 4, 0xf));
}

#[test]
fn a19_a_dynamic_value_without_a_number() {
    only_model(Rule::A19, |patch| {
        let records = vec![record(0x5010, u32::MAX, 0)];
        chunks(patch).push(Chunk::new(true, ChunkKind::DynamicValue, records));
    });
}

#[test]
fn a20_a_call_target_in_data() {
    for place in [0x1108, 0x5000, 0xb000] {
        only_model(Rule::A20, |patch| {
            let records = vec![record(place, 0x1010, 0)];
            chunks(patch).push(Chunk::new(true, ChunkKind::CallTarget, records));
        });
    }
}

#[test]
fn a21_one_function_with_two_targets() {
    only_model(Rule::A21, |patch| {
        let records = vec![record(0x1010, 0x1140, 0x28ec_8348)];
        chunks(patch).push(Chunk::new(false, ChunkKind::Function, records));
    });
}

#[test]
fn a22_sites_that_overlap() {
    attack(Rule::A22, |scene| scene.set(TABLE + 0x20, 0x5004));
}

#[test]
fn a23_a_pointer_stored_into_code() {
    attack(Rule::A23, |scene| scene.set(TABLE + 0x14, 0x1800));
}

#[test]
fn a23_data_that_run_as_code() {
    only(Rule::A23, |scene| scene.set(FORWARD + 8, 0x5010));
}

#[test]
fn a24_expected_bytes_of_another_build() {
    only(Rule::A24, |scene| scene.set(FORWARD + 0x0c, 0x28ec_8349));
    // Beyond the two bytes that the kernel compares.
    only(Rule::A24, |scene| scene.set(FORWARD + 0x0c, 0x29ec_8348));
}

#[test]
fn a25_code_in_the_place_of_padding() {
    let mut scene = Scene::new();
    let base = parse(&scene.base);
    let at = base
        .file_place(invivo_image::Rva(0x100b))
        .expect("in the file")
        .start;
    scene.base[at] = 0xc3;
    expect(Rule::A25, &scene);
}

#[test]
fn a26_a_function_one_byte_before_a_boundary() {
    let mut scene = Scene::with(&{
        let mut patch = example();
        chunks(&mut patch)[3].records[1] = record(0x1047, 0x1180, 0xcccc_cccc);
        patch
    });
    let report = expect(Rule::A26, &scene);
    assert!(
        report.is_sound(),
        "it works, and stops all processors: {:#?}",
        report.findings
    );
    // On its own it would be sound; with the entry's bytes changed it is not.
    let base = parse(&scene.base);
    let at = base
        .file_place(invivo_image::Rva(0x1047))
        .expect("in the file")
        .start;
    scene.base[at] = 0x90;
    expect(Rule::A24, &scene);
}

#[test]
fn a27_more_functions_than_the_address_table_holds() {
    let scene = Scene::new();
    let base = parse(&scene.base);
    let options = Options {
        base: Some(&base),
        capacity: Some(1),
    };
    let report = validate(&parse(&scene.patch), &options);
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].rule, Rule::A27);
}

#[test]
fn a28_a_patch_for_another_build() {
    only(Rule::A28, |scene| scene.set(BASE + 8, 1));
    only(Rule::A28, |scene| scene.set(BASE + 0x0c, 1));
}

/// It is one build still, but any other one without a checksum differs in the time stamp alone.
#[test]
fn a28_a_base_without_a_checksum_is_told() {
    let report = attack(Rule::A28, |scene| {
        let place = parse(&scene.base).header_places().checksum;
        put(&mut scene.base, place, 0);
        scene.set(BASE + 0x0c, 0);
    });
    let [found] = &report.findings[..] else {
        unreachable!("{report:#?}");
    };
    assert!(report.is_sound() && found.weight == Weight::Warned);
    assert!(found.text.contains("/release"), "{found:?}");
}

#[test]
fn a29_records_of_gigabytes() {
    attack(Rule::A29, |scene| {
        scene.set(0x18, 0xffff_fffe);
        // Two chunks without records, so that nothing is behind the end.
        scene.set(TABLE, 0x8001_c000);
        scene.set(TABLE + 4, 0);
    });
    // One more than the most; the most are too many for the rest of this file, but not for this rule.
    let words = |words: u32| {
        let mut scene = Scene::new();
        scene.set(0x18, words);
        scene.set(TABLE, 0x8001_c000);
        scene.set(TABLE + 4, 0);
        let findings = report(&scene).findings;
        findings.iter().any(|found| found.rule == Rule::A29)
    };
    assert!(words(17) && !words(16));
    // Where there are records, they are behind the end.
    attack(Rule::A11, |scene| scene.set(0x18, 0xffff_fffe));
}

#[test]
fn a30_a_relocation_across_the_end_of_a_site() {
    let mut scene = Scene::new();
    let patch = parse(&scene.patch);
    let at = patch
        .file_place(invivo_image::Rva(0x7008))
        .expect("in the file")
        .start;
    put(&mut scene.patch, at, 0xa004 | 0xa010 << 16);
    expect(Rule::A30, &scene);
}

#[test]
fn a31_digests_behind_the_end() {
    only(Rule::A31, |scene| {
        scene.set(BASE + 0x10, 0xa0);
        scene.set(BASE + 0x14, 52);
    });
    only(Rule::A31, |scene| scene.set(BASE + 0x1c, 0xa4));
    only(Rule::A31, |scene| scene.set(0x14, 0xffff_ffff));
}

/// This file must have an attack for each rule, so that none is a word alone.
/// Who refuses it: what Windows was seen to refuse is told from what only we do.
#[test]
fn each_half_of_a_rule_names_its_judge() {
    type Change = fn(&mut Scene);
    let cases: [(Rule, Judge, Change); 20] = [
        (Rule::A01, Judge::Kernel, |scene| scene.set_config(0, 0xf0)),
        (Rule::A02, Judge::Kernel, |scene| {
            scene.set_config(0xf0, 0xfff0_0000)
        }),
        (Rule::A03, Judge::Kernel, |scene| scene.set(0, 5)),
        (Rule::A04, Judge::Kernel, |scene| scene.set(4, 0xffff_f000)),
        (Rule::A04, Judge::Strict, |scene| scene.set(4, 0xfff)),
        (Rule::A05, Judge::Kernel, |scene| scene.set(8, 0)),
        (Rule::A08, Judge::Kernel, |scene| scene.set(BASE + 4, 8)),
        (Rule::A08, Judge::Strict, |scene| scene.set(BASE + 4, 0x14)),
        (Rule::A10, Judge::Kernel, |scene| {
            scene.set(BASE + 0x18, 0xa4)
        }),
        (Rule::A10, Judge::Strict, |scene| scene.set(BASE + 0x18, 0)),
        (Rule::A12, Judge::Kernel, |scene| {
            scene.set(FORWARD, 0x0001_d002)
        }),
        (Rule::A14, Judge::Strict, |scene| {
            scene.set(TABLE, 0x8002_0001)
        }),
        (Rule::A15, Judge::Kernel, |scene| {
            scene.set(TABLE + 0x10, 0x0002_c002)
        }),
        (Rule::A16, Judge::Kernel, |scene| {
            scene.set(FORWARD + 8, 0xffff_ffff)
        }),
        (Rule::A17, Judge::Kernel, |scene| {
            scene.set(TABLE + 0x14, 0xffff_ffff)
        }),
        (Rule::A17, Judge::Strict, |scene| {
            scene.set(TABLE + 0x14, 0xa000)
        }),
        (Rule::A18, Judge::Kernel, |scene| {
            scene.set(FORWARD + 4, 0xf)
        }),
        (Rule::A23, Judge::Strict, |scene| {
            scene.set(FORWARD + 8, 0x5010)
        }),
        (Rule::A24, Judge::Strict, |scene| {
            scene.set(FORWARD + 0x0c, 0x28ec_8349)
        }),
        (Rule::A28, Judge::Kernel, |scene| scene.set(BASE + 8, 1)),
    ];
    for (number, (rule, judge, change)) in cases.into_iter().enumerate() {
        let found = attack(rule, change).findings;
        let own = found.iter().filter(|found| found.rule == rule);
        let judges: Vec<_> = own.map(|found| found.judge).collect();
        assert!(
            judges.iter().all(|one| *one == judge),
            "{number}, {rule}: {judges:?}"
        );
    }
}

#[test]
fn each_rule_has_its_attack() {
    let source = include_str!("hpat_attacks.rs");
    for rule in Rule::ALL {
        let name = format!("\nfn {}_", rule.id().to_lowercase());
        assert!(source.contains(&name), "{rule} has no attack");
        let about = rule.about();
        assert!(!about.meaning.is_empty() && !about.why.is_empty() && !about.remedy.is_empty());
    }
}

#[test]
fn a_flood_of_findings_is_counted_and_not_told() {
    let report = model(Rule::A16, |patch| {
        chunks(patch)[0].records = (0..4000).map(|_| record(0x2030, 0xffff_0000, 0)).collect();
    });
    let told = report
        .findings
        .iter()
        .filter(|found| found.rule == Rule::A16);
    assert_eq!(told.count(), MOST_FINDINGS);
    assert_eq!(report.more[&Rule::A16], 4000 - MOST_FINDINGS as u64);
}

/// A file that ends at any byte is an error or an image; and metadata that
/// end at any byte break a rule.
#[test]
fn a_file_that_ends_at_any_byte() {
    let scene = Scene::new();
    for length in 0..scene.patch.len() {
        if let Ok(image) = PeImage::parse(Arc::from(&scene.patch[..length])) {
            let report = validate(&image, &Options::default());
            assert!(
                !report.is_sound() || length >= scene.info + 0xa4,
                "{length:#x}"
            );
        }
    }
    for size in 0..0xa4 {
        let mut scene = scene.clone();
        scene.set(4, size);
        assert!(!report(&scene).is_sound(), "{size:#x}");
    }
}

/// Every word of the metadata and of the headers, changed in a few ways.
#[test]
fn any_word_may_be_anything() {
    let scene = Scene::new();
    let metadata = scene.info..scene.info + 0xa4;
    let config = scene.config..scene.config + 0x140;
    let headers = 0x80..0x400;
    for at in headers.chain(metadata).chain(config).step_by(2) {
        for value in [0, 1, 4, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fff8] {
            let mut file = scene.patch.clone();
            put(&mut file, at, value);
            if let Ok(image) = PeImage::parse(Arc::from(&file[..])) {
                let base = parse(&base_recipe().file());
                let options = Options {
                    base: Some(&base),
                    capacity: None,
                };
                let _ = validate(&image, &options);
            }
        }
    }
}
