//! What is told of each rule (`invivo explain A11`).

use super::{Judge, Rule};

/// What is told about a rule.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What it demands, in one line.
    pub meaning: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do where it is broken.
    pub remedy: &'static str,
    /// Something that breaks it.
    pub example: &'static str,
    /// Who refuses it.
    pub judge: Judge,
}

const BUILD: &str = "do not use the file; build the patch anew with a writer that keeps the format";
const LINK: &str =
    "link the image with a full load configuration (_load_config_used) and build the patch anew";
const BASE: &str = "build the patch against exactly this base";
const PAD: &str = "build the base with padding before functions: -fms-hotpatch and /functionpadmin:6, or /hotpatchcompatible";
const ALIGN: &str =
    "align functions to 16 bytes when the base is built; nothing is wrong with the patch";
const SPLIT: &str = "raise HotPatchTableSize on the machine, or patch fewer functions";

impl Rule {
    /// What it demands, and why.
    #[must_use]
    pub fn about(self) -> About {
        let about = |judge, meaning, why, remedy, example| About {
            meaning,
            why,
            remedy,
            example,
            judge,
        };
        match self {
            Rule::A01 => about(
                Judge::Kernel,
                "the load configuration is there, whole, and long enough to name the metadata",
                "the loader finds the metadata through it; one whose sizes disagree is read differently by different readers",
                LINK,
                "a load configuration cut off before the field",
            ),
            Rule::A02 => about(
                Judge::Kernel,
                "the address of the metadata is in the image",
                "an address outside would be read from whatever lies behind the image",
                LINK,
                "an address behind the image's end",
            ),
            Rule::A03 => about(
                Judge::Kernel,
                "the version is one of 1 to 4",
                "another version has another layout, and what would be read is not what is meant",
                BUILD,
                "version 5",
            ),
            Rule::A04 => about(
                Judge::Kernel,
                "the metadata has at least its version's size and ends inside the image",
                "offsets are checked against this size alone, so a false size makes every later check worthless",
                BUILD,
                "a size that wraps around",
            ),
            Rule::A05 => about(
                Judge::Kernel,
                "the sequence number is not 0",
                "0 stands for a base without a patch; such a patch could never replace one",
                BUILD,
                "sequence 0",
            ),
            Rule::A06 => about(
                Judge::Kernel,
                "there is exactly one base",
                "the format foresees several, but every kernel that is known refuses such a file",
                BUILD,
                "a list of no bases",
            ),
            Rule::A07 => about(
                Judge::Kernel,
                "the list of bases and each base are inside the metadata",
                "an offset outside would be read from other parts of the image",
                BUILD,
                "a base at offset 0",
            ),
            Rule::A08 => about(
                Judge::Kernel,
                "the base names the image's machine, or none; and never two",
                "code of another machine would be made live",
                BUILD,
                "a base for ARM64 in an x86-64 image",
            ),
            Rule::A09 => about(
                Judge::Kernel,
                "the image has no ARM64EC metadata",
                "two kinds of code share such an image, and no kernel that is known patches it",
                LINK,
                "a CHPE pointer that is not 0",
            ),
            Rule::A10 => about(
                Judge::Kernel,
                "the patch table is inside the metadata, aligned, and shares bytes with nothing else",
                "bytes that are a header in one reading and a record in another can pass every check and mean something else",
                BUILD,
                "two bases that share a table a million times",
            ),
            Rule::A11 => about(
                Judge::Both,
                "every chunk and the zero word at the end are inside the metadata",
                "the kernel checks the header of a chunk, but not that all its records are inside",
                BUILD,
                "a chunk that counts records behind the end",
            ),
            Rule::A12 => about(
                Judge::Kernel,
                "reserved bits of chunks are 0",
                "a later version may give them a meaning that this one does not know",
                BUILD,
                "a reserved bit",
            ),
            Rule::A13 => about(
                Judge::Kernel,
                "no chunk is marked as obligatory",
                "kernels refuse every chunk with this mark",
                BUILD,
                "an obligatory chunk",
            ),
            Rule::A14 => about(
                Judge::Strict,
                "the kind of each chunk is one that is known",
                "kernels pass some unknown kinds in silence, and then a part of the patch has no effect",
                BUILD,
                "an unknown kind",
            ),
            Rule::A15 => about(
                Judge::Kernel,
                "forward chunks hold functions only",
                "data go one way, from patch to base: a patch may not write into the base's variables",
                BUILD,
                "a forward chunk that writes a pointer into the base",
            ),
            Rule::A16 => about(
                Judge::Kernel,
                "targets are inside the target image",
                "calls or pointers would lead behind the image",
                BUILD,
                "a target behind the end",
            ),
            Rule::A17 => about(
                Judge::Both,
                "places that are written are inside the source image",
                "the kernel lets one page behind the image through; here it must be exact",
                BUILD,
                "a site in the page behind the image",
            ),
            Rule::A18 => about(
                Judge::Kernel,
                "a source function begins at 0x10 or later",
                "bytes before it are written too, and would lie before the image",
                BUILD,
                "a function at address 8",
            ),
            Rule::A19 => about(
                Judge::Kernel,
                "an index of a dynamic value is not 0xffffffff",
                "no such value exists",
                BUILD,
                "index 0xffffffff",
            ),
            Rule::A20 => about(
                Judge::Both,
                "call targets are aligned to 16 bytes and in code of the patch, and none is left out",
                "control-flow guard knows valid targets in steps of 16 bytes; an address outside would allow calls to anything, and one that is missing ends the process when it is called",
                BUILD,
                "a call target in data",
            ),
            Rule::A21 => about(
                Judge::Strict,
                "no function is redirected twice in one direction",
                "the second redirect would be taken for one of an earlier patch, or for a foreign hook",
                BUILD,
                "one function, two targets",
            ),
            Rule::A22 => about(
                Judge::Strict,
                "no two places that are written overlap",
                "the order of the records would decide what is there in the end",
                BUILD,
                "two sites four bytes apart",
            ),
            Rule::A23 => about(
                Judge::Strict,
                "functions are in code, and what is written as data is in initialised data",
                "a redirect of data makes data run as code; a write into code changes instructions",
                BUILD,
                "a pointer stored into code",
            ),
            Rule::A24 => about(
                Judge::Strict,
                "the expected bytes are those of the function",
                "the kernel compares two bytes and refuses a function that was changed; a patch that expects others was not made for this build",
                BASE,
                "expected bytes of another build",
            ),
            Rule::A25 => about(
                Judge::Strict,
                "the bytes before each redirected function are padding",
                "the jump is written over them, and code there would be destroyed",
                PAD,
                "a function without padding before it",
            ),
            Rule::A26 => about(
                Judge::Strict,
                "no redirected function begins one byte before an 8-byte boundary",
                "its two bytes cannot be written at once, so all processors must stop; it works, but stops them",
                ALIGN,
                "a function at …7",
            ),
            Rule::A27 => about(
                Judge::Strict,
                "there are not more redirects than the address table has entries",
                "the table behind the image has 512 entries for each page that the system was told to reserve; more redirects fail as a whole",
                SPLIT,
                "513 redirects",
            ),
            Rule::A28 => about(
                Judge::Kernel,
                "time stamp and checksum are those of the base",
                "a patch fits exactly one build; of a base without a checksum (0), which is told, the time stamp alone tells it from others",
                BASE,
                "another build's checksum",
            ),
            Rule::A29 => about(
                Judge::Strict,
                "a record has at most 16 further words",
                "records so large are not known, and their size times their number may overflow a reader",
                BUILD,
                "records of 4 GiB",
            ),
            Rule::A30 => about(
                Judge::Strict,
                "no base relocation changes a part of a place that is written",
                "a page that is relocated after it was written would hold a mixture of both",
                LINK,
                "a relocation across a site's end",
            ),
            Rule::A31 => about(
                Judge::Strict,
                "buffers and digests that are named are inside the metadata",
                "their use is not known, and whatever reads them would read outside",
                BUILD,
                "digests behind the end",
            ),
        }
    }
}
