//! One step of a task: a command under a headline.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Prints the headline and runs the command; the error of a failed command names the headline.
pub fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    println!("== {name}");
    let status = command.borrow_mut().status().with_context(|| format!("{name}: cannot start"))?;
    if !status.success() {
        bail!("{name}: failed ({status})");
    }
    Ok(())
}
