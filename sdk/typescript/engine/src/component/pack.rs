//! The last step of a build: the free memory of QuickJS is arranged for a decision.
//!
//! Freed objects leave holes in arenas all over the memory. A decision would fill them, and touch a page for nearly every object. With the
//! holes filled, its objects lie side by side on the few pages of new arenas.

use rquickjs::{Ctx, qjs};

use crate::memory;

/// Bytes of the blocks of QuickJS's arenas, its header of 8 bytes included.
const BLOCK_BYTES: [usize; 31] = [
    16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320,
    352, 384, 416, 448, 480, 512,
];
/// More holes of one size than an app has.
const MAX_HOLES: usize = 1 << 20;

/// Fills the holes of all arenas, and leaves a new arena for each size.
pub fn fill_holes(ctx: &Ctx<'_>) {
    for bytes in BLOCK_BYTES.map(|block| block - 8) {
        let arenas = memory::arenas();
        for _ in 0..MAX_HOLES {
            // SAFETY: the block is never freed, and has this many bytes.
            unsafe {
                let block = qjs::js_malloc(ctx.as_raw().as_ptr(), bytes as qjs::size_t);
                if block.is_null() {
                    return;
                }
                block.cast::<u8>().write_bytes(0, bytes);
            }
            if memory::arenas() > arenas {
                break;
            }
        }
    }
}
