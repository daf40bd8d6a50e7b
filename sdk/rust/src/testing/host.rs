//! The host functions in tests, answered by the current test gateway.

pub mod answer {
    use crate::testing::gateway::context;

    pub fn reason(text: &str) {
        context().calls.borrow_mut().reason = Some(text.to_owned());
    }

    pub fn replay_since(time: u64) {
        context().calls.borrow_mut().replay_since = Some(time);
    }

    pub fn cache_for(seconds: u32, vary: &[String]) {
        context().calls.borrow_mut().cache = Some((seconds, vary.to_vec()));
    }

    pub fn cache_any_address() {
        context().calls.borrow_mut().any_address = true;
    }
}

pub mod context {
    use crate::bindings::tidegate::policy::context::Level;
    use crate::testing::gateway::context;

    pub fn now() -> u64 {
        context().gateway.now
    }

    pub fn request_id() -> String {
        "test".to_owned()
    }

    pub fn action() -> String {
        context().gateway.action.clone()
    }

    pub fn log(level: Level, message: &str) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        context().calls.borrow_mut().log.push(format!("{level}: {message}"));
    }
}

pub mod lookup {
    use crate::bindings::tidegate::policy::lookup::Error;
    use crate::testing::gateway::{TestGateway, Value, context};

    fn look_up<T>(key: &str, read: impl FnOnce(Option<&Value>) -> Option<T>) -> Result<T, Error> {
        let context = context();
        context.calls.borrow_mut().lookups.push(key.to_owned());
        let TestGateway { store, failures, .. } = &*context.gateway;
        if let Some((_, failure)) = failures.iter().find(|(prefix, _)| key.starts_with(prefix.as_str())) {
            return Err(failure.clone());
        }
        read(store.get(key)).ok_or_else(|| Error::Unavailable("the key holds another type of value".into()))
    }

    pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        look_up(key, |value| match value {
            None => Some(None),
            Some(Value::String(text)) => Some(Some(text.clone())),
            Some(_) => None,
        })
    }

    pub fn hash_get(key: &str, field: &str) -> Result<Option<Vec<u8>>, Error> {
        look_up(key, |value| match value {
            None => Some(None),
            Some(Value::Hash(fields)) => Some(fields.get(field).cloned()),
            Some(_) => None,
        })
    }

    pub fn set_contains(key: &str, member: &str) -> Result<bool, Error> {
        look_up(key, |value| match value {
            None => Some(false),
            Some(Value::Set(members)) => Some(members.contains(member)),
            Some(_) => None,
        })
    }
}

pub mod settings {
    use crate::testing::gateway::context;

    pub fn get(name: &str) -> Option<String> {
        context().gateway.settings.get(name).cloned()
    }
}

pub mod tokens {
    use crate::bindings::tidegate::policy::tokens::Error;
    use crate::testing::gateway::{Token, context};

    pub fn verify(token: &str) -> Token {
        check(None, token)
    }

    pub fn verify_with(profile: &str, token: &str) -> Token {
        check(Some(profile.to_owned()), token)
    }

    fn check(profile: Option<String>, token: &str) -> Token {
        context().gateway.tokens.get(&(profile, token.to_owned())).cloned().unwrap_or(Err(Error::Untrusted))
    }
}
