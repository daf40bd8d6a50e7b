//! QuickJS with the platform script.

use std::cell::UnsafeCell;

use rquickjs::context::EvalOptions;
use rquickjs::function::IntoArgs;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, FromJs, Function, Object, Persistent, Runtime, Value};

use crate::bindings;
use crate::compiler::{self, Detail, STACK_BYTES};
use crate::event_loop::{self, Settled};
use crate::gateway;
use crate::{program, script, spare};

/// `js/entry.ts` as one function of the natives, compressed.
static PLATFORM: PlatformScript =
    PlatformScript(UnsafeCell::new(*include_bytes!(concat!(env!("OUT_DIR"), "/platform.deflate"))));

/// In a component, no stack of the log has the platform's lines.
const PLATFORM_DETAIL: Detail = if cfg!(target_arch = "wasm32") { Detail::File } else { Detail::Lines };

/// A text that a component clears after its evaluation, so that the snapshot does not contain it.
struct PlatformScript(UnsafeCell<[u8; include_bytes!(concat!(env!("OUT_DIR"), "/platform.deflate")).len()]>);

// SAFETY: a component has one thread. On the host, where tests have several, the text is only read.
unsafe impl Sync for PlatformScript {}

impl PlatformScript {
    fn text(&self) -> Vec<u8> {
        // SAFETY: there is no writer at the same time.
        spare::decompressed(unsafe { &*self.0.get() }).unwrap_or_default()
    }

    #[cfg(target_arch = "wasm32")]
    fn clear(&self) {
        // SAFETY: there is one thread, and no reference to the text.
        unsafe { std::ptr::write_bytes(self.0.get(), 0, 1) };
    }
}

/// Bytes of objects from which on a decision collects cycles.
const GC_THRESHOLD_BYTES: usize = 24 << 20;

/// Interrupt checks until the evaluation of a program counts as endless; one check is 10,000 calls or turns of a loop. Twice what the
/// largest app measured needs.
const BUILD_INTERRUPT_CHECKS: u32 = 2_000;

/// A JavaScript engine whose global scope is the web platform.
pub struct Engine {
    /// The exports of `js/entry.ts`. It is dropped before the runtime.
    platform: Persistent<Object<'static>>,
    context: Context,
    runtime: Runtime,
}

impl Engine {
    /// Starts the engine and evaluates the platform script.
    pub fn start() -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.set_max_stack_size(STACK_BYTES);
        let context = Context::full(&runtime).map_err(|error| error.to_string())?;
        let platform = context.with(|ctx| {
            let platform = evaluate_platform(&ctx).catch(&ctx).map_err(|error| error.to_string())?;
            Ok::<_, String>(Persistent::save(&ctx, platform))
        })?;
        let engine = Self { platform, context, runtime };
        engine.watch_rejections();
        Ok(engine)
    }

    /// Evaluates a program at build and returns a report; the crate's documentation describes both, which are JSON.
    /// `pack` runs at the end.
    pub fn build(&self, program: Vec<u8>, pack: impl FnOnce(&Ctx<'_>)) -> Result<String, String> {
        let mut checks = 0;
        self.runtime.set_interrupt_handler(Some(Box::new(move || {
            checks += 1;
            checks > BUILD_INTERRUPT_CHECKS
        })));
        // There is no gateway at build, so that nothing of this machine gets into the snapshot.
        let gateway = gateway::set(None);
        let report =
            program::with_modules(program, |rest| self.call("build", (rest,), |_, value| value.get::<String>()));
        gateway::set(gateway);
        self.runtime.set_interrupt_handler(None);
        // Cycles of the platform and the app, which would otherwise be in the snapshot.
        self.runtime.run_gc();
        // A decision is too short for a collection of cycles to be worth its time, unless it allocates much.
        self.runtime.set_gc_threshold(GC_THRESHOLD_BYTES);
        self.context.with(|ctx| pack(&ctx));
        report
    }

    /// Calls a function of the platform script, runs the event loop until its promise settles, and converts the value.
    pub fn call<T>(
        &self,
        name: &str,
        args: impl for<'js> IntoArgs<'js>,
        convert: impl for<'js> FnOnce(&Ctx<'js>, Value<'js>) -> rquickjs::Result<T>,
    ) -> Result<T, String> {
        self.context.with(|ctx| {
            let result = || {
                let platform = self.platform.clone().restore(&ctx)?;
                let promise: Value = platform.get::<_, Function>(name)?.call(args)?;
                match event_loop::settle(&ctx, &platform, promise)? {
                    Settled::Value(value) => convert(&ctx, value),
                    Settled::Never => {
                        let value: Value = platform.get::<_, Function>("neverSettled")?.call(())?;
                        convert(&ctx, value)
                    }
                }
            };
            result().catch(&ctx).map_err(|error| describe(&error))
        })
    }

    /// Evaluates a script and returns its result as a string. A promise is awaited.
    pub fn evaluate(&self, script: &str) -> Result<String, String> {
        self.context.with(|ctx| {
            let result = || {
                let platform = self.platform.clone().restore(&ctx)?;
                let mut options = EvalOptions::default();
                options.filename = Some("script".into());
                match event_loop::settle(&ctx, &platform, ctx.eval_with_options(script, options)?)? {
                    Settled::Value(value) => text(&value),
                    Settled::Never => Ok("the promise never settles".into()),
                }
            };
            result().catch(&ctx).map_err(|error| describe(&error))
        })
    }

    /// Evaluates an expression that may use `native`, for tests of the natives.
    pub fn evaluate_with_natives(&self, script: &str) -> Result<String, String> {
        self.context.with(|ctx| {
            let result = || {
                ctx.globals().set("native", bindings::natives(&ctx)?)?;
                let value: Value = ctx.eval(script)?;
                ctx.globals().remove("native")?;
                text(&value)
            };
            result().catch(&ctx).map_err(|error| describe(&error))
        })
    }

    /// Passes rejected promises without a handler to the platform script, which logs those that stay so.
    fn watch_rejections(&self) {
        let platform = self.platform.clone();
        self.runtime.set_host_promise_rejection_tracker(Some(Box::new(move |ctx, promise, reason, is_handled| {
            let tell = || {
                let platform = platform.clone().restore(&ctx)?;
                platform.get::<_, Function>("rejected")?.call::<_, ()>((promise, reason, is_handled))
            };
            // An error there is that of a full memory or stack, which the decision meets by itself.
            if tell().is_err() {
                ctx.catch();
            }
        })));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It holds the platform's object, which the runtime must not outlive.
        self.runtime.set_host_promise_rejection_tracker(None);
    }
}

fn evaluate_platform<'js>(ctx: &Ctx<'js>) -> rquickjs::Result<Object<'js>> {
    let compiled = compiler::with_engine(|ctx| compiler::compile(ctx, "tidegate", PLATFORM.text(), PLATFORM_DETAIL))?;
    let platform = script::evaluate(ctx, &compiled)?;
    drop(compiled);
    #[cfg(target_arch = "wasm32")]
    PLATFORM.clear();
    platform.get::<Function>()?.call((bindings::natives(ctx)?,))
}

fn text(value: &Value<'_>) -> rquickjs::Result<String> {
    Ok(rquickjs::Coerced::<String>::from_js(value.ctx(), value.clone())?.0)
}

/// An error for a person: name, message and stack.
fn describe(error: &CaughtError<'_>) -> String {
    let CaughtError::Exception(exception) = error else { return error.to_string() };
    let name = exception.as_object().get::<_, String>("name").unwrap_or_else(|_| "Error".into());
    let stack = exception.stack().map(|stack| format!("\n{}", stack.trim_end())).unwrap_or_default();
    format!("{name}: {}{stack}", exception.message().unwrap_or_default())
}
