//! The payload that tests of several crates begin with.

use invivo_format::livepatch::{
    Access, Contents, Function, New, Old, Payload, Reference, Relocation, RelocationKind, Section,
    StructureVersion, Symbol, SymbolPlace,
};
use invivo_image::BuildId;

/// Replaces `xen_extra_version`, of 12 bytes, by one that returns `text`, in the hypervisor of that
/// build id. Symbol 0 is the text, symbol 1 the code; 8 bytes behind that is a hook that returns 0.
pub(crate) fn replacing(text: &[u8], xen: &BuildId) -> Payload {
    let section = |name: &str, access, bytes: &[u8]| Section {
        name: name.to_owned(),
        access,
        align: 16,
        contents: Contents::Bytes(bytes.to_vec()),
        relocations: Vec::new(),
    };
    // lea text(%rip), %rax; ret; then the hook: xor %eax, %eax; ret
    let code = [0x48, 0x8d, 5, 0, 0, 0, 0, 0xc3, 0x31, 0xc0, 0xc3];
    let mut code = section(".text.new", Access::Code, &code);
    code.relocations.push(Relocation {
        offset: 3,
        kind: RelocationKind::Relative32,
        to: Reference {
            symbol: 0,
            addend: -4,
        },
    });
    let own = |name: &str, section, size| Symbol {
        name: name.to_owned(),
        place: SymbolPlace::Section {
            section,
            offset: 0,
            size,
        },
    };
    Payload {
        version: StructureVersion::V2,
        functions: vec![Function {
            name: "xen_extra_version".to_owned(),
            new: New::Code {
                code: Reference {
                    symbol: 1,
                    addend: 0,
                },
                size: 8,
            },
            old: Old::Name,
            old_size: 12,
            expectation: None,
        }],
        hooks: Vec::new(),
        sections: vec![code, section(".rodata.new", Access::ReadOnly, text)],
        symbols: vec![
            own("", 1, text.len() as u64),
            own("xen_extra_version", 0, 8),
        ],
        depends: xen.clone(),
        xen_depends: Some(xen.clone()),
        modinfo: Vec::new(),
    }
}
