//! The tree of the web-platform-tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::{env, fs};

/// The upstream source of Debian's package `nodejs`, whose tests include the tree.
const ARCHIVE: &str = "nodejs_18.20.4+dfsg.orig.tar.xz";
const ARCHIVE_SHA256: &str = "6ce58062c71eae37d9c5ac31eeaeff9c2d48561d21c2849179d056c9c1bd9ebc";
const TREE: &str = "node-v18.20.4/test/fixtures/wpt";

/// The tree: that of `TIDEGATE_WPT`, or a download of the archive.
pub fn root() -> PathBuf {
    if let Some(path) = env::var_os("TIDEGATE_WPT") {
        return path.into();
    }
    static DOWNLOAD: Once = Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/wpt");
    DOWNLOAD.call_once(|| {
        if !folder.join(TREE).exists() {
            download(&folder);
        }
    });
    folder.join(TREE)
}

/// Downloads the archive as `apt-get source` does, with a list of sources made from the machine's own, and unpacks the tree.
fn download(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder for the download");
    shell(
        folder,
        r#"mkdir -p sources lists/partial
        for list in /etc/apt/sources.list.d/*.sources; do
            [ -e "$list" ] && sed 's/^Types:.*/Types: deb-src/' "$list" > "sources/$(basename "$list")"
        done
        [ -e /etc/apt/sources.list ] && sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > sources/machine.list
        options="-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$PWD/sources -o Dir::State::Lists=$PWD/lists"
        apt-get $options update
        apt-get $options source --download-only --tar-only nodejs"#,
    );
    shell(
        folder,
        &format!(
            r#"echo "{ARCHIVE_SHA256}  {ARCHIVE}" | sha256sum --check --quiet
            tar -xJf "{ARCHIVE}" "{TREE}"
            rm -rf sources lists *.tar.xz"#
        ),
    );
}

fn shell(folder: &Path, script: &str) {
    let run = Command::new("sh").args(["-ec", script]).current_dir(folder).output().expect("sh starts");
    assert!(
        run.status.success(),
        "the web-platform-tests cannot be downloaded; set TIDEGATE_WPT to a folder that has them:\n{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}
