//! PDB files of which records name each other in circles, or one thing any number of times: an error or
//! what a file of that size can hold, and soon.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use invivo_image::pe::Pdb;
use ms_pdb::msf::Msf;
use windows_tests::{Build, Folder, build};

/// One look must be over by then, on a slow machine too.
const LIMIT: Duration = Duration::from_secs(20);

/// Numbers of streams.
const TYPES: u32 = 2;
const MODULES: u32 = 3;
const ITEMS: u32 = 4;

/// Kinds of types and of parts of lists.
const PROCEDURE: u16 = 0x1008;
const ARGUMENTS: u16 = 0x1201;
const FIELDS: u16 = 0x1203;
const GOES_ON: u16 = 0x1404;
const STRUCTURE: u16 = 0x1505;
const MEMBER: u16 = 0x150d;
const FUNCTION_ID: u16 = 0x1601;
/// Kinds of symbols.
const FUNCTION: u16 = 0x1110;
const INLINE_SITE: u16 = 0x114d;

/// The type `int`.
const INT: u32 = 0x74;

/// Bytes that are put together from numbers.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn short(mut self, value: u16) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn word(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn name(mut self, name: &str) -> Bytes {
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self
    }

    /// Fills up to four bytes, each of which says how far it is.
    fn filled(mut self) -> Bytes {
        while !self.0.len().is_multiple_of(4) {
            let left = 4 - self.0.len() % 4;
            self.0.push(0xf0 | u8::try_from(left).expect("small"));
        }
        self
    }

    fn record(self) -> Vec<u8> {
        let body = Bytes::default().short(0);
        let mut all = Bytes([body.0, self.0].concat()).filled().0;
        let length = u16::try_from(all.len() - 2).expect("a record is no longer");
        all[..2].copy_from_slice(&length.to_le_bytes());
        all
    }
}

fn kind(kind: u16) -> Bytes {
    Bytes::default().short(kind)
}

fn structure(fields: u32, name: &str) -> Vec<u8> {
    let head = kind(STRUCTURE).short(1).short(0).word(fields);
    head.word(0).word(0).short(4).name(name).record()
}

fn member(of: u32, name: &str) -> Vec<u8> {
    let head = kind(MEMBER).short(3).word(of).short(0);
    head.name(name).filled().0
}

fn fields(parts: &[Vec<u8>]) -> Vec<u8> {
    Bytes([kind(FIELDS).0, parts.concat()].concat()).record()
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("it is there"))
}

fn set_word(bytes: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("small");
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Changes one stream of a PDB file.
fn change(path: &Path, stream: u32, with: impl FnOnce(&mut Vec<u8>)) {
    let mut file = Msf::modify(path).expect("it is a PDB file");
    let mut bytes = file.read_stream_to_vec(stream).expect("it has the stream");
    with(&mut bytes);
    let mut writer = file.write_stream(stream).expect("it can be written");
    writer.set_contents(&bytes).expect("it is written");
    file.commit().expect("it is written");
}

/// Adds types; `records` makes them with the number of the first one.
fn add(path: &Path, stream: u32, records: impl FnOnce(u32) -> Vec<Vec<u8>>) -> u32 {
    /// Where the header has the number behind the last type, and how many bytes all have.
    const END: usize = 12;
    const LENGTH: usize = 16;
    let mut first = 0;
    change(path, stream, |bytes| {
        first = word_at(bytes, END);
        let records = records(first);
        let new = records.concat();
        let header = word_at(bytes, 4) as usize;
        let length = word_at(bytes, LENGTH) as usize;
        set_word(bytes, END, first as usize + records.len());
        set_word(bytes, LENGTH, length + new.len());
        bytes.splice(header + length..header + length, new);
    });
    first
}

/// What is read of a PDB file that was changed like this; it must be over in time.
fn read(name: &str, forge: impl FnOnce(&Path)) -> Result<Pdb, String> {
    let folder = Folder::new(name);
    let library = build(&folder, "fixed", "service", &Build::fixed("answer"));
    let library = library.expect("it is built");
    assert!(Pdb::parse(&std::fs::read(&library.pdb).expect("it can be read")).is_ok());
    forge(&library.pdb);
    let file = std::fs::read(&library.pdb).expect("it can be read");
    let (done, wait) = channel();
    // One that has no end is left behind, and ends with the test.
    std::thread::spawn(move || {
        let read = Pdb::parse(&file).map_err(|error| error.to_string());
        // Nobody waits any more if it took too long.
        let _ = done.send(read);
    });
    wait.recv_timeout(LIMIT).expect("it must be over by now")
}

fn refused(name: &str, forge: impl FnOnce(&Path)) {
    let why = read(name, forge).expect_err("a file of this size holds no so much");
    assert!(why.contains("of its size can hold"), "{why}");
}

#[test]
fn a_list_of_members_that_goes_on_with_itself() {
    let why = read("circle", |path| {
        add(path, TYPES, |first| {
            let again = kind(GOES_ON).short(0).word(first).0;
            vec![fields(&[again]), structure(first, "endless")]
        });
    });
    let why = why.expect_err("the members have no end");
    assert!(why.contains("the members of endless have no end"), "{why}");
}

/// What a type is called is told in as many steps as it has letters.
#[test]
fn a_function_that_has_itself_as_each_argument() {
    let pdb = read("itself", |path| {
        add(path, TYPES, |first| {
            let mut arguments = kind(ARGUMENTS).word(64);
            for _ in 0..64 {
                arguments = arguments.word(first + 1);
            }
            let function = kind(PROCEDURE).word(INT).short(0).short(64).word(first);
            let list = fields(&[member(first + 1, "call")]);
            vec![
                arguments.record(),
                function.record(),
                list,
                structure(first + 2, "calls"),
            ]
        });
    });
    let pdb = pdb.expect("it is strange, and can be told");
    let calls = pdb.types["calls"].layouts.first().expect("it has one");
    let letters = calls.members[0].text.chars().count();
    assert!((1000..=4096).contains(&letters), "{letters}");
}

#[test]
fn many_types_with_one_list_of_members() {
    refused("one-list", |path| {
        add(path, TYPES, |first| {
            let members: Vec<_> = (0..1000).map(|_| member(INT, "n")).collect();
            let mut records = vec![fields(&members)];
            records.extend((0..4000).map(|number| structure(first, &format!("s{number}"))));
            records
        });
    });
}

#[test]
fn many_members_of_a_type_with_a_long_name() {
    refused("long-name", |path| {
        add(path, TYPES, |first| {
            let members: Vec<_> = (0..3000).map(|_| member(first, "n")).collect();
            let mut records = vec![structure(0, &"n".repeat(4000))];
            for number in 1..=8 {
                records.push(fields(&members));
                records.push(structure(first + 2 * number - 1, &format!("s{number}")));
            }
            records
        });
    });
}

/// Where the module of most symbols stands in the list of modules, what that begins at, and how many
/// bytes it has.
fn largest_module(bytes: &[u8]) -> std::ops::Range<usize> {
    const HEADER: usize = 64;
    let end = HEADER + word_at(bytes, 24) as usize;
    let (mut at, mut found) = (HEADER, Vec::new());
    while at < end {
        // Behind the fixed part are two names.
        let mut next = at + 64;
        for _ in 0..2 {
            next += bytes[next..]
                .iter()
                .position(|byte| *byte == 0)
                .expect("it ends")
                + 1;
        }
        next = next.next_multiple_of(4);
        found.push(at..next);
        at = next;
    }
    let symbols = |module: &std::ops::Range<usize>| word_at(bytes, module.start + SYMBOLS);
    found.into_iter().max_by_key(symbols).expect("there is one")
}

/// Where a module has its stream, and how many bytes of it are symbols.
const STREAM: usize = 34;
const SYMBOLS: usize = 36;

#[test]
fn many_modules_with_the_symbols_of_one() {
    let why = read("one-stream", |path| {
        change(path, MODULES, |bytes| {
            let module = largest_module(bytes);
            let copies = bytes[module.clone()].repeat(4000);
            let length = word_at(bytes, 24) as usize + copies.len();
            set_word(bytes, 24, length);
            bytes.splice(module.start..module.start, copies);
        });
    });
    let why = why.expect_err("they have more symbols than the file has bytes");
    assert!(why.contains("larger than itself"), "{why}");
}

/// A name is in memory once, in however many places its function was inlined.
#[test]
fn one_function_inlined_many_times() {
    const SITES: usize = 2000;
    let name = "n".repeat(60_000);
    let pdb = read("inlined", |path| {
        let item = add(path, ITEMS, |_| {
            vec![kind(FUNCTION_ID).word(0).word(INT).name(&name).record()]
        });
        let function = (0..7).fold(kind(FUNCTION), |head, _| head.word(0));
        // Its flags stand before its name.
        let function = function.word(0).short(1).name("\0outer").record();
        let site = kind(INLINE_SITE).word(0).word(0).word(item).record();
        let sites = [function, site.repeat(SITES)].concat();
        let (mut stream, mut length) = (0, 0);
        change(path, MODULES, |bytes| {
            let module = largest_module(bytes).start;
            stream = word_at(bytes, module + STREAM) & 0xffff;
            length = word_at(bytes, module + SYMBOLS) as usize;
            set_word(bytes, module + SYMBOLS, length + sites.len());
        });
        change(path, stream, |bytes| {
            bytes.splice(length..length, sites);
        });
    });
    let pdb = pdb.expect("it is sound");
    let inlined = pdb.symbols.iter().flat_map(|symbol| &symbol.inlined);
    let names: Vec<_> = inlined.filter(|one| *one.name == *name).collect();
    assert_eq!(names.len(), SITES);
    assert!(
        names
            .iter()
            .all(|one| Arc::ptr_eq(&one.name, &names[0].name))
    );
}
