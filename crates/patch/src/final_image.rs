//! From a comparison of two Windows images to a final image: the fixed build
//! itself becomes the patch, so nothing is copied. What its new code reaches
//! is led back to the base: unchanged functions by redirects, variables through
//! the pointers that the compiler made for it (`__ref_…`), imports by their slots.

mod arm64;
mod cookie;
mod direct;
mod exceptions;
mod guard;
mod marked;
mod middle;
mod room;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use invivo_compare::{Comparison, Finding, Hot, Rule, Severity};
use invivo_image::x86_64::decode;
use invivo_image::{EntityId, Image, Link as Linked, LinkAddr, Machine, Rva, demangle};

use crate::{Refused, entry};
pub use arm64::hookable as arm64_entry;
pub use marked::{HotPatchMarks, Unmatched};
pub use room::HookRoom;
use walk::{Walk, Ways};

/// Two places that belong together, one in each image, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Where in the base.
    pub base: Rva,
    /// Where in the fixed image.
    pub fixed: Rva,
    /// The function or variable.
    pub name: String,
}

/// What makes the fixed build a patch of a running base. Each list is in order of place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalPlan {
    /// Functions of the base that are replaced by those of the fixed image.
    pub replaced: Vec<Link>,
    /// Functions of the fixed image whose callers are led to the base: they did not change.
    pub unchanged: Vec<Link>,
    /// Pointers of the fixed image (`fixed`) that must hold the address of a variable of the
    /// base (`base`).
    pub variables: Vec<Link>,
    /// Import slots of the fixed image, and its security cookie, that get what the base's hold.
    pub imports: Vec<Link>,
    /// Code of the fixed image that runs: functions that are replaced or new, and copies of
    /// others that cannot be led to the base and need nothing of it.
    pub code: Vec<Range<Rva>>,
    /// What the fixed image exports by a name that the base has not, and the base has under another
    /// one. What is only in the fixed image is not here. Planned for files alone.
    pub exports: Vec<Link>,
    /// Words of a fixed image for x86 (`fixed`), in code and in data, that must hold the address of a
    /// place of the base (`base`).
    pub addresses: Vec<Link>,
    /// Distances at the end of instructions of a fixed image (`fixed`), four bytes each, that must lead
    /// to a place of the base (`base`): calls and jumps of code for x86, and reads of the security
    /// cookie.
    pub calls: Vec<Link>,
    /// What is around the begin of each function that is replaced, by its place in the base.
    /// Planned where its code need not be compiled for hooks.
    pub rooms: BTreeMap<Rva, HookRoom>,
}

/// Plans a file that is patched on disk: what else is exported then is part of it.
///
/// # Errors
/// As [`plan_final`].
pub fn plan_cold(c: &Comparison<'_>) -> Result<FinalPlan, Refused> {
    plan(
        c,
        ways(c),
        Form {
            exports: true,
            one_step: true,
        },
    )
}

/// Plans a patch module of older Windows (`.hotp1`).
///
/// Code for x86 is led to the base place by place, as its base relocations tell all of them. The base's
/// functions need no room for hooks that the entry itself does not have: all hooks are written in one
/// step, while nobody is between the instructions that they take the place of.
///
/// # Errors
/// As [`plan_final`].
pub fn plan_module(c: &Comparison<'_>) -> Result<FinalPlan, Refused> {
    plan(
        c,
        ways(c),
        Form {
            exports: false,
            one_step: true,
        },
    )
}

fn ways(c: &Comparison<'_>) -> Ways {
    match c.fixed.link {
        Linked::Rebased => Ways::Direct,
        _ => Ways::Pointers,
    }
}

/// Plans a final image.
///
/// # Errors
/// When there is nothing to patch, or when something is not proved safe; every reason is in
/// the error.
pub fn plan_final(c: &Comparison<'_>) -> Result<FinalPlan, Refused> {
    plan(
        c,
        Ways::Pointers,
        Form {
            exports: false,
            one_step: false,
        },
    )
}

/// What the plan is for.
struct Form {
    /// What is exported anew is part of it.
    exports: bool,
    /// Hooks are written while nobody runs, so that they may take the place of several instructions.
    one_step: bool,
}

fn plan(c: &Comparison<'_>, ways: Ways, form: Form) -> Result<FinalPlan, Refused> {
    let refused = c.findings.iter().filter(|f| f.severity == Severity::Refuse);
    let refused: Vec<Finding> = refused.cloned().collect();
    if !refused.is_empty() {
        return Err(Refused::Findings(refused));
    }
    if c.hot.is_empty() {
        return Err(Refused::Unchanged);
    }
    if c.fixed.machine == Machine::Aarch64 && form.one_step {
        let text = "is for ARM64, which older Windows never ran on: no patch module, and no file, is \
                    patched so; build a final image (without --format)";
        let finding = Finding::refuse(Rule::Binding, "the image", text);
        return Err(Refused::Findings(vec![finding]));
    }
    let read = |image: &Image| {
        image.windows().map_err(|error| {
            let finding = Finding::refuse(Rule::Binding, "the image", error.to_string());
            Refused::Findings(vec![finding])
        })
    };
    let (of_base, of_fixed) = (read(c.base)?, read(c.fixed)?);
    let mut walk = Walk::new(c, (ways, form.one_step), &of_fixed);
    walk.imports();
    for hot in &c.hot {
        walk.visit(hot.fixed.main, &hot.name);
    }
    let exports = if form.exports {
        walk.exports()
    } else {
        Vec::new()
    };
    walk.finish();
    walk.guarded(&of_base);
    let (base, fixed) = (c.base, c.fixed);
    let exports = exports.into_iter().map(|(old, new)| {
        let name = demangle(fixed.entity(new).name());
        let (old, new) = (base.entity(old).addr, fixed.entity(new).addr);
        link(base, old, fixed, new, &name)
    });
    let exports: Vec<Option<Link>> = exports.collect();
    let (mut replaced, mut rooms) = (Vec::new(), BTreeMap::new());
    for hot in &c.hot {
        let (old, new) = (hot.base.main, hot.fixed.main);
        let lives = if form.exports {
            Ok(())
        } else {
            not_again(c, hot)
        };
        let known = match form.one_step {
            _ if lives.is_err() => lives,
            false => hookable(base, old),
            true => HookRoom::of(c, hot, (&of_base, &of_fixed)).map(|room| {
                let at = base.rva(base.entity(old).addr);
                rooms.extend(at.map(|at| (at, room)));
            }),
        };
        if let Err(text) = known {
            walk.refuse(Rule::Hook, &hot.name, text);
        }
        replaced.push(link(
            base,
            base.entity(old).addr,
            fixed,
            fixed.entity(new).addr,
            &hot.name,
        ));
    }
    let unchanged = std::mem::take(&mut walk.unchanged);
    let unchanged = unchanged.into_iter().map(|(new, old)| {
        let name = demangle(fixed.entity(new).name());
        link(
            base,
            base.entity(old).addr,
            fixed,
            fixed.entity(new).addr,
            &name,
        )
    });
    let unchanged: Vec<Option<Link>> = unchanged.collect();
    let places = |places: &BTreeMap<LinkAddr, (LinkAddr, String)>| -> Vec<Option<Link>> {
        let links = places.iter();
        links
            .map(|(new, (old, name))| link(base, *old, fixed, *new, name))
            .collect()
    };
    let (variables, imports) = (places(&walk.variables), places(&walk.slots));
    let (addresses, calls) = (places(&walk.addresses), places(&walk.calls));
    if !walk.refused.is_empty() {
        return Err(Refused::Findings(walk.refused));
    }
    let whole = |links: Vec<Option<Link>>| -> Result<Vec<Link>, Refused> {
        let links: Option<Vec<Link>> = links.into_iter().collect();
        let mut links = links.ok_or_else(|| {
            let text = "a place before the image";
            Refused::Findings(vec![Finding::refuse(Rule::Binding, "the image", text)])
        })?;
        links.sort();
        Ok(links)
    };
    let code = walk.seen.iter().filter_map(|id| {
        let entity = fixed.entity(*id);
        let start = fixed.rva(entity.addr)?;
        Some(start..start.checked_add(entity.size)?)
    });
    let mut code: Vec<Range<Rva>> = code.collect();
    code.sort_by_key(|range| (range.start, range.end));
    Ok(FinalPlan {
        code,
        replaced: whole(replaced)?,
        unchanged: whole(unchanged)?,
        variables: whole(variables)?,
        imports: whole(imports)?,
        exports: whole(exports)?,
        addresses: whole(addresses)?,
        calls: whole(calls)?,
        rooms,
    })
}

fn link(base: &Image, old: LinkAddr, fixed: &Image, new: LinkAddr, name: &str) -> Option<Link> {
    Some(Link {
        base: base.rva(old)?,
        fixed: fixed.rva(new)?,
        name: name.to_owned(),
    })
}

/// Bytes before a function that the jump is written over.
const PAD: u64 = 5;

/// Whether the two-step jump can be written: five bytes of padding before the function, a first
/// instruction of two bytes or more, and nothing that jumps between them.
fn hookable(image: &Image, id: EntityId) -> Result<(), String> {
    if image.machine == Machine::Aarch64 {
        return arm64::hookable(image, id);
    }
    let entity = image.entity(id);
    let remedy = "; build it with -fms-hotpatch and link it with /functionpadmin:6";
    let pad = entity.addr.0.checked_sub(PAD).map(LinkAddr);
    let pad = pad.and_then(|at| image.bytes(at, PAD));
    let is_pad = |byte: &u8| matches!(byte, 0xcc | 0x90 | 0);
    if !pad.is_some_and(|pad| pad.iter().all(is_pad)) {
        return Err(format!("there is no padding before it{remedy}"));
    }
    let before = entity.addr.0 - 1;
    if image.entity_at(LinkAddr(before)).is_some() {
        return Err(format!("what is before it is no padding{remedy}"));
    }
    let lines = decode(image, entity).ok_or("its code is not all instructions")?;
    if lines.first().is_none_or(|line| line.instruction.len() < 2) {
        return Err(format!("its first instruction has one byte{remedy}"));
    }
    let inside = |at: LinkAddr| entity.addr.0 < at.0 && at.0 < entity.addr.0 + 2;
    let mut references = lines.iter().flat_map(|line| line.references());
    if references.any(|reference| inside(reference.target)) {
        return Err("it jumps between its first two bytes".to_owned());
    }
    Ok(())
}

/// Whether no frame inside the running function may meet the jump that leads away from it. Nobody
/// looks for one: threads go on while it is written, or stand only for that moment.
fn not_again(c: &Comparison<'_>, hot: &Hot) -> Result<(), String> {
    let again = entry::leads_back(c.base, &c.base_usage, &hot.base);
    match again.ok_or("its code is not all instructions")? {
        false => Ok(()),
        true => Err(
            "it jumps back to its own first instruction, where the jump to the new code would be: who \
             is inside would go on in the new function half-way; give it something to do before its \
             loop, or patch the file (--format cold)"
                .to_owned(),
        ),
    }
}

/// Names that are in one set and not in the other.
fn beyond<'a>(these: &BTreeSet<&'a str>, those: &BTreeSet<&'a str>) -> Vec<&'a str> {
    these.difference(those).copied().collect()
}
