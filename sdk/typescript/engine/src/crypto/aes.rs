//! AES in the modes of the standard's interface.

use aes::cipher::block_padding::{NoPadding, Pkcs7};
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit, KeyInit,
};
use aes::cipher::{StreamCipher, consts::U16};
use aes::{Aes128, Aes192, Aes256};
use aes_kw::AesKw;
use aes_kw::aes::cipher::common::InnerInit;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::CryptoError;
use super::hash::equal;

const BLOCK: usize = 16;
type Block = [u8; BLOCK];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Encrypt,
    Decrypt,
}

/// What WebCrypto calls `AesCbcParams`, `AesCtrParams` and `AesGcmParams`.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// With PKCS #7 padding, or without any, which Node has.
    Cbc { iv: &'a [u8], padding: bool },
    /// `length` is the number of bits of the counter at the end of the block, 1 to 128.
    Ctr { counter: &'a [u8], length: u32 },
    /// `tag_length` is in bytes. The tag follows the ciphertext.
    Gcm { iv: &'a [u8], additional_data: &'a [u8], tag_length: usize },
    /// Key wrapping of RFC 3394.
    Kw,
}

/// Encrypts or decrypts with a key of 128, 192 or 256 bits.
pub fn crypt(direction: Direction, mode: Mode<'_>, key: &[u8], data: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let invalid = |_| CryptoError::operation("AES keys have 128, 192 or 256 bits");
    match key.len() {
        24 => with_cipher(direction, mode, &Aes192::new_from_slice(key).map_err(invalid)?, data),
        32 => with_cipher(direction, mode, &Aes256::new_from_slice(key).map_err(invalid)?, data),
        _ => with_cipher(direction, mode, &Aes128::new_from_slice(key).map_err(invalid)?, data),
    }
}

trait Cipher: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone {}
impl<C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone> Cipher for C {}

fn with_cipher<C: Cipher>(
    direction: Direction,
    mode: Mode<'_>,
    cipher: &C,
    data: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    match (mode, direction) {
        (Mode::Gcm { iv: [], .. }, _) => Err(CryptoError::operation("the initialization vector is empty")),
        (Mode::Cbc { iv, padding }, _) => cbc(direction, cipher, iv, padding, data),
        (Mode::Ctr { counter, length }, _) => ctr(cipher, counter, length, data),
        (Mode::Gcm { iv, additional_data, tag_length }, Direction::Encrypt) => {
            Ok(Gcm::new(cipher, iv).seal(additional_data, tag_length, data))
        }
        (Mode::Gcm { iv, additional_data, tag_length }, Direction::Decrypt) => {
            Gcm::new(cipher, iv).open(additional_data, tag_length, data)
        }
        (Mode::Kw, Direction::Encrypt) => wrap(cipher, data),
        (Mode::Kw, Direction::Decrypt) => unwrap(cipher, data),
    }
}

fn cbc<C: Cipher>(
    direction: Direction,
    cipher: &C,
    iv: &[u8],
    padding: bool,
    data: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let iv: Block = block(iv)?;
    match direction {
        Direction::Encrypt => {
            let cipher = cbc::Encryptor::inner_iv_init(cipher.clone(), &iv.into());
            if padding {
                return Ok(cipher.encrypt_padded_vec::<Pkcs7>(data));
            }
            if !data.len().is_multiple_of(BLOCK) {
                return Err(CryptoError::operation("the data is not a multiple of the block length"));
            }
            Ok(cipher.encrypt_padded_vec::<NoPadding>(data))
        }
        Direction::Decrypt => {
            let cipher = cbc::Decryptor::inner_iv_init(cipher.clone(), &iv.into());
            let output = match padding {
                true => cipher.decrypt_padded_vec::<Pkcs7>(data),
                false => cipher.decrypt_padded_vec::<NoPadding>(data),
            };
            output.map_err(|_| FAILED)
        }
    }
}

const FAILED: CryptoError = CryptoError::operation("the data cannot be decrypted with this key");

fn block(bytes: &[u8]) -> Result<Block, CryptoError> {
    bytes.try_into().map_err(|_| CryptoError::operation("the initialization vector or counter must have 16 bytes"))
}

/// The counter is the last bits of the block; it wraps without a carry into the nonce, and may not repeat.
fn ctr<C: Cipher>(cipher: &C, counter: &[u8], length: u32, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let start = u128::from_be_bytes(block(counter)?);
    if !(1..=128).contains(&length) {
        return Err(CryptoError::operation("the counter must have 1 to 128 bits"));
    }
    let mask = u128::MAX >> (128 - length);
    let blocks = data.len().div_ceil(BLOCK) as u128;
    if blocks.saturating_sub(1) > mask {
        return Err(CryptoError::operation("the data has more blocks than the counter has values"));
    }
    // Blocks before the counter is zero again; 0 stands for 2^128.
    let before_wrap = (mask - (start & mask)).wrapping_add(1);
    let mut output = data.to_vec();
    let split = match before_wrap {
        0 => output.len(),
        count => usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(BLOCK))
            .map_or(output.len(), |split| split.min(output.len())),
    };
    let (first, rest) = output.split_at_mut(split);
    keystream(cipher, start, first);
    keystream(cipher, start & !mask, rest);
    Ok(output)
}

fn keystream<C: Cipher>(cipher: &C, counter: u128, data: &mut [u8]) {
    let mut stream =
        ctr::Ctr128BE::from_core(ctr::CtrCore::inner_iv_init(cipher.clone(), &counter.to_be_bytes().into()));
    stream.apply_keystream(data);
}

/// Galois/Counter Mode of NIST SP 800-38D on the library's GHASH and counter mode: the standard's interface has vectors of any length
/// and seven lengths of tags, which are types in the library's own mode.
struct Gcm<'a, C> {
    cipher: &'a C,
    ghash: GHash,
    counter: Block,
}

impl<'a, C: Cipher> Gcm<'a, C> {
    fn new(cipher: &'a C, iv: &[u8]) -> Self {
        let mut key = ghash::Key::default();
        cipher.encrypt_block(&mut key);
        let ghash = GHash::new(&key);
        let counter = match <[u8; 12]>::try_from(iv) {
            Ok(iv) => {
                let mut counter = [0; BLOCK];
                counter[..12].copy_from_slice(&iv);
                counter[15] = 1;
                counter
            }
            Err(_) => hashed(ghash.clone(), &[], iv),
        };
        Self { cipher, ghash, counter }
    }

    fn seal(self, additional_data: &[u8], tag_length: usize, data: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(data.len() + BLOCK);
        output.extend_from_slice(data);
        self.encrypt(&mut output);
        let tag = self.tag(additional_data, &output);
        output.extend_from_slice(&tag[..tag_length.min(BLOCK)]);
        output
    }

    fn open(self, additional_data: &[u8], tag_length: usize, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let length = data.len().checked_sub(tag_length.min(BLOCK)).ok_or(FAILED)?;
        let (data, tag) = data.split_at(length);
        if !equal(&self.tag(additional_data, data)[..tag.len()], tag) {
            return Err(FAILED);
        }
        let mut output = data.to_vec();
        self.encrypt(&mut output);
        Ok(output)
    }

    /// The counter's last 32 bits count from the one after the block that masks the tag.
    fn encrypt(&self, data: &mut [u8]) {
        let mut counter = self.counter;
        let count = u32::from_be_bytes([counter[12], counter[13], counter[14], counter[15]]).wrapping_add(1);
        counter[12..].copy_from_slice(&count.to_be_bytes());
        let core = ctr::CtrCore::<_, ctr::flavors::Ctr32BE>::inner_iv_init(self.cipher.clone(), &counter.into());
        ctr::Ctr32BE::from_core(core).apply_keystream(data);
    }

    fn tag(&self, additional_data: &[u8], ciphertext: &[u8]) -> Block {
        let mut mask = self.counter.into();
        self.cipher.encrypt_block(&mut mask);
        let mut tag = hashed(self.ghash.clone(), additional_data, ciphertext);
        for (byte, mask) in tag.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        tag
    }
}

/// GHASH of both parts, each padded, and their lengths in bits.
fn hashed(mut ghash: GHash, additional_data: &[u8], data: &[u8]) -> Block {
    let bits = |bytes: &[u8]| (bytes.len() as u64 * 8).to_be_bytes();
    let mut lengths = [0; BLOCK];
    lengths[..8].copy_from_slice(&bits(additional_data));
    lengths[8..].copy_from_slice(&bits(data));
    ghash.update_padded(additional_data);
    ghash.update_padded(data);
    ghash.update(&[lengths.into()]);
    ghash.finalize().into()
}

fn wrap<C: Cipher>(cipher: &C, key: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let invalid = CryptoError::operation("AES-KW wraps multiples of 8 bytes, of 16 at least");
    if key.len() < 16 {
        return Err(invalid);
    }
    let mut output = vec![0; key.len() + 8];
    AesKw::inner_init(cipher.clone()).wrap_key(key, &mut output).map_err(|_| invalid)?;
    Ok(output)
}

fn unwrap<C: Cipher>(cipher: &C, wrapped: &[u8]) -> Result<Vec<u8>, CryptoError> {
    if wrapped.len() < 24 {
        return Err(FAILED);
    }
    let mut output = vec![0; wrapped.len() - 8];
    AesKw::inner_init(cipher.clone()).unwrap_key(wrapped, &mut output).map_err(|_| FAILED)?;
    Ok(output)
}
