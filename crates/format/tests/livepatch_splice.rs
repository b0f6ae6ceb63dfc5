//! What leads to a function of a hypervisor, found in one of a few bytes.

#[path = "payload/kept.rs"]
mod kept;

use invivo_format::livepatch::{
    Access, Contents, Expectation, Function, Hypervisor, Moment, New, Old, Options, Payload,
    Prediction, Redirection, Reference, Relocation, RelocationKind, Rule, Section, Splice,
    SpliceError, Spliced, StructureVersion, Symbol, SymbolPlace, bypassed, predict, read,
    redirections, splice,
};
use invivo_image::BuildId;
use kept::write;

const TEXT: u64 = 0xffff_82d0_4020_0000;
const CONSTANTS: u64 = TEXT + 0x1000;
const BOOT: u64 = TEXT + 0x2000;
const DATA: u64 = TEXT + 0x3000;
/// The function, in the code.
const OLD: u64 = 0x40;
/// A variable of 32 bytes, in the data, and one in the constants.
const TABLE: usize = 0x20;

/// A hypervisor: an entry at 0, `caller` at 0x20, `jumper` at 0x30, the function at 0x40, `other` at 0x50.
struct Scene {
    text: Vec<u8>,
    constants: Vec<u8>,
    boot: Vec<u8>,
    data: Vec<u8>,
}

impl Scene {
    /// One call leads to the function, and one jump.
    fn new() -> Scene {
        let mut scene = Scene {
            text: vec![0xcc; 0x80],
            constants: vec![0; 0x40],
            boot: vec![0xcc; 0x40],
            data: vec![0; 0x60],
        };
        // call; ret; and: jmp
        scene.branch(0x20, &[0xe8]);
        scene.text[0x25] = 0xc3;
        scene.branch(0x30, &[0xe9]);
        // xor %eax, %eax; nop; nop; ret
        scene.text[0x40..0x45].copy_from_slice(&[0x31, 0xc0, 0x90, 0x90, 0xc3]);
        scene.text[0x50] = 0xc3;
        scene
    }

    /// An instruction that ends with the distance to the function.
    fn branch(&mut self, at: usize, begins: &[u8]) {
        let behind = at + begins.len() + 4;
        let distance = (OLD as u32).wrapping_sub(behind as u32);
        self.text[at..behind].copy_from_slice(&[begins, &distance.to_le_bytes()].concat());
    }

    fn in_boot(&mut self, at: usize, begins: &[u8]) {
        let behind = at + begins.len() + 4;
        let distance = ((TEXT + OLD) as u32).wrapping_sub((BOOT + behind as u64) as u32);
        self.boot[at..behind].copy_from_slice(&[begins, &distance.to_le_bytes()].concat());
    }

    /// The file.
    fn file(&self) -> Vec<u8> {
        let end = DATA + 0x60;
        let symbols: [(&str, u64, u64); 21] = [
            ("_start", TEXT, 0),
            ("_stext", TEXT, 0),
            ("_stextentry", TEXT, 0),
            ("_etextentry", TEXT + 0x20, 0),
            ("entry", TEXT + 0x10, 0x10),
            ("caller", TEXT + 0x20, 6),
            ("jumper", TEXT + 0x30, 5),
            ("old", TEXT + OLD, 5),
            ("other", TEXT + 0x50, 0x10),
            ("do_nmi", TEXT + 0x60, 0x10),
            ("_etext", TEXT + 0x80, 0),
            ("_srodata", CONSTANTS, 0),
            ("constant", CONSTANTS + TABLE as u64, 0x20),
            ("_erodata", CONSTANTS + 0x40, 0),
            ("__init_begin", BOOT, 0),
            ("_sinittext", BOOT, 0),
            ("_einittext", BOOT + 0x20, 0),
            ("__alt_instructions", BOOT + 0x40, 0),
            ("__init_end", BOOT + 0x40, 0),
            ("__2M_rwdata_start", DATA, 0),
            ("table", DATA + TABLE as u64, 0x20),
        ];
        let mut note = [4_u32, 8, 3].map(u32::to_le_bytes).concat();
        note.extend(b"GNU\0\x07\x07\x07\x07\x07\x07\x07\x07");
        let (mut names, mut table) = (vec![0], vec![0; 24]);
        for (name, address, size) in symbols.into_iter().chain([("_end", end, 0)]) {
            table.extend((names.len() as u32).to_le_bytes());
            // A global function of section 1.
            table.extend([0x12, 0, 1, 0]);
            table.extend(address.to_le_bytes());
            table.extend(size.to_le_bytes());
            names.extend(name.bytes().chain([0]));
        }
        let parts: [(u32, u64, &[u8], [u64; 3]); 8] = [
            (1, TEXT, &self.text, [0, 0, 0]),
            (1, CONSTANTS, &self.constants, [0, 0, 0]),
            (1, BOOT, &self.boot, [0, 0, 0]),
            (1, DATA, &self.data, [0, 0, 0]),
            (2, 0, &table, [6, 1, 24]),
            (3, 0, &names, [0, 0, 0]),
            (3, 0, b"\0", [0, 0, 0]),
            (7, 0, &note, [0, 0, 0]),
        ];
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        file.resize(64, 0);
        let mut headers = vec![0; 64];
        for (kind, address, bytes, [link, info, entry]) in parts {
            let at = file.len() as u64;
            headers.extend([0, kind].map(u32::to_le_bytes).concat());
            headers.extend(
                [2, address, at, bytes.len() as u64]
                    .map(u64::to_le_bytes)
                    .concat(),
            );
            headers.extend([link as u32, info as u32].map(u32::to_le_bytes).concat());
            headers.extend([1, entry].map(u64::to_le_bytes).concat());
            file.extend(bytes);
        }
        file[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 9, 0, 7, 0]);
        let sections = file.len() as u64;
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        file.extend(headers);
        file
    }

    fn splice(&self, payload: &mut Payload, what: &[Splice]) -> Result<Spliced, SpliceError> {
        let file = self.file();
        let xen = Hypervisor::parse(&file).expect("a hypervisor");
        let mut told = splice(payload, &xen, what)?;
        assert_eq!(told.len(), 1);
        Ok(told.remove(0))
    }

    /// Why the jump stays, or why it is refused.
    fn why(&self, what: &[Splice]) -> String {
        let mut payload = payload(&["old"]);
        match self.splice(&mut payload, what) {
            Ok(told) => told.jump.expect("the jump stays"),
            Err(error) => error.why,
        }
    }
}

fn payload_functions(payload: &Payload) -> usize {
    let functions = payload.functions.iter();
    let jumps = functions.filter(|one| matches!(one.new, New::Code { .. }));
    jumps.count()
}

/// Replaces these by functions that only return.
fn payload(names: &[&str]) -> Payload {
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0xc3];
    let functions = names.iter().zip(0..).map(|(name, symbol)| Function {
        name: (*name).to_owned(),
        new: New::Code {
            code: Reference { symbol, addend: 0 },
            size: 5,
        },
        old: Old::Name,
        old_size: 5,
        expectation: None,
    });
    let symbols = names.iter().map(|name| Symbol {
        name: (*name).to_owned(),
        place: SymbolPlace::Section {
            section: 0,
            offset: 0,
            size: 5,
        },
    });
    Payload {
        version: StructureVersion::V2,
        functions: functions.collect(),
        hooks: Vec::new(),
        sections: vec![Section {
            name: ".text.new".to_owned(),
            access: Access::Code,
            align: 16,
            contents: Contents::Bytes(code.to_vec()),
            relocations: Vec::new(),
        }],
        symbols: symbols.collect(),
        depends: BuildId(vec![7; 8]),
        xen_depends: Some(BuildId(vec![7; 8])),
        modinfo: Vec::new(),
    }
}

use Splice::{Callers, Tables};

#[test]
fn calls_and_jumps_are_found_and_the_jump_is_left_out() {
    let mut scene = Scene::new();
    // je; what runs at boot need not be led elsewhere.
    scene.branch(0x50, &[0x0f, 0x84]);
    scene.in_boot(0, &[0xe8]);
    let mut changed = payload(&["old"]);
    let told = scene
        .splice(&mut changed, &[Callers])
        .expect("it is only called");
    assert_eq!(
        (told.calls, told.pointers, told.dead, told.jump),
        (3, 0, 1, None)
    );
    let looks: Vec<_> = changed.functions.iter().map(|one| &one.name[..]).collect();
    assert_eq!(looks, ["caller+0x0", "jumper+0x0", "other+0x0"]);
    let expected = changed.functions.iter().map(|one| one.expectation.clone());
    let bytes = [
        &scene.text[0x20..0x25],
        &scene.text[0x30..0x35],
        &scene.text[0x50..0x56],
    ];
    let bytes = bytes.map(|bytes| Expectation::new(bytes.to_vec()));
    assert_eq!(expected.collect::<Vec<_>>(), bytes);
    let moments: Vec<Moment> = changed.hooks.iter().map(|hook| hook.moment).collect();
    assert_eq!(moments, [Moment::Load, Moment::Unload]);
    // It can be written, and tells the same when it is read.
    let again = read(&write(&changed).expect("sound").file)
        .expect("it was written")
        .payload;
    let shown = |one: Redirection| {
        let name = |to: Reference| (again.symbols[to.symbol as usize].name.clone(), to.addend);
        (one.kind, name(one.place), name(one.from), name(one.to))
    };
    let found: Vec<_> = redirections(&again).into_iter().map(shown).collect();
    let to = |name: &str, addend| (name.to_owned(), addend);
    let one = |name: &str, addend| (Callers, to(name, addend), to("old", 0), to("", 0));
    assert_eq!(found, [one("caller", 1), one("jumper", 1), one("other", 2)]);
    assert_eq!(bypassed(&again), ["old"].into());
}

#[test]
fn a_caller_that_is_replaced_does_not_count() {
    let mut changed = payload(&["old", "jumper"]);
    let scene = Scene::new();
    let file = scene.file();
    let xen = Hypervisor::parse(&file).expect("a hypervisor");
    let told = splice(&mut changed, &xen, &[Callers]).expect("it is called");
    assert_eq!((told[0].calls, told[0].dead, &told[0].jump), (1, 1, &None));
    // Nothing is known to lead to the other one.
    assert_eq!(told[1].calls, 0);
    assert!(
        told[1]
            .jump
            .as_ref()
            .is_some_and(|why| why.contains("nothing that leads"))
    );
    assert_eq!(payload_functions(&changed), 1);
}

#[test]
fn pointers_are_found_and_the_jump_stays() {
    for constant in [false, true] {
        let mut scene = Scene::new();
        let part = if constant {
            &mut scene.constants
        } else {
            &mut scene.data
        };
        part[TABLE + 8..TABLE + 16].copy_from_slice(&(TEXT + OLD).to_le_bytes());
        let mut changed = payload(&["old"]);
        let told = scene
            .splice(&mut changed, &[Callers, Tables])
            .expect("both");
        assert_eq!((told.calls, told.pointers), (2, 1));
        assert!(told.jump.expect("it stays").contains("may have copied"));
        assert_eq!(payload_functions(&changed), 1);
        assert!(bypassed(&changed).is_empty());
        let name = if constant {
            "constant+0x8"
        } else {
            "table+0x8"
        };
        assert_eq!(changed.functions.last().expect("a look").name, name);
        assert_eq!(redirections(&changed).len(), 3);
        // Who compares it with the copy would find another one.
        scene.boot[0x28..0x30].copy_from_slice(&(TEXT + OLD).to_le_bytes());
        assert!(scene.why(&[Tables]).contains("copied when it booted"));
    }
}

#[test]
fn what_is_not_proved_keeps_the_jump() {
    let why = |change: &dyn Fn(&mut Scene), words: &str| {
        let mut scene = Scene::new();
        change(&mut scene);
        let why = scene.why(&[Callers]);
        assert!(why.contains(words), "{why}, {words}");
    };
    // lea old(%rip), %rax; the same at boot; a call in what Xen writes into its code then.
    why(
        &|s| s.branch(0x50, &[0x48, 0x8d, 0x05]),
        "other+0x0 takes its address",
    );
    why(&|s| s.in_boot(8, &[0x48, 0x8d, 0x05]), "takes its address");
    why(&|s| s.in_boot(0x28, &[0xe8]), "is a distance");
    why(&|s| s.branch(0x10, &[0xe8]), "entry from outside");
    why(&|s| s.branch(0x60, &[0xe8]), "all processors stand");
    // jmp rel8
    why(
        &|s| s.text[0x50..0x52].copy_from_slice(&[0xeb, 0xee]),
        "short jump",
    );
    // hlt, and no padding.
    why(&|s| s.text[0x30..0x40].fill(0xf4), "runs on");
    // A table of distances.
    let distance = (TEXT + OLD).wrapping_sub(CONSTANTS + TABLE as u64) as u32;
    why(
        &|s| s.constants[TABLE..TABLE + 4].copy_from_slice(&distance.to_le_bytes()),
        "is a distance",
    );
    // A pointer in no variable, and one across two words.
    why(
        &|s| s.data[8..16].copy_from_slice(&(TEXT + OLD).to_le_bytes()),
        "no pointer of a variable",
    );
    why(
        &|s| s.data[TABLE + 4..TABLE + 12].copy_from_slice(&(TEXT + OLD).to_le_bytes()),
        "no pointer of a variable",
    );
}

#[test]
fn the_payloads_own_code_and_its_order_count() {
    let scene = Scene::new();
    let mut other = payload(&["old"]);
    other.depends = BuildId(vec![8; 8]);
    let told = scene.splice(&mut other, &[Callers]).expect("calls");
    assert!(told.jump.expect("it stays").contains("applied below"));
    let mut own = payload(&["old"]);
    own.symbols[0].name.clear();
    own.symbols.push(Symbol {
        name: "old".to_owned(),
        place: SymbolPlace::Xen,
    });
    own.sections[0].contents = Contents::Bytes(vec![0xe9, 0, 0, 0, 0]);
    own.sections[0]
        .relocations
        .push(invivo_format::livepatch::Relocation {
            offset: 1,
            kind: invivo_format::livepatch::RelocationKind::Call32,
            to: Reference {
                symbol: 1,
                addend: -4,
            },
        });
    let told = scene.splice(&mut own, &[Callers]).expect("calls");
    assert!(told.jump.expect("it stays").contains("own code"));
    let mut wrong = payload(&["old"]);
    wrong.xen_depends = Some(BuildId(vec![8; 8]));
    let error = scene
        .splice(&mut wrong, &[Callers])
        .expect_err("another Xen");
    assert!(error.why.contains("another hypervisor"), "{error}");
    let mut twice = payload(&["old"]);
    scene.splice(&mut twice, &[Callers]).expect("calls");
    assert!(scene.splice(&mut twice, &[Callers]).is_err());
}

fn rules(xen: &[u8], payload: &Payload, version: &str, running: Option<&BuildId>) -> Prediction {
    let xen = Hypervisor::parse(xen).expect("a hypervisor");
    let options = Options {
        version: version.parse().expect("a version"),
        xen: Some(&xen),
        running,
        loaded: &[],
    };
    predict(&write(payload).expect("sound").file, &options)
}

/// Branches before 4.17 learned late to leave an `ENDBR64` where it is: both places of a jump count as
/// written.
#[test]
fn where_a_jump_may_be_nothing_else_is_written() {
    let mut scene = Scene::new();
    scene.text[0x50..0x54].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa]);
    let mut payload = payload(&["old", "other"]);
    // NOPs to the third byte of the other one.
    payload.functions[0].new = New::Nop { size: 0x13 };
    payload.functions[0].old_size = 31;
    payload.functions[1].old_size = 0x10;
    payload.symbols[0].name.clear();
    for version in ["4.14", "4.16", "4.17", "4.20"] {
        let found = rules(&scene.file(), &payload, version, None).findings;
        let is_twice = found.iter().any(|one| one.rule == Rule::X59);
        assert_eq!(is_twice, version < "4.17", "{version}: {found:?}");
    }
}

/// `xen.efi` has the names of `xen-syms`, and its variables elsewhere.
#[test]
fn for_another_layout_names_are_all_that_counts() {
    let file = Scene::new().file();
    let xen = Hypervisor::parse(&file).expect("a hypervisor");
    let running = BuildId(vec![9; 16]);
    let mut payload = payload(&["old"]).for_hypervisor(&running);
    payload.functions[0].old_size = 5;
    payload.functions[0].expectation = Expectation::new(vec![0xcc; 4]);
    // What is expected cannot be held against code that has other operands.
    let told = rules(&file, &payload, "4.20", Some(&running));
    assert!(told.without_xen.contains(&Rule::X47), "{told:?}");
    assert!(told.findings.is_empty(), "{told:?}");
    let own = payload.for_hypervisor(&BuildId(vec![7; 8]));
    let told = rules(&file, &own, "4.20", None);
    assert_eq!(told.findings[0].rule, Rule::X47, "{told:?}");

    payload.symbols.push(Symbol {
        name: "table".to_owned(),
        place: SymbolPlace::Xen,
    });
    payload.sections[0].contents = Contents::Bytes(vec![0xcc; 16]);
    for (addend, is_inside) in [
        (-4, true),
        (0x1c, true),
        (0x20, true),
        (0x21, false),
        (-0x1000, false),
    ] {
        let mut payload = payload.clone();
        payload.sections[0].relocations = vec![Relocation {
            offset: 8,
            kind: RelocationKind::Relative32,
            to: Reference { symbol: 1, addend },
        }];
        let before = payload.clone();
        let done = payload.by_names_alone(&xen);
        assert_eq!(done.is_ok(), is_inside, "{addend}: {done:?}");
        match done {
            Ok(()) => assert_eq!(payload.functions[0].expectation, None),
            Err(name) => assert_eq!((&*name, &payload), ("table", &before)),
        }
    }
}
