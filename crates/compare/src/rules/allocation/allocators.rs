//! Which functions allocate, and how much they are asked for.

use std::collections::HashMap;

use invivo_image::{DebugData, EntityId, Image, LinkAddr, demangle};

use super::calls::{BEHIND, Call, Value, calls};
use super::{Asked, ByAllocator, Sizes};
use crate::Parts;

/// Allocators, and which of their arguments are sizes.
const ALLOCATORS: &[(&str, &[usize])] = &[
    ("malloc", &[0]),
    ("calloc", &[0, 1]),
    ("realloc", &[1]),
    ("reallocarray", &[1, 2]),
    ("aligned_alloc", &[1]),
    ("memalign", &[1]),
    ("posix_memalign", &[2]),
    ("valloc", &[0]),
    ("pvalloc", &[0]),
    ("mmap", &[1]),
    ("mmap64", &[1]),
    ("mremap", &[2]),
    // operator new and operator new[], plain, nothrow, aligned.
    ("_Znwm", &[0]),
    ("_Znam", &[0]),
    ("_ZnwmRKSt9nothrow_t", &[0]),
    ("_ZnamRKSt9nothrow_t", &[0]),
    ("_ZnwmSt11align_val_t", &[0]),
    ("_ZnamSt11align_val_t", &[0]),
    ("__rust_alloc", &[0]),
    ("__rust_alloc_zeroed", &[0]),
    ("__rust_realloc", &[3]),
];

/// The smallest size that anything is allocated with through a pointer that nobody knows.
const SMALLEST: u64 = 16;
/// How far a wrapper of a wrapper of an allocator is followed.
const DEEPEST: u32 = 4;

/// Which functions of an image allocate.
pub(super) struct Allocators<'a, 'd, 's> {
    image: &'a Image,
    debug: Option<&'d DebugData<'s>>,
    /// Arguments of wrappers that are sizes, and whether that is only guessed; none for other
    /// functions.
    wrappers: HashMap<EntityId, (Vec<usize>, bool)>,
}

impl<'a, 'd, 's> Allocators<'a, 'd, 's> {
    pub(super) fn of(image: &'a Image, debug: Option<&'d DebugData<'s>>) -> Self {
        Allocators {
            image,
            debug,
            wrappers: HashMap::new(),
        }
    }

    /// The constant sizes that a function asks for, by allocator.
    pub(super) fn sizes(&mut self, parts: &Parts) -> ByAllocator {
        let mut found = ByAllocator::new();
        for call in parts.ids().flat_map(|part| calls(self.image, part)) {
            let (arguments, guessed) = self.size_arguments(&call, DEEPEST);
            let sizes = arguments.into_iter();
            let sizes: Sizes = sizes
                .filter_map(|index| match call.arguments.get(index)? {
                    Some(Value::Constant(size)) => Some((index, *size)),
                    _ => None,
                })
                // Behind a pointer, numbers that are so small are states and levels.
                .filter(|(_, size)| call.name != BEHIND || *size >= SMALLEST)
                .collect();
            if !sizes.is_empty() {
                let asked = Asked {
                    is_text: sizes.iter().all(|(_, size)| self.has_text(&call, *size)),
                    sizes,
                    guessed,
                    at: call.at,
                };
                found.entry(demangle(&call.name)).or_default().push(asked);
            }
        }
        found
    }

    /// Which arguments of a call are sizes of what it allocates, and whether that is only guessed.
    fn size_arguments(&mut self, call: &Call<'_>, depth: u32) -> (Vec<usize>, bool) {
        let mut names = call.first.iter().chain([&call.name]);
        if let Some((mut arguments, guessed)) = names.find_map(|name| by_name(name)) {
            if guessed {
                let most = self.parameters(call);
                arguments.retain(|index| *index < most);
            }
            return (arguments, guessed);
        }
        let Some(callee) = call.callee.filter(|_| depth > 0) else {
            return (Vec::new(), false);
        };
        if let Some(known) = self.wrappers.get(&callee) {
            return known.clone();
        }
        // A function that calls itself is no wrapper because of that call.
        self.wrappers.insert(callee, (Vec::new(), false));
        let (mut sizes, mut guessed) = (Vec::new(), false);
        // What any function hands on through some pointer is no size yet.
        let inner = calls(self.image, callee).into_iter();
        for inner in inner.filter(|inner| inner.name != BEHIND) {
            let (arguments, is_guess) = self.size_arguments(&inner, depth - 1);
            for index in arguments {
                if let Some(Some(Value::Argument(own))) = inner.arguments.get(index) {
                    sizes.push(*own);
                    guessed |= is_guess;
                }
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        self.wrappers.insert(callee, (sizes.clone(), guessed));
        (sizes, guessed)
    }

    /// How many parameters a function has at most, as far as it is told: what else is in their
    /// registers was left there.
    fn parameters(&self, call: &Call<'_>) -> usize {
        let at = call.callee.map(|callee| self.image.entity(callee).addr);
        let told = at.and_then(|at| self.debug?.function(at)?.registers);
        told.and_then(|count| usize::try_from(count).ok())
            .unwrap_or(usize::MAX)
    }

    /// True if a call is handed a constant text that is as long, with its NUL or without.
    fn has_text(&self, call: &Call<'_>, size: u64) -> bool {
        let is_as_long = |at: LinkAddr| {
            let bytes = self.image.bytes(at, size.checked_add(1)?)?;
            let length = bytes.iter().position(|byte| *byte == 0)?;
            let length = u64::try_from(length).ok()?;
            Some(length == size || length.checked_add(1) == Some(size))
        };
        call.arguments.iter().flatten().any(|value| match value {
            Value::Address(at) => self.image.is_constant_at(*at) && is_as_long(*at) == Some(true),
            _ => false,
        })
    }
}

/// Which arguments of a function with this name are sizes, and whether that is only guessed.
fn by_name(name: &str) -> Option<(Vec<usize>, bool)> {
    // Of others than allocators the first argument is an address, mostly.
    if name == BEHIND {
        return Some((vec![0], true));
    }
    if let Some((_, sizes)) = ALLOCATORS.iter().find(|(known, _)| *known == name) {
        return Some((sizes.to_vec(), false));
    }
    // Programs have their own: `zmalloc`, `ngx_palloc`, `xcalloc`. Which argument is
    // the size they do not say.
    let is_mangled = name.starts_with("_Z") || name.starts_with("_R");
    let allocates = !is_mangled && name.contains("alloc") && !name.contains("dealloc");
    allocates.then(|| (vec![0, 1, 2], true))
}
