//! Metrics, as a running writer gives them out. Their names and their grammar are tested in the library.

use crate::rig::{PATIENCE, Recording, lines};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn metrics_are_given_out_as_text_and_as_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let (trail, file) = (dir.path().join("trail"), dir.path().join("graven.prom"));
    let args = ["--no-key", "--metrics-interval", "1s", "--metrics-file"];
    let args = [&args[..], &[file.to_str().expect("text")]].concat();
    let mut recording = Recording::start(&trail, &args);
    recording.feed(&lines(500), 499);
    let label = format!("{{trail=\"{}\"}}", trail.display());
    let expected = format!("graven_records_total{label} 500\n");

    recording.status_when(|it| it["records"]["written"] == 500);
    let ran = recording.status(&["--metrics"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.text().contains(&expected), "{}", ran.text());
    assert!(ran.text().ends_with("# EOF\n"), "{}", ran.text());
    parsed_by_somebody_else("openmetrics.parser", &ran.text());

    let begun = Instant::now();
    let text = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.contains(&expected) {
            break text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(50));
        // It is whole whenever it is there.
        assert!(text.is_empty() || text.contains("graven_control_dropped_total"), "{text}");
    };
    let mode = file.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    parsed_by_somebody_else("parser", &text);
    assert_eq!(recording.end(), (0, String::new()));
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("a listing")
        .map(|entry| entry.expect("a listing").file_name())
        .collect();
    assert_eq!(left, ["trail"], "who ends takes the file away");
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_stops_no_recording() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("missing/graven.prom");
    let args = ["--no-key", "--metrics-file", file.to_str().expect("text")];
    let mut recording = Recording::start(&dir.path().join("trail"), &args);
    recording.feed(&lines(5), 4);
    let (code, said) = recording.end();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("cannot write metrics"), "{said}");
    assert_eq!(said.matches("cannot write metrics").count(), 1, "{said}");
}

/// By the client library of Prometheus for Python, where that is installed.
fn parsed_by_somebody_else(parser: &str, text: &str) {
    let script = format!(
        "import sys\nfrom prometheus_client.{parser} import text_string_to_metric_families as parse\n\
         print(sum(len(family.samples) for family in parse(sys.stdin.read())))"
    );
    let python = std::env::var_os("GRAVEN_TEST_PYTHON").unwrap_or("python3".into());
    let there = Command::new(&python)
        .args(["-c", "import prometheus_client.openmetrics.parser"])
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: python3 has no prometheus_client, so only our own test reads the metrics"
        );
        return;
    }
    let mut child = Command::new(&python)
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "it does not read:\n{text}");
    let samples: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    let ours = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples, ours);
}
