//! Which instructions fault where what they use in memory is not aligned.

use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind};

/// To how many bytes the place of an instruction's memory operand must be aligned; `None` where
/// it may be anywhere, or there is none (SDM, volume 1, 4.1.1 and 14.9).
#[must_use]
pub fn demanded_alignment(instruction: &Instruction) -> Option<u64> {
    let memory = (0..instruction.op_count()).any(|at| instruction.op_kind(at) == OpKind::Memory);
    if !memory {
        return None;
    }
    let size = instruction.memory_size().size() as u64;
    let aligned = match instruction.mnemonic() {
        Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
            return Some(16);
        }
        Mnemonic::Vmovaps
        | Mnemonic::Vmovapd
        | Mnemonic::Vmovdqa
        | Mnemonic::Vmovdqa32
        | Mnemonic::Vmovdqa64
        | Mnemonic::Vmovntps
        | Mnemonic::Vmovntpd
        | Mnemonic::Vmovntdq
        | Mnemonic::Vmovntdqa
        | Mnemonic::Cmpxchg16b => true,
        Mnemonic::Movups
        | Mnemonic::Movupd
        | Mnemonic::Movdqu
        | Mnemonic::Lddqu
        | Mnemonic::Pcmpestri
        | Mnemonic::Pcmpestrm
        | Mnemonic::Pcmpistri
        | Mnemonic::Pcmpistrm => false,
        _ => {
            let vector = (0..instruction.op_count()).any(|at| {
                instruction.op_kind(at) == OpKind::Register && instruction.op_register(at).is_xmm()
            });
            vector && instruction.code().encoding() == EncodingKind::Legacy && size == 16
        }
    };
    (aligned && size > 1).then_some(size)
}
