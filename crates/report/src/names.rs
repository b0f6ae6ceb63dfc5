//! What an operand refers to, as a person calls it.

use std::collections::HashMap;

use invivo_compare::{Comparison, Extent, Usage, extent};
use invivo_image::x86_64::Line;
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, SectionKind, Slot, demangle};

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Base,
    Fixed,
}

/// The name of a place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name {
    /// For a person.
    pub(crate) text: String,
    /// Equal on both sides if the names are the same; nothing about contents, which
    /// the comparison by meaning decides.
    pub(crate) key: String,
    /// The function of the report that it is in.
    pub(crate) function: Option<usize>,
}

/// Names places of one build.
pub(crate) struct Names<'c> {
    comparison: &'c Comparison<'c>,
    side: Side,
    /// Functions of the report, by their numbers in the image.
    reported: HashMap<EntityId, usize>,
}

impl<'c> Names<'c> {
    pub(crate) fn new(
        comparison: &'c Comparison<'c>,
        side: Side,
        reported: HashMap<EntityId, usize>,
    ) -> Self {
        Names {
            comparison,
            side,
            reported,
        }
    }

    pub(crate) fn image(&self) -> &'c Image {
        match self.side {
            Side::Base => self.comparison.base,
            Side::Fixed => self.comparison.fixed,
        }
    }

    pub(crate) fn usage(&self) -> &'c Usage {
        match self.side {
            Side::Base => &self.comparison.base_usage,
            Side::Fixed => &self.comparison.fixed_usage,
        }
    }

    /// The function of the report that holds `at`.
    pub(crate) fn reported(&self, at: LinkAddr) -> Option<usize> {
        match self.image().place(at) {
            Place::In(id, _) => self.reported.get(&id).copied(),
            _ => None,
        }
    }

    /// What `line` refers to at `at`.
    pub(crate) fn of(&self, line: &Line, at: LinkAddr) -> Name {
        let image = self.image();
        match image.place(at) {
            Place::In(id, offset) => self.entity(id, offset),
            Place::Stub(slot) | Place::Slot(slot) => {
                let text = self.slot(&slot);
                Name {
                    key: text.clone(),
                    text,
                    function: None,
                }
            }
            Place::Constant(_) => Name {
                text: self.constant(line, at),
                ..Name::default()
            },
            Place::Unnamed(_) | Place::Outside(_) => Name {
                text: plain(image, at),
                ..Name::default()
            },
        }
    }

    fn entity(&self, id: EntityId, offset: u64) -> Name {
        let image = self.image();
        let entity = image.entity(id);
        let text = with_offset(&demangle(entity.name()), offset);
        let fixed = (self.side == Side::Fixed).then_some(id);
        let paired = fixed.and_then(|id| self.comparison.pairs.base_of(id));
        // A pair is known by its name in the base: `counter.1` may be `counter.0` there.
        let pair = paired.map_or(entity, |id| self.comparison.base.entity(id));
        let section = image.section_at(entity.addr);
        let constant = entity.kind == EntityKind::Object
            && section.is_some_and(|s| s.kind == SectionKind::ReadOnly);
        Name {
            text,
            key: if constant {
                String::new()
            } else {
                with_offset(pair.name(), offset)
            },
            function: self.reported.get(&id).copied(),
        }
    }

    fn slot(&self, slot: &Slot) -> String {
        let image = self.image();
        match slot {
            Slot::Import(name, 0) | Slot::LazyImport(name) => demangle(name),
            Slot::Import(name, addend) => format!("{}{addend:+}", demangle(name)),
            Slot::Copy(name) => format!("copy of {}", demangle(name)),
            Slot::Pointer(at) => format!("slot of {}", plain(image, *at)),
            Slot::Resolved(at) => format!("choice of {}", plain(image, *at)),
            Slot::TlsModule(name)
            | Slot::TlsOffset(name, _)
            | Slot::TlsFromThreadPointer(name, _) => format!("thread-local {}", demangle(name)),
            Slot::Number(number) => format!("slot with {number:#x}"),
            Slot::Unknown(kind) => format!("slot with relocation {kind}"),
        }
    }

    fn constant(&self, line: &Line, at: LinkAddr) -> String {
        const LONGEST_TEXT: usize = 60;
        const MOST_BYTES: usize = 16;
        let image = self.image();
        let Some(extent) = extent(image, self.usage(), line, at) else {
            return plain(image, at);
        };
        let bytes = image.bytes(at, extent.size()).unwrap_or_default();
        match extent {
            Extent::Text(_) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().saturating_sub(1)]);
                let short: String = text.chars().take(LONGEST_TEXT).collect();
                let more = if short.len() < text.len() { "…" } else { "" };
                format!("{short:?}{more}")
            }
            Extent::Operand(_) if bytes.len() <= MOST_BYTES => {
                // As a number reads: the highest byte first.
                let hex: String = bytes.iter().rev().map(|b| format!("{b:02x}")).collect();
                format!("constant 0x{hex}")
            }
            Extent::Operand(_) | Extent::UpToNext(_) => plain(image, at),
        }
    }
}

fn plain(image: &Image, at: LinkAddr) -> String {
    match image.place(at) {
        Place::In(id, offset) => with_offset(&demangle(image.entity(id).name()), offset),
        _ => image
            .section_at(at)
            .map_or_else(|| at.to_string(), |s| format!("{} {at}", s.name)),
    }
}

fn with_offset(name: &str, offset: u64) -> String {
    match offset {
        0 => name.to_owned(),
        _ => format!("{name}+{offset:#x}"),
    }
}

/// A name as it may stand on a page: what is not to be seen, or turns the direction of
/// what follows, is spelled out, and what is longer than a screen is cut.
///
/// A symbol may be called anything. `"\u{202e}"` in one would show the rest of its line
/// backwards, and make one function look like another.
pub(crate) fn visible(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut shown = String::with_capacity(text.len());
    for (count, char) in text.chars().enumerate() {
        if count == LONGEST {
            shown.push('…');
            break;
        }
        let turns = matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{61c}');
        if char.is_control() || turns {
            shown.extend(char.escape_unicode());
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn what_cannot_be_seen_is_spelled_out() {
        assert_eq!(visible("f\u{202e}x\n"), "f\\u{202e}x\\u{a}");
        assert_eq!(visible("größe<int>"), "größe<int>");
        assert_eq!(visible(&"x".repeat(5000)).chars().count(), 401);
    }
}
