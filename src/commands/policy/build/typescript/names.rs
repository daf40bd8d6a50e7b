//! Names of modules: in the component, and in messages.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use crate::commands::policy::build::typescript::entry::project_root;
use crate::commands::policy::build::typescript::graph::Graph;
use crate::commands::policy::build::typescript::{MAX_SOURCE_BYTES, resolve};
use crate::util::files;

/// The folders that names are relative to. A path in the graph is relative to the root of the project.
#[derive(Debug)]
pub struct Names {
    root: PathBuf,
    /// The folder in which the build runs.
    current: PathBuf,
}

impl Names {
    pub fn new(entry: &Path) -> Result<Self> {
        let current = std::env::current_dir().context("finding the current folder")?;
        let current = current.canonicalize().unwrap_or(current);
        Ok(Self { root: project_root(entry), current })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file in the graph.
    pub fn relative(&self, path: &Path) -> String {
        relative(path, &self.root)
    }

    /// The name of a module in the component. It has no folder above the project, whose place differs between machines, except for
    /// sources next to the project.
    pub fn id(&self, path: &str) -> String {
        let (prefix, file) = path.split_once(':').map_or(("", path), |(prefix, file)| (prefix, file));
        let short = file.find("node_modules/").and_then(|at| file.get(at..)).unwrap_or(file);
        if prefix.is_empty() { short.to_owned() } else { format!("{prefix}:{short}") }
    }

    /// The name of a file in messages: relative to the current folder, if it is there.
    pub fn display(&self, path: &str) -> String {
        if path.contains(':') {
            return path.to_owned();
        }
        let path = normalized(&self.root.join(path));
        match path.strip_prefix(&self.current) {
            Ok(short) => short.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }

    /// The file and the line of an import in it. esbuild does not tell the line of an import that it could resolve.
    pub fn line_of_import(&self, path: &str, name: &str) -> String {
        let file = self.display(path);
        let Ok(text) = files::read_text(&self.root.join(path), MAX_SOURCE_BYTES) else { return file };
        let quoted = [format!("\"{name}\""), format!("'{name}'"), format!("`{name}`")];
        let line = text.lines().position(|line| quoted.iter().any(|it| line.contains(&**it)));
        line.map_or_else(|| file.clone(), |line| format!("{file}:{}", line + 1))
    }

    /// The imports that lead from the entry to a module, as a note. Empty if the entry imports it.
    pub fn chain_note(&self, graph: &Graph, top: &str, to: &str) -> String {
        let mut chain = Vec::new();
        for path in graph.chain(top, to) {
            let name = match path.strip_prefix(resolve::PREFIX) {
                Some(id) => id
                    .strip_prefix("node/")
                    .map_or_else(|| id.trim_start_matches("package/").to_owned(), |it| format!("node:{it}")),
                None => resolve::package_of(path).unwrap_or_else(|| self.display(path)),
            };
            if chain.last() != Some(&name) {
                chain.push(name);
            }
        }
        if chain.len() > 2 { format!("\n  imported by {}", chain.join(" → ")) } else { String::new() }
    }
}

/// The path from a folder to another, both absolute.
fn relative(path: &Path, folder: &Path) -> String {
    let (path, folder): (Vec<_>, Vec<_>) = (path.components().collect(), folder.components().collect());
    let common = path.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder.iter().skip(common).map(|_| "..".to_owned());
    let down = path.iter().skip(common).map(|part| part.as_os_str().to_string_lossy().into_owned());
    up.chain(down).collect::<Vec<_>>().join("/")
}

/// The path without `..`.
fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            out.pop();
        } else if part != Component::CurDir {
            out.push(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules_do_not_depend_on_the_machine() {
        let names = Names { root: "/home/ada/app".into(), current: "/home/ada".into() };
        for (path, id, display) in [
            ("lib/a.ts", "lib/a.ts", "app/lib/a.ts"),
            ("../shared/b.ts", "../shared/b.ts", "shared/b.ts"),
            ("../../node_modules/zod/index.js", "node_modules/zod/index.js", "/home/node_modules/zod/index.js"),
            (
                "(disabled):../node_modules/a/b.js",
                "(disabled):node_modules/a/b.js",
                "(disabled):../node_modules/a/b.js",
            ),
            ("tidegate:src/index.ts", "tidegate:src/index.ts", "tidegate:src/index.ts"),
        ] {
            assert_eq!((names.id(path), names.display(path)), (id.to_owned(), display.to_owned()), "{path}");
        }
        assert_eq!(names.relative(Path::new("/home/ada/app/lib/a.ts")), "lib/a.ts");
        assert_eq!(names.relative(Path::new("/home/node_modules/a.js")), "../../node_modules/a.js");
    }
}
