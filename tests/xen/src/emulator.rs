//! The emulator, and the console of what runs in it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result};

/// The longest line of a console that is kept whole.
const LONGEST_LINE: u64 = 16 << 10;

/// Debian's package `ovmf` has it.
const FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";
/// Where such firmware looks on a disk for what it boots.
pub(crate) const UEFI: &str = "disk/EFI/BOOT";

/// A machine without anything to boot.
fn machine(folder: &Path, processors: u32, memory: u32) -> Command {
    let mut machine = Command::new("qemu-system-x86_64");
    machine
        .current_dir(folder)
        // Kernels find fault with SMAP as it is emulated below Xen.
        .args(["-accel", "tcg", "-cpu", "max,-smap"])
        .args(["-m", &format!("{memory}M"), "-smp", &processors.to_string()])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    machine
}

/// The hypervisor's command line.
fn words(options: &str) -> String {
    format!("console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all {options}")
}

/// An emulator that runs, and ends when this is dropped.
pub(crate) struct Emulator {
    child: Child,
    /// What is on the console, line by line.
    pub(crate) lines: Receiver<String>,
}

impl Emulator {
    /// Boots the file `xen` of a folder with some files beside it: the kernel of the control
    /// domain with its command line, and its initial RAM disk. Memory is in megabytes.
    pub(crate) fn start(
        folder: &Path,
        processors: u32,
        memory: u32,
        options: &str,
        files: &str,
    ) -> Result<Emulator> {
        let mut machine = machine(folder, processors, memory);
        machine.args(["-kernel", "xen", "-append", &words(options)]);
        Emulator::listen(machine.args(["-initrd", files]))
    }

    /// Boots what firmware of UEFI finds on a disk, which is the folder `disk` of this one: `xen.efi`,
    /// and by its settings the kernel `dom0` with the RAM disk `script`.
    pub(crate) fn start_by_uefi(
        folder: &Path,
        processors: u32,
        memory: u32,
        options: &str,
    ) -> Result<Emulator> {
        let settings = format!(
            "[global]\ndefault=test\n[test]\noptions={}\nkernel=dom0\nramdisk=script\n",
            words(options)
        );
        std::fs::write(folder.join(UEFI).join("BOOTX64.CFG"), settings)?;
        let mut machine = machine(folder, processors, memory);
        machine.args(["-bios", FIRMWARE]);
        Emulator::listen(machine.args(["-drive", "format=raw,file=fat:rw:disk"]))
    }

    fn listen(machine: &mut Command) -> Result<Emulator> {
        let mut child = machine
            .spawn()
            .context("cannot start qemu-system-x86_64; install it with: cargo xtask install")?;
        let console = child.stdout.take();
        let (send, lines) = channel();
        // From here on it is ended whatever happens.
        let emulator = Emulator { child, lines };
        let console = console.context("the emulator has no console")?;
        std::thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            let mut next = |line: &mut Vec<u8>| {
                let mut part = (&mut console).take(LONGEST_LINE);
                matches!(part.read_until(b'\n', line), Ok(1..))
            };
            // It ends with the console, or when nobody listens any more.
            while next(&mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if send.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
