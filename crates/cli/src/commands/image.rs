//! `invivo inspect` for Windows images.

use std::path::Path;
use std::sync::Arc;

use invivo_format::hpat::{HotPatch, read};
use invivo_image::Machine;
use invivo_image::pe::{ImportedSymbol, PeError, PeImage, PeMachine, checksum};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::legacy::{self, ColdDump, LegacyDump};
use crate::commands::marks::Marks;
use crate::failure::{Failure, REFUSED};
use crate::images::{named_pdb, parse_pe, read_pdb};
use crate::output::Output;

/// `inspect --json` of a Windows image.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ImageDump {
    schema: &'static str,
    file: String,
    /// Bytes of the file.
    size: usize,
    machine: &'static str,
    /// True for a library, false for a program or driver.
    library: bool,
    /// `TimeDateStamp`, in hexadecimal digits; with the checksum it names the build.
    time_stamp: String,
    /// `CheckSum`, in hexadecimal digits.
    checksum: String,
    /// True if it is the checksum that the file has.
    checksum_is_right: bool,
    image_base: String,
    /// Bytes in memory.
    image_size: u32,
    /// True if its linker marked it as made for hot patching.
    hot_patch_compatible: bool,
    /// The PDB file that belongs to it.
    debug: Option<DebugDump>,
    /// What shows which of its functions were compiled for hot patching.
    marks: Marks,
    sections: Vec<SectionDump>,
    imports: Vec<ImportDump>,
    exports: Vec<ExportDump>,
    /// Places that hold an address of the image.
    base_relocations: usize,
    /// Entries of the exception table.
    unwind_entries: usize,
    thread_locals: bool,
    /// Bytes of the load configuration.
    load_config_size: Option<u32>,
    /// The hot-patch metadata, where it has some.
    hot_patch: Option<MetadataDump>,
    /// The section `.hotp1` of older patches, where it has one.
    hotp1: Option<LegacyDump>,
    /// What a file that was patched on disk says of itself.
    cold: Option<ColdDump>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DebugDump {
    /// GUID and age as symbol servers write them.
    id: String,
    path: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SectionDump {
    name: String,
    at: String,
    /// Bytes in memory.
    size: u64,
    file_size: u64,
    /// Of `r`, `w`, `x`.
    access: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ImportDump {
    library: String,
    delayed: bool,
    /// Names, or numbers as `#12`.
    symbols: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ExportDump {
    ordinal: u16,
    names: Vec<String>,
    /// Its address, or where it is forwarded to.
    at: String,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct MetadataDump {
    /// What forbids to read it, with the rule; then the rest is empty.
    broken: Option<String>,
    version: u32,
    sequence: u32,
    min_sequence: u32,
    flags: u32,
    /// Bytes.
    size: u32,
    /// Words of each record beyond source and target.
    extra_words: u32,
    bases: Vec<BaseDump>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BaseDump {
    time_stamp: String,
    checksum: String,
    sequence: u32,
    flags: u32,
    chunks: Vec<ChunkDump>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ChunkDump {
    /// `forward`: from base to patch; `inverse`: from patch to base.
    direction: &'static str,
    kind: String,
    records: Vec<RecordDump>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RecordDump {
    source: String,
    target: String,
    extra: Vec<String>,
}

pub(crate) fn inspect(path: &Path, bytes: Arc<[u8]>, output: &Output) -> Result<u8, Failure> {
    let image = parse_pe(path, bytes)?;
    let dump = dump(path, &image);
    output.data(&dump, || print(&dump))?;
    Ok(0)
}

fn dump(path: &Path, image: &PeImage) -> ImageDump {
    let sum = checksum(image.file(), image.header_places().checksum);
    ImageDump {
        schema: "invivo.image/1",
        file: path.display().to_string(),
        size: image.file().len(),
        machine: image.machine.name(),
        library: image.is_library,
        time_stamp: format!("{:08x}", image.time_stamp),
        checksum: format!("{:08x}", image.checksum),
        checksum_is_right: sum == image.checksum,
        image_base: format!("{:#x}", image.image_base),
        image_size: image.size,
        hot_patch_compatible: image.is_hot_patch_compatible(),
        debug: image.code_view().map(|view| DebugDump {
            id: view.to_string(),
            path: view.path.clone(),
        }),
        marks: marks(path, image),
        sections: sections(image),
        imports: imports(image),
        exports: exports(image),
        base_relocations: image.relocations.len(),
        unwind_entries: image.functions.len(),
        thread_locals: image.tls.is_some(),
        load_config_size: image.load_config.map(|config| config.size),
        hot_patch: metadata(image),
        hotp1: legacy::dump(image),
        cold: legacy::dump_cold(image),
    }
}

/// What the PDB file beside the image tells.
fn marks(path: &Path, image: &PeImage) -> Marks {
    let Some(pdb) = named_pdb(path, image) else {
        return Marks::unknown(
            "nothing tells what was compiled for hot patching: the image names no PDB file"
                .to_owned(),
            "link it with /debug",
        );
    };
    // Which file was looked for is what a person needs who has it elsewhere.
    let fail = |error: PeError| Failure::new(REFUSED, format!("{}: {error}", pdb.display()));
    let read = read_pdb(&pdb, fail).and_then(|pdb| {
        pdb.check(image).map_err(fail)?;
        Ok(pdb)
    });
    let machine = match image.machine {
        PeMachine::Amd64 => Machine::X86_64,
        PeMachine::I386 => Machine::X86,
        PeMachine::Arm64 => Machine::Aarch64,
    };
    match read {
        Ok(pdb) => Marks::of_pdb(&pdb, machine),
        Err(failure) => Marks::unknown(
            format!(
                "what was compiled for hot patching is not known: {}",
                failure.text
            ),
            "keep the PDB file beside the image",
        ),
    }
}

fn sections(image: &PeImage) -> Vec<SectionDump> {
    let access = |flag: bool, letter: char| if flag { letter } else { '-' };
    let sections = image.sections.iter().map(|section| SectionDump {
        name: section.name.clone(),
        at: section.range.start.to_string(),
        size: section.range.end.0 - section.range.start.0,
        file_size: section.file_size(),
        access: String::from_iter([
            access(section.is_readable(), 'r'),
            access(section.is_writable(), 'w'),
            access(section.is_executable(), 'x'),
        ]),
    });
    sections.collect()
}

fn imports(image: &PeImage) -> Vec<ImportDump> {
    let symbol = |symbol: &ImportedSymbol| match symbol {
        ImportedSymbol::Name(name) => name.clone(),
        ImportedSymbol::Ordinal(number) => format!("#{number}"),
    };
    let imports = image.imports.iter().map(|library| ImportDump {
        library: library.name.clone(),
        delayed: library.delayed,
        symbols: library
            .thunks
            .iter()
            .map(|thunk| symbol(&thunk.symbol))
            .collect(),
    });
    imports.collect()
}

fn exports(image: &PeImage) -> Vec<ExportDump> {
    let exports = image.exports.iter().map(|export| ExportDump {
        ordinal: export.ordinal,
        names: export.names.clone(),
        at: match (&export.forward, export.at) {
            (Some(forward), _) => forward.clone(),
            (None, Some(at)) => at.to_string(),
            (None, None) => String::new(),
        },
    });
    exports.collect()
}

fn metadata(image: &PeImage) -> Option<MetadataDump> {
    // An image whose configuration names nothing is an ordinary one.
    image.load_config?.hot_patch.filter(|at| at.0 != 0)?;
    let parsed = match read(image) {
        Ok(parsed) => parsed,
        Err(error) => {
            return Some(MetadataDump {
                broken: Some(error.to_string()),
                ..MetadataDump::default()
            });
        }
    };
    let patch = &parsed.patch;
    Some(MetadataDump {
        broken: None,
        version: patch.version,
        sequence: patch.sequence,
        min_sequence: patch.min_sequence,
        flags: patch.flags,
        size: parsed.places.size,
        extra_words: patch.extra_words,
        bases: bases(patch),
    })
}

fn bases(patch: &HotPatch) -> Vec<BaseDump> {
    let hex = |value: &u32| format!("{value:#x}");
    let bases = patch.bases.iter().map(|base| BaseDump {
        time_stamp: format!("{:08x}", base.time_stamp),
        checksum: format!("{:08x}", base.checksum),
        sequence: base.sequence,
        flags: base.flags,
        chunks: base
            .chunks
            .iter()
            .map(|chunk| ChunkDump {
                direction: if chunk.inverse { "inverse" } else { "forward" },
                kind: chunk.kind.name().to_owned(),
                records: chunk
                    .records
                    .iter()
                    .map(|record| RecordDump {
                        source: hex(&record.source),
                        target: hex(&record.target),
                        extra: record.extra.iter().map(hex).collect(),
                    })
                    .collect(),
            })
            .collect(),
    });
    bases.collect()
}

fn print(dump: &ImageDump) {
    let field = |name: &str, value: &str| anstream::println!("{name:<12}{value}");
    let kind = if dump.library { "library" } else { "program" };
    field("image", &format!("Windows {kind} for {}", dump.machine));
    field(
        "build",
        &format!("time stamp {}, checksum {}", dump.time_stamp, dump.checksum),
    );
    if !dump.checksum_is_right {
        field("", "the checksum is not that of the file");
    }
    if let Some(debug) = &dump.debug {
        field("debug data", &format!("{} ({})", debug.path, debug.id));
    }
    dump.marks.print(12);
    let marked = if dump.hot_patch_compatible {
        "yes"
    } else {
        "no"
    };
    field("hot-patchable", &format!(" {marked}, by the linker's mark"));
    field(
        "size",
        &format!("{} bytes, {} in memory", dump.size, dump.image_size),
    );
    field(
        "has",
        &format!(
            "{} exports, {} base relocations, {} unwind entries",
            dump.exports.len(),
            dump.base_relocations,
            dump.unwind_entries
        ),
    );
    anstream::println!("\nsections");
    for section in &dump.sections {
        anstream::println!(
            "  {:<10} {:>8} bytes  {}  {}",
            section.at,
            section.size,
            section.access,
            section.name
        );
    }
    if !dump.imports.is_empty() {
        anstream::println!("\nimports");
    }
    for import in &dump.imports {
        let delayed = if import.delayed {
            ", at the first call"
        } else {
            ""
        };
        anstream::println!(
            "  {} ({} symbols{delayed})",
            import.library,
            import.symbols.len()
        );
    }
    if let Some(metadata) = &dump.hot_patch {
        print_metadata(metadata);
    }
    if let Some(patch) = &dump.hotp1 {
        legacy::print(patch);
    }
    if let Some(cold) = &dump.cold {
        legacy::print_cold(cold);
    }
}

fn print_metadata(metadata: &MetadataDump) {
    anstream::println!("\nhot patch");
    if let Some(broken) = &metadata.broken {
        anstream::println!("  {broken}");
        return;
    }
    let mut more = String::new();
    if metadata.min_sequence > 0 {
        more += &format!(", over sequence {} or a later one", metadata.min_sequence);
    }
    if metadata.flags > 0 {
        more += &format!(", flags {:#x}", metadata.flags);
    }
    anstream::println!(
        "  version {}, sequence {}, {} bytes{more}",
        metadata.version,
        metadata.sequence,
        metadata.size
    );
    for base in &metadata.bases {
        anstream::println!(
            "  for time stamp {}, checksum {}",
            base.time_stamp,
            base.checksum
        );
        for chunk in &base.chunks {
            anstream::println!("    {} {}", chunk.direction, chunk.kind);
            let arrow = if chunk.kind == "INDIRECT" {
                "copied from"
            } else {
                "→"
            };
            for record in &chunk.records {
                let extra = if record.extra.is_empty() {
                    String::new()
                } else {
                    format!("  [{}]", record.extra.join(", "))
                };
                anstream::println!(
                    "      {:<10} {arrow} {}{extra}",
                    record.source,
                    record.target
                );
            }
        }
    }
}
