//! Which registers an instruction of ARM64 reads and writes, of those that may hold an address. The
//! classes are those of "Arm Architecture Reference Manual for A-profile", chapter C4.1.

/// One bit for each of `x0` to `x30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// What it reads.
    pub(super) reads: u32,
    /// What it writes.
    pub(super) writes: u32,
}

/// The bit of a register; none for the stack pointer, or zero, which has the same number.
pub(super) fn bit(number: u32) -> u32 {
    (1 << (number & 31)) & 0x7fff_ffff
}

/// The register `number` bits up in a word.
fn field(word: u32, shift: u32) -> u32 {
    bit(word >> shift)
}

/// What `word` reads and writes; `None` if it is no instruction that is known.
pub(super) fn access(word: u32) -> Option<Access> {
    let class = word >> 25 & 15;
    match class {
        0b1000 | 0b1001 => Some(with_number(word)),
        0b1010 | 0b1011 => branch_or_system(word),
        0b0101 | 0b1101 => with_registers(word),
        0b0111 | 0b1111 => floating(word),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => memory(word),
        // `udf`.
        0 if word >> 16 == 0 => Some(Access::default()),
        _ => None,
    }
}

fn from_to(reads: u32, writes: u32) -> Access {
    Access { reads, writes }
}

/// Data processing with a number: `adr`, `add`, `and`, `movz`, `ubfm`, `extr`.
fn with_number(word: u32) -> Access {
    let (to, from) = (field(word, 0), field(word, 5));
    match word >> 23 & 7 {
        0 | 1 => from_to(0, to),
        // `movk` and `bfm` keep a part of what is there.
        5 if word >> 29 & 3 == 3 => from_to(to, to),
        5 => from_to(0, to),
        6 if word >> 29 & 3 == 1 => from_to(to | from, to),
        7 => from_to(from | field(word, 16), to),
        _ => from_to(from, to),
    }
}

fn branch_or_system(word: u32) -> Option<Access> {
    let is = |mask: u32, value: u32| word & mask == value;
    let lowest = field(word, 0);
    // `b`, `bl`, `b.cond`, `brk`, `hlt`.
    if is(0x7c00_0000, 0x1400_0000)
        || is(0xff00_0000, 0x5400_0000)
        || is(0xffe0_001f, 0xd420_0000)
        || is(0xffe0_001f, 0xd440_0000)
    {
        return Some(Access::default());
    }
    // `cbz`, `tbz`.
    if is(0x7c00_0000, 0x3400_0000) {
        return Some(from_to(lowest, 0));
    }
    // `br`, `blr`, `ret`; those that check a signature have a second register.
    if is(0xfe00_0000, 0xd600_0000) {
        let second = if word >> 24 & 1 != 0 { lowest } else { 0 };
        return Some(from_to(field(word, 5) | second, 0));
    }
    // Hints: most do nothing, some sign `x30`.
    if is(0xffff_f01f, 0xd503_201f) {
        return match word >> 5 & 0x7f {
            0..=5 | 16 | 18 | 20 | 32..=39 => Some(Access::default()),
            24..=31 => Some(from_to(bit(30), bit(30))),
            _ => None,
        };
    }
    // Barriers, `msr`, `mrs`, `sys`.
    if is(0xffc0_0000, 0xd500_0000) {
        return Some(match word >> 21 & 1 {
            0 => from_to(lowest, 0),
            _ => from_to(0, lowest),
        });
    }
    None
}

/// Data processing with registers.
fn with_registers(word: u32) -> Option<Access> {
    let (to, from, second, third) = (
        field(word, 0),
        field(word, 5),
        field(word, 16),
        field(word, 10),
    );
    if word >> 28 & 1 == 0 {
        return Some(from_to(from | second, to));
    }
    Some(match word >> 21 & 15 {
        // `rmif` and `setf` write flags alone.
        0 if word >> 13 & 7 == 0 && word >> 10 & 0x3f != 0 => from_to(from, 0),
        // `adc`, `csel`.
        0 | 4 => from_to(from | second, to),
        // `ccmp` with a number or a register.
        2 if word >> 11 & 1 != 0 => from_to(from, 0),
        2 => from_to(from | second, 0),
        6 if word >> 30 & 1 == 0 => from_to(from | second, to),
        // One source; signatures are put into what is there.
        6 if word >> 16 & 31 == 1 => from_to(to | from, to),
        6 => from_to(from, to),
        8..=15 => from_to(from | second | third, to),
        _ => return None,
    })
}

/// Floating point and vectors: only moves from and to other registers count.
fn floating(word: u32) -> Option<Access> {
    let is = |mask: u32, value: u32| word & mask == value;
    let (to, from) = (field(word, 0), field(word, 5));
    let kind = word >> 16 & 7;
    let fixed = is(0x5f20_0000, 0x1e00_0000);
    if fixed || is(0x5f20_fc00, 0x1e20_0000) {
        // Newer ones convert from one register of vectors to another.
        if !fixed && word >> 20 & 1 != 0 && kind >= 2 {
            return None;
        }
        return Some(match kind {
            2 | 3 => from_to(from, 0),
            7 if !fixed => from_to(from, 0),
            _ => from_to(0, to),
        });
    }
    if is(0x9fe0_8400, 0x0e00_0400) {
        return Some(match (word >> 29 & 1, word >> 11 & 15) {
            (0, 1 | 3) => from_to(from, 0),
            (0, 5 | 7) => from_to(0, to),
            _ => Access::default(),
        });
    }
    Some(Access::default())
}

/// Loads and stores.
fn memory(word: u32) -> Option<Access> {
    let is_vector = word >> 26 & 1 != 0;
    let (value, base, second, other) = (
        field(word, 0),
        field(word, 5),
        field(word, 10),
        field(word, 16),
    );
    let is_load = word >> 22 & 1 != 0;
    // What a vector register gets is none of those that count.
    let moved = |registers: u32, loads: bool| match (is_vector, loads) {
        (true, _) => Access::default(),
        (false, true) => from_to(0, registers),
        (false, false) => from_to(registers, 0),
    };
    let with_base = |access: Access, writes_base: bool| {
        let written = if writes_base { base } else { 0 };
        from_to(access.reads | base, access.writes | written)
    };
    match word >> 27 & 7 {
        // A place in the code.
        0b011 if word >> 24 & 3 == 0 => Some(match word >> 30 {
            3 if !is_vector => Access::default(),
            _ => moved(value, true),
        }),
        // `ldapur` and `stlur`.
        0b011
            if !is_vector && word >> 24 & 3 == 1 && word >> 10 & 3 == 0 && word >> 21 & 1 == 0 =>
        {
            Some(with_base(moved(value, word >> 22 & 3 != 0), false))
        }
        0b001 if is_vector => {
            let is_stepping = word >> 23 & 1 != 0;
            let step = if is_stepping { other } else { 0 };
            Some(with_base(from_to(step, 0), is_stepping))
        }
        0b001 if word >> 24 & 1 == 0 => exclusive(word),
        0b101 => {
            let steps = word >> 23 & 1 != 0;
            Some(with_base(moved(value | second, is_load), steps))
        }
        0b111 => single(word, &moved, &with_base),
        _ => None,
    }
}

/// Loads and stores of one register.
fn single(
    word: u32,
    moved: &dyn Fn(u32, bool) -> Access,
    with_base: &dyn Fn(Access, bool) -> Access,
) -> Option<Access> {
    let (value, other) = (field(word, 0), field(word, 16));
    let (kind, size, is_vector) = (word >> 22 & 3, word >> 30, word >> 26 & 1 != 0);
    let loads = kind != 0;
    let asks = !is_vector && size == 3 && kind == 2;
    let moved = || match asks {
        true => Access::default(),
        false => moved(value, loads),
    };
    if word >> 24 & 3 == 1 {
        return Some(with_base(moved(), false));
    }
    if word >> 24 & 3 != 0 {
        return None;
    }
    match (word >> 21 & 1, word >> 10 & 3) {
        (0, form) => Some(with_base(moved(), form & 1 != 0)),
        (_, 2) => {
            let mut access = with_base(moved(), false);
            access.reads |= other;
            Some(access)
        }
        // `ldadd`, `swp`, `ldapr` and their like.
        (_, 0) if !is_vector => {
            let known = word >> 15 & 1 == 0 || matches!(word >> 12 & 7, 0 | 4);
            known.then(|| with_base(from_to(other, value), false))
        }
        // `ldraa`.
        (_, _) if !is_vector && size == 3 => {
            Some(with_base(from_to(0, value), word >> 11 & 1 != 0))
        }
        _ => None,
    }
}

/// Loads and stores that others see in order, or not at all.
fn exclusive(word: u32) -> Option<Access> {
    let (value, base, second, status) = (
        field(word, 0),
        field(word, 5),
        field(word, 10),
        field(word, 16),
    );
    let (ordered, loads, pair) = (word >> 23 & 1, word >> 22 & 1 != 0, word >> 21 & 1);
    Some(match (ordered, pair) {
        (0, 0) if loads => from_to(base, value),
        (0, 0) => from_to(base | value, status),
        // `casp` takes each register with the one behind it.
        (0, 1) if word >> 31 == 0 => {
            let next = |shift: u32| field(word, shift) | bit((word >> shift & 31) + 1);
            from_to(base | next(0) | next(16), next(16))
        }
        (0, _) if loads => from_to(base, value | second),
        (0, _) => from_to(base | value | second, status),
        (_, 0) if loads => from_to(base, value),
        (_, 0) => from_to(base | value, 0),
        // `cas`.
        _ => from_to(base | value | status, status),
    })
}

#[cfg(test)]
mod tests;
