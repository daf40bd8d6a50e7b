//! Keys from secrets: HKDF, PBKDF2 and scrypt.

use hkdf::Hkdf;

use super::CryptoError;
use super::hash::{Hash, with_standard_hash};

/// The memory that scrypt may use, as in Node.
const MAX_SCRYPT_BYTES: u64 = 32 * 1024 * 1024;

/// HKDF of RFC 5869, extract and expand.
pub fn hkdf(hash: Hash, secret: &[u8], salt: &[u8], info: &[u8], length: usize) -> Result<Vec<u8>, CryptoError> {
    if length > 255 * hash.size() {
        return Err(CryptoError::operation("the length is more than HKDF can derive"));
    }
    let mut output = vec![0; length];
    with_standard_hash!(hash, D => Hkdf::<D>::new(Some(salt), secret).expand(info, &mut output))
        .map_err(|_| CryptoError::operation("the length is more than HKDF can derive"))?;
    Ok(output)
}

/// PBKDF2 of RFC 8018 with HMAC.
pub fn pbkdf2(
    hash: Hash,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    length: usize,
) -> Result<Vec<u8>, CryptoError> {
    if iterations == 0 {
        return Err(CryptoError::operation("iterations cannot be zero"));
    }
    let mut output = zeros(length)?;
    with_standard_hash!(hash, D => pbkdf2::pbkdf2_hmac::<D>(password, salt, iterations, &mut output));
    Ok(output)
}

/// scrypt of RFC 7914 with `n` a power of two.
pub fn scrypt(password: &[u8], salt: &[u8], n: u32, r: u32, p: u32, length: usize) -> Result<Vec<u8>, CryptoError> {
    let invalid = CryptoError::operation("invalid scrypt parameters");
    if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
        return Err(invalid);
    }
    if 128 * u64::from(n) * u64::from(r) > MAX_SCRYPT_BYTES || 128 * u64::from(p) * u64::from(r) > MAX_SCRYPT_BYTES {
        return Err(CryptoError::operation("scrypt needs more than 32 MiB of memory"));
    }
    let log_n = u8::try_from(n.ilog2()).map_err(|_| invalid)?;
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| invalid)?;
    let mut output = zeros(length)?;
    scrypt::scrypt(password, salt, &params, &mut output).map_err(|_| invalid)?;
    Ok(output)
}

/// A length comes from the caller: an allocation that fails would end the instance.
fn zeros(length: usize) -> Result<Vec<u8>, CryptoError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| CryptoError::operation("not enough memory for the derived bits"))?;
    bytes.resize(length, 0);
    Ok(bytes)
}
