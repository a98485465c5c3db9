//! The text of an endpoint: a kind, then arguments by place or by name, with colons between them.

/// Why the text of an endpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad endpoint '{text}': {why}")]
pub struct EndpointError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// A description taken apart. Arguments are taken out of it; what is left at the end nobody knows.
#[derive(Debug)]
pub(super) struct Description {
    text: String,
    kind: String,
    placed: Vec<String>,
    named: Vec<(String, String)>,
}

impl Description {
    /// Takes a text apart. A backslash takes the next character for what it is.
    pub(super) fn parse(text: &str) -> Result<Description, EndpointError> {
        let mut description = Description {
            text: text.to_owned(),
            kind: String::new(),
            placed: Vec::new(),
            named: Vec::new(),
        };
        let mut parts = description.split()?.into_iter();
        description.kind = match parts.next() {
            Some((None, kind)) if !kind.is_empty() => kind,
            _ => return Err(description.error("it begins with no kind, such as 'tcp:'")),
        };
        for (name, value) in parts {
            match name {
                None if !description.named.is_empty() => {
                    let why =
                        format!("'{value}' comes behind an argument with a name and has none");
                    return Err(description.error(why));
                }
                None => description.placed.push(value),
                Some(name) if name.is_empty() => {
                    return Err(description.error(format!("'={value}' has no name")));
                }
                Some(name) if description.named.iter().any(|(known, _)| *known == name) => {
                    return Err(description.error(format!("'{name}' is there twice")));
                }
                Some(name) => description.named.push((name, value)),
            }
        }
        description.placed.reverse();
        Ok(description)
    }

    /// Each part, with its name if it has one.
    fn split(&self) -> Result<Vec<(Option<String>, String)>, EndpointError> {
        let mut parts = Vec::new();
        let (mut name, mut current) = (None, String::new());
        let mut characters = self.text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some(literal) => current.push(literal),
                    None => return Err(self.error("there is nothing behind the last backslash")),
                },
                ':' => parts.push((name.take(), std::mem::take(&mut current))),
                '=' if name.is_none() => name = Some(std::mem::take(&mut current)),
                other => current.push(other),
            }
        }
        parts.push((name, current));
        Ok(parts)
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn error(&self, why: impl Into<String>) -> EndpointError {
        EndpointError { text: self.text.clone(), why: why.into() }
    }

    /// The next argument that has no name.
    pub(super) fn next(&mut self) -> Option<String> {
        self.placed.pop()
    }

    /// How many of those are left.
    pub(super) fn placed(&self) -> usize {
        self.placed.len()
    }

    /// The next argument that has no name, without taking it.
    pub(super) fn peek(&self) -> Option<&str> {
        self.placed.last().map(String::as_str)
    }

    /// An argument by name.
    pub(super) fn named(&mut self, name: &str) -> Option<String> {
        let place = self.named.iter().position(|(known, _)| known == name)?;
        Some(self.named.remove(place).1)
    }

    /// An argument by name or else by place.
    pub(super) fn get(&mut self, name: &str) -> Result<Option<String>, EndpointError> {
        match (self.named(name), self.placed()) {
            (Some(value), _) => Ok(Some(value)),
            (None, 0) => Ok(None),
            (None, _) => Ok(self.next()),
        }
    }

    /// An argument that there has to be.
    pub(super) fn need(&mut self, name: &str) -> Result<String, EndpointError> {
        match self.get(name)? {
            Some(value) if value.is_empty() => Err(self.error(format!("'{name}' is empty"))),
            Some(value) => Ok(value),
            None => Err(self.error(format!("'{name}' is missing"))),
        }
    }

    /// A number.
    pub(super) fn number<N: std::str::FromStr>(
        &self,
        name: &str,
        value: &str,
    ) -> Result<N, EndpointError> {
        let parsed = value.parse();
        parsed.map_err(|_| self.error(format!("'{name}' is '{value}', which is no such number")))
    }

    /// Nothing is left that nobody has asked for.
    pub(super) fn end(&self) -> Result<(), EndpointError> {
        if let Some((name, _)) = self.named.first() {
            return Err(self.error(format!("'{}' has no argument '{name}'", self.kind)));
        }
        match self.peek() {
            Some(value) => Err(self.error(format!("'{value}' is one argument too many"))),
            None => Ok(()),
        }
    }
}
