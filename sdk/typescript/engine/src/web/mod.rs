//! Parts of the web platform, without JavaScript types.

pub mod encoding;
