//! The argument of the livepatch calls, `struct xen_sysctl`, written and read field by field.
//!
//! Nothing of it is cast: each field has an offset, and is little-endian.

use crate::Name;
use crate::hypercall::Buffer;

/// `__HYPERVISOR_sysctl`
pub const HYPERVISOR_SYSCTL: u64 = 35;
/// `__HYPERVISOR_xen_version`
pub const HYPERVISOR_XEN_VERSION: u64 = 17;
/// `XENVER_version`: major << 16 | minor.
pub const XENVER_VERSION: u32 = 0;
/// `XENVER_extraversion`: 16 bytes of text.
pub const XENVER_EXTRAVERSION: u32 = 1;
/// `XENVER_build_id`: { u32 length; bytes }.
pub const XENVER_BUILD_ID: u32 = 10;

/// The interface versions that are known, the newest first: Xen 4.21 to 4.23, 4.17 to 4.20,
/// 4.16, 4.14 and 4.15. Older ones take payloads and lists of another form.
pub const INTERFACES: [u32; 4] = [0x16, 0x15, 0x14, 0x13];

/// The largest payload (`LIVEPATCH_MAX_SIZE`), in bytes.
pub const LARGEST_PAYLOAD: usize = 2 << 20;
/// The most entries that one call of LIST may ask for; more is `E2BIG`.
pub const MOST_LISTED: u32 = 1024;

/// `XEN_SYSCTL_livepatch_op`
const LIVEPATCH_OP: u32 = 27;
/// `sizeof(struct xen_sysctl)`: two words, and a union of 128 bytes.
pub const SIZE: usize = 136;

const OP: usize = 8;
const OP_FLAGS: usize = 12;
/// The union of the four operations.
const NAME: usize = 16;
const NAME_SIZE: usize = 24;
const UPLOAD_SIZE: usize = 32;
const UPLOAD_PAYLOAD: usize = 40;
const GET_STATE: usize = 32;
const GET_RC: usize = 36;
const LIST_VERSION: usize = 16;
const LIST_INDEX: usize = 20;
const LIST_NUMBER: usize = 24;
const LIST_NAMES_SIZE: usize = 32;
const LIST_METADATA_SIZE: usize = 36;
const LIST_STATUS: usize = 40;
const LIST_NAMES: usize = 48;
const LIST_NAME_LENGTHS: usize = 56;
const LIST_METADATA: usize = 64;
const LIST_METADATA_LENGTHS: usize = 72;
const ACTION: usize = 32;
const ACTION_TIMEOUT: usize = 36;
const ACTION_FLAGS: usize = 40;

const UPLOAD_OP: u32 = 0;
const GET_OP: u32 = 1;
const LIST_OP: u32 = 2;
const ACTION_OP: u32 = 3;

/// `LIVEPATCH_ACTION_APPLY_NODEPS`
const NODEPS: u32 = 1;

/// What can be done to a payload that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Forget it.
    Unload = 1,
    /// Take it back.
    Revert = 2,
    /// Make it live.
    Apply = 3,
    /// Take everything back that is live, and make it live, at one moment.
    Replace = 4,
}

/// Where a payload is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Loaded, not live.
    Checked,
    /// Live.
    Applied,
    /// A number that Xen's headers do not have.
    Unknown(u32),
}

impl State {
    /// The state of a number of the interface.
    #[must_use]
    pub fn from_number(number: u32) -> State {
        match number {
            1 => State::Checked,
            2 => State::Applied,
            other => State::Unknown(other),
        }
    }

    /// The number of the interface.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            State::Checked => 1,
            State::Applied => 2,
            State::Unknown(number) => number,
        }
    }
}

/// State and last result of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// Zero; or the negative error number of the last action; `-EAGAIN` while one goes on.
    pub result: i32,
}

/// What LIST says beside its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListHeader {
    /// Changes when a payload is uploaded or unloaded.
    pub version: u32,
    /// How many payloads follow those that were given.
    pub remaining: u32,
    /// Bytes of the names: of those that were given, or of all if none was asked for.
    pub names: u32,
    /// The same for metadata.
    pub metadata: u32,
}

/// Room for what LIST gives.
#[derive(Debug)]
pub struct ListRoom<'a> {
    /// 8 bytes for each: state, result.
    pub status: &'a mut [u8],
    /// Names, each with its NUL, one behind the other.
    pub names: &'a mut [u8],
    /// 4 bytes for each: the length of its name with the NUL.
    pub name_lengths: &'a mut [u8],
    /// Metadata, one behind the other.
    pub metadata: &'a mut [u8],
    /// 4 bytes for each: the length of its metadata.
    pub metadata_lengths: &'a mut [u8],
}

/// The argument of one call. It is aligned as the hypervisor's own structure is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Block([u8; SIZE]);

impl Block {
    fn new(interface: u32, operation: u32) -> Block {
        let mut block = Block([0; SIZE]);
        block.put_u32(0, LIVEPATCH_OP);
        block.put_u32(4, interface);
        block.put_u32(OP, operation);
        block
    }

    /// A payload's upload; the name is given with its NUL.
    pub(crate) fn upload<'a>(
        interface: u32,
        name: &'a [u8],
        payload: &'a [u8],
    ) -> (Block, [Buffer<'a>; 2]) {
        let mut block = Block::new(interface, UPLOAD_OP);
        let name = block.name(name);
        block.put_u64(UPLOAD_SIZE, payload.len() as u64);
        let payload = Buffer::In {
            handle: UPLOAD_PAYLOAD,
            bytes: payload,
        };
        (block, [name, payload])
    }

    /// The question for a payload's status.
    pub(crate) fn get(interface: u32, name: &[u8]) -> (Block, [Buffer<'_>; 1]) {
        let mut block = Block::new(interface, GET_OP);
        let name = block.name(name);
        (block, [name])
    }

    /// An action; `timeout` is in nanoseconds, 0 for Xen's own (30 ms).
    pub(crate) fn action(
        interface: u32,
        name: &[u8],
        action: Action,
        timeout: u32,
        nodeps: bool,
    ) -> (Block, [Buffer<'_>; 1]) {
        let mut block = Block::new(interface, ACTION_OP);
        let name = block.name(name);
        block.put_u32(ACTION, action as u32);
        block.put_u32(ACTION_TIMEOUT, timeout);
        block.put_u32(ACTION_FLAGS, if nodeps { NODEPS } else { 0 });
        (block, [name])
    }

    /// The question how many payloads there are, and how much room their names take.
    pub(crate) fn count(interface: u32) -> Block {
        Block::new(interface, LIST_OP)
    }

    /// The question for `number` payloads from the one with number `index` on.
    pub(crate) fn list(
        interface: u32,
        index: u32,
        number: u32,
        room: ListRoom<'_>,
    ) -> (Block, [Buffer<'_>; 5]) {
        let mut block = Block::new(interface, LIST_OP);
        block.put_u32(LIST_INDEX, index);
        block.put_u32(LIST_NUMBER, number);
        // How much room there is was told to Xen first with interface 0x16; before, both fields
        // were of the answer only.
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        block.put_u32(LIST_NAMES_SIZE, size(room.names));
        block.put_u32(LIST_METADATA_SIZE, size(room.metadata));
        let out = |handle, bytes| Buffer::Out { handle, bytes };
        let buffers = [
            out(LIST_STATUS, room.status),
            out(LIST_NAMES, room.names),
            out(LIST_NAME_LENGTHS, room.name_lengths),
            out(LIST_METADATA, room.metadata),
            out(LIST_METADATA_LENGTHS, room.metadata_lengths),
        ];
        (block, buffers)
    }

    /// The answer of GET.
    pub(crate) fn status(&self) -> Status {
        Status {
            state: State::from_number(self.u32_at(GET_STATE)),
            result: self.u32_at(GET_RC).cast_signed(),
        }
    }

    /// The answer of LIST.
    pub(crate) fn list_header(&self) -> ListHeader {
        ListHeader {
            version: self.u32_at(LIST_VERSION),
            remaining: self.u32_at(LIST_NUMBER),
            names: self.u32_at(LIST_NAMES_SIZE),
            metadata: self.u32_at(LIST_METADATA_SIZE),
        }
    }

    fn name<'a>(&mut self, name: &'a [u8]) -> Buffer<'a> {
        let size = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.0[NAME_SIZE..NAME_SIZE + 2].copy_from_slice(&size.to_le_bytes());
        Buffer::In {
            handle: NAME,
            bytes: name,
        }
    }

    /// The same call with other flags of the operation: a pad before Xen 4.19, whose only bit is
    /// FORCE since. It is for tests; nothing else has a use for it.
    #[must_use]
    pub fn with_flags(mut self, flags: u32) -> Block {
        self.put_u32(OP_FLAGS, flags);
        self
    }

    /// Any bytes as the argument, for tests that ask what Xen says to nonsense.
    #[must_use]
    pub fn raw(bytes: [u8; SIZE]) -> Block {
        Block(bytes)
    }

    /// Writes the address of a buffer. What is outside of the argument is left out.
    pub fn put_u64(&mut self, at: usize, value: u64) {
        if let Some(field) = self.0.get_mut(at..at.saturating_add(8)) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn u32_at(&self, at: usize) -> u32 {
        word(&self.0, at / 4).unwrap_or_default()
    }

    /// The bytes, as the hypervisor gets and changes them.
    pub fn bytes_mut(&mut self) -> &mut [u8; SIZE] {
        &mut self.0
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.0
    }
}

/// The `index`th 32-bit word of an array.
pub(crate) fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let from = index.checked_mul(4)?;
    let bytes = bytes.get(from..from.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// A name as the interface wants it: with its NUL.
pub(crate) fn terminated(name: &Name) -> alloc::vec::Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes
}
