//! The rules of the format. Each has an id.

use std::fmt;
use std::str::FromStr;

macro_rules! rules {
    ($($id:ident $meaning:literal, $remedy:literal;)*) => {
        /// A rule of the section `.hotp1`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $meaning] $id,)*
        }

        impl Rule {
            /// All of them, in order.
            pub const ALL: &[Rule] = &[$(Rule::$id,)*];

            /// Its id, such as `B04`.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Rule::$id => stringify!($id),)* }
            }

            /// What it demands, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Rule::$id => $meaning,)* }
            }

            /// What to do where it is broken.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Rule::$id => $remedy,)* }
            }
        }
    };
}

rules! {
    B01 "A section `.hotp1` of 80 bytes or more holds the header.", "give a patch module, not its target";
    B02 "The signature is `HOT1`, the version 1.0.", "give a patch module of this format";
    B03 "The arrays are aligned and inside the image.", "build the patch again";
    B04 "The fixups of a page are an even number.", "fill up with a fixup of type 0";
    B05 "The types of fixups are known, and type 0 only fills up at the end.", "build the patch again";
    B06 "What a fixup changes is inside the patch, and no two change the same byte.", "build the patch again";
    B07 "Validations are inside the target.", "build the patch for this very target";
    B08 "The types of hooks are known and can be applied on the machine.", "choose another form with --hook";
    B09 "A hook is as long as what it writes.", "let it replace more bytes";
    B10 "No two hooks change the same byte.", "join them into one";
    B11 "What a jump of 32 bits leads to is in its reach.", "load the patch nearer to its target";
    B12 "A hook names a validation of the array, which covers all that the hook changes.", "give the hook a validation of its own";
    B13 "A short jump leads to another hook of the patch.", "put a hook where the short jump leads to";
    B14 "How the target is known can be checked, and nothing is behind what it needs.", "use the checksum of the target";
    B15 "The target has a name of printable ASCII, without a folder.", "give the name of the file alone";
    B16 "A mark in the debug directory says hot, as the section does.", "build the patch again";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        let mut all = Rule::ALL.iter();
        let found = all.find(|rule| rule.id().eq_ignore_ascii_case(text));
        let unknown = || format!("{text} is no rule of legacy patches (B01 to B16)");
        found.copied().ok_or_else(unknown)
    }
}
