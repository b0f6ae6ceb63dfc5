//! Payloads that count how often functions are entered, and change nothing else.
//!
//! The new code of such a function counts, runs the old function's first instructions, which the
//! jump to it lies on, and goes on behind them. When the payload is taken back Xen writes the counts to its
//! console. It takes no change of Xen; what is not proved to run elsewhere as it ran is refused.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use invivo_image::BuildId;

use super::function::JUMP;
use super::{
    Access, Contents, Function, Hook, Hypervisor, Known, Moment, New, Old, Payload, Reference,
    Relocation, RelocationKind, Section, StructureVersion, Symbol, SymbolPlace,
};

mod ways;

/// Numbers of the sections.
const CODE: u32 = 0;
const TEXTS: u32 = 1;
const COUNTS: u32 = 2;
/// What writes to Xen's console.
const PRINT: &str = "printk";

/// Why a function is not traced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{function} cannot be traced: {why}")]
pub struct TraceError {
    /// The function.
    pub function: String,
    /// What is not so, or not proved.
    pub why: String,
}

/// A payload that counts how often these functions are entered.
///
/// The names are those of Xen's own table, such as `do_sched_op` and `common/domain.c#domain_shutdown`.
/// The hypervisor is read from its `xen-syms`. The payload goes on top of what has the build id
/// `depends`; without one on top of Xen itself.
///
/// # Errors
/// The first function that cannot be traced, and why.
pub fn trace(
    xen: &Hypervisor<'_>,
    names: &[&str],
    depends: Option<&BuildId>,
) -> Result<Payload, TraceError> {
    let error = |function: &str, why: &str| TraceError {
        function: function.to_owned(),
        why: why.to_owned(),
    };
    let first = names.first().copied().unwrap_or("nothing");
    let id = xen.build_id();
    let id = id.ok_or_else(|| error(first, "the file of Xen has no build id; give xen-syms"))?;
    if xen.find(PRINT.as_bytes()).is_none() {
        return Err(error(
            first,
            "this Xen has no printk, which tells the count",
        ));
    }
    let mut made = Made::default();
    for (number, name) in names.iter().enumerate() {
        if names[..number].contains(name) {
            return Err(error(name, "it is named twice"));
        }
        made.function(xen, name).map_err(|why| error(name, &why))?;
    }
    if made.functions.is_empty() {
        return Err(error(first, "no function is named"));
    }
    Ok(made.payload(id, depends.unwrap_or(id)))
}

/// What is made so far.
#[derive(Default)]
struct Made {
    code: Vec<u8>,
    texts: Vec<u8>,
    relocations: Vec<Relocation>,
    symbols: Vec<Symbol>,
    functions: Vec<Function>,
    /// Of each function: the symbols of its text and its count.
    told: Vec<(u32, u32)>,
}

impl Made {
    fn function(&mut self, xen: &Hypervisor<'_>, name: &str) -> Result<(), String> {
        let known = xen.find(name.as_bytes()).ok_or(
            "Xen has no function of this name (a static one is called dir/file.c#name, as in \
             xen-syms.map)",
        )?;
        let (code, keeps) = ways::code(xen, known)?;
        let moved = beginning(known, code, keeps)?;
        let end = moved.last().map_or(known.address, Instruction::next_ip);
        ways::check(xen, known, known.address + keeps..end)?;

        self.code.resize(self.code.len().next_multiple_of(16), 0xcc);
        let start = self.code.len();
        let old = self.symbol(name, SymbolPlace::Xen);
        let counts = self.functions.len() as u64 * 8;
        let count = self.own(COUNTS, counts, 8);
        // pushfq; lock incq count(%rip); popfq
        self.code.extend([0x9c, 0xf0, 0x48, 0xff, 0x05]);
        self.distance(count, -4);
        self.code.push(0x9d);
        let mut decoder = Decoder::with_ip(64, code, known.address, DecoderOptions::NONE);
        for instruction in &moved {
            let from = usize::try_from(instruction.ip() - known.address).unwrap_or(usize::MAX);
            let bytes = code.get(from..from + instruction.len());
            let bytes = bytes.ok_or("its code is shorter than its size")?;
            let at = self.code.len() as u64;
            self.code.extend_from_slice(bytes);
            if instruction.is_ip_rel_memory_operand() {
                // The distance to the same place, told from the function's own beginning.
                let _ = decoder.set_position(from);
                decoder.set_ip(instruction.ip());
                let again = decoder.decode();
                let offset = decoder.get_constant_offsets(&again).displacement_offset();
                let target = instruction.ip_rel_memory_address();
                let behind = (instruction.len() - offset) as i64;
                let addend = target.wrapping_sub(known.address).cast_signed() - behind;
                self.relocate(at + offset as u64, old, addend);
            }
        }
        // jmp to what follows
        self.code.push(0xe9);
        self.distance(old, (end - known.address).cast_signed() - 4);
        let size = self.code.len() - start;
        let new = self.own(CODE, start as u64, size as u64);

        let text = format!(
            "invivo: {} was entered %lu times\n\0",
            name.replace('%', "%%")
        );
        let place = self.own(TEXTS, self.texts.len() as u64, text.len() as u64);
        self.texts.extend_from_slice(text.as_bytes());
        self.told.push((place, count));
        self.functions.push(Function {
            name: name.to_owned(),
            new: New::Code {
                code: Reference {
                    symbol: new,
                    addend: 0,
                },
                size: u32::try_from(size).unwrap_or(u32::MAX),
            },
            old: Old::Name,
            old_size: u32::try_from(known.size).map_err(|_| "it is too large")?,
            expectation: xen.expectation(known),
        });
        Ok(())
    }

    /// The function that Xen calls when the payload is taken back: it tells each count.
    fn payload(mut self, xen: &BuildId, depends: &BuildId) -> Payload {
        self.code.resize(self.code.len().next_multiple_of(16), 0xcc);
        let start = self.code.len();
        let print = self.symbol(PRINT, SymbolPlace::Xen);
        // endbr64; sub $8, %rsp
        self.code
            .extend([0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08]);
        for (text, count) in std::mem::take(&mut self.told) {
            // lea text(%rip), %rdi; mov count(%rip), %rsi; xor %eax, %eax; call printk
            self.code.extend([0x48, 0x8d, 0x3d]);
            self.distance(text, -4);
            self.code.extend([0x48, 0x8b, 0x35]);
            self.distance(count, -4);
            self.code.extend([0x31, 0xc0, 0xe8]);
            self.distance(print, -4);
        }
        // add $8, %rsp; ret
        self.code.extend([0x48, 0x83, 0xc4, 0x08, 0xc3]);
        let size = (self.code.len() - start) as u64;
        let symbol = self.own(CODE, start as u64, size);
        let section = |name: &str, access, contents, relocations| Section {
            name: name.to_owned(),
            access,
            align: 16,
            contents,
            relocations,
        };
        let counts = Contents::Zeros(self.functions.len() as u64 * 8);
        let code = Contents::Bytes(self.code);
        let texts = Contents::Bytes(self.texts);
        Payload {
            version: StructureVersion::V2,
            functions: self.functions,
            hooks: vec![Hook {
                moment: Moment::Unload,
                code: Reference { symbol, addend: 0 },
            }],
            sections: vec![
                section(".text.trace", Access::Code, code, self.relocations),
                section(".rodata.trace", Access::ReadOnly, texts, Vec::new()),
                section(".bss.trace", Access::Data, counts, Vec::new()),
            ],
            symbols: self.symbols,
            depends: depends.clone(),
            xen_depends: Some(xen.clone()),
            modinfo: Vec::new(),
        }
    }

    fn symbol(&mut self, name: &str, place: SymbolPlace) -> u32 {
        let name = name.to_owned();
        self.symbols.push(Symbol { name, place });
        u32::try_from(self.symbols.len() - 1).unwrap_or(u32::MAX)
    }

    /// A place of the payload; a name could only collide.
    fn own(&mut self, section: u32, offset: u64, size: u64) -> u32 {
        let place = SymbolPlace::Section {
            section,
            offset,
            size,
        };
        self.symbol("", place)
    }

    /// Four bytes of a distance.
    fn distance(&mut self, symbol: u32, addend: i64) {
        self.relocate(self.code.len() as u64, symbol, addend);
        self.code.extend([0; 4]);
    }

    fn relocate(&mut self, offset: u64, symbol: u32, addend: i64) {
        self.relocations.push(Relocation {
            offset,
            kind: RelocationKind::Relative32,
            to: Reference { symbol, addend },
        });
    }
}

/// The instructions that the jump will lie on.
fn beginning(known: Known, code: &[u8], keeps: u64) -> Result<Vec<Instruction>, String> {
    let mut decoder = Decoder::with_ip(64, code, known.address, DecoderOptions::NONE);
    let mut moved = Vec::new();
    let (start, mut covered) = (known.address + keeps, 0);
    if keeps > 0 {
        let _ = decoder.decode();
    }
    while covered < u64::from(JUMP) {
        if !decoder.can_decode() {
            return Err("it is too short for a jump".to_owned());
        }
        let instruction = decoder.decode();
        if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
            let at = instruction.ip() - known.address;
            return Err(format!(
                "its instruction at {at:#x} is a jump or a call, and would have to be moved"
            ));
        }
        covered = instruction.next_ip() - start;
        moved.push(instruction);
    }
    Ok(moved)
}
