//! `tidegate policy new`.

use clap::Args;

#[derive(Debug, Args)]
pub struct NewArgs {}

pub fn run(_: &NewArgs) -> anyhow::Result<()> {
    anyhow::bail!("policy new: not here yet")
}
