//! Detects the language of a component by the traces that toolchains leave, in various places.

use crate::commands::policy::inspect::anatomy::Anatomy;

/// Part of a producer's or library's name, and its language. The first match counts: the interpreters of Python and JavaScript are
/// written in Rust and C, and have the traces of those too.
const SIGNS: [(&str, &str); 14] = [
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
pub fn tell(anatomy: &Anatomy) -> (Option<&'static str>, Vec<String>) {
    let producers = anatomy.producers.iter().map(|(_, name, _)| name);
    let names: Vec<String> = producers.chain(&anatomy.libraries).map(|name| name.to_lowercase()).collect();
    let signed = SIGNS.iter().find(|(sign, _)| names.iter().any(|name| name.contains(sign)));
    let language = signed.map(|(_, language)| *language).or_else(|| {
        let said =
            |wanted: &str| anatomy.producers.iter().any(|(field, name, _)| field == "language" && name == wanted);
        ["Rust", "Go", "Zig"].into_iter().find(|language| said(language)).or_else(|| {
            let c = anatomy.producers.iter().any(|(field, name, _)| field == "language" && name.starts_with("C1"));
            c.then_some("C")
        })
    });
    let toolchain = anatomy.producers.iter().filter(|(field, _, _)| field != "language");
    let toolchain = toolchain.map(|(_, name, version)| format!("{name} {version}").trim_end().to_owned());
    (language, toolchain.chain(anatomy.libraries.iter().cloned()).collect())
}
