//! `.hotp1`: what `invivo inspect` and `invivo check` tell of the patches of Windows Server 2003
//! to Windows 7.

use invivo_format::final_image::{self, FileIdentity, FinalError};
use invivo_format::hotp1::{LegacyPatch, cold_mark, hook_options, is_cold, read, validation_flags};
use invivo_image::pe::PeImage;
use invivo_patch::Identity;
use schemars::JsonSchema;
use serde::Serialize;

/// The section `.hotp1`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct LegacyDump {
    /// What forbids to read it, with the rule; then the rest is empty.
    broken: Option<String>,
    /// The module that it changes.
    target: String,
    /// How the exact build of that is known, and what that gives, as the bytes in the file.
    id_method: String,
    id: String,
    /// The checksum that the target must have, in hexadecimal digits, where it is known by that.
    checksum: Option<String>,
    /// Where the fixups take the patch and the target to be.
    patch_base: String,
    target_base: String,
    fixups: Vec<FixupDump>,
    validations: Vec<ValidationDump>,
    hooks: Vec<HookDump>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FixupDump {
    at: String,
    kind: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ValidationDump {
    /// Where in the target.
    at: String,
    /// What it must have there.
    bytes: String,
    /// True if only the hook that names it looks at it.
    of_hook: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HookDump {
    /// The type's own name, or its number.
    kind: String,
    /// Where in the target.
    at: String,
    /// Where in the patch it leads; for a short jump the distance.
    to: String,
    /// Bytes that are replaced.
    length: u32,
    /// True if both images must lie within 2 GiB.
    near: bool,
    /// The validation that belongs to it, counted from 0.
    validation: Option<usize>,
}

/// What the image has of it, if anything.
pub(crate) fn dump(image: &PeImage) -> Option<LegacyDump> {
    match read(image) {
        Ok(patch) => patch.as_ref().map(shown),
        Err(error) => Some(LegacyDump {
            broken: Some(error.to_string()),
            ..LegacyDump::default()
        }),
    }
}

fn shown(patch: &LegacyPatch) -> LegacyDump {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let fixups = patch.fixups.iter().flat_map(|region| {
        region.fixups.iter().map(|fixup| FixupDump {
            at: format!("{:#x}", region.page << 12 | u32::from(fixup.offset)),
            kind: format!("{:?}", fixup.kind).to_uppercase(),
        })
    });
    let validations = patch.validations.iter().map(|validation| ValidationDump {
        at: format!("{:#x}", validation.target),
        bytes: digits(&validation.bytes),
        of_hook: validation.flags & validation_flags::HOOK_TARGET != 0,
    });
    let hooks = patch.hooks.iter().map(|hook| HookDump {
        kind: match hook.kind.name() {
            "unknown" => hook.kind.code().to_string(),
            name => name.to_owned(),
        },
        at: format!("{:#x}", hook.at),
        to: format!("{:#x}", hook.to),
        length: hook.length(),
        near: hook.options & hook_options::NEAR != 0,
        validation: hook.validation,
    });
    LegacyDump {
        broken: None,
        target: patch.target_name.clone(),
        id_method: patch.id.name().to_owned(),
        id: digits(&patch.id.value),
        checksum: (patch.id.method == 3).then(|| {
            let [a, b, c, d, ..] = patch.id.value;
            format!("{:08x}", u32::from_le_bytes([a, b, c, d]))
        }),
        patch_base: format!("{:#x}", patch.hotp_base),
        target_base: format!("{:#x}", patch.target_base),
        fixups: fixups.collect(),
        validations: validations.collect(),
        hooks: hooks.collect(),
    }
}

/// A file that was patched on disk.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct ColdDump {
    /// What is wrong with the mark or with what the file says; then the rest may be empty.
    broken: Option<String>,
    /// The checksum that it had before, in hexadecimal digits.
    checksum_before: String,
    /// What `invivo install` reads: the fix, and the file in whose place it is installed.
    #[schemars(with = "Option<serde_json::Value>")]
    identity: Option<Identity>,
    #[schemars(with = "Option<serde_json::Value>")]
    base: Option<FileIdentity>,
}

/// What a file that was patched on disk says of itself; `None` where it was not.
pub(crate) fn dump_cold(image: &PeImage) -> Option<ColdDump> {
    if !is_cold(image) {
        return None;
    }
    let mut dump = ColdDump::default();
    match cold_mark(image) {
        Ok(before) => dump.checksum_before = format!("{before:08x}"),
        Err(text) => dump.broken = Some(text),
    }
    match final_image::read(image.file()) {
        Ok(found) => {
            dump.identity = Some(found.manifest.identity);
            dump.base = Some(found.manifest.base);
        }
        // Somebody else patched it, who has no such section.
        Err(FinalError::NotFinal(_)) => {}
        Err(error) => dump.broken = Some(error.to_string()),
    }
    Some(dump)
}

/// Prints that for a person.
pub(crate) fn print_cold(dump: &ColdDump) {
    anstream::println!("\npatched on disk");
    if let Some(broken) = &dump.broken {
        anstream::println!("  {broken}");
    }
    if !dump.checksum_before.is_empty() {
        anstream::println!("  checksum before  {}", dump.checksum_before);
    }
    if let Some(identity) = &dump.identity {
        anstream::println!("  fix              {}", identity.name);
        if !identity.labels.is_empty() {
            anstream::println!("  fixes            {}", identity.labels.join(", "));
        }
    }
    if let Some(base) = &dump.base {
        let (name, sha256) = (&base.file_name, &base.sha256);
        anstream::println!("  replaces         {name}, SHA-256 {sha256}");
    }
}

/// Prints it for a person.
pub(crate) fn print(dump: &LegacyDump) {
    anstream::println!("\nhot patch (.hotp1)");
    if let Some(broken) = &dump.broken {
        anstream::println!("  {broken}");
        return;
    }
    let (target, method) = (&dump.target, &dump.id_method);
    let id = dump.checksum.as_ref().unwrap_or(&dump.id);
    anstream::println!("  for {target}, {method} {id}");
    let (patch, target) = (&dump.patch_base, &dump.target_base);
    anstream::println!("  fixups for the patch at {patch}, the target at {target}");
    for fixup in &dump.fixups {
        let padding = match fixup.kind.as_str() {
            "NONE" => ", which fills up",
            _ => "",
        };
        anstream::println!("    {:<10} {}{padding}", fixup.at, fixup.kind);
    }
    anstream::println!("  the target must have");
    for (number, validation) in dump.validations.iter().enumerate() {
        let whose = if validation.of_hook {
            ", for a hook"
        } else {
            ""
        };
        anstream::println!(
            "    {number}: {:<10} {}{whose}",
            validation.at,
            validation.bytes
        );
    }
    anstream::println!("  hooks");
    for hook in &dump.hooks {
        let near = if hook.near { ", within 2 GiB" } else { "" };
        let validation = hook
            .validation
            .map_or(String::new(), |n| format!(", validation {n}"));
        let (at, to, length) = (&hook.at, &hook.to, hook.length);
        anstream::println!(
            "    {at:<10} → {to}  {} of {length} bytes{near}{validation}",
            hook.kind
        );
    }
}
