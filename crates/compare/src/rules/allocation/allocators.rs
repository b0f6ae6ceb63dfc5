//! Which functions allocate, and how much they are asked for.

use std::collections::HashMap;

use invivo_image::{DebugData, EntityId, Image, LinkAddr, demangle};

use super::calls::{BEHIND, Call, Value, calls};
use super::results::{Fate, Whole};
use super::rooms::Room;
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
pub(super) const SMALLEST: u64 = 16;
/// The longest text of which a copy is known as one.
const LONGEST: u64 = 4096;
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
        let mut returns = None;
        let whole = Whole::of(self.image, parts);
        for part in parts.ids() {
            for call in calls(self.image, part, Some(&whole)) {
                let is_dropped = match call.result {
                    Fate::Dropped => true,
                    Fate::Kept => false,
                    Fate::Returned => {
                        !*returns.get_or_insert_with(|| self.may_return_address(parts.main))
                    }
                };
                if let Some(asked) = self.asked(&call).filter(|_| !is_dropped) {
                    found.entry(demangle(&call.name)).or_default().push(asked);
                }
            }
        }
        found
    }

    /// What one call asks for, if it allocates.
    fn asked(&mut self, call: &Call<'_>) -> Option<Asked> {
        let (arguments, guessed) = self.size_arguments(call, DEEPEST);
        let constant = |arguments: &[usize]| -> Sizes {
            let sizes = arguments.iter().filter_map(|index| {
                let value = call.arguments.get(*index)?;
                match value {
                    Some(Value::Constant(size)) => Some((*index, *size)),
                    _ => None,
                }
            });
            sizes.collect()
        };
        let sizes = constant(&arguments);
        // Behind a pointer, numbers that are so small are states and levels.
        let is_small = sizes.iter().all(|(_, size)| *size < SMALLEST);
        if sizes.is_empty() || call.name == BEHIND && is_small {
            return None;
        }
        let handed_on = call.callee.filter(|_| guessed && call.name != BEHIND);
        let handed_on = handed_on.map(|callee| self.handed_on(callee, DEEPEST));
        let handed_on = handed_on.filter(|(sizes, guessed)| !sizes.is_empty() && !guessed);
        let handed_on = handed_on.map(|(indexes, _)| (constant(&indexes), indexes));
        let whole = sizes.len() == arguments.len();
        let room = match (call.name == BEHIND, guessed) {
            (true, _) => None,
            (false, true) => Room::guessed(self.without_lines(call, &sizes), handed_on),
            (false, false) => Some(Room::known(sizes.clone(), whole)),
        };
        Some(Asked {
            text: self.text(call, &sizes),
            sizes,
            guessed,
            room,
            at: call.at,
        })
    }

    /// Sizes without numbers that stand behind a text: `CRYPTO_malloc(size, __FILE__, __LINE__)`.
    fn without_lines(&self, call: &Call<'_>, sizes: &Sizes) -> Sizes {
        let is_behind_text = |index: usize| {
            let before = index.checked_sub(1).and_then(|at| call.arguments.get(at));
            matches!(before, Some(Some(Value::Address(at))) if self.image.is_constant_at(*at))
        };
        let sizes = sizes.iter().filter(|(index, _)| !is_behind_text(*index));
        sizes.copied().collect()
    }

    /// Which arguments of a call are sizes of what it allocates, and whether that is only guessed.
    fn size_arguments(&mut self, call: &Call<'_>, depth: u32) -> (Vec<usize>, bool) {
        if call.name == BEHIND {
            return (behind(call), true);
        }
        let mut names = call.first.iter().chain([&call.name]);
        if let Some((mut arguments, guessed)) = names.find_map(|name| by_name(name)) {
            if guessed {
                let most = self.parameters(call);
                arguments.retain(|index| *index < most);
            }
            return (arguments, guessed);
        }
        match call.callee.filter(|_| depth > 0) {
            Some(callee) => self.handed_on(callee, depth),
            None => (Vec::new(), false),
        }
    }

    /// Which arguments of a function it hands on to allocators as sizes, and whether that is only
    /// guessed.
    fn handed_on(&mut self, callee: EntityId, depth: u32) -> (Vec<usize>, bool) {
        if let Some(known) = self.wrappers.get(&callee) {
            return known.clone();
        }
        // A function that calls itself is no wrapper because of that call.
        self.wrappers.insert(callee, (Vec::new(), false));
        let (mut sizes, mut guessed) = (Vec::new(), false);
        // What any function hands on through some pointer is no size yet.
        let inner = calls(self.image, callee, None).into_iter();
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

    /// False if the debug data say that a function returns nothing, or a number.
    fn may_return_address(&self, function: EntityId) -> bool {
        let at = self.image.entity(function).addr;
        let told = self.debug.and_then(|debug| debug.function(at));
        let prototype = told.filter(|told| told.typed);
        prototype.is_none_or(|told| {
            let numbers = ["void (", "int (", "unsigned int (", "_Bool (", "bool ("];
            let text = told.prototype_text;
            let mut rest = numbers
                .iter()
                .filter_map(|number| text.strip_prefix(number));
            rest.all(|rest| rest.starts_with('*'))
        })
    }

    /// How much longer the sizes are than a constant text that is handed over, too: by its NUL, or by
    /// nothing.
    fn text(&self, call: &Call<'_>, sizes: &Sizes) -> Option<u64> {
        let mut all = sizes.iter().map(|(_, size)| self.longer(call, *size));
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }

    fn longer(&self, call: &Call<'_>, size: u64) -> Option<u64> {
        let longer = |at: LinkAddr| {
            let size = Some(size).filter(|size| *size <= LONGEST)?;
            let bytes = self.image.bytes(at, size.checked_add(1)?)?;
            let length = bytes.iter().position(|byte| *byte == 0)?;
            let rest = size.checked_sub(u64::try_from(length).ok()?)?;
            Some(rest).filter(|rest| *rest <= 1)
        };
        call.arguments
            .iter()
            .flatten()
            .find_map(|value| match value {
                Value::Address(at) if self.image.is_constant_at(*at) => longer(*at),
                _ => None,
            })
    }
}

/// Which arguments of what is behind a pointer are sizes: `allocate(size)`, `allocate(own, size)`,
/// `allocate(own, count, size)`. What is handed beside other data may be much else: a number that
/// most structures cannot have as their size is taken for none.
fn behind(call: &Call<'_>) -> Vec<usize> {
    let number = |index: usize| match call.arguments.get(index) {
        Some(Some(Value::Constant(number))) => Some(*number),
        _ => None,
    };
    match [0, 1, 2].map(number) {
        [Some(size), _, _] if size >= SMALLEST => vec![0],
        [_, Some(_), Some(_)] => vec![1, 2],
        [_, Some(size), None] if size.is_multiple_of(4) => vec![1],
        _ => Vec::new(),
    }
}

/// Which arguments of a function with this name are sizes, and whether that is only guessed.
pub(super) fn by_name(name: &str) -> Option<(Vec<usize>, bool)> {
    if let Some((_, sizes)) = ALLOCATORS.iter().find(|(known, _)| *known == name) {
        return Some((sizes.to_vec(), false));
    }
    // Programs have their own: `zmalloc`, `ngx_palloc`, `xcalloc`. Which argument is
    // the size they do not say.
    let is_mangled = name.starts_with("_Z") || name.starts_with("_R");
    let allocates = !is_mangled && name.contains("alloc") && !name.contains("dealloc");
    allocates.then(|| (vec![0, 1, 2], true))
}
