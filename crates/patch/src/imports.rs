//! What new code needs of other images beyond what the base imports.
//!
//! The loader has bound the base's imports and binds no others, so such a place is looked
//! up in the process when the patch is applied. A library may be farther away than a call
//! reaches: calls go through a slot of the patch, as everywhere.

use std::sync::Arc;

use invivo_image::Slot;

use crate::model::{ImportVersion, Relocation, RelocationKind, Section, SectionKind, SymbolPlace};
use crate::planner::{Placed, Planner};
use crate::references::Target;

/// `jmp *slot(%rip)`.
const JUMP: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];
/// Where the distance of that jump stands; it counts from the jump's end.
const DISTANCE: u64 = 2;

impl Planner<'_, '_> {
    /// The symbol of something that another image must provide.
    pub(crate) fn import(&mut self, name: &Arc<str>) -> Result<u32, String> {
        let key = Placed::Import(Arc::clone(name));
        if let Some(symbol) = self.placed.get(&key) {
            return Ok(*symbol);
        }
        let imports = self.c.fixed.imports.iter();
        let mut same = imports.filter(|import| import.name == *name);
        let import = match (same.next(), same.next()) {
            // One that the base has a copy of is that copy.
            (Some(import), None) if !import.copied || !self.is_copied_in_base(name) => import,
            _ => return Err(format!("it needs {name}, of which there is not just one")),
        };
        let version = import.version.as_ref();
        let version = version.map(|(version, library)| ImportVersion {
            version: version.to_string(),
            library: library.to_string(),
        });
        let symbol = self.add_symbol(&**name, SymbolPlace::Import(version));
        self.placed.insert(key, symbol);
        Ok(symbol)
    }

    fn is_copied_in_base(&self, name: &str) -> bool {
        let mut imports = self.c.base.imports.iter();
        imports.any(|import| import.copied && *import.name == *name)
    }

    /// A slot of the patch that holds the address of something in another image.
    pub(crate) fn import_slot(&mut self, name: &Arc<str>, addend: i64) -> Result<Target, String> {
        let symbol = self.import(name)?;
        let key = Placed::Slot(Slot::Import(Arc::clone(name), addend));
        self.slot_for(key, |_| Ok((symbol, addend)))
    }

    /// A stub of the patch that jumps to a function of another image: through the base's
    /// slot where it has one (it calls the function by a pointer only), else through one of
    /// the patch.
    pub(crate) fn import_stub(&mut self, name: &Arc<str>) -> Result<Target, String> {
        let key = Placed::Stub(Arc::clone(name));
        if let Some(symbol) = self.placed.get(&key) {
            return Ok((*symbol, 0));
        }
        let (slot, addend) = self.bind_slot(&Slot::Import(Arc::clone(name), 0))?;
        let section = self.add_section(Section {
            name: format!(".text.{name}@plt"),
            kind: SectionKind::Text,
            align: 16,
            bytes: JUMP.to_vec(),
            relocations: vec![Relocation {
                offset: DISTANCE,
                kind: RelocationKind::Relative32,
                symbol: slot,
                addend: addend - 4,
            }],
        });
        let place = SymbolPlace::Patch {
            section,
            offset: 0,
            size: JUMP.len() as u64,
        };
        let symbol = self.add_symbol(format!("{name}@plt"), place);
        self.placed.insert(key, symbol);
        Ok((symbol, 0))
    }
}
