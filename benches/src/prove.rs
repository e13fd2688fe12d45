//! How long a proof takes in a trail of many records, and how long opening it for append.

use crate::disk::record;
use crate::stats::print;
use anyhow::{Context as _, Result, ensure};
use graven_writer::{Options, Trail, clock};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Bytes of a record's payload: small, so that there are many of them.
const PAYLOAD_BYTES: usize = 16;

/// Appends what `records` of them take, in a directory that stays for the next run.
fn trail(dir: &Path, records: u64, options: &Options) -> Result<PathBuf> {
    let path = dir.join(format!("graven-bench-prove-{records}"));
    let done = dir.join(format!("graven-bench-prove-{records}.done"));
    if done.exists() {
        return Ok(path);
    }
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    let trail = Trail::open(&path, options)?;
    let start = Instant::now();
    for seq in 0..records {
        let now = clock::now();
        let mut payload = [b'.'; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&seq.to_le_bytes());
        trail.append(&record(&payload, now.realtime_ns, now.boottime_ns))?;
    }
    trail.close()?;
    print("appended", &[start.elapsed().as_secs_f64()], "s");
    fs::write(done, [])?;
    Ok(path)
}

/// Times `graven prove`, the whole process, and [`Trail::open`].
///
/// # Errors
/// What stands in the way.
pub(crate) fn prove(dir: &Path, rounds: usize, records: u64, options: &Options) -> Result<()> {
    ensure!(records > 0, "a proof needs a record");
    let graven = std::env::current_exe()?.with_file_name("graven");
    ensure!(graven.exists(), "build the command too: cargo build --release -p graven");
    let path = trail(dir, records, options)?;
    let (mut inclusion, mut growth, mut opened, mut longest) = (vec![], vec![], vec![], 0);
    for round in 0..rounds as u64 {
        // Anywhere, and nowhere twice.
        let seq = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records;
        for (goal, number, times) in
            [("--seq", seq, &mut inclusion), ("--from", seq + 1, &mut growth)]
        {
            let start = Instant::now();
            let mut command = Command::new(&graven);
            command.arg("prove").arg(&path).args([goal, &number.to_string()]);
            let output = command.output().context("graven prove")?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            longest = longest.max(output.stdout.len());
        }
    }
    for _ in 0..rounds {
        let start = Instant::now();
        let trail = Trail::open(&path, options)?;
        opened.push(start.elapsed().as_secs_f64());
        trail.close()?;
    }
    println!("a trail of {records} records of {PAYLOAD_BYTES} bytes, kept in {}", path.display());
    print("prove that a record is in it, the process", &inclusion, "ms");
    print("prove that it grew, the process", &growth, "ms");
    print("longest proof", &[longest as f64], "bytes");
    print("open for append", &opened, "s");
    Ok(())
}
