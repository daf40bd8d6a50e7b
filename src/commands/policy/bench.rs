//! `tidegate policy bench`.

use clap::Args;

#[derive(Debug, Args)]
pub struct BenchArgs {}

pub fn run(_: &BenchArgs) -> anyhow::Result<()> {
    anyhow::bail!("policy bench: not here yet")
}
