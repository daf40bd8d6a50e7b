//! Says which crate of a policy needs what a policy does not have, and what to use instead.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, bail};

use crate::commands::policy::build::rust::project::{CargoProject, LinkedPackage};
use crate::commands::policy::build::rust::toolchain::RustToolchain;

const LOOKUPS: &str = "use `tidegate_policy::lookup`, which asks the gateway's store";
const REQUESTS: &str = "a policy sends requests with `wasi:http/outgoing-handler`";
const PURE_TLS: &str = "the gateway makes the connections of a policy: switch off the feature that brings it";
const NO_SOCKETS: &str =
    "a policy has no sockets: use `lookup` for the store; the gateway sends its requests to other servers";
const RUST_CRYPTO: &str =
    "use a crate in Rust (`hmac` with `sha2`, `ed25519-dalek`, `p256`, `rsa`), or `tokens::verify` of the SDK";

/// Crates that never compile for `wasm32-unknown-unknown`. Others are not listed, because a crate that is only compiled and not used does
/// no harm.
const NEVER_COMPILE: [(&str, &str); 9] = [
    ("openssl-sys", RUST_CRYPTO),
    (
        "aws-lc-sys",
        "select the crate's backend in Rust: for jsonwebtoken `default-features = false, features = [\"rust_crypto\"]`",
    ),
    ("libsodium-sys", RUST_CRYPTO),
    ("libsodium-sys-stable", RUST_CRYPTO),
    ("mio", NO_SOCKETS),
    ("socket2", NO_SOCKETS),
    ("nix", "a policy has no operating system: switch off the feature that brings it"),
    ("native-tls", PURE_TLS),
    ("libsqlite3-sys", LOOKUPS),
];

/// Crates that compile, but cannot do in a policy what they are for.
const NEVER_WORK: [(&str, &str); 5] =
    [("reqwest", REQUESTS), ("ureq", REQUESTS), ("redis", LOOKUPS), ("sqlx", LOOKUPS), ("postgres", LOOKUPS)];

/// Parts of tokio that need an operating system; the crate does not compile with them.
const TOKIO_SYSTEM_FEATURES: [&str; 6] = ["full", "fs", "net", "process", "rt-multi-thread", "signal"];

/// Reports dependencies that cannot work, before cargo compiles for minutes.
pub fn check(toolchain: RustToolchain, project: &CargoProject) -> Result<()> {
    let linked = project.linked_packages();
    let never_works = linked.iter().filter(|linked| linked.is_direct());
    let never_works =
        never_works.filter_map(|linked| Some((linked, find(&NEVER_WORK, &linked.package.name)?.to_owned())));
    let never_compiles = linked.iter().filter_map(|linked| Some((linked, system_need(linked)?)));
    let is_unknown = toolchain != RustToolchain::Wasip2;
    if let Some((linked, remedy)) = never_works.chain(never_compiles.filter(|_| is_unknown)).next() {
        bail!("`{}` cannot be part of a policy ({}): {remedy}", linked.package.name, linked.route());
    }
    Ok(())
}

/// What to use instead of a package that does not compile for a target without an operating system.
fn system_need(linked: &LinkedPackage<'_>) -> Option<String> {
    if linked.package.name == "tokio" {
        let features = TOKIO_SYSTEM_FEATURES.iter().filter(|feature| linked.features.iter().any(|has| has == *feature));
        let features: Vec<String> = features.map(|feature| format!("`{feature}`")).collect();
        return (!features.is_empty()).then(|| {
            format!(
                "its features {} need an operating system: leave only `sync`, `macros`, `io-util`, `rt`, `time`",
                features.join(", ")
            )
        });
    }
    find(&NEVER_COMPILE, &linked.package.name).map(ToOwned::to_owned)
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, remedy)| *remedy)
}

/// The explanation of a failed build, from what cargo printed. None if the policy's own code does not compile.
pub fn explain_failure(toolchain: RustToolchain, project: &CargoProject, output: &str) -> Option<String> {
    let failed: Vec<&str> = output.lines().filter_map(failed_package).collect();
    let linked = project.linked_packages();
    let own = linked.iter().find(|linked| linked.path.len() == 1).map(|linked| &*linked.package.name);
    let name = failed.into_iter().find(|name| Some(*name) != own)?;
    let package = linked.iter().find(|linked| linked.package.name == name);
    let route = package.map_or_else(|| name.to_owned(), LinkedPackage::route);
    let remedy = package.and_then(system_need).or_else(|| find(&NEVER_WORK, name).map(ToOwned::to_owned));
    let mut text = format!("the crate `{name}` does not compile for {} ({route}): ", toolchain.target());
    match remedy {
        Some(remedy) => text += &remedy,
        None if output.contains("clang") || output.contains("cc-rs") || output.contains("ToolNotFound") => {
            text += "it has parts in C, which need clang for WebAssembly (`apt-get install clang lld`) and may need a C library, \
                     which this target does not have: see whether a feature of the crate replaces them by Rust";
        }
        None => text += "see whether a feature switches off the part that needs an operating system or a browser",
    }
    if toolchain != RustToolchain::Wasip2 {
        let _ = write!(text, "; more crates compile for {0}: `rustup target add {0}`", RustToolchain::Wasip2.target());
    }
    Some(text)
}

/// The package in a line of cargo that reports a failure.
fn failed_package(line: &str) -> Option<&str> {
    let rest = line.split_once("could not compile `").or_else(|| line.split_once("custom build command for `"))?.1;
    rest.split(['`', ' ']).next()
}

/// The explanation of functions that the linker did not find.
pub fn explain_undefined(functions: &[String]) -> String {
    format!(
        "the policy calls functions that no crate defines: {}: a crate with parts in C may need a C library, which this target does not \
         have: see whether a feature of the crate replaces them by Rust",
        beginning(functions)
    )
}

/// The explanation of functions of a browser that are not about time.
pub fn explain_browser(project: &CargoProject, functions: &[String]) -> String {
    let linked = project.linked_packages();
    let of_browsers = linked.iter().filter(|linked| is_for_browsers(&linked.package.name));
    let users = of_browsers.filter_map(|linked| linked.path.split_last().map(|(_, parents)| parents));
    let users = users.filter(|parents| parents.last().is_some_and(|parent| !is_for_browsers(parent)));
    let users: BTreeSet<String> =
        users.map(|parents| format!("`{}` ({})", parents.last().unwrap_or(&""), parents.join(" → "))).collect();
    let users = users.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "the policy calls functions of a browser ({}) by wasm-bindgen, because of {users}: switch off the crate's feature for browsers \
         (`default-features = false`; often it is named `js`, `wasmbind` or `wasm-bindgen`), or compile for {1}: `rustup target add {1}`",
        beginning(functions),
        RustToolchain::Wasip2.target()
    )
}

fn is_for_browsers(package: &str) -> bool {
    matches!(package, "wasm-bindgen" | "wasm-bindgen-futures" | "js-sys" | "web-sys")
}

/// The first names of a list.
fn beginning(names: &[String]) -> String {
    let mut first: Vec<&str> = names.iter().map(String::as_str).take(3).collect();
    if names.len() > first.len() {
        first.push("…");
    }
    first.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_package_is_read_from_cargos_output() {
        for (line, expected) in [
            ("error: could not compile `mio` (lib) due to 47 previous errors", Some("mio")),
            ("error: failed to run custom build command for `ring v0.17.14`", Some("ring")),
            ("\u{1b}[1merror\u{1b}[0m: could not compile `uuid` (lib) due to 1 previous error", Some("uuid")),
            ("warning: unused import", None),
        ] {
            assert_eq!(failed_package(line), expected, "{line}");
        }
    }
}
