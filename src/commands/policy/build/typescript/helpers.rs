//! esbuild's helper functions, once for all modules of an app. esbuild writes them into each module that it converts by itself.

use std::collections::BTreeMap;

use crate::commands::policy::build::typescript::program::Module;

/// The id of the module with the helpers.
const ID: &str = "tidegate:helpers";

const NAMES: &[&str] = &[
    "__create",
    "__defProp",
    "__getOwnPropDesc",
    "__getOwnPropNames",
    "__getProtoOf",
    "__hasOwnProp",
    "__export",
    "__copyProps",
    "__reExport",
    "__toESM",
    "__toCommonJS",
];

/// With the meaning of esbuild's, except that the exports of an ES module are not copied: each has one getter instead of two. An export that
/// another ES module exports again has the same getter there, or the same value.
const SOURCE: &str = r#"const { create, defineProperty, getOwnPropertyDescriptor, getOwnPropertyNames, getPrototypeOf } = Object;
const has = Object.prototype.hasOwnProperty;
const esModules = new WeakSet();
const copy = (to, from, except) => {
  const isEsModule = esModules.has(from);
  if ((typeof from !== "object" || from === null) && typeof from !== "function") return to;
  for (const name of getOwnPropertyNames(from)) {
    if (name === except || has.call(to, name)) continue;
    const own = getOwnPropertyDescriptor(from, name);
    if (isEsModule) defineProperty(to, name, own);
    else defineProperty(to, name, { get: () => from[name], enumerable: !own || own.enumerable });
  }
  return to;
};
Object.assign(exports, {
  __create: create,
  __defProp: defineProperty,
  __getOwnPropDesc: getOwnPropertyDescriptor,
  __getOwnPropNames: getOwnPropertyNames,
  __getProtoOf: getPrototypeOf,
  __hasOwnProp: has,
  __copyProps: copy,
  __export(target, all) {
    for (const name in all) defineProperty(target, name, { get: all[name], enumerable: true, configurable: true });
  },
  __reExport(target, from, second) {
    copy(target, from, "default");
    if (second) copy(second, from, "default");
  },
  __toESM(module, isNodeMode) {
    const target = module == null ? {} : create(getPrototypeOf(module));
    if (isNodeMode || !module || !module.__esModule) defineProperty(target, "default", { value: module, enumerable: true });
    return copy(target, module);
  },
  __toCommonJS(module) {
    esModules.add(module);
    return defineProperty(module, "__esModule", { value: true });
  },
});
"#;

/// Replaces the helpers in each module, and adds the module with them. Lines stay the same.
pub fn share(modules: &mut Vec<Module>) {
    let mut is_used = false;
    for module in modules.iter_mut().filter(|module| !module.whole) {
        if let Some(code) = without_helpers(&module.code) {
            module.code = code;
            module.imports.insert(ID.to_owned(), ID.to_owned());
            is_used = true;
        }
    }
    if is_used {
        modules.push(Module {
            id: ID.to_owned(),
            imports: BTreeMap::new(),
            code: SOURCE.to_owned(),
            ..Module::default()
        });
    }
}

/// `None` if the code has no helpers at its start.
pub fn without_helpers(code: &str) -> Option<String> {
    let mut names = Vec::new();
    let mut out = String::with_capacity(code.len());
    let mut lines = code.split_inclusive('\n').peekable();
    while let Some(line) = lines.peek() {
        let helper = NAMES.iter().find(|name| {
            line.strip_prefix("var ").and_then(|it| it.strip_prefix(*name)).is_some_and(|it| it.starts_with(" = "))
        });
        let Some(name) = helper else {
            if line.trim_end() == "\"use strict\";" {
                out.push_str(lines.next()?);
                continue;
            }
            break;
        };
        names.push(*name);
        // The definition of a helper ends with a `;` at the end of a line that is not indented.
        for line in lines.by_ref() {
            out.push('\n');
            if line.trim_end().ends_with(';') && !line.starts_with(' ') {
                break;
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    // In the place of the last helper, so that the number of lines stays the same.
    out.pop();
    out.push_str(&format!("var {{ {} }} = require(\"{ID}\");\n", names.join(", ")));
    out.extend(lines);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "\"use strict\";
var __defProp = Object.defineProperty;
var __export = (target, all) => {
  for (var name in all)
    __defProp(target, name, { get: all[name], enumerable: true });
};
var __toESM = (mod, isNodeMode, target) => (target = mod != null ? 1 : {}, __copyProps(
  // A comment;
  mod
));
var a_exports = {};
var __export = 1;
";

    #[test]
    fn helpers_are_replaced_and_lines_stay() {
        let code = without_helpers(CODE).expect("helpers");
        assert_eq!(code.lines().count(), CODE.lines().count());
        assert!(code.starts_with("\"use strict\";\n\n"), "{code}");
        let end = "var { __defProp, __export, __toESM } = require(\"tidegate:helpers\");\nvar a_exports = {};\nvar __export = 1;\n";
        assert!(code.ends_with(end), "{code}");
        assert_eq!(without_helpers("var a = 1;\nvar __export = 2;\n"), None);
    }

    #[test]
    fn module_with_helpers_is_added_once() {
        let module = |id: &str, code: &str| Module { id: id.to_owned(), code: code.to_owned(), ..Module::default() };
        let mut modules = vec![module("a", CODE), module("b", CODE), module("c", "exports.c = 1;\n")];
        share(&mut modules);
        assert_eq!(modules.iter().map(|it| &*it.id).collect::<Vec<_>>(), ["a", "b", "c", ID]);
        assert_eq!(modules[0].imports.get(ID).map(String::as_str), Some(ID));
        assert!(modules[2].imports.is_empty());
    }
}
