//! Machine code in the policy store. Each file ends with its own name, so that a renamed file does not run as another policy.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::policy_store::PolicyStore;

#[derive(Clone)]
pub struct CodeCache {
    store: PolicyStore,
}

impl CodeCache {
    pub fn new(cache_dir: &Path) -> Self {
        Self { store: PolicyStore::new(cache_dir) }
    }

    /// Loads the code for this engine of the component with this digest, which is in hexadecimal. `None` if it has to be compiled.
    pub fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let name = name(engine, digest);
        let loaded = match self.store.open_compiled(&name) {
            Ok(file) => deserialize(engine, &file?, &name),
            Err(error) => Err(error.into()),
        };
        // Another policy's, truncated by a full disk, or writable for others.
        loaded.inspect_err(|error| tracing::warn!(file = name, %error, "cannot load a cached compiled policy")).ok()
    }

    /// Saves the code and loads it from the file, so that its memory is shared. `None` if that is not possible.
    pub fn save(&self, engine: &Engine, digest: &str, code: &[u8]) -> Option<Component> {
        let name = name(engine, digest);
        match self.store.write_compiled(&name, &[code, name.as_bytes()]) {
            Ok(()) => self.load(engine, digest),
            Err(error) => {
                tracing::warn!(file = name, %error, "cannot cache a compiled policy");
                None
            }
        }
    }
}

/// The second part differs for every version of wasmtime and for every setting of the engine, its ABI included.
fn name(engine: &Engine, digest: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}", hasher.finish())
}

/// Maps the code of an open file that ends with its name.
fn deserialize(engine: &Engine, file: &File, name: &str) -> wasmtime::Result<Component> {
    let mut end = vec![0; name.len()];
    let length = file.metadata()?.len();
    let start = length.checked_sub(end.len() as u64).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
    file.read_exact_at(&mut end, start)?;
    if end != name.as_bytes() {
        return Err(wasmtime::Error::msg(
            "the file does not end with its name: it is the code of another policy, or damaged",
        ));
    }
    // The file that was checked, whatever its path leads to meanwhile.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    map(engine, Path::new(&path))
}

#[expect(unsafe_code, reason = "deserializing runs machine code as it is; see the comment")]
fn map(engine: &Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the policy store opened the file below directories that only this user can change, and the file is writable for this user
    // only. So this program wrote it, with code that this program compiled from the component in its name. Who can change the file can
    // change the program as well.
    unsafe { Component::deserialize_file(engine, file) }
}
