//! A hook of older Windows that jumps through a variable of the patch itself, while threads run through it.

use invivo_format::hotp1::{Hook, HookKind, hook_options};
use invivo_image::Rva;
use invivo_image::pe::BaseRelocationKind;
use windows_tests::native::running::{Running, while_called};
use windows_tests::{Build, Folder, build, by_hand};

/// `AMD64_IND` alone: no word of the target is changed but the jump, and where it goes stands in the patch's
/// own data, which the loader makes right.
#[test]
fn an_indirect_jump_through_the_patchs_own_variable_is_run() {
    let folder = Folder::new("legacy-pointer");
    let base = build(&folder, "base", "places", &Build::base()).expect("it is built");
    let target = base.image().expect("a Windows image");
    let [at, pointer, seven] =
        ["other", "pointer", "seven"].map(|name| by_hand::place_of(&target, name));
    // `lea eax, [8*rcx]`: one instruction of seven bytes gives way.
    let begin: [u8; 8] = target.array(Rva(at.into())).expect("the function");
    assert_eq!(begin, [0x8d, 0x04, 0xcd, 0, 0, 0, 0, 0xc3]);
    let hook = Hook {
        kind: HookKind::Amd64Ind,
        options: 7 | hook_options::NEAR,
        at,
        to: pointer,
        validation: None,
    };
    let module = || by_hand::module_with_pointers(&base, std::slice::from_ref(&hook), &[pointer]);
    let made = module();
    let [own] = &made.relocations[..] else {
        panic!("one address: {:?}", made.relocations)
    };
    assert_eq!(
        (own.at, own.kind),
        (Rva(pointer.into()), BaseRelocationKind::Address64)
    );
    let mut running = Running::new(&base);
    let [patch, later] = [made, module()].map(|module| running.load(module));
    // The loader's work: each patch has the address of its own function.
    for one in [&patch, &later] {
        let address = u64::from_le_bytes(one.read(Rva(pointer.into())).expect("its data"));
        assert_eq!(address, one.loaded.at.0 + u64::from(seven));
    }
    let other = running.base.function("other").expect("it is exported");
    let before = running.base.fixed_bytes();
    assert_eq!(other(5), 40, "old");
    while_called(other, &[40 - 80, 35 - 80], || {
        for _ in 0..10 {
            running.apply(&patch);
            assert_eq!(other(5), 35, "new");
            let place = Rva(at.into());
            let code: [u8; 8] = running.base.read(place).expect("the function");
            // What is left of the instruction is filled, and what is behind it stays.
            assert_eq!(
                (&code[..2], &code[6..]),
                (&[0xff, 0x25][..], &[0xcc, 0xc3][..])
            );
            let distance = i32::from_le_bytes([code[2], code[3], code[4], code[5]]);
            let next = running.base.loaded.at.0 + place.0 + 6;
            let through = next.wrapping_add_signed(distance.into());
            assert_eq!(through, patch.loaded.at.0 + u64::from(pointer));
            running.remove(&patch);
            assert_eq!(other(5), 40, "removed");
            assert!(running.base.fixed_bytes() == before, "byte for byte");
        }
        // Another one over it, which leads through a variable of its own.
        running.apply(&patch);
        running.apply(&later);
        assert_eq!(other(5), 35, "one over another");
        running.remove(&later);
        assert_eq!(other(5), 35, "the first alone");
        running.remove(&patch);
    });
    assert_eq!(other(5), 40, "old again");
    assert!(running.base.fixed_bytes() == before, "byte for byte");
}
