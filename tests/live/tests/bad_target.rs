//! Processes that cannot or must not be patched: refused with the right exit code, a message that says why, and nobody
//! harmed.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::{Build, compile_program, tool};
use live_tests::group::Group;
use live_tests::invivo::{apply, invivo_through};
use live_tests::memory::{Snapshot, mappings};
use live_tests::pair::Pair;
use live_tests::run::wait_for;
use live_tests::target::{Side, Target};
use live_tests::unharmed::{am_root, unharmed};

/// A process number that was in use a moment ago.
#[test]
fn no_such_process() -> Result<()> {
    unharmed("no-process", |_, _, patch, _| {
        let mut gone = Command::new("true").spawn()?;
        gone.wait()?;
        apply(patch, gone.id(), &[])?.expect_failure(6, &[&gone.id().to_string()])?;
        Ok(())
    })
}

/// An ordinary user and a process of root: permission is told apart from every other failure, with a way out.
#[test]
fn not_permitted() -> Result<()> {
    unharmed("not-permitted", |dir, _, patch, pid| {
        let ran = if am_root()? {
            // Copied, because an ordinary user may not be able to reach the folder that it was built in.
            let copy = dir.join("invivo");
            fs::copy(binary::invivo()?, &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
            fs::set_permissions(patch, fs::Permissions::from_mode(0o644))?;
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(copy);
            command
                .arg("apply")
                .arg(patch)
                .args(["-p", &pid.to_string()]);
            invivo_through(command).context("setpriv is part of util-linux")?
        } else {
            apply(patch, 1, &[])?
        };
        ran.expect_failure(5, &["hint: "])?;
        Ok(())
    })
}

// The remedy that is told where the system lets only some trace, which a file stands for: kernels without Yama have none.
fn remedy(scope: &str) -> Result<String> {
    let mut told = String::new();
    unharmed("remedy", |dir, _, patch, pid| {
        let copy = dir.join("invivo");
        fs::copy(binary::invivo()?, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(patch, fs::Permissions::from_mode(0o644))?;
        let root = am_root()?;
        let mut command = Command::new("unshare");
        command.args(if root { &["-m"][..] } else { &["-r", "-m"] });
        command.args(["sh", "-ec"]).arg(
            "mount -t tmpfs none /proc/sys/kernel; mkdir /proc/sys/kernel/yama; \
             echo $0 > /proc/sys/kernel/yama/ptrace_scope; exec \"$@\"",
        );
        command.arg(scope);
        if root {
            command.args([
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ]);
        }
        // In a namespace of its own an ordinary user may trace nobody outside it, as with Yama.
        let pid = if root { 1 } else { pid };
        command.arg(copy).arg("apply").arg(patch);
        command.args(["-p", &pid.to_string()]);
        let ran = invivo_through(command)?;
        ran.expect_failure(5, &["hint: "])?;
        told = ran.stderr.clone();
        Ok(())
    })?;
    Ok(told)
}

/// What helps depends on who may trace (Yama): a right or a setting, root, or nothing before the next start of the system.
#[test]
fn remedy_where_the_system_restricts_tracing() -> Result<()> {
    let told = remedy("1")?;
    for word in [
        "setcap cap_sys_ptrace+ep",
        "sudo sysctl kernel.yama.ptrace_scope=0",
    ] {
        ensure!(told.contains(word), "{word} is missing: {told}");
    }
    let told = remedy("2")?;
    ensure!(
        told.contains("lets only root trace") && !told.contains("setcap"),
        "{told}"
    );
    let told = remedy("3")?;
    ensure!(
        told.contains("not even root") && !told.contains("sudo"),
        "{told}"
    );
    let told = remedy("0")?;
    ensure!(told.contains("the user that owns the process"), "{told}");
    Ok(())
}

/// The process runs, but another program altogether.
#[test]
fn process_of_another_program() -> Result<()> {
    unharmed("other-program", |dir, _, patch, _| {
        let other = Pair::build(&dir.join("other"), "recursion.c", Build::default())?;
        let mut target = other.start()?;
        let before = Snapshot::of(target.pid())?;
        apply(patch, target.pid(), &[])?.expect_failure(1, &["greeting"])?;
        before.expect_same()?;
        target.expect_all(&other.fixture.asks, Side::Old)
    })
}

/// The same program by name, another build of it: only the build id tells.
#[test]
fn wrong_build_id() -> Result<()> {
    unharmed("build-id", |dir, _, patch, _| {
        let flags = ["-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567"];
        let other = Pair::build(
            &dir.join("other"),
            "greeting.c",
            Build {
                flags: &flags,
                ..Build::default()
            },
        )?;
        let mut target = other.start()?;
        let before = Snapshot::of(target.pid())?;
        apply(patch, target.pid(), &[])?.expect_failure(1, &["build id"])?;
        before.expect_same()?;
        target.expect_all(&other.fixture.asks, Side::Old)
    })
}

/// The right build, but a byte of what is to be replaced is another one, as a debugger's breakpoint leaves it.
#[test]
fn wrong_expected_bytes() -> Result<()> {
    unharmed("bytes", |_, pair, patch, pid| {
        let mut nm = Command::new("nm");
        nm.arg(&pair.base);
        let symbols = tool(nm)?.stdout;
        let line = symbols.lines().find(|line| line.ends_with(" T greet"));
        let at = line.and_then(|line| line.split(' ').next());
        let at = u64::from_str_radix(at.context("there is no greet")?, 16)?;
        let path = pair.base.display().to_string();
        let maps = mappings(pid)?;
        let first = maps.iter().find(|map| map.path == path);
        let at = at + first.context("the program is not mapped")?.start;
        let memory = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        let mut right = [0];
        memory.read_exact_at(&mut right, at)?;
        memory.write_all_at(&[0xcc], at)?;
        let (before, all) = (Snapshot::of(pid)?, mappings(pid)?);
        for consistency in ["entry", "quiescent"] {
            apply(patch, pid, &["--consistency", consistency])?
                .expect_failure(1, &["greet", "not what"])?;
            before.expect_same()?;
            ensure!(all == mappings(pid)?, "a mapping was left behind");
        }
        memory.write_all_at(&right, at)?;
        Ok(())
    })
}

/// A debugger has the process: only one may, and it keeps what it has.
#[test]
fn already_traced_process() -> Result<()> {
    unharmed("traced", |dir, _, patch, pid| {
        let program = compile_program(dir, "tracer")?;
        let tracer = Target::start(&program, &[pid.to_string()])?;
        apply(patch, pid, &[])?.expect_failure(3, &["traced", &tracer.pid().to_string()])?;
        Ok(())
    })
}

/// A process that somebody has stopped stays stopped; the tool says so instead of waiting for ever.
#[test]
fn stopped_process() -> Result<()> {
    unharmed("stopped", |_, _, patch, pid| {
        signal("STOP", pid)?;
        // It stops when it gets a processor.
        while !fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") T ") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let ran = apply(patch, pid, &["--timeout", "2"]);
        let state = fs::read_to_string(format!("/proc/{pid}/status"))?;
        signal("CONT", pid)?;
        ran?.expect_failure(3, &["stopped"])?;
        ensure!(
            state.contains("State:\tT (stopped)"),
            "the process did not stay stopped\n{state}"
        );
        Ok(())
    })
}

/// A process whose control group is frozen (`docker pause`) would stop where it is asked to, and then freeze in the middle
/// of what it is to do. An ordinary user can freeze nobody, unless a group of his own was given to him.
#[test]
fn frozen_process() -> Result<()> {
    unharmed("frozen", |_, _, patch, pid| {
        let group = match Group::new(&format!("invivo-frozen-{pid}")) {
            Err(_) if !am_root()? => return Ok(()),
            group => group?,
        };
        group.take(pid)?;
        group.freeze(true)?;
        wait_for("it freezes", || group.is_frozen())?;
        let ran = apply(patch, pid, &["--timeout", "2"]);
        group.freeze(false)?;
        ran?.expect_failure(3, &["is frozen with its control group", "thaw it"])?;
        Ok(())
    })
}

/// Where `/proc` shows another PID namespace, one process's memory would be read there and another one stopped.
#[test]
fn numbers_of_another_namespace() -> Result<()> {
    unharmed("numbers", |_, _, patch, pid| {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command.arg(binary::invivo()?);
        command.args([
            "apply",
            &patch.display().to_string(),
            "-p",
            &pid.to_string(),
        ]);
        invivo_through(command)?.expect_failure(1, &["another PID namespace", "mount -t proc"])?;
        Ok(())
    })
}

/// Its parent has not asked for its end yet: the number is taken, and nobody is there.
#[test]
fn zombie() -> Result<()> {
    unharmed("zombie", |_, _, patch, _| {
        let mut child = Command::new("true").spawn()?;
        let state = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&state)?.contains(") Z ") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let ran = apply(patch, child.id(), &[])?;
        child.wait()?;
        ran.expect_failure(1, &[&child.id().to_string(), "zombie"])?;
        Ok(())
    })
}

/// It has no memory of its own to patch.
#[test]
fn thread_of_the_kernel() -> Result<()> {
    unharmed("kernel-thread", |_, _, patch, _| {
        let is_one = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("\nPPid:\t2\n") || status.starts_with("Name:\tkthreadd\n")
        };
        let found = (2..1000).find(is_one);
        let pid = found.context(
            "no thread of the kernel can be seen: these tests do not run in a container",
        )?;
        apply(patch, pid, &[])?.expect_failure(1, &["thread of the kernel", &pid.to_string()])?;
        Ok(())
    })
}

/// Another instruction set as far as patches are concerned.
#[test]
fn process_of_32_bits() -> Result<()> {
    unharmed("narrow", |dir, _, patch, _| {
        let (object, program) = (dir.join("narrow.o"), dir.join("narrow"));
        let mut assemble = Command::new("as");
        assemble
            .arg("--32")
            .arg("../programs/narrow.s")
            .arg("-o")
            .arg(&object);
        tool(assemble)?;
        let mut link = Command::new("ld");
        link.args(["-m", "elf_i386"])
            .arg(&object)
            .arg("-o")
            .arg(&program);
        tool(link)?;
        let target = Target::start(&program, &[] as &[&str])?;
        apply(patch, target.pid(), &[])?
            .expect_failure(1, &["32-bit", &target.pid().to_string()])?;
        Ok(())
    })
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()?;
    ensure!(status.success(), "cannot send SIG{name} to {pid}");
    Ok(())
}
