//! Tokens that are read by the parsers. The tokens of `proc_macro` exist only while the compiler runs a
//! macro, so the parsers are written over these, whose places may be anything: the compiler's spans, or
//! numbers in a test.
//!
//! The parsers make no tokens. They say where in the list something is, and `expand` puts the
//! compiler's own tokens together, which keep their spans.

use proc_macro::{Delimiter, Span, TokenStream, TokenTree};

/// A token and its place.
#[derive(Clone, Debug)]
pub(crate) enum Token<S> {
    /// A name or a keyword.
    Ident(String, S),
    /// One character of an operator.
    Punct(char, S),
    /// A literal, as it is written.
    Literal(String, S),
    /// What is in brackets. What a `macro_rules` fragment was matched by is in brackets that are not
    /// there.
    Group(Delimiter, Vec<Token<S>>, S),
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Error<S> {
    pub(crate) message: String,
    pub(crate) place: S,
}

impl<S: Copy> Token<S> {
    pub(crate) fn place(&self) -> S {
        match self {
            Token::Ident(_, place)
            | Token::Punct(_, place)
            | Token::Literal(_, place)
            | Token::Group(_, _, place) => *place,
        }
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> Error<S> {
        Error { message: message.into(), place: self.place() }
    }

    pub(crate) fn is_ident(&self, name: &str) -> bool {
        matches!(self, Token::Ident(ident, _) if ident == name)
    }

    pub(crate) fn is_punct(&self, character: char) -> bool {
        matches!(self, Token::Punct(punct, _) if *punct == character)
    }

    /// The tokens in these brackets.
    pub(crate) fn group(&self, wanted: Delimiter) -> Option<&[Token<S>]> {
        match self {
            Token::Group(delimiter, tokens, _) if *delimiter == wanted => Some(tokens),
            _ => None,
        }
    }
}

impl Token<Span> {
    /// What the compiler gave, one to one.
    pub(crate) fn list(tokens: impl IntoIterator<Item = TokenTree>) -> Vec<Token<Span>> {
        tokens.into_iter().map(|token| Token::from_compiler(&token)).collect()
    }

    fn from_compiler(token: &TokenTree) -> Token<Span> {
        let place = token.span();
        match token {
            TokenTree::Ident(ident) => Token::Ident(ident.to_string(), place),
            TokenTree::Punct(punct) => Token::Punct(punct.as_char(), place),
            TokenTree::Literal(literal) => Token::Literal(literal.to_string(), place),
            TokenTree::Group(group) => Token::Group(
                group.delimiter(),
                Token::list(TokenStream::into_iter(group.stream())),
                place,
            ),
        }
    }
}
