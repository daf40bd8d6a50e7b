//! The gateway that a policy runs against in a test.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::decision::{CallRecord, Decision};
use crate::bindings::tidegate::policy::lookup as wit;
use crate::{Grant, Rejection, Request, tokens};

/// A gateway for tests, with a store, settings, tokens and a clock. By default it is empty, all keys may be looked up, and the time is
/// 2026-01-01T00:00:00Z.
#[derive(Clone, Debug)]
pub struct TestGateway {
    pub(super) store: BTreeMap<String, Value>,
    pub(super) failures: Vec<(String, wit::Error)>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) tokens: BTreeMap<(Option<String>, String), Token>,
    pub(super) now: u64,
    pub(super) action: String,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(Vec<u8>),
    Hash(BTreeMap<String, Vec<u8>>),
    Set(BTreeSet<String>),
}

pub(super) type Token = Result<String, crate::bindings::tidegate::policy::tokens::Error>;

/// The test gateway of the policy that runs on this thread, and the record of its host calls.
#[derive(Clone)]
pub(super) struct TestContext {
    pub gateway: Rc<TestGateway>,
    pub calls: Rc<RefCell<CallRecord>>,
}

thread_local! {
    static CONTEXTS: RefCell<Vec<TestContext>> = const { RefCell::new(Vec::new()) };
}

impl TestGateway {
    /// A gateway with an empty store, no settings and no tokens.
    #[must_use]
    pub fn new() -> Self {
        Self {
            store: BTreeMap::new(),
            failures: Vec::new(),
            settings: BTreeMap::new(),
            tokens: BTreeMap::new(),
            now: 1_767_225_600_000,
            action: "stream".to_owned(),
        }
    }

    /// Stores a string at a key.
    #[must_use]
    pub fn string(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.store.insert(key.to_owned(), Value::String(value.into()));
        self
    }

    /// Stores a hash at a key.
    #[must_use]
    pub fn hash<'a>(mut self, key: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let fields = fields.into_iter().map(|(field, value)| (field.to_owned(), value.into())).collect();
        self.store.insert(key.to_owned(), Value::Hash(fields));
        self
    }

    /// Stores a set at a key.
    #[must_use]
    pub fn set<'a>(mut self, key: &str, members: impl IntoIterator<Item = &'a str>) -> Self {
        let members = members.into_iter().map(str::to_owned).collect();
        self.store.insert(key.to_owned(), Value::Set(members));
        self
    }

    /// Look-ups of keys with this prefix are denied.
    #[must_use]
    pub fn denied(mut self, prefix: &str) -> Self {
        self.failures.push((prefix.to_owned(), wit::Error::Denied));
        self
    }

    /// Look-ups of keys with this prefix fail because the store does not answer.
    #[must_use]
    pub fn unavailable(mut self, prefix: &str) -> Self {
        self.failures.push((prefix.to_owned(), wit::Error::Unavailable("the store does not answer".into())));
        self
    }

    /// All look-ups fail because the store does not answer.
    #[must_use]
    pub fn store_unavailable(self) -> Self {
        self.unavailable("")
    }

    /// Adds a setting of the operator.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a valid token for [`tokens::verify`], with its claims as JSON. Any other token is untrusted.
    #[must_use]
    pub fn token(mut self, token: &str, claims: &str) -> Self {
        self.tokens.insert((None, token.to_owned()), Ok(claims.to_owned()));
        self
    }

    /// Adds a valid token for [`tokens::verify_with`] with one profile.
    #[must_use]
    pub fn token_for_profile(mut self, profile: &str, token: &str, claims: &str) -> Self {
        self.tokens.insert((Some(profile.to_owned()), token.to_owned()), Ok(claims.to_owned()));
        self
    }

    /// Adds a token whose verification fails with this error.
    #[must_use]
    pub fn invalid_token(mut self, token: &str, error: tokens::Error) -> Self {
        use crate::bindings::tidegate::policy::tokens::Error as Wit;
        let error = match error {
            tokens::Error::Malformed => Wit::Malformed,
            tokens::Error::Untrusted => Wit::Untrusted,
            tokens::Error::Expired => Wit::Expired,
            tokens::Error::Claims(claim) => Wit::Claims(claim),
            tokens::Error::Unavailable(cause) => Wit::Unavailable(cause),
            tokens::Error::Unreadable(_) => return self.token(token, "not JSON"),
        };
        self.tokens.insert((None, token.to_owned()), Err(error));
        self
    }

    /// Sets the clock, in ms since 1970.
    #[must_use]
    pub fn now(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    /// Sets the requested action: `stream`, which is the default, or `history`.
    #[must_use]
    pub fn action(mut self, action: &str) -> Self {
        self.action = action.to_owned();
        self
    }

    /// Evaluates a policy for a request and its channels.
    pub fn decide<E: Into<Rejection>>(
        &self,
        authorize: impl FnOnce(&Request, &[String]) -> Result<Grant, E>,
        request: &Request,
        channels: &[&str],
    ) -> Decision {
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let (result, calls) = self.run_recorded(|| crate::__decide(authorize, request.inner.clone(), &channels));
        Decision { result, calls }
    }

    /// Runs a part of a policy against this gateway.
    pub fn run<T>(&self, part: impl FnOnce() -> T) -> T {
        self.run_recorded(part).0
    }

    fn run_recorded<T>(&self, part: impl FnOnce() -> T) -> (T, CallRecord) {
        /// Removes the context, also when the policy panics.
        struct ContextGuard;
        impl Drop for ContextGuard {
            fn drop(&mut self) {
                CONTEXTS.with_borrow_mut(Vec::pop);
            }
        }
        let calls = Rc::<RefCell<CallRecord>>::default();
        let context = TestContext { gateway: Rc::new(self.clone()), calls: Rc::clone(&calls) };
        CONTEXTS.with_borrow_mut(|contexts| contexts.push(context));
        let guard = ContextGuard;
        let result = part();
        drop(guard);
        (result, calls.take())
    }
}

impl Default for TestGateway {
    fn default() -> Self {
        Self::new()
    }
}

/// The context of the policy that runs on this thread.
#[expect(clippy::expect_used, reason = "a host call without a test gateway is a mistake in the test")]
pub(super) fn context() -> TestContext {
    let context = CONTEXTS.with_borrow(|contexts| contexts.last().cloned());
    context.expect("host function called without a gateway: run the policy with TestGateway::decide, or a part of it with TestGateway::run")
}
