//! Names: what the source calls it, below what compiler and linker made of it.

use std::collections::{BTreeSet, HashSet};

/// A symbol's name without what the compiler added to tell copies apart:
/// clone suffixes (`.isra.0`, `.part.3`, `.constprop.1`, `.cold`, `.warm`, `.llvm.123`),
/// numbers of private names (`counter.1234`), and Rust's hash (`17h0123456789abcdefE`).
///
/// `stringmatchlen_impl.constprop.0` → `stringmatchlen_impl`.
#[must_use]
pub fn stem(name: &str) -> &str {
    let rest = without_discriminator(unsuffixed(name)).0;
    rust_hash_start(rest).map_or(rest, |end| &rest[..end])
}

fn unsuffixed(name: &str) -> &str {
    let mut rest = name;
    while let Some((head, tail)) = rest.rsplit_once('.') {
        let digits = !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit());
        let clone = matches!(
            tail,
            "cold" | "warm" | "aside" | "isra" | "part" | "constprop" | "llvm" | "lto_priv"
        );
        if head.is_empty() || !(digits || clone) {
            break;
        }
        rest = head;
    }
    rest
}

/// What a compiler made of the function when it cloned it, each sort once and in order:
/// `constprop` (a copy for callers that pass a constant), `isra` (parameters are passed in
/// another way), `part` (cut out of it). Empty for a function as the source has it.
///
/// `f.isra.0.part.1` → `isra`, `part`.
#[must_use]
pub fn clone_sorts(name: &str) -> BTreeSet<&str> {
    // Behind one that is not known, too: `f.isra.0.localalias`.
    let sorts = name.trim_start_matches('.').split('.').skip(1);
    let sorts = sorts.filter(|word| matches!(*word, "isra" | "constprop" | "part"));
    sorts.collect()
}

/// The function that a part of one was taken out of, if this is the name of such a part.
///
/// Compilers move what seldom runs to `name.cold` or `name.cold.3`; BOLT cuts a linked function
/// into `name`, `name.warm` and `name.cold`.
#[must_use]
pub fn whole_of(name: &str) -> Option<&str> {
    let is_number = |tail: &str| !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit());
    let head = name.rsplit_once('.').filter(|(_, tail)| is_number(tail));
    let head = head.map_or(name, |(head, _)| head);
    let endings = [".cold", ".warm", ASIDE];
    let whole = endings.iter().find_map(|end| head.strip_suffix(end))?;
    (!whole.is_empty()).then_some(whole)
}

/// How a part is called that only a table beside the code leads to.
const ASIDE: &str = ".aside";

/// The name of part `number` of a function that only a table beside the code leads to: a
/// replacement for some of its instructions, or the way on after a fault.
#[must_use]
pub(crate) fn part_name(function: &str, number: u32) -> String {
    format!("{function}{ASIDE}.{number}")
}

/// The name of a local variable of C++ without the number behind it, and that number: none is the
/// first of that name in its function, `_0` the second.
///
/// `_ZZ1fvE1c_0` → `_ZZ1fvE1c`, 1.
#[must_use]
pub fn without_discriminator(name: &str) -> (&str, u64) {
    if !["_ZZ", "_ZGVZ", "_ZGRZ"]
        .iter()
        .any(|kind| name.starts_with(kind))
    {
        return (name, 0);
    }
    let digits = |text: &str| text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let long = name.strip_suffix('_');
    let text = long.unwrap_or(name);
    let (head, number) = text.split_at(text.len() - digits(text));
    let head = head.strip_suffix(if long.is_some() { "__" } else { "_" });
    match (head, number.parse::<u64>()) {
        (Some(head), Ok(number)) if ends_a_word(head) => (head, number.saturating_add(1)),
        // The number may belong to the word, as in `3x_0`.
        _ => (name, 0),
    }
}

/// True if the last word of `text` ends with it: its length stands before it.
fn ends_a_word(text: &str) -> bool {
    (1..text.len()).any(|length| {
        let Some(before) = text.get(..text.len() - length) else {
            return false;
        };
        let number = length.to_string();
        before.ends_with(&number) && !text[before.len()..].starts_with(|c: char| c.is_ascii_digit())
    })
}

/// True for a mangled name of Rust, whatever a compiler or linker put behind it.
#[must_use]
pub fn is_rust(name: &str) -> bool {
    let name = unsuffixed(name);
    name.starts_with("_R") || rust_hash_start(name).is_some()
}

/// Where the `17h<16 hex digits>E` of a legacy Rust name begins.
fn rust_hash_start(name: &str) -> Option<usize> {
    let start = name.len().checked_sub(20)?;
    let hash = name.get(start..)?.strip_prefix("17h")?.strip_suffix('E')?;
    (name.starts_with("_ZN") && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(start)
}

/// A name as a person wrote it; the name itself where it is not mangled.
#[must_use]
pub fn demangle(name: &str) -> String {
    // Names come from the file. The demanglers bound their recursion; this bounds their input.
    const LONGEST: usize = 4096;
    if name.len() > LONGEST {
        return name.to_owned();
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let (mangled, suffix) = match name.find('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    if let Ok(rust) = rustc_demangle::try_demangle(mangled) {
        return format!("{rust:#}{suffix}");
    }
    if mangled.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(mangled)
        && let Ok(cpp) = symbol.demangle()
    {
        return format!("{cpp}{suffix}");
    }
    name.to_owned()
}

/// Some demangled names, and quick answers to whether a mangled one may be among them: to
/// demangle all of a large program takes longer than to compare it.
#[derive(Clone, Debug, Default)]
pub struct Spoken<'a> {
    words: HashSet<&'a str>,
}

impl<'a> Spoken<'a> {
    /// Takes names as [`demangle`] or [`source_name`] give them.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words = HashSet::new();
        for name in names {
            words.insert(name);
            words.extend(name.split(|c: char| !is_of_word(c)));
        }
        Spoken { words }
    }

    /// False only if `mangled` is none of them.
    #[must_use]
    pub fn may_have(&self, mangled: &str) -> bool {
        let Some(rest) = mangled.strip_prefix("_Z") else {
            // Rust's later names do not begin with what is told of them.
            let plain = mangled.split(|c: char| !is_of_word(c)).next();
            return mangled.starts_with("_R") || plain.is_none_or(|word| self.has(word));
        };
        // What looks mangled and is not is told as it is. Whatever else is in a name, the names
        // of the scopes that it begins with are told as they are.
        [mangled, stem(mangled)]
            .iter()
            .any(|name| self.words.contains(name))
            || leading(rest).all(|word| self.has(word))
    }

    fn has(&self, word: &str) -> bool {
        word.is_empty() || self.words.contains(word)
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

/// The words that a name of C++ begins with, behind its `_Z`: those of the namespaces and
/// classes that it is in, as far as they have no arguments, and its own.
fn leading(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = ["GV", "TV", "TI", "TS"]
        .iter()
        .find_map(|kind| name.strip_prefix(kind))
        .unwrap_or(name)
        .trim_start_matches('Z');
    if let Some(nested) = rest.strip_prefix('N') {
        rest = nested.trim_start_matches(['r', 'V', 'K']);
        rest = rest.strip_prefix(['R', 'O']).unwrap_or(rest);
    }
    rest = rest.strip_prefix("St").unwrap_or(rest);
    rest = rest.trim_start_matches('L');
    let words = std::iter::from_fn(move || {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (size, behind) = rest.split_at_checked(digits)?;
        let (word, behind) = behind.split_at_checked(size.parse().ok()?)?;
        rest = behind;
        Some(word)
    });
    // Some are told in other words, or not at all.
    words.filter(|word| {
        let hash = word.len() == 17 && word.starts_with('h');
        !hash && !word.starts_with("_GLOBAL_") && word.chars().all(is_of_word)
    })
}

/// What the source calls it: demangled, without clone suffixes and hashes.
#[must_use]
pub fn source_name(name: &str) -> String {
    // v0 names of Rust carry their disambiguator inside; the alternate form of
    // the demangler leaves it out.
    let full = demangle(name);
    let cut = stem(&full);
    cut.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Spoken, clone_sorts, demangle, is_rust, source_name, stem, whole_of};

    #[test]
    fn a_stem_has_no_clone_suffix_and_no_number() {
        assert_eq!(
            stem("stringmatchlen_impl.constprop.0"),
            "stringmatchlen_impl"
        );
        assert_eq!(stem("f.isra.0.part.1.cold"), "f");
        assert_eq!(stem("counter.1234"), "counter");
        assert_eq!(stem("_ZZ1fvE5count_0"), "_ZZ1fvE5count");
        assert_eq!(stem("_ZGVZ1fvE5count__12_"), "_ZGVZ1fvE5count");
        assert_eq!(stem("_ZZ1fvE3x_0"), "_ZZ1fvE3x_0");
        assert_eq!(stem("_Z3x_0v"), "_Z3x_0v");
        assert_eq!(stem(".LC7"), ".LC7");
        assert_eq!(stem("v1.2beta"), "v1.2beta");
    }

    #[test]
    fn a_clone_is_known_by_what_was_added_to_its_name() {
        let sorts = |name| clone_sorts(name).into_iter().collect::<Vec<_>>();
        assert_eq!(sorts("f.part.1.isra.0.part.2"), ["isra", "part"]);
        assert_eq!(sorts("f.constprop.0.cold"), ["constprop"]);
        for whole in ["f", "isra", ".isra", "f.cold", "counter.3", "part.of"] {
            assert_eq!(sorts(whole), [""; 0], "{whole}");
        }
    }

    #[test]
    fn a_part_is_known_by_its_ending() {
        for part in ["f.cold", "f.cold.12", "f.warm"] {
            assert_eq!(whole_of(part), Some("f"), "{part}");
        }
        assert_eq!(whole_of("f.isra.0.cold"), Some("f.isra.0"));
        for whole in ["f", "f.12", "f.colder", "f.cold.x", "cold", ".cold"] {
            assert_eq!(whole_of(whole), None, "{whole}");
        }
    }

    #[test]
    fn rust_names_lose_their_hash() {
        let one = "_ZN5hyper4body17h0123456789abcdefE";
        let two = "_ZN5hyper4body17hfedcba9876543210E";
        assert_eq!(stem(one), stem(two));
        assert_eq!(source_name(one), "hyper::body");
        assert_eq!(demangle("_ZN3foo3barEi.cold"), "foo::bar(int).cold");
    }

    #[test]
    fn a_name_of_rust_is_known_with_what_stands_behind_it() {
        let name = "_ZN4core3ptr9drop$LT$a..b$GT$17hc23d961c7e8ab025E";
        assert!(is_rust(name));
        assert!(is_rust(&format!("{name}.llvm.10464822687299447567")));
        assert!(is_rust("_RNvCs1234_5hyper4body"));
        assert!(!is_rust("_ZN3foo3barEv"));
        assert!(!is_rust("main"));
    }

    #[test]
    fn a_name_is_never_taken_for_none_of_those_that_it_is_among() {
        let mangled = [
            "main",
            "f.cold",
            "counter.1234",
            ".hidden",
            "_start",
            "_Z3fooi",
            "_ZL3bari",
            "_ZN3foo3barEi",
            "_ZN3foo3barEi.cold",
            "_ZNK2v88internal8Compiler7CompileENS0_6HandleINS0_6StringEEE",
            "_ZNSt6vectorIiSaIiEE17_M_realloc_insertIJRKiEEEvN9__gnu_cxx17__normal_iteratorIPiS1_EEDpOT_",
            "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_createERmm",
            "_ZNSt8ios_base4InitC1Ev",
            "_ZN12_GLOBAL__N_13fooEv",
            "_ZN4node12_GLOBAL__N_14initEv",
            "_ZTVN10__cxxabiv117__class_type_infoE",
            "_ZTIN3foo3barE",
            "_ZTSN3foo3barE",
            "_ZThn16_N3foo3bar3bazEv",
            "_ZTv0_n24_N3foo3barD1Ev",
            "_ZGVZN3foo3barEvE1x",
            "_ZZN3foo3barEvE1x",
            "_ZZN3fooC4EvENKUlvE_clEv",
            "_ZNO3foo3barEv",
            "_ZN3foocvbEv",
            "_ZN3fooplERKS_",
            "_ZN3foo3barB5cxx11Ev",
            "_Z1fILi16EEvv",
            "_Znwm",
            "_ZdlPvm",
            "_ZN5hyper4body17h0123456789abcdefE",
            "_ZN4core3ptr9drop$LT$a..b$GT$17hc23d961c7e8ab025E",
            "_ZN3std2rt10lang_start28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE.llvm.12",
            "_RNvCs1234_5hyper4body",
            "_ZN99nothing",
            "_Z",
        ];
        for name in mangled {
            for told in [demangle(name), source_name(name)] {
                assert!(
                    Spoken::new([told.as_str()]).may_have(name),
                    "{name}: {told}"
                );
            }
        }
        let spoken = Spoken::new(["foo::bar(int)", "main"]);
        for name in ["_ZN3foo3bazEi", "_ZN3fop3barEi", "_Z3bari.cold", "mains"] {
            assert_eq!(spoken.may_have(name), name.starts_with("_Z3bar"), "{name}");
        }
    }
}
