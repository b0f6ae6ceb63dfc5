//! What the rules of formats have in common: an id, and texts for people.

/// Makes the rules of a format: what they are called together, and for each its id, what it
/// demands, why, what to do where it is broken, and an example.
macro_rules! rules {
    ($(#[$about:meta])* $all:literal; $($id:ident $meaning:literal, $why:literal, $remedy:literal, $example:literal;)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $meaning] $id,)*
        }

        impl Rule {
            /// All of them, in order.
            pub const ALL: &[Rule] = &[$(Rule::$id,)*];

            /// Its id: a letter and two digits.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Rule::$id => stringify!($id),)* }
            }

            /// What it demands, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Rule::$id => $meaning,)* }
            }

            /// Why it matters.
            #[must_use]
            pub fn why(self) -> &'static str {
                match self { $(Rule::$id => $why,)* }
            }

            /// Something that breaks it.
            #[must_use]
            pub fn example(self) -> &'static str {
                match self { $(Rule::$id => $example,)* }
            }

            /// What to do where it is broken.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Rule::$id => $remedy,)* }
            }
        }

        impl std::fmt::Display for Rule {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.id())
            }
        }

        impl std::str::FromStr for Rule {
            type Err = String;

            fn from_str(text: &str) -> Result<Rule, String> {
                let mut all = Rule::ALL.iter();
                let found = all.find(|rule| rule.id().eq_ignore_ascii_case(text));
                let unknown = || format!("{text} is no rule of {}", $all);
                found.copied().ok_or_else(unknown)
            }
        }
    };
}

pub(crate) use rules;
