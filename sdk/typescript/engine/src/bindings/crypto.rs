//! Natives of `src/crypto`.

use rquickjs::{Object, Result};

/// Adds the natives to `native`.
pub fn register(_native: &Object<'_>) -> Result<()> {
    Ok(())
}
