//! Selects the clients for which a shadow policy is evaluated.

use http::header::{AUTHORIZATION, COOKIE};
use sha2::{Digest, Sha256};

use crate::policy::{Grant, Outcome, Request};

/// Whether a client belongs to the sample: by its subject if it has one, else by its credentials and address. A client is in the sample
/// always or never, on every node and after a restart; each shadow policy has another sample. A client that manipulates this gains
/// nothing, because shadow decisions have no effect.
pub fn is_sampled(digest: &str, share: f64, request: &Request, outcome: &Outcome) -> bool {
    if share >= 1.0 {
        return true;
    }
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(digest.as_bytes());
    match outcome {
        Outcome::Allowed(Grant { subject: Some(subject), .. }) if !subject.is_empty() => {
            add(b"subject");
            add(subject.as_bytes());
        }
        _ => {
            add(b"client");
            add(request.authority.as_bytes());
            add(request.client_address_text().as_bytes());
            for name in [COOKIE, AUTHORIZATION] {
                add(name.as_str().as_bytes());
                request.headers.get_all(name).iter().for_each(|value| add(value.as_bytes()));
            }
        }
    }
    let hash = hash.finalize();
    let number = hash.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0) < share
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::policy::Failure;

    fn request(cookie: &str, address: &str) -> Request {
        let headers: HeaderMap = [(COOKIE, HeaderValue::from_str(cookie).expect("a cookie"))].into_iter().collect();
        Request {
            method: "GET".into(),
            scheme: "http".into(),
            authority: "gate.example".into(),
            path_with_query: "/".into(),
            headers,
            client_address: address.parse().ok(),
            id: String::new(),
        }
    }

    fn allowed(subject: &str) -> Outcome {
        Outcome::Allowed(Grant { subject: Some(subject.into()), ..Grant::default() })
    }

    #[test]
    fn sample_is_stable_and_as_large_as_its_share() {
        let out = Outcome::Failed(Failure::Cpu);
        let sample = |digest: &str, share| -> Vec<bool> {
            (0..2_000).map(|n| is_sampled(digest, share, &request(&format!("session={n}"), "::1"), &out)).collect()
        };
        let (one, again, other) = (sample("a", 0.1), sample("a", 0.1), sample("b", 0.1));
        let count = |sample: &[bool]| sample.iter().filter(|is| **is).count();
        assert!((120..280).contains(&count(&one)), "{}", count(&one));
        assert_eq!(one, again);
        assert_ne!(one, other, "another policy has another sample");
        let more = sample("a", 0.5);
        assert!(one.iter().zip(&more).all(|(few, many)| !few || *many), "a larger sample contains the smaller one");
        assert_eq!((count(&sample("a", 0.0)), count(&sample("a", 1.0))), (0, 2_000));
    }

    #[test]
    fn client_with_a_subject_is_sampled_by_it() {
        for number in 0..200 {
            let subject = allowed(&format!("user-{number}"));
            let by = |cookie, address| is_sampled("a", 0.5, &request(cookie, address), &subject);
            assert_eq!(by("session=1", "::1"), by("session=2", "::2"));
        }
    }
}
