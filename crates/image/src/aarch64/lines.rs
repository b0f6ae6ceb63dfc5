//! Code of ARM64 as lines, each with what it refers to.

use iced_x86::{Code as Declared, Instruction};

use super::linked::{entries, is_cut_out};
use super::operands::Operand;
use super::pages::{Code, Use};
use super::{Flow, Word, registers};
use crate::x86_64::{Line, Reference, ReferenceKind, Skim, Step, Traits};
use crate::{Entity, Image, LinkAddr};

/// Decodes the whole of `entity`; `None` where its bytes are not in the file, or are no whole
/// instructions.
pub(crate) fn decode(image: &Image, entity: &Entity) -> Option<Vec<Line>> {
    let bytes = image.bytes(entity.addr, entity.size)?;
    let whole = entity.size > 0 && entity.size.is_multiple_of(4) && entity.addr.0.is_multiple_of(4);
    whole.then(|| lines(image, entity.addr, bytes))
}

/// All instructions of `bytes`, which are linked at `at`. What is left over at the end is dropped
/// where it is padding, and is a byte without a meaning otherwise.
pub(crate) fn lines(image: &Image, at: LinkAddr, bytes: &[u8]) -> Vec<Line> {
    let (words, rest) = bytes.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    if !at.0.is_multiple_of(4) || at.checked_add(bytes.len() as u64).is_none() {
        return odd(at, bytes);
    }
    let mut lines = told(image, at, &words);
    lines.extend(odd(LinkAddr(at.0 + 4 * words.len() as u64), rest));
    lines
}

/// Bytes that are no instructions.
fn odd(at: LinkAddr, bytes: &[u8]) -> Vec<Line> {
    let odd = (at.0..).zip(bytes).map(|(at, byte)| {
        let mut instruction = Instruction::default();
        instruction.set_code(Declared::DeclareByte);
        instruction.set_declare_data_len(1);
        instruction.set_declare_byte_value(0, *byte);
        instruction.set_len(1);
        instruction.set_ip(at);
        Line {
            instruction,
            address: None,
            immediate: None,
            word: None,
        }
    });
    odd.collect()
}

fn told(image: &Image, at: LinkAddr, words: &[u32]) -> Vec<Line> {
    let all: Vec<(Operand, u32)> = (at.0..)
        .step_by(4)
        .zip(words)
        .map(|(here, word)| Operand::of(*word, here))
        .collect();
    let operands: Vec<Operand> = all.iter().map(|(operand, _)| *operand).collect();
    let flows: Vec<Flow> = words.iter().map(|word| Flow::of(*word)).collect();
    let number = |place: u64| {
        let way = place.checked_sub(at.0)?;
        let index = usize::try_from(way / 4).ok()?;
        (way.is_multiple_of(4) && index < words.len()).then_some(index)
    };
    let targets: Vec<Option<usize>> = operands
        .iter()
        .zip(&flows)
        .map(|(operand, flow)| match operand {
            Operand::Branch(to) if flow.is_branch() => number(*to),
            _ => None,
        })
        .collect();
    let literals: Vec<Option<usize>> = operands
        .iter()
        .map(|operand| match operand {
            Operand::Literal(to, _) => number(*to),
            _ => None,
        })
        .collect();
    let outlined: Vec<bool> = operands
        .iter()
        .map(|operand| match operand {
            Operand::Branch(to) => is_cut_out(image, LinkAddr(*to)),
            _ => false,
        })
        .collect();
    let here = at..LinkAddr(at.0 + 4 * words.len() as u64);
    let code = Code {
        words,
        operands: &operands,
        flows: &flows,
        targets: &targets,
        literals: &literals,
        outlined: &outlined,
        entries: &|jump, index| entries(image, jump, &words[..index], &number),
        has_handlers: !image.handling_in(&here).is_empty(),
    };
    let uses = code.uses();
    let mut lines = Vec::with_capacity(words.len());
    for (index, (operand, mask)) in all.iter().enumerate() {
        let place = LinkAddr(at.0 + 4 * index as u64);
        lines.push(line(
            image,
            place,
            words[index],
            (*operand, *mask),
            uses[index],
        ));
    }
    lines
}

fn line(
    image: &Image,
    at: LinkAddr,
    bits: u32,
    (operand, mask): (Operand, u32),
    used: Use,
) -> Line {
    let flow = Flow::of(bits);
    let refer = |kind, target: u64| Reference {
        kind,
        offset: 0,
        width: 4,
        target: LinkAddr(target),
    };
    let (address, size) = match operand {
        // What control does not get to is the bits that it is.
        _ if !used.is_reached => (None, 0),
        Operand::Branch(to) => {
            let kind = match flow {
                Flow::Call => ReferenceKind::Call,
                _ => ReferenceKind::Jump,
            };
            (Some(refer(kind, to)), 0)
        }
        Operand::Address(to) => (Some(refer(ReferenceKind::Relative, to)), 0),
        Operand::Literal(to, size) => (Some(refer(ReferenceKind::Relative, to)), size),
        Operand::Offset { size, .. } => {
            let place = used.place.map(|to| refer(ReferenceKind::Relative, to));
            (place, size)
        }
        Operand::Page(_) | Operand::None => (None, 0),
    };
    let is_page = used.is_reached && matches!(operand, Operand::Page(_));
    let depends = address.is_some() || is_page;
    // The loader writes here, so it is no instruction.
    let end = LinkAddr(at.0.saturating_add(4));
    let before = LinkAddr(at.0.saturating_sub(7));
    let filled = image.slots.range(before..end).next().is_some();
    // What nothing leads to may be run all the same: then it leads where its bits say.
    let unreached = !used.is_reached && !matches!(operand, Operand::None | Operand::Offset { .. });
    // Of the class of branches, newer ones may depend on where they are.
    let is_branch = bits >> 26 & 7 == 5 && !matches!(bits >> 24, 0xd4 | 0xd5);
    let strange = used.is_reached && is_branch && registers::access(bits).is_none();
    let word = Word {
        bits,
        told: if depends { bits & !mask } else { bits },
        flow,
        size: if address.is_some() { size } else { 0 },
        is_unknown: used.is_unknown || filled || strange || unreached && !used.is_literal,
    };
    let mut instruction = Instruction::default();
    instruction.set_code(Declared::DeclareDword);
    instruction.set_declare_data_len(1);
    instruction.set_declare_dword_value(0, bits);
    instruction.set_len(4);
    instruction.set_ip(at.0);
    Line {
        instruction,
        address,
        immediate: None,
        word: Some(word),
    }
}

/// The same instructions, for who only looks for what they refer to.
pub(crate) fn steps(image: &Image, at: LinkAddr, bytes: &[u8]) -> Vec<Step> {
    let lines = lines(image, at, bytes);
    let steps = lines.iter().map(|line| {
        let start = usize::try_from(line.at().0 - at.0).unwrap_or(usize::MAX);
        let Some(word) = line.word else {
            return Step {
                start,
                skim: Skim::BYTE,
                ..Step::default()
            };
        };
        let mut traits = Traits::default();
        let leads = line.address.map(|reference| reference.kind);
        for (is, what) in [
            (
                matches!(leads, Some(ReferenceKind::Jump | ReferenceKind::Call)),
                Traits::BRANCH,
            ),
            (leads == Some(ReferenceKind::Relative), Traits::RELATIVE),
            (
                matches!(word.flow, Flow::Call | Flow::IndirectCall),
                Traits::CALL,
            ),
            (word.flow.ends(), Traits::ENDS),
            (word.flow == Flow::IndirectJump, Traits::THROUGH),
            (word.is_padding(), Traits::PADDING),
            (word.is_unknown, Traits::DATA),
        ] {
            if is {
                traits = traits.with(what);
            }
        }
        Step {
            start,
            skim: Skim {
                len: 4,
                traits,
                ..Skim::default()
            },
            address: line.address,
            ..Step::default()
        }
    });
    steps.collect()
}
