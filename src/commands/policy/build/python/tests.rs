use super::*;

fn job(folder: &Path, source: Option<&str>) -> Job {
    Job {
        project: folder.to_path_buf(),
        source: source.map(|name| folder.join(name)),
        output: folder.join("policy.wasm"),
    }
}

#[test]
fn module_is_app_py_or_the_named_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = module(&job(folder.path(), None)).expect_err("there is none").to_string();
    assert!(error.contains("app.py, or name its file"), "{error}");
    for name in ["app.py", "policy_2.py", "my-policy.py", "2.py", "tidegate_policy.py"] {
        fs::write(folder.path().join(name), "").expect("a file");
    }
    assert_eq!(module(&job(folder.path(), None)).expect("app.py"), "app");
    assert_eq!(module(&job(folder.path(), Some("policy_2.py"))).expect("a name"), "policy_2");
    for name in ["my-policy.py", "2.py", "tidegate_policy.py"] {
        let error = module(&job(folder.path(), Some(name))).expect_err("no name").to_string();
        assert!(error.contains(name) && error.contains("name"), "{error}");
    }
}

#[test]
fn project_without_an_sdk_gets_the_embedded_one() {
    let (folder, work) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let job = job(folder.path(), None);
    let embedded = sdk(&job, &Manifest::default(), &work).expect("embedded");
    for file in ["__init__.py", "_component.py", "_build.py", "_stand_ins/_ssl.py", "testing.py"] {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/python/tidegate_policy").join(file);
        let copy = fs::read(embedded.join("tidegate_policy").join(file)).expect("written");
        assert_eq!(copy, fs::read(original).expect("in the repository"), "{file}");
    }
    let own = folder.path().join("sdk/tidegate_policy");
    fs::create_dir_all(&own).expect("a folder");
    fs::write(own.join("__init__.py"), "").expect("a file");
    assert_eq!(sdk(&job, &Manifest::default(), &work).expect("its own"), folder.path().join("sdk"));
}

#[test]
fn manifest_is_parsed_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pyproject.toml");
    assert!(Manifest::read(folder.path()).expect("without one").project.dependencies.is_empty());
    let text = "[project]\nname = \"x\"\ndependencies = [\"a\"]\n[tool.ruff]\nline-length = 9\n[tool.tidegate]\nsdk = \"lib\"\n";
    fs::write(&file, text).expect("a file");
    let manifest = Manifest::read(folder.path()).expect("a manifest");
    assert_eq!(manifest.project.dependencies, ["a"]);
    let error = sdk(&job(folder.path(), None), &manifest, &folder).expect_err("no such folder").to_string();
    assert!(error.contains("tool.tidegate.sdk = \"lib\""), "{error}");
    fs::write(&file, "[tool.tidegate]\nskd = \"lib\"\n").expect("a file");
    let error = format!("{:#}", Manifest::read(folder.path()).expect_err("a slip"));
    assert!(error.contains("pyproject.toml") && error.contains("skd"), "{error}");
}

#[test]
fn error_message_is_extracted_from_the_output() {
    let output =
        "AssertionError: hello\n<<<tidegate-policy\napp.py:3: there is no module x\ntidegate-policy>>>\nTraceback …";
    assert_eq!(error_message(output), "app.py:3: there is no module x");
    assert_eq!(error_message("\nsomething else\n"), "something else");
}
