//! Golden files: each outward contract is compared with a file in `tests/golden`, which `cargo xtask bless` rewrites.

use std::path::Path;

/// Compares `text` with the golden file `name`, or writes it if `BLESS` is set.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        std::fs::write(&path, text).expect("written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        known, text,
        "{name} has changed: if that is intended, run `cargo xtask bless` and add a line to CHANGELOG.md"
    );
}
