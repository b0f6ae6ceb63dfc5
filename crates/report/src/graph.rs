//! Who of the reported functions calls whom, laid out from callers on the left to
//! those that are called on the right.

use std::collections::{BTreeMap, BTreeSet};

/// How one function refers to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tie {
    /// Calls it, or jumps to it at its end.
    Calls,
    /// Takes its address.
    Names,
}

/// More functions than this are no picture; those with the fewest ties are left out.
const MOST: usize = 120;
/// A column that is higher is broken into several.
const COLUMN: usize = 26;
const ROW: usize = 34;
const BOX: usize = 24;
const GAP: usize = 76;
const EDGE: usize = 12;
const LONGEST_LABEL: usize = 34;

/// A picture.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Graph {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
    /// Functions without a tie to another one.
    pub(crate) alone: usize,
    /// Functions that were left out because there are too many.
    pub(crate) cut: usize,
}

/// A function.
#[derive(Debug, PartialEq)]
pub(crate) struct Node {
    /// Its number in the report.
    pub(crate) function: usize,
    pub(crate) label: String,
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) width: usize,
}

/// A tie.
#[derive(Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) tie: Tie,
    /// SVG path data.
    pub(crate) path: String,
}

impl Graph {
    /// Draws the functions with these names; no tie leads to where it comes from.
    pub(crate) fn new(names: &[&str], ties: &BTreeMap<(usize, usize), Tie>) -> Graph {
        let mut degree: BTreeMap<usize, usize> = BTreeMap::new();
        for end in ties.keys().flat_map(|(from, to)| [*from, *to]) {
            *degree.entry(end).or_default() += 1;
        }
        let mut drawn: Vec<usize> = degree.keys().copied().collect();
        let (alone, cut) = (names.len() - drawn.len(), drawn.len().saturating_sub(MOST));
        drawn.sort_by_key(|node| std::cmp::Reverse(degree[node]));
        drawn.truncate(MOST);
        let drawn: BTreeSet<usize> = drawn.into_iter().collect();
        let ties: BTreeMap<(usize, usize), Tie> = ties
            .iter()
            .filter(|((from, to), _)| drawn.contains(from) && drawn.contains(to))
            .map(|(ends, tie)| (*ends, *tie))
            .collect();
        let columns = columns(&drawn, ties.keys().copied());
        let mut graph = Graph {
            alone,
            cut,
            ..Graph::default()
        };
        graph.place(&columns, names);
        graph.tie(&ties);
        graph
    }

    fn place(&mut self, columns: &[Vec<usize>], names: &[&str]) {
        let highest = columns.iter().map(Vec::len).max().unwrap_or(0);
        self.height = highest * ROW + 2 * EDGE;
        let mut x = EDGE;
        for column in columns {
            let mut widest = 0;
            let top = EDGE + (highest - column.len()) * ROW / 2;
            for (row, function) in column.iter().enumerate() {
                let label = shortened(names[*function]);
                let width = label.chars().count() * 15 / 2 + 22;
                widest = widest.max(width);
                self.nodes.push(Node {
                    function: *function,
                    label,
                    x,
                    y: top + row * ROW,
                    width,
                });
            }
            x += widest + GAP;
        }
        self.width = (x + EDGE).saturating_sub(GAP);
    }

    fn tie(&mut self, ties: &BTreeMap<(usize, usize), Tie>) {
        let at: BTreeMap<usize, &Node> = self.nodes.iter().map(|n| (n.function, n)).collect();
        let edges = ties.iter().map(|((from, to), tie)| {
            let (a, b) = (at[from], at[to]);
            let forward = a.x < b.x;
            let (x1, x2) = if forward {
                (a.x + a.width, b.x)
            } else {
                (a.x, b.x + b.width)
            };
            let (y1, y2) = (a.y + BOX / 2, b.y + BOX / 2);
            let bend = (x1.abs_diff(x2) / 2).max(24);
            let (c1, c2) = if forward {
                (x1 + bend, x2.saturating_sub(bend))
            } else {
                (x1.saturating_sub(bend), x2 + bend)
            };
            Edge {
                from: *from,
                to: *to,
                tie: *tie,
                path: format!("M{x1} {y1}C{c1} {y1} {c2} {y2} {x2} {y2}"),
            }
        });
        self.edges = edges.collect();
    }
}

/// The nodes in columns, each node right of those that lead to it; where they lead to
/// each other, one of the ties goes back.
fn columns(
    nodes: &BTreeSet<usize>,
    ties: impl Iterator<Item = (usize, usize)> + Clone,
) -> Vec<Vec<usize>> {
    let mut next: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut near: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (from, to) in ties {
        next.entry(from).or_default().push(to);
        near.entry(from).or_default().push(to);
        near.entry(to).or_default().push(from);
    }
    let mut columns: Vec<Vec<usize>> = Vec::new();
    for (node, layer) in layers(nodes, &next) {
        if columns.len() <= layer {
            columns.resize(layer + 1, Vec::new());
        }
        columns[layer].push(node);
    }
    // Each node beside the middle of its neighbours: fewer lines cross.
    const SWEEPS: usize = 6;
    for _ in 0..SWEEPS {
        let row: BTreeMap<usize, usize> = columns
            .iter()
            .flat_map(|column| {
                let length = column.len();
                let middle =
                    move |(row, node): (usize, &usize)| (*node, (2 * row + 1) * 1000 / length);
                column.iter().enumerate().map(middle)
            })
            .collect();
        for column in &mut columns {
            column.sort_by_key(|node| {
                let near = near.get(node).map_or(&[][..], Vec::as_slice);
                let sum: usize = near.iter().map(|other| row[other]).sum();
                sum / near.len().max(1)
            });
        }
    }
    let broken = columns.iter().flat_map(|column| {
        let parts = column.len().div_ceil(COLUMN).max(1);
        column
            .chunks(column.len().div_ceil(parts).max(1))
            .map(<[usize]>::to_vec)
    });
    broken.collect()
}

/// The longest way to each node from one that nobody leads to, ties that close a ring
/// left out.
fn layers(nodes: &BTreeSet<usize>, next: &BTreeMap<usize, Vec<usize>>) -> BTreeMap<usize, usize> {
    let none = Vec::new();
    let mut finished: Vec<usize> = Vec::new();
    let mut seen = BTreeSet::new();
    let led_to: BTreeSet<usize> = next.values().flatten().copied().collect();
    let (starts, others): (Vec<usize>, Vec<usize>) =
        nodes.iter().partition(|node| !led_to.contains(node));
    for start in starts.into_iter().chain(others) {
        // A walk in depth with its own stack: rings of calls are deep.
        let mut stack = vec![(start, 0)];
        if !seen.insert(start) {
            continue;
        }
        while let Some((node, child)) = stack.pop() {
            let children = next.get(&node).unwrap_or(&none);
            match children.get(child) {
                Some(other) => {
                    stack.push((node, child + 1));
                    if seen.insert(*other) {
                        stack.push((*other, 0));
                    }
                }
                None => finished.push(node),
            }
        }
    }
    finished.reverse();
    let order: BTreeMap<usize, usize> = finished.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let mut layers: BTreeMap<usize, usize> = nodes.iter().map(|node| (*node, 0)).collect();
    for node in &finished {
        let here = layers[node];
        for other in next.get(node).unwrap_or(&none) {
            if order[other] > order[node] {
                let layer = layers.entry(*other).or_default();
                *layer = (*layer).max(here + 1);
            }
        }
    }
    layers
}

fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= LONGEST_LABEL {
        return name.to_owned();
    }
    // The end tells more apart than the beginning: `core::fmt::…::write`.
    let head: String = name.chars().take(LONGEST_LABEL / 2 - 1).collect();
    let tail: String = name.chars().skip(count - LONGEST_LABEL / 2).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(names: &[&str], ties: &[(usize, usize)]) -> Graph {
        Graph::new(
            names,
            &ties.iter().map(|ends| (*ends, Tie::Calls)).collect(),
        )
    }

    #[test]
    fn callers_stand_left_of_what_they_call() {
        let graph = graph(
            &["leaf", "root", "middle", "alone"],
            &[(1, 2), (2, 0), (1, 0)],
        );
        let x = |function| {
            graph
                .nodes
                .iter()
                .find(|n| n.function == function)
                .map(|n| n.x)
        };
        assert!(x(1) < x(2) && x(2) < x(0));
        assert_eq!((x(3), graph.alone), (None, 1));
    }

    #[test]
    fn a_ring_has_one_tie_that_goes_back() {
        let graph = graph(&["a", "b", "c"], &[(0, 1), (1, 2), (2, 0)]);
        assert_eq!((graph.nodes.len(), graph.edges.len()), (3, 3));
    }

    #[test]
    fn a_hundred_callers_of_one_function_do_not_overlap() {
        let names: Vec<String> = (0..101).map(|n| format!("function_{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let graph = graph(&names, &(1..101).map(|n| (n, 0)).collect::<Vec<_>>());
        assert_eq!(graph.nodes.len(), 101);
        for (index, a) in graph.nodes.iter().enumerate() {
            for b in &graph.nodes[index + 1..] {
                let apart =
                    a.y.abs_diff(b.y) >= BOX || a.x + a.width <= b.x || b.x + b.width <= a.x;
                assert!(apart, "{a:?} {b:?}");
            }
            assert!(a.x + a.width <= graph.width && a.y + BOX <= graph.height);
        }
    }

    #[test]
    fn too_many_are_cut_and_counted() {
        let names: Vec<String> = (0..500).map(|n| format!("f{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let graph = graph(&names, &(1..500).map(|n| (0, n)).collect::<Vec<_>>());
        assert_eq!((graph.nodes.len(), graph.cut), (MOST, 380));
    }
}
