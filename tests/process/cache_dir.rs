//! What another user of the machine can do to `cache-dir`: nothing, or the gateway does not start.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::guests;
use crate::processes::{ProcessOutput, path, run, tidegate};

const EXPECT_REJECTION: &str = "[[case]]\nname = \"any\"\nexpect = { status = 418 }\n";

/// A policy that rejects all clients, one that allows all, and a `cache-dir` that has the code of both.
struct Fixture(tempfile::TempDir);

impl Fixture {
    async fn new() -> Self {
        let fixture = Self(tempfile::tempdir().expect("a directory"));
        for name in ["allow", "deny"] {
            fs::write(fixture.path(&format!("{name}.wasm")), guests::component(name)).expect("written");
        }
        fs::write(fixture.path("deny.cases.toml"), EXPECT_REJECTION).expect("written");
        for name in ["allow", "deny"] {
            let ended = fixture.run("check", name).await;
            assert_eq!(ended.code(), Some(0), "{ended:?}");
        }
        assert_eq!(fixture.code().len(), 2);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn run(&self, command: &str, policy: &str) -> ProcessOutput {
        let policy = path(self.0.path(), &format!("{policy}.wasm"));
        let mut command = tidegate(&[command, "--store=memory:", "--policy", &policy]);
        command.env("TIDEGATE_CACHE_DIR", self.path("cache"));
        command.env("TIDEGATE_LISTEN", "127.0.0.1:0").env("TIDEGATE_CONTROL_LISTEN", "127.0.0.1:0");
        run(command, None).await
    }

    /// The files with machine code.
    fn code(&self) -> Vec<PathBuf> {
        let files =
            fs::read_dir(self.path("cache/blobs")).expect("a directory").map(|file| file.expect("a file").path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn code_of_another_policy_is_not_run() {
    let fixture = Fixture::new().await;
    let [one, other] = &fixture.code()[..] else { panic!("two files") };
    let before = (fs::read(one).expect("read"), fs::read(other).expect("read"));
    fs::rename(one, fixture.path("moved")).expect("moved");
    fs::rename(other, one).expect("moved");
    fs::rename(fixture.path("moved"), other).expect("moved");
    // The test case fails if the code of the other policy decides.
    let ended = fixture.run("check", "deny").await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(fixture.run("check", "allow").await.code(), Some(0));
    assert_eq!((fs::read(one).expect("read"), fs::read(other).expect("read")), before, "both were compiled again");
}

#[tokio::test]
async fn gateway_does_not_start_where_others_can_rename_what_cache_dir_contains() {
    let fixture = Fixture::new().await;
    for (name, mode) in
        [("cache", 0o777), ("cache", 0o770), ("cache/blobs", 0o777), ("cache/nodes", 0o720), ("", 0o777)]
    {
        let directory = fixture.path(name);
        let before = fs::metadata(&directory).expect("it exists").permissions().mode();
        set_mode(&directory, mode);
        for command in ["check", "serve"] {
            let ended = fixture.run(command, "deny").await;
            assert_eq!(ended.code(), Some(2), "{ended:?}");
            let directory = directory.to_str().expect("a path").trim_end_matches('/');
            for part in ["cache-dir: ", directory, "other users may write to it", "chmod go-w"] {
                assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
            }
            assert_eq!(ended.stdout, "", "{ended:?}");
        }
        set_mode(&directory, before);
    }
    set_mode(&fixture.path("cache"), 0o1777);
    assert_eq!(fixture.run("check", "deny").await.code(), Some(0), "the sticky bit protects the directories in it");
}

/// Others can create entries in a directory with the sticky bit, but none that this user's would be taken for.
#[tokio::test]
async fn links_and_directories_of_another_user_are_not_followed() {
    let fixture = Fixture::new().await;
    let foreign = |path: &Path| lchown(path, Some(65_534), Some(65_534)).is_ok();
    set_mode(&fixture.path("cache"), 0o1777);
    for name in ["blobs", "nodes"] {
        let directory = fixture.path("cache").join(name);
        let away = fixture.path("away");
        fs::rename(&directory, &away).expect("moved");
        symlink("../away", &directory).expect("a link");
        if !foreign(&directory) {
            // Only root can give a file away.
            return;
        }
        let ended = fixture.run("serve", "deny").await;
        assert!(ended.code() == Some(2) && ended.stderr.contains("uid 65534"), "a link: {ended:?}");
        fs::remove_file(&directory).expect("removed");
        fs::create_dir(&directory).expect("created");
        assert!(foreign(&directory));
        let ended = fixture.run("serve", "deny").await;
        assert!(ended.code() == Some(2) && ended.stderr.contains("uid 65534"), "a directory: {ended:?}");
        fs::remove_dir(&directory).expect("removed");
        fs::rename(&away, &directory).expect("moved back");
    }
    // A link to a file of the gateway's own.
    for file in fixture.code() {
        let away = fixture.path("away");
        fs::rename(&file, &away).expect("moved");
        symlink(&away, &file).expect("a link");
    }
    for policy in ["allow", "deny"] {
        let ended = fixture.run("check", policy).await;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    assert!(fixture.code().iter().all(|file| !file.is_symlink()), "both were compiled again");
}
