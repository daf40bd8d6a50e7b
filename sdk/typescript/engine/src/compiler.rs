//! Compiles scripts to bytecode, in an engine of its own whose memory is temporary.
//!
//! The parser needs many times the memory of its result, and gives a function its own copy of its text, for `toString`: with nested
//! functions several times the size of the script. The bytecode has no texts, and the engine of the policy reads it into memory without
//! gaps.

use std::ffi::CString;
use std::ptr;

use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Error, Exception, Result, Runtime, Value, qjs};

use crate::memory::temporarily;
use crate::slim::slim;

/// Bytes of the stack that an engine may use. A component has a stack of 384 KiB.
pub const STACK_BYTES: usize = 256 << 10;

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

/// What stacks have of the functions of a script, besides their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The file and the line. Messages have the names of variables.
    Lines,
    File,
    None,
}

/// Compiles a script, whose stacks have `file`.
pub fn compile(ctx: &Ctx<'_>, file: &str, script: impl Into<Vec<u8>>, detail: Detail) -> Compiled {
    let script = script.into();
    let is_slim = detail != Detail::Lines && !has_eval(&script);
    let bytecode = bytecode(ctx, file, script, detail).catch(ctx).map_err(|error| SyntaxError::new(&error))?;
    Ok(if is_slim { slim(&bytecode).unwrap_or(bytecode) } else { bytecode })
}

/// Whether a script has the word `eval`: code that it runs has the variables around it.
fn has_eval(script: &[u8]) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_$".contains(byte));
    let mut words = script.windows(4).enumerate().filter(|(_, word)| word == b"eval");
    words.any(|(at, _)| !is_word(at.checked_sub(1).and_then(|at| script.get(at))) && !is_word(script.get(at + 4)))
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

fn bytecode(ctx: &Ctx<'_>, file: &str, mut script: Vec<u8>, detail: Detail) -> Result<Vec<u8>> {
    let has_nul = |_| Exception::throw_syntax(ctx, "a NUL character in a file name");
    let file = CString::new(file).map_err(has_nul)?;
    let length = script.len() as qjs::size_t;
    // The parser reads one byte beyond the end, which has to be NUL.
    script.push(0);
    let context = ctx.as_raw().as_ptr();
    let flags = (qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY) as i32;
    let stripped = match detail {
        Detail::Lines | Detail::File => qjs::JS_WRITE_OBJ_STRIP_SOURCE,
        Detail::None => qjs::JS_WRITE_OBJ_STRIP_SOURCE | qjs::JS_WRITE_OBJ_STRIP_DEBUG,
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
