//! What a program of the classic Berkeley Packet Filter returns for one system call.
//!
//! Only what the kernel admits for filters of system calls is known: words of
//! `struct seccomp_data`, sixteen words of its own memory, jumps forward (Linux,
//! `kernel/seccomp.c`, `seccomp_check_filter`; the codes are those of
//! `include/uapi/linux/bpf_common.h`).

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// Words of a program's own memory (`BPF_MEMWORDS`).
const MEMORY: usize = 16;

/// What `program` returns for `data`, a `struct seccomp_data`; `None` if it is not a program that
/// the kernel would have taken.
pub(crate) fn run(program: &[Instruction], data: &[u8]) -> Option<u32> {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY]);
    let mut next = 0usize;
    // Jumps lead forward only, so that no program goes on for ever.
    loop {
        let at = *program.get(next)?;
        next = next.checked_add(1)?;
        let k = at.value;
        let word = usize::try_from(k).ok()?;
        match at.code {
            // ld [k], ld #k, ld M[k], ld #len
            0x20 => a = load(data, word)?,
            0x00 => a = k,
            0x60 => a = *memory.get(word)?,
            0x80 => a = u32::try_from(data.len()).ok()?,
            // ldx #k, ldx M[k], ldx #len
            0x01 => x = k,
            0x61 => x = *memory.get(word)?,
            0x81 => x = u32::try_from(data.len()).ok()?,
            // st, stx
            0x02 => *memory.get_mut(word)? = a,
            0x03 => *memory.get_mut(word)? = x,
            // tax, txa
            0x07 => x = a,
            0x87 => a = x,
            // ret #k, ret a
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x05 => next = next.checked_add(word)?,
            code @ (0x15 | 0x25 | 0x35 | 0x45 | 0x1d | 0x2d | 0x3d | 0x4d) => {
                let other = if code & 0x08 == 0 { k } else { x };
                let holds = match code & 0xf0 {
                    0x10 => a == other,
                    0x20 => a > other,
                    0x30 => a >= other,
                    _ => a & other != 0,
                };
                let jump = if holds { at.if_true } else { at.if_false };
                next = next.checked_add(usize::from(jump))?;
            }
            code if code & 0x07 == 0x04 => {
                a = compute(code, a, if code & 0x08 == 0 { k } else { x })?
            }
            _ => return None,
        }
    }
}

/// An aligned word of `data`.
fn load(data: &[u8], at: usize) -> Option<u32> {
    if !at.is_multiple_of(4) {
        return None;
    }
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn compute(code: u16, a: u32, other: u32) -> Option<u32> {
    Some(match code & !0x08 {
        0x04 => a.wrapping_add(other),
        0x14 => a.wrapping_sub(other),
        0x24 => a.wrapping_mul(other),
        // The kernel ends a program that divides by zero with 0, which is an end for the thread.
        0x34 => a.checked_div(other)?,
        0x44 => a | other,
        0x54 => a & other,
        0x64 => a.checked_shl(other)?,
        0x74 => a.checked_shr(other)?,
        0x84 => a.wrapping_neg(),
        0xa4 => a ^ other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(code: u16, if_true: u8, if_false: u8, value: u32) -> Instruction {
        Instruction {
            code,
            if_true,
            if_false,
            value,
        }
    }

    #[test]
    fn a_list_of_numbers_is_searched() {
        // Number 9 is allowed with a third argument below 4; it and number 11 get an error.
        let program = [
            one(0x20, 0, 0, 0),
            one(0x15, 2, 0, 9),
            one(0x15, 3, 0, 11),
            one(0x06, 0, 0, 0x8000_0000),
            one(0x20, 0, 0, 32),
            one(0x35, 0, 1, 4),
            one(0x06, 0, 0, 0x0005_0001),
            one(0x06, 0, 0, 0x7fff_0000),
        ];
        let call = |number: u32, third: u64| {
            let mut data = [0; 64];
            data[..4].copy_from_slice(&number.to_le_bytes());
            data[32..40].copy_from_slice(&third.to_le_bytes());
            run(&program, &data)
        };
        assert_eq!(call(9, 3), Some(0x7fff_0000));
        assert_eq!(call(9, 5), Some(0x0005_0001));
        assert_eq!(call(10, 0), Some(0x8000_0000));
        assert_eq!(
            call(11, 0),
            Some(0x0005_0001),
            "the jump of 3 leads to ret ERRNO"
        );
    }

    #[test]
    fn arithmetic_memory_and_jumps() {
        let data = [7, 0, 0, 0, 1, 0, 0, 0];
        // (data[0] << 2 | 1) - 3 in M[3], then with x = 2: (26 ^ 2) & 0xff, and len.
        let program = [
            one(0x20, 0, 0, 0),
            one(0x64, 0, 0, 2),
            one(0x44, 0, 0, 1),
            one(0x14, 0, 0, 3),
            one(0x02, 0, 0, 3),
            one(0x01, 0, 0, 2),
            one(0x60, 0, 0, 3),
            one(0xac, 0, 0, 0),
            one(0x05, 0, 0, 1),
            one(0x06, 0, 0, 0),
            one(0x54, 0, 0, 0xff),
            one(0x16, 0, 0, 0),
        ];
        assert_eq!(run(&program, &data), Some(24));
        assert_eq!(
            run(&[one(0x80, 0, 0, 0), one(0x16, 0, 0, 0)], &data),
            Some(8)
        );
    }

    #[test]
    fn what_the_kernel_would_not_take_has_no_result() {
        let data = [0; 64];
        for program in [
            vec![],
            vec![one(0x00, 0, 0, 1)],
            vec![one(0x20, 0, 0, 64), one(0x16, 0, 0, 0)],
            vec![one(0x20, 0, 0, 2), one(0x16, 0, 0, 0)],
            vec![one(0x60, 0, 0, 16), one(0x16, 0, 0, 0)],
            vec![one(0x34, 0, 0, 0), one(0x16, 0, 0, 0)],
            vec![one(0x64, 0, 0, 32), one(0x16, 0, 0, 0)],
            vec![one(0x05, 0, 0, u32::MAX)],
            vec![one(0xffff, 0, 0, 0)],
        ] {
            assert_eq!(run(&program, &data), None, "{program:?}");
        }
    }
}
