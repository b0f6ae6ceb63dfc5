//! Payloads that chance spoils, the same ones in each run.

use invivo_format::livepatch::{Access, Contents, Section};

use crate::base::{Case, Xen, file};

const COUNT: u64 = 220;

/// Numbers without a pattern (xorshift); `state` is not 0.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A payload with one or two bytes changed, for each number.
pub(crate) fn cases(xen: &Xen) -> Vec<Case> {
    let mut payload = xen.payload();
    payload.modinfo.push("chance=1".to_owned());
    payload.sections.push(Section {
        name: ".bug_frames.1".to_owned(),
        access: Access::ReadOnly,
        align: 4,
        contents: Contents::Bytes(vec![0; 16]),
        relocations: Vec::new(),
    });
    let sound = file(&payload);
    let mut state = 0x2545_f491_4f6c_dd1d;
    let spoiled = (0..COUNT).map(|number| {
        let mut spoiled = sound.clone();
        let mut changes = String::new();
        for _ in 0..=number % 2 {
            let at = usize::try_from(next(&mut state) % sound.len() as u64).unwrap_or(0);
            let value = next(&mut state) as u8;
            // Small numbers are what most fields hold.
            let value = match next(&mut state) % 3 {
                0 => value % 16,
                1 => spoiled[at] ^ 1 << (value % 8),
                _ => value,
            };
            changes.push_str(&format!(" {at:#x}={value:#x}"));
            spoiled[at] = value;
        }
        Case::new(&format!("chance{number}{changes}"), None, spoiled)
    });
    spoiled.collect()
}
