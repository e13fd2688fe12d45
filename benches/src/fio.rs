//! fio, the yardstick of the device: what it can do with the same barriers and nothing else.

use anyhow::{Context, Result, ensure};
use std::fs;
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
    fio(dir, block_kib, depth, seconds, &[])
}

/// The same with 4 KiB, one in flight, and how long each write took from submission to completion,
/// in their order, in nanoseconds.
pub(crate) fn dsync_one_by_one(dir: &Path, seconds: u64) -> Result<(Fio, Vec<u64>)> {
    let log = dir.join("fio");
    let fio = fio(dir, 4, 1, seconds, &[format!("--write_lat_log={}", log.display())])?;
    let log = fs::read_to_string(dir.join("fio_lat.1.log")).context("fio wrote no latencies")?;
    // Each line: milliseconds of the run, nanoseconds of the write, and more.
    let times_ns = log
        .lines()
        .map(|line| line.split(',').nth(1).unwrap_or_default().trim().parse())
        .collect::<Result<_, _>>()
        .context("fio's log of latencies is not as expected")?;
    Ok((fio, times_ns))
}

fn fio(dir: &Path, block_kib: u32, depth: u32, seconds: u64, more: &[String]) -> Result<Fio> {
    let file = dir.join("fio.dat");
    let output = Command::new("fio")
        .args(["--name=g", "--rw=write", "--ioengine=io_uring", "--direct=1", "--sync=dsync"])
        .args(["--overwrite=1", "--size=256m", "--time_based", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--bs={block_kib}k"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={seconds}"))
        .args(more)
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
