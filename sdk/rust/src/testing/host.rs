//! The gateway's side, in tests.

pub mod answer {
    use crate::testing::world::scene;

    pub fn reason(text: &str) {
        scene().said.borrow_mut().reason = Some(text.to_owned());
    }

    pub fn replay_since(time: u64) {
        scene().said.borrow_mut().replay_since = Some(time);
    }

    pub fn cache_for(seconds: u32, vary: &[String]) {
        scene().said.borrow_mut().cache = Some((seconds, vary.to_vec()));
    }

    pub fn cache_any_address() {
        scene().said.borrow_mut().any_address = true;
    }
}

pub mod context {
    use crate::bindings::tidegate::policy::context::Level;
    use crate::testing::world::scene;

    pub fn now() -> u64 {
        scene().world.now
    }

    pub fn request_id() -> String {
        "test".to_owned()
    }

    pub fn action() -> String {
        scene().world.action.clone()
    }

    pub fn log(level: Level, message: &str) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        scene().said.borrow_mut().log.push(format!("{level}: {message}"));
    }
}

pub mod lookup {
    use crate::bindings::tidegate::policy::lookup::Error;
    use crate::testing::world::{Value, World, scene};

    fn look_up<T>(key: &str, read: impl FnOnce(Option<&Value>) -> Option<T>) -> Result<T, Error> {
        let scene = scene();
        scene.said.borrow_mut().lookups.push(key.to_owned());
        let World { store, failures, .. } = &*scene.world;
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
    use crate::testing::world::scene;

    pub fn get(name: &str) -> Option<String> {
        scene().world.settings.get(name).cloned()
    }
}

pub mod tokens {
    use crate::bindings::tidegate::policy::tokens::Error;
    use crate::testing::world::{Token, scene};

    pub fn verify(token: &str) -> Token {
        check(None, token)
    }

    pub fn verify_with(profile: &str, token: &str) -> Token {
        check(Some(profile.to_owned()), token)
    }

    fn check(profile: Option<String>, token: &str) -> Token {
        scene().world.tokens.get(&(profile, token.to_owned())).cloned().unwrap_or(Err(Error::Untrusted))
    }
}
