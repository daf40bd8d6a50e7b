//! The natives: functions in Rust that the platform script gets as `native`. `js/native.d.ts` declares them.
//!
//! A native takes strings, numbers, booleans, [`Bytes`] and arrays of these, and returns such a value, or an [`Failure`] that becomes an
//! exception.

mod bytes;
mod crypto;
mod host;
mod list;
mod web;

use rquickjs::{Ctx, Exception, Object, Result};

pub use bytes::Bytes;
pub use host::flat;
pub use list::{List, Texts};

/// An exception of a native: `name` is that of a standard error (`TypeError`, `RangeError`), or of a `DOMException`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub name: &'static str,
    pub message: String,
}

impl Failure {
    /// An exception of this name.
    pub fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: message.into() }
    }
}

/// The object `native`.
pub fn natives<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let native = Object::new(ctx.clone())?;
    host::register(&native)?;
    crypto::register(&native)?;
    web::register(&native)?;
    Ok(native)
}

/// Throws a failure: an `Error` object with its name, which `js/errors.ts` turns into an instance of the class of that name.
pub fn or_throw<T>(ctx: &Ctx<'_>, result: std::result::Result<T, Failure>) -> Result<T> {
    result.map_err(|Failure { name, message }| match name {
        "TypeError" => Exception::throw_type(ctx, &message),
        "RangeError" => Exception::throw_range(ctx, &message),
        "SyntaxError" => Exception::throw_syntax(ctx, &message),
        _ => throw_named(ctx, name, &message).unwrap_or_else(|error| error),
    })
}

/// A `DOMException`, made by the class of the platform, which is a global.
fn throw_named(ctx: &Ctx<'_>, name: &str, message: &str) -> Result<rquickjs::Error> {
    let class: rquickjs::function::Constructor = ctx.globals().get("DOMException")?;
    let exception: rquickjs::Value = class.construct((message, name))?;
    Ok(ctx.throw(exception))
}
