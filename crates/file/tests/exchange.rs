//! Files are exchanged and come back; real files, in a folder of their own.

mod case;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use case::Case;
use invivo_file::{Carried, Disk, FileError, FinalFile, OnDisk, install, uninstall};
use invivo_format::final_image::write;
use invivo_patch::Hex;

fn runs(path: &Path) -> bool {
    Command::new(path).status().expect("it can run").success()
}

#[test]
fn what_starts_next_is_fixed_and_the_old_file_comes_back_itself() {
    let case = Case::new();
    let before = case.path().metadata().expect("it is there");
    assert!(runs(&case.path()));
    let done = case.install().expect("it is the base");
    assert!(done.changed);
    assert_eq!((done.base, done.other_names), (case.hidden(), 0));
    assert!(!runs(&case.path()), "the fixed one is `false`");
    assert!(runs(&case.hidden()), "the old one is whole");
    assert_eq!(fs::read(case.path()).expect("it is there"), case.image);

    assert!(!case.install().expect("nothing to do").changed);

    let back = uninstall(&case.path()).expect("the old file is beside it");
    assert_eq!(back.manifest, case.manifest);
    let after = case.path().metadata().expect("it is there");
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
    assert_eq!(fs::read(case.path()).expect("it is there"), case.base);
    assert_eq!(case.entries(), 1, "nothing is left over");
    assert!(matches!(
        uninstall(&case.path()),
        Err(FileError::NotInstalled(_))
    ));
}

#[test]
fn owner_mode_and_attributes_go_with_it() {
    let case = Case::new();
    let set = |name: &str, value: &str| {
        let mut command = Command::new("setfattr");
        let status = command
            .args(["-n", name, "-v", value])
            .arg(case.path())
            .status();
        assert!(status.expect("the tests install it").success(), "{name}");
    };
    set("user.origin", "vendor");
    let mut acl = Command::new("setfacl");
    let acl = acl.args(["-m", "u:1:r-x"]).arg(case.path()).status();
    assert!(acl.expect("the tests install it").success());
    // In a folder whose files get an access control list by themselves.
    let mut list = Command::new("setfacl");
    let list = list
        .args(["-d", "-m", "u:2:rwx"])
        .arg(case.folder.path())
        .status();
    assert!(list.expect("the tests install it").success());
    let root = case.path().metadata().expect("it is there").uid() == 0;
    if root {
        std::os::unix::fs::chown(case.path(), Some(12345), Some(54321)).expect("root may");
        let mut capability = Command::new("setcap");
        let capability = capability
            .arg("cap_net_bind_service=ep")
            .arg(case.path())
            .status();
        assert!(capability.expect("the tests install it").success());
    }
    fs::set_permissions(case.path(), Permissions::from_mode(0o4751)).expect("it is ours");
    let all = |path: &Path| {
        let data = path.metadata().expect("it is there");
        let mut list = Command::new("getfattr");
        let list = list
            .args(["--absolute-names", "-d", "-m", "-"])
            .arg(path)
            .output();
        let list = String::from_utf8(list.expect("the tests install it").stdout);
        let list = list.expect("it is text");
        let values = list.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        (data.mode(), data.uid(), data.gid(), values)
    };
    let before = all(&case.path());
    assert!(
        before.3.iter().any(|line| line.contains("user.origin")),
        "{before:?}"
    );
    case.install().expect("it is the base");
    assert_eq!(all(&case.path()), before);
    uninstall(&case.path()).expect("the old file is beside it");
    assert_eq!(all(&case.path()), before);
}

/// Labels of security modules are attributes that only some may set; what cannot be set here is
/// counted and said.
#[test]
fn security_labels_go_with_it() {
    let case = Case::new();
    let root = case.path().metadata().expect("it is there").uid() == 0;
    let labels = [
        ("security.selinux", "system_u:object_r:bin_t:s0"),
        ("security.SMACK64", "System"),
        ("trusted.origin", "vendor"),
        ("user.origin", "vendor"),
    ];
    let value = |path: &Path, name: &str| {
        let mut command = Command::new("getfattr");
        command.args(["--absolute-names", "--only-values", "-n", name]);
        let output = command.arg(path).output().expect("the tests install it");
        output.status.success().then_some(output.stdout)
    };
    let mut refused = Vec::new();
    for (name, wanted) in labels {
        let mut command = Command::new("setfattr");
        command.args(["-n", name, "-v", wanted]).arg(case.path());
        let output = command.output().expect("the tests install it");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            let known = ["Operation not permitted", "Operation not supported"];
            assert!(
                known.iter().any(|known| why.contains(known)),
                "{name}: {why}"
            );
            refused.push(name);
        }
    }
    println!(
        "{} of {} labels cannot be set here: {refused:?}",
        refused.len(),
        labels.len()
    );
    // Without a right of its own a file system with attributes has that one at least.
    assert!(!refused.contains(&"user.origin"), "{refused:?}");
    assert!(!root || refused.len() < 3, "root can set them: {refused:?}");
    let all = |path: &Path| labels.map(|(name, _)| value(path, name));
    let before = all(&case.path());
    for ((name, wanted), found) in labels.iter().zip(&before) {
        let found = found.as_ref().map(|found| {
            let text = String::from_utf8_lossy(found);
            text.trim_end_matches('\0').to_owned()
        });
        // Where a module is loaded the file may have a label already that only it changes.
        if !refused.contains(name) {
            assert_eq!(found.as_deref(), Some(*wanted), "{name}");
        }
    }
    case.install().expect("it is the base");
    assert_eq!(all(&case.path()), before, "of the new file");
    assert_eq!(all(&case.hidden()), before, "of the old one");
    uninstall(&case.path()).expect("the old file is beside it");
    assert_eq!(all(&case.path()), before, "of the old one again");
}

#[test]
fn another_file_is_not_touched() {
    let case = Case::new();
    fs::write(case.path(), b"another build").expect("it is ours");
    let refused = case.install();
    assert!(
        matches!(refused, Err(FileError::OtherFile { .. })),
        "{refused:?}"
    );
    assert_eq!(
        fs::read(case.path()).expect("it is there"),
        b"another build"
    );
    assert_eq!(case.entries(), 1);
    let folder = install(case.folder.path(), &case.image, &case.manifest);
    assert!(matches!(folder, Err(FileError::NotAFile(_))), "{folder:?}");
    let nothing = install(
        &case.folder.path().join("none"),
        &case.image,
        &case.manifest,
    );
    assert!(
        matches!(nothing, Err(FileError::System { .. })),
        "{nothing:?}"
    );
}

#[test]
fn a_lost_or_changed_old_file_is_not_put_back() {
    let case = Case::new();
    case.install().expect("it is the base");
    fs::write(case.hidden(), b"something else").expect("it is ours");
    let refused = uninstall(&case.path());
    assert!(
        matches!(refused, Err(FileError::InTheWay(_))),
        "{refused:?}"
    );
    fs::remove_file(case.hidden()).expect("it is ours");
    let refused = uninstall(&case.path());
    assert!(
        matches!(refused, Err(FileError::NoBase { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(case.path()).expect("it is there"), case.image);
}

#[test]
fn a_link_leads_to_the_file_that_is_exchanged() {
    let case = Case::new();
    let link = case.folder.path().join("link");
    symlink("server", &link).expect("the folder is ours");
    fs::hard_link(case.path(), case.folder.path().join("other")).expect("the folder is ours");
    let done = install(&link, &case.image, &case.manifest).expect("it is the base");
    assert_eq!(
        done.other_names, 1,
        "a hard link goes on leading to the old file"
    );
    assert!(link.symlink_metadata().expect("it is there").is_symlink());
    assert_eq!(fs::read(&link).expect("it is there"), case.image);
}

#[test]
fn two_at_once_do_not_mix() {
    let case = Case::new();
    let folder = File::open(case.folder.path()).expect("it is there");
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).expect("it is free");
    let refused = case.install();
    assert!(matches!(refused, Err(FileError::Busy(_))), "{refused:?}");
    drop(folder);
    case.install().expect("now it is free");
}

#[test]
fn the_disk_tells_what_starts_next() {
    let case = Case::new();
    let id = |bytes: &[u8]| {
        let image = invivo_image::Image::parse(bytes.into(), None).expect("it is a program");
        Hex(image.build_id.expect("distributions write one").0)
    };
    let old = id(&case.base);
    let root = Path::new("/");
    let mut disk = Disk::new(|path| fs::read(path).ok());
    let mut on_disk = |mapped: &Path, id: &Hex| disk.look(root, mapped, id);
    assert_eq!(on_disk(&case.path(), &old), OnDisk::Same);
    let mut manifest = case.manifest.clone();
    manifest.base.build_id = Some(old.clone());
    let fixed = fs::read("/bin/false").expect("every system has it");
    let image = write(&fixed, &manifest, None).expect("it is a program");
    install(&case.path(), &image, &manifest).expect("it is the base");
    // What a process that goes on running the old file tells.
    let found = on_disk(&case.hidden(), &old);
    let carried = Carried::Nothing;
    let whole = FinalFile { manifest, carried };
    assert_eq!(found, OnDisk::Final(Arc::new(whole)));
    // Another process that runs it: what was read is not read again, and not copied.
    match (found, on_disk(&case.hidden(), &old)) {
        (OnDisk::Final(one), OnDisk::Final(other)) => assert!(Arc::ptr_eq(&one, &other)),
        other => panic!("{other:?}"),
    }
    assert_eq!(on_disk(&case.path(), &id(&fixed)), OnDisk::Same);
    fs::write(case.path(), &fixed).expect("it is ours");
    assert_eq!(on_disk(&case.hidden(), &old), OnDisk::Other);
    fs::remove_file(case.path()).expect("it is ours");
    assert_eq!(on_disk(&case.hidden(), &old), OnDisk::Gone);
}

/// Programs that carry an archive look for it from the end of their file, which would be another one.
#[test]
fn a_program_that_carries_something_is_refused() {
    let case = Case::new();
    let with = |more: &[u8]| [&case.base[..], more].concat();
    let refused = write(&with(b"PK\x05\x06"), &case.manifest, None).expect_err("an archive");
    assert!(refused.to_string().contains("carries data"), "{refused}");
    write(&with(&[0; 7]), &case.manifest, None).expect("nothing but zeros");
}
