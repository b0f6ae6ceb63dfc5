//! `invivo inspect` of a payload for Xen.

use std::path::Path;

use invivo_format::livepatch::{
    Access, Contents, Function, New, Old, Payload, Reference, RelocationKind, Splice, SymbolPlace,
    read, redirections,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::{Failure, REFUSED};
use crate::output::Output;

/// `inspect --json` of a payload.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PayloadDump {
    schema: &'static str,
    /// Its own build id.
    id: String,
    /// Bytes of the file.
    size: usize,
    /// The version of the structures: 1 up to Xen 4.13, 2 from 4.14 on.
    version: u8,
    /// The build id of what must be applied last.
    depends: String,
    /// The build id of the hypervisor.
    xen_depends: Option<String>,
    modinfo: Vec<String>,
    functions: Vec<FunctionDump>,
    /// Calls and pointers of Xen that are led to other code.
    redirections: Vec<RedirectionDump>,
    hooks: Vec<HookDump>,
    sections: Vec<LoadedSection>,
    symbols: Vec<LoadedSymbol>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FunctionDump {
    name: String,
    /// Where the old one is, if not by its name: an address, or a symbol.
    old: Option<String>,
    old_size: u32,
    /// The place of the new code; none for NOPs.
    new: Option<String>,
    /// Bytes of the new code, or of NOPs.
    new_size: u32,
    /// The bytes that the old one must begin with.
    expected: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RedirectionDump {
    /// `call`, which a jump may be, or `pointer`.
    kind: &'static str,
    /// The distance of the call, or the pointer.
    place: String,
    from: String,
    to: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HookDump {
    /// Such as `.livepatch.hooks.load`.
    section: &'static str,
    code: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LoadedSection {
    name: String,
    /// `code`, `constants` or `data`.
    access: &'static str,
    size: u64,
    /// True if it is zeros, which are not in the file.
    zeros: bool,
    align: u64,
    relocations: Vec<LoadedRelocation>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LoadedRelocation {
    offset: u64,
    kind: &'static str,
    to: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LoadedSymbol {
    /// Empty for one that nobody but the payload knows.
    name: String,
    /// The section and the place in it; none for one of Xen, or of an earlier payload.
    place: Option<String>,
}

pub(crate) fn inspect(path: &Path, bytes: &[u8], output: &Output) -> Result<u8, Failure> {
    let found = read(bytes).map_err(|error| {
        Failure::new(REFUSED, format!("{}: {error}", path.display()))
            .hint("see what Xen answers to it with: invivo check")
    })?;
    let dump = dump(&found.payload, found.id.to_string(), bytes.len());
    output.data(&dump, || print(&dump))?;
    Ok(0)
}

fn dump(payload: &Payload, id: String, size: usize) -> PayloadDump {
    let to = |reference: Reference| shown(payload, reference);
    let sections = payload.sections.iter().map(|section| LoadedSection {
        name: section.name.clone(),
        access: match section.access {
            Access::Code => "code",
            Access::ReadOnly => "constants",
            Access::Data => "data",
        },
        size: section.contents.size(),
        zeros: matches!(section.contents, Contents::Zeros(_)),
        align: section.align,
        relocations: section
            .relocations
            .iter()
            .map(|relocation| LoadedRelocation {
                offset: relocation.offset,
                kind: match relocation.kind {
                    RelocationKind::Absolute64 => "64",
                    RelocationKind::Relative32 => "PC32",
                    RelocationKind::Call32 => "PLT32",
                },
                to: to(relocation.to),
            })
            .collect(),
    });
    let symbols = payload.symbols.iter().map(|symbol| LoadedSymbol {
        name: symbol.name.clone(),
        place: match symbol.place {
            SymbolPlace::Xen => None,
            SymbolPlace::Section {
                section, offset, ..
            } => {
                let name = &payload.sections[section as usize].name;
                Some(format!("{name}+{offset:#x}"))
            }
        },
    });
    let redirections = redirections(payload)
        .into_iter()
        .map(|one| RedirectionDump {
            kind: match one.kind {
                Splice::Callers => "call",
                Splice::Tables => "pointer",
            },
            place: to(one.place),
            from: to(one.from),
            to: to(one.to),
        });
    let hooks = payload.hooks.iter().map(|hook| HookDump {
        section: hook.moment.section(),
        code: to(hook.code),
    });
    PayloadDump {
        schema: "invivo.payload/1",
        id,
        size,
        version: payload.version.number(),
        depends: payload.depends.to_string(),
        xen_depends: payload.xen_depends.as_ref().map(ToString::to_string),
        modinfo: payload.modinfo.clone(),
        functions: payload
            .functions
            .iter()
            .map(|f| function(payload, f))
            .collect(),
        redirections: redirections.collect(),
        hooks: hooks.collect(),
        sections: sections.collect(),
        symbols: symbols.collect(),
    }
}

fn function(payload: &Payload, function: &Function) -> FunctionDump {
    let (new, new_size) = match function.new {
        New::Code { code, size } => (Some(shown(payload, code)), size),
        New::Nop { size } => (None, size),
    };
    let expected = function.expectation.as_ref();
    FunctionDump {
        name: function.name.clone(),
        old: match function.old {
            Old::Name => None,
            Old::Address(address) => Some(format!("{address:#x}")),
            Old::Symbol(symbol) => Some(shown(payload, symbol)),
        },
        old_size: function.old_size,
        new,
        new_size,
        expected: expected.map(|e| e.bytes().iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// A place: the symbol's name, or else its section and place, and what is added.
fn shown(payload: &Payload, reference: Reference) -> String {
    let symbol = &payload.symbols[reference.symbol as usize];
    let place = match symbol.place {
        SymbolPlace::Section {
            section, offset, ..
        } if symbol.name.is_empty() => {
            format!("{}+{offset:#x}", payload.sections[section as usize].name)
        }
        _ => symbol.name.clone(),
    };
    match reference.addend {
        0 => place,
        addend if addend < 0 => format!("{place}-{:#x}", addend.unsigned_abs()),
        addend => format!("{place}+{addend:#x}"),
    }
}

fn print(dump: &PayloadDump) {
    let xen = dump.xen_depends.as_deref().unwrap_or("any");
    anstream::println!(
        "payload {} for Xen, structures of version {}",
        dump.id,
        dump.version
    );
    anstream::println!(
        "  for the hypervisor {xen}\n  on top of          {}",
        dump.depends
    );
    for text in &dump.modinfo {
        anstream::println!("  {text}");
    }
    anstream::println!("\nfunctions");
    for function in &dump.functions {
        let old = function
            .old
            .as_ref()
            .map_or(String::new(), |old| format!(" at {old}"));
        let (name, size) = (&function.name, function.old_size);
        match &function.new {
            Some(new) => {
                let bytes = function.new_size;
                anstream::println!("  {name}{old}, {size} bytes → {new}, {bytes} bytes");
            }
            None if function.new_size == 0 => {
                anstream::println!("  {name}{old}, {size} bytes: only looked at")
            }
            None => anstream::println!("  {name}{old}, {size} bytes: {} NOPs", function.new_size),
        }
        if let Some(expected) = &function.expected {
            anstream::println!("    begins with {expected}");
        }
    }
    for one in &dump.redirections {
        let (kind, place, from, to) = (one.kind, &one.place, &one.from, &one.to);
        anstream::println!("  {kind} at {place}: {from} → {to}");
    }
    for hook in &dump.hooks {
        anstream::println!("  {} calls {}", hook.section, hook.code);
    }
    anstream::println!("\nsections");
    for section in &dump.sections {
        let zeros = if section.zeros { " of zeros" } else { "" };
        let count = section.relocations.len();
        let (name, access, size) = (&section.name, section.access, section.size);
        anstream::println!("  {access:<9} {size:>8} bytes{zeros}, {count} relocations  {name}");
    }
    let named = dump.symbols.iter().filter(|symbol| !symbol.name.is_empty());
    anstream::println!("\nsymbols");
    for symbol in named {
        let place = symbol
            .place
            .as_deref()
            .unwrap_or("of Xen, or of an earlier payload");
        anstream::println!("  {}  {place}", symbol.name);
    }
}
