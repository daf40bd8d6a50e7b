//! The exports of a policy, and those that a build calls before the snapshot.

mod build;
mod gateway;
mod http;
mod pack;

use std::cell::Cell;

use rquickjs::{Object, Result as JsResult, Value};

use crate::bindings::{Bytes, Texts};
use crate::engine::Engine;
use crate::{checkpoint, gateway as world};
use exports::tidegate::policy::authorizer::{Grant, Guest as Authorizer, Rejection, Request};
use exports::tidegate::policy::checkpoint::Guest as Checkpoint;
use exports::tidegate::policy::preparation::Guest as Preparation;
use tidegate::policy::types::Header;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package tidegate:js;
        world runtime {
            include tidegate:policy/policy@0.1.0;
            export tidegate:policy/preparation@0.1.0;
            export tidegate:policy/checkpoint@0.1.0;
        }",
    world: "tidegate:js/runtime",
    generate_all,
});

export!(Policy);

struct Policy;

thread_local! {
    /// The engine of this instance, which a build started before the snapshot.
    static ENGINE: Cell<Option<&'static Engine>> = const { Cell::new(None) };
}

/// The engine, started on first use.
fn engine() -> Result<&'static Engine, String> {
    if let Some(engine) = ENGINE.get() {
        return Ok(engine);
    }
    // It is never dropped: an instance ends as a whole.
    let engine: &'static Engine = Box::leak(Box::new(Engine::start()?));
    ENGINE.set(Some(engine));
    Ok(engine)
}

impl Authorizer for Policy {
    fn authorize(request: Request, channels: Vec<String>) -> Result<Grant, Rejection> {
        gateway::start();
        let url = format!("{}://{}{}", request.scheme, request.authority, request.path_with_query);
        let (names, values): (Vec<String>, Vec<String>) =
            request.headers.into_iter().map(|header| (header.name, latin1(header.value))).unzip();
        let answer = engine().and_then(|engine| {
            engine.call("authorize", (request.method, url, Texts(names), Texts(values), Texts(channels)), |_, value| {
                to_answer(&value)
            })
        });
        answer.unwrap_or_else(|error| {
            tidegate::policy::context::log(tidegate::policy::context::Level::Error, &error);
            Err(Rejection { status: 500, headers: Vec::new(), body: b"Internal Server Error".to_vec() })
        })
    }
}

impl Preparation for Policy {
    fn prepare() {
        prepare();
    }
}

impl Checkpoint for Policy {
    fn save() -> Option<Vec<u64>> {
        checkpoint::save(|| {
            world::was_used();
            prepare() && !world::was_used()
        })
    }

    fn restore(state: Vec<u64>) {
        gateway::start();
        checkpoint::restore(&state);
    }
}

/// Prepares this instance. Returns whether that evaluated code.
fn prepare() -> bool {
    gateway::start();
    // An error is raised again, and logged, when a client's request is decided.
    engine().and_then(|engine| engine.call("prepare", (), |_, value| value.get())).unwrap_or_default()
}

/// The text of a header's value: a character per byte.
fn latin1(value: Vec<u8>) -> String {
    if value.is_ascii() {
        return String::from_utf8(value).unwrap_or_default();
    }
    value.into_iter().map(char::from).collect()
}

/// The answer of `js/policy.ts`.
fn to_answer(value: &Value<'_>) -> JsResult<Result<Grant, Rejection>> {
    let answer: Object = value.get()?;
    let headers = headers(&answer)?;
    let status: Option<u16> = answer.get("status")?;
    let Some(status) = status else {
        return Ok(Ok(Grant {
            subject: answer.get("subject")?,
            channels: answer.get("channels")?,
            expires_at: answer.get::<_, Option<f64>>("expiresAt")?.map(|time| time as u64),
            headers,
        }));
    };
    let body: Value = answer.get("body")?;
    let body = match body.is_string() {
        true => body.get::<String>()?.into_bytes(),
        false => body.get::<Bytes>()?.0,
    };
    Ok(Err(Rejection { status, headers, body }))
}

fn headers(answer: &Object<'_>) -> JsResult<Vec<Header>> {
    let fields: Vec<Vec<String>> = answer.get("headers")?;
    let header = |field: Vec<String>| {
        let [name, value] = <[String; 2]>::try_from(field).ok()?;
        // `Headers` allows characters up to U+00FF only.
        Some(Header { name, value: value.chars().map(|char| char as u8).collect() })
    };
    Ok(fields.into_iter().filter_map(header).collect())
}

/// The clock of the engine's `Date`, in µs since 1970. QuickJS has it as its only import.
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    crate::gateway::get().map_or(0.0, crate::gateway::Gateway::wall_clock)
}
