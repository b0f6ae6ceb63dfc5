//! Words of patch modules that depend on where both images are: what each becomes, and which cannot hold
//! how far the images are from each other.

use invivo_format::hotp1::{FixupKind, LegacyPatch, Places};
use invivo_image::pe::PeMachine;

const TARGET: u64 = 0x1_8000_0000;
const PATCH: u64 = 0x1_9000_0000;

/// What a word becomes where the target was moved by `target` and the patch by `patch`.
fn fixed(
    machine: PeMachine,
    kind: FixupKind,
    word: &[u8],
    target: u64,
    patch: u64,
) -> Option<Vec<u8>> {
    let model = LegacyPatch {
        target_base: TARGET,
        hotp_base: PATCH,
        ..LegacyPatch::default()
    };
    let places = Places {
        machine,
        target: TARGET.wrapping_add(target),
        patch: PATCH.wrapping_add(patch),
    };
    model.fixed_up(kind, word, &places)
}

fn wide(kind: FixupKind, word: &[u8], target: u64, patch: u64) -> Option<Vec<u8>> {
    fixed(PeMachine::Amd64, kind, word, target, patch)
}

fn back(by: u64) -> u64 {
    0_u64.wrapping_sub(by)
}

#[test]
fn each_kind_of_word() {
    let word = 0x1_8000_1000_u64.to_le_bytes();
    let moved = |by: u64| Some(0x1_8000_1000_u64.wrapping_add(by).to_le_bytes().to_vec());
    // An address follows the target alone, a distance both.
    assert_eq!(wide(FixupKind::Va64, &word, 0x5000, 0x7000), moved(0x5000));
    assert_eq!(
        wide(FixupKind::Va64, &word, back(0x5000), 0),
        moved(back(0x5000))
    );
    assert_eq!(
        wide(FixupKind::Pc64, &word, 0x5000, 0x7000),
        moved(back(0x2000))
    );
    assert_eq!(wide(FixupKind::Pc64, &word, 0x5000, 0x5000), moved(0));
    let far = 0x7fff_0000_0000_u64;
    assert_eq!(
        wide(FixupKind::Pc64, &word, far, 0),
        moved(far),
        "no distance is too far"
    );
    let word = 0x1000_u32.to_le_bytes();
    let moved = |value: u32| Some(value.to_le_bytes().to_vec());
    assert_eq!(wide(FixupKind::Va32, &word, 0x5000, 0x7000), moved(0x6000));
    let nearer = 0x1000_u32.wrapping_sub(0x2000);
    assert_eq!(wide(FixupKind::Pc32, &word, 0x5000, 0x7000), moved(nearer));
    assert_eq!(wide(FixupKind::None, &[], 1, 2), Some(Vec::new()));
}

/// What a word of 32 bits cannot hold is refused at its very limit; on x86 addresses wrap around.
#[test]
fn words_that_are_too_short() {
    let top = u32::MAX.to_le_bytes();
    let zero = [0; 4];
    for (kind, word, target, patch, fits) in [
        (FixupKind::Va32, &top, 0, 0, true),
        (FixupKind::Va32, &top, 1, 0, false),
        (FixupKind::Va32, &zero, u64::from(u32::MAX), 0, true),
        (FixupKind::Va32, &zero, 1 << 32, 0, false),
        (FixupKind::Va32, &zero, back(1), 0, false),
        (FixupKind::Pc32, &zero, 0x7fff_ffff, 0, true),
        (FixupKind::Pc32, &zero, 0x8000_0000, 0, false),
        (FixupKind::Pc32, &zero, 0, 0x8000_0000, true),
        (FixupKind::Pc32, &zero, 0, 0x8000_0001, false),
        (FixupKind::Pc32, &top, 0x8000_0000, 0, true),
    ] {
        let when = format!("{kind:?} {word:x?} {target:#x} {patch:#x}");
        assert_eq!(wide(kind, word, target, patch).is_some(), fits, "{when}");
        let narrow = fixed(PeMachine::I386, kind, word, target, patch);
        assert!(narrow.is_some(), "{when}: on x86 it wraps around");
    }
    // A word that has another size than its kind says is none.
    assert_eq!(wide(FixupKind::Va64, &zero, 0, 0), None);
    assert_eq!(wide(FixupKind::Va32, &[0; 8], 0, 0), None);
}
