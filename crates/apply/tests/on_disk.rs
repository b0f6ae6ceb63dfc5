//! What starts next where a process of Windows runs a base: both generations tell it alike, whatever became
//! of the file.

mod images;
mod older;
mod process;

use images::scene::{self, CHECKSUM, Scene, parse, put};
use invivo_apply::hpat::OnDisk;
use invivo_apply::{hotp1, hpat};
use invivo_format::final_image::{FileIdentity, Manifest, WindowsBuild, write_windows};
use invivo_image::LiveAddr;
use invivo_patch::{Hex, Identity};
use older::{example, patch_file, target_file};
use process::Process;

const TARGET: &str = r"C:\target.dll";
const PATCH: &str = r"C:\patch.dll";

/// What the name of the target leads to: no file, or one, and what is told of it.
type Case = (&'static str, Option<Vec<u8>>, OnDisk);

/// Goes through the cases, before the process is patched and then; `told` gives whether it is and what is
/// on disk.
fn through(
    mut process: Process,
    cases: &[Case],
    apply: &dyn Fn(&mut Process),
    told: &dyn Fn(&Process) -> (bool, OnDisk),
) {
    let own = process.files[TARGET].clone();
    for patched in [false, true] {
        process.files.insert(TARGET.to_owned(), own.clone());
        if patched {
            apply(&mut process);
        }
        assert_eq!(told(&process), (patched, OnDisk::Old));
        for (case, file, expected) in cases {
            process.files.remove(TARGET);
            if let Some(file) = file {
                process.files.insert(TARGET.to_owned(), file.clone());
            }
            assert_eq!(told(&process), (patched, *expected), "{case}");
        }
        process.locked = true;
        assert_eq!(told(&process), (patched, OnDisk::Unknown), "locked");
        process.locked = false;
    }
}

/// The target's file as Invivo patches it on disk, with code of this build.
fn cold_file(mark: u32, code_of: Option<WindowsBuild>) -> Vec<u8> {
    let file = FileIdentity {
        file_name: "target.dll".to_owned(),
        build_id: None,
        sha256: Hex(vec![7; 32]),
        size: 1,
    };
    let identity = Identity {
        name: "fix".to_owned(),
        ..Identity::default()
    };
    let mut manifest = Manifest::new(identity, file.clone(), file);
    manifest.code_of = code_of;
    let image = parse(&target_file(Some(mark.into())));
    write_windows(&image, &manifest).expect("there is room")
}

/// The fix of this patch, and fixes that are none of it: one that was linked in the same second, one that says
/// when it was linked, and that alone, as an older version wrote it, and one of another time.
fn fixes(patch: &[u8]) -> (WindowsBuild, [(&'static str, WindowsBuild); 3]) {
    let build = WindowsBuild::of(&parse(patch));
    let mut other = patch.to_vec();
    // The first byte of its code.
    other[0x400] ^= 1;
    let other = WindowsBuild::of(&parse(&other));
    assert_eq!(other.time_stamp, build.time_stamp);
    let unknown = WindowsBuild {
        contents: None,
        ..build.clone()
    };
    let later = WindowsBuild {
        time_stamp: build.time_stamp + 1,
        ..build.clone()
    };
    let others = [
        ("of the same second", other),
        ("of which nothing more is known", unknown),
        ("of another time", later),
    ];
    (build, others)
}

/// What runs tells what it is, also where its file is there no more: a file that was patched on disk, by this
/// fix or another one, and another build that concerns nobody.
#[test]
fn what_runs_is_told_by_memory_alone() {
    let patch = patch_file(&example());
    let (build, others) = fixes(&patch);
    let mut other = target_file(None);
    let checksum = parse(&other).header_places().checksum;
    put(&mut other, checksum, CHECKSUM + 1);
    let this = Some(build);
    let mut cases = vec![
        ("by this fix", cold_file(CHECKSUM, this.clone()), Some(true)),
        ("by some fix", cold_file(CHECKSUM, None), Some(false)),
        ("of another build", cold_file(CHECKSUM + 1, this), None),
        ("another build", other, None),
    ];
    cases.extend(others.map(|(case, fix)| (case, cold_file(CHECKSUM, Some(fix)), Some(false))));
    for (case, file, expected) in cases {
        let mut process = Process::default();
        process.files.insert(TARGET.to_owned(), file);
        process.files.insert(PATCH.to_owned(), patch.clone());
        process.load_image(TARGET);
        // It was taken back, or a package brought another one.
        process.files.insert(TARGET.to_owned(), target_file(None));
        let all = hotp1::standing(&process, PATCH).expect(case);
        let told: Vec<_> = all.iter().map(|one| (one.cold, one.on_disk)).collect();
        let wanted: Vec<_> = expected
            .map(|cold| (cold, OnDisk::Old))
            .into_iter()
            .collect();
        assert_eq!(told, wanted, "{case}");
        let refused = hotp1::apply(&mut process, PATCH, "test").expect_err(case);
        let why = match expected {
            Some(_) => "is not the file any more",
            None => "the patch is for",
        };
        assert!(refused.to_string().contains(why), "{case}: {refused}");
    }
}

#[test]
fn a_target_of_older_windows() {
    let mut process = Process::default();
    let own = target_file(None);
    process.files.insert(TARGET.to_owned(), own.clone());
    let patch = patch_file(&example());
    process.files.insert(PATCH.to_owned(), patch);
    process.load_image(TARGET);
    let mut other = own;
    let checksum = parse(&other).header_places().checksum;
    put(&mut other, checksum, CHECKSUM + 1);
    let (build, others) = fixes(&process.files[PATCH]);
    let cold = |mark: u32, code_of: Option<WindowsBuild>| Some(cold_file(mark, code_of));
    let this = Some(build);
    let mut cases = vec![
        (
            "patched on disk",
            cold(CHECKSUM, this.clone()),
            OnDisk::Fixed,
        ),
        ("some fix", cold(CHECKSUM, None), OnDisk::Other),
        (
            "another one patched",
            cold(CHECKSUM + 1, this),
            OnDisk::Other,
        ),
        (
            "patched by somebody else",
            Some(target_file(Some(CHECKSUM.into()))),
            OnDisk::Other,
        ),
        ("another build", Some(other), OnDisk::Other),
        ("no image", Some(vec![0x4d; 0x200]), OnDisk::Other),
        ("no file", None, OnDisk::Gone),
    ];
    cases.extend(others.map(|(case, fix)| (case, cold(CHECKSUM, Some(fix)), OnDisk::Other)));
    let apply = |process: &mut Process| {
        hotp1::apply(process, PATCH, "test").expect("it is applied");
    };
    through(process, &cases, &apply, &|process| {
        let all = hotp1::standing(process, PATCH).expect("how it stands");
        let [one] = &all[..] else {
            panic!("it is loaded once: {all:?}");
        };
        assert!(!one.cold && !one.removed, "{one:?}");
        (one.active, one.on_disk)
    });
}

#[test]
fn a_base_of_a_final_image() {
    let mut process = Process::default();
    let scene = Scene::with(&scene::example());
    for (path, file) in [(TARGET, &scene.base), (PATCH, &scene.patch)] {
        process.files.insert(path.to_owned(), file.clone());
    }
    process.load_image(TARGET);
    let mut other = scene.base.clone();
    put(&mut other, 0x88, scene::STAMP + 1);
    // Of the same second, and with the same checksum.
    let mut of_that_second = scene.patch.clone();
    of_that_second[0x400] ^= 1;
    let mut fixed = scene::patch_recipe().file();
    let checksum = parse(&fixed).header_places().checksum;
    put(&mut fixed, checksum, CHECKSUM + 2);
    let cases = [
        ("the patch itself", Some(scene.patch.clone()), OnDisk::Fixed),
        ("what it was made of", Some(fixed), OnDisk::Fixed),
        ("another patch", Some(of_that_second), OnDisk::Other),
        ("another build", Some(other), OnDisk::Other),
        ("no image", Some(vec![0x4d; 0x200]), OnDisk::Other),
        ("no file", None, OnDisk::Gone),
    ];
    let (base, patch) = (parse(&scene.base), parse(&scene.patch));
    let of = (base.time_stamp, base.checksum);
    let apply = |process: &mut Process| {
        hpat::apply(process, PATCH, "test").expect("it is applied");
    };
    through(process, &cases, &apply, &|process| {
        let all = hpat::standing(process, &patch, of).expect("how it stands");
        let [one] = &all[..] else {
            panic!("it is loaded once: {all:?}");
        };
        assert_eq!(one.is_live, one.sequence == 7);
        (one.is_live, one.on_disk)
    });
}

/// Two fixes of one base may have been given one sequence number: where the one is live the other is not, also
/// where it was before and is in memory still.
#[test]
fn another_patch_with_the_same_number() {
    const SECOND: &str = r"C:\second_patch.dll";
    let mut process = Process::default();
    let scene = Scene::with(&scene::example());
    let mut second = scene.patch.clone();
    put(&mut second, 0x88, scene::STAMP + 7);
    for (path, file) in [
        (TARGET, &scene.base),
        (PATCH, &scene.patch),
        (SECOND, &second),
    ] {
        process.files.insert(path.to_owned(), file.clone());
    }
    process.load_image(TARGET);
    let base = parse(&scene.base);
    let of = (base.time_stamp, base.checksum);
    let live = |process: &Process| {
        [&scene.patch, &second].map(|patch| {
            let all = hpat::standing(process, &parse(patch), of).expect("how it stands");
            all.iter().map(|one| (one.sequence, one.is_live)).next()
        })
    };
    assert_eq!(live(&process), [Some((0, false)); 2]);
    hpat::apply(&mut process, PATCH, "test").expect("it is applied");
    assert_eq!(live(&process), [Some((7, true)), Some((7, false))]);
    hpat::revert(&mut process, false, "test").expect("it is taken back");
    assert_eq!(live(&process), [Some((0, false)); 2]);
    hpat::apply(&mut process, SECOND, "test").expect("it is applied");
    assert_eq!(live(&process), [Some((7, false)), Some((7, true))]);
}

/// What an image says beyond its headers is not needed where those tell all, and may not be there to be read.
#[test]
fn pages_that_nobody_needs() {
    let mut file = target_file(Some(7));
    let checksum = parse(&file).header_places().checksum;
    for (sum, told) in [(CHECKSUM, true), (CHECKSUM + 1, false)] {
        put(&mut file, checksum, sum);
        let mut process = Process::default();
        process.files.insert(TARGET.to_owned(), file.clone());
        process
            .files
            .insert(PATCH.to_owned(), patch_file(&example()));
        let at = process.load_image(TARGET);
        process.take_away(LiveAddr(at.0 + 0x2000));
        let found = hotp1::standing(&process, PATCH).map(|all| all.len());
        assert_eq!(found.ok(), told.then_some(1), "{sum:#x}");
    }
}
