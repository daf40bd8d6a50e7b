//! Evaluation of scripts, without the texts of their functions.

use std::ffi::CString;

use rquickjs::{Ctx, Error, Exception, Result, Value, qjs};

/// Evaluates a script, whose stacks have `file`.
///
/// A function that the parser makes has its own copy of its text, for `toString`: with nested functions several times the size of the
/// script. The bytecode is written and read again without these texts, which also stores it without gaps.
///
/// Without `keeps_lines`, stacks have its functions only by name.
pub fn evaluate<'js>(ctx: &Ctx<'js>, file: &str, script: impl Into<Vec<u8>>, keeps_lines: bool) -> Result<Value<'js>> {
    let has_nul = |_| Exception::throw_syntax(ctx, "a NUL character in a file name");
    let file = CString::new(file).map_err(has_nul)?;
    let mut script: Vec<u8> = script.into();
    let length = script.len() as qjs::size_t;
    // The parser reads one byte beyond the end, which has to be NUL.
    script.push(0);
    let context = ctx.as_raw().as_ptr();
    let flags = (qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY) as i32;
    // SAFETY: the texts outlive the calls, and each value is owned by one of them at a time.
    unsafe {
        let compiled = owned(ctx, qjs::JS_Eval(context, script.as_ptr().cast(), length, file.as_ptr(), flags))?;
        let mut size: qjs::size_t = 0;
        let stripped = match keeps_lines {
            true => qjs::JS_WRITE_OBJ_STRIP_SOURCE,
            false => qjs::JS_WRITE_OBJ_STRIP_SOURCE | qjs::JS_WRITE_OBJ_STRIP_DEBUG,
        };
        let write = (qjs::JS_WRITE_OBJ_BYTECODE | stripped) as i32;
        let bytecode = qjs::JS_WriteObject(context, &mut size, compiled.as_raw(), write);
        drop(compiled);
        if bytecode.is_null() {
            return Err(Error::Exception);
        }
        let function = qjs::JS_ReadObject(context, bytecode, size, qjs::JS_READ_OBJ_BYTECODE as i32);
        // The allocator of a build clears it, so that the snapshot does not contain it.
        qjs::js_free(context, bytecode.cast());
        if qjs::JS_IsException(function) {
            return Err(Error::Exception);
        }
        // It takes the function, also if it fails.
        owned(ctx, qjs::JS_EvalFunction(context, function))
    }
}

/// A value that the engine returned.
unsafe fn owned<'js>(ctx: &Ctx<'js>, value: qjs::JSValue) -> Result<Value<'js>> {
    unsafe {
        match qjs::JS_IsException(value) {
            true => Err(Error::Exception),
            false => Ok(Value::from_raw(ctx.clone(), value)),
        }
    }
}
