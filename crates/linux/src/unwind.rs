//! Strict unwinding of a standing thread: a frame is proved by the call frame
//! information of its module, or it is not known.
//!
//! Guessing (frame pointers, scanning for return addresses) is the tempting wrong
//! way: it leaves out the very function that is being executed when that one has
//! no frame yet.

use std::collections::HashMap;
use std::rc::Rc;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianRcSlice, EvaluationResult, Expression,
    LittleEndian, Location, ParsedEhFrameHdr, Register, RegisterRule, UnwindContext, UnwindSection,
    Value,
};
use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use libc::user_regs_struct;

use crate::Process;
use crate::memory::Memory;
use crate::modules::Loaded;
use crate::stack_cache::StackCache;

type Bytes = EndianRcSlice<LittleEndian>;

/// DWARF's number of the stack pointer.
const RSP: u16 = 7;
/// DWARF's number of the return address.
const RIP: u16 = 16;
/// Registers that a function gives back as it found them: rbx, rbp, r12 to r15.
const PRESERVED: [u16; 6] = [3, 6, 12, 13, 14, 15];
/// More frames than any real stack has.
const DEEPEST: usize = 100_000;
/// The largest unwind table that is read, in bytes.
const LARGEST: u64 = 256 << 20;

/// A module's unwind data.
struct Module {
    range: std::ops::Range<u64>,
    name: String,
    tables: Option<Tables>,
}

struct Tables {
    /// The table for quick search; static programs may have none.
    header: Option<ParsedEhFrameHdr<Bytes>>,
    frames: EhFrame<Bytes>,
    bases: BaseAddresses,
}

/// How the caller's registers are found at one instruction.
struct Row {
    module: usize,
    encoding: gimli::Encoding,
    is_signal: bool,
    cfa: CfaRule<usize>,
    /// By DWARF's number.
    rules: [Option<RegisterRule<usize>>; 17],
}

/// Unwind data of all modules of a process.
pub(crate) struct Unwinder {
    modules: Vec<Module>,
    /// Threads mostly wait at the same places, so that each is read once.
    rows: HashMap<u64, Rc<Row>>,
    context: UnwindContext<usize>,
}

type Registers = [Option<u64>; 17];

/// A thread's way back.
pub(crate) struct Walk {
    /// Where it is, and where it will return to, innermost first.
    pub(crate) frames: Vec<LiveAddr>,
    /// Why they end, if not at the start of a stack.
    pub(crate) unknown: Option<String>,
    /// The stack pointer in the outermost frame.
    pub(crate) end: u64,
    /// True if a signal's handler is on it: what was interrupted may be inside anything.
    pub(crate) handler: bool,
}

impl Unwinder {
    pub(crate) fn new(process: &Process) -> Result<Unwinder, TargetError> {
        let mut modules = Vec::new();
        for loaded in process.loaded()? {
            let start = loaded.segments.first().map_or(0, |(start, _)| start.0);
            modules.push(Module {
                range: start..loaded.end.0,
                tables: Tables::read(&process.memory, &loaded)
                    .or_else(|| Tables::read_section(process, &loaded)),
                name: loaded.path,
            });
        }
        Ok(Unwinder {
            modules,
            rows: HashMap::new(),
            context: UnwindContext::new(),
        })
    }

    /// The frames of a thread.
    pub(crate) fn walk(&mut self, memory: &Memory, thread: &user_regs_struct) -> Walk {
        let r = thread;
        let mut registers: Registers = [
            r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15, r.rip,
        ]
        .map(Some);
        let mut handler = false;
        let (frames, unknown) =
            self.walk_from(memory, &mut registers, (r.rsp, r.rip), &mut handler);
        Walk {
            frames,
            unknown,
            handler,
            end: registers[usize::from(RSP)].unwrap_or(0),
        }
    }

    /// The same for a thread of which only the stack pointer and the place are known, as
    /// is the case for one that waits and is not stopped. Where that is not enough, every
    /// word of its stack that may be a return address is taken for one.
    pub(crate) fn guess(
        &mut self,
        memory: &Memory,
        rsp: u64,
        rip: u64,
    ) -> (Vec<LiveAddr>, Option<String>) {
        const SEARCHED: usize = 64 << 10;
        let mut registers: Registers = [None; 17];
        registers[usize::from(RSP)] = Some(rsp);
        registers[usize::from(RIP)] = Some(rip);
        let (mut frames, unknown) = self.walk_from(memory, &mut registers, (rsp, rip), &mut false);
        if unknown.is_some() {
            let stack = memory.read_some(LiveAddr(rsp), SEARCHED);
            let words = stack
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
            let inside = |at: &u64| self.modules.iter().any(|module| module.range.contains(at));
            frames = vec![LiveAddr(rip)];
            frames.extend(words.filter(inside).map(LiveAddr));
        }
        (frames, unknown)
    }

    fn walk_from(
        &mut self,
        memory: &Memory,
        registers: &mut Registers,
        (rsp, rip): (u64, u64),
        handler: &mut bool,
    ) -> (Vec<LiveAddr>, Option<String>) {
        let mut stack = StackCache::new(memory, rsp);
        let mut frames = vec![LiveAddr(rip)];
        // A return address may stand behind the last byte of its function, so it is
        // looked up one byte before; the place of a signal is exact.
        let mut exact = true;
        while frames.len() < DEEPEST {
            let Some(rip) = registers[usize::from(RIP)] else {
                return (frames, Some("a return address is not known".to_owned()));
            };
            match self.step(&mut stack, registers, rip, &mut exact) {
                Ok(true) => *handler |= exact,
                Ok(false) => return (frames, None),
                Err(why) => return (frames, Some(why)),
            }
            match registers[usize::from(RIP)] {
                Some(0) => return (frames, None),
                Some(next) => frames.push(LiveAddr(next)),
                None => return (frames, Some("a return address is not known".to_owned())),
            }
        }
        (frames, Some("the stack has no end".to_owned()))
    }

    /// Goes one frame up; false at the first frame of a thread.
    fn step(
        &mut self,
        stack: &mut StackCache<'_>,
        registers: &mut Registers,
        rip: u64,
        exact: &mut bool,
    ) -> Result<bool, String> {
        let at = if *exact { rip } else { rip.wrapping_sub(1) };
        let row = match self.rows.get(&at) {
            Some(row) => Rc::clone(row),
            None => {
                let row = Rc::new(self.row(rip, at)?);
                self.rows.insert(at, Rc::clone(&row));
                row
            }
        };
        let module = &self.modules[row.module];
        let tables = module.tables.as_ref();
        let tables = tables.ok_or_else(|| format!("{} has no unwind data", module.name))?;
        let fail = |error: gimli::Error| format!("{rip:#x} in {}: {error}", module.name);
        let evaluate =
            |expression: Expression<Bytes>, start: Option<u64>, stack: &mut StackCache<'_>| {
                evaluate(expression, row.encoding, start, registers, stack)
            };
        let cfa = match &row.cfa {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = registers.get(usize::from(register.0)).copied().flatten();
                base.ok_or("the frame's register is not known")?
                    .wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => {
                let expression = expression.get(&tables.frames).map_err(fail)?;
                evaluate(expression, None, stack)?
            }
        };
        let mut next: Registers = [None; 17];
        for (number, rule) in (0..=RIP).zip(&row.rules) {
            let old = registers[usize::from(number)];
            next[usize::from(number)] = match rule {
                None if number == RSP => Some(cfa),
                None if PRESERVED.contains(&number) => old,
                None => None,
                Some(RegisterRule::Undefined) if number == RIP => return Ok(false),
                Some(RegisterRule::Undefined) => None,
                Some(RegisterRule::SameValue) => old,
                Some(RegisterRule::Offset(offset)) => {
                    Some(stack.word(cfa.wrapping_add_signed(*offset))?)
                }
                Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(*offset)),
                Some(RegisterRule::Register(other)) => {
                    registers.get(usize::from(other.0)).copied().flatten()
                }
                Some(RegisterRule::Expression(expression)) => {
                    let expression = expression.get(&tables.frames).map_err(fail)?;
                    let place = evaluate(expression, Some(cfa), stack)?;
                    Some(stack.word(place)?)
                }
                Some(RegisterRule::ValExpression(expression)) => {
                    let expression = expression.get(&tables.frames).map_err(fail)?;
                    Some(evaluate(expression, Some(cfa), stack)?)
                }
                Some(_) => return Err(format!("{rip:#x} in {}: an unknown rule", module.name)),
            };
        }
        *exact = row.is_signal;
        *registers = next;
        Ok(true)
    }

    /// Reads the rules for the instruction at `at` from the tables of its module.
    fn row(&mut self, rip: u64, at: u64) -> Result<Row, String> {
        let mut modules = self.modules.iter();
        let number = modules.position(|module| module.range.contains(&at));
        let number = number.ok_or_else(|| format!("{rip:#x} is in no module"))?;
        let module = &self.modules[number];
        let tables = module.tables.as_ref();
        let tables = tables.ok_or_else(|| format!("{} has no unwind data", module.name))?;
        let fail = |error: gimli::Error| format!("{rip:#x} in {}: {error}", module.name);
        let table = tables.header.as_ref().and_then(|header| header.table());
        let cie = EhFrame::cie_from_offset;
        let fde = match table {
            Some(table) => table.fde_for_address(&tables.frames, &tables.bases, at, cie),
            None => tables.frames.fde_for_address(&tables.bases, at, cie),
        };
        let fde = fde.map_err(|error| match error {
            gimli::Error::NoUnwindInfoForAddress => {
                format!("{rip:#x} in {} has no unwind data", module.name)
            }
            other => fail(other),
        })?;
        let row = fde
            .unwind_info_for_address(&tables.frames, &tables.bases, &mut self.context, at)
            .map_err(fail)?;
        let mut numbers = 0..=RIP;
        Ok(Row {
            module: number,
            encoding: fde.cie().encoding(),
            is_signal: fde.is_signal_trampoline(),
            cfa: row.cfa().clone(),
            rules: [(); 17].map(|()| row.register(Register(numbers.next()?))),
        })
    }
}

impl Tables {
    fn read(memory: &Memory, loaded: &Loaded) -> Option<Tables> {
        let (at, size) = loaded.eh_frame_hdr?;
        let header_bytes = memory.read_some(at, usize::try_from(size.min(LARGEST)).ok()?);
        let bases = BaseAddresses::default().set_eh_frame_hdr(at.0);
        let reader = EndianRcSlice::new(Rc::from(header_bytes), LittleEndian);
        let header = EhFrameHdr::from(reader).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(start) = header.eh_frame_ptr() else {
            return None;
        };
        let (_, end) = loaded
            .segments
            .iter()
            .find(|(from, to)| from.0 <= start && start < to.0)?;
        let frames = memory.read_some(
            LiveAddr(start),
            usize::try_from((end.0 - start).min(LARGEST)).ok()?,
        );
        let frames = EhFrame::from(EndianRcSlice::new(Rc::from(frames), LittleEndian));
        // Text-relative pointers are not used on x86-64.
        Some(Tables {
            header: Some(header),
            frames,
            bases: bases.set_eh_frame(start),
        })
    }

    /// The frames of a static program without a table for search: its file says where
    /// they are.
    fn read_section(process: &Process, loaded: &Loaded) -> Option<Tables> {
        let (start, size) = process.section_of(loaded, ".eh_frame")?;
        let start = start.wrapping_add(loaded.bias);
        let size = usize::try_from(size.min(LARGEST)).ok()?;
        let frames = process.memory.read_some(LiveAddr(start), size);
        let frames = EhFrame::from(EndianRcSlice::new(Rc::from(frames), LittleEndian));
        Some(Tables {
            header: None,
            frames,
            bases: BaseAddresses::default().set_eh_frame(start),
        })
    }
}

fn evaluate(
    expression: Expression<Bytes>,
    encoding: gimli::Encoding,
    start: Option<u64>,
    registers: &Registers,
    stack: &mut StackCache<'_>,
) -> Result<u64, String> {
    let fail = |error: gimli::Error| format!("an unwind expression: {error}");
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(1000);
    if let Some(start) = start {
        evaluation.set_initial_value(start);
    }
    let mut result = evaluation.evaluate().map_err(fail)?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = registers.get(usize::from(register.0)).copied().flatten();
                let value = value.ok_or("an unwind expression needs a lost register")?;
                evaluation
                    .resume_with_register(Value::Generic(value))
                    .map_err(fail)?
            }
            EvaluationResult::RequiresMemory {
                address, size: 8, ..
            } => {
                let value = stack.word(address)?;
                evaluation
                    .resume_with_memory(Value::Generic(value))
                    .map_err(fail)?
            }
            _ => return Err("an unwind expression needs what is not there".to_owned()),
        };
    }
    match evaluation.result()[..] {
        [
            gimli::Piece {
                location: Location::Address { address },
                ..
            },
        ] => Ok(address),
        _ => Err("an unwind expression yields no address".to_owned()),
    }
}
