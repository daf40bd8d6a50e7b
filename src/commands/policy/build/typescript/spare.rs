//! Spare modules: modules of packages without side effects, whose exports no code of the app seems to use. A library such as zod has many
//! of them, as properties of objects that export everything. They are evaluated when an export is used nevertheless.
//!
//! The search decides about the costs of a policy, and not about its meaning.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::policy::build::typescript::exports::{Code, Use};
use crate::commands::policy::build::typescript::graph::Graph;
use crate::commands::policy::build::typescript::names::Names;
use crate::commands::policy::build::typescript::program::Module;
use crate::commands::policy::build::typescript::side_effects::SideEffects;

/// Finds the spare modules among these, which are named by their paths in the graph. Their names of exports are set, and those of constant exports
/// of all modules.
pub fn find(modules: &mut [(String, Module)], graph: &Graph, top: &str, names: &Names) {
    let codes: BTreeMap<&str, &str> = modules.iter().map(|(path, module)| (&**path, &*module.code)).collect();
    let mut side_effects = SideEffects::default();
    let mut app = App::default();
    let mut pure = Vec::new();
    for (path, module) in graph.modules() {
        let code = codes.get(path).copied().unwrap_or_default();
        let Some(code) = Code::of_es_module(code, module).filter(|_| graph.is_es_module(path)) else {
            app.codes.insert(path, Code::of_other_module(code, module));
            continue;
        };
        app.codes.insert(path, code);
        app.es_modules.insert(path);
        if path != top && path.contains("node_modules/") && side_effects.has_none(&names.root().join(path)) {
            pure.push(path);
        }
    }
    let pure = pure.into_iter().filter_map(|path| Some((path, app.names(path)?))).collect();
    let mut spare = app.unused(pure);
    let mut constants: BTreeMap<String, Vec<String>> =
        app.codes.into_iter().map(|(path, code)| (path.to_owned(), code.constants)).collect();
    for (path, module) in modules {
        module.spare = spare.remove(path);
        module.constants = constants.remove(path).unwrap_or_default();
    }
}

#[derive(Default)]
struct App<'a> {
    codes: BTreeMap<&'a str, Code>,
    /// Those whose imports and exports are known.
    es_modules: BTreeSet<&'a str>,
}

impl<'a> App<'a> {
    /// The names of a module's exports. `None` if it exports everything of a module whose exports are not known.
    fn names(&self, path: &str) -> Option<Vec<String>> {
        let mut names = BTreeSet::new();
        let mut seen = BTreeSet::from([path]);
        let mut queue = vec![path];
        while let Some(module) = queue.pop() {
            let code = self.codes.get(module).filter(|_| self.es_modules.contains(module))?;
            let is_own = module == path;
            names.extend(code.exports.keys().filter(|name| is_own || *name != "default").cloned());
            queue.extend(code.stars.iter().map(String::as_str).filter(|star| seen.insert(star)));
        }
        Some(names.into_iter().collect())
    }

    /// The modules without side effects that no other module seems to use.
    fn unused(&self, pure: BTreeMap<&str, Vec<String>>) -> BTreeMap<String, Vec<String>> {
        let mut search = Search {
            app: self,
            pure: &pure,
            entered: BTreeSet::new(),
            queue: vec![],
            values: BTreeSet::new(),
            words: BTreeSet::new(),
            followed: BTreeSet::new(),
        };
        for path in self.codes.keys().filter(|path| !pure.contains_key(*path)) {
            search.enter(path);
        }
        search.run();
        let unused = pure.iter().filter(|(path, _)| !search.entered.contains(*path));
        unused.map(|(path, names)| ((*path).to_owned(), names.clone())).collect()
    }
}

/// The search for everything that is used.
struct Search<'a> {
    app: &'a App<'a>,
    pure: &'a BTreeMap<&'a str, Vec<String>>,
    /// The modules whose code runs.
    entered: BTreeSet<&'a str>,
    queue: Vec<&'a str>,
    /// Those that are values. Which of their exports are used is not known, but their names are words of the code.
    values: BTreeSet<&'a str>,
    words: BTreeSet<&'a str>,
    followed: BTreeSet<Use>,
}

impl<'a> Search<'a> {
    fn run(&mut self) {
        loop {
            while let Some(path) = self.queue.pop() {
                self.use_code(path);
            }
            let before = self.followed.len();
            for path in self.values.clone() {
                for name in self.pure.get(path).into_iter().flatten() {
                    if self.words.contains(&**name) {
                        self.follow(path, vec![name.clone()]);
                    }
                }
            }
            if self.followed.len() == before && self.queue.is_empty() {
                return;
            }
        }
    }

    fn enter(&mut self, path: &'a str) {
        if self.app.codes.contains_key(path) && self.entered.insert(path) {
            self.queue.push(path);
        }
    }

    fn use_code(&mut self, path: &'a str) {
        let Some(code) = self.app.codes.get(path) else { return };
        self.words.extend(code.words.iter().map(String::as_str));
        for (path, names) in &code.uses {
            self.follow(path, names.clone());
        }
        for path in &code.effects {
            self.enter(path);
        }
        // Of a module that is evaluated anyway, all exports count as used.
        if !self.pure.contains_key(path) {
            for (path, names) in code.exports.values().flatten() {
                self.follow(path, names.clone());
            }
            for path in &code.stars {
                self.follow(path, vec![]);
            }
        }
    }

    /// Follows the use of an export to the module that it comes from.
    fn follow(&mut self, path: &'a str, names: Vec<String>) {
        if !self.followed.insert((path.to_owned(), names.clone())) {
            return;
        }
        self.enter(path);
        let Some(code) = self.app.codes.get(path) else { return };
        let Some((name, rest)) = names.split_first() else {
            self.values.insert(path);
            return;
        };
        match code.exports.get(name) {
            Some(Some((origin, names))) => self.follow(origin, [names, rest].concat()),
            Some(None) => {}
            None => {
                let has = |star: &&String| self.app.names(star).is_none_or(|it| it.contains(name));
                let stars: Vec<&String> = code.stars.iter().filter(has).collect();
                for star in stars {
                    self.follow(star, names.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The unused modules of an app, of which those with a name that starts with `/` have no side effects. Each module has its imports and
    /// its code.
    fn unused(modules: &[(&str, &[&str], &str)]) -> Vec<String> {
        let inputs: serde_json::Map<String, serde_json::Value> = modules
            .iter()
            .map(|(path, imports, _)| {
                let edge = |path: &&str| json!({ "path": path, "kind": "import-statement", "original": path });
                let imports: Vec<_> = imports.iter().map(edge).collect();
                ((*path).to_owned(), json!({ "imports": imports, "format": "esm" }))
            })
            .collect();
        let graph = Graph::new(&json!({ "inputs": inputs, "outputs": {} }).to_string()).expect("a metafile");
        let mut app = App::default();
        for (path, module) in graph.modules() {
            let (_, _, code) = modules.iter().find(|(other, ..)| *other == path).expect("a module");
            app.codes.insert(path, Code::of_es_module(code, module).expect("the form of esbuild"));
            app.es_modules.insert(path);
        }
        let pure = app.codes.keys().copied().filter(|path| path.starts_with('/'));
        let pure = pure.filter_map(|path| Some((path, app.names(path)?))).collect();
        app.unused(pure).into_keys().collect()
    }

    const LIBRARY: &[(&str, &[&str], &str)] = &[
        (
            "/index",
            &["/all"],
            "var index_exports = {};\n__export(index_exports, {\n  z: () => z\n});\nmodule.exports = __toCommonJS(index_exports);\n\
             var z = __toESM(require(\"/all\"));\n__reExport(index_exports, require(\"/all\"), module.exports);\n",
        ),
        (
            "/all",
            &["/text", "/number", "/locales"],
            "__export(all_exports, {\n  locales: () => locales,\n  number: () => import_number.number\n});\n\
             __reExport(all_exports, require(\"/text\"), module.exports);\nvar import_number = require(\"/number\");\n\
             var locales = __toESM(require(\"/locales\"));\n",
        ),
        ("/text", &[], "__export(text_exports, {\n  text: () => text\n});\nfunction text() {\n}\n"),
        ("/number", &["/text"], "__export(number_exports, {\n  number: () => number\n});\nconst number = 1;\n"),
        (
            "/locales",
            &["/de"],
            "__export(locales_exports, {\n  de: () => import_de.default\n});\nvar import_de = __toESM(require(\"/de\"), 1);\n",
        ),
        ("/de", &[], "__export(de_exports, {\n  default: () => de_default\n});\nvar de_default = \"de\";\n"),
    ];

    #[test]
    fn modules_are_unused_unless_code_names_their_exports() {
        for (code, expected) in [
            ("import_z.z.text();", vec!["/de", "/locales", "/number"]),
            ("import_z.text();", vec!["/de", "/locales", "/number"]),
            ("import_z.z.number + import_z?.z?.text();", vec!["/de", "/locales"]),
            ("import_z.z.locales.de();", vec!["/number", "/text"]),
            ("import_z.z.locales;", vec!["/de", "/number", "/text"]),
            // A value may be used by each name in the code.
            ("const { text } = import_z.z;", vec!["/de", "/locales", "/number"]),
            ("f(import_z); const f = (z) => z.z.locales.de;", vec!["/number", "/text"]),
            ("other.text();", vec!["/all", "/de", "/index", "/locales", "/number", "/text"]),
        ] {
            let app = format!("var import_z = require(\"/index\");\n{code}\n");
            let mut modules = LIBRARY.to_vec();
            modules.push(("app", &["/index"], &app));
            assert_eq!(unused(&modules), expected, "{code}");
        }
    }

    #[test]
    fn module_that_exports_everything_of_an_unknown_one_is_not_spare() {
        let code = "__reExport(a_exports, require(\"/b\"), module.exports);\n";
        let app = "var import_a = require(\"/a\");\n";
        assert!(unused(&[("app", &["/a"], app), ("/a", &["/b"], code)]).is_empty());
    }
}
