//! What memory costs in the allocator.

/// What an allocator takes for this many bytes: it rounds up to a quarter of a power of two.
pub const fn allocation(bytes: usize) -> usize {
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(if step < 16 { 16 } else { step })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_by_jemalloc() {
        for (bytes, expect) in [(1, 16), (100, 112), (129, 160), (4096, 4096), (4180, 5120), (65_537, 81_920)] {
            assert_eq!(allocation(bytes), expect, "{bytes}");
        }
    }
}
