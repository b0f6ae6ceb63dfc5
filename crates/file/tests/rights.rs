//! What a file may do beyond the user who starts it goes over to the new one, is not left with the old one that is
//! hidden beside it, and comes back with it.

mod case;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use case::Case;
use invivo_file::{FileError, uninstall};

/// Anybody but root.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Runs a tool of the system; true if it succeeds.
fn done(program: &str, args: &[&str], path: &Path) -> bool {
    let status = Command::new(program).args(args).arg(path).status();
    status.expect("the tests install it").success()
}

/// The capabilities as the file holds them.
fn capabilities(path: &Path) -> Option<Vec<u8>> {
    let mut command = Command::new("getfattr");
    command.args([
        "--absolute-names",
        "--only-values",
        "-n",
        "security.capability",
    ]);
    let output = command.arg(path).output().expect("the tests install it");
    output.status.success().then_some(output.stdout)
}

/// A set-user-ID file that tells who it runs as, with capabilities where they can be given.
fn privileged() -> Case {
    let case = Case::of("/usr/bin/id", "/usr/bin/id");
    // Others may look into the folder.
    set_mode(case.folder.path(), 0o755);
    set_mode(&case.path(), 0o6755);
    if is_root() {
        let capability = ["cap_net_bind_service=ep"];
        assert!(done("setcap", &capability, &case.path()));
    }
    case
}

/// Who the file runs as if nobody in particular starts it.
fn runs_as(path: &Path) -> String {
    let mut command = Command::new(path);
    command.arg("-u").uid(NOBODY).gid(NOBODY);
    let output = command.output().expect("everybody may start it");
    String::from_utf8(output.stdout).expect("it is a number")
}

#[test]
fn the_old_file_gives_them_up_while_it_is_hidden() {
    let case = privileged();
    let (before, held) = (mode(&case.path()), capabilities(&case.path()));
    assert_eq!(held.is_some(), is_root());
    assert!(case.install().expect("it is the base").rights_taken);
    assert_eq!(mode(&case.path()), before, "of the new file");
    assert_eq!(capabilities(&case.path()), held, "of the new file");
    assert_eq!(mode(&case.hidden()), 0o755, "of the old one");
    assert_eq!(capabilities(&case.hidden()), None, "of the old one");
    if is_root() {
        assert_eq!(runs_as(&case.path()), "0\n");
        assert_eq!(runs_as(&case.hidden()), format!("{NOBODY}\n"));
    }
    uninstall(&case.path()).expect("the old file is beside it");
    assert_eq!(mode(&case.path()), before, "of the old one again");
    assert_eq!(capabilities(&case.path()), held, "of the old one again");
    assert_eq!(fs::read(case.path()).expect("it is there"), case.base);
    assert_eq!(case.entries(), 1);
}

#[test]
fn a_file_without_them_is_left_as_it_was() {
    let case = Case::new();
    let before = mode(&case.path());
    assert!(!case.install().expect("it is the base").rights_taken);
    assert_eq!(mode(&case.hidden()), before);
}

/// A tool that dies between two steps leaves the old file with them; the next one sees to it.
#[test]
fn what_a_tool_that_died_left_is_made_up_for() {
    let case = privileged();
    let before = mode(&case.path());
    case.install().expect("it is the base");
    // It died when it had exchanged the names, or when it was about to exchange them back.
    let armed = || set_mode(&case.hidden(), before);
    armed();
    let again = case.install().expect("it is there already");
    assert!(!again.changed && again.rights_taken);
    assert_eq!(mode(&case.hidden()), 0o755);
    armed();
    uninstall(&case.path()).expect("the old file is beside it");
    assert_eq!(mode(&case.path()), before);
}

/// Who took the rights from the new file did not want the old one to have them either.
#[test]
fn what_was_taken_from_the_new_file_stays_taken() {
    let case = privileged();
    case.install().expect("it is the base");
    set_mode(&case.path(), 0o755);
    uninstall(&case.path()).expect("the old file is beside it");
    assert_eq!(mode(&case.path()), 0o755);
}

/// A file of somebody else at the hidden name gets nothing, whatever it holds.
#[test]
fn a_file_of_another_owner_gets_nothing() {
    if !is_root() {
        println!("another owner can be given by root alone");
        return;
    }
    let case = privileged();
    case.install().expect("it is the base");
    std::os::unix::fs::chown(case.hidden(), Some(NOBODY), None).expect("root may");
    uninstall(&case.path()).expect("its contents are those of the base");
    assert_eq!(mode(&case.path()), 0o755);
}

/// A hash or signature of the old contents would have the kernel refuse the new ones.
#[test]
fn a_sealed_file_is_refused() {
    let case = Case::new();
    let seal = ["-n", "security.ima", "-v", "0x0401"];
    if !done("setfattr", &seal, &case.path()) {
        assert!(!is_root(), "root can set it");
        println!("a seal can be set by root alone");
        return;
    }
    let refused = case.install();
    let sealed = matches!(refused, Err(FileError::Sealed { by, .. }) if by == "security.ima");
    assert!(sealed, "{refused:?}");
    assert_eq!(fs::read(case.path()).expect("it is there"), case.base);
    assert_eq!(case.entries(), 1);
}

/// `chattr` sets more than modes and attributes.
#[test]
fn flags_go_with_it() {
    let case = Case::new();
    if !done("chattr", &["+dA"], &case.path()) {
        println!("this file system has no such flags");
        return;
    }
    case.install().expect("it is the base");
    let told = Command::new("lsattr").arg(case.path()).output();
    let told = String::from_utf8(told.expect("the tests install it").stdout);
    let told = told.expect("it is text");
    let flags = told.split_whitespace().next().expect("flags come first");
    assert!(flags.contains('d') && flags.contains('A'), "{flags}");
}
