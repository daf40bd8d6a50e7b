//! What a module uses of the modules that it imports, and where its exports come from, by the code that esbuild converted to CommonJS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use crate::commands::policy::build::typescript::graph::Module;
use crate::commands::policy::build::typescript::helpers;

/// Another module, and the used names of it: `import_zod.z.string` uses `z` and of that `string`. Without names, the module is used as a value.
pub type Use = (String, Vec<String>);

/// A module by its code. Other modules are named by their paths in the graph.
#[derive(Debug, Default, PartialEq)]
pub struct Code {
    /// All words of the code, except its imports and exports.
    pub words: BTreeSet<String>,
    /// What the code uses.
    pub uses: BTreeSet<Use>,
    /// The modules that it imports without a name.
    pub effects: Vec<String>,
    /// Its exports, with their origin if that is another module.
    pub exports: BTreeMap<String, Option<Use>>,
    /// The modules of which it exports everything.
    pub stars: Vec<String>,
    /// The names of exports that keep their values after the module's evaluation.
    pub constants: Vec<String>,
}

static IMPORT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"^(?:var ([A-Za-z_$][0-9A-Za-z_$]*) = )?(?:__toESM\()?require\(("(?:[^"\\]|\\.)*")\)(?:(?:, 1)?\))?;$"#,
    )
    .ok()
});
static STAR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"^__reExport\([0-9A-Za-z_$]+, require\(("(?:[^"\\]|\\.)*")\)(?:, module\.exports)?\);$"#).ok()
});
static EXPORT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"^  ([A-Za-z_$][0-9A-Za-z_$]*|"(?:[^"\\]|\\.)*"): \(\) => ([0-9A-Za-z_$.]+),?$"#).ok()
});

impl Code {
    /// An ES module. `None` if its code has another form than esbuild's.
    pub fn of_es_module(code: &str, module: &Module) -> Option<Self> {
        let (import, star, export) = (IMPORT.as_ref()?, STAR.as_ref()?, EXPORT.as_ref()?);
        let code = helpers::without_helpers(code).unwrap_or_else(|| code.to_owned());
        let mut statements: BTreeSet<&str> = BTreeSet::new();
        let mut target = |name: &str| {
            let name: String = serde_json::from_str(name).ok()?;
            let edge = module.imports.iter().find(|edge| edge.is_statement() && edge.name() == name)?;
            statements.insert(edge.name());
            Some(edge.path.clone())
        };
        let mut found = Self::default();
        let mut variables: BTreeMap<&str, String> = BTreeMap::new();
        let mut exports: Vec<(&str, &str)> = Vec::new();
        let mut body = Vec::new();
        let mut lines = code.lines();
        while let Some(line) = lines.next() {
            if let Some(groups) = import.captures(line) {
                // The helpers are no module of the graph.
                let Some(path) = target(groups.get(2)?.as_str()) else { continue };
                match groups.get(1) {
                    Some(variable) => drop(variables.insert(variable.as_str(), path)),
                    None => found.effects.push(path),
                }
            } else if let Some(groups) = star.captures(line) {
                found.stars.push(target(groups.get(1)?.as_str())?);
            } else if line.starts_with("__export(") && line.ends_with(", {") {
                for line in lines.by_ref().take_while(|line| *line != "});") {
                    let groups = export.captures(line)?;
                    exports.push((groups.get(1)?.as_str(), groups.get(2)?.as_str()));
                }
            } else if !line.starts_with("module.exports = __toCommonJS(") {
                body.push(line);
            }
        }
        for (name, value) in exports {
            let name = if name.starts_with('"') { serde_json::from_str(name).ok()? } else { name.to_owned() };
            let mut parts = value.split('.');
            let origin = variables.get(parts.next()?).map(|path| (path.clone(), parts.map(str::to_owned).collect()));
            if (origin.is_some() && !value.contains('.')) || (origin.is_none() && is_constant(value, &body)) {
                found.constants.push(name.clone());
            }
            found.exports.insert(name, origin);
        }
        for line in body {
            for chain in chains(line) {
                if let [first, rest @ ..] = &*chain
                    && let Some(path) = variables.get(first)
                {
                    found.uses.insert((path.clone(), rest.iter().map(|it| (*it).to_owned()).collect()));
                }
                found.words.extend(chain.into_iter().filter(|it| !it.is_empty()).map(str::to_owned));
            }
        }
        // `import()`, and `require` in functions.
        let others = module.imports.iter().filter(|edge| !edge.is_statement() || !statements.contains(edge.name()));
        found.uses.extend(others.map(|edge| (edge.path.clone(), vec![])));
        Some(found)
    }

    /// A module of another kind, which may use everything that it imports.
    pub fn of_other_module(code: &str, module: &Module) -> Self {
        let words = code.lines().flat_map(chains).flatten().filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let uses = module.imports.iter().map(|edge| (edge.path.clone(), vec![])).collect();
        Self { words, uses, ..Self::default() }
    }
}

/// Whether a variable of a module certainly has the same value whenever it is read after the module's evaluation.
fn is_constant(variable: &str, body: &[&str]) -> bool {
    let declares = |line: &&str, head: &str| {
        let name = line.strip_prefix(head).and_then(|rest| rest.strip_prefix(variable));
        name.is_some_and(|rest| rest.starts_with([' ', '(', '{']))
    };
    if body.iter().any(|line| declares(line, "const ")) {
        return true;
    }
    let heads = ["class ", "function ", "function* ", "async function ", "async function* "];
    if !body.iter().any(|line| heads.iter().any(|head| declares(line, head))) {
        return false;
    }
    // A function and a class can be overwritten, also by a pattern, or in `eval`.
    body.iter().all(|line| {
        let is_pattern = line.contains("] = ") || line.contains("} = ") || line.contains("for (");
        let mut words = line.match_indices(variable).filter(|(at, _)| {
            let around = (line.get(..*at), line.get(at + variable.len()..));
            matches!(around, (Some(before), Some(after)) if !before.ends_with(is_word) && !after.starts_with(is_word))
        });
        let is_assigned = words.any(|(at, _)| {
            let before = line.get(..at).unwrap_or_default();
            let after = line.get(at + variable.len()..).unwrap_or_default().trim_start();
            let operator = after.trim_start_matches(['+', '-', '*', '/', '%', '&', '|', '^', '<', '>', '?']);
            let assigns = operator.starts_with('=') && !operator.starts_with("==") && !operator.starts_with("=>");
            assigns
                || is_pattern
                || before.ends_with("++")
                || before.ends_with("--")
                || after.starts_with("++")
                || after.starts_with("--")
        });
        !is_assigned && !line.contains("eval(")
    })
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_' || char == '$'
}

/// The words of a line, with those that a dot connects together. The first word is empty if something else is before the dot, and if the word is
/// the name of a property, a method or a declaration and not that of an import. esbuild writes comments in lines of their own.
fn chains(line: &str) -> Vec<Vec<&str>> {
    if ["//", "/*", "*"].iter().any(|start| line.trim_start().starts_with(start)) {
        return Vec::new();
    }
    let mut chains: Vec<Vec<&str>> = Vec::new();
    let mut end = None;
    let mut rest = 0;
    while let Some(start) = line.get(rest..).and_then(|it| it.find(is_word)).map(|at| rest + at) {
        let length = line.get(start..).and_then(|it| it.find(|char| !is_word(char)));
        let stop = length.map_or(line.len(), |length| start + length);
        let word = line.get(start..stop).unwrap_or_default();
        let before = line.get(..start).unwrap_or_default();
        let after = line.get(stop..).unwrap_or_default();
        let is_property = (before.ends_with('.') && !before.ends_with("..."))
            || after.starts_with('(')
            || (after.starts_with(':') && !before.ends_with("case "))
            || ["const ", "let ", "var ", "function ", "class "].iter().any(|keyword| before.ends_with(keyword));
        let gap = end.and_then(|end| line.get(end..start));
        match chains.last_mut() {
            Some(chain) if matches!(gap, Some("." | "?.")) => chain.push(word),
            _ if is_property => chains.push(vec!["", word]),
            _ => chains.push(vec![word]),
        }
        end = Some(stop);
        rest = stop;
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::policy::build::typescript::graph::Graph;
    use serde_json::json;

    fn code(code: &str, imports: &[(&str, &str)]) -> Option<Code> {
        let edge =
            |(name, kind): &(&str, &str)| json!({ "path": name.replace("./", "lib/"), "kind": kind, "original": name });
        let imports: Vec<_> = imports.iter().map(edge).collect();
        let metafile = json!({ "inputs": { "a.js": { "imports": imports, "format": "esm" } }, "outputs": {} });
        let graph = Graph::new(&metafile.to_string()).expect("a metafile");
        let (_, module) = graph.modules().next().expect("a module");
        Code::of_es_module(code, module)
    }

    fn used(path: &str, names: &[&str]) -> Use {
        (path.to_owned(), names.iter().map(|name| (*name).to_owned()).collect())
    }

    const STATEMENT: &str = "import-statement";

    #[test]
    fn code_is_separated_from_its_imports_and_exports() {
        let text = r#""use strict";
var __defProp = Object.defineProperty;
var a_exports = {};
__export(a_exports, {
  default: () => a_default,
  "odd name": () => odd,
  one: () => import_one.one,
  two: () => two
});
module.exports = __toCommonJS(a_exports);
require("./effect");
var import_one = require("./one");
var two = __toESM(require("./two"), 1);
__reExport(a_exports, require("./three"), module.exports);
var a_default = (0, import_one.call)(two?.x.y, [...import_one]);
const later = () => Promise.resolve().then(() => __toESM(require("./later")));
"#;
        let statements = ["./effect", "./one", "./two", "./three"].map(|name| (name, STATEMENT));
        let imports = [&statements[..], &[("./later", "dynamic-import")]].concat();
        let found = code(text, &imports).expect("a module of esbuild");
        let uses =
            [used("lib/later", &[]), used("lib/one", &[]), used("lib/one", &["call"]), used("lib/two", &["x", "y"])];
        assert_eq!(found.uses, BTreeSet::from(uses));
        assert_eq!(found.effects, ["lib/effect"]);
        assert_eq!(found.stars, ["lib/three"]);
        let exports = [
            ("default", None),
            ("odd name", None),
            ("one", Some(used("lib/one", &["one"]))),
            ("two", Some(used("lib/two", &[]))),
        ];
        assert_eq!(found.exports, exports.map(|(name, origin)| (name.to_owned(), origin)).into());
        let has = |word: &str| found.words.contains(word);
        assert!(has("call") && has("y") && has("later") && !has("odd") && !has("effect"), "{:?}", found.words);
    }

    #[test]
    fn constants_are_those_that_nothing_assigns() {
        for (body, expected) in [
            ("const a = 1;", true),
            ("let a = 1;", false),
            ("var a = 1;", false),
            ("function a() {", true),
            ("async function* a() {", true),
            ("class a extends B {\nif (a === 1 || b => a) a.b = a(1);", true),
            ("function ab() {", false),
            ("function a() {\n  a = 1;", false),
            ("function a() {\n  a ??= 1;", false),
            ("class a {\n  --a;", false),
            ("class a {\n  a++;", false),
            ("function a() {\n  [b, a] = c;", false),
            ("function a() {\n  for (a of c) {", false),
            ("function a() {\n  eval(b);", false),
        ] {
            let body: Vec<&str> = body.lines().collect();
            assert_eq!(is_constant("a", &body), expected, "{body:?}");
        }
    }

    #[test]
    fn import_in_another_form_is_a_use_of_everything() {
        let found = code("let b = require(\"./b\");\n", &[("./b", STATEMENT)]).expect("a module of esbuild");
        assert_eq!(found.uses, BTreeSet::from([used("lib/b", &[])]));
        assert_eq!(code("__export(a_exports, {\n  get a() {}\n});\n", &[]), None);
    }
}
