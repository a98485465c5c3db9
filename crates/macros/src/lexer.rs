//! Makes tokens out of text for the tests, with their places in it: as much of Rust as they need.

use std::iter::Peekable;
use std::str::CharIndices;

use proc_macro::Delimiter;

use crate::token::Token;

/// The tokens of a text that is well formed.
pub(crate) fn lex(text: &str) -> Vec<Token<usize>> {
    list(text, &mut text.char_indices().peekable())
}

/// Up to the end, or to a closing bracket, which is eaten. `⟨` and `⟩` stand for brackets that are not there.
fn list(text: &str, rest: &mut Peekable<CharIndices<'_>>) -> Vec<Token<usize>> {
    let mut tokens = Vec::new();
    while let Some((place, character)) = rest.next() {
        let token = match character {
            ')' | ']' | '}' | '⟩' => break,
            '(' => Token::Group(Delimiter::Parenthesis, list(text, rest), place),
            '[' => Token::Group(Delimiter::Bracket, list(text, rest), place),
            '{' => Token::Group(Delimiter::Brace, list(text, rest), place),
            '⟨' => Token::Group(Delimiter::None, list(text, rest), place),
            '"' => {
                let end = rest.find(|(_, character)| *character == '"').expect("it is closed").0;
                Token::Literal(text[place..=end].to_owned(), place)
            }
            _ if character.is_whitespace() => continue,
            _ if character.is_ascii_digit() => {
                Token::Literal(word(text, place, rest, |c| c == '.'), place)
            }
            _ if is_word(character) => Token::Ident(word(text, place, rest, |_| false), place),
            _ => Token::Punct(character, place),
        };
        tokens.push(token);
    }
    tokens
}

fn word(
    text: &str,
    place: usize,
    rest: &mut Peekable<CharIndices<'_>>,
    also: impl Fn(char) -> bool,
) -> String {
    let mut end = place + 1;
    while let Some((at, character)) = rest.next_if(|(_, next)| is_word(*next) || also(*next)) {
        end = at + character.len_utf8();
    }
    text[place..end].to_owned()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
