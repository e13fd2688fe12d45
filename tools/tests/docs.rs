//! What the documents name is there: a table that says which test shows something is worth nothing once that test is gone.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every `file.rs::test` of a document, between backticks.
fn named(document: &str) -> Vec<(&str, &str)> {
    let spans = document.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans
        .filter_map(|span| span.split_once("::"))
        .filter(|(file, _)| file.ends_with(".rs"))
        .collect()
}

/// Whether a file has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}()");
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let at = lines.iter().position(|line| line.starts_with(&head));
    // Its attributes stand right above it.
    at.is_some_and(|at| {
        let mut above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        above.any(|line| *line == "#[test]")
    })
}

#[test]
fn every_test_that_the_table_of_capp_names_is_there() {
    let document = std::fs::read_to_string(root().join("docs/capp.md")).expect("it is there");
    let named = named(&document);
    assert!(named.len() > 40, "{}: the table is read", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(file, name)| {
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            !has_test(&source, name)
        })
        .collect();
    assert!(missing.is_empty(), "docs/capp.md names tests that are not there: {missing:?}");
}

#[test]
fn every_requirement_has_a_row() {
    let document = std::fs::read_to_string(root().join("docs/capp.md")).expect("it is there");
    for requirement in [
        "FAU_GEN.1",
        "FAU_GEN.2",
        "FAU_SAR.1",
        "FAU_SAR.2",
        "FAU_SAR.3",
        "FAU_SEL.1",
        "FAU_STG.1",
        "FAU_STG.2",
        "FAU_STG.3",
        "FAU_STG.4",
        "FMT_MTD.1 (trail)",
        "FMT_MTD.1 (events)",
        "FPT_STM.1",
    ] {
        let row = document.lines().find(|line| line.starts_with(&format!("| {requirement}")));
        let columns = row.map_or(0, |row| row.split(" | ").count());
        assert_eq!(columns, 4, "{requirement}: {row:?}");
    }
}

#[test]
fn a_test_that_is_not_there_is_found_out() {
    let source = "#[test]\n#[ignore]\nfn one() {\n}\n\nfn two() {\n}\n";
    assert!(has_test(source, "one"));
    assert!(!has_test(source, "two"), "it is no test");
    assert!(!has_test(source, "on"));
    assert_eq!(
        named("| `a/b.rs::c`, `d` | `e.rs` and `f.rs::g` |"),
        [("a/b.rs", "c"), ("f.rs", "g")]
    );
}
