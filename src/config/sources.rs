//! Reads and merges the sources: flags over environment over file over defaults.

use std::path::Path;

use toml::{Table, Value};

use crate::config::ConfigError;
use crate::config::decisions::STDOUT;
use crate::config::interpolation;
use crate::config::schema::{MISTAKABLE, OPTIONS, Raw, string_for_table};

/// Prefix of the environment variables.
const PREFIX: &str = "TIDEGATE_";
/// Minimum Jaro-Winkler similarity of a name that an error suggests.
const ALIKE: f64 = 0.8;
/// Variables that are not options: the file's path, and one that tests and wrappers set.
const NOT_OPTIONS: [&str; 5] =
    ["TIDEGATE_CONFIG", "TIDEGATE_BIN", "TIDEGATE_REQUIRE_GUESTS", "TIDEGATE_SOAK", "TIDEGATE_FUZZ"];

/// A table with a single option.
#[must_use]
pub fn single_option(path: &str, value: Value) -> Table {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = if rest.is_empty() { value } else { Value::Table(single_option(rest, value)) };
    Table::from_iter([(first.to_owned(), value)])
}

/// Merges the table `over` into the table `under`.
pub fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        // A seed is replaced as a whole: only tables of options are merged.
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) if key != "seed" => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Reads the options of a file. Errors name the file, the line and the key.
pub fn parse_file(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let error = |error: String| ConfigError(format!("{}: {}", path.display(), error.trim_end()));
    let mut table: Table = toml::from_str(text).map_err(|cause| {
        let hint = string_in_place_of_table(text).map(|hint| format!("{}\n{hint}", cause.to_string().trim_end()));
        error(hint.unwrap_or_else(|| cause.to_string()))
    })?;
    toml::from_str::<Raw>(text).map_err(|cause| error(cause.to_string()))?;
    // A path is relative to the file that contains it.
    let folder = path.parent().unwrap_or(Path::new(""));
    let from_here = |value: &mut Value| {
        if let Value::String(path) = value {
            *path = folder.join(&*path).to_string_lossy().into_owned();
        }
    };
    if let Some(Value::Table(policy)) = table.get_mut("policy") {
        for key in ["file", "cases"] {
            policy.get_mut(key).map(from_here);
        }
        if let Some(Value::Array(keys)) = policy.get_mut("trusted-keys") {
            keys.iter_mut().for_each(from_here);
        }
        policy.get_mut("shadow").and_then(|shadow| shadow.get_mut("file")).map(from_here);
        if let Some(Value::Table(settings)) = policy.get_mut("settings") {
            settings.iter_mut().for_each(|(_, value)| rebase_references(folder, value));
        }
        let profiles = policy.get_mut("tokens").and_then(Value::as_table_mut);
        for profile in profiles.into_iter().flatten().filter_map(|(_, value)| value.as_table_mut()) {
            if let Some(value) = profile.get_mut("secret") {
                rebase_references(folder, value);
            }
            profile.get_mut("pem").map(from_here);
            profile.get_mut("jwks").map(from_here);
        }
    }
    if let Some(Value::Table(decisions)) = table.get_mut("decisions") {
        decisions.get_mut("log").filter(|log| log.as_str() != Some(STDOUT)).map(from_here);
        decisions.get_mut("recording").and_then(|recording| recording.get_mut("file")).map(from_here);
    }
    table.get_mut("store-ca").map(from_here);
    table.get_mut("cache-dir").map(from_here);
    Ok(table)
}

/// What to write for a string in the place of a table, such as `policy = "x.wasm"` with a `[policy.lookup]` below it: TOML itself
/// does not allow that, so the schema never sees it.
fn string_in_place_of_table(text: &str) -> Option<String> {
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    top.filter_map(|line| toml::from_str::<Table>(line).ok()).find_map(|line| {
        let hint = |(table, option): (&str, &str)| Some(string_for_table(table, option, line.get(table)?.as_str()?));
        MISTAKABLE.into_iter().find_map(hint)
    })
}

/// Makes the files that a value refers to relative to a directory.
fn rebase_references(folder: &Path, value: &mut Value) {
    if let Value::String(text) = value {
        *text = interpolation::rebase_files(text, folder);
    }
}

/// Reads the options of the environment. Errors name the variable but never its value, which may be a secret.
pub fn parse_environment(variables: impl Iterator<Item = (String, String)>) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    // The same error each time.
    variables.sort();
    for (name, text) in variables {
        if NOT_OPTIONS.contains(&&*name) {
            continue;
        }
        if let Some((table, option)) = MISTAKABLE.into_iter().find(|(table, _)| variable_name(table) == name) {
            let right = variable_name(&format!("{table}.{option}"));
            return Err(ConfigError(format!("the environment: {name}: `{table}` is a table: set {right}")));
        }
        let option = OPTIONS.iter().find(|option| variable_name(&option.path) == name).ok_or_else(|| {
            let names = OPTIONS.iter().map(|option| variable_name(&option.path));
            // The common prefix says nothing about similarity.
            let likeness =
                |s: &str| strsim::jaro_winkler(s.trim_start_matches(PREFIX), name.trim_start_matches(PREFIX));
            let near = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let near = near.filter(|near| likeness(near) > ALIKE);
            let near = near.map_or_else(String::new, |near| format!("; the nearest is {near}"));
            ConfigError(format!("the environment: {name} is not an option{near}"))
        })?;
        let value = parse_value(&option.path, &text).map_err(|why| {
            let why = if text.is_empty() { why } else { why.replace(&text, "…") };
            ConfigError(format!("the environment: {name}: {why}"))
        })?;
        merge(&mut table, single_option(&option.path, value));
    }
    Ok(table)
}

/// The environment variable of an option.
#[must_use]
pub fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace(['.', '-'], "_"))
}

/// Parses a variable's text as the type of the option: a string, a list separated by commas, or any TOML value.
fn parse_value(path: &str, text: &str) -> Result<Value, String> {
    let list = Value::Array(text.split(',').map(|item| Value::String(item.trim().into())).collect());
    let toml = toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
    let mut first_error = None;
    for value in [Some(Value::String(text.into())), toml, Some(list)].into_iter().flatten() {
        match single_option(path, value.clone()).try_into::<Raw>() {
            Ok(_) => return Ok(value),
            Err(error) => first_error = first_error.or(Some(error.message().to_owned())),
        }
    }
    Err(first_error.unwrap_or_default())
}
