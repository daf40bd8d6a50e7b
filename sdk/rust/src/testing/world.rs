//! What is there while a policy runs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::answer::{Answer, Said};
use crate::bindings::tidegate::policy::lookup as wit;
use crate::{Grant, Rejection, Request, tokens};

/// What is there while a policy runs: the store, settings, tokens and the time. It begins empty, all keys allowed, on
/// 2026-01-01 at midnight.
#[derive(Clone, Debug)]
pub struct World {
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

/// The world that the policy on this thread lives in, and what it said there.
#[derive(Clone)]
pub(super) struct Scene {
    pub world: Rc<World>,
    pub said: Rc<RefCell<Said>>,
}

thread_local! {
    static SCENES: RefCell<Vec<Scene>> = const { RefCell::new(Vec::new()) };
}

impl World {
    /// An empty world.
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

    /// The store holds a string.
    #[must_use]
    pub fn string(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.store.insert(key.to_owned(), Value::String(value.into()));
        self
    }

    /// The store holds a hash.
    #[must_use]
    pub fn hash<'a>(mut self, key: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let fields = fields.into_iter().map(|(field, value)| (field.to_owned(), value.into())).collect();
        self.store.insert(key.to_owned(), Value::Hash(fields));
        self
    }

    /// The store holds a set.
    #[must_use]
    pub fn set<'a>(mut self, key: &str, members: impl IntoIterator<Item = &'a str>) -> Self {
        let members = members.into_iter().map(str::to_owned).collect();
        self.store.insert(key.to_owned(), Value::Set(members));
        self
    }

    /// The operator allows no look-ups of keys that begin so.
    #[must_use]
    pub fn denied(mut self, prefix: &str) -> Self {
        self.failures.push((prefix.to_owned(), wit::Error::Denied));
        self
    }

    /// Look-ups of keys that begin so are not answered.
    #[must_use]
    pub fn unavailable(mut self, prefix: &str) -> Self {
        self.failures.push((prefix.to_owned(), wit::Error::Unavailable("the store does not answer".into())));
        self
    }

    /// No look-up is answered.
    #[must_use]
    pub fn store_away(self) -> Self {
        self.unavailable("")
    }

    /// The operator has set this.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A token that holds, for [`tokens::verify`], with its claims as JSON. Any other token is untrusted.
    #[must_use]
    pub fn token(mut self, token: &str, claims: &str) -> Self {
        self.tokens.insert((None, token.to_owned()), Ok(claims.to_owned()));
        self
    }

    /// A token that holds for [`tokens::verify_with`] of one profile.
    #[must_use]
    pub fn token_of(mut self, profile: &str, token: &str, claims: &str) -> Self {
        self.tokens.insert((Some(profile.to_owned()), token.to_owned()), Ok(claims.to_owned()));
        self
    }

    /// A token that does not hold, for this reason.
    #[must_use]
    pub fn bad_token(mut self, token: &str, why: tokens::Error) -> Self {
        use crate::bindings::tidegate::policy::tokens::Error as Wit;
        let why = match why {
            tokens::Error::Malformed => Wit::Malformed,
            tokens::Error::Untrusted => Wit::Untrusted,
            tokens::Error::Expired => Wit::Expired,
            tokens::Error::Claims(what) => Wit::Claims(what),
            tokens::Error::Unavailable(why) => Wit::Unavailable(why),
            tokens::Error::Unreadable(_) => return self.token(token, "what is not JSON"),
        };
        self.tokens.insert((None, token.to_owned()), Err(why));
        self
    }

    /// The time, ms since 1970.
    #[must_use]
    pub fn at(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    /// What the client is about to do: `stream`, which it is without this, or `history`.
    #[must_use]
    pub fn action(mut self, action: &str) -> Self {
        self.action = action.to_owned();
        self
    }

    /// Asks a policy whether a request gets these channels.
    pub fn ask<E: Into<Rejection>>(
        &self,
        authorize: impl FnOnce(&Request, &[String]) -> Result<Grant, E>,
        request: &Request,
        channels: &[&str],
    ) -> Answer {
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let (result, said) = self.play(|| crate::__decide(authorize, request.inner.clone(), &channels));
        Answer { result, said }
    }

    /// Runs a part of a policy in this world.
    pub fn run<T>(&self, part: impl FnOnce() -> T) -> T {
        self.play(part).0
    }

    fn play<T>(&self, part: impl FnOnce() -> T) -> (T, Said) {
        /// Ends the scene, also when the policy panics.
        struct Curtain;
        impl Drop for Curtain {
            fn drop(&mut self) {
                SCENES.with_borrow_mut(Vec::pop);
            }
        }
        let said = Rc::<RefCell<Said>>::default();
        SCENES.with_borrow_mut(|scenes| scenes.push(Scene { world: Rc::new(self.clone()), said: Rc::clone(&said) }));
        let curtain = Curtain;
        let result = part();
        drop(curtain);
        (result, said.take())
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The world of the policy that runs now.
#[expect(clippy::expect_used, reason = "a test that asks without a world is wrong, and has to be told")]
pub(super) fn scene() -> Scene {
    let scene = SCENES.with_borrow(|scenes| scenes.last().cloned());
    scene.expect("a policy asked its gateway, and here is none: run it by World::ask, or parts of it by World::run")
}
