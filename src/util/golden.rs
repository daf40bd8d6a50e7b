//! Outward contracts, each held against a file in `tests/golden`; `cargo xtask bless` writes them anew.

use std::path::Path;

/// Compares, or with `BLESS` set writes.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(&path, text).expect("written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(known, text, "{name} has changed; if that is meant: cargo xtask bless, and a line in CHANGELOG.md");
}
