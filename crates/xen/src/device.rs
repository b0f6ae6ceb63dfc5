//! The privileged-command device of a Linux dom0, `/dev/xen/privcmd`.
//!
//! Layouts and numbers are those of Linux's `include/uapi/xen/privcmd.h`.

mod region;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::block::{Block, HYPERVISOR_SYSCTL, HYPERVISOR_XEN_VERSION};
use crate::{Buffer, Errno, Hypercall};
use region::Region;

/// Where the device is; older kernels had it in a file system of its own.
const DEVICES: [&str; 2] = ["/dev/xen/privcmd", "/proc/xen/privcmd"];
/// Gives memory that a hypercall may refer to at any time (Linux 4.18).
const BUFFERS: &str = "/dev/xen/hypercall";
/// What this machine's hypervisor is called, if it has one that says so.
const HYPERVISOR: &str = "/sys/hypervisor/type";

/// `IOCTL_PRIVCMD_HYPERCALL`: no direction, 48 bytes, group `P`, number 0.
const IOCTL_HYPERCALL: libc::Ioctl = 48 << 16 | 0x50 << 8;

/// `struct privcmd_hypercall`
#[repr(C)]
struct Call {
    number: u64,
    arguments: [u64; 5],
}

/// Why the device cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no Xen below this system.
    #[error("this system does not run on Xen")]
    NotXen,
    /// It runs on Xen, and its kernel has no such device.
    #[error("this system runs on Xen, and has no device to reach it (/dev/xen/privcmd)")]
    NoDevice,
    /// The device is not for this user.
    #[error("{0} may not be opened")]
    NotPermitted(&'static str),
    /// Another error of the system.
    #[error("{path}: {error}")]
    System {
        /// What was opened.
        path: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// The device, and the memory that calls refer to.
#[derive(Debug)]
pub struct Device {
    commands: File,
    buffers: Option<File>,
    begun: Instant,
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// Why it cannot be had.
    pub fn open() -> Result<Device, DeviceError> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        for path in DEVICES {
            match open(path) {
                Ok(commands) => {
                    let (buffers, begun) = (open(BUFFERS).ok(), Instant::now());
                    return Ok(Device {
                        commands,
                        buffers,
                        begun,
                    });
                }
                Err(error) => match error.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory => {}
                    ErrorKind::PermissionDenied => return Err(DeviceError::NotPermitted(path)),
                    _ if error.raw_os_error() == Some(libc::ENXIO) => {}
                    _ => return Err(DeviceError::System { path, error }),
                },
            }
        }
        let named = std::fs::read_to_string(HYPERVISOR).unwrap_or_default();
        if named.trim() == "xen" || Path::new("/proc/xen").join("capabilities").exists() {
            return Err(DeviceError::NoDevice);
        }
        Err(DeviceError::NotXen)
    }

    /// Memory with these bytes, and room for no more than them.
    fn region(&self, bytes: &[u8]) -> io::Result<Region> {
        let mut region = Region::new(bytes.len(), self.buffers.as_ref())?;
        region.bytes_mut().copy_from_slice(bytes);
        Ok(region)
    }

    /// Issues a call; what the kernel itself says comes as a negative error number too.
    fn call(&self, number: u64, arguments: [u64; 2]) -> i64 {
        let [first, second] = arguments;
        let mut call = Call {
            number,
            arguments: [first, second, 0, 0, 0],
        };
        // SAFETY: the kernel reads the structure, which lives for as long as the call. Every
        // address in it, or in what it leads to, is that of a `Region` that outlives the call and
        // that nothing else uses.
        let returned =
            unsafe { libc::ioctl(self.commands.as_raw_fd(), IOCTL_HYPERCALL, &raw mut call) };
        match returned {
            0.. => i64::from(returned),
            _ => -i64::from(
                io::Error::last_os_error()
                    .raw_os_error()
                    .unwrap_or(libc::EIO),
            ),
        }
    }

    fn try_sysctl(&self, block: &mut Block, buffers: &mut [Buffer<'_>]) -> io::Result<i64> {
        let mut regions = Vec::with_capacity(buffers.len());
        for buffer in &*buffers {
            let (handle, region) = match buffer {
                Buffer::In { handle, bytes } => (*handle, self.region(bytes)?),
                Buffer::Out { handle, bytes } => (*handle, self.region(bytes)?),
            };
            block.put_u64(handle, region.address());
            regions.push(region);
        }
        let mut argument = self.region(block.bytes())?;
        let returned = self.call(HYPERVISOR_SYSCTL, [argument.address(), 0]);
        block.bytes_mut().copy_from_slice(argument.bytes_mut());
        for (buffer, region) in buffers.iter_mut().zip(&mut regions) {
            if let Buffer::Out { bytes, .. } = buffer {
                bytes.copy_from_slice(region.bytes_mut());
            }
        }
        Ok(returned)
    }

    fn try_version(&self, what: u32, answer: Option<&mut [u8]>) -> io::Result<i64> {
        let Some(answer) = answer else {
            return Ok(self.call(HYPERVISOR_XEN_VERSION, [u64::from(what), 0]));
        };
        let mut region = self.region(answer)?;
        let returned = self.call(HYPERVISOR_XEN_VERSION, [u64::from(what), region.address()]);
        answer.copy_from_slice(region.bytes_mut());
        Ok(returned)
    }
}

impl Hypercall for Device {
    fn sysctl(&mut self, block: &mut Block, buffers: &mut [Buffer<'_>]) -> i64 {
        returned(self.try_sysctl(block, buffers))
    }

    fn version(&mut self, what: u32, answer: Option<&mut [u8]>) -> i64 {
        returned(self.try_version(what, answer))
    }

    fn now(&mut self) -> Duration {
        self.begun.elapsed()
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Memory that cannot be had is told as the hypervisor tells it.
fn returned(result: io::Result<i64>) -> i64 {
    let number = |error: io::Error| error.raw_os_error().unwrap_or(Errno::ENOMEM.0);
    result.unwrap_or_else(|error| -i64::from(number(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No machine that runs tests is a dom0; the lists of the system say what it is instead.
    #[test]
    fn elsewhere_the_reason_is_told() {
        let error = Device::open().expect_err("the tests do not run on Xen");
        assert!(matches!(error, DeviceError::NotXen), "{error}");
    }

    #[test]
    fn the_number_is_that_of_the_header() {
        assert_eq!(IOCTL_HYPERCALL, 0x0030_5000);
        assert_eq!(size_of::<Call>(), 48);
    }
}
