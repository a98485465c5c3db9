//! The function that takes the place of the one below the attribute.
//!
//! The function is kept as it was written, inside of one with the same name, so that what is wrong in it
//! is shown where it is:
//!
//! ```text
//! #[its attributes] #[test] its_visibility fn its_name() -> ItsOutput {
//!     async fn its_name() -> ItsOutput { its body }
//!     tulipa::__private::TestRunner::new().clock(..).run(its_name())
//! }
//! ```

use std::ops::Range;

use proc_macro::{Delimiter, Group, Span, TokenStream, TokenTree};

use crate::arguments::{self, Arguments, FOR_MAIN, FOR_TEST};
use crate::function::{self, Function};
use crate::token::{Error, Token};

/// Which of the two attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Main,
    Test,
}

/// What the attribute makes of its function, or of a mistake.
pub(crate) fn expand(kind: Kind, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item: Vec<_> = item.into_iter().collect();
    let arguments: Vec<_> = arguments.into_iter().collect();
    let expanded = Input::new(kind, &arguments, &item).map(|input| input.expand());
    expanded.unwrap_or_else(|error| {
        let mut tokens = complain(&error);
        if defines_main(&item) {
            // Without it the compiler would complain a second time: that there is no main function.
            tokens.extend(source("fn main() {}", error.place));
        }
        tokens
    })
}

fn defines_main(item: &[TokenTree]) -> bool {
    let is = |token: &TokenTree, name| token.to_string() == name;
    item.windows(2).any(|pair| is(&pair[0], "fn") && is(&pair[1], "main"))
}

/// A `compile_error!` that is shown at its place.
fn complain(error: &Error<Span>) -> TokenStream {
    source(&format!("::core::compile_error! {{ {:?} }}", error.message), error.place)
}

/// What was given to the attribute, read and checked.
struct Input<'a> {
    kind: Kind,
    item: &'a [TokenTree],
    function: Function,
    arguments: Arguments,
    /// The path to the library, if one was given.
    library: Option<&'a [TokenTree]>,
}

impl<'a> Input<'a> {
    fn new(
        kind: Kind,
        arguments: &'a [TokenTree],
        item: &'a [TokenTree],
    ) -> Result<Input<'a>, Error<Span>> {
        let (attribute, known) = match kind {
            Kind::Main => ("#[tulipa::main]", FOR_MAIN),
            Kind::Test => ("#[tulipa::test]", FOR_TEST),
        };
        let read = Token::list(item.iter().cloned());
        let function = function::parse(&read, attribute, Span::call_site())?;
        let name = &read[function.name];
        if kind == Kind::Main && !name.is_ident("main") {
            let message = "only `main` can be the program; call `tulipa::run` in other functions";
            return Err(name.error(message));
        }
        let arguments_read = Token::list(arguments.iter().cloned());
        let parsed = arguments::parse(&arguments_read, known)?;
        let library = parsed.library.clone().map(|range| &arguments[range]);
        Ok(Input { kind, item, function, arguments: parsed, library })
    }

    fn expand(&self) -> TokenStream {
        let function = &self.function;
        let place = self.item[function.name].span();
        let mut tokens = self.part(function.attributes.clone());
        if self.kind == Kind::Test {
            tokens.extend(source("#[::core::prelude::v1::test]", Span::call_site()));
        }
        tokens.extend(self.part(function.visibility.clone()));
        tokens.extend(source("fn", place));
        tokens.extend(self.part(function.name..function.name + 1));
        tokens.extend(source("()", place));
        tokens.extend(self.output());
        let mut body = self.part(function.visibility.end..self.item.len());
        body.extend(self.call());
        tokens.extend([group(Delimiter::Brace, body)]);
        tokens
    }

    /// The return type of the outer function.
    fn output(&self) -> TokenStream {
        let output = self.part(self.function.output.clone());
        if self.kind == Kind::Test {
            return output;
        }
        // Behind the arrow; nothing stands for `()`.
        let mut inner = TokenStream::from_iter(output.into_iter().skip(2));
        let place = self.output_place();
        if inner.is_empty() {
            inner = source("()", place);
        }
        let mut tokens = source("->", place);
        tokens.extend(self.library(place));
        tokens.extend(source("::__private::Exit<", place));
        tokens.extend(inner);
        tokens.extend(source(">", place));
        tokens
    }

    /// The last expression of the outer function.
    fn call(&self) -> TokenStream {
        let place = self.output_place();
        let runner = match self.kind {
            Kind::Main => "Program",
            Kind::Test => "TestRunner",
        };
        let mut tokens = self.library(place);
        tokens.extend(source(&format!("::__private::{runner}::new()"), place));
        if let Some(clock) = self.arguments.clock {
            let mut value = self.library(place);
            value.extend(source(&format!("::__private::Clock::{clock:?}"), place));
            tokens.extend(source(".clock", place));
            tokens.extend([group(Delimiter::Parenthesis, value)]);
        }
        if let Some(seconds) = self.arguments.timeout {
            let duration = format!("::core::time::Duration::from_secs_f64({seconds:?}f64)");
            tokens.extend(source(&format!(".timeout({duration})"), place));
        }
        for (name, switch) in [("strict", self.arguments.strict), ("debug", self.arguments.debug)] {
            if let Some(switch) = switch {
                tokens.extend(source(&format!(".{name}({switch})"), place));
            }
        }
        tokens.extend(source(".run", place));
        let mut future = self.part(self.function.name..self.function.name + 1);
        future.extend(source("()", place));
        tokens.extend([group(Delimiter::Parenthesis, future)]);
        tokens
    }

    /// Where it is shown that the function gives what a program or a test cannot give.
    fn output_place(&self) -> Span {
        let output = self.function.output.clone();
        let token = if output.is_empty() { self.function.name } else { output.start + 2 };
        self.item[token].span().resolved_at(Span::call_site())
    }

    fn library(&self, place: Span) -> TokenStream {
        match self.library {
            Some(path) => path.iter().cloned().collect(),
            None => source("::tulipa", place),
        }
    }

    fn part(&self, range: Range<usize>) -> TokenStream {
        self.item[range].iter().cloned().collect()
    }
}

fn group(delimiter: Delimiter, tokens: TokenStream) -> TokenTree {
    TokenTree::from(Group::new(delimiter, tokens))
}

/// Code of ours, as if it were written at `place`.
fn source(code: &str, place: Span) -> TokenStream {
    let tokens: TokenStream = code.parse().expect("our own code is well formed");
    at(tokens, place)
}

fn at(tokens: TokenStream, place: Span) -> TokenStream {
    let moved = tokens.into_iter().map(|token| {
        let mut token = match token {
            TokenTree::Group(group) => {
                TokenTree::from(Group::new(group.delimiter(), at(group.stream(), place)))
            }
            other => other,
        };
        token.set_span(place);
        token
    });
    moved.collect()
}
