//! Functions of two images that are worth a try: perhaps they are the same but for where they
//! are.
//!
//! Linkers put functions in the order in which they get them, so most of two builds stand in
//! the same order, and their sizes tell where one has something that the other has not. That
//! proves nothing and need not: see [`Scan::repeat`](crate::scan::Scan::repeat).

/// For each function of `one`, told by their sizes in order of address, the number of the
/// one of `other` that may be the same.
pub(crate) fn twins(one: &[u64], other: &[u64]) -> Vec<Option<usize>> {
    /// How far away the two lists go on with the same sizes, at most.
    const NEAR: usize = 64;
    /// So many of the same size are no chance.
    const ALIKE: usize = 4;
    /// Where it fails more often, the order is another one.
    const LOST: usize = 1000;
    let alike = |i: usize, j: usize| {
        let rest = |list: &[u64], at: usize| {
            let list = list.get(at..).unwrap_or_default();
            list.get(..ALIKE).unwrap_or(list).to_vec()
        };
        one.get(i) == other.get(j) && rest(one, i) == rest(other, j)
    };
    let mut found = vec![None; one.len()];
    let (mut i, mut j, mut lost) = (0, 0, 0);
    while i < one.len() && j < other.len() && lost < LOST {
        if one[i] == other[j] {
            found[i] = Some(j);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let near = (1..=NEAR).flat_map(|way| (0..=way).map(move |x| (x, way - x)));
        let mut near = near.map(|(x, y)| (i + x, j + y));
        match near.find(|(i, j)| alike(*i, *j)) {
            Some(next) => (i, j) = next,
            None => (i, j, lost) = (i + 1, j + 1, lost + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::twins;

    #[test]
    fn what_one_list_has_more_is_passed_over() {
        let one: Vec<u64> = (0..100).map(|n| n * 37 % 101 * 16).collect();
        let same = twins(&one, &one);
        assert!((0..100).all(|n| same[n] == Some(n)));
        // One function more, and much later one fewer and one with another size.
        let mut other = one.clone();
        other.insert(10, 7);
        other.remove(61);
        other[80] = 9;
        let found = twins(&one, &other);
        assert_eq!(found[9], Some(9));
        assert_eq!(found[10], Some(11));
        assert_eq!(found[59], Some(60));
        assert_eq!(found[60], None);
        assert_eq!(found[61], Some(61));
        assert_eq!((found[80], found[81]), (None, Some(81)));
        assert_eq!(twins(&one, &[]), vec![None; 100]);
        assert_eq!(twins(&[], &one), vec![]);
        // Nothing in common, and it ends soon.
        let far: Vec<u64> = (0..5000).map(|n| 100_000 + n).collect();
        let near: Vec<u64> = (0..5000).collect();
        assert!(twins(&near, &far).iter().all(Option::is_none));
    }
}
