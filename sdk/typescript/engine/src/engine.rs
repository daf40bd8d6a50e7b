//! QuickJS with the platform script.

use rquickjs::{CatchResultExt, Context, Ctx, Function, Object, Runtime};

use crate::bindings;

/// `js/entry.ts` as one function of the natives.
const PLATFORM: &str = include_str!(concat!(env!("OUT_DIR"), "/platform.js"));

/// A JavaScript engine whose global scope is the web platform.
pub struct Engine {
    context: Context,
    _runtime: Runtime,
}

impl Engine {
    /// Starts the engine and evaluates the platform script.
    pub fn start() -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let context = Context::full(&runtime).map_err(|error| error.to_string())?;
        context.with(|ctx| evaluate_platform(&ctx).catch(&ctx).map_err(|error| error.to_string()))?;
        Ok(Self { context, _runtime: runtime })
    }

    /// Evaluates an expression that may use `native`, for tests of the natives.
    pub fn evaluate_with_natives(&self, script: &str) -> Result<String, String> {
        self.context.with(|ctx| {
            let result = || {
                ctx.globals().set("native", bindings::natives(&ctx)?)?;
                let value: rquickjs::Coerced<String> = ctx.eval(script)?;
                ctx.globals().remove("native")?;
                Ok(value.0)
            };
            result().catch(&ctx).map_err(|error| error.to_string())
        })
    }

    /// Evaluates a script and returns its result as a string, after the jobs of promises. A promise is awaited.
    pub fn evaluate(&self, script: &str) -> Result<String, String> {
        self.context.with(|ctx| {
            let result = || {
                let value: rquickjs::Value = ctx.eval(script)?;
                let value: rquickjs::Value = match value.as_promise() {
                    Some(promise) => promise.finish()?,
                    None => value,
                };
                Ok(value.get::<rquickjs::Coerced<String>>()?.0)
            };
            result().catch(&ctx).map_err(|error| error.to_string())
        })
    }
}

fn evaluate_platform(ctx: &Ctx<'_>) -> rquickjs::Result<()> {
    let platform: Function = ctx.eval(PLATFORM)?;
    platform.call::<_, Object>((bindings::natives(ctx)?,))?;
    Ok(())
}
