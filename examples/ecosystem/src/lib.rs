//! Libraries of others, run over tulipa's streams on tulipa's loop. There is nothing to call here: the package is its
//! tests, and the blocks of `docs/libraries.md`, which say how each library is used.
//!
//! `cargo test -p tulipa-ecosystem` runs them. They are apart from the other examples because the libraries take a while
//! to build.

#![forbid(unsafe_code)]

/// The blocks of the document are tests.
#[cfg(all(doctest, unix))]
#[doc = include_str!("../../../docs/libraries.md")]
struct Libraries;
