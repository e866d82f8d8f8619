//! Builds this package in its profiles, and runs what was built.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Arguments;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// The name in the manifest, and the name for readers.
pub(crate) const PROFILES: [(&str, &str); 2] = [("thin-lto", "thin LTO"), ("release", "plain")];

/// Has everything measured in a profile, and instructions counted in the first one.
pub(crate) fn measure(profile: &str, arguments: &Arguments) -> Value {
    eprintln!("\n{profile}:");
    let counts = !arguments.is_quick && profile == PROFILES[0].0;
    let output = cargo("run", profile)
        .args(["--", "--measure"])
        .args(counts.then_some("--count"))
        .args(arguments.is_quick.then_some("--quick"))
        .args(&arguments.wanted)
        .stdout(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("cargo can be run");
    assert!(output.status.success(), "{profile} cannot be measured");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// The programs whose sizes are compared. The first one is what the others are compared with.
const HELLOS: [(&str, &str); 4] = [
    ("hello_tower", "tower"),
    ("hello_buttress", "buttress, standard stack"),
    ("hello_http", "buttress, standard stack for HTTP"),
    ("hello_resilience", "tower-resilience"),
];

/// Names, and bytes of the programs as stripped plain releases.
pub(crate) fn hello_sizes() -> [(&'static str, u64); 4] {
    let mut build = cargo("build", "release");
    for (program, _) in HELLOS {
        build.args(["--bin", program]);
    }
    assert!(build.status().is_ok_and(|status| status.success()));
    let this = std::env::current_exe().expect("a program knows where it is");
    HELLOS.map(|(program, name)| (name, stripped_size(&this.with_file_name(program))))
}

fn stripped_size(program: &Path) -> u64 {
    let stripped = program.with_extension("stripped");
    let strip = Command::new("strip")
        .arg("-o")
        .args([&stripped, program])
        .status();
    assert!(
        strip.is_ok_and(|status| status.success()),
        "{} cannot be stripped",
        program.display()
    );
    let file = std::fs::metadata(stripped);
    file.expect("has been written").len()
}

fn cargo(command: &str, profile: &str) -> Command {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.args([command, "--quiet", "--manifest-path", MANIFEST]);
    cargo.args(["--profile", profile]);
    cargo
}
