//! What the example programs have in common, so that each of them shows one thing only.
//!
//! The programs are the files next to this package's `Cargo.toml`; each says at its top what it
//! shows and how to run it. They are for Unix.
//!
//! | module | what is in it |
//! |---|---|
//! | [`coroutine`] | generators that are sent values, made of a future |
//! | [`serve`] | the command line of every server, its listening socket, the signals that end it |
//! | [`server`] | servers over protocols, from the first client to the last |

#![forbid(unsafe_code)]

pub mod coroutine;
pub mod serve;
pub mod server;

/// The blocks of the documents are tests. The tutorial is a project, which `tests/documents.rs` makes of it; those of
/// `docs/testing.md` are tests of the facade.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;

    #[doc = include_str!("../../docs/recipes.md")]
    struct Recipes;
}
