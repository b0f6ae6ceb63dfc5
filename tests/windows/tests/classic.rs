//! The three x86 examples of the description of 2007, run in a process of 32 bits: a function
//! that was made for hot patching, one that can be patched by chance, and one that cannot but in
//! its middle.

use std::sync::Arc;

use invivo_apply::hotp1::{COLD_PATCH_VALID, PatchedModule, holders};
use invivo_apply::{Loaded, Target};
use invivo_format::hotp1::{
    Fixup, FixupKind, FixupRegion, Hook, HookKind, LegacyPatch, ModuleId, Validation, cold, read,
    validate, validate_cold, validation_flags, write,
};
use invivo_image::pe::PeImage;
use invivo_image::{LiveAddr, Rva};
use windows_tests::narrow::Narrow;
use windows_tests::native::running::until_quiet;
use windows_tests::{Folder, classic};

/// Where both are: not where they were linked.
const TARGET: u64 = 0x2300_0000;
const PATCH: u64 = 0x3400_0000;

fn place(image: &PeImage, name: &str) -> u32 {
    let mut exports = image.exports.iter();
    let export = exports.find(|export| export.names.iter().any(|known| known == name));
    let at = export.and_then(|export| export.at).expect("it is exported");
    u32::try_from(at.0).expect("it is small")
}

/// Hooks of one function; each is validated by the bytes that it replaces.
fn hooks(target: &PeImage, patch: &PeImage, which: &str) -> (Vec<Hook>, Vec<Validation>) {
    let (at, to) = (place(target, which), place(patch, &format!("new_{which}")));
    let short = 0xffff_fff9;
    let parts = match which {
        // Two bytes that do nothing, and padding.
        "hot" => vec![
            (HookKind::X86Jmp, 5, at - 5, to),
            (HookKind::Jmp2B, 2, at, short),
        ],
        // `push ebp; mov ebp, esp`: the two bytes of the jump cut the second in two.
        "semi" => vec![
            (HookKind::X86Jmp, 5, at - 5, to),
            (HookKind::Jmp2B, 3, at, short),
        ],
        // `imul eax, ebx, 1000` in its middle: one instruction of six bytes.
        _ => vec![(HookKind::X86Jmp, 6, at + 5, to)],
    };
    let hooks = parts
        .iter()
        .enumerate()
        .map(|(number, (kind, options, at, to))| Hook {
            kind: *kind,
            options: *options,
            at: *at,
            to: *to,
            validation: Some(number),
        });
    let validations = parts.iter().map(|(_, length, at, _)| Validation {
        bytes: target
            .bytes(Rva((*at).into()), (*length).into())
            .expect("code")
            .to_vec(),
        target: *at,
        flags: validation_flags::HOOK_TARGET,
    });
    (hooks.collect(), validations.collect())
}

/// The patch module with its section written, for hooks of one function.
fn patch_module(target: &PeImage, linked: &PeImage, which: &str) -> PeImage {
    let mut file = linked.file().to_vec();
    let (hooks, validations) = hooks(target, linked, which);
    let variable = place(linked, "calls");
    let back = place(linked, "back") + 1;
    let mut fixups = [(variable, FixupKind::Va32), (back, FixupKind::Pc32)];
    fixups.sort_unstable_by_key(|(at, _)| *at);
    let mut put = |at: u32, word: u32| {
        let place = linked
            .file_place(Rva(at.into()))
            .expect("in the file")
            .start;
        file[place..place + 4].copy_from_slice(&word.to_le_bytes());
    };
    // Both as if the images were where they were linked.
    let (own, other) = (linked.image_base as u32, target.image_base as u32);
    put(variable, other + place(target, "calls"));
    let behind = other + place(target, "cold") + 5 + 6;
    put(back, behind.wrapping_sub(own + back + 4));
    let region = |(at, kind): &(u32, FixupKind)| FixupRegion {
        page: at >> 12,
        fixups: [*kind, FixupKind::None]
            .map(|kind| Fixup {
                offset: if kind == FixupKind::None {
                    0
                } else {
                    (at & 0xfff) as u16
                },
                kind,
            })
            .to_vec(),
    };
    let model = LegacyPatch {
        hotp_base: linked.image_base,
        target_base: target.image_base,
        target_name: "classic.dll".to_owned(),
        id: ModuleId::checksum(target.checksum),
        fixups: fixups.iter().map(region).collect(),
        validations,
        hooks,
    };
    let room = place(linked, "room");
    let bytes = write(&model, linked.machine, room).expect("it can be written");
    let start = linked
        .file_place(Rva(room.into()))
        .expect("in the file")
        .start;
    file[start..start + bytes.len()].copy_from_slice(&bytes);
    let image = PeImage::parse(Arc::from(file)).expect("a Windows image");
    assert_eq!(read(&image), Ok(Some(model.clone())));
    assert_eq!(validate(&image, &model, Some(target)), []);
    image
}

#[test]
fn the_three_examples_are_run() {
    let folder = Folder::new("classic");
    let target = classic(&folder, "classic").expect("it is built");
    let linked = classic(&folder, "patch").expect("it is built");
    let helper = windows_tests::helper(&folder).expect("it is built");
    let hot = place(&target, "hot");
    let begin: [u8; 2] = target.array(Rva(hot.into())).expect("code");
    // Compilers of then wrote `mov edi, edi`, this one writes `xchg ax, ax`.
    assert!(matches!(begin, [0x8b, 0xff] | [0x66, 0x90]), "{begin:x?}");
    let semi: [u8; 3] = target
        .array(Rva(place(&target, "semi").into()))
        .expect("code");
    assert_eq!(semi, [0x55, 0x89, 0xe5], "a usual begin");
    for (which, old, new) in [("hot", 10, 15), ("semi", 10, 15), ("cold", 5000, 10000)] {
        let patch = patch_module(&target, &linked, which);
        let images = [(target.clone(), TARGET), (patch, PATCH)];
        let (mut narrow, loaded) = Narrow::start(&helper, &images).expect("it starts");
        let [base, patch] = &loaded[..] else {
            unreachable!("two images")
        };
        let mut module = PatchedModule::new(base.clone());
        let before = narrow.fixed_bytes(0);
        let function = LiveAddr(TARGET + u64::from(place(&target, which)));
        let call = |narrow: &Narrow| narrow.call(function, 5).expect("it answers");
        assert_eq!(call(&narrow), old, "{which}: old");
        // One at a time, then while threads run through it.
        until_quiet(|| module.apply(&mut narrow, patch));
        assert_eq!(call(&narrow), new, "{which}: new");
        until_quiet(|| module.remove(&mut narrow, patch.at));
        assert_eq!(call(&narrow), old, "{which}: removed");
        assert!(narrow.fixed_bytes(0) == before, "{which}: byte for byte");
        let begun = count(&narrow, base);
        narrow.begin(function, 5, [old, new]).expect("it answers");
        for _ in 0..50 {
            until_quiet(|| module.apply(&mut narrow, patch));
            std::thread::sleep(std::time::Duration::from_micros(300));
            until_quiet(|| module.remove(&mut narrow, patch.at));
        }
        let (calls, wrong) = narrow.end();
        assert_eq!(wrong, 0, "{which}: an answer of nobody");
        assert!(calls > 1000, "{which}: {calls} calls");
        assert_eq!(call(&narrow), old, "{which}: removed");
        assert!(narrow.fixed_bytes(0) == before, "{which}: byte for byte");
        if which == "hot" {
            // Old and new code count in the target's variable.
            assert_eq!(count(&narrow, base).wrapping_sub(begun), calls + 1);
        }
    }
}

/// The same three, patched on disk: the file is fixed from its first call on, shares the variable,
/// and takes the hot patch for the file before.
#[test]
fn the_three_examples_are_run_from_patched_files() {
    let folder = Folder::new("classic-cold");
    let target = classic(&folder, "classic").expect("it is built");
    let linked = classic(&folder, "patch").expect("it is built");
    let helper = windows_tests::helper(&folder).expect("it is built");
    for (which, new) in [("hot", 15), ("semi", 15), ("cold", 10000)] {
        let patch = patch_module(&target, &linked, which);
        let file = cold(&target, &patch, None).expect("there is room").file;
        let again = cold(&target, &patch, None).expect("there is room").file;
        assert_eq!(file, again, "{which}: the same input gives the same bytes");
        let on_disk = PeImage::parse(file).expect("a Windows image");
        assert_eq!(validate_cold(&on_disk, Some(&target)), [], "{which}");
        let images = [(on_disk, TARGET), (patch, PATCH)];
        let (mut narrow, loaded) = Narrow::start(&helper, &images).expect("it starts");
        let [base, patch] = &loaded[..] else {
            unreachable!("two images")
        };
        let function = LiveAddr(TARGET + u64::from(place(&target, which)));
        let call = |narrow: &Narrow| narrow.call(function, 5).expect("it answers");
        assert_eq!(call(&narrow), new, "{which}: on disk");
        if which == "hot" {
            assert_eq!(count(&narrow, base), 1, "the target's variable");
        }
        let before = narrow.fixed_bytes(0);
        let mut module = PatchedModule::new(base.clone());
        until_quiet(|| module.apply(&mut narrow, patch));
        assert_eq!(module.list()[0].flags, COLD_PATCH_VALID, "{which}");
        assert_eq!(call(&narrow), new, "{which}: in memory");
        assert!(
            narrow.fixed_bytes(0) != before,
            "{which}: it leads to the other one"
        );
        until_quiet(|| module.remove(&mut narrow, patch.at));
        assert_eq!(call(&narrow), new, "{which}: on disk again");
        assert!(narrow.fixed_bytes(0) == before, "{which}: byte for byte");
    }
}

/// Every process that holds the target is found, wherever it is there, and patched; the others are
/// left alone.
#[test]
fn every_process_that_holds_the_module_is_patched() {
    let folder = Folder::new("classic-all");
    let target = classic(&folder, "classic").expect("it is built");
    let linked = classic(&folder, "patch").expect("it is built");
    let helper = windows_tests::helper(&folder).expect("it is built");
    let patch = patch_module(&target, &linked, "hot");
    // Three hold it, one of them at another place; one holds another library.
    let begun = [
        (&target, TARGET),
        (&target, 0x2700_0000),
        (&linked, TARGET),
        (&target, TARGET),
    ];
    let mut processes: Vec<(Narrow, Loaded)> = begun
        .iter()
        .map(|(image, at)| {
            let images = [((*image).clone(), *at), (patch.clone(), PATCH)];
            let (narrow, loaded) = Narrow::start(&helper, &images).expect("it starts");
            (narrow, loaded[1].clone())
        })
        .collect();
    let like = Loaded {
        image: Arc::new(target.clone()),
        ..processes[0].1.clone()
    };
    let mut patched = Vec::new();
    let hot = place(&target, "hot");
    for (number, (narrow, patch)) in processes.iter_mut().enumerate() {
        let found = holders(narrow, &like).expect("its memory can be looked at");
        for held in found {
            assert_eq!(held.at.0, begun[number].1);
            let function = LiveAddr(held.at.0 + u64::from(hot));
            assert_eq!(narrow.call(function, 5).expect("it answers"), 10, "old");
            let mut module = PatchedModule::new(held);
            until_quiet(|| module.apply(narrow, patch));
            patched.push((number, module, function));
        }
    }
    let numbers: Vec<usize> = patched.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [0, 1, 3]);
    for (number, module, function) in &mut patched {
        let (narrow, patch) = &mut processes[*number];
        assert_eq!(narrow.call(*function, 5).expect("it answers"), 15, "new");
        until_quiet(|| module.remove(narrow, patch.at));
        assert_eq!(narrow.call(*function, 5).expect("it answers"), 10, "old");
    }
}

fn count(narrow: &Narrow, base: &Loaded) -> u32 {
    let at = LiveAddr(base.at.0 + u64::from(place(&base.image, "calls")));
    let mut word = [0; 4];
    narrow.read(at, &mut word).expect("it is there");
    u32::from_le_bytes(word)
}
