//! Panics of a policy go to the gateway's log, because a trap says neither what happened nor where.

use std::panic::PanicHookInfo;

use crate::log;

/// The gateway drops longer lines.
const MAX_TEXT_BYTES: usize = 4096;

/// What the standard library says on a target without a clock.
const NO_CLOCK: &str = "time not implemented on this platform";

/// Replaces the hook of the standard library, which writes to stderr, if the target has one.
pub fn install() {
    std::panic::set_hook(Box::new(|info| log::error(&text(info))));
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no text");
    let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let remedy = if text == NO_CLOCK {
        ": use `context::now()` or `context::system_time()`, or compile for wasm32-wasip2 (`rustup target add wasm32-wasip2`)"
    } else {
        ""
    };
    // The place first, because the text may be long.
    let mut line = format!("panicked{place}: {text}{remedy}");
    line.truncate(line.floor_char_boundary(MAX_TEXT_BYTES));
    line
}
