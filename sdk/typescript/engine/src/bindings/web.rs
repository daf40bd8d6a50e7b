//! Natives of `src/web`.

use rquickjs::prelude::Func;
use rquickjs::{Ctx, Object, Result};

use super::{Bytes, or_throw};
use crate::web;

/// Adds the natives to `native`.
pub fn register(native: &Object<'_>) -> Result<()> {
    native.set("utf8Encode", Func::from(|text: String| Bytes(text.into_bytes())))?;
    native.set(
        "utf8Decode",
        Func::from(|ctx: Ctx<'_>, bytes: Bytes, fatal: bool| or_throw(&ctx, web::encoding::decode_utf8(&bytes, fatal))),
    )
}
