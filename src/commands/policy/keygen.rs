//! `tidegate policy keygen`: generates a key pair; the private key signs policies, gateways check with the public one.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::artifact::signature::key;
use crate::commands::print;

#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Write the private key to NAME.pem and the public key to NAME.pub.pem
    #[arg(short, long, value_name = "NAME", default_value = "tidegate-policy")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &KeygenArgs) -> anyhow::Result<()> {
    let (private, public) = (args.output.with_added_extension("pem"), args.output.with_added_extension("pub.pem"));
    let key = key::generate();
    let (private_pem, public_pem) = key::to_pem(&key)?;
    write(&public, 0o644, &public_pem)?;
    if let Err(error) = write(&private, 0o600, &private_pem) {
        // One key without the other is of no use.
        let _ = std::fs::remove_file(&public);
        return Err(error);
    }
    let id = key::key_id(&key.verifying_key());
    print(args.json, &json!({ "key": id, "private": private, "public": public }), || {
        format!(
            "key {id}\n  {}  private key, for `tidegate policy sign`: keep it where policies are released, not on the gateways\n  {}  \
             public key: add it to policy.trusted-keys of every gateway\n",
            private.display(),
            public.display()
        )
    })
}

/// Creates a file that does not exist yet.
fn write(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let what = || format!("{}: cannot be written", path.display());
    #[expect(clippy::disallowed_methods, reason = "the file is created, so it is not a FIFO")]
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{}: the file exists, and keys are not overwritten: choose another name with --output",
                path.display()
            )
        }
        file => file.with_context(what)?,
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(what)
}
