//! What shows that a Windows build was compiled for hot patching: records of the compiler
//! (`S_HOTPATCHFUNC`), pointers that it made (`__ref_…`), lists. It is shown, and held against what
//! changed; where it is missing, that is told, too.

mod held;

use std::collections::BTreeSet;
use std::path::Path;

use invivo_compare::Comparison;
use invivo_image::pe::{HotPatchObject, Pdb, PeError, referenced};
use invivo_image::{Machine, demangle};
use invivo_patch::{HotPatchMarks, Unmatched};
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::{Failure, USAGE};
use crate::output::{Output, counted};

pub(crate) use held::{hold_against_marks, objects};

/// What shows which functions of a build were compiled for hot patching.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Marks {
    /// Functions that the compiler's records name (`S_HOTPATCHFUNC`), by their names for linkers.
    functions: Vec<String>,
    /// Pointers to variables that the compiler made for hot patching (`__ref_…`).
    pointers: Vec<String>,
    /// Functions that changed and were not compiled for it, held against the records.
    missing: Vec<Difference>,
    /// Functions that were compiled for it and did not change.
    surplus: Vec<Difference>,
    /// What is missing of it, where something is.
    absent: Option<Absent>,
}

/// A function of which the records and what changed tell differently.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Difference {
    name: String,
    /// With the chain of inlining that it comes from.
    why: String,
}

/// Why it is not known what was compiled for hot patching.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Absent {
    why: String,
    /// What to do.
    remedy: String,
}

/// `inspect --json` of an object file of a compiler for Windows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ObjectDump {
    schema: &'static str,
    file: String,
    marks: Marks,
}

/// How code is compiled that uses variables of the base.
const COMPILE: &str = "compile the fixed source with -fms-secure-hotpatch-functions-file=FILE (of rustc: \
                       -Cllvm-args=--ms-secure-hotpatch-functions-list=NAMES); the file is written by: \
                       invivo build --emit-functions-file FILE";

/// What linkers of LLVM call themselves.
const LLVM_LINKER: &str = "LLVM Linker";

impl Marks {
    fn new(
        functions: Vec<String>,
        pointers: Vec<String>,
        linker: Option<&str>,
        build: Build,
    ) -> Marks {
        let absent = functions
            .is_empty()
            .then(|| Absent::new(pointers.len(), linker, build));
        Marks {
            functions,
            pointers,
            missing: Vec::new(),
            surplus: Vec::new(),
            absent,
        }
    }

    /// What the PDB file of an image tells.
    pub(crate) fn of_pdb(pdb: &Pdb, machine: Machine) -> Marks {
        let names = pdb.publics.iter().map(|public| &*public.name);
        let pointers = pointers(machine, names);
        Marks::new(
            pdb.hot_patch_functions.clone(),
            pointers,
            linker(&pdb.compilers),
            Build::any(machine),
        )
    }

    /// The same where there is none, or it cannot be read.
    pub(crate) fn unknown(why: String, remedy: &str) -> Marks {
        let absent = Absent {
            why,
            remedy: format!("{remedy}; object files tell it, too: invivo inspect FILE.obj"),
        };
        Marks {
            functions: Vec::new(),
            pointers: Vec::new(),
            missing: Vec::new(),
            surplus: Vec::new(),
            absent: Some(absent),
        }
    }

    /// What the fixed one of two builds tells, held against what changed.
    pub(crate) fn of_comparison(c: &Comparison<'_>) -> Option<Marks> {
        let facts = c.fixed.pdb.as_ref()?;
        let names = c.fixed.entities.iter().flat_map(|entity| &entity.names);
        let names = names.map(|symbol| &*symbol.name);
        let pointers = pointers(c.fixed.machine, names);
        let functions = facts.hot_patch_functions.clone();
        let build = match Build::any(c.fixed.machine) {
            Build::Any => Build::Fixed,
            placed => placed,
        };
        let mut marks = Marks::new(functions, pointers, linker(&facts.compilers), build);
        // Of two builds that do not differ there is nothing to hold against them.
        if !marks.functions.is_empty() && !c.hot.is_empty() {
            let marked = marks.functions.iter().cloned().collect();
            let held = HotPatchMarks::new(c, &marked);
            marks.missing = differences(&held.missing);
            marks.surplus = differences(&held.surplus);
        }
        Some(marks)
    }

    /// True if what changed is what was compiled for it, as far as records tell.
    pub(crate) fn agree(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }

    /// Prints it, the first line behind a name of so many columns.
    pub(crate) fn print(&self, column: usize) {
        let mut name = "marks";
        for line in self.lines() {
            anstream::println!("{name:<column$}{line}");
            name = "";
        }
    }

    /// It in words, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.functions.is_empty() {
            let functions: Vec<String> = self.functions.iter().map(|one| demangle(one)).collect();
            lines.push(format!(
                "compiled for hot patching: {}",
                functions.join(", ")
            ));
        }
        if !self.pointers.is_empty() {
            let pointers = counted(self.pointers.len(), "pointer");
            lines.push(format!("{pointers} to variables (__ref_…)"));
        }
        for (what, functions) in [("missing", &self.missing), ("surplus", &self.surplus)] {
            for one in functions {
                lines.push(format!("{what}: {} {}", demangle(&one.name), one.why));
            }
        }
        if let Some(absent) = &self.absent {
            lines.extend([absent.why.clone(), absent.remedy.clone()]);
        }
        lines
    }
}

/// What is known of the build that is asked about.
#[derive(Clone, Copy)]
enum Build {
    /// It has the fix.
    Fixed,
    /// It may be the base, or have the fix.
    Any,
    /// Its code is led to the base place by place, whatever it was compiled for.
    Placed,
}

impl Build {
    fn any(machine: Machine) -> Build {
        match machine {
            Machine::X86 => Build::Placed,
            _ => Build::Any,
        }
    }
}

impl Absent {
    fn new(pointers: usize, linker: Option<&str>, build: Build) -> Absent {
        let records = "no record tells which functions were compiled for hot patching \
                       (S_HOTPATCHFUNC)";
        let left_out = match linker {
            Some(_) => "; LLVM's linker, which made this image, leaves them out of PDB files",
            None => "",
        };
        let (why, remedy) = match pointers {
            0 => (
                format!("{records}, and there is no pointer to a variable (__ref_…){left_out}"),
                match build {
                    Build::Fixed => {
                        format!("where new code is to use variables of the base, {COMPILE}")
                    }
                    Build::Any => format!(
                        "a base needs none of it; where new code of a fixed build is to use variables of \
                         the base, {COMPILE}"
                    ),
                    Build::Placed => format!(
                        "patch modules (--format hotp1) and cold patches for x86 need none of it; where new \
                         code of a final image is to use variables of the base, {COMPILE}"
                    ),
                },
            ),
            some => (
                format!(
                    "{records}, though {} (__ref_…) that some were{left_out}",
                    match some {
                        1 => "a pointer to a variable tells".to_owned(),
                        _ => format!("{some} pointers to variables tell"),
                    }
                ),
                "to have what changed held against it, give the fixed build's object files \
                 (invivo build --object FILE), or the list that it was compiled with \
                 (--functions-file FILE)"
                    .to_owned(),
            ),
        };
        Absent { why, remedy }
    }
}

fn pointers<'n>(machine: Machine, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let names = names.filter(|name| referenced(machine, name).is_some());
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The linker, where it is one that leaves records out.
fn linker(compilers: &BTreeSet<String>) -> Option<&str> {
    let mut compilers = compilers.iter();
    let found = compilers.find(|compiler| compiler.starts_with(LLVM_LINKER));
    found.map(String::as_str)
}

fn differences(functions: &[Unmatched]) -> Vec<Difference> {
    let told = functions.iter().map(|one| Difference {
        name: one.name.clone(),
        why: one.why.clone(),
    });
    told.collect()
}

/// True for what begins as an object file for a machine that images are read of.
pub(crate) fn is_object(file: &[u8]) -> bool {
    /// x86-64, x86 and ARM64, as headers have them.
    const MACHINES: [u16; 3] = [0x8664, 0x14c, 0xaa64];
    let word = |at: usize| {
        let held = file.get(at..)?.first_chunk();
        held.map(|word| u16::from_le_bytes(*word))
    };
    // Of one with many sections (/bigobj) another number stands in front.
    let machine = match (word(0), word(2)) {
        (Some(0), Some(0xffff)) => word(6),
        (machine, _) => machine,
    };
    machine.is_some_and(|machine| MACHINES.contains(&machine))
}

/// Shows an object file.
pub(crate) fn inspect(path: &Path, bytes: &[u8], output: &Output) -> Result<u8, Failure> {
    let object = HotPatchObject::parse(bytes).map_err(|error| unread(path, &error))?;
    let pointers = object.references.into_iter().map(|one| one.name);
    let dump = ObjectDump {
        schema: "invivo.object/1",
        file: path.display().to_string(),
        marks: Marks::new(
            object.functions,
            pointers.collect(),
            None,
            Build::any(object.machine),
        ),
    };
    output.data(&dump, || {
        anstream::println!("{:<12}object file for Windows", "object");
        dump.marks.print(12);
    })?;
    Ok(0)
}

fn unread(path: &Path, error: &PeError) -> Failure {
    Failure::new(USAGE, format!("{}: {error}", path.display()))
}
