//! Any bytes as a payload for Xen: what the hypervisor will answer, and what can be read is
//! written again. The same bytes as a hypervisor's symbols.

#![no_main]

use invivo_format::livepatch::{Hypervisor, Loaded, Options, XenVersion, predict, read, write};
use libfuzzer_sys::fuzz_target;

const MAP: &[u8] = b"0xffff82d040200000 T _start
0xffff82d040234b20 T xen_extra_version
0xffff82d0403b7000 T __init_begin
0xffff82d04045b000 D __init_end
0xffff82d04045bdc0 d common/keyhandler.c#key_table
";

fuzz_target!(|data: &[u8]| {
    let map = Hypervisor::parse(MAP).expect("a map");
    let own = Hypervisor::parse(data).ok();
    for version in XenVersion::all().step_by(3) {
        let mut loaded: Vec<Loaded> = Vec::new();
        for xen in [None, Some(&map), own.as_ref()] {
            let options = Options {
                version,
                xen,
                running: None,
                loaded: &loaded,
            };
            let prediction = predict(data, &options);
            loaded.extend(prediction.loaded);
        }
    }
    if let Ok(found) = read(data) {
        let written = write(&found.payload).expect("what is read can be written");
        let again = read(&written.file).expect("and read again");
        assert_eq!(again.payload, found.payload);
        assert_eq!(again.id, written.id);
    }
});
