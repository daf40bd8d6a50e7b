//! `cargo xtask bindings`: bindings of the policy interface for the C and Go SDKs, generated with the libraries of wit-bindgen. They are
//! committed, so that policy authors need no generator.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use wit_bindgen_core::Files;
use wit_component::StringEncoding;
use wit_parser::{Resolve, WorldId};

/// The generated files by their path in the repository.
type Generated = BTreeMap<String, Vec<u8>>;

/// Writes the bindings, or fails with `--check` if some of them are stale.
pub fn run(options: &[&str]) -> Result<()> {
    let generated = generate()?;
    match options {
        [] => write(&generated),
        ["--check"] => check(&generated),
        _ => bail!("usage: cargo xtask bindings [--check]"),
    }
}

fn write(generated: &Generated) -> Result<()> {
    for (path, content) in generated {
        let place = crate::root().join(path);
        if fs::read(&place).ok().as_ref() == Some(content) {
            continue;
        }
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::write(&place, content).with_context(|| format!("writing {}", place.display()))?;
        println!("{path}");
    }
    Ok(())
}

fn check(generated: &Generated) -> Result<()> {
    let is_stale =
        |(path, content): &(&String, &Vec<u8>)| fs::read(crate::root().join(path)).ok().as_ref() != Some(*content);
    let stale: Vec<&str> = generated.iter().filter(is_stale).map(|(path, _)| path.as_str()).collect();
    if !stale.is_empty() {
        bail!("stale bindings, run `cargo xtask bindings`: {}", stale.join(", "));
    }
    Ok(())
}

fn generate() -> Result<Generated> {
    let mut generated = Generated::new();
    for_c(&mut generated)?;
    for_go(&mut generated)?;
    generated.insert("sdk/go/adapter/wasi_snapshot_preview1.wasm".into(), adapter()?);
    Ok(generated)
}

/// A world of the interface's package.
fn world(name: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let read = |path: &str| fs::read_to_string(crate::root().join(path)).with_context(|| format!("reading {path}"));
    let package = resolve.push_source("policy.wit", &(read("wit/policy.wit")? + &read("sdk/prepared.wit")?))?;
    let world = resolve.select_world(&[package], Some(name))?;
    Ok((resolve, world))
}

fn for_c(generated: &mut Generated) -> Result<()> {
    let (mut resolve, world) = world("policy")?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        generated.insert(format!("sdk/c/bindings/{name}"), content.to_vec());
    }
    Ok(())
}

fn for_go(generated: &mut Generated) -> Result<()> {
    const PACKAGE: &str = "tidegate/policy/internal/bindings";
    let (mut resolve, world) = world("prepared-policy")?;
    let options = wit_bindgen_go::Opts {
        pkg_name: Some(PACKAGE.into()),
        // The output must not depend on gofmt, which may be missing.
        format: wit_bindgen_go::Format::False,
        ..wit_bindgen_go::Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        // The assembly file is needed only where functions without a body are not imports; these files are compiled only as wasip1.
        if Path::new(name).extension().is_none_or(|extension| extension != "go") {
            continue;
        }
        let source = str::from_utf8(content).with_context(|| format!("reading the generated {name}"))?;
        // The SDK contains the packages that the bindings need, so that a project needs no other module.
        let source = source.replace("go.bytecodealliance.org/pkg/wit/", "tidegate/policy/internal/wit/");
        let source = format!("//go:build wasip1\n\n{source}");
        generated.insert(format!("sdk/go/internal/bindings/{name}"), source.into_bytes());
    }
    Ok(())
}

/// The adapter for Go, with the types of what it imports.
fn adapter() -> Result<Vec<u8>> {
    let folder = crate::root().join("sdk/go/adapter");
    let mut module = wat::parse_file(folder.join("wasi_snapshot_preview1.wat"))?;
    let (mut resolve, _) = world("policy")?;
    let package = resolve.push_file(folder.join("adapter.wit"))?;
    let world = resolve.select_world(&[package], Some("adapter"))?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}
