//! fio, the yardstick of the device: what it can do with the same barriers and nothing else.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// One run of fio.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fio {
    pub(crate) bytes_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Writes a file over and over, `depth` blocks of `block_kib` in flight, each a barrier.
pub(crate) fn dsync_overwrite(dir: &Path, block_kib: u32, depth: u32, seconds: u64) -> Result<Fio> {
    let file = dir.join("fio.dat");
    let output = Command::new("fio")
        .args(["--name=g", "--rw=write", "--ioengine=io_uring", "--direct=1", "--sync=dsync"])
        .args(["--overwrite=1", "--size=256m", "--time_based", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--bs={block_kib}k"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={seconds}"))
        .output()
        .context("fio does not start: install the package fio")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let write = &json["jobs"][0]["write"];
    let percentile = |name: &str| write["clat_ns"]["percentile"][name].as_f64();
    Ok(Fio {
        bytes_per_s: write["bw_bytes"].as_f64().context("fio printed no bandwidth")?,
        p50_us: percentile("50.000000").context("fio printed no p50")? / 1e3,
        p99_us: percentile("99.000000").context("fio printed no p99")? / 1e3,
    })
}
