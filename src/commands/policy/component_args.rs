//! The arguments of `test` and `bench`: a component, its test cases, and the decision limits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use toml::Table;

use crate::config;
use crate::config::sources::{merge, single_option};
use crate::config::{Config, ConfigError};
use crate::policy::Limits;
use crate::policytest::{TestCase, file};

/// No gateway waits for a developer's compilation, which may run next to other work on a slow machine.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub struct ComponentArgs {
    /// Component file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Test case file [default: cases.toml in the component's directory]
    #[arg(value_name = "CASES")]
    pub cases: Option<PathBuf>,
    /// Take the decision limits from this tidegate.toml [default: the gateway's defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Use only the test cases whose name contains this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

impl ComponentArgs {
    /// The file of test cases; none if none was named and the component's directory has none.
    pub fn cases(&self) -> Option<PathBuf> {
        self.cases.clone().or_else(|| Some(self.default_cases()).filter(|path| path.exists()))
    }

    /// The default path of the test cases.
    pub fn default_cases(&self) -> PathBuf {
        self.file.with_file_name(file::NAME)
    }

    /// The test cases of a file that match the filter. An invalid file and a filter without a match are usage errors.
    pub fn read(&self, path: &Path) -> Result<Vec<TestCase>, ConfigError> {
        let mut cases = file::load(path).map_err(|error| ConfigError(error.to_string()))?.cases;
        if cases.is_empty() {
            return Err(ConfigError(format!("{}: the file has no test case", path.display())));
        }
        if let Some(part) = &self.filter {
            cases.retain(|case| case.name.contains(&**part));
            if cases.is_empty() {
                return Err(ConfigError(format!("{}: no test case has a name that contains {part:?}", path.display())));
            }
        }
        Ok(cases)
    }

    /// The decision limits, and the directory of compiled policies.
    pub fn limits(&self) -> anyhow::Result<(Limits, Option<PathBuf>)> {
        let Some(path) = &self.config else { return Ok((default_limits(), config::cache_dir())) };
        let config = load_config(path, &self.file)?;
        Ok((config.limits, config.cache_dir))
    }
}

/// The limits of a command without a configuration: the gateway's defaults, except for compilation.
pub fn default_limits() -> Limits {
    Limits { compile_timeout: COMPILE_TIMEOUT, ..Limits::default() }
}

/// Loads a configuration with this component in place of the configured policy.
pub fn load_config(path: &Path, component: &Path) -> anyhow::Result<Config> {
    let component = component.to_str().context("the component's path is not Unicode")?;
    let mut layer = single_option("allow-all", false.into());
    merge(&mut layer, single_option("policy.file", component.into()));
    merge(&mut layer, single_option("policy.source", "file".into()));
    merge(&mut layer, single_option("policy.allow-unsigned", false.into()));
    Ok(Config::load(Table::new(), Some(path), layer)?)
}
