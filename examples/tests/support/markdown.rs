//! The blocks of code of a document.
#![allow(dead_code)]

/// A block between two fences.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// What stands behind the first fence: `rust`, `console`.
    pub(crate) language: String,
    pub(crate) code: String,
}

impl Block {
    /// The file whose part it is, if its first line says so: `// src/lib.rs`, `# Cargo.toml`.
    pub(crate) fn file(&self) -> Option<&str> {
        let first = self.code.lines().next()?;
        let name = first.strip_prefix("// ").or_else(|| first.strip_prefix("# "))?;
        let is_name = !name.contains(' ') && name.contains('.');
        is_name.then_some(name)
    }
}

/// All of them, in order.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => {
                let language = language.to_owned();
                open = Some(Block { language, code: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.code.push_str(line);
                block.code.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the last block has no end");
    blocks
}
