//! A function as text: its instructions with names in place of addresses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use iced_x86::{
    Formatter, FormatterOutput, FormatterTextKind, Instruction, IntelFormatter, SymbolResolver,
    SymbolResult,
};
use invivo_compare::{Parts, TableEntry, jump_table};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{DebugData, LinkAddr};

use crate::names::{Name, Names, visible};

/// A piece of an instruction's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// True for the name of what is referred to.
    pub(crate) is_name: bool,
    /// The function of the report that the name leads to.
    pub(crate) function: Option<usize>,
    /// True if it is what differs.
    pub(crate) differs: bool,
}

/// An instruction.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) line: Line,
    pub(crate) tokens: Vec<Token>,
    /// Equal on both sides if the instruction is the same by its text, with places
    /// inside the function and constants left out.
    pub(crate) key: String,
    /// File and line.
    pub(crate) source: Option<String>,
}

/// A function with its cold parts, decoded, padding left out.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) parts: Vec<Vec<Listed>>,
    /// Address → part and instruction: the first from there that is not padding.
    pub(crate) index: HashMap<LinkAddr, (usize, usize)>,
    lines: Vec<Vec<Line>>,
}

impl Listing {
    /// Lists a function; `None` if it cannot be decoded.
    pub(crate) fn of(
        names: &Names<'_>,
        debug: Option<&DebugData<'_>>,
        parts: &Parts,
    ) -> Option<Listing> {
        let image = names.image();
        let mut listing = Listing::default();
        for (part, id) in parts.ids().enumerate() {
            let all = decode(image, image.entity(id))?;
            let mut kept = Vec::with_capacity(all.len());
            for line in all {
                listing.index.insert(line.at(), (part, kept.len()));
                if !line.is_padding() {
                    kept.push(line);
                }
            }
            listing.lines.push(kept);
        }
        let mut writer = Writer::new();
        for lines in &listing.lines {
            let listed = lines.iter().map(|line| {
                let (tokens, key) = writer.write(line, |at| listing.name(names, line, at));
                Listed {
                    line: *line,
                    tokens,
                    key,
                    source: source(debug, line.at()),
                }
            });
            listing.parts.push(listed.collect());
        }
        Some(listing)
    }

    fn name(&self, names: &Names<'_>, line: &Line, at: LinkAddr) -> Name {
        if self.index.contains_key(&at) {
            // The address as the listing shows it.
            return Name {
                text: format!("{:x}", at.0),
                ..Name::default()
            };
        }
        names.of(line, at)
    }

    /// The jump table that an instruction refers to.
    pub(crate) fn table(
        &self,
        names: &Names<'_>,
        (part, line): (usize, usize),
        at: LinkAddr,
    ) -> Option<Vec<TableEntry>> {
        let inside = |target: LinkAddr| self.index.contains_key(&target);
        let (image, usage) = (names.image(), names.usage());
        jump_table(image, usage, &self.lines[part], line, at, &inside)
    }
}

/// File, without its folders, and line.
fn source(debug: Option<&DebugData<'_>>, at: LinkAddr) -> Option<String> {
    let place = debug?.place_of(at)?;
    let file = place.file.rsplit('/').next().unwrap_or(&place.file);
    Some(visible(&format!("{file}:{}", place.line)))
}

/// The name for the instruction that is being written, by address: iced asks for it
/// through an object that the formatter owns.
#[derive(Clone, Default)]
struct Asked(Rc<RefCell<Vec<(LinkAddr, Name)>>>);

impl SymbolResolver for Asked {
    fn symbol(
        &mut self,
        _: &Instruction,
        _: u32,
        _: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        let names = self.0.borrow();
        let (_, name) = names.iter().find(|(at, _)| at.0 == address)?;
        Some(SymbolResult::with_string(address, name.text.clone()))
    }
}

struct Writer {
    formatter: IntelFormatter,
    asked: Asked,
}

impl Writer {
    fn new() -> Self {
        let asked = Asked::default();
        let mut formatter = IntelFormatter::with_options(Some(Box::new(asked.clone())), None);
        let options = formatter.options_mut();
        options.set_rip_relative_addresses(false);
        options.set_show_branch_size(false);
        options.set_space_after_operand_separator(true);
        options.set_uppercase_hex(false);
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        Writer { formatter, asked }
    }

    fn write(&mut self, line: &Line, name: impl Fn(LinkAddr) -> Name) -> (Vec<Token>, String) {
        let names: Vec<_> = line
            .references()
            .map(|r| (r.target, name(r.target)))
            .collect();
        *self.asked.0.borrow_mut() = names;
        let names = Rc::clone(&self.asked.0);
        let mut text = Text {
            tokens: Vec::new(),
            key: String::new(),
            names: &names.borrow(),
        };
        self.formatter.format(&line.instruction, &mut text);
        (text.tokens, text.key)
    }
}

struct Text<'n> {
    tokens: Vec<Token>,
    key: String,
    names: &'n [(LinkAddr, Name)],
}

impl FormatterOutput for Text<'_> {
    fn write(&mut self, text: &str, _: FormatterTextKind) {
        self.key.push_str(text);
        self.tokens.push(Token {
            text: text.to_owned(),
            ..Token::default()
        });
    }

    fn write_symbol(
        &mut self,
        _: &Instruction,
        _: u32,
        _: Option<u32>,
        address: u64,
        symbol: &SymbolResult<'_>,
    ) {
        let name = self.names.iter().find(|(at, _)| at.0 == address);
        let Some((_, name)) = name else {
            return self.write(
                &format!("{:#x}", symbol.address),
                FormatterTextKind::LabelAddress,
            );
        };
        self.key.push('{');
        self.key.push_str(&name.key);
        self.key.push('}');
        self.tokens.push(Token {
            text: visible(&name.text),
            is_name: true,
            function: name.function,
            differs: false,
        });
    }
}
