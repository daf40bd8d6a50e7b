//! Loads a policy: untrusted bytes become a component that fits the interface.

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{ComponentExportIndex, Instance, InstancePre};
use wasmtime::{Engine, Store};

use crate::artifact::digest::Digest;
use crate::util::files;
use crate::wasm::compile::Compiler;
use crate::wasm::host::{self, PolicyIndices, State, linker};
use crate::wasm::load_error::{AUTHORIZER_INTERFACE, LoadError, MAX_COMPONENT_BYTES};

/// An interface that a policy may export in addition.
const PREPARATION_INTERFACE: &str = "tidegate:policy/preparation@0.1.0";

/// Checks that the first bytes are those of a component, before the expensive steps.
pub fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => Err(LoadError::NotWasm),
    }
}

/// A compiled component that fits the interface.
#[derive(Clone)]
pub struct Policy {
    pre: InstancePre<State>,
    indices: PolicyIndices,
    preparation: Option<ComponentExportIndex>,
    digest: Arc<str>,
}

impl Policy {
    pub fn load(compiler: &Compiler, path: &Path) -> Result<Self, LoadError> {
        Self::new(compiler, &files::read(path, MAX_COMPONENT_BYTES)?)
    }

    /// Compiles and checks a component, which takes from milliseconds to some ten seconds of all cores.
    pub fn new(compiler: &Compiler, bytes: &[u8]) -> Result<Self, LoadError> {
        Self::with_digest(compiler, bytes, Digest::of(bytes))
    }

    /// [`Self::new`] for bytes whose digest the caller has computed already.
    pub fn with_digest(compiler: &Compiler, bytes: &[u8], digest: Digest) -> Result<Self, LoadError> {
        check_header(bytes)?;
        let invalid = |error: wasmtime::Error| LoadError::Invalid(format!("{error:#}"));
        let engine = compiler.engine();
        let component = compiler.compile(bytes, &digest.hex())?;
        let linker = linker(engine).map_err(invalid)?;
        let kind = component.component_type();
        let exports: Vec<&str> = kind.exports(engine).map(|(name, _)| name).collect();
        if !exports.contains(&AUTHORIZER_INTERFACE) {
            let exports = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
            return Err(LoadError::MissingExport(exports));
        }
        let pre = linker.instantiate_pre(&component).map_err(|error| {
            // Only now, because the linker names just the first.
            let missing: Vec<&str> =
                kind.imports(engine).map(|(name, _)| name).filter(|name| !is_provided(name)).collect();
            LoadError::MissingImport(if missing.is_empty() { format!("{error:#}") } else { missing.join(", ") })
        })?;
        let indices = PolicyIndices::new(&pre).map_err(invalid)?;
        let preparation = component
            .get_export_index(None, PREPARATION_INTERFACE)
            .and_then(|interface| component.get_export_index(Some(&interface), "prepare"));
        // Now, because otherwise the first request pays for it.
        component.initialize_copy_on_write_image().map_err(invalid)?;
        Ok(Self { pre, indices, preparation, digest: digest.to_string().into() })
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    /// A fresh instance in `store`, which holds nothing else.
    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<(Instance, host::Policy)> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        Ok((instance, self.indices.load(store, &instance)?))
    }

    /// The function that a new instance calls before its request, if the policy has one.
    pub(crate) fn preparation(&self) -> Option<&ComponentExportIndex> {
        self.preparation.as_ref()
    }

    /// `sha256:…` of the component.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }
}

/// How the names of interfaces that the host provides begin. If a package or an interface only lacks a part, the linker reports it.
const PROVIDED_INTERFACES: [&str; 10] = [
    "tidegate:policy/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:config/store@",
    "wasi:filesystem/",
    "wasi:http/outgoing-handler@",
    "wasi:http/types@",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Whether the host provides an interface that a component imports.
fn is_provided(name: &str) -> bool {
    let version = if name.starts_with("wasi:") { "@0.2." } else { "@0.1." };
    PROVIDED_INTERFACES.iter().any(|start| name.starts_with(start)) && name.contains(version)
}
