//! A Tidegate policy with sessions, roles and teams. What it decides is in [`policy`]; this file ties that to the interface.

mod policy;

use exports::tidegate::policy::authorizer::{Grant, Guest, Rejection, Request};
use policy::{Failure, Store};
use tidegate::policy::types::Header;
use tidegate::policy::{answer, lookup};

wit_bindgen::generate!({ path: "../../wit", world: "policy" });

struct Policy;

impl Guest for Policy {
    fn authorize(request: Request, channels: Vec<String>) -> Result<Grant, Rejection> {
        let cookies =
            request.headers.iter().filter(|header| header.name == "cookie").map(|header| header.value.as_slice());
        match policy::decide(&Gateway, cookies, &channels) {
            Ok(user) => {
                answer::reason(&format!("{user}: {} channels", channels.len()));
                Ok(Grant { subject: Some(user), channels: None, expires_at: None, headers: Vec::new() })
            }
            Err(refusal) => {
                answer::reason(&refusal.to_string());
                Err(Rejection {
                    status: refusal.status(),
                    headers: vec![Header { name: "content-type".into(), value: b"text/plain".to_vec() }],
                    body: refusal.body().into(),
                })
            }
        }
    }
}

/// The store, seen through the gateway.
struct Gateway;

impl Store for Gateway {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(lookup::get(key)?)
    }

    fn set_contains(&self, key: &str, member: &str) -> Result<bool, Failure> {
        Ok(lookup::set_contains(key, member)?)
    }
}

impl From<lookup::Error> for Failure {
    fn from(error: lookup::Error) -> Self {
        match error {
            lookup::Error::Denied => Failure::Denied,
            lookup::Error::Unavailable(_) => Failure::Unavailable,
        }
    }
}

export!(Policy);
