//! Bytes of JavaScript: an `ArrayBuffer` or a view of one.

use rquickjs::{ArrayBuffer, Ctx, Error, FromJs, IntoJs, Object, Result, Value, qjs};

/// Bytes, copied from and to JavaScript. As a result they become a `Uint8Array`.
pub struct Bytes(pub Vec<u8>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'js> FromJs<'js> for Bytes {
    fn from_js(ctx: &Ctx<'js>, value: Value<'js>) -> Result<Self> {
        if !value.is_object() {
            return Err(wrong(&value));
        }
        let (context, raw) = (ctx.as_raw().as_ptr(), value.as_raw());
        let mut length: qjs::size_t = 0;
        // SAFETY: the engine's own pointer and length of a buffer that is alive; the bytes are copied before any other call.
        unsafe {
            let start = if qjs::JS_GetTypedArrayType(raw) == qjs::JSTypedArrayEnum_JS_TYPED_ARRAY_UINT8 as i32 {
                qjs::JS_GetUint8Array(context, &mut length, raw)
            } else if qjs::JS_IsArrayBuffer(raw) {
                qjs::JS_GetArrayBuffer(context, &mut length, raw)
            } else {
                return other_view(&value);
            };
            if start.is_null() {
                // A detached buffer: it has no bytes.
                ctx.catch();
                return Ok(Self(Vec::new()));
            }
            Ok(Self(std::slice::from_raw_parts(start, length as usize).to_vec()))
        }
    }
}

fn wrong(value: &Value<'_>) -> Error {
    Error::new_from_js(value.type_name(), "an ArrayBuffer or a view of one")
}

/// The bytes of a view that is not a `Uint8Array`.
fn other_view(value: &Value<'_>) -> Result<Bytes> {
    let find = || {
        let view = value.as_object()?;
        let buffer = ArrayBuffer::from_object(view.get::<_, Object>("buffer").ok()?)?;
        let offset: usize = view.get("byteOffset").ok()?;
        let length: usize = view.get("byteLength").ok()?;
        // SAFETY: the bytes are copied before JavaScript runs again.
        let bytes = unsafe { buffer.as_bytes() }?.get(offset..offset.checked_add(length)?)?;
        Some(Bytes(bytes.to_vec()))
    };
    find().ok_or_else(|| wrong(value))
}

impl<'js> IntoJs<'js> for Bytes {
    fn into_js(self, ctx: &Ctx<'js>) -> Result<Value<'js>> {
        // SAFETY: the engine copies the bytes, and gives a value that is owned here or an exception.
        unsafe {
            let length = self.0.len() as qjs::size_t;
            let value = qjs::JS_NewUint8ArrayCopy(ctx.as_raw().as_ptr(), self.0.as_ptr(), length);
            match qjs::JS_IsException(value) {
                true => Err(Error::Exception),
                false => Ok(Value::from_raw(ctx.clone(), value)),
            }
        }
    }
}
