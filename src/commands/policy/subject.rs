//! What `test` and `bench` are about: a component, the cases that it is asked, and the bounds of its decisions.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use toml::{Table, Value};

use crate::config;
use crate::config::layers::{merge, option};
use crate::config::{Config, ConfigError};
use crate::policy::Limits;
use crate::policytest::{TestCase, file};

#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The cases [default: cases.toml beside the component]
    #[arg(value_name = "CASES")]
    pub cases: Option<PathBuf>,
    /// Take the bounds of decisions from this tidegate.toml [default: the gateway's defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Ask only the cases whose names contain this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

impl SubjectArgs {
    /// The file of cases; none if none was named and none lies beside the component.
    pub fn cases(&self) -> Option<PathBuf> {
        self.cases.clone().or_else(|| Some(self.beside()).filter(|path| path.exists()))
    }

    /// Where cases are looked for.
    pub fn beside(&self) -> PathBuf {
        self.file.with_file_name(file::NAME)
    }

    /// The cases of a file that are asked; a mistake in it, or in the filter, is one in usage.
    pub fn read(&self, path: &Path) -> Result<Vec<TestCase>, ConfigError> {
        let mut cases = file::load(path).map_err(|error| ConfigError(error.to_string()))?.cases;
        if cases.is_empty() {
            return Err(ConfigError(format!("{}: there is no case in it", path.display())));
        }
        if let Some(part) = &self.filter {
            cases.retain(|case| case.name.contains(&**part));
            if cases.is_empty() {
                return Err(ConfigError(format!("{}: no case's name contains {part:?}", path.display())));
            }
        }
        Ok(cases)
    }

    /// The bounds of decisions, and where compiled policies are kept.
    pub fn bounds(&self) -> anyhow::Result<(Limits, Option<PathBuf>)> {
        let Some(path) = &self.config else { return Ok((Limits::default(), config::cache_dir())) };
        let config = Config::load(Table::new(), Some(path), self.door()?)?;
        Ok((config.limits, config.cache_dir))
    }

    /// What decides is the component that was named, whatever the configuration says.
    fn door(&self) -> anyhow::Result<Table> {
        let mut layer = option("allow-all", false.into());
        let file = self.file.to_str().context("the component's path is not Unicode")?;
        merge(&mut layer, option("policy.file", Value::from(file)));
        Ok(layer)
    }
}
