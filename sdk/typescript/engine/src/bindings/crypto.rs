//! Natives of `src/crypto`. The platform script normalises their arguments; a wrong name is an error of the script.

use rquickjs::prelude::Func;
use rquickjs::{Ctx, Object, Result};

use super::{Bytes, Failure, or_throw};
use crate::crypto::aes::{Direction, Mode, crypt};
use crate::crypto::hash::{self, Hash};
use crate::crypto::keys::{self, Family, Format};
use crate::crypto::signature::Scheme;
use crate::crypto::{CryptoError, Random, kdf, oaep};
use crate::gateway;

/// Adds the natives to `native`.
pub fn register(native: &Object<'_>) -> Result<()> {
    register_secret(native)?;
    register_ciphers(native)?;
    register_formats(native)?;
    register_asymmetric(native)
}

impl From<CryptoError> for Failure {
    fn from(error: CryptoError) -> Self {
        Self::new(error.cause.name(), error.message)
    }
}

type Outcome<T> = std::result::Result<T, CryptoError>;

fn done<T>(ctx: &Ctx<'_>, outcome: Outcome<T>) -> Result<T> {
    or_throw(ctx, outcome.map_err(Failure::from))
}

fn bytes(ctx: &Ctx<'_>, outcome: Outcome<Vec<u8>>) -> Result<Bytes> {
    done(ctx, outcome.map(Bytes))
}

fn direction(encrypt: bool) -> Direction {
    if encrypt { Direction::Encrypt } else { Direction::Decrypt }
}

/// Hashes, HMAC, key derivation, and randomness.
fn register_secret(native: &Object<'_>) -> Result<()> {
    native.set(
        "random",
        Func::from(|length: usize| {
            let mut output = vec![0; length];
            random(&mut output);
            Bytes(output)
        }),
    )?;
    native.set("equal", Func::from(|left: Bytes, right: Bytes| hash::equal(&left, &right)))?;
    native.set(
        "digest",
        Func::from(|ctx: Ctx<'_>, hash: String, data: Bytes| {
            bytes(&ctx, Hash::find(&hash).map(|hash| hash.digest(&data)))
        }),
    )?;
    native.set(
        "hmac",
        Func::from(|ctx: Ctx<'_>, hash: String, key: Bytes, data: Bytes| {
            bytes(&ctx, Hash::find(&hash).map(|hash| hash.hmac(&key, &data)))
        }),
    )?;
    native.set(
        "hkdf",
        Func::from(|ctx: Ctx<'_>, hash: String, secret: Bytes, salt: Bytes, info: Bytes, length: usize| {
            bytes(&ctx, Hash::find(&hash).and_then(|hash| kdf::hkdf(hash, &secret, &salt, &info, length)))
        }),
    )?;
    native.set(
        "pbkdf2",
        Func::from(|ctx: Ctx<'_>, hash: String, password: Bytes, salt: Bytes, iterations: u32, length: usize| {
            bytes(&ctx, Hash::find(&hash).and_then(|hash| kdf::pbkdf2(hash, &password, &salt, iterations, length)))
        }),
    )?;
    native.set(
        "scrypt",
        Func::from(|ctx: Ctx<'_>, password: Bytes, salt: Bytes, cost: Vec<u32>, length: usize| {
            let &[n, r, p] = cost.as_slice() else {
                return done(&ctx, Err(CryptoError::operation("invalid scrypt parameters")));
            };
            bytes(&ctx, kdf::scrypt(&password, &salt, n, r, p, length))
        }),
    )
}

/// AES and RSA-OAEP.
fn register_ciphers(native: &Object<'_>) -> Result<()> {
    native.set(
        "aesCbc",
        Func::from(|ctx: Ctx<'_>, encrypt: bool, key: Bytes, iv: Bytes, data: Bytes, padding: bool| {
            bytes(&ctx, crypt(direction(encrypt), Mode::Cbc { iv: &iv, padding }, &key, &data))
        }),
    )?;
    native.set(
        "aesCtr",
        Func::from(|ctx: Ctx<'_>, key: Bytes, counter: Bytes, length: u32, data: Bytes| {
            bytes(&ctx, crypt(Direction::Encrypt, Mode::Ctr { counter: &counter, length }, &key, &data))
        }),
    )?;
    native.set(
        "aesGcm",
        Func::from(
            |ctx: Ctx<'_>,
             encrypt: bool,
             key: Bytes,
             iv: Bytes,
             additional_data: Bytes,
             tag_length: usize,
             data: Bytes| {
                let mode = Mode::Gcm { iv: &iv, additional_data: &additional_data, tag_length };
                bytes(&ctx, crypt(direction(encrypt), mode, &key, &data))
            },
        ),
    )?;
    native.set(
        "aesKw",
        Func::from(|ctx: Ctx<'_>, encrypt: bool, key: Bytes, data: Bytes| {
            bytes(&ctx, crypt(direction(encrypt), Mode::Kw, &key, &data))
        }),
    )?;
    native.set(
        "rsaOaep",
        Func::from(|ctx: Ctx<'_>, encrypt: bool, key: Bytes, hash: String, label: Bytes, data: Bytes| {
            let outcome = Hash::find(&hash)
                .and_then(|hash| oaep(direction(encrypt), &key, hash, &label, &data, &mut Random::new(random)));
            bytes(&ctx, outcome)
        }),
    )
}

/// Formats of keys.
fn register_formats(native: &Object<'_>) -> Result<()> {
    native.set("fromBase64Url", Func::from(|ctx: Ctx<'_>, text: String| bytes(&ctx, keys::from_base64_url(&text))))?;
    native.set("toBase64Url", Func::from(|data: Bytes| keys::to_base64_url(&data)))?;
    native.set(
        "keyFamily",
        Func::from(|ctx: Ctx<'_>, format: String, der: Bytes| {
            done(&ctx, Format::find(&format).and_then(|format| Family::of(format, &der)).map(Family::name))
        }),
    )?;
    native.set(
        "spkiOfCertificate",
        Func::from(|ctx: Ctx<'_>, der: Bytes| bytes(&ctx, keys::spki_of_certificate(&der))),
    )?;
    native.set(
        "keyImport",
        Func::from(|ctx: Ctx<'_>, family: String, format: String, key: Bytes| {
            bytes(&ctx, Family::find(&family).and_then(|family| family.import(Format::find(&format)?, &key)))
        }),
    )?;
    native.set(
        "keyExport",
        Func::from(|ctx: Ctx<'_>, family: String, format: String, key: Bytes| {
            bytes(&ctx, Family::find(&family).and_then(|family| family.export(Format::find(&format)?, &key)))
        }),
    )?;
    native.set(
        "keyImportJwk",
        Func::from(|ctx: Ctx<'_>, family: String, members: Vec<String>| {
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            bytes(&ctx, Family::find(&family).and_then(|family| family.import_jwk(&members)))
        }),
    )?;
    native.set(
        "keyExportJwk",
        Func::from(|ctx: Ctx<'_>, family: String, key: Bytes, is_private: bool| {
            done(&ctx, Family::find(&family).and_then(|family| family.export_jwk(&key, is_private)))
        }),
    )
}

/// Operations with asymmetric keys.
fn register_asymmetric(native: &Object<'_>) -> Result<()> {
    native.set(
        "keyGenerate",
        Func::from(|ctx: Ctx<'_>, family: String| {
            bytes(&ctx, Family::find(&family).and_then(|family| family.generate(&mut Random::new(random))))
        }),
    )?;
    native.set(
        "keyPublic",
        Func::from(|ctx: Ctx<'_>, family: String, private: Bytes| {
            bytes(&ctx, Family::find(&family).and_then(|family| family.public_of(&private)))
        }),
    )?;
    native.set(
        "agree",
        Func::from(|ctx: Ctx<'_>, family: String, private: Bytes, public: Bytes| {
            bytes(&ctx, Family::find(&family).and_then(|family| family.agree(&private, &public)))
        }),
    )?;
    native.set(
        "sign",
        Func::from(|ctx: Ctx<'_>, names: Vec<String>, salt_length: i32, private: Bytes, data: Bytes| {
            let sign = |scheme: Scheme| scheme.sign(&private, &data, &mut Random::new(random));
            bytes(&ctx, scheme(&names, salt_length).and_then(sign))
        }),
    )?;
    native.set(
        "verify",
        Func::from(
            |ctx: Ctx<'_>, names: Vec<String>, salt_length: i32, public: Bytes, data: Bytes, signature: Bytes| {
                done(&ctx, scheme(&names, salt_length).and_then(|scheme| scheme.verify(&public, &data, &signature)))
            },
        ),
    )
}

/// The scheme of an algorithm, a family, and a hash. A negative length is none.
fn scheme(names: &[String], salt_length: i32) -> Outcome<Scheme> {
    match names {
        [algorithm, family, hash] => {
            Scheme::find(algorithm, Family::find(family)?, hash, usize::try_from(salt_length).ok())
        }
        _ => Err(CryptoError::not_supported("Unrecognized algorithm name")),
    }
}

/// The host's randomness. At build, where the read defers the module and its result is dropped, all bytes are 1: keys are drawn until one
/// is valid, which zeros never are.
fn random(bytes: &mut [u8]) {
    if gateway::get().is_none() {
        bytes.fill(1);
    }
    gateway::random(bytes);
}
