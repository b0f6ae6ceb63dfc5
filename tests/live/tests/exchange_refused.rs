//! Files that cannot be exchanged: read-only, full, bound by flags, or a mount point. Whatever stands in the way, the
//! name leads to what it led to before, nothing lies beside it, and the message says what to do.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use live_tests::binary;
use live_tests::compile::Build;
use live_tests::invivo::{invivo, invivo_through};
use live_tests::pair::Pair;
use live_tests::run::Ran;
use live_tests::unharmed::am_root;
use live_tests::workdir::in_workdir;

/// Runs a script in name spaces of its own, in which it may mount; `$1` is the final image, `$2` the file that it is
/// for, `$3` the tool, and `$4` an empty folder.
fn in_own_mounts(dir: &Path, script: &str) -> Result<Ran> {
    let pair = Pair::build(dir, "greeting.c", Build::default())?;
    let (base, fixed) = pair.images();
    let (image, room) = (dir.join("server.final"), dir.join("room"));
    std::fs::create_dir(&room)?;
    let [b, f, i] = [&base, &fixed, &image].map(|path| path.display().to_string());
    let args = [
        "build", &b, &f, "-o", &i, "--name", "fix", "--format", "final",
    ];
    invivo(&args)?.expect_code(0)?;
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !am_root()? {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-euc", script, "sh"]);
    command
        .args([&image, &base])
        .arg(binary::invivo()?)
        .arg(&room);
    invivo_through(command)
}

/// What each script ends with: the file is as it was, and alone.
const AS_BEFORE: &str = "cmp \"$2\" \"$4/server\"; test \"$(ls -A \"$4\")\" = server";

/// Has the tool fail at `$4/server` after `before`, with `code` and a message that has each of `words`.
fn refused(name: &str, before: &str, after: &str, code: i32, words: &[&str]) -> Result<()> {
    in_workdir(name, |dir| {
        let script = format!(
            "{before}\nset +e\n\"$3\" install \"$1\" \"$4/server\" > \"$4.told\" 2>&1\ncode=$?\nset -e\n\
             {after}\n{AS_BEFORE}\necho code $code\ncat \"$4.told\""
        );
        let ran = in_own_mounts(dir, &script)?;
        ran.expect_code(0)?;
        let told = ran.told();
        ensure!(ran.stdout.contains(&format!("code {code}\n")), "{told}");
        for word in words {
            ensure!(ran.stdout.contains(word), "no {word:?}: {told}");
        }
        Ok(())
    })
}

#[test]
fn a_file_system_that_is_read_only() -> Result<()> {
    let before = "mount -t tmpfs -o mode=0755 none \"$4\"; cp \"$2\" \"$4/server\"; mount -o remount,bind,ro \"$4\"";
    refused(
        "exchange-read-only",
        before,
        "",
        2,
        &["Read-only file system", "remount,rw"],
    )
}

#[test]
fn a_file_system_that_is_full() -> Result<()> {
    let before = "size=$(( ($(stat -c %s \"$2\") + 4095) / 4096 * 4096 + 8192 ))\n\
                  mount -t tmpfs -o mode=0755,size=$size none \"$4\"; cp \"$2\" \"$4/server\"";
    let words = ["No space left on device", "make room"];
    refused("exchange-full", before, "", 3, &words)
}

#[test]
fn a_file_that_something_is_mounted_on() -> Result<()> {
    let before = "cp \"$2\" \"$4/server\"; mount --bind \"$4/server\" \"$4/server\"";
    refused(
        "exchange-mounted",
        before,
        "umount \"$4/server\"",
        2,
        &["busy", "unmount it"],
    )
}

/// Only who may set such flags can try it.
fn by_flags(name: &str, flag: &str, of: &str) -> Result<()> {
    if !am_root()? {
        println!("such flags are set by root alone");
        return Ok(());
    }
    let before = format!("cp \"$2\" \"$4/server\"; chattr +{flag} \"$4{of}\"");
    let after = format!("chattr -{flag} \"$4{of}\"");
    refused(name, &before, &after, 5, &["chattr -i FILE"])
}

#[test]
fn a_file_that_nobody_may_change() -> Result<()> {
    by_flags("exchange-immutable", "i", "/server")
}

#[test]
fn a_file_that_only_grows() -> Result<()> {
    by_flags("exchange-append", "a", "/server")
}

#[test]
fn a_folder_that_nobody_may_change() -> Result<()> {
    by_flags("exchange-folder", "i", "")
}

/// Files of containers come from a layer that is not written; the new file and the old one come into the upper one.
#[test]
fn a_file_of_a_lower_layer() -> Result<()> {
    in_workdir("exchange-overlay", |dir| {
        let script = "mount -t tmpfs none \"$4\"; cd \"$4\"; mkdir lower upper work all; cp \"$2\" lower/server\n\
                      chmod 4751 lower/server; cp -p lower/server before\n\
                      mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none all\n\
                      \"$3\" install \"$1\" all/server; cmp \"$1\" all/server; test \"$(stat -c %a all/server)\" = 4751\n\
                      test \"$(stat -c %a all/.server.invivo-*)\" = 751\n\
                      \"$3\" uninstall all/server; cmp before all/server; test \"$(stat -c %a all/server)\" = 4751\n\
                      test \"$(ls -A all)\" = server";
        in_own_mounts(dir, script)?.expect_code(0)?;
        Ok(())
    })
}
