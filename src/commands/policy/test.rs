//! `tidegate policy test`.

use clap::Args;

#[derive(Debug, Args)]
pub struct TestArgs {}

pub fn run(_: &TestArgs) -> anyhow::Result<()> {
    anyhow::bail!("policy test: not here yet")
}
