//! Any bytes as instructions: what is read off them is what the decoder says.

#![no_main]

use iced_x86::{Decoder, DecoderOptions, Instruction};
use invivo_image::LinkAddr;
use invivo_image::x86_64::{AddressSpan, Skim, Traits, plain, skim};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Places that move; fixed ones, where no number is an address; and where some are.
    let some = AddressSpan::between(LinkAddr(0x40_0000), LinkAddr(0x50_0000));
    let numbers = [None, Some(AddressSpan::default()), Some(some)];
    for start in 0..data.len() {
        let mut code = [0; 16];
        let rest = &data[start..data.len().min(start + 16)];
        code[..rest.len()].copy_from_slice(rest);
        let Some(known) = skim(&code) else {
            assert!(
                numbers
                    .iter()
                    .all(|numbers| plain(&code, *numbers).is_none())
            );
            continue;
        };
        let mut decoder = Decoder::with_ip(64, &code, 0x40_1000, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        decoder.decode_out(&mut instruction);
        assert!(!instruction.is_invalid(), "{code:02x?}");
        let offsets = decoder.get_constant_offsets(&instruction);
        assert_eq!(known, Skim::of(&instruction, &offsets), "{code:02x?}");
        for plain in numbers.iter().filter_map(|numbers| plain(&code, *numbers)) {
            assert_eq!(plain.len, known.len, "{code:02x?}");
            assert!(!known.traits.has(Traits::RELATIVE), "{code:02x?}");
        }
    }
});
