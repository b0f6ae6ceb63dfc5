//! Functions for x86 whose first instruction holds an address, as the loader changes it: the two bytes before
//! that give way to the short jump, and the address stays where it is.

use invivo_apply::hotp1::PatchedModule;
use invivo_format::hotp1::{HookKind, read};
use invivo_image::Rva;
use windows_tests::narrow::running::Running;
use windows_tests::native::running::until_quiet;
use windows_tests::older::{patch_module, patched_file};
use windows_tests::{Build, Folder, build, by_hand};

/// Where both are: not where they were linked, so that the loader does change it.
const TARGET: u64 = 0x2300_0000;
const PATCH: u64 = 0x3400_0000;

#[test]
fn a_short_jump_over_an_instruction_with_an_address_is_run() {
    let folder = Folder::new("x86-addresses");
    let how = Build::base().narrow().with("-mno-sse");
    let old = build(&folder, "base", "steady", &how).expect("it is built");
    let new = build(&folder, "fixed", "steady", &how.with("-DFIXED")).expect("it is built");
    let target = old.image().expect("a Windows image");
    let count = by_hand::place_of(&target, "count");
    // `lock inc [counted]`, with the address behind three bytes.
    let begin: [u8; 3] = target.array(Rva(count.into())).expect("code");
    assert_eq!(begin, [0xf0, 0xff, 0x05]);
    let mut moved = target.relocations.iter();
    assert!(moved.any(|one| one.at == Rva(u64::from(count) + 3)));

    let patch = patch_module(&old, &new, None);
    let model = read(&patch).expect("it can be read").expect("it has one");
    let hooks = model
        .hooks
        .iter()
        .filter(|hook| hook.at.abs_diff(count) <= 5);
    let hooks: Vec<_> = hooks
        .map(|hook| (hook.kind, hook.at, hook.length()))
        .collect();
    let wanted = [
        (HookKind::X86Jmp, count - 5, 5),
        (HookKind::Jmp2B, count, 2),
    ];
    assert_eq!(hooks, wanted);
    let mut running = Running::new(&folder, &[(target, TARGET), (patch, PATCH)]);
    let mut module = PatchedModule::new(running.loaded[0].clone());
    let patch = running.loaded[1].clone();
    let before = running.narrow.fixed_bytes(0);
    assert_eq!(running.call("count", 5), 80, "old");
    let function = running.at(0, "count");
    let begun = running.narrow.begin(function, 5, [80, 81]);
    begun.expect("it answers");
    for _ in 0..20 {
        until_quiet(|| module.apply(&mut running.narrow, &patch));
        std::thread::sleep(std::time::Duration::from_micros(300));
        until_quiet(|| module.remove(&mut running.narrow, patch.at));
        assert!(running.narrow.fixed_bytes(0) == before, "byte for byte");
    }
    let (calls, wrong) = running.narrow.end();
    assert_eq!(wrong, 0, "an answer of nobody");
    assert!(calls > 1000, "{calls} calls");
    until_quiet(|| module.apply(&mut running.narrow, &patch));
    assert_eq!(running.call("count", 5), 81, "new");
    // Every call was counted in the base's variable.
    let counted = running.call("get_counted", 0);
    assert_eq!(counted, calls.cast_signed() + 2);
    until_quiet(|| module.remove(&mut running.narrow, patch.at));
    assert_eq!(running.call("count", 5), 80, "removed");
}

/// On disk the loader goes on changing the address, which is no code any more, and nothing else.
#[test]
fn a_file_with_such_a_jump_is_run() {
    let folder = Folder::new("x86-addresses-cold");
    let how = Build::base().narrow().with("-mno-sse");
    let old = build(&folder, "base", "steady", &how).expect("it is built");
    let new = build(&folder, "fixed", "steady", &how.with("-DFIXED")).expect("it is built");
    let on_disk = patched_file(&old, &new, None);
    let count = u64::from(by_hand::place_of(&on_disk, "count"));
    let begin: [u8; 3] = on_disk.array(Rva(count)).expect("code");
    assert_eq!(begin, [0xeb, 0xf9, 0x05]);
    let mut moved = on_disk.relocations.iter();
    assert!(moved.any(|one| one.at == Rva(count + 3)));
    let running = Running::new(&folder, &[(on_disk, TARGET)]);
    assert_eq!(
        [running.call("count", 5), running.call("weigh", 5)],
        [81, 81]
    );
    assert_eq!(running.call("get_counted", 0), 1, "the base's variable");
}
