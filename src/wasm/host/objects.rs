//! The memory of the objects that a policy makes in the host: the entries of its WASI table. It is part of `policy.max-memory`.

use std::any::Any;

use http::HeaderMap;
use wasmtime::{CallHook, Error, Result, StoreContextMut};
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse,
};
use wasmtime_wasi_http::{FieldMap, p3};

use crate::wasm::host::State;
use crate::wasm::host::http::BODY_CHUNK_BYTES;

/// Bytes that a policy may pass in one call of the host, which may keep them until the call returns: a key and a field of a look-up.
const MAX_ARGUMENT_BYTES: usize = 256 << 10;
/// Handles of all tables of an instance, and loans of them. An entry takes up to 50 bytes.
pub const MAX_COMPONENT_HANDLES: usize = 4096;
/// Tasks, waitable sets, streams and futures of an instance of an asynchronous component. Each takes up to 1 KiB.
pub const MAX_TASK_ENTRIES: usize = 1024;
/// An entry of the WASI table: its slot, its box, and the streams, timers and channels that it refers to.
const ENTRY_BYTES: usize = 512;
/// A slot of a map of header fields, without its text.
const FIELD_BYTES: usize = 128;
/// A body that was not sent yet: one chunk that is queued, and one that is being written.
const BODY_BYTES: usize = 2 * BODY_CHUNK_BYTES;

/// The hook of all calls between an instance and the host: before a call it limits the arguments, and after it the memory of the objects.
pub fn check_transition(mut store: StoreContextMut<'_, State>, transition: CallHook) -> Result<()> {
    let max_answer = store.data().max_answer;
    match transition {
        // The function of the host may be `task.return`, by which an asynchronous component answers.
        CallHook::CallingHost if store.concurrent_resource_table().is_some() => {
            store.set_hostcall_fuel(MAX_ARGUMENT_BYTES.max(max_answer));
        }
        CallHook::CallingHost => store.set_hostcall_fuel(MAX_ARGUMENT_BYTES),
        // The function that returns may be `authorize`, whose answer is read next.
        CallHook::ReturningFromWasm => store.set_hostcall_fuel(max_answer),
        CallHook::ReturningFromHost => return store.data_mut().check_objects(),
        CallHook::CallingWasm => {}
    }
    Ok(())
}

impl State {
    /// Fails if the objects of the host and the memories of the instance are larger together than `policy.max-memory`.
    fn check_objects(&mut self) -> Result<()> {
        let Some(wasi) = &mut self.wasi else { return Ok(()) };
        if !std::mem::take(&mut wasi.is_touched) {
            return Ok(());
        }
        let bytes = wasi.table.iter_mut().map(|entry| ENTRY_BYTES.saturating_add(bytes_of(entry))).sum();
        if self.limiter.set_host_bytes(bytes) {
            return Ok(());
        }
        Err(Error::msg("the objects of the policy in the host exceed its memory (policy.max-memory)"))
    }
}

/// The memory of an entry, other than [`ENTRY_BYTES`]. Entries of other types have no text and no body of the policy's choice.
fn bytes_of(entry: &(dyn Any + Send)) -> usize {
    let body = |is_unsent: bool| if is_unsent { BODY_BYTES } else { 0 };
    if let Some(fields) = entry.downcast_ref::<FieldMap>() {
        return bytes_of_fields(fields);
    }
    if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
        let method = if let Method::Other(name) = &request.method { name.len() } else { 0 };
        let scheme = if let Some(Scheme::Other(name)) = &request.scheme { name.len() } else { 0 };
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let target = text(&request.authority) + text(&request.path_with_query);
        return method + scheme + target + bytes_of_fields(&request.headers) + body(request.body.is_some());
    }
    if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
        return bytes_of_fields(&response.headers) + body(response.body.is_some());
    }
    if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
        return bytes_of_fields(&response.headers);
    }
    if let Some(request) = entry.downcast_ref::<p3::Request>() {
        let path = request.path_with_query.as_ref().map_or(0, |path| path.as_str().len());
        let authority = request.authority.as_ref().map_or(0, |authority| authority.as_str().len());
        return request.method.as_str().len() + authority + path + bytes_of_fields(&request.headers) + BODY_BYTES;
    }
    if let Some(response) = entry.downcast_ref::<p3::Response>() {
        return bytes_of_fields(&response.headers) + BODY_BYTES;
    }
    if let Some(HostFutureIncomingResponse::Ready(Ok((response, _)))) = entry.downcast_ref() {
        return bytes_of_fields(response.headers());
    }
    0
}

fn bytes_of_fields(fields: &HeaderMap) -> usize {
    let text: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    // Names with several values have more values than slots.
    text + fields.capacity().max(fields.len()) * FIELD_BYTES
}
