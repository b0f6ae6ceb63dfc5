//! The first process of a Linux that Xen starts: runs `invivo` as a script says, tells what it
//! said, and ends the machine.

use std::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn reboot(command: c_int) -> c_int;
}

const INIT_MODULE_OF_FILE: c_long = 313;
const RESTART: c_int = 0x0123_4567;
const NOBODY: u32 = 65534;

fn mounted(kind: &CStr, at: &CStr) {
    let _ = fs::create_dir_all(at.to_str().expect("an ASCII path"));
    // SAFETY: three texts that end with NUL, and no data.
    unsafe { mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
}

/// Loads the driver of the privileged-command device.
fn load() {
    let module = File::open("/xen-privcmd.ko").expect("the module is in the archive");
    // SAFETY: the file is open, and the parameters are an empty text.
    let loaded =
        unsafe { syscall(INIT_MODULE_OF_FILE, module.as_raw_fd(), c"".as_ptr(), 0 as c_int) };
    println!("@module {loaded}");
}

fn tell(kind: &str, text: &[u8]) {
    for line in String::from_utf8_lossy(text).lines() {
        println!("@{kind} {line}");
    }
}

fn main() {
    mounted(c"proc", c"/proc");
    mounted(c"sysfs", c"/sys");
    mounted(c"devtmpfs", c"/dev");
    for line in fs::read_to_string("/test/script").unwrap_or_default().lines() {
        println!("@run {line}");
        let mut command = Command::new("/bin/invivo");
        let line = match line.strip_prefix("user ") {
            Some(line) => {
                command.uid(NOBODY).gid(NOBODY);
                line
            }
            None => line,
        };
        // The first command shows what is said without the driver.
        let output = command.args(line.split(' ')).current_dir("/test").output();
        match output {
            Ok(output) => {
                tell("stdout", &output.stdout);
                tell("stderr", &output.stderr);
                println!("@code {}", output.status.code().unwrap_or(-1));
            }
            Err(error) => println!("@stderr cannot be run: {error}"),
        }
        if !fs::exists("/dev/xen/privcmd").unwrap_or(false) {
            load();
        }
    }
    println!("@end");
    // SAFETY: it takes a number.
    unsafe { reboot(RESTART) };
}
