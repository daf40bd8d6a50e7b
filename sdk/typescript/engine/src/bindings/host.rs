//! Natives of the engine itself.

use rquickjs::prelude::Func;
use rquickjs::{Object, Result};

/// Adds the natives to `native`.
pub fn register(native: &Object<'_>) -> Result<()> {
    native.set("print", Func::from(|line: String| eprintln!("{line}")))
}
