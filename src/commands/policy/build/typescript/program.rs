//! The program that the runtime evaluates, and its report. Both are JSON; `sdk/typescript/engine` has the other side.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The modules of an app.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// The id of the route's module.
    pub entry: String,
    /// The entry and all modules that it imports with statements, in the order of their evaluation.
    pub order: Vec<String>,
    /// Modules whose top-level code is evaluated in every instance.
    pub lazy: Vec<String>,
    /// Evaluate all modules, also those of `lazy`, with placeholders for the state of an instance.
    pub trial: bool,
    pub modules: Vec<Module>,
    /// `NODE_ENV` where there is no such setting.
    pub node_env: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Module {
    pub id: String,
    /// The ids of the imports, by their text in the source.
    pub imports: BTreeMap<String, String>,
    /// The body of a function of `require`, `module` and `exports`.
    pub code: String,
    /// Whether the code is that of the whole app, and has `await` at top level.
    pub whole: bool,
    /// The source map, for modules of the app itself. Empty for others.
    pub map: String,
    /// The names of the exports of a module that is evaluated at their first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spare: Option<Vec<String>>,
    /// The names of exports that keep their values after the module's evaluation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constants: Vec<String>,
}

/// The result of an evaluation.
#[derive(Debug, Default, Deserialize)]
pub struct Report {
    /// Uses of an instance's state by top-level code.
    #[serde(default)]
    pub found: Vec<Found>,
    /// Modules that cannot be evaluated.
    #[serde(default)]
    pub failed: Vec<Failed>,
    /// Lines that top-level code printed.
    #[serde(default)]
    pub printed: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    pub module: String,
    /// Completes "top-level code reads …".
    pub state: String,
    pub stack: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Failed {
    pub module: String,
    /// The name of the error's class.
    pub name: String,
    /// The name and the message.
    pub error: String,
    pub stack: String,
}
