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

/// The same of the configuration, before anything is begun; an option counts before it.
#[test]
fn a_configuration_without_rules_or_with_wrong_ones_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [config, file, trail] = ["toml", "rules", "trail"].map(|name| dir.path().join(name));
    let [named, rules] = [&config, &file].map(|it| it.to_str().unwrap());
    let text = format!("[trail]\ndir = \"{}\"\nsource = \"shim\"\n[shim]\n", trail.display());
    std::fs::write(&config, &text).unwrap();
    said(&["record", "--config", named], 2, "or shim.rules in the configuration");
    std::fs::write(&config, format!("{text}rules = \"/never/there\"\n")).unwrap();
    said(&["record", "--config", named], 2, "cannot read the rules");
    std::fs::write(&file, "-a always,exit -S opennat\n").unwrap();
    said(&["record", "--config", named, "--shim-rules", rules], 2, "line 1: -S");
    std::fs::write(&config, format!("{text}rules = \"/r\"\nrule = 1\n")).unwrap();
    said(&["record", "--config", named], 2, ":6:1, key shim.rule");
    assert!(!trail.exists());
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
