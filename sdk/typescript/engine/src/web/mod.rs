//! Parts of the web platform, without JavaScript types.

pub mod compression;
pub mod encoding;
pub mod headers;
pub mod multipart;
pub mod query;
pub mod url;
