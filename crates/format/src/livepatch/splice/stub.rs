//! The code of the hooks that write: machine code, as compilers make it for such a loop.
//!
//! A hook takes each record of a table — a place, where it led, where it is to lead — and
//! writes if the place still leads where it did. Xen calls it where its own jumps are written, too: all
//! processors stand, interrupts are off, code and constants can be written.

/// Bytes of a record: three addresses.
pub(super) const RECORD: usize = 24;

/// A table that the code goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The table's symbol.
    pub(super) symbol: u32,
    /// How many records it has, at least one.
    pub(super) count: u32,
    /// True for distances of four bytes, which tell how far behind them they lead; false for
    /// pointers.
    pub(super) distances: bool,
}

/// Code, and where in it are four bytes of the distance to which symbol.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stub {
    pub(super) code: Vec<u8>,
    pub(super) distances: Vec<(u64, u32)>,
}

/// A hook that writes all places of the tables; `back` if they are to lead where they did at first.
pub(super) fn stub(tables: &[Table], back: bool) -> Stub {
    let mut stub = Stub::default();
    // endbr64
    stub.code.extend([0xf3, 0x0f, 0x1e, 0xfa]);
    for table in tables {
        stub.table(*table, back);
    }
    // ret
    stub.code.push(0xc3);
    stub
}

impl Stub {
    fn table(&mut self, table: Table, back: bool) {
        let (was, becomes) = if back { (16, 8) } else { (8, 16) };
        // lea table(%rip), %rdx
        self.code.extend([0x48, 0x8d, 0x15]);
        self.distances.push((self.code.len() as u64, table.symbol));
        self.code.extend([0; 4]);
        // mov $count, %ecx
        self.code.push(0xb9);
        self.code.extend(table.count.to_le_bytes());
        let again = self.code.len();
        // mov (%rdx), %rdi; mov was(%rdx), %rax; mov becomes(%rdx), %rsi
        self.code.extend([0x48, 0x8b, 0x3a]);
        self.code.extend([0x48, 0x8b, 0x42, was]);
        self.code.extend([0x48, 0x8b, 0x72, becomes]);
        if table.distances {
            // sub %rdi, %rax; sub $4, %eax; sub %rdi, %rsi; sub $4, %esi
            self.code.extend([0x48, 0x29, 0xf8, 0x83, 0xe8, 4]);
            self.code.extend([0x48, 0x29, 0xfe, 0x83, 0xee, 4]);
            // cmp %eax, (%rdi); jne over; mov %esi, (%rdi)
            self.code.extend([0x39, 0x07, 0x75, 2, 0x89, 0x37]);
        } else {
            // cmp %rax, (%rdi); jne over; mov %rsi, (%rdi)
            self.code
                .extend([0x48, 0x39, 0x07, 0x75, 3, 0x48, 0x89, 0x37]);
        }
        // over: add $24, %rdx; dec %ecx; jne again
        self.code
            .extend([0x48, 0x83, 0xc2, RECORD as u8, 0xff, 0xc9, 0x75]);
        let behind = self.code.len() + 1;
        // The loop is shorter than a short jump reaches.
        self.code.push((again as u8).wrapping_sub(behind as u8));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

    use super::*;

    const CODE: u64 = 0x10_0000;
    const TABLE: u64 = 0x20_0000;

    /// A processor that knows these few instructions, and fails at any other.
    struct Processor {
        memory: HashMap<u64, u8>,
        registers: HashMap<Register, u64>,
        zero: bool,
    }

    impl Processor {
        fn read(&self, at: u64, size: usize) -> u64 {
            let bytes = (at..).take(size).zip(0..);
            bytes.fold(0, |sum, (at, number)| {
                sum | u64::from(self.memory[&at]) << (8 * number)
            })
        }

        fn write(&mut self, at: u64, size: usize, value: u64) {
            for (at, byte) in (at..).zip(value.to_le_bytes()).take(size) {
                self.memory.insert(at, byte);
            }
        }

        fn address(&self, one: &Instruction) -> u64 {
            if one.is_ip_rel_memory_operand() {
                return one.ip_rel_memory_address();
            }
            let base = self.registers[&one.memory_base()];
            base.wrapping_add(one.memory_displacement64())
        }

        fn get(&self, one: &Instruction, operand: u32) -> u64 {
            match one.op_kind(operand) {
                OpKind::Register => {
                    let register = one.op_register(operand);
                    let value = self.registers[&register.full_register()];
                    if register.size() == 4 {
                        value & 0xffff_ffff
                    } else {
                        value
                    }
                }
                OpKind::Memory => self.read(self.address(one), one.memory_size().size()),
                _ => one.immediate(operand),
            }
        }

        fn set(&mut self, one: &Instruction, value: u64) {
            match one.op_kind(0) {
                OpKind::Memory => self.write(self.address(one), one.memory_size().size(), value),
                _ => {
                    let register = one.op0_register();
                    let value = if register.size() == 4 {
                        value & 0xffff_ffff
                    } else {
                        value
                    };
                    self.registers.insert(register.full_register(), value);
                }
            }
        }

        fn run(&mut self, stub: &Stub) {
            let mut code = stub.code.clone();
            for (number, (at, symbol)) in stub.distances.iter().enumerate() {
                assert_eq!(*symbol as usize, number);
                let at = *at as usize;
                let table = TABLE + 0x1000 * number as u64;
                let distance = (table - (CODE + at as u64 + 4)) as u32;
                code[at..at + 4].copy_from_slice(&distance.to_le_bytes());
            }
            let mut ip = CODE;
            for _ in 0..1000 {
                let at = (ip - CODE) as usize;
                let one = Decoder::with_ip(64, &code[at..], ip, DecoderOptions::NONE).decode();
                ip = one.next_ip();
                match one.mnemonic() {
                    Mnemonic::Endbr64 => assert_eq!(at, 0),
                    Mnemonic::Lea => self.set(&one, self.address(&one)),
                    Mnemonic::Mov => self.set(&one, self.get(&one, 1)),
                    Mnemonic::Add => {
                        self.set(&one, self.get(&one, 0).wrapping_add(self.get(&one, 1)))
                    }
                    Mnemonic::Sub => {
                        self.set(&one, self.get(&one, 0).wrapping_sub(self.get(&one, 1)))
                    }
                    Mnemonic::Dec => {
                        let value = self.get(&one, 0) - 1;
                        self.set(&one, value);
                        self.zero = value == 0;
                    }
                    Mnemonic::Cmp => self.zero = self.get(&one, 0) == self.get(&one, 1),
                    Mnemonic::Jne if self.zero => {}
                    Mnemonic::Jne => ip = one.near_branch_target(),
                    Mnemonic::Ret => return,
                    other => unreachable!("{other:?}"),
                }
            }
            unreachable!("it does not end");
        }
    }

    /// Two calls, one of them changed meanwhile, and a pointer: there and back.
    #[test]
    fn what_leads_there_is_led_elsewhere_and_back() {
        const OLD: u64 = 0xffff_82d0_4023_4b20;
        const NEW: u64 = 0xffff_82d0_4080_0010;
        let calls = [0xffff_82d0_4021_bef3, 0xffff_82d0_4050_0001];
        let pointer = 0xffff_82d0_4045_c3d8;
        let distance = |from: u64, to: u64| to.wrapping_sub(from).wrapping_sub(4) as u32 as u64;
        let mut processor = Processor {
            memory: HashMap::new(),
            registers: HashMap::new(),
            zero: false,
        };
        let records = [
            (TABLE, calls[0]),
            (TABLE + 24, calls[1]),
            (TABLE + 0x1000, pointer),
        ];
        for (at, place) in records {
            for (number, value) in (0..).zip([place, OLD, NEW]) {
                processor.write(at + number * 8, 8, value);
            }
        }
        processor.write(calls[0], 4, distance(calls[0], OLD));
        processor.write(calls[1], 4, 7);
        processor.write(pointer, 8, OLD);
        let tables = [(2, true), (1, false)];
        let tables = [0, 1].map(|symbol| Table {
            symbol,
            count: tables[symbol as usize].0,
            distances: tables[symbol as usize].1,
        });
        let before = processor.memory.clone();
        processor.run(&stub(&tables, false));
        assert_eq!(processor.read(calls[0], 4), distance(calls[0], NEW));
        assert_eq!(processor.read(calls[1], 4), 7);
        assert_eq!(processor.read(pointer, 8), NEW);
        processor.run(&stub(&tables, true));
        assert_eq!(processor.memory, before);
    }

    #[test]
    fn without_a_table_it_only_returns() {
        assert_eq!(stub(&[], false).code, [0xf3, 0x0f, 0x1e, 0xfa, 0xc3]);
    }
}
