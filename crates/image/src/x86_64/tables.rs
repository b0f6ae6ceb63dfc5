//! The opcodes that [`super::bytes`] knows. An entry of 0 is left to the decoder.

use super::skim::Traits;

/// A byte follows that tells the operands.
pub(super) const MODRM: u64 = 1;
/// Only with an operand in memory.
pub(super) const MEMORY: u64 = 1 << 1;
/// Only with a register for it.
pub(super) const REGISTER: u64 = 1 << 2;
/// Several instructions, which the operands tell apart.
pub(super) const GROUP: u64 = 1 << 3;
/// May be locked, with an operand in memory.
pub(super) const LOCKABLE: u64 = 1 << 4;
/// Its number may be an address only where the operand has 64 bits.
pub(super) const WIDE: u64 = 1 << 5;
/// Something else with a REX prefix.
pub(super) const NO_REX: u64 = 1 << 6;
/// A prefix.
pub(super) const PREFIX: u64 = 1 << 7;
/// Known without a prefix,
pub(super) const PLAIN: u64 = 1 << 8;
/// behind 66,
pub(super) const DATA16: u64 = 1 << 9;
/// behind F3,
pub(super) const REP: u64 = 1 << 10;
/// and behind F2.
pub(super) const REPNE: u64 = 1 << 11;
/// From this bit on: how many bytes the immediate operand has,
pub(super) const WIDTH: u64 = 12;
/// how many behind 66,
pub(super) const WIDTH_SHORT: u64 = 16;
/// and how many with `REX.W`.
pub(super) const WIDTH_WIDE: u64 = 20;
/// From this bit on: its traits.
pub(super) const TRAITS: u64 = 32;

/// It is not enough to know the opcode.
pub(super) const CAREFUL: u64 = MEMORY | REGISTER | GROUP | NO_REX;
/// There may be a number that leads somewhere.
pub(super) const NUMBERED: u64 = also(Traits::NUMBER) | also(Traits::BRANCH);
/// All that an immediate operand adds.
pub(super) const IMMEDIATE: u64 = widths(15, 15, 15) | also(Traits::NUMBER);

/// One byte.
const IMM8: u64 = widths(1, 1, 1);
/// Two bytes.
const IMM16: u64 = widths(2, 2, 2);
/// Four bytes, or two behind the prefix 66.
const IMMZ: u64 = widths(4, 2, 4);
/// The same, but with `REX.W` eight.
const IMMV: u64 = widths(4, 2, 8);

const fn widths(plain: u64, short: u64, wide: u64) -> u64 {
    plain << WIDTH | short << WIDTH_SHORT | wide << WIDTH_WIDE
}

const ANY: u64 = PLAIN | DATA16;
const ALL: u64 = ANY | REP | REPNE;

const fn also(traits: Traits) -> u64 {
    (traits.0 as u64) << TRAITS
}

const fn fill(map: &mut [u64; 256], opcodes: &[u8], entry: u64) {
    let mut next = 0;
    while next < opcodes.len() {
        map[opcodes[next] as usize] = entry;
        next += 1;
    }
}

/// From the first of the two to the last.
const fn run(map: &mut [u64; 256], first: u8, last: u8, entry: u64) {
    let mut opcode = first as usize;
    while opcode <= last as usize {
        map[opcode] = entry;
        opcode += 1;
    }
}

pub(super) static ONE: [u64; 256] = one();
pub(super) static TWO: [u64; 256] = two();
pub(super) static THREE_38: [u64; 256] = three_38();
pub(super) static THREE_3A: [u64; 256] = three_3a();

const fn one() -> [u64; 256] {
    let mut map = [0; 256];
    let number = also(Traits::NUMBER);
    let jump = PLAIN | also(Traits::BRANCH);
    // add, or, adc, sbb, and, sub, xor, cmp
    let mut group = 0;
    while group < 0x40 {
        let lock = if group < 0x38 { LOCKABLE } else { 0 };
        run(&mut map, group, group + 1, MODRM | ANY | lock);
        run(&mut map, group + 2, group + 3, MODRM | ANY);
        map[group as usize + 4] = IMM8 | ANY;
        map[group as usize + 5] = IMMZ | ANY | WIDE | number;
        group += 8;
    }
    fill(
        &mut map,
        &[
            0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
        ],
        PREFIX,
    );
    run(&mut map, 0x50, 0x5f, ANY); // push, pop
    map[0x63] = MODRM | ANY | also(Traits::MOVSXD);
    map[0x68] = IMMZ | PLAIN | number; // push
    map[0x69] = MODRM | IMMZ | ANY; // imul
    map[0x6a] = IMM8 | PLAIN; // push
    map[0x6b] = MODRM | IMM8 | ANY; // imul
    run(&mut map, 0x70, 0x7f, IMM8 | jump); // jcc
    map[0x80] = MODRM | IMM8 | ANY | LOCKABLE;
    map[0x81] = MODRM | IMMZ | ANY | LOCKABLE | WIDE | number;
    map[0x83] = MODRM | IMM8 | ANY | LOCKABLE;
    run(&mut map, 0x84, 0x85, MODRM | ANY); // test
    run(&mut map, 0x86, 0x87, MODRM | ANY | LOCKABLE); // xchg
    run(&mut map, 0x88, 0x8b, MODRM | ANY); // mov
    map[0x8d] = MODRM | MEMORY | ANY | also(Traits::LEA);
    run(&mut map, 0x91, 0x99, ANY); // xchg with rax, cdqe, cqo
    map[0x90] = ANY | NO_REX | also(Traits::PADDING); // nop
    run(&mut map, 0xa4, 0xa7, ALL); // movs, cmps
    map[0xa8] = IMM8 | ANY; // test
    map[0xa9] = IMMZ | ANY | WIDE | number; // test
    run(&mut map, 0xaa, 0xaf, ALL); // stos, lods, scas
    run(&mut map, 0xb0, 0xb7, IMM8 | ANY); // mov
    run(
        &mut map,
        0xb8,
        0xbf,
        IMMV | ANY | number | also(Traits::MOV),
    );
    run(&mut map, 0xc0, 0xc1, MODRM | IMM8 | ANY); // rol … sar
    map[0xc2] = IMM16 | PLAIN | also(Traits::ENDS); // ret
    map[0xc3] = PLAIN | REP | also(Traits::ENDS);
    map[0xc6] = MODRM | IMM8 | ANY | GROUP; // mov
    map[0xc7] = MODRM | IMMZ | ANY | GROUP | WIDE | number | also(Traits::MOV);
    map[0xc9] = PLAIN; // leave
    map[0xcc] = PLAIN | also(Traits::PADDING); // int3
    run(&mut map, 0xd0, 0xd3, MODRM | ANY); // rol … sar
    fill(
        &mut map,
        &[0xd8, 0xda, 0xdc, 0xde, 0xdf],
        MODRM | MEMORY | PLAIN,
    );
    fill(
        &mut map,
        &[0xd9, 0xdb, 0xdd],
        MODRM | MEMORY | PLAIN | GROUP,
    );
    run(&mut map, 0xe0, 0xe3, IMM8 | jump); // loop, jrcxz
    map[0xe8] = IMMZ | jump | also(Traits::CALL);
    map[0xe9] = IMMZ | jump | also(Traits::ENDS);
    map[0xeb] = IMM8 | jump | also(Traits::ENDS);
    map[0xf6] = MODRM | IMM8 | ANY | GROUP | LOCKABLE;
    map[0xf7] = MODRM | IMMZ | ANY | GROUP | LOCKABLE | WIDE | number;
    fill(&mut map, &[0xf5, 0xf8, 0xf9, 0xfc, 0xfd], PLAIN); // flags
    map[0xfe] = MODRM | ANY | GROUP | LOCKABLE; // inc, dec
    map[0xff] = MODRM | ANY | GROUP | LOCKABLE;
    map
}

const fn two() -> [u64; 256] {
    let mut map = [0; 256];
    map[0x0b] = PLAIN | also(Traits::ENDS); // ud2
    fill(
        &mut map,
        &[0x10, 0x11, 0x51, 0x58, 0x59, 0x5a, 0x5c, 0x5d, 0x5e, 0x5f],
        MODRM | ALL,
    );
    map[0x12] = MODRM | PLAIN | REP | REPNE;
    fill(&mut map, &[0x13, 0x17, 0x2b, 0xe7], MODRM | MEMORY | ANY);
    map[0x16] = MODRM | PLAIN | REP;
    map[0x18] = MODRM | MEMORY | PLAIN | GROUP; // prefetch
    map[0x1e] = MODRM | REGISTER | REP | GROUP | NO_REX; // endbr64
    map[0x1f] = MODRM | ANY | GROUP | also(Traits::PADDING); // nop
    fill(&mut map, &[0x14, 0x15, 0x28, 0x29, 0x2e, 0x2f], MODRM | ANY);
    fill(&mut map, &[0x2a, 0x2c, 0x2d], MODRM | REP | REPNE);
    run(&mut map, 0x40, 0x4f, MODRM | ANY); // cmov
    map[0x50] = MODRM | REGISTER | ANY;
    run(&mut map, 0x52, 0x53, MODRM | PLAIN | REP);
    run(&mut map, 0x54, 0x57, MODRM | ANY);
    map[0x5b] = MODRM | ANY | REP;
    run(&mut map, 0x60, 0x6b, MODRM | ANY);
    run(&mut map, 0x6c, 0x6d, MODRM | DATA16);
    map[0x6e] = MODRM | ANY;
    map[0x6f] = MODRM | ANY | REP;
    map[0x70] = MODRM | IMM8 | ALL;
    run(
        &mut map,
        0x71,
        0x73,
        MODRM | REGISTER | IMM8 | DATA16 | GROUP,
    );
    run(&mut map, 0x74, 0x76, MODRM | ANY);
    run(&mut map, 0x7c, 0x7d, MODRM | DATA16 | REPNE);
    run(&mut map, 0x7e, 0x7f, MODRM | ANY | REP);
    run(&mut map, 0x80, 0x8f, IMMZ | PLAIN | also(Traits::BRANCH)); // jcc
    run(&mut map, 0x90, 0x9f, MODRM | ANY); // setcc
    map[0xa2] = PLAIN; // cpuid
    fill(
        &mut map,
        &[0xab, 0xb0, 0xb1, 0xb3, 0xbb, 0xc0, 0xc1],
        MODRM | ANY | LOCKABLE,
    );
    fill(
        &mut map,
        &[0xa3, 0xa5, 0xad, 0xaf, 0xb6, 0xb7, 0xbe, 0xbf],
        MODRM | ANY,
    );
    fill(&mut map, &[0xa4, 0xac], MODRM | IMM8 | ANY);
    map[0xb8] = MODRM | REP; // popcnt
    map[0xba] = MODRM | IMM8 | ANY | GROUP | LOCKABLE; // bt, bts, btr, btc
    run(&mut map, 0xbc, 0xbd, MODRM | ANY | REP);
    map[0xc2] = MODRM | IMM8 | ALL;
    map[0xc3] = MODRM | MEMORY | PLAIN; // movnti
    fill(&mut map, &[0xc4, 0xc6], MODRM | IMM8 | ANY);
    map[0xc5] = MODRM | REGISTER | IMM8 | ANY;
    run(&mut map, 0xc8, 0xcf, PLAIN); // bswap
    map[0xd0] = MODRM | DATA16 | REPNE;
    run(&mut map, 0xd1, 0xd5, MODRM | ANY);
    map[0xd6] = MODRM | DATA16;
    map[0xd7] = MODRM | REGISTER | ANY;
    run(&mut map, 0xd8, 0xe5, MODRM | ANY);
    map[0xe6] = MODRM | DATA16 | REP | REPNE;
    run(&mut map, 0xe8, 0xef, MODRM | ANY);
    map[0xf0] = MODRM | MEMORY | REPNE;
    run(&mut map, 0xf1, 0xf6, MODRM | ANY);
    run(&mut map, 0xf8, 0xfe, MODRM | ANY);
    map
}

const fn three_38() -> [u64; 256] {
    let mut map = [0; 256];
    run(&mut map, 0x00, 0x0b, MODRM | ANY);
    fill(&mut map, &[0x10, 0x14, 0x15, 0x17], MODRM | DATA16);
    run(&mut map, 0x1c, 0x1e, MODRM | ANY);
    run(&mut map, 0x20, 0x25, MODRM | DATA16);
    run(&mut map, 0x28, 0x29, MODRM | DATA16);
    map[0x2b] = MODRM | DATA16;
    run(&mut map, 0x30, 0x35, MODRM | DATA16);
    run(&mut map, 0x37, 0x41, MODRM | DATA16);
    run(&mut map, 0xdb, 0xdf, MODRM | DATA16);
    map
}

const fn three_3a() -> [u64; 256] {
    let mut map = [0; 256];
    run(&mut map, 0x08, 0x0e, MODRM | IMM8 | DATA16);
    map[0x0f] = MODRM | IMM8 | ANY;
    run(&mut map, 0x14, 0x17, MODRM | IMM8 | DATA16);
    run(&mut map, 0x20, 0x22, MODRM | IMM8 | DATA16);
    run(&mut map, 0x40, 0x42, MODRM | IMM8 | DATA16);
    map[0x44] = MODRM | IMM8 | DATA16;
    run(&mut map, 0x60, 0x63, MODRM | IMM8 | DATA16);
    map
}
