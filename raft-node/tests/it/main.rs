//! Everything that needs a real process or a real socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod command_line;
mod damage;
mod demo;
mod harness;
mod http;
mod kill;
mod operators;
