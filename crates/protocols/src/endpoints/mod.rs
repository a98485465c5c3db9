//! Endpoints as text, as they stand in configuration files: where to listen, where to connect to. The language is
//! Twisted's.

mod activation;
mod client;
mod description;
mod server;

pub use client::ClientEndpoint;
pub use description::EndpointError;
pub use server::ServerEndpoint;
