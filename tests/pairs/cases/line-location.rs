//# accept
//# lines 4
//# hot line_location::limit
//# near accept
//# near lines 4
//# near hot line_location::twice

// Where a panic happened is a constant that holds the line. Lines above move it, and the
// functions that may panic stay as they are.
#[inline(never)]
fn at(words: &[u64], index: usize) -> u64 {
    words[index]
}

#[inline(never)]
fn first(text: &str) -> char {
    text.chars().next().expect("a text that is not empty")
}

#[inline(never)]
fn limit(x: u64) -> u64 {
    assert!(x < if cfg!(fixed) { 40 } else { 44 }, "too many");
    x
}

#[inline(never)]
fn twice(x: u64) -> u64 {
    if cfg!(near) { x << 2 } else { x << 1 }
}

fn main() {
    let words: Vec<u64> = std::env::args().map(|word| word.len() as u64).collect();
    println!("{} {}", at(&words, 0), first("text"));
    println!("{}", limit(words[0]) + twice(words[0]));
}
