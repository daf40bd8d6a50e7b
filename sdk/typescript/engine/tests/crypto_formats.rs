//! What the substitutes for Node's `crypto` use beyond the standard's interface: more hashes, scrypt, and formats of OpenSSL.

use std::process::Command;

use tidegate_js::crypto::hash::{Hash, equal};
use tidegate_js::crypto::keys::{Family, Format, spki_of_certificate};
use tidegate_js::crypto::{Cause, kdf};

/// Runs openssl with `input`, and returns what it writes.
fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl starts");
    child.stdin.take().expect("its input is a pipe").write_all(input).expect("openssl reads its input");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {args:?} fails");
    output.stdout
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn hashes_of_node_only() {
    let check = |hash: Hash, expected: &str| assert_eq!(hex(&hash.digest(b"abc")), expected);
    check(Hash::Md5, "900150983cd24fb0d6963f7d28e17f72");
    check(Hash::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7");
}

#[test]
fn scrypt_of_rfc_7914() {
    let check = |password: &[u8], salt: &[u8], n, r, p, expected: &str| {
        let derived = kdf::scrypt(password, salt, n, r, p, 64).expect("valid parameters");
        assert!(hex(&derived).starts_with(expected), "{}", hex(&derived));
    };
    check(b"", b"", 16, 1, 1, "77d6576238657b203b19ca42c18a0497");
    check(b"password", b"NaCl", 1024, 8, 16, "fdbabe1c9d3472007856e7190d01e9fe");
    check(b"pleaseletmein", b"SodiumChloride", 16384, 8, 1, "7023bdcb3afd7348461c06cd81fd38eb");
}

#[test]
fn scrypt_refuses_what_needs_too_much_memory() {
    for (n, r, p) in [(0, 8, 1), (3, 8, 1), (16384, 0, 1), (16384, 8, 0), (1 << 20, 8, 1), (2, 1 << 20, 1 << 10)] {
        assert_eq!(
            kdf::scrypt(b"", b"", n, r, p, 32).map_err(|error| error.cause),
            Err(Cause::Operation),
            "{n} {r} {p}"
        );
    }
}

#[test]
fn comparison_needs_equal_lengths() {
    assert!(equal(b"", b"") && equal(b"ab", b"ab"));
    assert!(!equal(b"ab", b"ac") && !equal(b"ab", b"abc") && !equal(b"ab", b""));
}

#[test]
fn keys_of_openssl_in_the_traditional_format() {
    for (family, generate) in [
        ("RSA", &["genrsa", "2048"][..]),
        ("P-256", &["ecparam", "-name", "prime256v1", "-genkey", "-noout"]),
        ("P-384", &["ecparam", "-name", "secp384r1", "-genkey", "-noout"]),
        ("P-521", &["ecparam", "-name", "secp521r1", "-genkey", "-noout"]),
    ] {
        let command = if family == "RSA" { "rsa" } else { "ec" };
        let traditional = if family == "RSA" { &["-traditional"][..] } else { &[] };
        let pem = openssl(generate, &[]);
        let der = openssl(&[&[command, "-outform", "DER"], traditional].concat(), &pem);
        let public = openssl(&[command, "-pubout", "-outform", "DER"], &pem);
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem);

        let found = Family::of(Format::Traditional, &der).expect("the key says what it is");
        assert_eq!(found.name(), family);
        assert_eq!(Family::of(Format::Pkcs8, &pkcs8), Ok(found));
        assert_eq!(Family::of(Format::Spki, &public), Ok(found));
        let key = found.import(Format::Traditional, &der).expect("a key");
        assert_eq!(found.export(Format::Traditional, &key).as_ref(), Ok(&der), "{family}");
        assert_eq!(found.export(Format::Pkcs8, &key).as_ref(), Ok(&pkcs8), "{family}");
        let open = found.public_of(&key).expect("a public key");
        assert_eq!(found.export(Format::Spki, &open).as_ref(), Ok(&public), "{family}");
    }
}

#[test]
fn public_key_of_a_certificate() {
    let key = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], &[]);
    let directory = std::env::temp_dir().join(format!("tidegate-certificate-{}", std::process::id()));
    std::fs::write(&directory, &key).expect("the key is written");
    let path = directory.to_string_lossy();
    let certificate = openssl(&["req", "-x509", "-key", &path, "-subj", "/CN=test", "-outform", "DER"], &[]);
    std::fs::remove_file(&directory).expect("the key is removed");
    let public = openssl(&["ec", "-pubout", "-outform", "DER"], &key);
    assert_eq!(spki_of_certificate(&certificate), Ok(public));
}

#[test]
fn malformed_keys_are_data_errors() {
    let formats = [Format::Raw, Format::Spki, Format::Pkcs8, Format::Traditional];
    for name in ["RSA", "P-256", "P-384", "P-521", "Ed25519", "X25519"] {
        let family = Family::find(name).expect("a family");
        for format in formats {
            for bytes in [&[][..], &[0], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[4; 64], &[0xff; 300]] {
                assert_eq!(
                    family.import(format, bytes).map_err(|error| error.cause),
                    Err(Cause::Data),
                    "{name} {format:?}"
                );
            }
        }
        for members in [&[][..], &["AQ"], &["AQ", "AQ"], &["", ""], &["AQ", "AQ", "AQ"], &["AQ"; 8], &["*", "*"]] {
            assert_eq!(family.import_jwk(members).map_err(|error| error.cause), Err(Cause::Data), "{name} {members:?}");
        }
    }
    assert_eq!(spki_of_certificate(&[0x30, 0]).map_err(|error| error.cause), Err(Cause::Data));
}
