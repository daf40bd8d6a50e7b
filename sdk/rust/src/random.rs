//! Randomness of the gateway for crates that take it from `getrandom`. The target `wasm32-unknown-unknown` has none of its own, so each
//! version of `getrandom` calls a function that the policy has to define.

use std::num::NonZeroU32;
use std::slice;

/// Tells the encoder of components what the import below is. `cargo xtask bindings` generates it from
/// `random.wit`.
#[unsafe(link_section = "component-type:tidegate-policy:random")]
#[doc(hidden)]
pub static COMPONENT_TYPE: [u8; COMPONENT_TYPE_BYTES.len()] = *COMPONENT_TYPE_BYTES;

const COMPONENT_TYPE_BYTES: &[u8; include_bytes!("random.component-type").len()] =
    include_bytes!("random.component-type");

// Without memory and allocation, so that the call is cheap and works during an allocation.
#[link(wasm_import_module = "wasi:random/random@0.2.0")]
unsafe extern "C" {
    #[link_name = "get-random-u64"]
    safe fn get_random_u64() -> u64;
}

fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(size_of::<u64>()) {
        chunk.copy_from_slice(&get_random_u64().to_le_bytes()[..chunk.len()]);
    }
}

/// Called by getrandom 0.2 with the feature `custom`.
#[unsafe(no_mangle)]
unsafe fn __getrandom_custom(start: *mut u8, len: usize) -> u32 {
    // SAFETY: getrandom passes a buffer of its caller, which it has initialised.
    fill(unsafe { slice::from_raw_parts_mut(start, len) });
    0
}

/// Called by getrandom 0.3 and 0.4 with `--cfg getrandom_backend="custom"`.
#[unsafe(no_mangle)]
unsafe fn __getrandom_v03_custom(start: *mut u8, len: usize) -> Result<(), NonZeroU32> {
    // SAFETY: getrandom passes a buffer of its caller, which may be uninitialised until this writes it.
    fill(unsafe {
        start.write_bytes(0, len);
        slice::from_raw_parts_mut(start, len)
    });
    Ok(())
}
