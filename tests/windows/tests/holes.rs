//! What compilers for hot patching get wrong, as they really compile it: each is refused, by its rule,
//! and the nearest thing that they get right is not.

use invivo_compare::{Comparison, Finding, Rule};
use invivo_patch::{Refused, plan_final};
use windows_tests::{Build, Folder, Library, build, final_image};

/// One hole: the word that has it compiled, and what else its compilation needs.
struct Hole {
    word: &'static str,
    /// Functions that are compiled for hot patching.
    functions: &'static str,
    compile: &'static str,
    link: &'static str,
    imports: &'static [&'static str],
}

const HOLE: Hole = Hole {
    word: "",
    functions: "answer",
    compile: "",
    link: "",
    imports: &[],
};

impl Hole {
    fn build(
        &self,
        folder: &Folder,
        name: &str,
        how: Build,
        near: bool,
    ) -> anyhow::Result<Library> {
        let mut how = how
            .with(&format!("-D{} {}", self.word, self.compile))
            .importing(self.imports);
        if near {
            how.compile.push("-DNEAR".to_owned());
        }
        how.link
            .extend(self.link.split_whitespace().map(str::to_owned));
        build(folder, name, "holes", &how)
    }

    /// Both builds.
    fn pair(&self, folder: &Folder, near: bool) -> (Library, Library) {
        let fixed = Build::fixed(self.functions);
        (
            self.build(folder, "base", Build::base(), near)
                .expect("the base is built"),
            self.build(folder, "fixed", fixed, near)
                .expect("the fixed one is built"),
        )
    }

    /// Its own folder: one hole may be built in several ways at the same time.
    fn folder(&self, what: &str) -> Folder {
        let reached = match self.functions {
            "" => "direct",
            _ => "pointers",
        };
        Folder::new(&format!("{}-{reached}-{what}", self.word))
    }

    /// Demands that it is refused by this rule and nothing else, and tells why.
    fn refused(&self, rule: Rule) -> String {
        let folder = self.folder("refused");
        let (base, fixed) = self.pair(&folder, false);
        let (base, fixed) = (base.view().expect("read"), fixed.view().expect("read"));
        let refused = plan_final(&Comparison::new(&base, &fixed)).expect_err("it must be refused");
        let findings = match refused {
            Refused::Findings(findings) => findings,
            other => unreachable!("{}: {other:?}", self.word),
        };
        let other = |finding: &&Finding| finding.rule != rule;
        assert!(!findings.iter().any(|found| other(&found)), "{findings:#?}");
        findings.iter().map(|f| format!("{}\n", f.text)).collect()
    }

    /// Demands that the nearest thing becomes a sound patch.
    fn near_miss(&self) {
        let folder = self.folder("near");
        let (base, fixed) = self.pair(&folder, true);
        final_image(&base, &fixed, 1).expect("nothing stands in the way");
    }
}

#[test]
fn a_variable_of_each_thread() {
    let hole = Hole {
        word: "THREAD",
        ..HOLE
    };
    let why = hole.refused(Rule::ThreadLocals);
    assert!(why.contains("thread-local variable own"), "{why}");
    hole.near_miss();
}

#[test]
fn two_addresses_in_one_value() {
    let hole = Hole {
        word: "AGGREGATE",
        functions: "answer,pair",
        ..HOLE
    };
    let why = hole.refused(Rule::Binding);
    assert!(why.contains("reaches the variable first directly"), "{why}");
    assert!(why.contains("variable second directly"), "{why}");
    hole.near_miss();
}

#[test]
fn another_name_of_a_variable() {
    let hole = Hole {
        word: "ALIAS",
        // Where it optimizes, the compiler takes the variable itself.
        compile: "-O0",
        ..HOLE
    };
    let why = hole.refused(Rule::Binding);
    assert!(why.contains("an alias"), "{why}");
    hole.near_miss();
}

/// The linker itself refuses two pointers of one name. Told to take the first one it is right, since
/// both lead to one variable.
#[test]
fn one_pointer_from_two_files() {
    let mut hole = Hole {
        word: "DUPLICATE",
        functions: "answer,also",
        ..HOLE
    };
    let folder = Folder::new("DUPLICATE");
    let fixed = hole.build(&folder, "fixed", Build::fixed(hole.functions), false);
    let why = format!("{:#}", fixed.expect_err("the linker refuses"));
    assert!(why.contains("duplicate symbol: __ref_first"), "{why}");
    hole.link = "/force:multiple";
    hole.near_miss();
}

#[test]
fn one_pointer_for_two_variables_of_one_name() {
    let hole = Hole {
        word: "MERGED",
        functions: "answer,also",
        link: "/force:multiple",
        ..HOLE
    };
    let why = hole.refused(Rule::Binding);
    assert!(why.contains("2 variables are called count"), "{why}");
    hole.near_miss();
}

/// A linker for Visual C++ cannot link it; one for MinGW lets the C runtime write what the pointer
/// leads to.
#[test]
fn a_variable_of_another_library() {
    let mut hole = Hole {
        word: "IMPORTED",
        imports: &["imported DATA"],
        ..HOLE
    };
    let folder = Folder::new("IMPORTED");
    let fixed = hole.build(&folder, "fixed", Build::fixed("answer"), false);
    let why = format!("{:#}", fixed.expect_err("the linker refuses"));
    assert!(why.contains("undefined symbol: imported"), "{why}");
    hole.link = "/lldmingw";
    let why = hole.refused(Rule::Binding);
    assert!(why.contains("the pointer to imported"), "{why}");
    // Not compiled for hot patching it goes through the slot that the loader fills.
    hole.functions = "";
    hole.link = "";
    hole.near_miss();
}

#[test]
fn a_variable_that_may_be_one_of_two() {
    let hole = Hole {
        word: "UNBOUND",
        ..HOLE
    };
    let why = hole.refused(Rule::Binding);
    assert!(why.contains("may be one of the base's"), "{why}");
    hole.near_miss();
}

/// Reached directly they are no more certain than through a pointer: taken for new, both would live in the
/// patch and begin anew.
#[test]
fn a_variable_that_may_be_one_of_two_reached_directly() {
    let hole = Hole {
        word: "ELSEWHERE",
        functions: "",
        ..HOLE
    };
    let why = hole.refused(Rule::Binding);
    assert!(why.contains("may be one of the base's"), "{why}");
}

#[test]
fn constants_that_hold_addresses() {
    let hole = Hole {
        word: "CONSTANTS",
        ..HOLE
    };
    hole.near_miss();
}
