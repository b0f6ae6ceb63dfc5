//! Symbols of object files, and public ones.

use std::sync::Arc;

use ms_codeview::syms::{Compile3, OffsetSegment, Sym, SymData, SymIter, SymKind};
use ms_pdb::ReadAt;

use super::types::Types;
use super::{File, InlinedFunction, Pdb, PdbSymbol, broken};
use crate::pe::PeError;

pub(super) fn read<F: ReadAt>(
    file: &File<F>,
    length: u64,
    types: &Types,
    pdb: &mut Pdb,
) -> Result<(), PeError> {
    let modules = file.read_modules().map_err(broken)?;
    let mut left = length;
    for module in modules.iter() {
        // Its size stands in another stream than its data.
        let held = module.stream().map_or(0, |stream| file.stream_len(stream));
        if u64::from(module.sym_size()) > held {
            continue;
        }
        // Any number of object files may name one stream.
        left = left
            .checked_sub(module.sym_size().into())
            .ok_or_else(|| broken("the symbols of its object files are larger than itself"))?;
        let words = file.read_module_symbols(&module).map_err(broken)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let name: Arc<str> = module_name(&module.module_name().to_string()).into();
        let mut inside = Inside::default();
        for symbol in SymIter::for_module_syms(&bytes) {
            of_module(&symbol, &name, types, &mut inside, pdb)?;
        }
    }
    let globals = file.read_gss().map_err(broken)?;
    for symbol in globals.iter_syms() {
        match symbol.parse() {
            Ok(SymData::Pub(public)) => {
                const FUNCTION: u32 = 2;
                let mut found = placed(public.name.to_string(), public.fixed.offset_segment);
                found.is_function = public.fixed.flags.get() & FUNCTION != 0;
                found.is_global = true;
                pdb.publics.push(found);
            }
            // Variables that every object file can name stand here alone.
            Ok(SymData::Data(data)) => {
                let mut found = placed(data.name.to_string(), data.header.offset_segment);
                found.size = types.size(data.header.type_.get());
                found.is_global = symbol.kind == SymKind::S_GDATA32;
                pdb.symbols.push(found);
            }
            Ok(SymData::ThreadData(data)) => {
                let mut found = placed(data.name.to_string(), data.header.offset_segment);
                found.size = types.size(data.header.type_.get());
                found.is_global = true;
                pdb.thread_locals.push(found);
            }
            _ => {}
        }
    }
    Ok(())
}

fn placed(name: impl Into<Arc<str>>, at: OffsetSegment) -> PdbSymbol {
    PdbSymbol {
        name: name.into(),
        section: at.segment(),
        offset: at.offset(),
        size: 0,
        is_function: false,
        is_global: false,
        module: None,
        prototype: None,
        inlined: Vec::new(),
    }
}

/// The function that is being read, and what is open in it: of each the nearest inlined function that is known.
#[derive(Default)]
struct Inside {
    function: Option<usize>,
    open: Vec<Option<usize>>,
}

impl Inside {
    fn opens(&mut self, item: u32, types: &Types, pdb: &mut Pdb) {
        let within = self.open.last().copied().flatten();
        let function = self.function.and_then(|index| pdb.symbols.get_mut(index));
        let name = types.inlined(item);
        let opened = function.zip(name).map(|(function, name)| {
            function.inlined.push(InlinedFunction { name, within });
            function.inlined.len() - 1
        });
        self.open.push(opened.or(within));
    }
}

fn of_module(
    symbol: &Sym<'_>,
    module: &Arc<str>,
    types: &Types,
    inside: &mut Inside,
    pdb: &mut Pdb,
) -> Result<(), PeError> {
    match symbol.parse() {
        Ok(SymData::Proc(function)) => {
            let mut found = placed(function.name.to_string(), function.fixed.offset_segment);
            found.size = function.fixed.proc_len.get().into();
            found.is_function = true;
            found.is_global = matches!(symbol.kind, SymKind::S_GPROC32 | SymKind::S_GPROC32_ID);
            found.module = Some(Arc::clone(module));
            found.prototype = Some(types.prototype(function.fixed.proc_type.get())?);
            *inside = Inside {
                function: Some(pdb.symbols.len()),
                open: Vec::new(),
            };
            pdb.symbols.push(found);
        }
        Ok(SymData::InlineSite(site)) => inside.opens(site.fixed.inlinee.get(), types, pdb),
        Ok(SymData::InlineSite2(site)) => inside.opens(site.fixed.inlinee.get(), types, pdb),
        Ok(SymData::InlineSiteEnd) => {
            inside.open.pop();
        }
        Ok(SymData::Data(data)) => {
            let mut found = placed(data.name.to_string(), data.header.offset_segment);
            found.size = types.size(data.header.type_.get());
            found.is_global = symbol.kind == SymKind::S_GDATA32;
            found.module = Some(Arc::clone(module));
            pdb.symbols.push(found);
        }
        Ok(SymData::ThreadData(data)) => {
            let mut found = placed(data.name.to_string(), data.header.offset_segment);
            found.size = types.size(data.header.type_.get());
            found.module = Some(Arc::clone(module));
            pdb.thread_locals.push(found);
        }
        Ok(SymData::Compile3(compiler)) => {
            pdb.compilers.insert(compiler_text(&compiler));
        }
        Ok(SymData::HotPatchFunc(function)) => {
            pdb.hot_patch_functions.push(function.name.to_string());
        }
        _ => {}
    }
    Ok(())
}

/// What compiled an object file, one word for each thing that two builds may differ in.
fn compiler_text(compiler: &Compile3<'_>) -> String {
    /// From bit 8 on; below is the language.
    const FLAGS: [&str; 12] = [
        "edit-and-continue",
        "no-debug-data",
        "link-time-code-generation",
        "no-data-alignment",
        "managed-code",
        "security-checks",
        "hot-patch",
        "converted-from-cil",
        "cil-module",
        "sdl-checks",
        "profile-guided",
        "exported-module",
    ];
    let fixed = compiler.fixed;
    let bits = fixed.flags.get();
    let version = |parts: [u16; 4]| parts.map(|part| part.to_string()).join(".");
    let parser = version([
        fixed.frontend_major.get(),
        fixed.frontend_minor.get(),
        fixed.frontend_build.get(),
        fixed.frontend_qfe.get(),
    ]);
    let generator = version([
        fixed.ver_major.get(),
        fixed.ver_minor.get(),
        fixed.ver_build.get(),
        fixed.ver_qfe.get(),
    ]);
    let (name, machine) = (compiler.name, fixed.machine.get());
    let mut text = format!(
        "{name} parser-{parser} generator-{generator} machine-{machine:#x} language-{:#x}",
        bits & 0xff
    );
    let set = (8..).zip(FLAGS).filter(|(bit, _)| bits >> bit & 1 != 0);
    set.for_each(|(_, flag)| {
        text.push(' ');
        text.push_str(flag);
    });
    text
}

/// The file's name without its folder, which differs between two builds.
fn module_name(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next();
    name.unwrap_or(path).to_owned()
}
