//! A project and its dependencies, as cargo describes them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::commands::policy::build::rust::toolchain::RustToolchain;
use crate::commands::policy::build::{MAX_MANIFEST_BYTES, tools};
use crate::util::files;

pub struct CargoProject {
    /// Cargo's id of the policy's package.
    pub package: String,
    /// Output file of the linker.
    pub module: PathBuf,
    /// `--locked` if there is a lock file.
    pub locked: Option<&'static str>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
pub struct Package {
    id: String,
    pub name: String,
    version: String,
    /// None for a local package.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<CompileTarget>,
}

#[derive(Deserialize)]
struct CompileTarget {
    name: String,
    kind: Vec<String>,
    crate_types: Vec<String>,
}

/// The dependencies for the target, by package.
#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None for a dependency of the library, as opposed to its build script or its tests.
    kind: Option<String>,
}

impl Package {
    /// Whether a source file of the package has one of these texts. Files that cannot be read do not count.
    pub fn mentions(&self, texts: &[&str]) -> bool {
        let mut folders = vec![self.manifest_path.with_file_name("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs")
                    && let Ok(source) = files::read_text(&path, MAX_MANIFEST_BYTES)
                    && texts.iter().any(|text| source.contains(text))
                {
                    return true;
                }
            }
        }
        false
    }
}

/// A package that is linked into the policy.
pub struct LinkedPackage<'a> {
    pub package: &'a Package,
    pub features: &'a [String],
    /// The names of the packages from the policy to this one.
    pub path: Vec<&'a str>,
}

impl LinkedPackage<'_> {
    /// `my-policy → chrono → js-sys`.
    pub fn route(&self) -> String {
        self.path.join(" → ")
    }

    /// Whether the policy's own manifest names it.
    pub fn is_direct(&self) -> bool {
        self.path.len() == 2
    }
}

impl CargoProject {
    pub fn read(toolchain: RustToolchain, project: &Path) -> Result<Self> {
        let root =
            tools::output(toolchain.cargo(project).args(["locate-project", "--workspace", "--message-format=plain"]))?;
        let locked = Path::new(&root).with_file_name("Cargo.lock").is_file().then_some("--locked");
        let mut cargo = toolchain.cargo(project);
        cargo.args(["metadata", "--format-version=1", "--filter-platform", toolchain.target()]).args(locked);
        let metadata = tools::output(&mut cargo).with_context(|| match locked {
            Some(_) => "the build uses Cargo.lock: if Cargo.toml has changed since, run `cargo update --workspace`",
            None => "cargo cannot read the project's metadata",
        })?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).context("parsing the project's metadata from cargo")?;

        let manifest = project.join("Cargo.toml");
        let package = metadata.packages.iter().find(|package| package.manifest_path == manifest);
        let package = package.with_context(|| {
            format!("{} is a workspace and not a package: build the folder of one of its members", manifest.display())
        })?;
        let library = package.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
        let library = library.with_context(|| {
            format!(
                "{}: a policy is a library of type cdylib:\n  [lib]\n  crate-type = [\"cdylib\"]",
                manifest.display()
            )
        })?;
        let file = format!("{}.wasm", library.name.replace('-', "_"));
        let module = metadata.target_directory.join(toolchain.target()).join("release").join(file);
        Ok(Self { package: package.id.clone(), module, locked, metadata })
    }

    /// The packages that are linked into the policy, nearest first: without those of build scripts, macros and tests, which are
    /// compiled for this machine.
    pub fn linked_packages(&self) -> Vec<LinkedPackage<'_>> {
        let packages: HashMap<&str, &Package> = self.metadata.packages.iter().map(|p| (&*p.id, p)).collect();
        let nodes: HashMap<&str, &Node> = self.metadata.resolve.nodes.iter().map(|n| (&*n.id, n)).collect();
        let mut linked = Vec::new();
        let mut seen = HashSet::from([&*self.package]);
        let mut queue = VecDeque::from([(&*self.package, Vec::new())]);
        while let Some((id, parents)) = queue.pop_front() {
            let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else { continue };
            if package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro")) {
                continue;
            }
            let mut path = parents;
            path.push(&*package.name);
            for dependency in &node.deps {
                let is_linked = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
                if is_linked && seen.insert(&dependency.pkg) {
                    queue.push_back((&dependency.pkg, path.clone()));
                }
            }
            linked.push(LinkedPackage { package, features: &node.features, path });
        }
        linked
    }

    /// Whether getrandom 0.4 takes its randomness from a browser. It does not compile with another source then.
    pub fn has_browser_randomness(&self) -> bool {
        self.linked_packages().iter().any(|LinkedPackage { package, features, .. }| {
            package.name == "getrandom"
                && package.version.starts_with("0.4.")
                && features.iter().any(|name| name == "wasm_js")
        })
    }

    /// Flags that keep local paths out of the component, because panic messages contain the paths of sources. Paths within the workspace
    /// are relative already.
    pub fn remappings(&self) -> Result<Vec<String>> {
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
        let cargo_home = cargo_home.context("finding cargo's home directory: neither CARGO_HOME nor HOME is set")?;
        let mut pairs =
            vec![(cargo_home, "cargo".to_owned()), (self.metadata.target_directory.clone(), "target".into())];
        for Package { name, source, manifest_path, .. } in &self.metadata.packages {
            let folder = manifest_path.parent().unwrap_or(manifest_path);
            let pair = match source {
                Some(_) => (folder.parent().unwrap_or(folder).to_path_buf(), "crates".to_owned()),
                None if folder.starts_with(&self.metadata.workspace_root) => continue,
                None => (folder.to_path_buf(), name.clone()),
            };
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        let flag = |(path, name): &(PathBuf, String)| format!("--remap-path-prefix={}=/{name}", path.display());
        Ok(pairs.iter().map(flag).collect())
    }
}
