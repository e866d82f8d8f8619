//! What the compiler says about mistakes in a stack: it must say what to write instead.
//!
//! Each file in `compile_fail/` must not compile, and the compiler must say every text that stands there
//! behind `//~`. The rest of its message may change from one version to the next.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A crate that depends on this one and little else. Its programs are the mistakes.
const MANIFEST: &str = r#"
[package]
name = "mistakes"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
buttress = { path = "BUTTRESS", features = ["http"] }
http = "1"
tower = { version = "0.5", features = ["util"] }
"#;

fn crate_of_mistakes(root: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(folder.join("src/bin")).unwrap();
    let manifest = MANIFEST.replace("BUTTRESS", &root.display().to_string());
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    // The versions that are there already: nothing has to be fetched.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    folder
}

#[test]
fn mistakes_are_answered_with_what_to_write() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = crate_of_mistakes(root);
    let cases = fs::read_dir(root.join("tests/compile_fail")).unwrap();
    let cases: Vec<_> = cases.map(|case| case.unwrap().path()).collect();
    assert_eq!(cases.len(), 14);
    let mut complaints = Vec::new();
    for case in cases {
        let code = fs::read_to_string(&case).unwrap();
        let name = case.file_stem().unwrap().to_str().unwrap();
        fs::write(folder.join(format!("src/bin/{name}.rs")), &code).unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["check", "--offline", "--color=never", "--bin", name])
            .current_dir(&folder)
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{name} compiles");
        let expected = code.lines().filter_map(|line| line.strip_prefix("//~ "));
        let missing: Vec<_> = expected.filter(|text| !said.contains(text)).collect();
        if !missing.is_empty() {
            complaints.push(format!("{missing:?} is missing in\n{said}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
