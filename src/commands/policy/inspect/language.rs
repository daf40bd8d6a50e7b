//! Detects the language of a component by the traces that toolchains leave, in various places.

use crate::commands::policy::inspect::contents::Contents;

/// Part of a producer's or library's name, and its language. The first match counts: the interpreters of Python and JavaScript are
/// written in Rust and C, and have the traces of those too.
const TOOLCHAIN_TRACES: [(&str, &str); 14] = [
    ("componentize-py", "Python"),
    ("libpython", "Python"),
    ("componentizejs", "JavaScript (StarlingMonkey)"),
    ("componentize-js", "JavaScript (StarlingMonkey)"),
    ("starlingmonkey", "JavaScript (StarlingMonkey)"),
    ("componentize-qjs", "JavaScript (QuickJS)"),
    ("quickjs", "JavaScript (QuickJS)"),
    ("tinygo", "Go (TinyGo)"),
    ("wit-bindgen-go", "Go"),
    ("wit-bindgen-rust", "Rust"),
    ("wit-bindgen-c", "C"),
    ("moonbit", "MoonBit"),
    ("assemblyscript", "AssemblyScript"),
    ("zig", "Zig"),
];

/// The language, if it is known, and the tools with their versions.
pub fn detect(contents: &Contents) -> (Option<&'static str>, Vec<String>) {
    let producers = contents.producers.iter().map(|(_, name, _)| name);
    let names: Vec<String> = producers.chain(&contents.libraries).map(|name| name.to_lowercase()).collect();
    let known = TOOLCHAIN_TRACES.iter().find(|(trace, _)| names.iter().any(|name| name.contains(trace)));
    let language = known.map(|(_, language)| *language).or_else(|| {
        let is_named =
            |wanted: &str| contents.producers.iter().any(|(field, name, _)| field == "language" && name == wanted);
        ["Rust", "Go", "Zig"].into_iter().find(|language| is_named(language)).or_else(|| {
            let c = contents.producers.iter().any(|(field, name, _)| field == "language" && name.starts_with("C1"));
            c.then_some("C")
        })
    });
    let toolchain = contents.producers.iter().filter(|(field, _, _)| field != "language");
    let toolchain = toolchain.map(|(_, name, version)| format!("{name} {version}").trim_end().to_owned());
    (language, toolchain.chain(contents.libraries.iter().cloned()).collect())
}
