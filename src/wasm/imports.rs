//! Which interfaces the host provides, and why the imports of a component cannot be linked.

use crate::wasm::abi::{Abi, is_wasi_0_3};
use crate::wasm::load_error::{LoadError, causes};

/// How the names of interfaces that the host provides begin. If a package or an interface only lacks a part, the linker reports it.
const PROVIDED_INTERFACES: [&str; 11] = [
    "tidegate:policy/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:config/store@",
    "wasi:filesystem/",
    "wasi:http/client@",
    "wasi:http/outgoing-handler@",
    "wasi:http/types@",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Why a component with these imports cannot be linked. The linker names only the first import that is missing.
pub fn explain<'a>(imports: impl Iterator<Item = &'a str>, abi: Abi, error: &wasmtime::Error) -> LoadError {
    let missing: Vec<&str> = imports.filter(|name| !is_provided(name, abi)).collect();
    if missing.is_empty() {
        return LoadError::WrongImport(causes(error));
    }
    let mut text = missing.join(", ");
    if let Some(advice) = missing.iter().find_map(|name| advice(name)) {
        text = format!("{text} ({advice})");
    }
    LoadError::MissingImport(text)
}

/// Whether the host provides an interface that a component imports.
fn is_provided(name: &str, abi: Abi) -> bool {
    let is_version = if name.starts_with("wasi:") {
        name.contains("@0.2.") || (is_release_of_0_3(name) && abi == Abi::Async)
    } else {
        name.contains("@0.1.")
    };
    is_version && PROVIDED_INTERFACES.iter().any(|start| name.starts_with(start))
}

fn is_release_of_0_3(name: &str) -> bool {
    is_wasi_0_3(name) && !is_draft(name)
}

/// Whether the version is one before a release.
fn is_draft(name: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| version.contains('-'))
}

/// What an author can do about an import that is missing.
fn advice(name: &str) -> Option<&'static str> {
    if is_wasi_0_3(name) && is_draft(name) {
        return Some("this is a draft of WASI 0.3: build it with a current release of the toolchain");
    }
    if name.starts_with("tidegate:policy/") {
        return Some("this is another version of the interface: build it from wit/policy.wit of this version");
    }
    if name.starts_with("wasi:http/incoming-handler@") || name.starts_with("wasi:http/handler@") {
        return Some(
            "a policy answers by tidegate:policy/authorizer: build it for the world `policy`, not for a world of wasi:http",
        );
    }
    // `env`, `wasi_snapshot_preview1` and the like.
    if !name.contains(':') {
        return Some("this is an import of a core module: link what defines it, or build for wasm32-wasip2");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_version_of_wasi_is_provided() {
        for patch in 0..=12 {
            for abi in [Abi::Synchronous, Abi::Async] {
                assert!(is_provided(&format!("wasi:cli/environment@0.2.{patch}"), abi));
            }
        }
        assert!(is_provided("wasi:clocks/monotonic-clock@0.3.0", Abi::Async));
        for name in ["wasi:clocks/monotonic-clock@0.3.0-rc-2026-01-01", "wasi:nn/graph@0.2.0", "wasi:cli/run@0.1.0"] {
            assert!(!is_provided(name, Abi::Async), "{name}");
        }
    }

    #[test]
    fn advice_depends_on_the_missing_import() {
        let text = |name| explain([name].into_iter(), Abi::Async, &wasmtime::Error::msg("unused")).to_string();
        for (name, words) in [
            ("wasi:cli/stdout@0.3.0-rc-2026-03-15", "a draft of WASI 0.3"),
            ("tidegate:policy/context@0.2.0", "another version of the interface"),
            ("wasi:http/incoming-handler@0.2.4", "`policy`"),
            ("env", "core module"),
            ("acme:secrets/vault@1.0.0", "acme:secrets/vault@1.0.0."),
        ] {
            assert!(text(name).contains(words), "{name}: {}", text(name));
        }
    }
}
