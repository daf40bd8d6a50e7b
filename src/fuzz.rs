//! Properties of the code that reads untrusted input. The targets in `fuzz/` call them; their corpus also runs with the unit tests.
//!
//! Each function takes bytes and panics if a property does not hold.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authz::cache::key;
use crate::authz::validate::AnswerCheck;
use crate::config::Config;
use crate::policy::cache_directive::Vary;
use crate::policy::request::parse_client_address;
use crate::policy::{self, Outcome};
use crate::server::data::request::{Query, for_policy};
use crate::server::host::normalize_host;
use crate::stream::position::Positions;
use crate::tokens::key::KeySet;
use crate::tokens::{Audience, KeySource, Profile, Tokens, Verdict};
use crate::wasm::component::Policy;
use crate::wasm::engine;
use crate::wasm::host::{RequestParts, wit};

/// The query of a URL. Queries with the same cache key name the same channels.
pub fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let bare = key::without_positions(&text).collect::<Vec<_>>().join("&");
    let Ok(bare) = Query::parse(&bare) else { panic!("invalid without acks: {text:?}") };
    assert_eq!(bare.last_event_id, None, "{text:?}");
    assert!(bare.starts.iter().all(|start| *start == crate::channel::cursor::StartPosition::Tail), "{text:?}");
    if let Ok(query) = Query::parse(&text) {
        assert_eq!(query.channels, bare.channels, "{text:?}");
        assert!(!query.channels.is_empty() && query.channels.len() == query.starts.len());
        let unique: std::collections::HashSet<_> = query.channels.iter().collect();
        assert_eq!(unique.len(), query.channels.len());
        // An id that was taken over is written in the same meaning.
        let mut positions = Positions::new(&query.channels);
        positions.resume(query.last_event_id.unwrap_or_default().as_bytes());
        let (mut line, mut again) = (bytes::BytesMut::new(), Positions::new(&query.channels));
        positions.write_line(&mut line);
        again.resume(line.strip_prefix(b"id: ").expect("a line").trim_ascii_end());
        assert_eq!(again, positions, "{text:?}");
    }
}

/// An HTTP request that a policy sees. One part per line: the URL, then headers as `name: value`.
pub fn request(bytes: &[u8]) {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| {
        let raw = toml::from_str("allow-all = true\nserver.trusted-proxies = ['10.0.0.0/8']");
        Config::validate(raw.expect("TOML")).expect("valid")
    });
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Ok(mut request) = http::Request::builder().uri(lines.next().unwrap_or_default()).body(()) else { return };
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.get(1..).unwrap_or_default()))
        {
            request.headers_mut().append(name, value);
        }
    }
    let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1);
    let has_host = normalize_host(&mut request).is_ok();
    let headers = request.headers().clone();
    let policy_request = for_policy(&mut request, peer, &CONFIG);
    let hosts: Vec<_> = headers.get_all(HOST).iter().map(HeaderValue::as_bytes).collect();
    assert!(!has_host || hosts == [policy_request.authority.as_bytes()], "{policy_request:?}");
    let is_named = headers.contains_key("x-forwarded-for");
    assert!(is_named || policy_request.client_address.is_none(), "a proxy is not a client: {policy_request:?}");
    let text = policy_request.client_address_text();
    assert_eq!(parse_client_address(&text), Ok(policy_request.client_address), "it is canonical");
    assert!(policy_request.scheme == "http" || policy_request.scheme == "https", "{policy_request:?}");
    let cookies = |headers: &HeaderMap| headers.get_all(COOKIE).iter().count();
    assert_eq!(cookies(&policy_request.headers), cookies(&headers).min(1));
    let channels = ["a".to_owned()];
    let vary = Vary::new(&["cookie".into()], policy_request.client_address.is_none()).expect("a name");
    let key = |request: &policy::Request| key::decision(&key::base(request, &channels), &vary, request);
    let mut other = policy::Request { id: "another id".into(), ..policy_request.clone() };
    other.headers.append("x-other", HeaderValue::from_static("not in vary"));
    assert_eq!(key(&other), key(&policy_request));
    other.headers.append(COOKIE, HeaderValue::from_static("in=vary"));
    assert_ne!(key(&other), key(&policy_request));
    let parts = RequestParts::new(&policy_request);
    let wit_request = parts.to_wit();
    assert!(
        wit_request
            .headers
            .iter()
            .all(|header| !header.name.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' '))
    );
    assert!(wit_request.headers.iter().all(|header| !header.value.iter().any(|byte| b"\r\n\0".contains(byte))));
}

/// The answer of a policy.
pub fn answer(bytes: &[u8]) {
    let mut input = Input(bytes);
    let channels = ["a".to_owned(), "b".to_owned()];
    let check = AnswerCheck { channels: &channels, limit: 4096, now: 1_000, replay_since: None };
    let headers = |input: &mut Input<'_>| {
        input.list(|input| wit::HeaderResult { name: input.text(), value: input.bytes().to_vec() })
    };
    let answer = if input.byte().is_multiple_of(2) {
        Ok(wit::Grant {
            subject: input.option(Input::text),
            channels: input.option(|input| input.list(Input::text)),
            expires_at: input.option(|input| input.number()),
            headers: headers(&mut input),
        })
    } else {
        Err(wit::Rejection {
            status: (input.number() % 1024) as u16,
            headers: headers(&mut input),
            body: input.bytes().to_vec(),
        })
    };
    match check.outcome(answer) {
        Outcome::Allowed(grant) => {
            let granted = grant.channels.as_deref().unwrap_or(&channels);
            assert!(!granted.is_empty() && granted.iter().all(|name| channels.contains(name)), "{grant:?}");
            assert!(grant.expires_at.is_none_or(|at| at > check.now), "{grant:?}");
            let may = |name: &HeaderName| name == "set-cookie" || name.as_str().starts_with("x-");
            assert!(grant.headers.keys().all(may), "{grant:?}");
        }
        Outcome::Rejected(rejection) => {
            assert!((200..=599).contains(&rejection.status.as_u16()), "{rejection:?}");
            let owned = |name: &HeaderName| {
                let name = name.as_str();
                name.starts_with("access-control-")
                    || ["content-length", "transfer-encoding", "connection"].contains(&name)
            };
            assert!(!rejection.headers.keys().any(owned), "{rejection:?}");
            assert!(rejection.body.len() <= check.limit, "{rejection:?}");
        }
        Outcome::Failed(failure) => assert_eq!(failure.kind(), "invalid-answer"),
    }
}

/// A token, and in the following lines its keys, a JWKS or PEM, both untrusted. With an unknown secret no token is valid.
pub fn token(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (token, keys) = bytes.split_at(end);
    let (token, keys) = (String::from_utf8_lossy(token), keys.get(1..).unwrap_or_default());
    let secret = b"a secret that no input of these targets was made with";
    assert!(!is_valid(KeySet::from_secret(secret), &token), "{token}");
    let read = [
        KeySet::from_jwks(keys, true),
        KeySet::from_jwks(keys, false),
        KeySet::from_pem(&String::from_utf8_lossy(keys)),
    ];
    for keys in read.into_iter().flatten() {
        is_valid(keys, &token);
    }
}

fn is_valid(keys: KeySet, token: &str) -> bool {
    let profile = Profile {
        issuer: None,
        audience: Audience::Any,
        leeway: 0,
        require_exp: false,
        algorithms: keys.algorithms(),
        keys: KeySource::Fixed(keys),
        warning: None,
    };
    let tokens: Tokens = [("any".to_owned(), profile)].into_iter().collect();
    match tokens.verify(token, 0) {
        Verdict::Valid(claims) => serde_json::from_str::<serde_json::Map<_, _>>(&claims).is_ok(),
        Verdict::Invalid(_) => false,
        Verdict::Pending(_) => panic!("fixed keys are never pending"),
    }
}

/// A policy file.
pub fn component(bytes: &[u8]) {
    let engines = engine::shared().expect("engines");
    match Policy::new(&engines.into(), bytes) {
        Ok(policy) => assert!(policy.digest().starts_with("sha256:")),
        Err(error) => assert!(error.to_string().len() < 4096, "{error}"),
    }
}

/// Takes values off the input; at its end, all values are zero or empty.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from(self.byte()) << 8 | u64::from(self.byte())
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.byte().is_multiple_of(2)).then(|| take(self))
    }

    fn list<T>(&mut self, mut take: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte()).map(|_| take(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    /// Runs each input of the corpus, which includes those that once found a bug, then `mutations` random mutations of them.
    fn corpus(target: &str, run: fn(&[u8]), mutations: u32) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut paths: Vec<_> =
            std::fs::read_dir(&directory).expect("a corpus").map(|file| file.expect("a file").path()).collect();
        paths.sort_unstable();
        let inputs: Vec<_> = paths.iter().map(|path| std::fs::read(path).expect("it is read")).collect();
        assert!(inputs.len() > 2, "{} is empty", directory.display());
        for (path, input) in paths.iter().zip(&inputs) {
            // Test output is shown if the test fails.
            eprintln!("{}", path.display());
            run(input);
        }
        let mutations = std::env::var("TIDEGATE_FUZZ").map_or(mutations, |count| count.parse().expect("a number"));
        let mut dice = SmallRng::seed_from_u64(1);
        for _ in 0..mutations {
            let mut input = inputs[dice.random_range(0..inputs.len())].clone();
            for _ in 0..dice.random_range(1..8) {
                mutate(&mut input, &inputs, &mut dice);
            }
            let _printed = PrintOnPanic(&input);
            run(&input);
        }
    }

    /// Prints the input if a property panics.
    struct PrintOnPanic<'a>(&'a [u8]);

    impl Drop for PrintOnPanic<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input was {}", self.0.escape_ascii());
            }
        }
    }

    fn mutate(input: &mut Vec<u8>, inputs: &[Vec<u8>], dice: &mut SmallRng) {
        let at = dice.random_range(0..=input.len());
        let other = &inputs[dice.random_range(0..inputs.len())];
        let from = dice.random_range(0..=other.len());
        let part = &other[from..(from + dice.random_range(0..40)).min(other.len())];
        match dice.random_range(0..6) {
            0 => input.insert(at, dice.random()),
            1 => drop(input.splice(at..at, part.iter().copied())),
            2 => drop(input.drain(at..(at + dice.random_range(0..10)).min(input.len()))),
            3 => input.truncate(at.max(1)),
            _ if at < input.len() => input[at] = dice.random(),
            _ => input.push(b'&'),
        }
    }

    #[test]
    fn queries_of_the_corpus() {
        corpus("query", super::query, 20_000);
    }

    #[test]
    fn requests_of_the_corpus() {
        corpus("request", super::request, 20_000);
    }

    #[test]
    fn answers_of_the_corpus() {
        corpus("answer", super::answer, 20_000);
    }

    #[test]
    fn tokens_of_the_corpus() {
        corpus("token", super::token, 2_000);
    }

    #[test]
    fn components_of_the_corpus() {
        corpus("component", super::component, 300);
    }
}
