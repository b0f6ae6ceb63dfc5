//! What Rust puts into an image: constants without names, texts without an end, panics.

use std::collections::HashMap;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Number(f64),
    Plus,
    Minus,
    Times,
}

#[derive(Debug)]
struct Unknown(char);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no token", self.0)
    }
}

static NAMES: [&str; 4] = ["number", "plus", "minus", "times"];

#[inline(never)]
fn tokens(text: &str) -> Result<Vec<Token>, Unknown> {
    text.split_whitespace()
        .map(|word| match word {
            "+" => Ok(Token::Plus),
            "-" => Ok(Token::Minus),
            "*" => Ok(Token::Times),
            number => number
                .parse()
                .map(Token::Number)
                .map_err(|_| Unknown(number.chars().next().unwrap_or(' '))),
        })
        .collect()
}

#[inline(never)]
fn value(tokens: &[Token]) -> f64 {
    let mut stack = vec![];
    for token in tokens {
        let mut pop = || stack.pop().expect("a number stands before each sign");
        let next = match token {
            Token::Number(number) => *number,
            Token::Plus => pop() + pop(),
            Token::Minus => pop() - pop(),
            Token::Times => pop() * pop(),
        };
        stack.push(next);
    }
    stack[0]
}

fn main() {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for word in std::env::args().skip(1) {
        match tokens(&word) {
            Ok(found) => {
                let first = found.first().map_or(0, |token| match token {
                    Token::Number(_) => 0,
                    Token::Plus => 1,
                    Token::Minus => 2,
                    Token::Times => 3,
                });
                *seen.entry(NAMES[first].to_owned()).or_default() += found.len();
                let result = std::panic::catch_unwind(|| value(&found));
                println!("{word} = {result:?}");
            }
            Err(unknown) => eprintln!("{word}: {unknown}"),
        }
    }
    println!("{seen:?}");
}
