//! A policy as it is loaded: from bytes that may be anything to a component that fits the interface.

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{Component, ComponentExportIndex, Instance, InstancePre};
use wasmtime::{Engine, Store};

use crate::artifact::digest::Digest;
use crate::util::files;
use crate::wasm::compile::Compiler;
use crate::wasm::host;
use crate::wasm::host::{PolicyIndices, State, linker};
use crate::wasm::load_error::{EXPORT, LoadError, MAX_SIZE};

/// What it may export beside.
const PREPARATION: &str = "tidegate:policy/preparation@0.1.0";

/// Whether the first bytes are a component's, which costs nothing to ask.
pub fn begins_as_one(bytes: &[u8]) -> Result<(), LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => Err(LoadError::NotWasm),
    }
}

/// A component that fits the interface, ready for instances.
#[derive(Clone)]
pub struct Policy {
    pre: InstancePre<State>,
    indices: PolicyIndices,
    preparation: Option<ComponentExportIndex>,
    digest: Arc<str>,
}

impl Policy {
    /// Loads a file.
    pub fn load(compiler: &Compiler, path: &Path) -> Result<Self, LoadError> {
        Self::new(compiler, &files::read(path, MAX_SIZE)?)
    }

    /// Compiles and checks; takes from milliseconds to some ten seconds of both cores.
    pub fn new(compiler: &Compiler, bytes: &[u8]) -> Result<Self, LoadError> {
        Self::of(compiler, bytes, Digest::of(bytes))
    }

    /// The same for bytes of which the digest is known.
    pub fn of(compiler: &Compiler, bytes: &[u8], digest: Digest) -> Result<Self, LoadError> {
        begins_as_one(bytes)?;
        let invalid = |error: wasmtime::Error| LoadError::Invalid(format!("{error:#}"));
        let engine = compiler.engine();
        let component = compiler.compile(bytes, &digest.hex())?;
        let linker = linker(engine).map_err(invalid)?;
        let kind = component.component_type();
        if !kind.exports(engine).any(|(name, _)| name == EXPORT) {
            let names: Vec<&str> = kind.exports(engine).map(|(name, _)| name).collect();
            let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
            return Err(LoadError::MissingExport(names));
        }
        let pre = linker.instantiate_pre(&component).map_err(|error| {
            let missing = missing_imports(engine, &component);
            LoadError::MissingImport(if missing.is_empty() { format!("{error:#}") } else { missing.join(", ") })
        })?;
        let indices = PolicyIndices::new(&pre).map_err(invalid)?;
        let preparation = component
            .get_export_index(None, PREPARATION)
            .and_then(|interface| component.get_export_index(Some(&interface), "prepare"));
        // Else the first request would pay for it.
        component.initialize_copy_on_write_image().map_err(invalid)?;
        Ok(Self { pre, indices, preparation, digest: digest.to_string().into() })
    }

    /// The engine that it was compiled for.
    pub(crate) fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    /// A fresh instance in a store of its own.
    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<(Instance, host::Policy)> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        Ok((instance, self.indices.load(store, &instance)?))
    }

    /// What it wants to be called before it waits for its request.
    pub(crate) fn preparation(&self) -> Option<&ComponentExportIndex> {
        self.preparation.as_ref()
    }

    /// `sha256:…` of the component.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }
}

/// The interfaces that the host has, less their versions. One that is there but lacks a function is told by the linker.
const PROVIDED: [&str; 33] = [
    "tidegate:policy/answer",
    "tidegate:policy/context",
    "tidegate:policy/lookup",
    "tidegate:policy/settings",
    "tidegate:policy/tokens",
    "tidegate:policy/types",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:config/store",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
];

/// The names of all that a component imports and the host does not have.
fn missing_imports(engine: &Engine, component: &Component) -> Vec<String> {
    let provided = |name: &str| {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        let known = PROVIDED.contains(&interface) || interface.starts_with("wasi:sockets/");
        known && version.starts_with(if interface.starts_with("wasi:") { "0.2." } else { "0.1." })
    };
    let kind = component.component_type();
    kind.imports(engine).map(|(name, _)| name).filter(|name| !provided(name)).map(str::to_owned).collect()
}
