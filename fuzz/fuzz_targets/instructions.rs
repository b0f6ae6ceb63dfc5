//! Any bytes as instructions: what is read off them is what the decoder says.

#![no_main]

use iced_x86::{Decoder, DecoderOptions, Instruction};
use invivo_image::x86_64::{Skim, Traits, plain, skim};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for start in 0..data.len() {
        let mut code = [0; 16];
        let rest = &data[start..data.len().min(start + 16)];
        code[..rest.len()].copy_from_slice(rest);
        let Some(known) = skim(&code) else {
            assert!(plain(&code, false).is_none() && plain(&code, true).is_none());
            continue;
        };
        let mut decoder = Decoder::with_ip(64, &code, 0x40_1000, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        decoder.decode_out(&mut instruction);
        assert!(!instruction.is_invalid(), "{code:02x?}");
        let offsets = decoder.get_constant_offsets(&instruction);
        assert_eq!(known, Skim::of(&instruction, &offsets), "{code:02x?}");
        for plain in [false, true].iter().filter_map(|fixed| plain(&code, *fixed)) {
            assert_eq!(plain.len, known.len, "{code:02x?}");
            assert!(!known.traits.has(Traits::RELATIVE), "{code:02x?}");
        }
    }
});
