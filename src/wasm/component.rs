//! Loads a policy: untrusted bytes become a component that fits the interface.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{ComponentExportIndex, Instance, InstancePre};
use wasmtime::{Engine, Store};

use crate::artifact::digest::Digest;
use crate::util::files;
use crate::wasm::abi::Abi;
use crate::wasm::compile::Compiler;
use crate::wasm::host::{self, PolicyIndices, State, linker};
use crate::wasm::imports;
use crate::wasm::load_error::{AUTHORIZER_INTERFACE, LoadError, MAX_COMPONENT_BYTES, causes};

/// The interfaces that a policy may export in addition.
const PREPARATION_INTERFACE: &str = "tidegate:policy/preparation@0.1.0";
const CHECKPOINT_INTERFACE: &str = "tidegate:policy/checkpoint@0.1.0";

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
    checkpoint: Option<CheckpointFunctions>,
    digest: Arc<str>,
}

/// The functions of a policy that saves the state of a prepared instance.
#[derive(Clone)]
pub(crate) struct CheckpointFunctions {
    save: ComponentExportIndex,
    restore: ComponentExportIndex,
}

impl CheckpointFunctions {
    /// Prepares an instance, which is not used afterwards, and returns its state. `None` if other instances must not have it.
    pub async fn save(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Option<Vec<u64>>> {
        let save = instance.get_typed_func::<(), (Option<Vec<u64>>,)>(&mut *store, &self.save)?;
        Ok(save.call_async(store, ()).await?.0)
    }

    /// Brings a new instance into a saved state.
    pub async fn restore(&self, store: &mut Store<State>, instance: &Instance, state: &[u64]) -> wasmtime::Result<()> {
        let restore = instance.get_typed_func::<(&[u64],), ()>(&mut *store, &self.restore)?;
        restore.call_async(store, (state,)).await
    }
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
        let invalid = |error: wasmtime::Error| LoadError::Invalid(causes(&error));
        let abi = Abi::of(bytes);
        let component = compiler.compile(bytes, abi, &digest.hex())?;
        // The linker and the instances get their engine from the component, so those of two engines never meet.
        let engine = component.engine();
        let linker = linker(engine, abi).map_err(invalid)?;
        let kind = component.component_type();
        let exports: Vec<&str> = kind.exports(engine).map(|(name, _)| name).collect();
        if !exports.contains(&AUTHORIZER_INTERFACE) {
            let exports = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
            return Err(LoadError::MissingExport(exports));
        }
        let pre = linker
            .instantiate_pre(&component)
            // Only now, because the linker names just the first.
            .map_err(|error| imports::explain(kind.imports(engine).map(|(name, _)| name), abi, &error))?;
        let indices = PolicyIndices::new(&pre).map_err(|error| LoadError::WrongExport(causes(&error)))?;
        let export = |interface: &str, function: &str| {
            component.get_export_index(Some(&component.get_export_index(None, interface)?), function)
        };
        let preparation = export(PREPARATION_INTERFACE, "prepare");
        let checkpoint = export(CHECKPOINT_INTERFACE, "save").zip(export(CHECKPOINT_INTERFACE, "restore"));
        let checkpoint = checkpoint.map(|(save, restore)| CheckpointFunctions { save, restore });
        // Now, because otherwise the first request pays for it.
        component.initialize_copy_on_write_image().map_err(invalid)?;
        Ok(Self { pre, indices, preparation, checkpoint, digest: digest.to_string().into() })
    }

    /// A store for one instance of this policy.
    pub(crate) fn new_store(&self, state: State) -> PolicyStore<'_> {
        PolicyStore { policy: self, store: Store::new(self.pre.engine(), state) }
    }

    /// The function that a new instance calls before its request, if the policy has one.
    pub(crate) fn preparation(&self) -> Option<&ComponentExportIndex> {
        self.preparation.as_ref()
    }

    /// The functions that bring a new instance into the state of a prepared one, if the policy has them.
    pub(crate) fn checkpoint(&self) -> Option<&CheckpointFunctions> {
        self.checkpoint.as_ref()
    }

    /// `sha256:…` of the component.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }
}

/// A store in which nothing but an instance of its policy can be made. The store, the linker and the component have the same engine.
pub(crate) struct PolicyStore<'a> {
    policy: &'a Policy,
    store: Store<State>,
}

impl PolicyStore<'_> {
    /// Creates the instance.
    pub async fn instantiate(&mut self) -> wasmtime::Result<(Instance, host::Policy)> {
        let instance = self.policy.pre.instantiate_async(&mut self.store).await?;
        Ok((instance, self.policy.indices.load(&mut self.store, &instance)?))
    }

    /// The store, after the instance was created.
    pub fn into_inner(self) -> Store<State> {
        self.store
    }
}

impl Deref for PolicyStore<'_> {
    type Target = Store<State>;

    fn deref(&self) -> &Store<State> {
        &self.store
    }
}

impl DerefMut for PolicyStore<'_> {
    fn deref_mut(&mut self) -> &mut Store<State> {
        &mut self.store
    }
}
