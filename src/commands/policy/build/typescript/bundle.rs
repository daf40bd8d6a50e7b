//! The first half of a build: converts the modules that the source file imports to a program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use regex::{Captures, Regex};

use crate::commands::policy::build::typescript::esbuild::message::Message;
use crate::commands::policy::build::typescript::esbuild::{BuildOptions, Output, Service};
use crate::commands::policy::build::typescript::graph::Graph;
use crate::commands::policy::build::typescript::names::Names;
use crate::commands::policy::build::typescript::program::{Module, Program};
use crate::commands::policy::build::typescript::resolve::{self, Resolver};
use crate::commands::policy::build::typescript::source_map::SourceMap;
use crate::commands::policy::build::typescript::{MAX_SOURCE_BYTES, Mistake, helpers, secrets, spare, unavailable};
use crate::util::files;

/// The newest target of esbuild; the runtime supports it.
const TARGET: &str = "es2024";
/// The conditions closest to the runtime: web standards without a page and without Node.
const CONDITIONS: &str = "tidegate,edge-light,worker,browser,module";

/// The modules of an app, converted.
pub struct Bundle {
    pub program: Program,
    /// The source map of each module of the program that was converted.
    pub maps: BTreeMap<String, SourceMap>,
    pub graph: Graph,
    /// The entry in the graph.
    pub top: String,
    pub names: Names,
    /// Lines for the user, about the sources.
    pub warnings: Vec<String>,
    /// Lines for the user, about the component.
    pub notes: Vec<String>,
}

/// Converts the app whose source file is `entry`. Errors in it are a [`Mistake`].
pub fn bundle(esbuild: &Path, entry: &Path, node_env: &str) -> Result<Bundle> {
    let names = Names::new(entry)?;
    let mut build = Build {
        service: Service::start(esbuild)?,
        resolver: Resolver::default(),
        names,
        node_env,
        entry: entry.to_owned(),
    };
    let found = build.graph()?;
    let graph = Graph::new(&found.metafile)?;
    let top = build.names.relative(entry);
    if !graph.exports().any(|name| ["GET", "middleware", "default"].contains(&name)) {
        bail!(Mistake(format!(
            "{}: error: a policy exports GET (from handle()), or its middleware as `middleware` or as the default",
            build.names.display(&top)
        )));
    }
    let mut warnings: Vec<String> = build.format(&found.warnings, "warning");
    let (mut modules, maps) = match build.modules(&graph)? {
        Some(modules) => modules,
        None => {
            warnings.push(format!(
                "{}: note: there is `await` at top level: the whole app is evaluated in every instance, not once at build",
                build.names.display(&top)
            ));
            build.whole(&top)?
        }
    };
    let order: Vec<String> = graph.evaluation_order(&top);
    refuse_unavailable(&graph, &top, &order, &build.names)?;
    let is_whole = modules.iter().any(|(_, module)| module.whole);
    if !is_whole {
        spare::find(&mut modules, &graph, &top, &build.names);
    }
    let mut modules = linked(modules, &graph, &build.names);
    let mut notes = stand_in_warnings(&graph, &top, &modules, &build.names);
    notes.extend(build.node_env_note());
    warnings.extend(build.secrets(&graph));

    helpers::share(&mut modules);
    let is_evaluated = |id: &String| modules.iter().any(|module| module.id == *id && module.spare.is_none());
    let order = order.iter().map(|path| build.names.id(path)).filter(is_evaluated).collect();
    let entry = build.names.id(&top);
    let lazy = if is_whole { vec![entry.clone()] } else { vec![] };
    let program = Program { entry, order, lazy, trial: false, modules, node_env: node_env.to_owned() };
    Ok(Bundle { program, maps, graph, top, names: build.names, warnings, notes })
}

struct Build<'a> {
    service: Service,
    resolver: Resolver,
    names: Names,
    node_env: &'a str,
    entry: PathBuf,
}

/// Modules by their path in the graph, and the source maps by the module's id.
type Converted = (Vec<(String, Module)>, BTreeMap<String, SourceMap>);

impl Build<'_> {
    /// Finds the modules of the app.
    fn graph(&mut self) -> Result<Output> {
        let entry = self.entry.to_string_lossy().into_owned();
        self.run(vec![(String::new(), entry)], None, self.app_flags())
    }

    /// Converts each module by itself to CommonJS. `None` if one has `await` at top level.
    fn modules(&mut self, graph: &Graph) -> Result<Option<Converted>> {
        let paths: Vec<&str> = graph.modules().map(|(path, _)| path).collect();
        let sources: Vec<&str> = paths.iter().copied().filter(|path| !is_disabled(path)).collect();
        let root = self.names.root().to_owned();
        let entry = |(at, path): (usize, &&str)| {
            let path = if path.starts_with(resolve::PREFIX) {
                (*path).to_owned()
            } else {
                root.join(path).to_string_lossy().into_owned()
            };
            (at.to_string(), path)
        };
        let entries = sources.iter().enumerate().map(entry).collect();
        let mut flags = self.common_flags();
        flags.extend(
            [
                "--format=cjs",
                "--outdir=out",
                "--sourcemap=external",
                "--sources-content=false",
                "--supported:dynamic-import=false",
                "--loader:.css=empty",
            ]
            .map(String::from),
        );
        let output = match self.run(entries, None, flags) {
            Err(error) if error.is::<Mistake>() && error.to_string().contains("Top-level await") => return Ok(None),
            output => output?,
        };
        let file = |name: String| {
            output.files.iter().find(|(path, _)| *path == root.join("out").join(&name).to_string_lossy())
        };
        let mut maps = BTreeMap::new();
        let mut modules = Vec::new();
        for (at, path) in sources.iter().enumerate() {
            let (_, code) = file(format!("{at}.js")).with_context(|| format!("esbuild converted no {path}"))?;
            let id = self.names.id(path);
            if let Some((_, json)) = file(format!("{at}.js.map")).filter(|_| !path.starts_with(resolve::PREFIX)) {
                maps.insert(id.clone(), SourceMap::new(json, |_| id.clone())?);
            }
            modules.push(((*path).to_owned(), Module { id, code: restored(code), ..Module::default() }));
        }
        // A module that a package replaces with nothing.
        for path in paths.iter().filter(|path| is_disabled(path)) {
            modules.push(((*path).to_owned(), Module { id: self.names.id(path), ..Module::default() }));
        }
        for (path, module) in &mut modules {
            if !path.contains("node_modules/") {
                module.map = maps.get(&module.id).map_or_else(String::new, SourceMap::to_json);
            }
        }
        Ok(Some((modules, maps)))
    }

    /// With `await` at top level the modules cannot be evaluated one by one, so the whole app is one module.
    fn whole(&mut self, top: &str) -> Result<Converted> {
        let path = serde_json::Value::from(self.entry.to_string_lossy());
        let stdin = format!("import * as route from {path};\nObject.assign(tidegateExports, route);");
        let mut flags = self.app_flags();
        flags.extend(["--sourcemap=external", "--sources-content=false"].map(String::from));
        let output = self.run(vec![], Some(stdin), flags)?;
        let content =
            |ending: &str| output.files.iter().find(|(path, _)| path.ends_with(ending)).map(|(_, text)| text.clone());
        // On the first line, so that the map's lines stay right. `exports` itself would make the source a CommonJS module for esbuild.
        let code = format!(
            "const tidegateExports = exports; {}",
            restored(&content(".js").context("esbuild converted no module")?)
        );
        let id = self.names.id(top);
        let mut maps = BTreeMap::new();
        if let Some(json) = content(".js.map") {
            maps.insert(id.clone(), SourceMap::new(&json, |path| self.names.id(path))?);
        }
        let map = maps.get(&id).map_or_else(String::new, SourceMap::to_json);
        let imports = resolve::BUILT_INS.iter().map(|id| ((*id).to_owned(), (*id).to_owned())).collect();
        Ok((vec![(top.to_owned(), Module { id, imports, code, map, whole: true, ..Module::default() })], maps))
    }

    fn run(&mut self, entries: Vec<(String, String)>, stdin: Option<String>, flags: Vec<String>) -> Result<Output> {
        let entries = entries.into_iter().map(|(output, path)| (path, output)).collect();
        let options = BuildOptions { folder: self.names.root(), entries, flags, stdin };
        let output = self.service.build(&options, &mut self.resolver)?;
        if output.errors.is_empty() {
            Ok(output)
        } else {
            bail!(Mistake(self.format(&output.errors, "error").join("\n")))
        }
    }

    fn common_flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = [
            "--log-level=silent",
            "--log-limit=0",
            "--platform=browser",
            "--legal-comments=none",
            "--jsx=automatic",
            "--charset=utf8",
        ]
        .map(String::from)
        .into();
        flags.push(format!("--target={TARGET}"));
        flags.push(format!("--define:{}=\"{}\"", resolve::NODE_ENV, self.node_env));
        // For a browser esbuild replaces it with the mode of the build, unless it is defined.
        flags.push("--define:process.env.NODE_ENV=process.env.NODE_ENV".to_owned());
        flags.push("--define:import.meta.env=process.env".to_owned());
        flags.push("--define:import.meta.url=\"file:///policy.js\"".to_owned());
        flags
    }

    fn app_flags(&self) -> Vec<String> {
        let mut flags = self.common_flags();
        flags.extend(
            ["--bundle", "--metafile", "--format=esm", "--outfile=app.js", "--main-fields=browser,module,main"]
                .map(String::from),
        );
        flags.push(format!("--conditions={CONDITIONS}"));
        flags
    }

    fn format(&self, messages: &[Message], kind: &str) -> Vec<String> {
        messages.iter().map(|message| message.format(kind, &|file| self.names.display(file))).collect()
    }

    fn secrets(&self, graph: &Graph) -> Vec<String> {
        let mut found = Vec::new();
        for (path, _) in graph.modules().filter(|(path, _)| !path.starts_with(resolve::PREFIX)) {
            let Ok(text) = files::read_text(&self.names.root().join(path), MAX_SOURCE_BYTES) else { continue };
            found.extend(secrets::find(&self.names.display(path), &text, !path.contains("node_modules/")));
        }
        found
    }

    fn node_env_note(&self) -> Option<String> {
        let packages: Vec<&str> = self.resolver.uses_of_node_env.iter().map(String::as_str).collect();
        (!packages.is_empty()).then(|| {
            format!(
                "note: NODE_ENV is \"{}\" in the code of {}, whatever the setting NODE_ENV is: --node-env selects another value",
                self.node_env,
                packages.join(", ")
            )
        })
    }
}

/// The code with the text of the sources in strings, where the identifier for `NODE_ENV` was not replaced with its value.
fn restored(code: &str) -> String {
    code.replace(resolve::NODE_ENV, "process.env.NODE_ENV")
}

/// A module that a package replaces with nothing.
fn is_disabled(path: &str) -> bool {
    path.starts_with("(disabled):")
}

/// Sets the imports of modules. esbuild converts a module as if all its imports were CommonJS, with Node's rules for the default export.
/// For imports that are ES modules the exports are used unchanged.
fn linked(modules: Vec<(String, Module)>, graph: &Graph, names: &Names) -> Vec<Module> {
    let call = Regex::new(r#"__toESM\((require\(("(?:[^"\\\n]|\\.)*")\))(?:, 1)?\)"#).ok();
    let edges: BTreeMap<&str, BTreeMap<&str, &str>> = graph
        .modules()
        .map(|(path, module)| {
            (
                path,
                module
                    .imports
                    .iter()
                    .filter(|it| !it.external || it.path.starts_with(resolve::PREFIX))
                    .map(|it| (it.name(), &*it.path))
                    .collect(),
            )
        })
        .collect();
    let mut linked = Vec::new();
    for (path, mut module) in modules {
        if let Some(imports) = edges.get(&*path).filter(|_| !module.whole) {
            module.imports = imports.iter().map(|(name, path)| ((*name).to_owned(), names.id(path))).collect();
            let replace = |found: &Captures<'_>| {
                let name: Option<String> = found.get(2).and_then(|name| serde_json::from_str(name.as_str()).ok());
                let target = name.and_then(|name| imports.get(&*name).copied());
                let keeps = target.is_some_and(|path| graph.is_es_module(path));
                found.get(usize::from(keeps)).map_or("", |it| it.as_str()).to_owned()
            };
            if let Some(call) = &call {
                module.code = call.replace_all(&module.code, replace).into_owned();
            }
        }
        linked.push(module);
    }
    linked.sort_by(|a, b| a.id.cmp(&b.id));
    linked
}

/// Refuses modules that the policy always evaluates and that cannot work.
fn refuse_unavailable(graph: &Graph, top: &str, order: &[String], names: &Names) -> Result<()> {
    let evaluated: BTreeSet<&str> = order.iter().map(String::as_str).collect();
    let mut errors = Vec::new();
    for (path, module) in graph.modules().filter(|(path, _)| evaluated.contains(path)) {
        for edge in module.imports.iter().filter(|edge| edge.is_statement()) {
            let Some(id) = edge.path.strip_prefix(resolve::PREFIX) else { continue };
            // A package may import a module of Node and not use it.
            if id.starts_with(unavailable::NODE) && path.contains("node_modules/") {
                continue;
            }
            if let Some(why) = unavailable::explain(id) {
                let place = names.line_of_import(path, edge.name());
                errors.push(format!("{place}: error: {why}{}", names.chain_note(graph, top, &edge.path)));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { bail!(Mistake(errors.join("\n"))) }
}

/// Warnings about stand-ins that a module may use.
fn stand_in_warnings(graph: &Graph, top: &str, modules: &[Module], names: &Names) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, module) in graph.modules() {
        let id = names.id(path);
        let code = modules.iter().find(|it| it.id == id).map_or("", |it| &*it.code);
        for edge in &module.imports {
            let Some(stand_in) = edge.path.strip_prefix(resolve::PREFIX) else { continue };
            let Some(why) = unavailable::explain(stand_in) else { continue };
            // Not in code that never runs.
            let is_called = code.contains(&format!("require({})", serde_json::Value::from(edge.name())));
            let importer = resolve::package_of(path).unwrap_or_else(|| names.display(path));
            if is_called && seen.insert((importer, stand_in)) {
                let chain = names.chain_note(graph, top, &edge.path);
                warnings.push(format!(
                    "{}: warning: code that uses {} throws: {why}{chain}",
                    names.display(path),
                    edge.name()
                ));
            }
        }
    }
    warnings
}
