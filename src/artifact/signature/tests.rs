use ed25519_dalek::SigningKey;

use super::*;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn trusted(keys: &[&SigningKey]) -> TrustedKeys {
    TrustedKeys(keys.iter().map(|key| key.verifying_key()).collect())
}

fn signed(component: &[u8], cases: Option<&str>, sequence: u64) -> Signature {
    Statement::of(component, cases, sequence).sign(&key(1))
}

#[test]
fn signature_is_required_only_with_trusted_keys() {
    let signature = signed(b"policy", None, 1);
    let verify = |keys: &[&SigningKey], signature| trusted(keys).verify(Digest::of(b"policy"), None, signature);
    assert_eq!(verify(&[], None), Ok(None));
    assert_eq!(verify(&[&key(1)], None), Err(SignatureError::Unsigned));
    assert_eq!(verify(&[], Some(&signature)), Err(SignatureError::NoTrustedKey));
    assert_eq!(verify(&[&key(1)], Some(&signature)), Ok(Some(Statement::of(b"policy", None, 1))));
    assert!(verify(&[&key(2), &key(1)], Some(&signature)).is_ok(), "one of several keys");
}

#[test]
fn signature_is_valid_for_one_component_cases_sequence_and_key() {
    let signature = signed(b"policy", Some("cases"), 7);
    let trust = trusted(&[&key(1)]);
    let refused = |component: &[u8], cases, signature: &Signature| {
        trust.verify(Digest::of(component), cases, Some(signature)).expect_err("refused").to_string()
    };
    assert!(trust.verify(Digest::of(b"policy"), Some("cases"), Some(&signature)).is_ok());
    assert!(refused(b"Policy", Some("cases"), &signature).contains("another component"));
    assert!(refused(b"policy", Some("Cases"), &signature).contains("another table of cases"));
    assert!(refused(b"policy", None, &signature).contains("and this is none"));
    assert!(refused(b"policy", Some("cases"), &signed(b"policy", None, 7)).contains("it names none"));
    // A changed statement needs a new signature.
    for changed in [
        Signature { sequence: 8, ..signature.clone() },
        Signature { signature: signed(b"policy", Some("cases"), 8).signature, ..signature.clone() },
        Signature { signature: signature.signature[..80].into(), ..signature.clone() },
        Signature { signature: "…".into(), ..signature.clone() },
        Signature { signature: String::new(), ..signature.clone() },
        Statement::of(b"policy", Some("cases"), 7).sign(&key(2)),
        // The key that it names does not matter.
        Signature { key: signature.key.clone(), ..Statement::of(b"policy", Some("cases"), 7).sign(&key(2)) },
    ] {
        assert!(refused(b"policy", Some("cases"), &changed).contains("no trusted key"), "{changed:?}");
    }
    let named = Signature { key: "\u{1b}[2J".into(), ..Statement::of(b"policy", None, 7).sign(&key(2)) };
    assert!(refused(b"policy", None, &named).contains("the key ?;"));
    assert!(refused(b"policy", None, &signed(b"policy", None, 0)).contains("from 1 to"));
    assert!(refused(b"policy", None, &signed(b"policy", None, 1 << 53)).contains("from 1 to"));
}

#[test]
fn truncated_or_unknown_signature_files_are_refused() {
    let signature = signed(b"policy", None, 3);
    let text = signature.text();
    assert_eq!(Signature::parse(text.as_bytes()), Ok(signature));
    for cut in 0..text.len() {
        assert!(Signature::parse(&text.as_bytes()[..cut]).is_err(), "{cut}");
    }
    let refused = |text: &str| Signature::parse(text.as_bytes()).expect_err("refused").to_string();
    assert!(refused(&text.replace("\"version\":1", "\"version\":2")).contains("version 2"));
    assert!(refused(&text.replace("\"version\":1", "\"version\":1,\"more\":1")).contains("unknown field"));
    assert!(refused(&text.replace("\"sequence\":3", "\"sequence\":-3")).contains("invalid value"));
    assert!(refused(&text.replace("sha256:", "sha256:0")).contains("not a digest"));
    assert!(refused(&" ".repeat(MAX_SIGNATURE_BYTES + 1)).contains("larger than"));
}

#[test]
fn canonical_statement_does_not_change() {
    let statement = Statement::of(b"abc", Some("abc"), 12);
    let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = format!("tidegate policy signature 1\ncomponent {abc}\ncases {abc}\nsequence 12\n");
    assert_eq!(statement.canonical(), text);
    let without = Statement { cases: None, ..statement };
    assert!(without.canonical().contains("\ncases none\n"));
}

#[test]
fn keys_have_the_form_of_openssl() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    // `openssl genpkey -algorithm ed25519`, and `openssl pkey -pubout` of it.
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n-----END PRIVATE KEY-----\n";
    std::fs::write(path("key.pem"), private).expect("written");
    let read = key::read_private_key(&path("key.pem")).expect("a key");
    assert_eq!(read.to_bytes(), [1; 32]);
    let (again, public) = key::to_pem(&read).expect("PEM");
    assert_eq!(again, private);
    std::fs::write(path("key.pub.pem"), &public).expect("written");
    let trust = TrustedKeys::load(&[path("key.pub.pem")]).expect("a key");
    assert!(trust.verify(Digest::of(b"policy"), None, Some(&signed(b"policy", None, 1))).is_ok());
    let refused = |name: &str, text: &str| {
        std::fs::write(path(name), text).expect("written");
        TrustedKeys::load(&[path(name)]).expect_err("refused").to_string()
    };
    assert!(refused("a", private).contains("must not have"));
    assert!(refused("b", "nothing").contains("BEGIN PUBLIC KEY"));
    assert!(refused("c", "").contains("BEGIN PUBLIC KEY"));
    // The neutral point, for which any message has a valid signature.
    let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    assert!(refused("d", weak).contains("weak"));
    assert!(key::read_private_key(&path("key.pub.pem")).expect_err("public").to_string().contains("BEGIN PRIVATE KEY"));
    assert!(TrustedKeys::load(&[path("nowhere")]).expect_err("nothing").to_string().contains("nowhere"));
    assert_ne!(key::generate().to_bytes(), key::generate().to_bytes());
}
