//! The plugin that esbuild asks for the resolution of imports and for the content of files.

use std::path::Path;

use anyhow::Result;

use super::packet::Value;

/// The namespace of the modules that the plugin provides.
pub const NAMESPACE: &str = "tidegate";
/// Imports that the plugin resolves: those of packages and modules of Node.
pub const RESOLVED: &str = "^[^./]";
/// Files that the plugin loads: those of packages.
pub const LOADED: &str = r"[/\\]node_modules[/\\].*\.[cm]?[jt]sx?$";

/// Marks an import that the plugin resolves again.
const REPEATED: u32 = 1;

pub trait Plugin {
    fn resolve(&mut self, import: &Import) -> Step;

    /// Continues after [`Step::Ask`], with esbuild's own resolution.
    fn resolved(&mut self, import: &Import, found: &Resolved) -> Resolution;

    /// The content of a file of a package, or of a module of the plugin's namespace. `None` for the file's own content.
    fn load(&mut self, path: &str, namespace: &str) -> Result<Option<Loaded>>;
}

/// An import that esbuild resolves.
pub struct Import {
    /// The text in the source.
    pub path: String,
    pub importer: String,
    pub namespace: String,
    pub kind: Kind,
    pub(super) is_repeated: bool,
    resolve_dir: String,
    kind_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EntryPoint,
    /// A statement, which is always evaluated.
    Statement,
    Other,
}

/// The plugin's answer to an import.
pub enum Step {
    /// esbuild resolves the import.
    Default,
    /// esbuild resolves the import, and the plugin continues with the result.
    Ask,
    Answer(Resolution),
}

/// The file or the module that an import means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    File(String),
    /// A module of the plugin's namespace.
    Provided(String),
    /// A module that the runtime finds.
    External(String),
    /// As esbuild found it, or failed to find it.
    Default,
}

/// esbuild's own resolution of an import.
pub struct Resolved {
    /// `None` if esbuild found no file.
    pub path: Option<String>,
}

/// The content of a module.
pub struct Loaded {
    pub content: Vec<u8>,
    /// The name of esbuild's loader.
    pub loader: &'static str,
}

impl Import {
    pub(super) fn new(request: &Value) -> Self {
        let text = |key| request.get(key).text().to_owned();
        let kind_name = text("kind");
        Self {
            path: text("path"),
            importer: text("importer"),
            namespace: text("namespace"),
            kind: match &*kind_name {
                "entry-point" => Kind::EntryPoint,
                "import-statement" => Kind::Statement,
                _ => Kind::Other,
            },
            is_repeated: request.get("pluginData").int() == Some(REPEATED),
            resolve_dir: text("resolveDir"),
            kind_name,
        }
    }

    /// The request to resolve the import without the plugin.
    pub(super) fn ask(&self) -> Value {
        // esbuild resolves nothing from another namespace.
        let namespace = if self.namespace == NAMESPACE { "file" } else { &self.namespace };
        Value::map([
            ("command", "resolve".into()),
            ("path", (&*self.path).into()),
            ("key", super::BUILD_KEY.into()),
            ("pluginName", "tidegate".into()),
            ("importer", (&*self.importer).into()),
            ("namespace", namespace.into()),
            ("resolveDir", (&*self.resolve_dir).into()),
            ("kind", (&*self.kind_name).into()),
            ("pluginData", REPEATED.into()),
            ("with", Value::map([])),
        ])
    }
}

impl Resolution {
    pub(super) fn encode(&self) -> Value {
        let answer = |path: &str, namespace: &str| {
            // The id is that of a callback; esbuild does not use it.
            Value::map([("id", 0.into()), ("path", path.into()), ("namespace", namespace.into())])
        };
        match self {
            Self::File(path) => answer(path, "file"),
            Self::Provided(path) => answer(path, NAMESPACE),
            Self::External(path) => {
                Value::map([("id", 0.into()), ("path", (&**path).into()), ("external", true.into())])
            }
            Self::Default => Value::map([]),
        }
    }
}

impl Resolved {
    pub(super) fn new(response: &Value) -> Self {
        let has_failed = !response.get("errors").list().is_empty() || !response.get("error").text().is_empty();
        let path = response.get("path").text();
        Self { path: (!has_failed && !path.is_empty()).then(|| path.to_owned()) }
    }
}

impl Loaded {
    /// `path` is the file, and `folder` that of the build, from which modules of the plugin's namespace import packages.
    pub(super) fn encode(self, path: &str, namespace: &str, folder: &Path) -> Value {
        let folder = if namespace == NAMESPACE { folder } else { Path::new(path).parent().unwrap_or(folder) };
        Value::map([
            ("id", 0.into()),
            ("contents", Value::Bytes(self.content)),
            ("loader", self.loader.into()),
            ("resolveDir", folder.to_string_lossy().into_owned().into()),
        ])
    }
}
