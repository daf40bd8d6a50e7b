//! Runs jobs of promises, timers and outbound requests until a promise settles.

use rquickjs::promise::PromiseState;
use rquickjs::{Ctx, Function, Object, Result, Value, qjs};

use crate::bindings::{self, Bytes};
use crate::gateway::{self, NetworkEvent};

/// The end of an event loop.
pub enum Settled<'js> {
    Value(Value<'js>),
    /// The promise is pending, but no job, timer or request is left that could settle it.
    Never,
}

/// Runs the event loop until `promise` settles; any other value is the result itself. A rejection is thrown.
pub fn settle<'js>(ctx: &Ctx<'js>, platform: &Object<'js>, promise: Value<'js>) -> Result<Settled<'js>> {
    loop {
        run_jobs(ctx, platform)?;
        let Some(promise) = promise.as_promise() else { return Ok(Settled::Value(promise)) };
        match promise.state() {
            PromiseState::Pending => {}
            _ => return promise.result().map_or(Ok(Settled::Never), |result| result.map(Settled::Value)),
        }
        // Runs a timer that is due, or says how long the next one takes.
        let delay: Option<f64> = platform.get::<_, Function>("runTimer")?.call(())?;
        if delay.is_some_and(|delay| delay <= 0.0) {
            continue;
        }
        let Some(gateway) = gateway::get() else { return Ok(Settled::Never) };
        match gateway.wait(delay) {
            Some((id, event)) => report(ctx, platform, id, event)?,
            None if delay.is_none() => return Ok(Settled::Never),
            None => {}
        }
    }
}

/// Runs the pending jobs. An exception of one, for instance of a function of `queueMicrotask`, is reported and does not end the loop.
fn run_jobs<'js>(ctx: &Ctx<'js>, platform: &Object<'js>) -> Result<()> {
    let mut context = std::ptr::null_mut();
    loop {
        // SAFETY: there is one context, which is alive as long as `ctx`.
        match unsafe { qjs::JS_ExecutePendingJob(qjs::JS_GetRuntime(ctx.as_raw().as_ptr()), &mut context) } {
            0 => return Ok(()),
            1.. => {}
            _ => {
                let error = ctx.catch();
                platform.get::<_, Function>("reportError")?.call::<_, ()>((error,))?;
            }
        }
    }
}

/// Passes an event of a request to the platform script.
fn report<'js>(ctx: &Ctx<'js>, platform: &Object<'js>, id: u32, event: NetworkEvent) -> Result<()> {
    let call = |kind: &str, value: Value<'js>, fields: Value<'js>| {
        platform.get::<_, Function>("networkEvent")?.call::<_, ()>((id, kind, value, fields))
    };
    let none = Value::new_null(ctx.clone());
    match event {
        NetworkEvent::Head { status, headers } => {
            call("head", Value::new_int(ctx.clone(), status.into()), bindings::flat(ctx, &headers)?)
        }
        NetworkEvent::Chunk(bytes) => call("chunk", rquickjs::IntoJs::into_js(Bytes(bytes), ctx)?, none),
        NetworkEvent::End => call("chunk", none.clone(), none),
        NetworkEvent::Failed(text) => {
            let text = rquickjs::String::from_str(ctx.clone(), &text)?;
            call("failed", text.into_value(), none)
        }
    }
}
