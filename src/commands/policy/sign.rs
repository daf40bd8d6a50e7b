//! `tidegate policy sign`: signs a component and its test cases with a sequence.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use crate::artifact::signature;
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement, key};
use crate::commands::print;
use crate::config::ConfigError;
use crate::fleet::push::Bundle;
use crate::policytest::file;
use crate::rollout::pipeline::MAX_CASES;
use crate::util::files;
use crate::wasm::component::check_header;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

#[derive(Debug, Args)]
pub struct SignArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Private key, a PEM file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sequence to sign; greater than that of every policy that was active
    #[arg(long, value_name = "SEQUENCE", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=MAX_SEQUENCE))]
    sequence: u64,
    /// Signature file [default: NAME.wasm.sig next to NAME.wasm, where the gateway looks for it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A component and its test cases.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Component file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Test cases that belong to it [default: NAME.cases.toml next to NAME.wasm, if it exists]
    #[arg(long, value_name = "FILE")]
    pub cases: Option<PathBuf>,
}

impl BundleArgs {
    /// Reads both files. The bundle has no signature yet. Invalid test cases are a usage error.
    pub fn read(&self) -> anyhow::Result<Bundle> {
        let file = &self.file;
        let component = match files::read(file, MAX_COMPONENT_BYTES) {
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                let text =
                    format!("{}: the component has more than the limit of {MAX_COMPONENT_BYTES} bytes", file.display());
                return Err(ConfigError(text).into());
            }
            component => component.with_context(|| format!("component {}: cannot be read", file.display()))?,
        };
        let next_to_component = || Some(file.with_extension("cases.toml")).filter(|path| path.exists());
        let cases = self.cases.clone().or_else(next_to_component).map(|path| read_cases(&path)).transpose()?;
        Ok(Bundle { component, cases, signature: None })
    }

    /// The signature from the file that was named, else from the one next to the component, if it exists.
    pub fn signature(&self, named: Option<&Path>) -> anyhow::Result<Option<Signature>> {
        let Some(path) = named else {
            return signature::read_for(&self.file).with_context(|| self.file.display().to_string());
        };
        let text = files::read(path, signature::MAX_SIGNATURE_BYTES as u64);
        let text = text.with_context(|| format!("--signature {}: cannot be read", path.display()))?;
        let parsed = Signature::parse(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        Ok(Some(parsed))
    }
}

fn read_cases(path: &Path) -> anyhow::Result<String> {
    let text = files::read_text(path, MAX_CASES as u64)
        .with_context(|| format!("test cases {}: cannot be read", path.display()))?;
    file::parse(path, &text).map_err(|error| ConfigError(error.to_string()))?;
    Ok(text)
}

/// A bundle as a request to a control port.
pub fn request_body(bundle: &Bundle) -> Value {
    let signature = bundle.signature.as_ref().map(Signature::text);
    json!({ "component": STANDARD.encode(&bundle.component), "cases": bundle.cases, "signature": signature })
}

/// Reads a private key. A file without one is a usage error.
pub fn private_key(path: &Path) -> Result<SigningKey, ConfigError> {
    key::read_private_key(path).map_err(|error| ConfigError(format!("--key: {error}")))
}

pub fn run(args: &SignArgs) -> anyhow::Result<()> {
    let key = private_key(&args.key)?;
    let bundle = args.bundle.read()?;
    check_header(&bundle.component).with_context(|| args.bundle.file.display().to_string())?;
    let signature = Statement::of(&bundle.component, bundle.cases.as_deref(), args.sequence).sign(&key);
    let output = args.output.clone().unwrap_or_else(|| signature::path_for(&args.bundle.file));
    files::write(&output, (signature.text() + "\n").as_bytes()).with_context(|| output.display().to_string())?;
    print(args.json, &json!({ "file": output, "signature": signature }), || {
        let Statement { component, cases, sequence } = signature.statement();
        let cases = cases.map_or_else(|| "none".into(), |digest| digest.to_string());
        format!(
            "{}\n  component  {component}\n  cases      {cases}\n  sequence   {sequence}\n  key        {}\n",
            output.display(),
            signature.key_id()
        )
    })
}
