//! Code of one image that is that of another, but for where it is and where it refers to.
//!
//! What an instruction is does not depend on the distances and addresses in it. So where all
//! other bytes of two functions are the same, so are their instructions, and what was found in
//! one of them is known of the other without decoding it. In images with fixed addresses a
//! number may be an address in one image and none in the other, so those are kept in mind.

use std::ops::Range;

use invivo_image::x86_64::{AddressSpan, Reference, ReferenceKind, Step, may_be_address};
use invivo_image::{Image, LinkAddr};

use super::{Outgoing, Scan};

impl Scan {
    /// For one that others repeat which stand in `image`.
    pub(crate) fn watch(&mut self, image: &Image) {
        let theirs = AddressSpan::of(image);
        self.addresses = self.addresses.with(theirs);
        self.watched = Some(theirs);
    }

    #[inline(never)]
    pub(super) fn note_numbers(&mut self, step: &Step, bytes: &[u8]) {
        let skim = step.skim;
        self.unknown |= step.numbers.unknown;
        for (is, may_be_long, offset) in [
            (step.numbers.displacement, false, skim.displacement),
            (step.numbers.immediate, true, skim.immediate),
        ] {
            let at = step.start + usize::from(offset);
            let Some(rest) = bytes.get(at..step.start + usize::from(skim.len)) else {
                continue;
            };
            let both = match (is, rest.first_chunk(), rest.first_chunk()) {
                (false, ..) => continue,
                // Only immediate operands have 64 bits, and stand at the end.
                (_, Some(all), _) if may_be_long && rest.len() == 8 => {
                    [u64::from_le_bytes(*all); 2]
                }
                (_, _, Some(half)) => signs(*half),
                _ => continue,
            };
            let watched = |value: &u64| self.watched.is_some_and(|span| span.holds(*value));
            if both.iter().any(watched) {
                self.numbers.push((at, both));
            }
        }
    }

    /// Finds in `code` what `other` found in `template`, if the two are the same but for where
    /// they refer to; false, with nothing found, where that is not so.
    ///
    /// What an instruction is does not depend on the distances and addresses in it. So where
    /// all other bytes are the same, so are the instructions, and nothing has to be decoded.
    pub(crate) fn repeat(
        &mut self,
        other: &Scan,
        template: &[u8],
        image: &Image,
        code: &Range<LinkAddr>,
    ) -> bool {
        self.references.clear();
        self.through_tables.clear();
        let size = code.end.0.saturating_sub(code.start.0);
        let bytes = image.bytes(code.start, size).unwrap_or_default();
        let plain = !other.unknown && !bytes.is_empty() && bytes.len() == template.len();
        let number = |(at, both): &(usize, [u64; 2])| {
            let place = code.start.checked_add(*at as u64);
            let may_be =
                |value: &u64| place.is_none_or(|place| may_be_address(image, place, *value));
            both.iter().any(may_be)
        };
        if !plain || other.numbers.iter().any(number) {
            return false;
        }
        let mut done = 0;
        for outgoing in &other.references {
            let reference = &outgoing.reference;
            let start = outgoing.start + usize::from(reference.offset);
            let end = start + usize::from(reference.width);
            let same = template.get(done..start).zip(bytes.get(done..start));
            let fields = template.get(start..end).zip(bytes.get(start..end));
            let (Some((before, after)), Some((field, its))) = (same, fields) else {
                return false;
            };
            let place = code.start.checked_add(start as u64);
            let target = match reference.kind {
                ReferenceKind::Absolute => place.and_then(|place| address(image, place, its)),
                _ => distance(field).zip(distance(its)).map(|(before, after)| {
                    let way = reference.target.0.wrapping_sub(other.own.start.0);
                    let way = way.wrapping_add_signed(after.wrapping_sub(before));
                    LinkAddr(code.start.0.wrapping_add(way))
                }),
            };
            let Some(target) = target.filter(|_| before == after) else {
                return false;
            };
            // Where it jumps in itself is kept of neither.
            if outgoing.calls() && code.contains(&target) {
                return false;
            }
            self.references.push(Outgoing {
                reference: Reference {
                    target,
                    ..*reference
                },
                distances: false,
                entries: None,
                ..*outgoing
            });
            done = end;
        }
        if template.get(done..) != bytes.get(done..) {
            return false;
        }
        self.odd = other.odd;
        self.jumps_through = other.jumps_through;
        self.runs_on = other.runs_on;
        self.loads.clone_from(&other.loads);
        self.look_all(image, code.start, bytes);
        true
    }
}

/// The number that an operand is, with its sign and without it.
fn signs(half: [u8; 4]) -> [u64; 2] {
    let number = u32::from_le_bytes(half);
    [
        i64::from(number.cast_signed()).cast_unsigned(),
        number.into(),
    ]
}

/// The distance in an operand.
fn distance(field: &[u8]) -> Option<i64> {
    match field {
        [near] => Some(near.cast_signed().into()),
        far => Some(i32::from_le_bytes(far.try_into().ok()?).into()),
    }
}

/// The address in an operand at `place`, if it is one that may be one however it is read.
fn address(image: &Image, place: LinkAddr, field: &[u8]) -> Option<LinkAddr> {
    let value = match <[u8; 8]>::try_from(field) {
        Ok(all) => u64::from_le_bytes(all),
        Err(_) => {
            let [signed, unsigned] = signs(field.try_into().ok()?);
            (signed == unsigned).then_some(unsigned)?
        }
    };
    may_be_address(image, place, value).then_some(LinkAddr(value))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use invivo_image::{EntityKind, Image};

    use super::Scan;

    fn compile(name: &str, source: &str, flags: &[&str]) -> Image {
        let process = std::process::id();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp");
        let folder = folder.join(format!("repeat-{name}-{process}"));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let program = folder.join("program");
        std::fs::write(folder.join("program.c"), source).expect("the source can be written");
        let mut compiler = Command::new("cc");
        compiler.current_dir(&folder).args(flags);
        let done = compiler
            .args(["-O2", "-o", "program", "program.c"])
            .status();
        assert!(done.expect("the compiler is installed").success());
        let bytes = std::fs::read(program).expect("the program was made");
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        Image::parse(Arc::from(bytes), None).expect("an image")
    }

    /// Compares all that is repeated with what is read; how many functions there are with a
    /// counterpart of the same name and size, and how many of them were repeated.
    fn repeated(base: &Image, fixed: &Image) -> (usize, usize) {
        let (mut scan, mut its, mut read) = (Scan::of(base), Scan::of(fixed), Scan::of(fixed));
        scan.watch(fixed);
        let (mut all, mut done) = (0, 0);
        let code = |image: &Image, at| {
            let entity = image.entity(at);
            let code = entity.kind != EntityKind::Object && entity.size > 0;
            code.then(|| {
                (
                    entity.name().to_owned(),
                    entity.size,
                    entity.addr..entity.end(),
                )
            })
        };
        let others: Vec<_> = fixed
            .entity_ids()
            .filter_map(|(id, _)| code(fixed, id))
            .collect();
        let mut next = 0;
        for (id, _) in base.entity_ids() {
            let Some((name, size, range)) = code(base, id) else {
                continue;
            };
            let mut ahead = others[next..].iter();
            let found = ahead.position(|other| (&other.0, other.1) == (&name, size));
            let Some(found) = found else { continue };
            let there = others[next + found].2.clone();
            next += found + 1;
            all += 1;
            scan.read(base, &range);
            let template = base.bytes(range.start, size).expect("code");
            if !its.repeat(&scan, template, fixed, &there) {
                continue;
            }
            done += 1;
            read.read(fixed, &there);
            let found = |scan: &Scan| {
                let ends = (scan.odd, scan.jumps_through, scan.runs_on);
                format!("{ends:?} {:?} {:?}", scan.references, scan.through_tables)
            };
            assert_eq!(found(&its), found(&read), "{name}");
        }
        (all, done)
    }

    #[test]
    fn what_is_repeated_is_what_would_be_read() {
        // Numbers that lead into one of two programs or both, beside true addresses.
        let source = |more: usize| {
            let table = |n: usize| format!("int table{n}[{}] = {{{n}}};\n", 10 + 300 * more);
            let tables: String = (0..4).map(table).collect();
            let use_of = |n: usize| {
                format!(
                    "__attribute__((noinline)) unsigned long f{n}(unsigned long a) {{\n\
                     volatile unsigned long b = a; b ^= 0x{:x}; b += 0x{:x};\n\
                     return b + (unsigned long)&table{}; }}\n",
                    0x40_1000 + n * 0x180,
                    0x40_3f80 + n * 0x90,
                    n % 4
                )
            };
            let uses: String = (0..200).map(use_of).collect();
            let calls: String = (0..200).map(|n| format!("f{n}(c) + ")).collect();
            let long = "__asm__ volatile(\"nop\");".repeat(2000 * more);
            format!(
                "{tables}void grown(void) {{ {long} }}\n{uses}\
                 int main(int c, char **v) {{ grown(); return (int)({calls} 0); }}\n"
            )
        };
        for (name, flags, least) in [
            ("fixed", &["-no-pie", "-fno-pie"][..], 50),
            ("static", &["-static", "-no-pie", "-fno-pie"], 800),
            ("pie", &["-pie", "-fPIE"], 200),
        ] {
            let base = compile(name, &source(0), flags);
            let fixed = compile(name, &source(1), flags);
            for (one, other) in [(&base, &fixed), (&fixed, &base)] {
                let (all, done) = repeated(one, other);
                assert!(all >= done && done >= least, "{name}: {done} of {all}");
            }
        }
    }

    #[test]
    fn a_program_repeats_itself() {
        let program = std::env::current_exe().expect("the test runs");
        let bytes = std::fs::read(program).expect("it is a file");
        let image = Image::parse(Arc::from(bytes), None).expect("an image");
        let (all, done) = repeated(&image, &image);
        assert!(all > 1000 && done == all, "{done} of {all}");
    }
}
