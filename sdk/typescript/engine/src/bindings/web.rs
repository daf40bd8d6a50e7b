//! Natives of `src/web`.

use rquickjs::prelude::{Func, Opt};
use rquickjs::{Ctx, Object, Result, Value};

use super::{Bytes, List, or_throw};
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

fn encode_prefix<'js>(ctx: Ctx<'js>, text: String, capacity: usize) -> Result<List<'js>> {
    let (read, bytes) = encoding::encode_prefix(&text, capacity);
    let mut result = List::new(&ctx, 2);
    result.number(read);
    result.value(Bytes(bytes.to_vec()))?;
    Ok(result)
}

fn url_parse<'js>(ctx: Ctx<'js>, input: String, base: Opt<Option<String>>) -> Option<List<'js>> {
    url::parse(&input, base.0.flatten().as_deref()).map(|parts| url_parts(&ctx, &parts))
}

fn url_set<'js>(ctx: Ctx<'js>, href: String, component: String, value: String) -> Option<List<'js>> {
    url::set(&href, &component, &value).map(|parts| url_parts(&ctx, &parts))
}

fn url_parts<'js>(ctx: &Ctx<'js>, parts: &url::Parts) -> List<'js> {
    let mut result = List::new(ctx, 1 + parts.positions.len());
    result.text(&parts.href);
    parts.positions.iter().for_each(|&position| result.number(position));
    result
}

/// The names and the values of a query: a string, or the bytes of a body.
fn query_pairs<'js>(ctx: Ctx<'js>, query: Value<'js>) -> Result<List<'js>> {
    let (names, values) = match query.is_string() {
        true => query::parse(&query.get::<String>()?),
        false => query::parse_bytes(&query.get::<Bytes>()?),
    };
    let mut result = List::new(&ctx, 2);
    result.value(List::of_texts(&ctx, names.iter().map(String::as_str)))?;
    result.value(List::of_texts(&ctx, values.iter().map(String::as_str)))?;
    Ok(result)
}

/// The parts as one list: name, file name, type and body of each.
fn multipart_parse<'js>(ctx: Ctx<'js>, body: Bytes, boundary: String) -> Result<List<'js>> {
    let parts = or_throw(&ctx, multipart::parse(&body, &boundary))?;
    let mut result = List::new(&ctx, 4 * parts.len());
    for part in parts {
        result.text(&part.name);
        result.value(part.file_name)?;
        result.value(part.content_type)?;
        result.value(Bytes(part.body))?;
    }
    Ok(result)
}
