//! Where what is in the function below the attribute.
//!
//! Only what matters is read: the attributes, whether it is an `async fn` without arguments and
//! generics, its name, its return type. All else is left to the compiler, which sees the function as it
//! was written.

use std::ops::Range;

use proc_macro::Delimiter;

use crate::token::{Error, Token};

/// The parts of a function, as places in the list of its tokens. What comes behind the attributes and the
/// visibility, up to the end, is the function itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// `#[..]`, any number of them.
    pub(crate) attributes: Range<usize>,
    /// `pub`, `pub(crate)`, nothing.
    pub(crate) visibility: Range<usize>,
    pub(crate) name: usize,
    /// `-> T`, or nothing.
    pub(crate) output: Range<usize>,
}

/// Reads a function. `attribute` is what the macro is called, and `end` the place to show when the tokens
/// end too early.
pub(crate) fn parse<S: Copy>(
    tokens: &[Token<S>],
    attribute: &str,
    end: S,
) -> Result<Function, Error<S>> {
    let reader = Reader { tokens, attribute, end };
    let attributes = 0..reader.after_attributes();
    let visibility = attributes.end..reader.after_visibility(attributes.end);
    let name = reader.name(visibility.end)?;
    let output = reader.output(name + 1)?;
    Ok(Function { attributes, visibility, name, output })
}

struct Reader<'a, S> {
    tokens: &'a [Token<S>],
    attribute: &'a str,
    end: S,
}

impl<S: Copy> Reader<'_, S> {
    fn after_attributes(&self) -> usize {
        let pairs = self.tokens.chunks_exact(2);
        let count = pairs.take_while(|pair| {
            pair[0].is_punct('#') && pair[1].group(Delimiter::Bracket).is_some()
        });
        2 * count.count()
    }

    fn after_visibility(&self, start: usize) -> usize {
        match self.tokens.get(start) {
            // The `$vis` of a `macro_rules`, which may be empty.
            Some(token) if token.group(Delimiter::None).is_some() => start + 1,
            Some(token) if token.is_ident("pub") => {
                let of = self.tokens.get(start + 1);
                let restricted = of.is_some_and(|of| of.group(Delimiter::Parenthesis).is_some());
                start + 1 + usize::from(restricted)
            }
            _ => start,
        }
    }

    /// Passes over `async fn` and gives the place of the name behind it.
    fn name(&self, start: usize) -> Result<usize, Error<S>> {
        let wanted = format!("`{}` is for an `async fn`", self.attribute);
        let first = self.tokens.get(start).ok_or_else(|| self.too_short(&wanted))?;
        if ["const", "unsafe", "extern", "safe"].iter().any(|other| first.is_ident(other)) {
            return Err(first.error(format!("{wanted} without other qualifiers")));
        }
        if first.is_ident("fn") {
            return Err(first.error(format!("{wanted}: write `async` before this")));
        }
        if !first.is_ident("async") {
            return Err(first.error(wanted));
        }
        match (self.tokens.get(start + 1), self.tokens.get(start + 2)) {
            (Some(keyword), Some(Token::Ident(..))) if keyword.is_ident("fn") => Ok(start + 2),
            (Some(other), _) if !other.is_ident("fn") => {
                Err(other.error(format!("{wanted} without other qualifiers")))
            }
            _ => Err(self.too_short(&wanted)),
        }
    }

    /// Checks what follows the name, and gives the return type.
    fn output(&self, start: usize) -> Result<Range<usize>, Error<S>> {
        let attribute = self.attribute;
        let after = &self.tokens[start..];
        let Some((arguments, after)) = after.split_first() else {
            return Err(self.too_short("expected the arguments of the function"));
        };
        if arguments.is_punct('<') {
            return Err(
                arguments.error(format!("nothing calls `{attribute}` with type parameters"))
            );
        }
        let Some(given) = arguments.group(Delimiter::Parenthesis) else {
            return Err(arguments.error("expected the arguments of the function"));
        };
        if let Some(argument) = given.first() {
            return Err(argument.error(format!("nothing calls `{attribute}` with arguments")));
        }
        let Some((body, output)) = after.split_last() else {
            return Err(self.too_short("expected the body of the function"));
        };
        if !is_body(body) {
            return Err(body.error("expected the body of the function"));
        }
        if let Some(bounds) = output.iter().find(|token| token.is_ident("where")) {
            return Err(bounds.error("there is nothing here that could have bounds"));
        }
        match output {
            [] => {}
            [minus, greater, _, ..] if minus.is_punct('-') && greater.is_punct('>') => {}
            [other, ..] => return Err(other.error("expected `->` and a type, or the body")),
        }
        Ok(start + 1..start + 1 + output.len())
    }

    fn too_short(&self, message: &str) -> Error<S> {
        Error { message: message.to_owned(), place: self.end }
    }
}

/// `{ .. }`, or the `$body` of a `macro_rules`.
fn is_body<S: Copy>(token: &Token<S>) -> bool {
    let wrapped = token.group(Delimiter::None);
    token.group(Delimiter::Brace).is_some()
        || matches!(wrapped, Some([block]) if block.group(Delimiter::Brace).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::lex;

    fn parsed(text: &str) -> Function {
        parse(&lex(text), "#[tulipa::test]", text.len()).unwrap()
    }

    /// The message, and what the text is from its place on.
    fn refused(text: &str) -> (String, &str) {
        let error = parse(&lex(text), "#[tulipa::test]", text.len()).unwrap_err();
        (error.message, &text[error.place..])
    }

    #[test]
    fn a_plain_function_is_its_name_and_nothing_else() {
        let function = Function { attributes: 0..0, visibility: 0..0, name: 2, output: 4..4 };
        assert_eq!(parsed("async fn works() {}"), function);
    }

    #[test]
    fn attributes_visibility_and_return_type_are_found() {
        let text = r#"#[doc = "It works."] #[ignore] pub(crate) async fn works() -> Result<(), [u8; { 3 }]> { x }"#;
        let function = parsed(text);
        assert_eq!((function.attributes, function.visibility), (0..4, 4..6));
        assert_eq!((function.name, function.output), (8, 10..18));
    }

    #[test]
    fn what_macro_rules_puts_into_invisible_brackets_is_found() {
        let function = parsed("#[ignore] ⟨pub⟩ async fn works() -> ⟨Result<(), ()>⟩ ⟨{}⟩");
        assert_eq!((function.visibility, function.name, function.output), (2..3, 5, 7..10));
        assert_eq!(parsed("⟨⟩ async fn works() {}").visibility, 0..1);
    }

    #[test]
    fn raw_names_are_names() {
        assert_eq!(parsed("async fn r_try() {}").name, 2);
    }

    #[test]
    fn what_is_no_plain_async_function_is_refused_where_it_differs() {
        for (text, place, part) in [
            ("fn works() {}", "fn works() {}", "write `async` before this"),
            ("pub fn works() {}", "fn works() {}", "write `async` before this"),
            ("struct Works;", "struct Works;", "is for an `async fn`"),
            ("const fn works() {}", "const fn works() {}", "without other qualifiers"),
            ("async unsafe fn works() {}", "unsafe fn works() {}", "without other qualifiers"),
            ("async fn works<T>() {}", "<T>() {}", "type parameters"),
            ("async fn works(port: u16) {}", "port: u16) {}", "with arguments"),
            ("async fn works(&self) {}", "&self) {}", "with arguments"),
            ("async fn works() where (): Sized {}", "where (): Sized {}", "bounds"),
            ("async fn works();", ";", "the body"),
            ("async fn works() u8 {}", "u8 {}", "`->` and a type"),
            ("async fn works() -> {}", "-> {}", "`->` and a type"),
            ("async fn works {}", "{}", "the arguments"),
            ("async fn works()", "", "the body"),
            ("async fn works", "", "the arguments"),
            ("async fn", "", "is for an `async fn`"),
            ("", "", "is for an `async fn`"),
        ] {
            let (message, rest) = refused(text);
            assert_eq!(rest, place, "{text}: {message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
