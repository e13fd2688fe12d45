//! `graven shim`, and `record` and `run` from it, on a machine without the module.

mod common;

use common::graven;
use std::path::Path;

fn said(args: &[&str], code: i32, words: &str) {
    let ran = graven(args);
    assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
}

#[test]
fn rules_are_checked_and_a_wrong_one_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "# all of one user\n-a always,exit -F auid=1000\n").unwrap();
    said(&["shim", "rules", name], 0, "1 rules");
    std::fs::write(&file, "-a always,exit\n-a always,exit -F arch=b64 -S opennat\n").unwrap();
    said(&["shim", "rules", name], 2, "line 2: opennat: no such system call there");
    said(&["shim", "rules", "/never/there"], 2, "cannot read the rules");
    let trail = dir.path().join("trail");
    let trail = trail.to_str().unwrap();
    said(&["record", "--trail", trail, "--source", "shim"], 2, "needs --shim-rules FILE");
    said(
        &["record", "--trail", trail, "--source", "stdin", "--shim-rules", name],
        2,
        "is for the source shim",
    );
}

#[test]
fn without_the_module_it_says_what_to_do() {
    if Path::new("/dev/graven").exists() {
        eprintln!("SKIPPED: the module is loaded here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules");
    std::fs::write(&file, "-a always,exit\n").unwrap();
    let (rules, trail) = (file.to_str().unwrap(), dir.path().join("trail"));
    let trail = trail.to_str().unwrap();
    for args in [
        &["shim", "status"][..],
        &["shim", "self-test"],
        &["record", "--trail", trail, "--source", "shim", "--shim-rules", rules],
    ] {
        said(args, 8, "graven shim load");
    }
    said(&["run", "--trail", trail, "--source", "shim", "--", "true"], 125, "graven shim load");
    let image = dir.path().join("graven_shim.ko");
    said(&["shim", "load", "--module", image.to_str().unwrap()], 2, "cannot read it");
    std::fs::write(&image, "no module").unwrap();
    said(&["shim", "load", "--module", image.to_str().unwrap()], 8, "the kernel does not load it");
}
