//! Natives of `src/web`.

use rquickjs::prelude::{Func, Opt};
use rquickjs::{Array, Ctx, IntoJs, Object, Result, Value};

use super::{Bytes, or_throw};
use crate::web::{compression, encoding, headers, multipart, query, url};

/// Adds the natives to `native`.
pub fn register(native: &Object<'_>) -> Result<()> {
    native.set("utf8Encode", Func::from(|text: String| Bytes(text.into_bytes())))?;
    native.set("utf8EncodePrefix", Func::from(encode_prefix))?;
    native.set(
        "utf8Decode",
        Func::from(|ctx: Ctx<'_>, bytes: Bytes, fatal: bool, keep_mark: bool| {
            or_throw(&ctx, encoding::decode_utf8(&bytes, fatal, keep_mark))
        }),
    )?;
    native.set("encodingName", Func::from(|label: String| encoding::name(&label)))?;
    native.set(
        "decode",
        Func::from(|ctx: Ctx<'_>, label: String, bytes: Bytes, fatal: bool, keep_mark: bool| {
            or_throw(&ctx, encoding::decode(&label, &bytes, fatal, keep_mark))
        }),
    )?;
    native.set(
        "decoderOpen",
        Func::from(|ctx: Ctx<'_>, label: String, fatal: bool, keep_mark: bool| {
            or_throw(&ctx, encoding::open(&label, fatal, keep_mark))
        }),
    )?;
    native.set(
        "decoderPush",
        Func::from(|ctx: Ctx<'_>, id: u32, bytes: Bytes, last: bool| or_throw(&ctx, encoding::push(id, &bytes, last))),
    )?;
    native.set("latin1", Func::from(|bytes: Bytes| encoding::latin1(&bytes)))?;
    // Lone surrogates, which have no UTF-8, are invalid in headers.
    let text = |value: Value<'_>| value.get::<String>().ok();
    native.set("headerName", Func::from(move |name: Value<'_>| text(name).and_then(|name| headers::name(&name))))?;
    native.set(
        "isHeaderValue",
        Func::from(move |value: Value<'_>| text(value).is_some_and(|value| headers::is_plain_value(&value))),
    )?;
    native.set("urlParse", Func::from(url_parse))?;
    native.set("urlSet", Func::from(url_set))?;
    native.set("queryPairs", Func::from(query_pairs))?;
    native.set("queryText", Func::from(|names: Vec<String>, values: Vec<String>| query::serialize(&names, &values)))?;
    native.set("multipartParse", Func::from(multipart_parse))?;
    native.set(
        "compressionOpen",
        Func::from(|ctx: Ctx<'_>, format: String, compress: bool| or_throw(&ctx, compression::open(&format, compress))),
    )?;
    native.set(
        "compressionPush",
        Func::from(|ctx: Ctx<'_>, id: u32, bytes: Bytes, last: bool| {
            or_throw(&ctx, compression::push(id, &bytes, last).map(Bytes))
        }),
    )
}

fn encode_prefix<'js>(ctx: Ctx<'js>, text: String, capacity: usize) -> Result<Array<'js>> {
    let (read, bytes) = encoding::encode_prefix(&text, capacity);
    let result = Array::new(ctx)?;
    result.set(0, read)?;
    result.set(1, Bytes(bytes.to_vec()))?;
    Ok(result)
}

fn url_parse<'js>(ctx: Ctx<'js>, input: String, base: Opt<Option<String>>) -> Result<Value<'js>> {
    url_parts(ctx, url::parse(&input, base.0.flatten().as_deref()))
}

fn url_set<'js>(ctx: Ctx<'js>, href: String, component: String, value: String) -> Result<Value<'js>> {
    url_parts(ctx, url::set(&href, &component, &value))
}

fn url_parts<'js>(ctx: Ctx<'js>, parts: Option<url::Parts>) -> Result<Value<'js>> {
    let Some(url::Parts { href, positions }) = parts else { return Ok(Value::new_undefined(ctx)) };
    let result = Array::new(ctx)?;
    result.set(0, href)?;
    for (at, position) in positions.into_iter().enumerate() {
        result.set(at + 1, position)?;
    }
    Ok(result.into_value())
}

/// The names and the values of a query: a string, or the bytes of a body.
fn query_pairs<'js>(ctx: Ctx<'js>, query: Value<'js>) -> Result<Array<'js>> {
    let (names, values) = match query.is_string() {
        true => query::parse(&query.get::<String>()?),
        false => query::parse_bytes(&query.get::<Bytes>()?),
    };
    let result = Array::new(ctx)?;
    result.set(0, names)?;
    result.set(1, values)?;
    Ok(result)
}

/// The parts as one list: name, file name, type and body of each.
fn multipart_parse<'js>(ctx: Ctx<'js>, body: Bytes, boundary: String) -> Result<Array<'js>> {
    let parts = or_throw(&ctx, multipart::parse(&body, &boundary))?;
    let result = Array::new(ctx.clone())?;
    let mut at = 0;
    let mut push = |value: Value<'js>| {
        at += 1;
        result.set(at - 1, value)
    };
    for part in parts {
        push(part.name.into_js(&ctx)?)?;
        push(part.file_name.into_js(&ctx)?)?;
        push(part.content_type.into_js(&ctx)?)?;
        push(Bytes(part.body).into_js(&ctx)?)?;
    }
    Ok(result)
}
