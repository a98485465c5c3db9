//! What is in the brackets of the attribute: `name`, or `name = value`, between commas.

use std::ops::Range;

use crate::token::{Error, Token};

/// What both attributes understand, as far as it was given.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Arguments {
    /// Which of the tokens are the path to the library.
    pub(crate) library: Option<Range<usize>>,
    pub(crate) debug: Option<bool>,
    /// The rest is for tests only.
    pub(crate) clock: Option<Clock>,
    pub(crate) strict: Option<bool>,
    /// In seconds.
    pub(crate) timeout: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Virtual,
    Autojump,
    Real,
}

/// A list of names for messages, and for whoever asks whether one is in it.
type Names = &'static [&'static str];

pub(crate) const FOR_MAIN: Names = &["debug", "crate"];
pub(crate) const FOR_TEST: Names = &["clock", "strict", "timeout", "debug", "crate"];

/// The longest `timeout`: a year. What is longer is a slip of the pen.
const LONGEST_TIMEOUT: f64 = 365.0 * 24.0 * 3600.0;

/// One argument: its name, and its value if it has one.
struct Argument<'a, S> {
    name: &'a Token<S>,
    /// `None` where only the name is written.
    value: Option<&'a [Token<S>]>,
    /// Which of all tokens are the value.
    range: Range<usize>,
}

/// Reads the arguments; `known` are the names that there are.
pub(crate) fn parse<S: Copy>(tokens: &[Token<S>], known: Names) -> Result<Arguments, Error<S>> {
    let mut arguments = Arguments::default();
    let mut given = Vec::new();
    let mut start = 0;
    while start < tokens.len() {
        let length = tokens[start..].iter().position(|token| token.is_punct(','));
        let end = length.map_or(tokens.len(), |length| start + length);
        let argument = Argument::new(tokens, start..end)?;
        let name = argument.name_among(known)?;
        if given.contains(&name) {
            return Err(argument.name.error(format!("`{name}` is given twice")));
        }
        given.push(name);
        arguments.set(name, &argument)?;
        start = end + 1;
    }
    Ok(arguments)
}

impl Arguments {
    fn set<S: Copy>(&mut self, name: &str, argument: &Argument<'_, S>) -> Result<(), Error<S>> {
        match name {
            "crate" => self.library = Some(argument.path()?),
            "debug" => self.debug = Some(argument.switch()?),
            "strict" => self.strict = Some(argument.switch()?),
            "clock" => self.clock = Some(argument.clock()?),
            "timeout" => self.timeout = Some(argument.seconds()?),
            _ => unreachable!("every name that is known is understood"),
        }
        Ok(())
    }
}

impl<'a, S: Copy> Argument<'a, S> {
    fn new(tokens: &'a [Token<S>], range: Range<usize>) -> Result<Argument<'a, S>, Error<S>> {
        let Some(name) = tokens[range.clone()].first() else {
            return Err(tokens[range.end].error("there is no argument before this comma"));
        };
        let equals = range.start + 1;
        let range = (equals + 1).min(range.end)..range.end;
        let value = match tokens[equals.min(range.end)..range.end].split_first() {
            None => None,
            Some((equals, [])) if equals.is_punct('=') => {
                return Err(equals.error("there is no value behind this"));
            }
            Some((equals, value)) if equals.is_punct('=') => Some(value),
            Some((other, _)) => return Err(other.error("expected `=` or `,` here")),
        };
        Ok(Argument { name, value, range })
    }

    fn name_among(&self, known: Names) -> Result<&'static str, Error<S>> {
        let found = known.iter().find(|known| self.name.is_ident(known));
        found.copied().ok_or_else(|| {
            let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            self.name.error(format!("unknown argument; there are {}", known.join(", ")))
        })
    }

    /// `name` alone, `name = true`, `name = false`.
    fn switch(&self) -> Result<bool, Error<S>> {
        let Some(value) = self.value else { return Ok(true) };
        match value {
            [token] if token.is_ident("true") => Ok(true),
            [token] if token.is_ident("false") => Ok(false),
            _ => Err(value[0].error("expected `true` or `false`")),
        }
    }

    fn clock(&self) -> Result<Clock, Error<S>> {
        let message = "a clock is \"virtual\", \"autojump\" or \"real\"";
        let value = self.value(message)?;
        match value {
            [Token::Literal(text, _)] => match text.as_str() {
                "\"virtual\"" => Ok(Clock::Virtual),
                "\"autojump\"" => Ok(Clock::Autojump),
                "\"real\"" => Ok(Clock::Real),
                _ => Err(value[0].error(message)),
            },
            _ => Err(value[0].error(message)),
        }
    }

    fn seconds(&self) -> Result<f64, Error<S>> {
        let message = "a timeout is a number of seconds, above zero and at most a year";
        let value = self.value(message)?;
        let seconds = match value {
            [Token::Literal(text, _)] => text.replace('_', "").parse::<f64>().ok(),
            _ => None,
        };
        let allowed = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= LONGEST_TIMEOUT);
        allowed.ok_or_else(|| value[0].error(message))
    }

    /// A path, as far as that can be told here: the compiler says if it leads nowhere.
    fn path(&self) -> Result<Range<usize>, Error<S>> {
        let message = "a path is written without quotation marks: `crate = my_crate::tulipa`";
        let value = self.value(message)?;
        let is_part = |token: &Token<S>| matches!(token, Token::Ident(..)) || token.is_punct(':');
        match value.iter().find(|token| !is_part(token)) {
            Some(token) => Err(token.error(message)),
            None => Ok(self.range.clone()),
        }
    }

    fn value(&self, message: &str) -> Result<&'a [Token<S>], Error<S>> {
        self.value.ok_or_else(|| self.name.error(format!("this has a value: {message}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer::lex;

    fn parsed(text: &str) -> Arguments {
        parse(&lex(text), FOR_TEST).unwrap()
    }

    /// The message, and what the text is from its place on.
    fn refused(text: &str, known: Names) -> (String, &str) {
        let error = parse(&lex(text), known).unwrap_err();
        (error.message, &text[error.place..])
    }

    #[test]
    fn no_arguments_leave_everything_open() {
        assert_eq!(parsed(""), Arguments::default());
    }

    #[test]
    fn all_arguments_are_read_in_any_order_and_with_a_comma_at_the_end() {
        let text = r#"timeout = 2.5, strict, crate = ::a::b, clock = "virtual", debug = false,"#;
        let expected = Arguments {
            library: Some(8..14),
            debug: Some(false),
            clock: Some(Clock::Virtual),
            strict: Some(true),
            timeout: Some(2.5),
        };
        assert_eq!(parsed(text), expected);
    }

    #[test]
    fn a_switch_may_be_written_out() {
        assert_eq!(parsed("strict = false").strict, Some(false));
        assert_eq!(parsed("strict = true, debug").debug, Some(true));
    }

    #[test]
    fn each_clock_has_its_name() {
        for (text, clock) in [
            (r#"clock = "virtual""#, Clock::Virtual),
            (r#"clock = "autojump""#, Clock::Autojump),
            (r#"clock = "real""#, Clock::Real),
        ] {
            assert_eq!(parsed(text).clock, Some(clock));
        }
    }

    #[test]
    fn whole_numbers_and_groups_of_digits_are_seconds_too() {
        assert_eq!(parsed("timeout = 3_600").timeout, Some(3600.0));
    }

    #[test]
    fn an_unknown_argument_is_named_with_those_that_there_are() {
        let (message, rest) = refused("strict, loops = 2", FOR_TEST);
        assert_eq!(rest, "loops = 2");
        let names = "`clock`, `strict`, `timeout`, `debug`, `crate`";
        assert_eq!(message, format!("unknown argument; there are {names}"));
        let (message, _) = refused("strict", FOR_MAIN);
        assert_eq!(message, "unknown argument; there are `debug`, `crate`");
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        for (text, place, part) in [
            ("strict, strict = true", "strict = true", "twice"),
            (r#"clock = "wall""#, r#""wall""#, "a clock is"),
            ("clock = autojump", "autojump", "a clock is"),
            ("clock", "clock", "a clock is"),
            ("timeout = 0", "0", "above zero"),
            ("timeout = \"5\"", "\"5\"", "above zero"),
            ("timeout = 1e99", "1e99", "above zero"),
            ("timeout = -1", "-1", "above zero"),
            ("debug = yes", "yes", "`true` or `false`"),
            ("debug =", "=", "no value behind this"),
            ("debug true", "true", "`=` or `,`"),
            (", debug", ", debug", "before this comma"),
            ("debug,, strict", ", strict", "before this comma"),
            (r#"crate = "tulipa""#, r#""tulipa""#, "without quotation marks"),
            ("(strict)", "(strict)", "unknown argument"),
        ] {
            let (message, rest) = refused(text, FOR_TEST);
            assert_eq!(rest, place, "{text}: {message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
