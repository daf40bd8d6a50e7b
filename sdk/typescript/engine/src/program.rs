//! The modules of an app: their texts are compiled before the platform script gets the rest of the program.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rquickjs::{Array, CatchResultExt, Ctx, Error, Exception, Object, Value};

use crate::compiler::{self, Compiled, Detail};
use crate::{script, spare};

thread_local! {
    /// The compiled modules during a build, by their id. They are temporary.
    static MODULES: RefCell<BTreeMap<String, Module>> = const { RefCell::new(BTreeMap::new()) };
}

struct Module {
    compiled: Compiled,
    /// The script of a module that is evaluated only when one of its exports is used, until the build asks for it.
    spare: Option<String>,
}

/// Compiles the modules of a program, which is JSON, and calls `work` with the program without their texts. Meanwhile `module` has them.
pub fn with_modules<T>(program: Vec<u8>, work: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    let rest = compiler::with_engine(|ctx| compile_modules(ctx, program).catch(ctx).map_err(|error| error.to_string()))
        .map_err(|error| error.to_string())??;
    let result = work(&rest);
    let modules = MODULES.take().into_iter();
    spare::keep(modules.filter_map(|(id, module)| Some((id, module.spare?.into_bytes()))));
    result
}

/// Compiles the modules of a program, and returns the program without their texts.
fn compile_modules(ctx: &Ctx<'_>, program: Vec<u8>) -> rquickjs::Result<String> {
    let program: Object = ctx.json_parse(program)?.get()?;
    let mut modules = BTreeMap::new();
    for module in program.get::<_, Array>("modules")?.iter::<Object>() {
        let module = module?;
        let id: String = module.get("id")?;
        let (script, detail) = script(&id, &module)?;
        let compiled = compiler::compile(ctx, &id, &*script, detail);
        if compiled.is_err() {
            // Its error is one of the build.
            module.remove("spare")?;
        }
        let spare = module.contains_key("spare")?.then_some(script);
        modules.insert(id, Module { compiled, spare });
    }
    MODULES.replace(modules);
    ctx.json_stringify(program)?.ok_or(Error::Unknown)?.to_string()
}

/// Removes the text of a module, and returns it as the script of a function.
fn script(id: &str, module: &Object<'_>) -> rquickjs::Result<(String, Detail)> {
    let is_whole = module.get::<_, Option<bool>>("whole")?.unwrap_or_default();
    // On the first line of the code, so that lines stay the same.
    let head = format!("({}function(require,module,exports){{", if is_whole { "async " } else { "" });
    let code: String = module.get("code")?;
    let map: Option<String> = module.get("map")?;
    // The lines of packages would make the snapshot larger.
    let keeps_lines = map.is_some_and(|map| !map.is_empty()) || !id.contains("node_modules/");
    let detail = if keeps_lines { Detail::Lines } else { Detail::None };
    module.remove("code")?;
    module.set("shift", head.len())?;
    Ok((format!("{head}{code}\n}})"), detail))
}

/// The function of a module. Throws its `SyntaxError`.
pub fn module<'js>(ctx: &Ctx<'js>, id: &str) -> rquickjs::Result<Value<'js>> {
    let evaluated = MODULES.with_borrow_mut(|modules| {
        let module = modules.get_mut(id)?;
        module.spare = None;
        Some(script::evaluate(ctx, &module.compiled))
    });
    evaluated.unwrap_or_else(|| match spare::script(id) {
        Some(script) => script::evaluate(ctx, &compiler::compile(ctx, id, script, Detail::None)),
        None => Err(Exception::throw_internal(ctx, "no such module")),
    })
}
