//! The rules of payloads. Each has an id; X01–X42 stand in the order in which Xen
//! 4.20 looks, X43–X48 are about what can be done later, X49 and those behind it about harm.
use super::version::{Errno, XenVersion};
use crate::rules::rules;

/// What happens to a payload that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The upload fails with this.
    Upload(Errno),
    /// The payload can be uploaded, and not applied.
    Apply(Errno),
    /// It can be applied once, and not again after it was reverted.
    Again(Errno),
    /// It can be applied, and not replace others.
    Replace(Errno),
    /// Xen takes it, and does harm then, for example here.
    Harm(&'static str),
}

impl Effect {
    /// The error that Xen answers with.
    #[must_use]
    pub fn errno(self) -> Option<Errno> {
        match self {
            Effect::Upload(errno)
            | Effect::Apply(errno)
            | Effect::Again(errno)
            | Effect::Replace(errno) => Some(errno),
            Effect::Harm(_) => None,
        }
    }

    /// True if the payload can be used all the same.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Effect::Again(_) | Effect::Replace(_))
    }

    /// The action in which it shows.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Effect::Upload(_) => "upload",
            Effect::Apply(_) => "apply",
            Effect::Again(_) => "apply again",
            Effect::Replace(_) => "replace",
            Effect::Harm(when) => when,
        }
    }
}

macro_rules! with_effects {
    ($($id:ident $kind:ident($effect:expr) $meaning:literal, $why:literal, $remedy:literal, $example:literal;)*) => {
        rules! {
            /// A rule of payloads.
            "Xen payloads (X01 to X68)";
            $($id $meaning, $why, $remedy, $example;)*
        }

        impl Rule {
            /// What Xen 4.20 and later do where it is broken.
            fn usual_effect(self) -> Effect {
                match self { $(Rule::$id => Effect::$kind($effect),)* }
            }
        }
    };
}

use Errno::{EEXIST, EINVAL, ENODATA, ENOENT, ENOMEM, ENOSPC, EOPNOTSUPP, EOVERFLOW, ERANGE};

with_effects! {
    X01 Upload(EINVAL) "A payload has 1 byte to 2 MiB.", "Xen copies no more", "strip debug data, or split the fix", "a file of 2,097,153 bytes";
    X02 Upload(EINVAL) "The file begins with an ELF header.", "without it nothing can be known", "give the payload, not an archive or a text", "a file of 63 bytes";
    X03 Upload(EOPNOTSUPP) "The header says relocatable, version 1, System V, no program headers.", "a linked file has no relocations left", "link with `ld -r`; compile without IFUNC and unique symbols, which make the ABI GNU", "`EI_OSABI` 3";
    X04 Upload(EOPNOTSUPP) "The file is for x86-64.", "its code would not run", "build for the machine of the hypervisor", "`e_machine` 183";
    X05 Upload(EINVAL) "The section headers are inside the file, have 64 bytes or more each, and name their strings.", "Xen would read outside", "build the payload again", "`e_shstrndx` 0";
    X06 Upload(EOPNOTSUPP) "There are fewer than 1024 sections.", "that is Xen's limit", "join sections with a linker script", "1024 sections, as from `-ffunction-sections` without dropping what is unchanged";
    X07 Upload(EINVAL) "What a section holds is in the file, behind the ELF header.", "Xen would read outside", "build the payload again, or copy it again", "a file that was cut off";
    X08 Upload(EOPNOTSUPP) "Alignments are powers of two.", "no place could be computed", "correct the section in the assembler source", "`sh_addralign` 3";
    X09 Upload(EINVAL) "The address in a section's header is a multiple of its alignment.", "the section was placed for something else", "leave the addresses 0, as in every relocatable file", "`sh_addr` 1 with alignment 16";
    X10 Upload(EINVAL) "A section of zeros has at most 2 MiB.", "Xen gives no more memory", "allocate the memory in a hook", "`.bss` of 3 MiB";
    X11 Upload(EOPNOTSUPP) "There is one symbol table.", "it would be unclear which one counts", "build the payload again", "a copied `.symtab`";
    X12 Upload(EINVAL) "There is a symbol table with whole entries, and every name in it is inside its strings.", "Xen would read outside", "do not strip the payload fully; `strip --strip-unneeded` keeps what is needed", "a stripped file";
    X13 Upload(EINVAL) "The names of sections are inside their strings, which zeros frame.", "Xen would read outside", "build the payload again", "`sh_name` behind the end of `.shstrtab`";
    X14 Upload(EINVAL) "`.livepatch.xen_depends` is a note with the build id of the hypervisor that runs.", "the payload was built for another hypervisor, whose code is elsewhere", "build the payload for this hypervisor; its `.gz` and its `.efi` have build ids of their own", "the build id of the release before";
    X15 Upload(EOPNOTSUPP) "No loaded section is writable and executable.", "Xen maps no such memory", "correct the section's flags", "a section with the flags `AWX`";
    X16 Upload(ENOMEM) "The payload has room behind Xen.", "jumps reach 2 GiB, and Xen keeps 1 GiB for itself", "make it smaller", "sections that name the same bytes a thousand times";
    X17 Upload(EINVAL) "There are no common symbols.", "nobody has given them a place", "compile with `-fno-common`", "`int counter;` with `-fcommon`";
    X18 Upload(ENOENT) "An undefined symbol is known to Xen by its exact name, or to a payload that was uploaded before.", "nobody can say where it is", "static ones are called `dir/file.c#name`: the `.map` file has the spelling", "`key_table` instead of `common/keyhandler.c#key_table`";
    X19 Upload(EOPNOTSUPP) "No symbol is in a reserved section but the absolute ones.", "nobody can say where it is", "build the payload again", "`st_shndx` 0xff20";
    X20 Upload(EINVAL) "Symbols are in sections that are there.", "nobody can say where it is", "build the payload again", "`st_shndx` 200 of 20";
    X21 Upload(EINVAL) "Relocations of loaded sections are linked to the symbol table, and are whole.", "Xen would read outside", "build the payload again", "`sh_entsize` 16";
    X22 Upload(EOPNOTSUPP) "Relocations are with addend, have a symbol, and are NONE, 64, PC32 or PLT32.", "Xen knows no others", "compile with `-fPIC -fvisibility=hidden`, or let this tool write the payload", "`R_X86_64_32S`, `R_X86_64_GOTPCRELX`";
    X23 Upload(EINVAL) "A relocation changes bytes of its section, and leads to a symbol of the table that is loaded.", "Xen would write outside, or what is written would mean nothing", "build the payload again; drop sections that are not loaded", "a symbol of `.debug_info`";
    X24 Upload(EOVERFLOW) "A distance of 32 bits reaches what it leads to.", "the high half would be lost", "lead to a symbol of Xen, not to a number", "`PC32` with the addend 2^31";
    X25 Upload(EINVAL) "`.livepatch.depends` and `.note.gnu.build-id` are there and not empty.", "the order of payloads is told by them", "link with `--build-id`, and name what the payload is built on", "`ld -r` without `--build-id`";
    X26 Upload(EINVAL) "There are functions or hooks, and no section of them is empty.", "there is nothing to do", "name what is replaced", "`.livepatch.funcs` of 0 bytes";
    X27 Upload(EINVAL) "`.livepatch.funcs` is an array of 104 bytes each.", "what is behind would be another structure", "compile against the header of the hypervisor's version", "208 bytes and one";
    X28 Upload(EOPNOTSUPP) "The structure has version 2.", "Xen 4.13 and older have another layout", "build for the version of the hypervisor", "a payload for Xen 4.13";
    X29 Upload(EINVAL) "The old function has a size.", "nobody could say whether a jump fits", "take it from the symbol table", "`old_size` 0";
    X30 Upload(ENOENT) "The old function is known by its name, where no address is given.", "nobody can say where it is", "static ones are called `dir/file.c#name`: the `.map` file has the spelling", "`livepatch.c#revert_hook` without its folder";
    X31 Upload(EOPNOTSUPP) "At most 31 bytes become NOPs.", "Xen remembers no more to put back", "replace the function instead", "32 bytes";
    X32 Upload(EINVAL) "No more bytes become NOPs than the function has.", "the next function would be changed", "take the size from the symbol table", "8 bytes of a function of 6";
    X33 Upload(EINVAL) "The old function has room for a jump: 5 bytes, or 9 behind an `ENDBR64`.", "the next function would be changed", "replace its callers instead", "a function that is `xor %eax,%eax; ret`";
    X34 Upload(EOVERFLOW) "New code is within 2 GiB of the old.", "the jump would not reach", "lead to code of the payload", "a new address in the direct map";
    X35 Upload(EINVAL) "Hook sections hold pointers of 8 bytes; all but load and unload hold one.", "Xen calls what is there", "one function for each moment", "two pre-apply hooks";
    X36 Upload(EINVAL) "The sizes in a build id's note fit its section.", "Xen would read outside", "build the payload again", "`descsz` 200";
    X37 Upload(ENODATA) "A build id's note has the type 3 and the name GNU.", "it is something else", "build the payload again", "the name `XEN`";
    X38 Upload(EEXIST) "No payload with this build id is uploaded.", "it is there already", "give the payload that is there its action", "the same file by another name";
    X39 Upload(EINVAL) "Bug frames and exception tables have 8 bytes for each record.", "the last one would be cut off", "build the payload again", "`.bug_frames.1` of 7 bytes";
    X40 Upload(EINVAL) "Alternatives and call sites are records about the payload's own code and replacements.", "Xen would change what it must not", "carry `.altinstr_replacement` along with `.altinstructions`", "an alternative for a place of Xen";
    X41 Upload(EINVAL) "`.modinfo` ends with a zero.", "Xen prints it as texts", "end each text with a zero", "`version=1` without one";
    X42 Upload(EEXIST) "A named symbol of a loaded section is no name of Xen or of an uploaded payload, unless it is new code.", "later payloads could not say which one they mean", "drop local names, or make them unique, as this tool does", "`__func__.2` of two payloads";
    X43 Again(EINVAL) "Nothing is writable but `.livepatch.funcs`.", "data could have changed, so Xen applies the payload once, and after a revert wants it uploaded again; the call returns 0, only the status tells", "unload and upload it again before the next apply", "`.data` of 8 bytes";
    X44 Apply(EINVAL) "What the payload depends on is what was applied last.", "it was built on other code", "apply what it was built on first, or build it for what is applied", "`.livepatch.depends` with the build id of a payload that is not there";
    X45 Apply(EINVAL) "The reserved bits of an expectation are zero.", "they may get a meaning", "write the byte as length times two plus one", "the byte 0xc1";
    X46 Apply(ERANGE) "An expectation is no longer than the old function.", "it would be about the next one", "shorten it", "16 bytes of a function of 12";
    X47 Apply(EINVAL) "The old function begins as expected.", "the payload was built for other code; a replace finds it out only when it has taken all others back, and leaves nothing live", "build the payload for this hypervisor; leave out what Xen changes when it boots; until then do not replace with it", "an expectation from a debug build";
    X48 Replace(EOPNOTSUPP) "There are no hooks before or after apply and revert.", "Xen cannot say what they would undo, and replaces no payload that has them, nor any with it", "revert and apply instead of replace", "a pre-apply hook";
    X49 Harm("upload") "`.modinfo` is not empty.", "Xen reads the byte before its first one: a page fault in the hypervisor", "leave the section out", "`.modinfo` of 0 bytes";
    X50 Harm("upload") "Relocations are for a section, not for number 0.", "Xen follows a pointer that nobody has set: a page fault in the hypervisor", "drop such sections", "`.rela.dyn`, whose `sh_info` is 0";
    X51 Harm("upload") "An address given for an old function is where a function of Xen begins.", "Xen reads and writes there without looking", "give the name, or lead a relocation to the symbol", "the address of another build";
    X52 Harm("upload") "An old function has an address or a name.", "Xen follows the pointer that is not there: a page fault in the hypervisor", "give the name", "`name` 0 and `old_addr` 0";
    X53 Harm("upload") "The old function is not one that runs only at boot.", "Xen has given its memory back, and faults where it looks at it", "there is nothing to replace: it does not run any more", "a function of `.init.text`";
    X54 Harm("run") "A loaded section has an alignment.", "Xen puts one without over the beginning of another", "write 1", "`sh_addralign` 0";
    X55 Harm("apply") "NOPs reach beyond an `ENDBR64`.", "Xen leaves its 4 bytes alone: 4 do nothing, fewer become a copy of 4 GiB", "count the 4 bytes as well", "0 or 2 bytes of a function with `ENDBR64`";
    X56 Harm("apply") "No load or unload hook is 0.", "Xen calls address 0 while all processors stand", "give the hook, or leave the pointer out", "a weak function that nobody defines";
    X57 Harm("run") "New code and hooks are in executable sections of the payload.", "the first call faults, and again in the handler", "lead to code", "`new_addr` in `.rodata`";
    X58 Harm("apply") "Nothing replaces what Xen does to apply and revert, where there are functions.", "Xen panics unless the hook keeps state that payloads cannot reach", "use the hooks before and after", "`.livepatch.hooks.apply` beside `.livepatch.funcs`";
    X59 Harm("revert") "No old function is named twice, and no two entries write over each other.", "a revert puts back what the first one wrote: a jump leads to memory that is freed then", "replace it once", "two entries for `printk`; NOPs that reach into the next function, and an entry for that";
    X60 Harm("apply") "`.livepatch.funcs` is writable.", "Xen 4.16.4 to 4.17.2 and 4.18.0 write to it, and fault", "write it with the flags `WA`", "`.livepatch.funcs` in a section of constants";
    X61 Harm("run") "NOPs do not reach the function's last instruction.", "the function would run on into the next one", "replace the function by one that only returns", "all bytes of a function that ends with `jmp __x86_return_thunk`";
    X62 Harm("upload") "What Xen reads of a payload is loaded with it.", "Xen keeps pointers into memory that it frees after the upload, or that nobody has set", "give the section the flag `A`", "`.livepatch.funcs` without `A`";
    X63 Harm("upload") "Sizes and places do not wrap, and a payload's strings are not section 0.", "Xen computes with them without looking: it reads or writes outside", "build the payload again", "`sh_size` 0xffffffffffffff00";
    X64 Harm("run") "Alignments are at most a page.", "Xen places a payload at a page, not at more", "align less", "`sh_addralign` 8192";
    X65 Upload(ENOSPC) "A replacement is no longer than what it is for, with its padding.", "what follows would be changed; Xen up to 4.19 stops the machine", "carry the records as the compiler made them", "6 bytes for an instruction of 5";
    X66 Upload(ERANGE) "An alternative is for a feature that processors have.", "nobody could say whether to take it; Xen up to 4.19 stops the machine", "carry the records as the compiler made them", "feature 0x4000";
    X67 Harm("apply") "The bytes 64 and 65 of a function's structure are zero.", "Xen up to 4.17.2, and 4.18.0, keeps its own state there, and would skip the function", "leave them zero", "`applied` 1";
    X68 Harm("run") "No name is that of a function whose calls an earlier payload redirects, and which has no jump.", "the name leads to the old function: what calls it runs what was fixed, and a jump at its entry is never met", "revert the earlier payload first, or build that one without `--splice`", "a second fix of a function after one with `--splice callers`";
}

impl Rule {
    /// What Xen of this version does where it is broken.
    #[must_use]
    pub fn effect(self, version: XenVersion) -> Effect {
        match self {
            Rule::X37 if version < XenVersion::EARLY_ID => Effect::Upload(EINVAL),
            Rule::X65 | Rule::X66 if version < XenVersion::EARLY_ID => Effect::Harm("upload"),
            _ => self.usual_effect(),
        }
    }
}
