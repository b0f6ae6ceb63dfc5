//! The rules B05–B16, held against a patch module and, where it is at hand, its target.

use std::collections::HashSet;
use std::ops::Range;

use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine};

use super::model::{FixupKind, Hook, HookKind, LegacyPatch, hook_options, validation_flags};
use super::{Hotp1Error, MARK, Rule};

/// Something that breaks a rule, so that the patch must not be used.
pub type Finding = Hotp1Error;

/// Findings that are told; a broken file could have millions.
const MOST_FINDINGS: usize = 100;
/// Bytes of validations that hooks may name in all, however small the patch is.
const NAMED: usize = 16 << 20;

/// `HOTPATCH_DEBUG_SIGNATURE.Signature` of a hot patch.
const HOT: u16 = 0xd201;
/// Bytes that such a mark has.
const HOT_SIZE: u32 = 4;

/// Holds `patch`, which was read from `image`, against every rule; those about the target only
/// where that is given.
#[must_use]
pub fn validate(image: &PeImage, patch: &LegacyPatch, target: Option<&PeImage>) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    fixups(&mut findings, image, patch);
    validations(&mut findings, patch, target);
    hooks(&mut findings, image, patch, target);
    identity(&mut findings, patch, target);
    mark(&mut findings, image);
    let Findings(mut found) = findings;
    found.sort_by_key(|finding| finding.rule);
    found
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: Rule, text: String) {
        if self.0.len() < MOST_FINDINGS {
            self.0.push(Finding::new(rule, text));
        }
    }

    /// Adds a finding for each two of `places` that meet.
    fn overlaps(&mut self, rule: Rule, what: &str, mut places: Vec<Range<u64>>) {
        places.retain(|place| !place.is_empty());
        places.sort_by_key(|place| (place.start, place.end));
        for pair in places.windows(2).filter(|pair| pair[1].start < pair[0].end) {
            let (one, other) = (pair[0].start, pair[1].start);
            self.add(
                rule,
                format!("{what} at {one:#x} and {other:#x} change the same byte"),
            );
        }
    }
}

fn fixups(findings: &mut Findings, image: &PeImage, patch: &LegacyPatch) {
    let mut places = Vec::new();
    for region in &patch.fixups {
        let used = region
            .fixups
            .iter()
            .rposition(|f| f.kind != FixupKind::None);
        let used = used.map_or(0, |last| last + 1);
        let inside = region.fixups[..used].iter();
        if inside.clone().any(|f| f.kind == FixupKind::None) || region.fixups.len() > used + 1 {
            let text = format!(
                "page {:#x} has fixups of type 0 that fill up nothing",
                region.page
            );
            findings.add(Rule::B05, text);
        }
        for fixup in inside.filter(|fixup| fixup.kind != FixupKind::None) {
            let at = u64::from(region.page) << 12 | u64::from(fixup.offset);
            let width = u64::from(fixup.kind.width());
            if image.bytes(Rva(at), width).is_none() {
                findings.add(
                    Rule::B06,
                    format!("the fixup at {at:#x} is not in the patch"),
                );
            }
            if width == 8 && image.machine == PeMachine::I386 {
                findings.add(Rule::B06, format!("the fixup at {at:#x} has 64 bits"));
            }
            places.push(at..at + width);
        }
    }
    findings.overlaps(Rule::B06, "fixups", places);
}

fn validations(findings: &mut Findings, patch: &LegacyPatch, target: Option<&PeImage>) {
    let Some(target) = target else { return };
    for validation in &patch.validations {
        let (at, size) = (validation.target, validation.bytes.len() as u64);
        let Some(bytes) = target.bytes(Rva(at.into()), size) else {
            let text = format!("the {size} bytes at {at:#x} are not in the target");
            findings.add(Rule::B07, text);
            continue;
        };
        if bytes != validation.bytes {
            let whose = match validation.flags & validation_flags::HOOK_TARGET {
                0 => "a validation",
                _ => "a hook",
            };
            let text = format!("the target has other bytes at {at:#x} than {whose} wants");
            findings.add(Rule::B07, text);
        }
    }
}

fn hooks(findings: &mut Findings, image: &PeImage, patch: &LegacyPatch, target: Option<&PeImage>) {
    if patch.hooks.is_empty() {
        findings.add(Rule::B03, "there are no hooks".to_owned());
    }
    let (mut places, mut named) = (Vec::new(), 0_usize);
    // Where hooks are that jump to the patch. A hostile file has as many as fit into it, so nothing is
    // looked for among all of them.
    let jumps = |kind| matches!(kind, HookKind::X86Jmp | HookKind::Amd64Ind);
    let jumps = patch.hooks.iter().filter(|hook| jumps(hook.kind));
    let jumps: HashSet<i64> = jumps.map(|hook| hook.at.into()).collect();
    for hook in &patch.hooks {
        let (at, name, length) = (hook.at, hook.kind.name(), hook.length());
        if !hook.kind.is_for(image.machine) {
            let machine = image.machine.name();
            let code = hook.kind.code();
            let text = format!("the hook at {at:#x} is {name} ({code}), not one for {machine}");
            findings.add(Rule::B08, text);
        }
        let least = hook.kind.least();
        if length < least {
            let text = format!("the hook at {at:#x} replaces {length} bytes, {name} needs {least}");
            findings.add(Rule::B09, text);
        }
        let end = u64::from(at) + u64::from(length.max(1));
        if target.is_some_and(|target| end > u64::from(target.size)) {
            findings.add(
                Rule::B03,
                format!("the hook at {at:#x} is not in the target"),
            );
        }
        named += hook
            .validation
            .and_then(|number| patch.validations.get(number))
            .map_or(0, |validation| validation.bytes.len());
        places.push(at.into()..end);
        reach(findings, image, hook);
        covered(findings, patch, hook);
        if hook.kind == HookKind::Jmp2B {
            let distance = i64::from(hook.to.to_le_bytes()[0].cast_signed());
            let to = i64::from(at) + 2 + distance;
            if !jumps.contains(&to) {
                let text = format!(
                    "the short jump at {at:#x} leads to {to:#x}, where no hook is that jumps to the patch"
                );
                findings.add(Rule::B13, text);
            }
        }
    }
    // Each is read for each hook that names it.
    let held = image.file().len();
    if named > held.max(NAMED) {
        let text = format!(
            "the validations that hooks name have {named} bytes in all, more than the patch ({held})"
        );
        findings.add(Rule::B12, text);
    }
    findings.overlaps(Rule::B10, "hooks", places);
}

/// Whether what is written can lead to the patch wherever that is loaded.
fn reach(findings: &mut Findings, image: &PeImage, hook: &Hook) {
    let (at, to) = (hook.at, hook.to);
    let number = matches!(hook.kind, HookKind::Jmp2B | HookKind::Amd64Cnt);
    if !number && to >= image.size {
        let text = format!("the hook at {at:#x} leads to {to:#x}, which is not in the patch");
        findings.add(Rule::B03, text);
    }
    let wide = image.machine != PeMachine::I386;
    let near = hook.options & hook_options::NEAR != 0;
    match hook.kind {
        HookKind::X86Jmp | HookKind::Amd64Ind if wide && !near => {
            let text = format!("the hook at {at:#x} does not ask for a patch within 2 GiB");
            findings.add(Rule::B11, text);
        }
        HookKind::Va32 if wide => {
            let text = format!("the hook at {at:#x} has 32 bits, addresses have 64");
            findings.add(Rule::B11, text);
        }
        _ => {}
    }
}

fn covered(findings: &mut Findings, patch: &LegacyPatch, hook: &Hook) {
    let named = hook
        .validation
        .and_then(|number| patch.validations.get(number));
    let Some(validation) = named else { return };
    let start = u64::from(validation.target);
    let end = start + validation.bytes.len() as u64;
    let at = u64::from(hook.at);
    if at < start || at + u64::from(hook.length()) > end {
        let text = format!("the validation of the hook at {at:#x} is about {start:#x} to {end:#x}");
        findings.add(Rule::B12, text);
    }
}

fn identity(findings: &mut Findings, patch: &LegacyPatch, target: Option<&PeImage>) {
    let id = &patch.id;
    if id.method == 3 {
        let mut checksum = [0; 4];
        checksum.copy_from_slice(&id.value[..4]);
        let checksum = u32::from_le_bytes(checksum);
        if checksum == 0 {
            let text =
                "the checksum 0 is that of every file without one; link the target with /release";
            findings.add(Rule::B14, text.to_owned());
        }
        if id.value[4..].iter().any(|byte| *byte != 0) {
            findings.add(Rule::B14, "bytes stand behind the checksum".to_owned());
        }
        if let Some(found) = target
            .map(|target| target.checksum)
            .filter(|f| *f != checksum)
        {
            let text = format!("the target has the checksum {found:#x}, {checksum:#x} is wanted");
            findings.add(Rule::B14, text);
        }
    } else {
        let text = format!("the method {} ({}) cannot be checked", id.name(), id.method);
        findings.add(Rule::B14, text);
    }
    if patch.target_name.contains(['/', '\\', ':']) {
        findings.add(
            Rule::B15,
            format!("the name {} has a folder", patch.target_name),
        );
    }
}

fn mark(findings: &mut Findings, image: &PeImage) {
    for entry in image.debug.iter().filter(|entry| entry.kind == MARK) {
        let whole = entry.size >= HOT_SIZE;
        let found = image.word(entry.at).filter(|_| whole);
        let found = found.map(|word| (word >> 16) as u16);
        if found != Some(HOT) {
            let found = found.map_or("nothing".to_owned(), |found| format!("{found:#x}"));
            let text = format!("the mark is {found}, that of a hot patch {HOT:#x}");
            findings.add(Rule::B16, text);
        }
    }
}
