//! Compiles scripts to bytecode, in an engine of its own whose memory is temporary.
//!
//! The parser needs many times the memory of its result, and gives a function its own copy of its text, for `toString`: with nested
//! functions several times the size of the script. The bytecode has no texts, and the engine of the policy reads it into memory without
//! gaps.

use std::ffi::CString;
use std::ptr;

use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Error, Exception, Result, Runtime, Value, qjs};

use crate::memory::temporarily;

/// Bytes of the stack that an engine may use. A component has a stack of 512 KiB.
pub const STACK_BYTES: usize = 384 << 10;

/// The bytecode of a script, or its `SyntaxError`.
pub type Compiled = std::result::Result<Vec<u8>, SyntaxError>;

/// An error of a text that is not a script.
pub struct SyntaxError {
    pub message: String,
    /// With the position of the error.
    pub stack: String,
}

/// Calls `work` with an engine for [`compile`], which ends then. Everything that is allocated meanwhile is temporary, also the result.
pub fn with_engine<T>(work: impl FnOnce(&Ctx<'_>) -> T) -> Result<T> {
    temporarily(|| {
        let runtime = Runtime::new()?;
        runtime.set_max_stack_size(STACK_BYTES);
        let context = Context::full(&runtime)?;
        Ok(context.with(|ctx| work(&ctx)))
    })
}

/// Compiles a script, whose stacks have `file`. Without `keeps_lines` they have its functions only by name.
pub fn compile(ctx: &Ctx<'_>, file: &str, script: impl Into<Vec<u8>>, keeps_lines: bool) -> Compiled {
    bytecode(ctx, file, script, keeps_lines).catch(ctx).map_err(|error| SyntaxError::new(&error))
}

impl SyntaxError {
    fn new(error: &CaughtError<'_>) -> Self {
        match error {
            CaughtError::Exception(exception) => {
                Self { message: exception.message().unwrap_or_default(), stack: exception.stack().unwrap_or_default() }
            }
            other => Self { message: other.to_string(), stack: String::new() },
        }
    }
}

fn bytecode(ctx: &Ctx<'_>, file: &str, script: impl Into<Vec<u8>>, keeps_lines: bool) -> Result<Vec<u8>> {
    let has_nul = |_| Exception::throw_syntax(ctx, "a NUL character in a file name");
    let file = CString::new(file).map_err(has_nul)?;
    let mut script: Vec<u8> = script.into();
    let length = script.len() as qjs::size_t;
    // The parser reads one byte beyond the end, which has to be NUL.
    script.push(0);
    let context = ctx.as_raw().as_ptr();
    let flags = (qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY) as i32;
    let stripped = match keeps_lines {
        true => qjs::JS_WRITE_OBJ_STRIP_SOURCE,
        false => qjs::JS_WRITE_OBJ_STRIP_SOURCE | qjs::JS_WRITE_OBJ_STRIP_DEBUG,
    };
    // SAFETY: the texts outlive the calls, and each value is owned by one of them at a time.
    unsafe {
        let compiled = qjs::JS_Eval(context, script.as_ptr().cast(), length, file.as_ptr(), flags);
        if qjs::JS_IsException(compiled) {
            return Err(Error::Exception);
        }
        let compiled = Value::from_raw(ctx.clone(), compiled);
        let mut size: qjs::size_t = 0;
        let write = (qjs::JS_WRITE_OBJ_BYTECODE | stripped) as i32;
        let start = qjs::JS_WriteObject(context, &mut size, compiled.as_raw(), write);
        if start.is_null() {
            return Err(Error::Exception);
        }
        let bytecode = std::slice::from_raw_parts(start.cast_const(), size as usize).to_vec();
        qjs::js_free(context, ptr::from_mut(&mut *start).cast());
        Ok(bytecode)
    }
}
