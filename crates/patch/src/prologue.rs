//! The first instructions of a function, as far as a hook may use them.
//!
//! They are decoded when the patch is written. Whoever applies it compares the bytes and
//! need not decode them again: the tables of a decoder alone take longer to set up than
//! everything else that is done for a process.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use serde::{Deserialize, Serialize};

/// What a hook needs at least: `jmp rel32`.
const NEAR_JUMP: usize = 5;
/// More instructions than any hook comes after.
const MOST: usize = 64;
/// The register number of the stack pointer.
const STACK_POINTER: u8 = 4;
/// The longest instruction, in bytes.
const LONGEST: u8 = 15;

/// What must be taken back of an instruction that ran before a hook, so that the new
/// function starts as if it had not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// `endbr64`: it stays in front of every hook.
    Landing,
    /// Nothing that the new function could notice.
    None,
    /// A push of the register with this number.
    Push(u8),
    /// So many bytes of stack.
    Room(i32),
    /// It cannot be taken back.
    Lasting,
}

/// An instruction at the start of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its bytes.
    pub length: u8,
    /// What it does.
    pub effect: Effect,
}

impl Step {
    /// The first instructions of a function whose code is `code`: those between which a hook
    /// may be chosen, up to the first one that may lead elsewhere.
    #[must_use]
    pub fn all(code: &[u8]) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut factory = InstructionInfoFactory::new();
        let (mut length, mut lasting) = (0, false);
        for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
            .into_iter()
            .take(MOST)
        {
            if instruction.is_invalid() {
                break;
            }
            let is_landing = steps.is_empty() && instruction.mnemonic() == Mnemonic::Endbr64;
            let effect = if is_landing {
                Effect::Landing
            } else {
                effect(&instruction, &steps, &mut factory)
            };
            steps.push(Step {
                length: u8::try_from(instruction.len()).unwrap_or(LONGEST),
                effect,
            });
            if is_landing {
                continue;
            }
            length += instruction.len();
            lasting |= effect == Effect::Lasting;
            let goes_on = instruction.flow_control() == FlowControl::Next;
            let is_enough = instruction.len() >= NEAR_JUMP || (lasting && length >= NEAR_JUMP);
            if !goes_on || is_enough {
                break;
            }
        }
        steps
    }

    /// True for one that can be.
    pub(crate) fn is_valid(self) -> bool {
        let effect = match self.effect {
            Effect::Push(register) => register < 16 && register != STACK_POINTER,
            Effect::Room(bytes) => bytes > 0,
            Effect::Landing | Effect::None | Effect::Lasting => true,
        };
        effect && (1..=LONGEST).contains(&self.length)
    }
}

/// How to take back what `instruction` does behind `steps`.
fn effect(
    instruction: &Instruction,
    steps: &[Step],
    factory: &mut InstructionInfoFactory,
) -> Effect {
    let code = instruction;
    if code.mnemonic() == Mnemonic::Push && code.op0_kind() == OpKind::Register {
        let register = code.op0_register();
        return match u8::try_from(register.number()) {
            Ok(number) if register.is_gpr64() && register != Register::RSP => Effect::Push(number),
            _ => Effect::Lasting,
        };
    }
    if code.mnemonic() == Mnemonic::Sub && code.op0_register() == Register::RSP {
        let size = i32::try_from(code.immediate(1)).ok();
        return match size {
            Some(size) if code.op1_kind() != OpKind::Register && size > 0 => Effect::Room(size),
            _ => Effect::Lasting,
        };
    }
    let info = factory.info(code);
    let writes = |access: OpAccess| {
        !matches!(
            access,
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        )
    };
    let mut memory = info.used_memory().iter();
    let mut registers = info.used_registers().iter();
    // What was pushed comes back with its pop; nobody expects anything of r11.
    let is_free = |register: Register| {
        let number = u8::try_from(register.number());
        register == Register::R11
            || (register.is_gpr64()
                && number.is_ok_and(|n| steps.iter().any(|step| step.effect == Effect::Push(n))))
    };
    let lasts = memory.any(|memory| writes(memory.access()))
        || registers.any(|used| writes(used.access()) && !is_free(used.register().full_register()));
    if lasts { Effect::Lasting } else { Effect::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(code: &[u8]) -> Vec<(u8, Effect)> {
        let steps = Step::all(code);
        assert!(steps.iter().all(|step| step.is_valid()));
        steps
            .iter()
            .map(|step| (step.length, step.effect))
            .collect()
    }

    #[test]
    fn pushes_and_room_are_taken_back_and_a_long_instruction_is_the_last() {
        // endbr64; push r12; push rbx; sub rsp, 8; mov eax, 1; ret
        let code = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54, 0x53, 0x48, 0x83, 0xec, 8, 0xb8, 1, 0, 0, 0, 0xc3,
        ];
        let expected = [
            (4, Effect::Landing),
            (2, Effect::Push(12)),
            (1, Effect::Push(3)),
            (4, Effect::Room(8)),
            (5, Effect::Lasting),
        ];
        assert_eq!(effects(&code), expected);
    }

    #[test]
    fn a_register_may_be_written_once_it_is_saved() {
        // push rbx; mov rbx, rdi; mov rdi, rsi; xor eax, eax
        let code = [0x53, 0x48, 0x89, 0xfb, 0x48, 0x89, 0xf7, 0x31, 0xc0];
        let expected = [
            (1, Effect::Push(3)),
            (3, Effect::None),
            (3, Effect::Lasting),
        ];
        assert_eq!(effects(&code), expected);
        // mov rbx, rdi; push rbx; nop
        let code = [0x48, 0x89, 0xfb, 0x53, 0x90, 0x90];
        let expected = [
            (3, Effect::Lasting),
            (1, Effect::Push(3)),
            (1, Effect::None),
        ];
        assert_eq!(effects(&code), expected);
    }

    #[test]
    fn a_branch_and_a_byte_that_is_no_instruction_are_the_end() {
        assert_eq!(effects(&[0xeb, 0x00, 0x90]), [(2, Effect::None)]);
        assert_eq!(effects(&[0x90, 0x06]), [(1, Effect::None)]);
        assert_eq!(effects(&[]), []);
    }

    #[test]
    fn what_no_instruction_can_be_is_not_valid() {
        let step = |length, effect| Step { length, effect };
        assert!(!step(0, Effect::None).is_valid());
        assert!(!step(16, Effect::None).is_valid());
        assert!(!step(1, Effect::Push(4)).is_valid());
        assert!(!step(1, Effect::Push(16)).is_valid());
        assert!(!step(1, Effect::Room(-8)).is_valid());
    }
}
