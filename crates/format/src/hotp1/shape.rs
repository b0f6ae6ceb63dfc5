//! How a function of the target is led to the patch: which hooks, and what they need of it.

use std::fmt;

use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine};
use invivo_image::x86_64::instructions;
use invivo_patch::HookRoom;

use super::model::{Hook, HookKind, Validation, hook_options, validation_flags};

/// Bytes of a short jump.
const SHORT: usize = 2;

/// The usual combinations of hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookShape {
    /// `X86_JMP2B` over the first instructions of the function to an `X86_JMP` five bytes before it.
    Short,
    /// `X86_JMP2B` at the function to an `AMD64_IND` six bytes before it, which goes through a
    /// `VA64` of eight bytes before that.
    Triple,
    /// `AMD64_IND` over the first instruction, through a `VA64` eight bytes before the function.
    Indirect,
    /// `X86_JMP` over the first instructions.
    Jump,
    /// `X86_JMP` over one long instruction in the middle of the function, to the same place of the
    /// fixed one.
    Middle,
}

impl HookShape {
    /// All of them, in the order in which they are tried.
    pub const ALL: [HookShape; 5] = [
        HookShape::Short,
        HookShape::Triple,
        HookShape::Indirect,
        HookShape::Jump,
        HookShape::Middle,
    ];

    /// Its name in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HookShape::Short => "short",
            HookShape::Triple => "triple",
            HookShape::Indirect => "indirect",
            HookShape::Jump => "jump",
            HookShape::Middle => "middle",
        }
    }

    /// True if hooks of that shape run on `machine`: only code of x86-64 jumps through a place that it
    /// names by a distance.
    #[must_use]
    pub fn is_for(self, machine: PeMachine) -> bool {
        match self {
            HookShape::Triple | HookShape::Indirect => machine == PeMachine::Amd64,
            HookShape::Short | HookShape::Jump | HookShape::Middle => machine != PeMachine::Arm64,
        }
    }

    /// Those that run on `machine`, in the order in which they are tried.
    #[must_use]
    pub fn all_for(machine: PeMachine) -> Vec<HookShape> {
        let all = HookShape::ALL.into_iter();
        all.filter(|shape| shape.is_for(machine)).collect()
    }

    /// Bytes of padding that it needs before the function, and bytes that its first instruction
    /// must have.
    fn needs(self) -> (u32, usize) {
        match self {
            HookShape::Short => (5, SHORT),
            HookShape::Triple => (14, SHORT),
            HookShape::Indirect => (8, 6),
            HookShape::Jump | HookShape::Middle => (0, 5),
        }
    }

    /// Bytes of the first instructions of the function at `at` of `image` that give way to the hook.
    ///
    /// # Errors
    /// When the function cannot be hooked so; the text is for a person.
    fn check(self, image: &PeImage, at: u32, room: Option<&HookRoom>) -> Result<usize, String> {
        if !self.is_for(image.machine) {
            return Err(format!("{self} is not for {}", image.machine.name()));
        }
        let bits = image.machine.pointer_size() * 8;
        let code: [u8; 15] = image
            .array(Rva(at.into()))
            .ok_or("it is not in the image")?;
        let lengths = instructions(&code, bits);
        let first = lengths.first().map(|one| one.length);
        let first = first.ok_or("its first instruction is not known")?;
        let (pad, least) = self.needs();
        let mut ends = lengths.iter().scan(0, |end, one| {
            *end += one.length;
            Some(*end)
        });
        let moved = |from: u64, to: usize| is_moved(image, from, u64::from(at) + to as u64);
        let whole = match room {
            // What is behind the two bytes of a short jump runs no more, so the loader may change it.
            _ if first >= least && least == SHORT && moved(at.into(), first) => SHORT,
            _ if first >= least => first,
            None => {
                return Err(format!(
                    "{self} needs a first instruction of {least} bytes, it has {first}"
                ));
            }
            Some(room) => {
                let whole = ends.find(|end| *end >= least);
                let free = |end: &usize| *end as u64 <= room.free;
                whole.filter(free).ok_or_else(|| {
                    let free = room.free;
                    format!(
                        "{self} needs {least} bytes of instructions at its begin to which nothing \
                         leads, it has {free}"
                    )
                })?
            }
        };
        if room.is_some_and(|room| room.before < pad.into()) {
            return Err(format!(
                "{self} needs {pad} bytes before it that belong to nothing else"
            ));
        }
        let start = at.checked_sub(pad).ok_or("it begins with the image")?;
        let room = image
            .bytes(Rva(start.into()), pad.into())
            .unwrap_or_default();
        let free = |byte: &u8| matches!(byte, 0xcc | 0x90 | 0);
        if room.len() < pad as usize || !room.iter().all(free) {
            return Err(format!("{self} needs {pad} bytes of padding before it"));
        }
        if moved(start.into(), whole) {
            return Err(format!(
                "the loader changes the bytes that {self} is written over"
            ));
        }
        Ok(whole)
    }

    /// The hooks that lead the function at `at` of `target` to `to` of the patch, what is written
    /// first coming first, each with the bytes that it replaces.
    ///
    /// `room` is what is known around the begin of the function; without it only the first
    /// instruction gives way.
    ///
    /// # Errors
    /// When the function has no room for them; the text is for a person.
    pub fn hooks(
        self,
        target: &PeImage,
        at: u32,
        to: u32,
        room: Option<&HookRoom>,
    ) -> Result<Vec<(Hook, Validation)>, String> {
        let (at, to, whole) = match self {
            HookShape::Middle => {
                let long = middle(target, at, room)?;
                let add = |place: u32| place.checked_add(long.start).ok_or("it is too large");
                (add(at)?, add(to)?, long.len())
            }
            _ => (at, to, self.check(target, at, room)?),
        };
        let near = match target.machine {
            PeMachine::I386 => 0,
            _ => hook_options::NEAR,
        };
        let whole = u16::try_from(whole).map_err(|_| "its first instruction is too long")?;
        let short = |distance: i8| u32::from_le_bytes(i32::from(distance).to_le_bytes());
        let parts: Vec<(HookKind, u16, u32, u32)> = match self {
            HookShape::Short => vec![
                (HookKind::X86Jmp, 5 | near, at - 5, to),
                (HookKind::Jmp2B, whole, at, short(-7)),
            ],
            HookShape::Triple => vec![
                (HookKind::Va64, 8, at - 14, to),
                (HookKind::Amd64Ind, 6 | near, at - 6, to),
                (HookKind::Jmp2B, whole, at, short(-8)),
            ],
            HookShape::Indirect => vec![
                (HookKind::Va64, 8, at - 8, to),
                (HookKind::Amd64Ind, whole | near, at, to),
            ],
            HookShape::Jump | HookShape::Middle => {
                vec![(HookKind::X86Jmp, whole | near, at, to)]
            }
        };
        let hooks = parts.into_iter().map(|(kind, options, at, to)| {
            let hook = Hook {
                kind,
                options,
                at,
                to,
                validation: None,
            };
            let bytes = target.bytes(Rva(at.into()), hook.length().into());
            let validation = Validation {
                bytes: bytes.ok_or("it is not in the image")?.to_vec(),
                target: at,
                flags: validation_flags::HOOK_TARGET,
            };
            Ok((hook, validation))
        });
        hooks.collect()
    }
}

/// True if the loader changes a byte from `from` up to `to`.
fn is_moved(image: &PeImage, from: u64, to: u64) -> bool {
    image.relocations_over(Rva(from)..Rva(to)).next().is_some()
}

/// The first long instruction of the function at `at` that the loader does not change.
fn middle(
    target: &PeImage,
    at: u32,
    room: Option<&HookRoom>,
) -> Result<std::ops::Range<u32>, String> {
    let long = room.map_or(&[][..], |room| &room.long);
    let mut places = long.iter().filter_map(|long| {
        let [start, end] = [long.start, long.end].map(u32::try_from);
        Some(start.ok()?..end.ok()?)
    });
    let changed = |place: &std::ops::Range<u32>| {
        let [from, to] = [place.start, place.end].map(|there| u64::from(at) + u64::from(there));
        is_moved(target, from, to)
    };
    places.find(|place| !changed(place)).ok_or_else(|| {
        "middle needs an instruction of five bytes that the loader does not change, behind what is the \
         same in both builds and calls nothing, and to which nothing leads back"
            .to_owned()
    })
}

/// What stands before a hook in the middle of the function at `at`, in pieces that the loader leaves
/// as they are: no other patch may lead away from there, or nobody comes by this one.
pub(super) fn way_to(target: &PeImage, at: u32, hook: &Hook) -> Vec<Validation> {
    let mut pieces = Vec::new();
    let mut add = |from: u64, to: u64| {
        let bytes = target.bytes(Rva(from), to.saturating_sub(from));
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        pieces.extend(
            bytes
                .zip(u32::try_from(from).ok())
                .map(|(bytes, from)| Validation {
                    bytes: bytes.to_vec(),
                    target: from,
                    flags: 0,
                }),
        );
    };
    let (mut from, end) = (u64::from(at), u64::from(hook.at));
    for relocation in target.relocations_over(Rva(from)..Rva(end)) {
        let next = relocation.at.0 + relocation.kind.width();
        if next > from {
            add(from, relocation.at.0);
            from = next;
        }
    }
    add(from, end);
    pieces
}

impl fmt::Display for HookShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
