//! `graven bench queue` as people use it. The server is a model wherever the disk does not matter.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
    command.args(["bench", "queue"]).args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One run with everything that it writes.
struct Done {
    dir: tempfile::TempDir,
    output: Output,
}

static DONE: LazyLock<Done> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(dir.path().join("runs")).expect("a directory");
    let output =
        bench(&["--service", "model:exp:1ms", "--discipline", "graven,sync,drop:20,timer:5ms"])
            .args([
                "--rate",
                "400,20000",
                "--seconds",
                "300ms",
                "--warm-up",
                "50ms",
                "--repetitions",
                "2",
            ])
            .args(["--dir", &place("runs"), "--json", &place("a.json"), "--csv", &place("a.csv")])
            .args(["--html", &place("a.html"), "--svg", &place("svg")])
            .output()
            .expect("it runs");
    Done { dir, output }
});

fn report() -> Value {
    let json = std::fs::read(DONE.dir.path().join("a.json")).expect("it was written");
    serde_json::from_slice(&json).expect("it is JSON")
}

#[test]
fn a_run_accounts_for_every_record() {
    let output = &DONE.output;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = report();
    assert_eq!(report["schema_version"], 1);
    assert!(report["machine"]["kernel"].as_str().is_some_and(|it| !it.is_empty()));
    assert_eq!(report["saturation"].as_array().map(Vec::len), Some(4));
    let points = report["points"].as_array().expect("points");
    assert_eq!(points.len(), 8);
    for point in points {
        let count = |name: &str| point[name].as_u64().expect("a number");
        assert_eq!(count("offered"), count("durable") + count("lost") + count("unsent"), "{point}");
        let latency = |name: &str| point["latency"][name].as_f64().expect("a number");
        let names = ["p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us"];
        assert!(names.map(latency).is_sorted(), "{point}");
        // A model of 1 ms: nothing is durable before it was written.
        assert!(point["latency"]["mean_us"]["mean"].as_f64() > Some(300.0), "{point}");
    }
    let point = |discipline: &str, rate: f64| {
        let found = points.iter().find(|it| it["discipline"] == discipline && it["rate"] == rate);
        found.unwrap_or_else(|| panic!("no {discipline} at {rate}"))
    };
    // The same arrivals for all.
    for rate in [400.0, 20_000.0] {
        let offered: Vec<_> =
            points.iter().filter(|it| it["rate"] == rate).map(|it| &it["offered"]).collect();
        assert!(offered.windows(2).all(|pair| pair[0] == pair[1]), "{offered:?}");
    }
    // At 20 records a millisecond a queue of 20 overflows, and a record a write cannot keep up; who blocks loses nothing.
    assert!(point("drop:20", 20_000.0)["lost"].as_u64() > Some(0));
    assert_eq!(point("drop:20", 20_000.0)["regime"], "full");
    assert_eq!(point("sync", 20_000.0)["regime"], "overloaded");
    for discipline in ["graven", "sync", "timer:5ms"] {
        assert_eq!(point(discipline, 20_000.0)["lost"], 0, "{discipline}");
    }
    assert_eq!(point("sync", 400.0)["theory"]["model"], "M/G/1");
    assert_eq!(point("graven", 400.0)["theory"]["model"], "M/G[1,n]/1");
}

#[test]
fn it_leaves_nothing_behind_and_says_it_all_in_a_table_and_a_csv() {
    let left = std::fs::read_dir(DONE.dir.path().join("runs")).expect("it is there").count();
    assert_eq!(left, 0);
    let table = text(&DONE.output.stdout);
    for word in ["saturation", "graven", "drop:20", "queue full", "overloaded"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let csv = std::fs::read_to_string(DONE.dir.path().join("a.csv")).expect("it was written");
    let columns: Vec<_> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns.len(), 9);
    assert!(columns.iter().all(|it| *it == columns[0]), "{columns:?}");
}

fn svgs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(DONE.dir.path().join("svg")).expect("it was made");
    files.map(|it| it.expect("a file").path()).collect()
}

#[test]
fn every_chart_is_well_formed_and_says_what_its_axes_are() {
    assert!(svgs().len() >= 10, "{:?}", svgs());
    for path in svgs() {
        let name = path.display();
        let text = std::fs::read_to_string(&path).expect("it was written");
        let svg = roxmltree::Document::parse(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        let elements = |tag: &'static str| {
            svg.descendants().filter(move |it| it.has_tag_name(("http://www.w3.org/2000/svg", tag)))
        };
        assert!(text.contains("prefers-color-scheme:dark"), "{name}");
        let label = elements("text")
            .find(|it| it.attribute("transform").is_some())
            .and_then(|it| it.text());
        assert!(label.is_some_and(|it| !it.is_empty()), "{name}");
        let lines: Vec<_> = elements("path").filter_map(|it| it.attribute("d")).collect();
        assert!(!lines.is_empty(), "{name}");
        for number in
            lines.iter().flat_map(|it| it.split(['M', 'L', ' '])).filter(|it| !it.is_empty())
        {
            let place: f64 = number.parse().unwrap_or_else(|_| panic!("{name}: {number}"));
            assert!((0.0..=760.0).contains(&place), "{name}: {number} is outside");
        }
        assert_eq!(elements("script").count(), 0, "{name}");
    }
}

#[test]
fn a_browser_opens_the_page() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|it| Command::new(it).arg("--version").output().is_ok());
    let Some(browser) = found else {
        eprintln!("SKIPPED: no Chromium to open the page with");
        return;
    };
    let page = DONE.dir.path().join("a.html");
    let source = std::fs::read_to_string(&page).expect("it was written");
    assert!(!source.contains("<script") && !source.contains("src=") && !source.contains("href="));
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", DONE.dir.path().join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("it starts");
    let dom = text(&output.stdout);
    if dom.trim().is_empty() {
        eprintln!("SKIPPED: {browser} does not run here: {}", text(&output.stderr));
        return;
    }
    // What it made of the page has every chart, with its lines.
    assert_eq!(dom.matches("<svg").count(), svgs().len(), "{dom}");
    assert!(dom.matches("<path class=\"line").count() >= svgs().len());
    assert!(dom.contains("</html>"));
}

#[test]
fn what_is_asked_in_a_wrong_way_is_refused_with_what_is_right() {
    let cases: [(&[&str], &str); 12] = [
        (&["--discipline", "fifo"], "none of graven, sync"),
        (&["--discipline", "graven,graven"], "is there twice"),
        (&["--discipline", "sync", "--load-of", "graven"], "add graven to --discipline"),
        (&["--arrivals", "onoff:1s:1s:3"], "must be from 1 to 2"),
        (&["--arrivals", "pareto"], "none of constant"),
        (&["--load", "0"], "no share"),
        (&["--rate", "5", "--load", "0.5"], "cannot be used with"),
        (&["--seconds", "5"], "no duration"),
        (&["--size", "0"], "neither a number of bytes"),
        (&["--service", "ssd"], "none of disk"),
        (&["--dir", "/nowhere"], "cannot make a directory"),
        (&["--arrivals", "replay:/nowhere", "--rate", "5"], "/nowhere"),
    ];
    for (args, message) in cases {
        let output = bench(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(message), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("it is there").count()
}

#[test]
fn an_interrupted_run_leaves_nothing_behind_and_ends_as_interrupted() {
    use std::os::unix::process::ExitStatusExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let child = bench(&["--discipline", "graven,sync", "--seconds", "60s", "--rate", "100"])
        .args(["--dir", &dir.path().display().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let start = Instant::now();
    while entries(dir.path()) == 0 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(entries(dir.path()), 1);
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let sent = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
    assert_eq!(output.status.signal(), Some(2), "{}", text(&output.stderr));
    assert_eq!(entries(dir.path()), 0);
    assert!(text(&output.stderr).contains("interrupted"), "{}", text(&output.stderr));
}

#[test]
fn the_real_disk_is_measured_with_every_discipline() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let json = dir.path().join("a.json");
    let output =
        bench(&["--rate", "500", "--seconds", "200ms", "--warm-up", "20ms", "--repetitions", "1"])
            .args([
                "--size",
                "100",
                "--arrivals",
                "mmpp:20ms:80ms:4",
                "--producers",
                "3",
                "--hogs",
                "1",
            ])
            .args([
                "--dir",
                &dir.path().display().to_string(),
                "--json",
                &json.display().to_string(),
            ])
            .output()
            .expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value =
        serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    assert!(report["floor"]["p50_us"].as_f64() > Some(0.0));
    assert!(report["machine"]["mount_options"].is_string());
    for point in report["points"].as_array().expect("points") {
        // What drops loses records of those that pause too.
        let drops = point["discipline"].as_str().is_some_and(|it| it.starts_with("drop"));
        assert!(drops || point["lost"] == 0, "{point}");
        assert!(point["hogs_per_s"]["mean"].as_f64() > Some(0.0), "{}", point["discipline"]);
        assert!(
            point["bytes_per_record"]["mean"].as_f64() >= Some(100.0),
            "{}",
            point["discipline"]
        );
    }
    assert_eq!(entries(dir.path()), 1, "only the JSON");
}
