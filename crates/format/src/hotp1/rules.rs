//! The rules of the format. Each has an id.

use crate::rules::rules;

rules! {
    /// A rule of the section `.hotp1`.
    "legacy patches (B01 to B17)";
    B01 "A section `.hotp1` of 80 bytes or more holds the header.", "without it nothing can be known", "give a patch module, not its target", "a section of 79 bytes";
    B02 "The signature is `HOT1`, the version 1.0.", "another version may lay out everything else in another way", "give a patch module of this format", "the signature `hOT1`";
    B03 "The arrays are aligned and inside the image.", "whoever applies it would read or write outside", "build the patch again", "hooks behind the end of the image";
    B04 "The fixups of a page are an even number.", "the next region would begin at an odd place, and be read as another one", "fill up with a fixup of type 0", "a region of one fixup";
    B05 "The types of fixups are known, and type 0 only fills up at the end.", "what is not known cannot be applied, and words would keep old addresses", "build the patch again", "a fixup of type 5";
    B06 "What a fixup changes is inside the patch, and no two change the same byte.", "something else would be changed, or one word twice", "build the patch again", "a fixup of a page behind the image";
    B07 "Validations are inside the target.", "the patch is for another build, and its hooks would fall into the middle of instructions", "build the patch for this very target", "a target that has `cc` where `90` is wanted";
    B08 "The types of hooks are known and can be applied on the machine.", "systems do not implement it, or it would be code of another machine", "choose another form with --hook", "an IA64 branch";
    B09 "A hook is as long as what it writes.", "bytes behind it would be changed that nobody looks at", "let it replace more bytes", "a jump of five bytes in four";
    B10 "No two hooks change the same byte.", "the one written later would destroy the other", "join them into one", "a jump over the end of another";
    B11 "What a jump of 32 bits leads to is in its reach.", "the patch may be loaded farther away than 31 bits reach", "load the patch nearer to its target", "`X86_JMP` on x86-64 without the mark 0x8000";
    B12 "A hook names a validation of the array, which covers all that the hook changes.", "bytes would be replaced that were not looked at", "give the hook a validation of its own", "a hook with the validation of another one";
    B13 "A short jump leads to a hook of the patch that is a long one.", "the old code there would be run from its middle, or an address as if it were code", "put a jump to the patch where the short jump leads to", "a distance of -8 where the pad begins at -7";
    B14 "How the target is known can be checked, is no checksum of 0, and nothing is behind what it needs.", "the patch could be applied to another build", "use the checksum of the target", "`PeHeaderHash2`, whose algorithm is not public";
    B15 "The target has a name of printable ASCII, without a folder.", "the target would not be found, or another file would be", "give the name of the file alone", "`..\\target.dll`";
    B16 "A mark in the debug directory says hot, as the section does.", "a target with that mark is taken for one that is patched on disk", "build the patch again", "the mark 0xd202 of a cold patch";
    B17 "A file that was patched on disk is marked so, and is its base but for headers, hooks and what is behind it.", "a hot patch for the base would be taken for one that fits this file, too", "take the base again, and build the cold patch from it", "a constant of the base that is another one";
}
