//! One pass over a function or another piece of code: what it refers to, and how it ends.

use std::ops::Range;

use invivo_image::x86_64::{
    self, AddressSpan, Line, Reference, ReferenceKind, Skim, Step, Traits, Visitor,
};
use invivo_image::{Entity, Image, Link, LinkAddr};

mod repeat;

use crate::constants::{guard, is_relative_table, table_targets};

/// A reference with what the comparison has to know of its instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    /// Where the instruction begins in the function.
    pub(crate) start: usize,
    /// The reference.
    pub(crate) reference: Reference,
    /// The instruction may load the address of a table of places, or an entry of one.
    pub(crate) may_be_table: bool,
    /// What is referred to is a table of distances.
    pub(crate) distances: bool,
    /// It is a table of distances, or one of places that the code jumps through; so many
    /// entries it has at least.
    pub(crate) entries: Option<u64>,
    /// Only the address is taken, by `lea`.
    pub(crate) address_only: bool,
}

/// What was found in code of one image, kept from one function to the next for its room.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Numbers may be addresses of the image, or of the one that is compared with it.
    addresses: AddressSpan,
    /// All references in order, without jumps of a function in itself.
    pub(crate) references: Vec<Outgoing>,
    /// What the tables of distances lead to, as far as their length is known.
    pub(crate) through_tables: Vec<LinkAddr>,
    /// Some byte is no instruction, or there are no bytes.
    pub(crate) odd: bool,
    /// It jumps to what a register or a place in memory holds.
    pub(crate) jumps_through: bool,
    /// It runs into what follows it.
    pub(crate) runs_on: bool,
    /// How many instructions there were.
    lines: usize,
    /// Where the last ones begin, each at its number modulo the length.
    recent: [usize; RECENT],
    loads: Vec<Load>,
    keep_own: bool,
    own: Range<LinkAddr>,
    /// Where numbers are that are no addresses, and what they are if read with and without
    /// their sign: those that may be addresses in the image that is compared with this one.
    numbers: Vec<(usize, [u64; 2])>,
    /// Where the addresses of that image are, if it has the same code.
    watched: Option<AddressSpan>,
    /// There may be more of them.
    unknown: bool,
}

/// A `lea` that may load the address of a table of distances, or a jump through a table of
/// addresses.
#[derive(Clone, Copy, Debug)]
struct Load {
    line: usize,
    /// Where what stands before it begins, in the code.
    before: usize,
    reference: usize,
    register: u8,
    /// Something near reads through the register, or the jump itself does.
    used: bool,
}

/// How many instructions behind it the use of a table is looked for.
const NEAR: usize = 15;
/// How many before it say how long the table is.
const BEFORE: usize = 8;
/// More than that, and a power of two.
const RECENT: usize = 16;

const HLT: u8 = 0xf4;

/// What is looked at of an instruction that refers to nothing.
const RARE: Traits = Traits::MOVSXD.with(Traits::THROUGH).with(Traits::DATA);

impl Scan {
    /// One for functions of `image`.
    pub(crate) fn of(image: &Image) -> Self {
        Scan {
            addresses: AddressSpan::of(image),
            ..Scan::default()
        }
    }

    /// One for code of `image` that no function owns: where it jumps in itself is kept, too, since
    /// something with a name may be there.
    pub(crate) fn of_unowned(image: &Image) -> Self {
        Scan {
            keep_own: true,
            ..Scan::of(image)
        }
    }

    /// Looks through the code of a range.
    pub(crate) fn read(&mut self, image: &Image, code: &Range<LinkAddr>) {
        self.references.clear();
        self.through_tables.clear();
        self.lines = 0;
        self.loads.clear();
        self.own = code.clone();
        self.numbers.clear();
        self.unknown = false;
        let addresses = self.addresses;
        let size = code.end.0.saturating_sub(code.start.0);
        let bytes = image.bytes(code.start, size).unwrap_or_default();
        (self.odd, self.jumps_through) = (bytes.is_empty(), false);
        let mut reading = Reading {
            scan: self,
            bytes,
            last: Skim::default(),
            last_at: 0,
        };
        x86_64::walk(image, addresses, code.start, bytes, &mut reading);
        let Reading { last, last_at, .. } = reading;
        let halts = last.len == 1 && bytes.get(last_at) == Some(&HLT);
        self.odd |=
            self.lines == 0 || image.link == Link::Rebased && !self.is_explained(image, code);
        // A call at the end of a function does not return, and no program gets past the `hlt` behind
        // the call of `main` in `_start`, which is for the kernel alone.
        self.runs_on = !halts && !last.traits.has(Traits::ENDS.with(Traits::CALL));
        self.loads.retain(|load| load.used);
        self.look_all(image, code.start, bytes);
    }

    /// True if every address in code whose addresses are all known is an operand of it.
    fn is_explained(&self, image: &Image, code: &Range<LinkAddr>) -> bool {
        let operands = self.references.iter().map(|one| one.reference.kind);
        let operands = operands.filter(|kind| *kind == ReferenceKind::Absolute);
        operands.count() == image.code_relocations.range(code.clone()).count()
    }

    /// Looks at what is loaded by code that is read or repeated.
    fn look_all(&mut self, image: &Image, at: LinkAddr, bytes: &[u8]) {
        let loads = std::mem::take(&mut self.loads);
        loads
            .iter()
            .for_each(|load| self.look(image, at, bytes, *load));
        self.loads = loads;
    }

    /// Adds an instruction that refers to something, or is one of the rare ones.
    fn add(&mut self, step: &Step, bytes: &[u8]) {
        let traits = step.skim.traits;
        let line = self.lines - 1;
        if !step.numbers.is_empty() {
            self.note_numbers(step, bytes);
        }
        let referring = step.address.is_some() || step.immediate.is_some();
        // Where a function jumps in itself is as its bytes say.
        if let (Some(to), true) = (step.address, traits.has(Traits::BRANCH)) {
            if self.keep_own || !self.own.contains(&to.target) {
                self.references.push(Outgoing::plain(step.start, to));
            }
            return;
        }
        if referring {
            let number = traits.has(Traits::MOV) && step.immediate.is_some();
            // `jmp [table+rax*8]`
            let jumps = traits.has(Traits::THROUGH) && traits.has(Traits::SCALED);
            if traits.has(Traits::LEA) || jumps {
                self.loads.push(Load {
                    line,
                    before: self.recent[line.saturating_sub(BEFORE) % RECENT],
                    reference: self.references.len(),
                    register: step.skim.register,
                    used: jumps,
                });
            }
            for reference in step.address.into_iter().chain(step.immediate) {
                self.references.push(Outgoing {
                    may_be_table: number || traits.has(Traits::LEA.with(Traits::SCALED)),
                    address_only: traits.has(Traits::LEA),
                    ..Outgoing::plain(step.start, reference)
                });
            }
        }
        if traits.has(RARE) {
            self.odd |= traits.has(Traits::DATA);
            self.jumps_through |= traits.has(Traits::THROUGH);
            if traits.has(Traits::MOVSXD) {
                let near = self.loads.iter_mut().rev();
                let near = near.take_while(|load| line - load.line <= NEAR);
                let used = near.filter(|load| load.register == step.skim.register);
                used.for_each(|load| load.used = true);
            }
        }
    }

    /// Decodes what stands around `load`, and notes what it loads if that is a table.
    fn look(&mut self, image: &Image, at: LinkAddr, bytes: &[u8], load: Load) {
        let first = load.line.saturating_sub(BEFORE);
        let Some(at) = at.checked_add(load.before as u64) else {
            return;
        };
        let count = load.line - first + NEAR + 1;
        let lines: Vec<Line> = x86_64::decode_first(image, at, &bytes[load.before..], count);
        let index = load.line - first;
        let found = &mut self.references[load.reference];
        let distances = is_relative_table(image, &lines, index);
        if distances || !found.address_only {
            found.entries = Some(guard(&lines, index).unwrap_or(0));
        }
        if distances {
            found.distances = true;
            let targets = table_targets(image, &lines, index);
            self.through_tables.extend(targets);
        }
    }
}

/// A scan while it goes through some code.
struct Reading<'s> {
    scan: &'s mut Scan,
    bytes: &'s [u8],
    /// The last instruction that does something,
    last: Skim,
    /// and where it begins.
    last_at: usize,
}

impl Visitor for &mut Reading<'_> {
    fn step(&mut self, step: &Step) {
        self.plain(step.start, step.skim);
        let referring = step.address.is_some() || step.immediate.is_some();
        if referring || step.skim.traits.has(RARE) || !step.numbers.is_empty() {
            self.scan.add(step, self.bytes);
        }
    }

    #[inline(always)]
    fn plain(&mut self, start: usize, skim: Skim) {
        if !skim.traits.has(Traits::PADDING) {
            (self.last, self.last_at) = (skim, start);
        }
        self.scan.recent[self.scan.lines % RECENT] = start;
        self.scan.lines += 1;
    }
}

impl Outgoing {
    /// One that loads no address.
    fn plain(start: usize, reference: Reference) -> Self {
        Outgoing {
            start,
            reference,
            may_be_table: false,
            distances: false,
            entries: None,
            address_only: false,
        }
    }

    /// True if it leads out of `entity` or tells somebody where that is.
    pub(crate) fn leaves(&self, entity: &Entity) -> bool {
        let to = &self.reference;
        // A function that takes its own address tells it to somebody.
        let takes = [ReferenceKind::Relative, ReferenceKind::Absolute].contains(&to.kind);
        let told = takes && to.target == entity.addr;
        told || !(entity.addr..entity.end()).contains(&to.target)
    }

    /// True for a call or a jump.
    pub(crate) fn calls(&self) -> bool {
        matches!(
            self.reference.kind,
            ReferenceKind::Call | ReferenceKind::Jump
        )
    }
}
