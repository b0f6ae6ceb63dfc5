//! `invivo inspect`

use invivo_format::livepatch;
use invivo_image::demangle;
use invivo_image::pe::PeImage;
use invivo_patch::{Check, Identity, Judgement, Moment, Order, Redirect, SymbolPlace, TargetImage};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Inspect;
use crate::commands::{final_image, image, marks, payload_dump};
use crate::failure::Failure;
use crate::images::read_file;
use crate::output::Output;
use crate::patch_file::{PatchFile, final_of, parse};

/// `inspect --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Dump {
    schema: &'static str,
    id: String,
    /// Bytes of the file.
    size: usize,
    #[schemars(with = "serde_json::Value")]
    identity: Identity,
    #[schemars(with = "serde_json::Value")]
    target: TargetImage,
    #[schemars(with = "serde_json::Value")]
    order: Order,
    /// Findings that a person has judged to do no harm.
    judgements: Vec<Judgement>,
    #[schemars(with = "Vec<serde_json::Value>")]
    redirects: Vec<Redirect>,
    #[schemars(with = "Vec<serde_json::Value>")]
    checks: Vec<Check>,
    /// Functions that are called in the process before and after.
    callouts: Vec<CalloutDump>,
    sections: Vec<SectionDump>,
    symbols: Vec<SymbolDump>,
}

/// A function that is called in the process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CalloutDump {
    moment: Moment,
    function: String,
}

impl CalloutDump {
    pub(crate) fn new(moment: Moment, function: &str) -> CalloutDump {
        let function = demangle(function);
        CalloutDump { moment, function }
    }

    pub(crate) fn print(&self) {
        let refuses = match self.moment {
            Moment::BeforeApply | Moment::BeforeRevert => ", which may refuse",
            Moment::AfterApply | Moment::AfterRevert => "",
        };
        anstream::println!("  calls {} {}{refuses}", self.function, self.moment);
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct SectionDump {
    name: String,
    size: usize,
    align: u64,
    relocations: Vec<RelocationDump>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RelocationDump {
    offset: u64,
    kind: String,
    symbol: String,
    addend: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SymbolDump {
    name: String,
    /// `patch` or `base`.
    place: &'static str,
    /// The section of the patch, or the address relative to the base image.
    at: String,
}

pub(crate) fn run(inspect: &Inspect, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&inspect.patch)?;
    if PeImage::is_pe(&bytes) {
        return image::inspect(&inspect.patch, bytes, output);
    }
    if let Some(found) = final_of(&inspect.patch, &bytes)? {
        return final_image::inspect(&inspect.patch, found, output);
    }
    if marks::is_object(&bytes) {
        return marks::inspect(&inspect.patch, &bytes, output);
    }
    if livepatch::is_payload(&bytes) {
        return payload_dump::inspect(&inspect.patch, &bytes, output);
    }
    let file = parse(&inspect.patch, &bytes)?;
    let dump = dump(&file);
    output.data(&dump, || print(&dump))?;
    Ok(0)
}

pub(crate) fn dump(file: &PatchFile) -> Dump {
    let patch = &file.patch;
    let contents = &patch.contents;
    let name_of = |number: u32| {
        let symbol = &contents.symbols[number as usize];
        match (&symbol.place, symbol.name.is_empty()) {
            (SymbolPlace::Patch { section, .. }, true) => {
                contents.sections[*section as usize].name.clone()
            }
            _ => symbol.name.clone(),
        }
    };
    Dump {
        schema: "invivo.inspect/1",
        id: file.id.to_string(),
        size: file.size,
        identity: patch.identity.clone(),
        target: patch.target.clone(),
        order: patch.order.clone(),
        judgements: patch.judgements.clone(),
        redirects: patch.redirects.clone(),
        checks: patch.checks.clone(),
        callouts: patch
            .callouts
            .iter()
            .map(|callout| CalloutDump::new(callout.moment, &callout.function))
            .collect(),
        sections: contents
            .sections
            .iter()
            .map(|section| SectionDump {
                name: section.name.clone(),
                size: section.bytes.len(),
                align: section.align,
                relocations: section
                    .relocations
                    .iter()
                    .map(|r| RelocationDump {
                        offset: r.offset,
                        kind: format!("{:?}", r.kind),
                        symbol: name_of(r.symbol),
                        addend: r.addend,
                    })
                    .collect(),
            })
            .collect(),
        symbols: contents
            .symbols
            .iter()
            .map(|symbol| match &symbol.place {
                SymbolPlace::Patch { section, .. } => SymbolDump {
                    name: symbol.name.clone(),
                    place: "patch",
                    at: contents.sections[*section as usize].name.clone(),
                },
                SymbolPlace::Base(at) => SymbolDump {
                    name: symbol.name.clone(),
                    place: "base",
                    at: at.to_string(),
                },
                SymbolPlace::Import(version) => SymbolDump {
                    name: symbol.name.clone(),
                    place: "import",
                    at: version.as_ref().map_or_else(
                        || "any library".to_owned(),
                        |at| format!("{} {}", at.library, at.version),
                    ),
                },
            })
            .collect(),
    }
}

pub(crate) fn print(dump: &Dump) {
    let field = |name: &str, value: &str| anstream::println!("{name:<12}{value}");
    field("name", &dump.identity.name);
    field("id", &dump.id);
    field("fixes", &dump.identity.labels.join(", "));
    field("made by", &dump.identity.creator);
    field(
        "for",
        &format!(
            "{} (build id {})",
            dump.target.file_name, dump.target.build_id
        ),
    );
    field("sequence", &dump.order.sequence.to_string());
    if dump.order.quiescent {
        field("switch", "only while no thread is inside what is replaced");
    }
    if !dump.order.apart.is_empty() {
        let apart = dump.order.apart.iter().map(|function| demangle(function));
        field("apart", &apart.collect::<Vec<_>>().join(", "));
    }
    if !dump.order.unshared.is_empty() {
        field("unshared", &dump.order.unshared.join(", "));
    }
    field("size", &format!("{} bytes", dump.size));
    crate::verdict::print_judgements(&dump.judgements);
    anstream::println!("\nredirects (base → patch)");
    for redirect in &dump.redirects {
        let name = demangle(&redirect.function);
        let hook = if redirect.hooked {
            "hooked"
        } else {
            "reached through others"
        };
        anstream::println!(
            "  {:<12} {:>6} bytes  {name}, {hook}",
            redirect.at.to_string(),
            redirect.size
        );
    }
    if !dump.callouts.is_empty() {
        anstream::println!("\ncallouts");
        dump.callouts.iter().for_each(CalloutDump::print);
    }
    anstream::println!("\nbindings (patch → base)");
    print_symbols(dump, "base");
    if dump.symbols.iter().any(|symbol| symbol.place == "import") {
        anstream::println!("\nimports (patch → libraries of the process)");
        print_symbols(dump, "import");
    }
    anstream::println!("\nsections");
    for section in &dump.sections {
        let relocations = section.relocations.len();
        anstream::println!(
            "  {:>6} bytes  {} ({relocations} relocations)",
            section.size,
            section.name
        );
    }
}

fn print_symbols(dump: &Dump, place: &str) {
    for symbol in dump.symbols.iter().filter(|symbol| symbol.place == place) {
        let name = demangle(&symbol.name);
        anstream::println!("  {:<12} {name}", symbol.at);
    }
}
