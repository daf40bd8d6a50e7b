//! Evaluation of compiled scripts.

use rquickjs::function::Constructor;
use rquickjs::{Ctx, Error, Result, Value, qjs};

use crate::compiler::{Compiled, SyntaxError};

/// Evaluates a compiled script, or throws its `SyntaxError`.
pub fn evaluate<'js>(ctx: &Ctx<'js>, script: &Compiled) -> Result<Value<'js>> {
    match script {
        Ok(bytecode) => evaluate_bytecode(ctx, bytecode),
        Err(error) => Err(throw(ctx, error)?),
    }
}

/// Evaluates a script that [`crate::compiler::compile`] compiled.
pub fn evaluate_bytecode<'js>(ctx: &Ctx<'js>, bytecode: &[u8]) -> Result<Value<'js>> {
    let context = ctx.as_raw().as_ptr();
    let length = bytecode.len() as qjs::size_t;
    // SAFETY: the bytecode is that of the same engine, and each value is owned by one of the calls at a time.
    unsafe {
        let function = qjs::JS_ReadObject(context, bytecode.as_ptr(), length, qjs::JS_READ_OBJ_BYTECODE as i32);
        if qjs::JS_IsException(function) {
            return Err(Error::Exception);
        }
        // It takes the function, also if it fails.
        let value = qjs::JS_EvalFunction(context, function);
        if qjs::JS_IsException(value) {
            return Err(Error::Exception);
        }
        Ok(Value::from_raw(ctx.clone(), value))
    }
}

/// Throws an error of another engine.
fn throw(ctx: &Ctx<'_>, error: &SyntaxError) -> Result<Error> {
    let constructor: Constructor = ctx.globals().get("SyntaxError")?;
    let thrown: rquickjs::Object = constructor.construct((&*error.message,))?;
    thrown.set("stack", &*error.stack)?;
    Ok(ctx.throw(thrown.into_value()))
}
