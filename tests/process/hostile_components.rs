//! Components that attack the loader: each is rejected in bounded time, with a message.

use std::fs;
use std::time::{Duration, Instant};

use crate::processes::{path, run, tidegate};

/// A number as LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A module with one function of this code.
fn module(code: &[u8]) -> Vec<u8> {
    let body = [&[0][..], code, &[0x0b]].concat();
    let function = [leb(body.len()), body].concat();
    let sections = [section(1, &[1, 0x60, 0, 0]), section(3, &[1, 0]), section(10, &[&[1][..], &function].concat())];
    [&b"\0asm\x01\0\0\0"[..], &sections.concat()].concat()
}

/// A component with these sections.
fn component(sections: &[u8]) -> Vec<u8> {
    [&b"\0asm\x0d\0\x01\0"[..], sections].concat()
}

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text of a component")
}

/// A component within a component, and so on.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(component(&[]), |inner, _| component(&section(4, &inner)))
}

/// Types that each contain the previous type twice.
fn doubled(times: usize) -> Vec<u8> {
    let types: String = (1..=times).map(|n| format!("(type $t{n} (tuple $t{} $t{}))", n - 1, n - 1)).collect();
    text(&format!("(component (type $t0 (tuple u8 u8)) {types})"))
}

fn instances(count: usize, module: &str) -> Vec<u8> {
    text(&format!("(component (core module $m {module}) {})", "(core instance (instantiate $m))".repeat(count)))
}

#[tokio::test]
async fn hostile_components_are_rejected_in_bounded_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let straight = b"\x41\x07\x1a".repeat(1_000_000);
    let blocks = [b"\x02\x40".repeat(300_000), b"\x0b".repeat(300_000)].concat();
    let components: Vec<(&str, &str, Vec<u8>)> = vec![
        // Whether these are compiled within the timeout depends on the machine.
        ("a function of 3 MB", "", component(&section(1, &module(&straight)))),
        ("300,000 blocks nested in one another", "", component(&section(1, &module(&blocks)))),
        ("a thousand components nested in one another", "does not export", nested(1_000)),
        ("ten thousand components nested in one another", "", nested(10_000)),
        ("a type of 2^40 parts", "not a valid component", doubled(40)),
        (
            "two million types",
            "not a valid component",
            component(&section(7, &[leb(2_000_000), vec![0x7f; 2_000_000]].concat())),
        ),
        (
            "a section that is longer than the file",
            "not a valid component",
            component(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("more memory than a policy may have", "has 67174400 bytes from its start", instances(1, "(memory 1025)")),
        ("five memories", "has 5 linear memories", instances(5, "(memory 1)")),
        ("five memories in one module", "has 5 linear memories", instances(1, &"(memory 1)".repeat(5))),
        ("seventeen tables", "exceeds the limits of an instance", instances(17, "(table 1 funcref)")),
        ("a table of 100,000", "exceeds the limits of an instance", instances(1, "(table 100000 funcref)")),
        ("49 instances", "exceeds the limits of an instance", instances(49, "")),
        ("ten thousand instances", "not a valid component", instances(10_000, "")),
        ("more bytes than a file may have", "larger than 67108864 bytes", vec![0; (64 << 20) + 1]),
    ];
    for (name, words, bytes) in components {
        let file = path(dir.path(), "hostile.wasm");
        fs::write(&file, bytes).expect("it is written");
        let mut command = tidegate(&["check", "--store=memory:", "--policy", &file]);
        command.env("TIDEGATE_CACHE_DIR", dir.path()).env("TIDEGATE_POLICY_COMPILE_TIMEOUT", "5s");
        let start = Instant::now();
        let ended = run(command, None).await;
        println!("{name}: {:?}: {}", start.elapsed(), ended.stderr.trim_end());
        assert_eq!(ended.code(), Some(1), "{name}: {ended:?}");
        assert!(start.elapsed() < Duration::from_secs(25), "{name} took {:?}", start.elapsed());
        assert!(ended.stderr.contains("hostile.wasm") && ended.stderr.contains(words), "{name}: {}", ended.stderr);
        assert!(ended.stderr.len() < 2_000 && !ended.stderr.contains("panicked"), "{name}: {}", ended.stderr);
    }
}
