//! Numbers as lower-case hexadecimal digits, for the bytes of each event and stream: `write!` would take several times as long.

/// The number of hex digits of a number, 1 to 16.
pub const fn hex_digits(number: u64) -> usize {
    // `| 1`, because 0 has one digit too.
    (67 - (number | 1).leading_zeros() as usize) / 4
}

/// Writes the last digits of a number, as many as there is room for.
pub fn fill_hex(digits: &mut [u8], number: u64) {
    for (i, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * i)) as usize & 15];
    }
}
