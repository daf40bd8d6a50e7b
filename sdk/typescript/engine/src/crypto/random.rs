use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// The host's randomness, read at the time of a call: a generator with a state of its own would be copied with a snapshot.
pub struct Random(fn(&mut [u8]));

impl Random {
    /// `fill` fills the buffer with random bytes.
    pub const fn new(fill: fn(&mut [u8])) -> Self {
        Self(fill)
    }

    /// Random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.array()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.array()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        (self.0)(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}
