//! Private names of C that are not unique.
//!
//! They get a number behind a point, where the first one may stay
//! as it is: `f.kept`, `f.kept.1`; `cb.lto_priv.0`. That number says not even which one comes first.

use foldhash::HashSet;
use invivo_image::{Binding, Image, Symbol, is_rust};

use crate::copies::is_anonymous;

/// Names of which an image has others that differ in nothing but a number.
pub(crate) fn renumbered(image: &Image) -> HashSet<&str> {
    let names = image.entity_ids().map(|(_, entity)| entity.symbol());
    let numbered = names.filter(|symbol| symbol.name.contains('.') && is_renumbered(symbol));
    numbered
        .filter_map(|symbol| first_word(&symbol.name))
        .collect()
}

/// True for private names, and for those that link-time optimization made private.
fn is_renumbered(symbol: &Symbol) -> bool {
    let is_private = symbol.binding == Binding::Local || symbol.name.contains(".lto_priv.");
    is_private && !is_rust(&symbol.name) && !is_anonymous(&symbol.name)
}

/// What stands before the first number of a name: `f.kept` of `f.kept.1`.
fn first_word(name: &str) -> Option<&str> {
    let (mut end, mut last) = (name.find('.').filter(|end| *end > 0)?, "");
    for word in name[end + 1..].split('.') {
        if word == "lto_priv" || is_number(word) && !is_clone(last) {
            return Some(&name[..end]);
        }
        last = word;
        end += 1 + word.len();
    }
    None
}

/// A private name without the numbers that make it unique, and those.
pub(crate) fn renumbered_family(
    symbol: &Symbol,
    words: &HashSet<&str>,
) -> Option<(String, Vec<u64>)> {
    let name = &*symbol.name;
    if !is_renumbered(symbol) || !words.contains(first_word(name).unwrap_or(name)) {
        return None;
    }
    let (mut text, mut numbers) = (String::new(), Vec::new());
    let mut last = "";
    for word in name.split('.') {
        if is_number(word) && !text.is_empty() && !is_clone(last) {
            numbers.push(word.parse().unwrap_or(u64::MAX));
        } else if word != "lto_priv" {
            text.push('.');
            text.push_str(word);
        }
        last = word;
    }
    if numbers.is_empty() {
        // What a file has outside of its functions is numbered by link-time optimization alone.
        let linked = matches!(symbol.file.as_deref(), None | Some("ld-temp.o"));
        if !linked && !name.contains('.') {
            return None;
        }
        numbers.push(0);
    }
    Some((text, numbers))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

/// Words behind which a number counts the copies of one function.
fn is_clone(word: &str) -> bool {
    matches!(
        word,
        "cold" | "warm" | "aside" | "isra" | "part" | "constprop" | "llvm"
    )
}

#[cfg(test)]
mod tests {
    use foldhash::HashSet;
    use invivo_image::{Binding, LinkAddr, Symbol, SymbolKind};

    use super::renumbered_family;

    #[test]
    fn what_compilers_and_linkers_number_is_of_one_family() {
        let words = HashSet::from_iter(["note.kept", "cache", "on_event"]);
        let symbol = |name: &str, file: &str| Symbol {
            name: name.into(),
            addr: LinkAddr(0),
            size: 8,
            kind: SymbolKind::Object,
            binding: Binding::Local,
            file: Some(file.into()),
            exported: false,
            weak: false,
        };
        let renumbered = |name, file| renumbered_family(&symbol(name, file), &words);
        for (one, other, file) in [
            ("note.kept", "note.kept.1", "a.c"),
            ("cache", "cache.1", "ld-temp.o"),
            ("on_event.lto_priv.0", "on_event.lto_priv.12", "a.c"),
        ] {
            let of = |name| renumbered(name, file).map(|found| found.0);
            assert_eq!(of(one), of(other), "{one}");
        }
        assert_eq!(renumbered("cache", "a.c"), None);
        assert_eq!(renumbered("other.constprop.0", "a.c"), None);
    }
}
