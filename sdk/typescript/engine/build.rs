//! Bundles the platform script `js/entry.ts` with esbuild, and compresses it.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() {
    println!("cargo:rerun-if-changed=js");
    println!("cargo:rerun-if-changed=../src");
    println!("cargo:rerun-if-changed=package-lock.json");
    println!("cargo:rerun-if-env-changed=ESBUILD_BINARY_PATH");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("platform.js");
    let status = Command::new(esbuild())
        .arg("js/entry.ts")
        .args(["--bundle", "--format=iife", "--global-name=platform", "--platform=browser", "--target=es2024"])
        .args(["--main-fields=browser,module,main", "--charset=utf8", "--legal-comments=none", "--log-level=warning"])
        .arg("--minify-whitespace")
        .arg("--minify-syntax")
        // A function of the natives, whose result is the exports of entry.ts.
        .args(["--banner:js=(function(native){\"use strict\";", "--footer:js=return platform;})"])
        .arg(format!("--outfile={}", output.display()))
        .status()
        .expect("esbuild does not start");
    assert!(status.success(), "esbuild failed");
    // Its memory is part of each instance.
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&fs::read(&output).expect("esbuild wrote it")).expect("memory");
    fs::write(output.with_extension("deflate"), encoder.finish().expect("memory")).expect("a folder");
}

/// The binary of esbuild: the variable that esbuild's own package reads, or the package that `npm ci` installs here.
fn esbuild() -> PathBuf {
    if let Some(path) = env::var_os("ESBUILD_BINARY_PATH") {
        return path.into();
    }
    let installed = Path::new("node_modules/.bin/esbuild");
    assert!(installed.exists(), "esbuild is missing: run `npm ci` in {}", env!("CARGO_MANIFEST_DIR"));
    installed.to_path_buf()
}
