//! Lists by the number of an entity.

use invivo_image::EntityId;

/// A list for each entity, all of them one behind another: a large image has hundreds of
/// thousands.
#[derive(Debug)]
pub struct Lists<T> {
    /// Where the list of each entity begins in `items`, and where the last one ends.
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        let (starts, items) = (vec![0], Vec::new());
        Lists { starts, items }
    }
}

impl<T> Lists<T> {
    /// The lists of `entities` entities; `items` are in order of their numbers.
    pub(crate) fn new(entities: usize, items: impl Iterator<Item = (EntityId, T)>) -> Self {
        let mut lists = Lists {
            starts: Vec::with_capacity(entities + 1),
            items: Vec::with_capacity(items.size_hint().0),
        };
        for (id, item) in items {
            lists.begin(id.0 as usize + 1);
            lists.items.push(item);
        }
        lists.begin(entities + 1);
        lists
    }

    /// The lists of `entities` entities, each in order and with nothing in it twice. `items`, which
    /// are the same whenever they are asked for, come in any order.
    pub(crate) fn sorted<I>(entities: usize, items: impl Fn() -> I) -> Self
    where
        I: Iterator<Item = (EntityId, T)>,
        T: Ord + Copy,
    {
        // Where each list will end, and as it is filled from behind, where it begins.
        let mut starts = vec![0u32; entities + 1];
        let (mut all, mut any) = (0u32, None);
        for (id, item) in items() {
            starts[id.0 as usize] += 1;
            all = all.checked_add(1).expect("fewer than the bytes of a file");
            any = Some(item);
        }
        let Some(any) = any else {
            return Lists::new(entities, std::iter::empty());
        };
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let mut sorted = vec![any; all as usize];
        for (id, item) in items() {
            let start = &mut starts[id.0 as usize];
            *start -= 1;
            sorted[*start as usize] = item;
        }
        // What is in a list twice leaves room for those behind it.
        let mut kept = 0;
        for number in 0..entities {
            let range = starts[number] as usize..starts[number + 1] as usize;
            starts[number] = kept as u32;
            sorted[range.clone()].sort_unstable();
            let first = kept;
            for from in range {
                if kept == first || sorted[kept - 1] != sorted[from] {
                    sorted[kept] = sorted[from];
                    kept += 1;
                }
            }
        }
        starts[entities] = kept as u32;
        sorted.truncate(kept);
        sorted.shrink_to_fit();
        Lists {
            starts,
            items: sorted,
        }
    }

    /// Whatever comes now belongs to no entity before number `count - 1`.
    fn begin(&mut self, count: usize) {
        let end = u32::try_from(self.items.len()).expect("fewer than the bytes of a file");
        if self.starts.len() < count {
            self.starts.resize(count, end);
        }
    }

    /// The list of `id`, unless it is empty.
    #[must_use]
    pub fn get(&self, id: &EntityId) -> Option<&[T]> {
        let index = id.0 as usize;
        let range = *self.starts.get(index)? as usize..*self.starts.get(index + 1)? as usize;
        self.items.get(range).filter(|list| !list.is_empty())
    }

    /// True if the list of `id` is not empty.
    #[must_use]
    pub fn contains_key(&self, id: &EntityId) -> bool {
        self.get(id).is_some()
    }

    /// All lists that are not empty, in order.
    pub fn iter(&self) -> impl Iterator<Item = (EntityId, &[T])> {
        let ids = (0u32..).map(EntityId).take(self.starts.len());
        ids.filter_map(|id| Some((id, self.get(&id)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entity_has_its_own() {
        let items = [(EntityId(1), 'a'), (EntityId(1), 'b'), (EntityId(3), 'c')];
        let lists = Lists::new(5, items.into_iter());
        let found: Vec<_> = (0..6).map(|id| lists.get(&EntityId(id))).collect();
        let (one, three) = (&['a', 'b'][..], &['c'][..]);
        assert_eq!(found, [None, Some(one), None, Some(three), None, None]);
        assert_eq!(lists.iter().count(), 2);
        assert!(Lists::<u8>::default().get(&EntityId(0)).is_none());
    }

    #[test]
    fn they_are_put_in_order() {
        let items = [(3, 'c'), (1, 'b'), (3, 'c'), (0, 'z'), (1, 'a'), (1, 'b')];
        let items = || items.into_iter().map(|(id, item)| (EntityId(id), item));
        let mut plain: Vec<_> = items().collect();
        plain.sort_unstable();
        plain.dedup();
        for entities in [4, 7] {
            let lists = Lists::sorted(entities, items);
            let expected = Lists::new(entities, plain.iter().copied());
            assert_eq!(lists.starts, expected.starts);
            assert_eq!(lists.items, expected.items);
        }
        let none = Lists::<char>::sorted(2, std::iter::empty);
        assert_eq!(
            none.starts,
            Lists::<char>::new(2, std::iter::empty()).starts
        );
    }
}
