//! Natives of the gateway: host functions, clocks, randomness, and outbound requests.

use rquickjs::prelude::{Func, Opt};
use rquickjs::{Array, Ctx, Error, Exception, Function, Object, Result, Value};

use super::Bytes;
use crate::gateway::{self, Gateway, HostError, OutboundRequest};
use crate::program;

/// Adds the natives to `native`.
pub fn register(native: &Object<'_>) -> Result<()> {
    native.set("module", Func::from(module))?;
    native.set("interruptible", Func::from(interruptible))?;
    answers(native)?;
    lookups(native)?;
    clocks(native)?;
    network(native)
}

/// The function of a module of the program.
fn module(ctx: Ctx<'_>, id: String) -> Result<Value<'_>> {
    program::module(&ctx, &id)
}

/// Calls a function whose code a build may interrupt. No `catch` sees that, and no promise settles; the error that is thrown here does.
fn interruptible<'js>(ctx: Ctx<'js>, work: Function<'js>) -> Result<Value<'js>> {
    let result = work.call(());
    if !matches!(result, Err(Error::Exception)) {
        return result;
    }
    let thrown = ctx.catch();
    match Exception::from_value(thrown.clone()) {
        Ok(exception) if exception.message().as_deref() == Some("interrupted") => {
            let error = Exception::from_message(ctx.clone(), "top-level code does not end")?;
            error.as_object().set("name", "Endless")?;
            error.as_object().set("stack", exception.stack())?;
            Err(error.throw())
        }
        _ => Err(ctx.throw(thrown)),
    }
}

fn answers(native: &Object<'_>) -> Result<()> {
    native.set(
        "log",
        Func::from(|ctx: Ctx<'_>, level: String, line: String| {
            // Of top-level code, whose lines are the same in all instances.
            let gateway = if level == "debug" { gateway::get_for_all_instances() } else { gateway::get() };
            call(&ctx, gateway, |it| it.log(&level, &line))
        }),
    )?;
    native.set("contextNow", Func::from(|ctx: Ctx<'_>| with(&ctx, |it| it.now() as f64)))?;
    native.set("requestId", Func::from(|ctx: Ctx<'_>| with(&ctx, |it| it.request_id())))?;
    native.set("action", Func::from(|ctx: Ctx<'_>| with(&ctx, |it| it.action())))?;
    native.set(
        "setting",
        Func::from(|ctx: Ctx<'_>, name: String| call(&ctx, gateway::get_for_all_instances(), |it| it.setting(&name))),
    )?;
    native.set("reason", Func::from(|ctx: Ctx<'_>, text: String| with(&ctx, |it| it.reason(&text))))?;
    native.set("replaySince", Func::from(|ctx: Ctx<'_>, time: f64| with(&ctx, |it| it.replay_since(time as u64))))?;
    native.set(
        "cacheFor",
        Func::from(|ctx: Ctx<'_>, seconds: f64, vary: Vec<String>| {
            with(&ctx, |it| it.cache_for(seconds as u32, &vary))
        }),
    )?;
    native.set("cacheAnyAddress", Func::from(|ctx: Ctx<'_>| with(&ctx, |it| it.cache_any_address())))
}

fn lookups(native: &Object<'_>) -> Result<()> {
    native.set(
        "lookup",
        Func::from(|ctx: Ctx<'_>, key: String| or_payload(&ctx, |it| Ok(it.lookup(&key)?.map(Bytes)))),
    )?;
    native.set(
        "lookupHash",
        Func::from(|ctx: Ctx<'_>, key: String, field: String| {
            or_payload(&ctx, |it| Ok(it.lookup_hash(&key, &field)?.map(Bytes)))
        }),
    )?;
    native.set(
        "lookupSet",
        Func::from(|ctx: Ctx<'_>, key: String, member: String| or_payload(&ctx, |it| it.lookup_set(&key, &member))),
    )?;
    native.set(
        "verifyToken",
        Func::from(|ctx: Ctx<'_>, token: String, profile: Opt<String>| {
            or_payload(&ctx, |it| it.verify(profile.0.as_deref(), &token))
        }),
    )
}

fn clocks(native: &Object<'_>) -> Result<()> {
    native.set("now", Func::from(|| gateway::get().map_or(0.0, |it| it.wall_clock() / 1000.0)))?;
    native.set("monotonic", Func::from(|| gateway::get().map_or(0.0, Gateway::monotonic_clock)))?;
    native.set("wasRandomnessRead", Func::from(gateway::was_randomness_read))?;
    native.set(
        "randomSeed",
        Func::from(|| {
            let mut seed = [0; 8];
            gateway::random(&mut seed);
            // Two integers, because a number of JavaScript has 53 bits.
            vec![
                u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]),
                u32::from_le_bytes([seed[4], seed[5], seed[6], seed[7]]),
            ]
        }),
    )
}

fn network(native: &Object<'_>) -> Result<()> {
    native.set(
        "networkSend",
        Func::from(|ctx: Ctx<'_>, id: u32, method: String, url: String, fields: Vec<String>, body: Option<Bytes>| {
            let headers = fields.chunks_exact(2).map(|field| (field[0].clone(), field[1].clone())).collect();
            let request = OutboundRequest { id, method, url, headers, body: body.map(|it| it.0) };
            with(&ctx, |it| it.send(request))
        }),
    )?;
    native.set("networkRead", Func::from(|ctx: Ctx<'_>, id: u32| with(&ctx, |it| it.read(id))))?;
    native.set("networkCancel", Func::from(|ctx: Ctx<'_>, id: u32| with(&ctx, |it| it.cancel(id))))
}

fn with<T>(ctx: &Ctx<'_>, work: impl FnOnce(&dyn Gateway) -> T) -> Result<T> {
    call(ctx, gateway::get(), work)
}

/// Calls the gateway. At build there is none: a program does not get here, because it has the host of a build.
fn call<T>(ctx: &Ctx<'_>, gateway: Option<&dyn Gateway>, work: impl FnOnce(&dyn Gateway) -> T) -> Result<T> {
    match gateway {
        Some(gateway) => Ok(work(gateway)),
        None => Err(Exception::throw_message(ctx, "there is no gateway while a policy is built")),
    }
}

/// Calls the gateway, and throws its error as `src/imports.ts` expects it: `{ payload: { tag, val } }`.
fn or_payload<T>(ctx: &Ctx<'_>, call: impl FnOnce(&dyn Gateway) -> std::result::Result<T, HostError>) -> Result<T> {
    with(ctx, call)?.or_else(|error| {
        let payload = Object::new(ctx.clone())?;
        payload.set("tag", error.tag)?;
        payload.set("val", error.text)?;
        let thrown = Object::new(ctx.clone())?;
        thrown.set("payload", payload)?;
        Err(ctx.throw(thrown.into_value()))
    })
}

/// The fields of a head, flat: name, value, name, value.
pub fn flat<'js>(ctx: &Ctx<'js>, headers: &[gateway::Header]) -> Result<Value<'js>> {
    let fields = Array::new(ctx.clone())?;
    for (at, text) in headers.iter().flat_map(|(name, value)| [name, value]).enumerate() {
        fields.set(at, text.as_str())?;
    }
    Ok(fields.into_value())
}
