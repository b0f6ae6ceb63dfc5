//! Which stack is a thread's own.

use procfs::process::{MMPermissions, MMapPath, MemoryMap};

/// True if what stands at `at` lies below what a thread has on its own stack: an earlier call has
/// left it there.
pub(crate) fn is_left_over(maps: &[MemoryMap], live: &[Live], at: u64) -> bool {
    /// What a function may use below its stack pointer.
    const RED_ZONE: u64 = 128;
    live.iter().any(|thread| {
        let below = at < thread.rsp.saturating_sub(RED_ZONE);
        below && own_stack(maps, thread, thread.rsp).is_some_and(|map| is_inside(map, at))
    })
}

/// What tells which stack is a thread's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// Which thread.
    pub(crate) tid: i32,
    /// It is the first one of its process.
    pub(crate) main: bool,
    /// Its stack pointer.
    pub(crate) rsp: u64,
    /// What belongs to the thread lies from here on, at the upper end of its stack.
    pub(crate) fs_base: u64,
    /// The stack pointer in its outermost frame.
    pub(crate) end: u64,
}

/// True if a thread's outermost frame is on the thread's own stack.
pub(crate) fn is_own_stack(maps: &[MemoryMap], thread: &Live) -> bool {
    /// What lies between the outermost frame and what `fs_base` points to: variables of the thread.
    const MOST: u64 = 1 << 20;
    // The outermost frame may have nothing on it.
    let found = own_stack(maps, thread, thread.end.saturating_sub(1));
    found.is_some() && (thread.main || thread.fs_base.saturating_sub(thread.end) <= MOST)
}

/// The mapping with a thread's own stack, if `at` is on it: the main one; or one with memory that
/// nobody can use right below, and with what belongs to the thread above `at`. The kernel joins
/// neighbours, so that the stack of a coroutine may lie in one mapping with either.
fn own_stack<'m>(maps: &'m [MemoryMap], thread: &Live, at: u64) -> Option<&'m MemoryMap> {
    let (map, guarded) = stack_at(maps, at)?;
    if thread.main {
        return matches!(map.pathname, MMapPath::Stack).then_some(map);
    }
    (guarded && at < thread.fs_base && is_inside(map, thread.fs_base)).then_some(map)
}

/// The mapping that `at` is in, and whether nobody can use the memory right below it.
pub(crate) fn stack_at(maps: &[MemoryMap], at: u64) -> Option<(&MemoryMap, bool)> {
    let index = maps.partition_point(|map| map.address.1 <= at);
    let map = maps.get(index).filter(|map| is_inside(map, at))?;
    let below = index.checked_sub(1).and_then(|below| maps.get(below));
    let open = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::EXECUTE;
    let guarded = below
        .is_some_and(|below| below.address.1 == map.address.0 && !below.perms.intersects(open));
    Some((map, guarded))
}

fn is_inside(map: &MemoryMap, at: u64) -> bool {
    (map.address.0..map.address.1).contains(&at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_stacks() {
        let map = |start: u64, end: u64, open: bool, pathname| MemoryMap {
            address: (start, end),
            perms: if open {
                MMPermissions::READ | MMPermissions::WRITE
            } else {
                MMPermissions::empty()
            },
            offset: 0,
            dev: (0, 0),
            inode: 0,
            pathname,
            extension: Default::default(),
        };
        let maps = [
            map(0x1000, 0x9000, true, MMapPath::Heap),
            map(0x1_0000, 0x1_1000, false, MMapPath::Anonymous),
            map(0x1_1000, 0x2_0000, true, MMapPath::Anonymous),
            map(0x3_0000, 0x4_0000, true, MMapPath::Stack),
        ];
        let thread = |main: bool, rsp: u64, fs_base: u64| Live {
            tid: 1,
            main,
            rsp,
            fs_base,
            end: 0,
        };
        let is_own = |thread: &Live, end: u64| is_own_stack(&maps, &Live { end, ..*thread });
        let main = thread(true, 0x3_8000, 0x8000);
        assert!(is_own(&main, 0x3_f000));
        // The stack of a coroutine in one mapping with what belongs to the thread.
        assert!(!is_own(&main, 0x7000));
        let other = thread(false, 0x1_8000, 0x1_f000);
        assert!(is_own(&other, 0x1_e000));
        assert!(!is_own(&other, 0x1_f800) && !is_own(&other, 0x3_f000));
        assert!(
            !is_own(&thread(false, 0x7000, 0x8000), 0x7800),
            "no guard below"
        );
        // Only what lies below on such a stack was left over by an earlier call.
        assert!(is_left_over(&maps, &[other], 0x1_2000) && is_left_over(&maps, &[main], 0x3_1000));
        assert!(!is_left_over(&maps, &[other], 0x1_8000) && !is_left_over(&maps, &[other], 0x2000));
        assert!(!is_left_over(
            &maps,
            &[thread(true, 0x8000, 0x8800)],
            0x2000
        ));
    }
}
