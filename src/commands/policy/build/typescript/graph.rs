//! The modules of an app and their imports, as esbuild's metafile lists them.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The metafile of a build.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// The modules by their path relative to the folder of the build.
    inputs: BTreeMap<String, Module>,
    outputs: BTreeMap<String, Exports>,
}

#[derive(Debug, Deserialize)]
pub struct Module {
    pub imports: Vec<Edge>,
    format: Option<String>,
}

/// An import of a module.
#[derive(Debug, Deserialize)]
pub struct Edge {
    /// The imported module.
    pub path: String,
    kind: String,
    /// The text in the source.
    original: Option<String>,
    #[serde(default)]
    pub external: bool,
}

#[derive(Debug, Deserialize)]
struct Exports {
    #[serde(default)]
    exports: Vec<String>,
}

impl Graph {
    pub fn new(metafile: &str) -> Result<Self> {
        serde_json::from_str(metafile).context("esbuild wrote a metafile of an unknown form")
    }

    /// The names that the entry exports.
    pub fn exports(&self) -> impl Iterator<Item = &str> {
        self.outputs.values().flat_map(|output| &output.exports).map(String::as_str)
    }

    pub fn modules(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.inputs.iter().map(|(path, module)| (path.as_str(), module))
    }

    /// Whether the module is an ES module. esbuild treats the imports of a module that it converts by itself as CommonJS modules.
    pub fn is_es_module(&self, path: &str) -> bool {
        self.inputs.get(path).is_some_and(|module| module.format.as_deref() == Some("esm"))
    }

    /// The modules that `entry` imports with statements, each after its own imports. Of modules that import each other, the first is the
    /// one that is reached first: as for ES modules, its code starts first, and that of the others runs when it imports them.
    pub fn evaluation_order<'a>(&'a self, entry: &'a str) -> Vec<String> {
        let mut order = Vec::new();
        // Tarjan's algorithm, without recursion because a chain of imports may be long: a module's number, and the lowest number of
        // an unfinished module that it leads to.
        let mut numbers: BTreeMap<&str, (usize, usize)> = BTreeMap::from([(entry, (0, 0))]);
        let mut unfinished = vec![entry];
        let mut stack = vec![(entry, self.statements(entry))];
        while let Some((path, rest)) = stack.last_mut() {
            let path = *path;
            let low = |numbers: &mut BTreeMap<&str, (usize, usize)>, other: usize| {
                if let Some((_, low)) = numbers.get_mut(path) {
                    *low = other.min(*low);
                }
            };
            if let Some(next) = rest.pop_front() {
                match numbers.get(next) {
                    None => {
                        numbers.insert(next, (numbers.len(), numbers.len()));
                        unfinished.push(next);
                        stack.push((next, self.statements(next)));
                    }
                    Some((number, _)) if unfinished.contains(&next) => {
                        let number = *number;
                        low(&mut numbers, number);
                    }
                    Some(_) => {}
                }
                continue;
            }
            stack.pop();
            let (number, lowest) = numbers.get(path).copied().unwrap_or_default();
            if number == lowest {
                let start = unfinished.iter().position(|it| *it == path).unwrap_or_default();
                order.extend(unfinished.drain(start..).map(str::to_owned));
            } else if let Some((parent, low)) =
                stack.last().and_then(|(parent, _)| Some((*parent, numbers.get(parent)?.1)))
            {
                numbers.entry(parent).and_modify(|it| it.1 = low.min(lowest));
            }
        }
        order
    }

    /// The shortest chain of imports from `entry` to a module, both included.
    pub fn chain<'a>(&'a self, entry: &'a str, to: &str) -> Vec<&'a str> {
        let mut from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([entry]);
        while let Some(path) = queue.pop_front() {
            if path == to {
                let mut chain = vec![path];
                while let Some(importer) = chain.last().filter(|last| **last != entry).and_then(|last| from.get(last)) {
                    chain.push(importer);
                }
                chain.reverse();
                return chain;
            }
            for edge in self.edges(path) {
                if edge.path != entry && !from.contains_key(&*edge.path) {
                    from.insert(&edge.path, path);
                    queue.push_back(&edge.path);
                }
            }
        }
        Vec::new()
    }

    fn edges(&self, path: &str) -> impl Iterator<Item = &Edge> {
        self.inputs.get(path).into_iter().flat_map(|module| &module.imports).filter(|edge| !edge.external)
    }

    fn statements(&self, path: &str) -> VecDeque<&str> {
        self.edges(path).filter(|edge| edge.is_statement()).map(|edge| &*edge.path).collect()
    }
}

impl Edge {
    /// Whether the import is a statement, which is always evaluated.
    pub fn is_statement(&self) -> bool {
        self.kind == "import-statement"
    }

    /// The text in the source.
    pub fn name(&self) -> &str {
        self.original.as_deref().unwrap_or(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[(&str, &str)])]) -> Graph {
        let edge = |(path, kind): &(&str, &str)| serde_json::json!({ "path": path, "kind": kind });
        let module =
            |imports: &[(&str, &str)]| serde_json::json!({ "imports": imports.iter().map(edge).collect::<Vec<_>>() });
        let inputs: BTreeMap<_, _> = edges.iter().map(|(path, imports)| (path, module(imports))).collect();
        Graph::new(&serde_json::json!({ "inputs": inputs, "outputs": {} }).to_string()).expect("a metafile")
    }

    const STATEMENT: &str = "import-statement";

    #[test]
    fn modules_are_evaluated_after_their_imports() {
        let graph = graph(&[
            ("route", &[("a", STATEMENT), ("b", STATEMENT), ("later", "dynamic-import")]),
            ("a", &[("c", STATEMENT), ("b", STATEMENT)]),
            ("b", &[("c", STATEMENT), ("route", STATEMENT)]),
            ("c", &[]),
            ("later", &[]),
        ]);
        assert_eq!(graph.evaluation_order("route"), ["c", "route", "a", "b"]);
    }

    #[test]
    fn first_reached_module_of_a_cycle_is_first() {
        let graph = graph(&[
            ("route", &[("x", STATEMENT), ("z", STATEMENT)]),
            ("x", &[("y", STATEMENT)]),
            ("y", &[("x", STATEMENT), ("z", STATEMENT)]),
            ("z", &[("y", STATEMENT), ("w", STATEMENT)]),
            ("w", &[]),
        ]);
        assert_eq!(graph.evaluation_order("route"), ["w", "x", "y", "z", "route"]);
    }

    #[test]
    fn chain_is_the_shortest() {
        let graph = graph(&[
            ("route", &[("lib", STATEMENT)]),
            ("lib", &[("route", STATEMENT), ("long", STATEMENT), ("pg", STATEMENT)]),
            ("long", &[("pg", STATEMENT)]),
            ("pg", &[("net", "require-call")]),
            ("net", &[]),
        ]);
        assert_eq!(graph.chain("route", "net"), ["route", "lib", "pg", "net"]);
        assert_eq!(graph.chain("route", "route"), ["route"]);
        assert!(graph.chain("route", "other").is_empty());
    }
}
