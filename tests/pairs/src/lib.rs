//! Small pairs of programs, each of which breaks one rule.
//!
//! A case is one source file in `cases`. It is built as it runs (base), with the change that breaks the rule (`FIXED`) and
//! with a near miss (`NEAR`), which looks alike and must be accepted. What must be found stands in the file itself:
//!
//! ```text
//! //# flags -shared -fPIC
//! //# refuse R-INIT counter
//! //# near note R-EXPORT added
//! //# near accept
//! ```
//!
//! `//# hooked NAME`, `//# unhooked NAME`, `//# copies NAME`, `//# apart` and `//# together` demand of the patch itself which
//! functions get a hook, which constants it carries, and whether it goes live only while no thread is inside what is replaced.
//! `//# quiet R-STACK` demands that this rule says nothing.
//! What follows a line `//# part b.c` is a file of its own, compiled after those before it.
//! `//# refuse R-SIZE table at 12` also demands that line 12 of the source is named, by the finding's place or in its text.

pub mod build;
pub mod case;
pub mod verdict;
