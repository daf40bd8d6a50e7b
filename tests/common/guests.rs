//! The policies of `tests/fixtures/policies`, as components.
//!
//! Most of them are core modules that implement the canonical ABI by hand, which is much shorter than the text of a component.

#![allow(clippy::disallowed_methods, reason = "the fixtures are files of the repository")]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// All imports and exports of the fixtures. A component has only the imports of its module.
const WORLD: &str = "
    package tidegate:fixtures;

    world guest {
        include tidegate:policy/policy@0.1.0;
        import wasi:cli/environment@0.2.0;
        import wasi:cli/exit@0.2.0;
        import wasi:cli/stdout@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:clocks/monotonic-clock@0.3.0;
        import wasi:clocks/wall-clock@0.2.0;
        import wasi:http/outgoing-handler@0.2.0;
        import wasi:http/client@0.3.0;
        import wasi:config/store@0.2.0-rc.1;
        import wasi:random/random@0.2.0;
        import acme:secrets/vault@1.0.0;
    }

    world guest-with-checkpoints {
        include guest;
        export tidegate:policy/preparation@0.1.0;
        export tidegate:policy/checkpoint@0.1.0;
    }

    package wasi:config@0.2.0-rc.1 {
        interface store {
            variant error {
                upstream(string),
                io(string),
            }
            get: func(key: string) -> result<option<string>, error>;
        }
    }

    package acme:secrets@1.0.0 {
        interface vault {
            open: func();
        }
    }
";

const EXPORT: &str = r#"(export "tidegate:policy/authorizer@0.1.0#authorize")"#;

/// The function of a policy that has all optional exports.
const SAVE: &str = "tidegate:policy/checkpoint@0.1.0#save";

/// The bytes of `tests/fixtures/policies/<name>.wat`. A module that exports the authorizer becomes a component; any other
/// text is encoded unchanged.
#[expect(clippy::panic, reason = "a fixture that does not build is a failed test")]
pub fn component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/policies/{name}.wat"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()));
    let built = text.and_then(|text| {
        let bytes = wat::parse_str(&text)?;
        if text.contains(EXPORT) { encode(bytes) } else { Ok(bytes) }
    });
    built.unwrap_or_else(|error| panic!("fixture {name}: {error:#}"))
}

/// The component of a module that exports the authorizer, given as text.
#[expect(clippy::panic, reason = "a fixture that does not build is a failed test")]
pub fn authorizer(text: &str) -> Vec<u8> {
    let built = wat::parse_str(text).map_err(Into::into).and_then(encode);
    built.unwrap_or_else(|error| panic!("{error:#} in {text}"))
}

/// The component of a module that exports an asynchronous `authorize`.
#[expect(clippy::panic, reason = "a fixture that does not build is a failed test")]
pub fn async_authorizer(text: &str) -> Vec<u8> {
    let wit = include_str!("../../wit/policy.wit").replace("authorize: func(", "authorize: async func(");
    let built = wat::parse_str(text).map_err(Into::into).and_then(|bytes| encode_for(&wit, bytes));
    built.unwrap_or_else(|error| panic!("{error:#} in {text}"))
}

fn encode(bytes: Vec<u8>) -> Result<Vec<u8>> {
    encode_for(include_str!("../../wit/policy.wit"), bytes)
}

fn encode_for(wit: &str, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_source("policy.wit", wit)?;
    let world = format!("{WORLD}\n{}", include_str!("../fixtures/wasi.wit"));
    let package = resolve.push_source("fixtures.wit", &world)?;
    let exports = Parser::new(0).parse_all(&bytes).filter_map(|payload| match payload {
        Ok(Payload::ExportSection(exports)) => Some(exports.into_iter().flatten().any(|it| it.name == SAVE)),
        _ => None,
    });
    let name = if exports.into_iter().any(|saves| saves) { "guest-with-checkpoints" } else { "guest" };
    let world = resolve.select_world(&[package], Some(name))?;
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&bytes)?.validate(true).encode()
}
