//! Segments: the files the log is made of.

pub(crate) mod check;
pub(crate) mod footer;
pub(crate) mod header;
pub(crate) mod index;
pub(crate) mod prepare;
pub(crate) mod reader;
pub(crate) mod writer;
