//! Tables whose symbols have no size are compared by what they hold: of virtual functions, of types,
//! of handlers of exceptions, of assembly.

use invivo_compare::Comparison;
use invivo_image::Image;
use windows_tests::{Build, Folder, Library, build};

fn library(folder: &Folder, name: &str, how: Build) -> Library {
    let mut how = how.with("-frtti -fexceptions -fcxx-exceptions -fms-extensions");
    how = how.importing(&["__C_specific_handler"]);
    how.runtime.extend([
        "__CxxFrameHandler3",
        "_CxxThrowException",
        "__RTDynamicCast",
    ]);
    build(folder, name, "tables", &how).expect("it is built")
}

fn view(folder: &Folder, name: &str, words: &str) -> Image {
    let built = library(folder, name, Build::base().with(words));
    built.view().expect("read")
}

/// The functions that differ, and what is refused.
fn told(base: &Image, fixed: &Image) -> (Vec<String>, Vec<String>) {
    let c = Comparison::new(base, fixed);
    let hot = c.hot.iter().map(|hot| hot.name.clone()).collect();
    let findings = c.findings.iter();
    let told = findings.map(|one| format!("{} {} {}", one.rule.id(), one.subject, one.text));
    (hot, told.collect())
}

#[test]
fn what_only_moved_is_equal() {
    let folder = Folder::new("tables-moved");
    let base = view(&folder, "base", "");
    let mut moved = Build::base();
    moved.reversed = true;
    moved.link = [
        "/functionpadmin:32",
        "/hotpatchcompatible",
        "/base:0x190000000",
    ]
    .map(str::to_owned)
    .into();
    let moved = library(&folder, "moved", moved).view().expect("read");
    let places = |image: &Image| image.relative_words.len();
    assert!(places(&base) > 40, "{} words", places(&base));
    assert_eq!(places(&base), places(&moved));
    let same = base.entities.iter().filter(|one| {
        let mut others = moved.entities.iter();
        let other = others.find(|other| other.name() == one.name());
        other.is_some_and(|other| image_offset(&moved, other.addr) == image_offset(&base, one.addr))
    });
    assert!(
        same.count() < base.entities.len() / 10,
        "hardly anything moved"
    );
    let told = told(&base, &moved);
    assert_eq!(told, (Vec::new(), Vec::new()));
}

fn image_offset(image: &Image, at: invivo_image::LinkAddr) -> u64 {
    at.0 - image.base.0
}

#[test]
fn a_table_of_virtual_functions_that_changed_is_refused() {
    let folder = Folder::new("tables-virtual");
    let base = view(&folder, "base", "");
    for (words, class) in [
        ("-DPOINTS", "shapes::Ball"),
        ("-DSWAPPED", "shapes::Shape"),
        ("-DLONGER", "shapes::Shape"),
    ] {
        let fixed = view(&folder, "fixed", words);
        let (_, told) = told(&base, &fixed);
        let wanted = format!("R-VTABLE {class} ");
        assert!(
            told.iter().any(|one| one.starts_with(&wanted)),
            "{words}: {told:#?}"
        );
    }
}

#[test]
fn what_else_has_no_size_is_compared() {
    let folder = Folder::new("tables-others");
    let base = view(&folder, "base", "");
    for (words, hot) in [
        ("-DLIMITS", "limit"),
        ("-DSTEPS", "step"),
        ("-DTHROWS", "?checked@shapes@@YAHH@Z"),
        ("-DCATCHES", "?caught@shapes@@YAHH@Z"),
        ("-DTRIES", "?tried@shapes@@YAHPECH@Z"),
    ] {
        let fixed = view(&folder, "fixed", words);
        assert_eq!(told(&base, &fixed).0, [hot], "{words}");
    }
}

/// Nothing tells an address from a number in an image that cannot be moved.
#[test]
fn an_image_without_relocations_is_refused() {
    let folder = Folder::new("tables-fixed");
    let mut how = Build::base();
    how.link.push("/fixed".to_owned());
    let error = library(&folder, "base", how)
        .view()
        .expect_err("it is refused");
    assert!(
        format!("{error:#}").contains("link it without /fixed"),
        "{error:#}"
    );
}

/// Constants that lie among the code are compared as others are.
#[test]
fn constants_among_the_code_are_compared() {
    let folder = Folder::new("tables-inside");
    let wide = Build::base as fn() -> Build;
    for (machine, how) in [("wide", wide), ("narrow", || Build::base().narrow())] {
        let view = |name: &str, words: &str| {
            let mut how = how().with(words);
            how.link.push("/merge:.rdata=.text".to_owned());
            how.reversed = name == "moved";
            let built = build(&folder, name, "inside", &how).expect("it is built");
            built.view().expect("read")
        };
        let base = view("base", "");
        let mut objects = base.entities.iter();
        assert!(objects.any(|one| one.name().ends_with("limits") && one.size == 16));
        assert_eq!(told(&base, &base), (Vec::new(), Vec::new()), "{machine}");
        for (words, hot) in [
            ("-DLIMITS", "limit"),
            ("-DSTEPS", "step"),
            ("-DTEXT", "word"),
        ] {
            let (found, _) = told(&base, &view("fixed", words));
            let found: Vec<&str> = found
                .iter()
                .map(|name| name.trim_start_matches('_'))
                .collect();
            assert!(found.contains(&hot), "{machine} {words}: {found:?}");
            assert!(!found.contains(&"answer"), "{machine} {words}: {found:?}");
        }
        let (found, _) = told(&base, &view("moved", ""));
        assert!(
            found.iter().all(|name| name.ends_with("word")),
            "{machine}: {found:?}"
        );
    }
}
