//! Where each part of a patch goes in the target, and what it holds there.
//!
//! ```text
//! r-x  record │ code │ landing stubs, callouts' stubs │ constants, unwind data
//! rw-  registration of unwind data │ words of callouts │ variables
//! ```

use std::ops::Range;

use invivo_image::LiveAddr;
use invivo_patch::{Patch, SectionKind, SymbolPlace};

use crate::callouts::{self, Callouts, Placed};
use crate::x86_64::Choice;
use crate::{ApplyError, FunctionRecord, refused};

const PAGE: u64 = 0x1000;
/// What the language's runtime keeps about registered unwind data, with room to spare
/// (`struct object` of libgcc: 48 bytes).
const REGISTRATION: u64 = 128;

/// Offsets of a patch's parts, before its place is known.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) record: u64,
    sections: Vec<u64>,
    stubs: Vec<Option<u64>>,
    /// Stubs of the callouts.
    callouts: Vec<u64>,
    /// Bytes of code and constants, with the record: whole pages.
    pub(crate) region: u64,
    /// Bytes of variables: whole pages.
    pub(crate) data: u64,
    /// Words of the callouts.
    words: u64,
}

impl Shape {
    pub(crate) fn new(patch: &Patch, hooks: &[Choice], record: u64) -> Result<Shape, ApplyError> {
        let mut shape = Shape {
            record,
            sections: vec![0; patch.contents.sections.len()],
            stubs: Vec::new(),
            callouts: Vec::new(),
            region: record,
            data: 0,
            words: 0,
        };
        let mut at = record;
        let order = [
            SectionKind::Text,
            SectionKind::ReadOnly,
            SectionKind::Unwind,
        ];
        for kind in order {
            at = shape.place(patch, kind, at)?;
            if kind == SectionKind::Text {
                for hook in hooks {
                    let dummy = (LiveAddr(0x1000), LiveAddr(0x1000));
                    let stub = hook
                        .landing_stub(dummy.0, dummy.1)
                        .filter(|_| hook.needs_stub());
                    shape.stubs.push(stub.as_ref().map(|_| at));
                    at += stub.map_or(0, |code| code.len() as u64);
                }
                for _ in &patch.callouts {
                    shape.callouts.push(at);
                    at += callouts::STUB;
                }
            }
        }
        shape.region = at.next_multiple_of(PAGE);
        let registered = patch
            .contents
            .sections
            .iter()
            .any(|s| s.kind == SectionKind::Unwind);
        let words = if patch.callouts.is_empty() {
            0
        } else {
            callouts::WORDS
        };
        let first = shape.region + if registered { REGISTRATION } else { 0 } + words;
        shape.words = first - words;
        let end = shape.place(patch, SectionKind::Data, first)?;
        shape.data = (end - shape.region).next_multiple_of(PAGE);
        Ok(shape)
    }

    fn place(&mut self, patch: &Patch, kind: SectionKind, mut at: u64) -> Result<u64, ApplyError> {
        let sections = patch.contents.sections.iter().zip(&mut self.sections);
        for (section, place) in sections.filter(|(section, _)| section.kind == kind) {
            at = at.next_multiple_of(section.align);
            *place = at;
            at += section.bytes.len() as u64;
        }
        // The model bounds the sum of all sections.
        if at > 1 << 31 {
            refused("the patch is too large")
        } else {
            Ok(at)
        }
    }
}

/// A patch laid out at its place.
#[derive(Debug)]
pub struct Layout {
    /// Code and constants.
    pub region: Range<LiveAddr>,
    /// Variables; empty if there are none.
    pub data: Range<LiveAddr>,
    /// Bytes at the start of the region that the record takes.
    pub record: u64,
    /// What follows the record.
    pub contents: Vec<u8>,
    /// What the variables start with.
    pub variables: Vec<u8>,
    /// Where each hook leads.
    pub destinations: Vec<LiveAddr>,
    /// The functions that are called before and after.
    pub callouts: Option<Callouts>,
    /// Where the unwind data start.
    pub unwind: Option<LiveAddr>,
    /// Bytes of unwind data.
    pub unwind_size: u64,
    /// The patch's own functions.
    pub functions: Vec<FunctionRecord>,
}

impl Layout {
    pub(crate) fn new(
        patch: &Patch,
        shape: &Shape,
        start: LiveAddr,
        module: LiveAddr,
        imported: &[LiveAddr],
        hooks: &[(u32, &Choice)],
    ) -> Result<Layout, ApplyError> {
        let place = |offset: u64| LiveAddr(start.0 + offset);
        let region = start..place(shape.region);
        let data = region.end..place(shape.region + shape.data);
        let mut image = vec![0u8; usize_of(shape.region + shape.data)?];
        let mut imported = imported.iter();
        let symbols: Vec<LiveAddr> = patch
            .contents
            .symbols
            .iter()
            .map(|symbol| match symbol.place {
                SymbolPlace::Base(rva) => module.checked_add(rva.0),
                SymbolPlace::Import(_) => imported.next().copied(),
                SymbolPlace::Patch {
                    section, offset, ..
                } => place(shape.sections[section as usize]).checked_add(offset),
            })
            .collect::<Option<_>>()
            .ok_or_else(|| {
                ApplyError::Refused("a binding lies behind the address space".to_owned())
            })?;
        for (section, offset) in patch.contents.sections.iter().zip(&shape.sections) {
            let from = usize_of(*offset)?;
            let bytes = &mut image[from..from + section.bytes.len()];
            bytes.copy_from_slice(&section.bytes);
            for relocation in &section.relocations {
                let value = symbols[relocation.symbol as usize].checked_offset(relocation.addend);
                let at = place(offset + relocation.offset);
                let field = usize_of(relocation.offset)?;
                let written = value.and_then(|value| relocation.kind.bytes(value.0, at.0));
                let written = written.ok_or_else(|| {
                    let name = &patch.contents.symbols[relocation.symbol as usize].name;
                    ApplyError::Refused(format!("{} cannot reach {name}", section.name))
                })?;
                bytes[field..field + written.len()].copy_from_slice(&written);
            }
        }
        let mut destinations = Vec::new();
        for ((replacement, choice), stub) in hooks.iter().zip(&shape.stubs) {
            let function = symbols[*replacement as usize];
            let Some(offset) = stub else {
                destinations.push(function);
                continue;
            };
            let code = choice.landing_stub(place(*offset), function);
            let code =
                code.ok_or_else(|| ApplyError::Refused("a landing stub is too far".to_owned()))?;
            let from = usize_of(*offset)?;
            image[from..from + code.len()].copy_from_slice(&code);
            destinations.push(place(*offset));
        }
        let words = place(shape.words);
        let mut all = Vec::new();
        for (callout, offset) in patch.callouts.iter().zip(&shape.callouts) {
            let (stub, moment) = (place(*offset), callout.moment);
            let code = callouts::stub(
                stub,
                Callouts::place(words, moment),
                symbols[callout.symbol as usize],
            );
            let code =
                code.ok_or_else(|| ApplyError::Refused("a callout is too far".to_owned()))?;
            let from = usize_of(*offset)?;
            image[from..from + code.len()].copy_from_slice(&code);
            let function = callout.function.clone();
            all.push(Placed {
                moment,
                function,
                stub,
            });
        }
        let callouts = (!all.is_empty()).then_some(Callouts { words, all });
        let mut unwind = patch.contents.sections.iter().zip(&shape.sections);
        let unwind = unwind.find(|(s, _)| s.kind == SectionKind::Unwind);
        let unwind_size = unwind.map_or(0, |(section, _)| section.bytes.len() as u64);
        let unwind = unwind.map(|(_, at)| place(*at));
        let variables = image.split_off(usize_of(shape.region)?);
        let contents = image.split_off(usize_of(shape.record)?);
        Ok(Layout {
            region,
            data,
            record: shape.record,
            contents,
            variables,
            destinations,
            callouts,
            unwind,
            unwind_size,
            functions: functions(patch, &symbols),
        })
    }
}

/// The functions of the patch at their places.
fn functions(patch: &Patch, symbols: &[LiveAddr]) -> Vec<FunctionRecord> {
    let contents = &patch.contents;
    let all = contents.symbols.iter().zip(symbols);
    all.filter_map(|(symbol, at)| match symbol.place {
        SymbolPlace::Patch { section, size, .. } => {
            let kind = contents.sections[section as usize].kind;
            let named = kind == SectionKind::Text && size > 0 && !symbol.name.is_empty();
            named.then(|| FunctionRecord {
                name: symbol.name.clone(),
                at: *at,
                size,
            })
        }
        SymbolPlace::Base(_) | SymbolPlace::Import(_) => None,
    })
    .collect()
}

fn usize_of(value: u64) -> Result<usize, ApplyError> {
    usize::try_from(value).map_err(|_| ApplyError::Refused("the patch is too large".to_owned()))
}
