//! Builds policies in TypeScript and JavaScript: esbuild converts the modules of the app, and the runtime evaluates what can be evaluated
//! before the first request. The component is the runtime with the result.

mod bundle;
mod compact;
mod entry;
mod esbuild;
mod evaluate;
mod exports;
mod graph;
mod helpers;
mod names;
mod program;
mod resolve;
mod secrets;
mod side_effects;
mod source_map;
mod spare;
mod toolchain;
mod unavailable;
mod written;

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rust_embed::RustEmbed;
use wasm_metadata::AddMetadata;

use crate::commands::policy::build::{Job, tools};
use bundle::Bundle;
use evaluate::{Bounds, Evaluation, Runtime};
use program::{Failed, Found, Program, Report};
use source_map::SourceMap;

/// Each attempt finds at least one more module that reads an instance's state; apps have few of them.
const MAX_ATTEMPTS: usize = 12;
/// A larger file is not a source.
const MAX_SOURCE_BYTES: u64 = 32 << 20;

/// The runtime, a core module that `cargo xtask runtime` builds.
#[derive(RustEmbed)]
#[folder = "sdk/typescript"]
#[include = "engine.wasm"]
struct Engine;

const RUNTIME: &str = "engine.wasm";

/// An error that the author of the policy can correct. Its text has the file and the line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Mistake(pub String);

/// The runtime that the program contains; in debug builds another one for its developers.
fn runtime() -> Result<Cow<'static, [u8]>> {
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os("TIDEGATE_RUNTIME_WASM") {
        return Ok(tools::read_module(path.as_ref())?.into());
    }
    Ok(Engine::get(RUNTIME).context("this program was built without the runtime for TypeScript")?.data)
}

pub fn build(job: &Job, node_env: &str) -> Result<()> {
    let entry = match &job.source {
        Some(source) => source.clone(),
        None => entry::find(&job.project)?,
    };
    let esbuild = toolchain::esbuild(&job.project)?;
    let engine = runtime()?;
    match bundle::bundle(&esbuild, &entry, node_env).and_then(|app| component(&engine, app)) {
        Ok(component) => tools::write_output(job, &component),
        Err(error) => match error.downcast::<Mistake>() {
            Ok(Mistake(text)) => {
                eprintln!("{text}");
                bail!("the policy was not built; its errors are above")
            }
            Err(error) => Err(error),
        },
    }
}

/// Evaluates the app in the runtime, until no more module is found whose top-level code has to be evaluated in every instance.
fn component(engine: &[u8], mut app: Bundle) -> Result<Vec<u8>> {
    for line in &app.warnings {
        eprintln!("{line}");
    }
    let runtime = Runtime::new(engine, Bounds::default())?;
    let mut uses: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    let trial = app.trial(&runtime)?;
    if let Some(text) = app.unavailable(&trial.failed) {
        bail!(Mistake(text));
    }
    app.defer(trial.found, &mut uses);
    for _ in 0..MAX_ATTEMPTS {
        let (report, evaluation) = app.evaluate(&runtime)?;
        if app.defer(report.found, &mut uses) {
            continue;
        }
        if !report.failed.is_empty() {
            // The trial has the lines of packages.
            let same = |it: &Failed| {
                trial.failed.iter().position(|other| other.module == it.module && other.error == it.error)
            };
            let failed = report.failed.iter().map(|it| same(it).and_then(|at| trial.failed.get(at)).unwrap_or(it));
            bail!(Mistake(failed.map(|it| app.explain(it)).collect::<Vec<_>>().join("\n")));
        }
        for line in report.printed {
            eprintln!("{}: top-level code printed {line}", app.names.display(&app.top));
        }
        for line in app.notes.iter().cloned().chain(uses.values().flat_map(|found| app.use_notes(found))) {
            eprintln!("{line}");
        }
        let module = compact::compact(&runtime.snapshot(evaluation)?, &evaluate::BUILD_EXPORTS)?;
        return tools::componentize(described(module)?, None);
    }
    bail!(
        "{}: the set of modules that read settings at top level changes with each evaluation",
        app.names.display(&app.top)
    )
}

/// Replaces the producers of the runtime: `policy inspect` shows those of the policy.
fn described(module: Vec<u8>) -> Result<Vec<u8>> {
    let mut metadata = AddMetadata::default();
    metadata.language = vec![("JavaScript".to_owned(), String::new())];
    metadata.processed_by = vec![
        ("quickjs (tidegate)".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("esbuild".to_owned(), esbuild::VERSION.to_owned()),
    ];
    metadata.to_wasm(&module).context("describing the component")
}

impl Bundle {
    /// Evaluates all modules with placeholders for the state of an instance. That finds most uses of it, and stand-ins that throw.
    fn trial(&self, runtime: &Runtime) -> Result<Report> {
        let mut program = self.program.clone();
        program.trial = true;
        // Stacks have the lines of modules with a map. The snapshot has no lines of packages.
        for module in &mut program.modules {
            module.map = self.maps.get(&module.id).map_or_else(String::new, SourceMap::to_json);
        }
        Ok(self.run(runtime, &program)?.0)
    }

    fn evaluate(&self, runtime: &Runtime) -> Result<(Report, Evaluation)> {
        self.run(runtime, &self.program)
    }

    fn run(&self, runtime: &Runtime, program: &Program) -> Result<(Report, Evaluation)> {
        let evaluation = runtime.evaluate(&serde_json::to_vec(program)?);
        let evaluation = evaluation.map_err(|error| match error.downcast::<Mistake>() {
            Ok(Mistake(text)) => Mistake(format!("{}: {text}", self.names.display(&self.top))).into(),
            Err(error) => error,
        })?;
        let report = serde_json::from_slice(&evaluation.report).context("the runtime wrote an invalid report")?;
        Ok((report, evaluation))
    }

    /// Marks modules that read the state of an instance. Returns false if all of them were known.
    fn defer(&mut self, found: Vec<Found>, uses: &mut BTreeMap<String, Vec<Found>>) -> bool {
        let known = self.program.lazy.clone();
        for found in found.into_iter().filter(|found| !known.contains(&found.module)) {
            if !self.program.lazy.contains(&found.module) {
                self.program.lazy.push(found.module.clone());
            }
            uses.entry(found.module.clone()).or_default().push(found);
        }
        self.program.lazy.len() > known.len()
    }

    /// Notes about a module that is evaluated in every instance: one line for each source line that causes it.
    fn use_notes(&self, found: &[Found]) -> Vec<String> {
        let mut reads: Vec<(String, Vec<&str>)> = Vec::new();
        for it in found {
            let place = self.location(&it.module, &it.stack);
            let at = reads.iter().position(|(other, _)| *other == place).unwrap_or_else(|| {
                reads.push((place, vec![]));
                reads.len() - 1
            });
            if let Some((_, states)) = reads.get_mut(at).filter(|(_, states)| !states.contains(&&*it.state)) {
                states.push(&it.state);
            }
        }
        let note = |(place, states): (String, Vec<&str>)| {
            format!(
                "{place}: note: top-level code reads {}: evaluated in every instance, not once at build",
                states.join(", ")
            )
        };
        reads.into_iter().map(note).collect()
    }

    /// The error of a module that cannot be evaluated.
    fn explain(&self, failed: &Failed) -> String {
        let place = self.location(&failed.module, &failed.stack);
        match failed.error.strip_prefix("Endless: ") {
            Some(error) => format!("{place}: error: {error}"),
            None => format!("{place}: error: top-level code failed: {}", failed.error),
        }
    }

    /// The errors of modules that use an unavailable module in their top-level code, with the imports that lead to it.
    fn unavailable(&self, failed: &[Failed]) -> Option<String> {
        let mut reasons = Vec::new();
        let mut lines = Vec::new();
        for it in failed {
            let Some(id) = unavailable::thrown_by(&it.name) else { continue };
            let why = it.error.strip_prefix(&*it.name).map_or(&*it.error, |text| text.trim_start_matches(": "));
            // The modules that import it fail for the same reason.
            if reasons.contains(&why) {
                continue;
            }
            reasons.push(why);
            let path = format!("{}{id}", resolve::PREFIX);
            let stand_in = self.graph.modules().map(|(module, _)| module).find(|module| *module == path);
            let chain = stand_in.map_or_else(String::new, |path| self.names.chain_note(&self.graph, &self.top, path));
            let importer =
                stand_in.filter(|_| it.module.starts_with(resolve::PREFIX)).and_then(|path| self.import_of(path));
            let place = importer.unwrap_or_else(|| self.location(&it.module, &it.stack));
            lines.push(format!("{place}: error: {why}{chain}"));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The line of the import that leads to a module.
    fn import_of(&self, path: &str) -> Option<String> {
        let chain = self.graph.chain(&self.top, path);
        let importer = *chain.get(chain.len().checked_sub(2)?)?;
        let (_, module) = self.graph.modules().find(|(module, _)| *module == importer)?;
        let edge = module.imports.iter().find(|edge| edge.path == path)?;
        Some(self.names.line_of_import(importer, edge.name()))
    }

    /// The source line of a stack: the innermost line in the module itself.
    fn location(&self, module: &str, stack: &str) -> String {
        if module.is_empty() {
            return self.names.display(&self.top);
        }
        let name = |id: &str| {
            let path = self.graph.modules().map(|(path, _)| path).find(|path| self.names.id(path) == id);
            self.names.display(path.unwrap_or(id))
        };
        let found = positions(stack, module).find_map(|(line, column)| self.maps.get(module)?.find(line, column));
        found.map_or_else(|| name(module), |(source, line)| format!("{}:{line}", name(source)))
    }
}

/// The lines and columns of a stack in a module.
fn positions<'a>(stack: &'a str, module: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    stack.match_indices(module).filter_map(move |(at, _)| {
        let rest = stack.get(at + module.len()..)?.strip_prefix(':')?;
        let (line, rest) = rest.split_once(':')?;
        let column: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((line.parse().ok()?, column.parse().ok()?))
    })
}
