//! `tidegate policy inspect`.

use clap::Args;

#[derive(Debug, Args)]
pub struct InspectArgs {}

pub fn run(_: &InspectArgs) -> anyhow::Result<()> {
    anyhow::bail!("policy inspect: not here yet")
}
