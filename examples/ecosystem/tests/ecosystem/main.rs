//! Libraries of others over tulipa's streams, on tulipa's loop, with nobody else's runtime and nobody else's reactor.
#![cfg(unix)]

mod axum;
mod postgres;
mod redis;
mod server;
mod support;
mod tls;
mod websocket;
