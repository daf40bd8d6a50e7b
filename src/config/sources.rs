//! Reads and merges the sources: flags over environment over file over defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::config::reloadable::STDOUT;
use crate::config::schema::{OPTIONS, Raw};
use crate::config::{ConfigError, interpolation, mistake};

/// Options that are the path of a file or a directory.
const PATHS: [&str; 9] = [
    "store-ca",
    "store-cert",
    "store-key",
    "cache-dir",
    "policy.file",
    "policy.cases",
    "policy.shadow.file",
    "decisions.log",
    "decisions.recording.file",
];
/// Prefix of the environment variables.
const PREFIX: &str = "TIDEGATE_";
/// Minimum Jaro-Winkler similarity of a name that an error suggests.
const MIN_SIMILARITY: f64 = 0.8;
/// Variables that are not options: the file's path, and those that tests and wrappers set.
const NOT_OPTIONS: [&str; 4] = ["TIDEGATE_CONFIG", "TIDEGATE_BIN", "TIDEGATE_SOAK", "TIDEGATE_FUZZ"];
/// Tables that are easily mistaken for an option, each with the option that was meant: `policy = "x.wasm"`.
const MISTAKABLE: [(&str, &str); 2] = [("control", "listen"), ("policy", "file")];

/// A table with a single option.
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
    let invalid = |error: String| {
        let hint = string_for_table(text).map(|hint| format!("; {hint}")).unwrap_or_default();
        ConfigError(format!("{}: {error}{hint}", path.display()))
    };
    let mut table: Table = toml::from_str(text).map_err(|error| invalid(mistake::describe_syntax(text, &error)))?;
    mistake::deserialize::<Raw>(table.clone()).map_err(|mistake| {
        let position = mistake::locate(text, &mistake);
        let position = position.map(|(line, column)| format!("line {line}, column {column}: "));
        invalid(position.unwrap_or_default() + &mistake.to_string())
    })?;
    if let Some(empty) =
        PATHS.iter().find(|path| find_mut(&mut table, path).is_some_and(|value| value.as_str() == Some("")))
    {
        return Err(invalid(format!("{empty}: the path is empty: name a file, or remove the option")));
    }
    rebase(&mut table, path.parent().unwrap_or(Path::new("")));
    Ok(table)
}

/// What to write instead of a string for a table, such as `policy = "x.wasm"`. It is searched in the text, because with a `[policy.lookup]`
/// below it the text is not valid TOML.
fn string_for_table(text: &str) -> Option<String> {
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    top.filter_map(|line| toml::from_str::<Table>(line).ok()).find_map(|line| {
        MISTAKABLE.into_iter().find_map(|(table, option)| {
            line.get(table)?.as_str()?;
            Some(format!(
                "`{table}` is a table: write `{table}.{option} = \"…\"`, or `[{table}]` and below it `{option} = \"…\"`"
            ))
        })
    })
}

/// Makes the paths of a file's options relative to the directory of the file.
fn rebase(table: &mut Table, folder: &Path) {
    let rebase_path = |value: &mut Value| {
        if let Value::String(path) = value {
            *path = folder.join(&*path).to_string_lossy().into_owned();
        }
    };
    let rebase_references = |value: &mut Value| {
        if let Value::String(text) = value {
            *text = interpolation::rebase_files(text, folder);
        }
    };
    for path in PATHS {
        let is_file = |value: &&mut Value| path != "decisions.log" || value.as_str() != Some(STDOUT);
        find_mut(table, path).filter(is_file).map(rebase_path);
    }
    if let Some(Value::Array(keys)) = find_mut(table, "policy.trusted-keys") {
        keys.iter_mut().for_each(rebase_path);
    }
    find_mut(table, "store-sentinel-password").map(rebase_references);
    if let Some(Value::Table(settings)) = find_mut(table, "policy.settings") {
        settings.iter_mut().for_each(|(_, value)| rebase_references(value));
    }
    if let Some(Value::Table(profiles)) = find_mut(table, "policy.tokens") {
        for profile in profiles.iter_mut().filter_map(|(_, profile)| profile.as_table_mut()) {
            profile.get_mut("secret").map(rebase_references);
            profile.get_mut("pem").map(rebase_path);
            profile.get_mut("jwks").map(rebase_path);
        }
    }
}

fn find_mut<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        Some((key, rest)) => find_mut(table.get_mut(key)?.as_table_mut()?, rest),
        None => table.get_mut(path),
    }
}

/// The files that a configuration refers to, whether they exist or not. They are watched like the configuration's own file.
pub fn list_referenced_files(raw: &Raw) -> Vec<PathBuf> {
    let (settings, profiles) = (raw.policy.settings.values(), raw.policy.tokens.values());
    let secrets = profiles.clone().filter_map(|profile| profile.secret.as_ref());
    let mut files: Vec<PathBuf> = settings
        .chain(secrets)
        .chain(&raw.store_sentinel_password)
        .flat_map(|text| interpolation::list_files(text.reveal()))
        .collect();
    files.extend(profiles.flat_map(|profile| [&profile.pem, &profile.jwks]).flatten().cloned());
    files.extend(raw.policy.trusted_keys.iter().cloned());
    files.sort();
    files.dedup();
    files
}

/// Reads the options of the environment. Errors name the variable but never its value, which may be a secret.
pub fn parse_environment(variables: impl Iterator<Item = (String, OsString)>) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    // So that of several errors always the same one is reported.
    variables.sort();
    for (name, text) in variables {
        if NOT_OPTIONS.contains(&&*name) {
            continue;
        }
        let invalid = |what: String| ConfigError(format!("the environment: {name}{what}"));
        if let Some((table, option)) = MISTAKABLE.into_iter().find(|(table, _)| variable_name(table) == name) {
            let right = variable_name(&format!("{table}.{option}"));
            return Err(invalid(format!(": `{table}` is a table: set {right}")));
        }
        let option = OPTIONS.iter().find(|option| variable_name(&option.path) == name).ok_or_else(|| {
            let nearest = nearest_variable(&name).map_or_else(String::new, |near| format!("; the nearest is {near}"));
            invalid(format!(" is not an option{nearest}"))
        })?;
        let text = text.to_str().ok_or_else(|| invalid(": the value is not Unicode".into()))?;
        let value = parse_value(&option.path, text).map_err(|reason| invalid(format!(": {reason}")))?;
        merge(&mut table, single_option(&option.path, value));
    }
    Ok(table)
}

/// The variable whose name is most similar, if it is similar enough.
fn nearest_variable(name: &str) -> Option<String> {
    // Without the prefix, because all names have it.
    let similarity = |other: &str| strsim::jaro_winkler(&other[PREFIX.len()..], &name[PREFIX.len()..]);
    let names = OPTIONS.iter().map(|option| variable_name(&option.path));
    names.max_by(|a, b| similarity(a).total_cmp(&similarity(b))).filter(|near| similarity(near) > MIN_SIMILARITY)
}

/// The environment variable of an option.
pub fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace(['.', '-'], "_"))
}

/// Parses a variable's text as the type of the option: a string, a list separated by commas, or any TOML value.
fn parse_value(path: &str, text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("the value is empty: unset the variable, or set a value".into());
    }
    let read = |value: Value| match mistake::deserialize::<Raw>(single_option(path, value.clone())) {
        Ok(_) => Ok(value),
        Err(mistake) => Err(mistake.to_string()),
    };
    let not_a_string = match read(Value::String(text.into())) {
        Ok(value) => return Ok(value),
        Err(reason) => reason,
    };
    let toml = toml::from_str::<Table>(&format!("value = {text}"));
    let not_toml = match toml.map(|mut table| table.remove("value")) {
        Ok(value) => match value.map(read) {
            Some(Ok(value)) => return Ok(value),
            Some(Err(reason)) => Some(reason),
            None => None,
        },
        Err(error) => Some(format!("{not_a_string}; read as TOML: {}", error.message())),
    };
    // A text with a bracket is meant as TOML.
    if text.trim_start().starts_with(['[', '{']) {
        return Err(not_toml.unwrap_or(not_a_string));
    }
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    let list = Value::Array(items.iter().map(|item| Value::String((*item).into())).collect());
    match read(list) {
        Ok(_) if items.contains(&"") => Err("an item of the list is empty: write one comma between two items".into()),
        list => list.map_err(|_| not_a_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referenced_files_are_listed() {
        let raw: Raw = toml::from_str(
            "store-sentinel-password = '${file:/run/sentinel}'
            [policy]
            file = 'policy.wasm'
            trusted-keys = ['one.pub.pem', 'two.pub.pem']
            settings.pepper = '${file:/run/pepper}${HOME}${file:/run/salt}'
            settings.same = '${file:/run/salt}'
            settings.none = '$${file:/run/none}'
            settings.broken = '${file:/run/none'
            [policy.tokens]
            a = { secret = '${file:secret}' }
            b = { pem = 'keys.pem' }
            c = { jwks = 'keys.json' }
            d = { jwks-url = 'https://auth.example' }",
        )
        .expect("toml");
        let expect = [
            "/run/pepper",
            "/run/salt",
            "/run/sentinel",
            "keys.json",
            "keys.pem",
            "one.pub.pem",
            "secret",
            "two.pub.pem",
        ];
        assert_eq!(list_referenced_files(&raw), expect.map(PathBuf::from));
    }
}
