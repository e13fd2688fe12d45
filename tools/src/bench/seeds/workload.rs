//! The process that is measured: it becomes the test user, has a child that does the work, and says what that took.

use super::build::{self, Built};
use super::calls::{self, Costs};
use super::{LabError, io};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Past this a run is given up, with what its calls and its build may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of the process. Only graven itself gives them.
#[derive(Clone, Debug, clap::Args)]
pub struct Work {
    /// The folder in which it works
    #[arg(long)]
    pub dir: PathBuf,
    /// Who to become
    #[arg(long)]
    pub uid: Option<u32>,
    /// Microseconds that each call is made for, or that the build takes at most
    #[arg(long)]
    pub budget_us: u64,
    /// Build so many files, and measure no calls
    #[arg(long)]
    pub build: Option<usize>,
}

/// Does it; what it took goes to standard output as JSON.
///
/// # Errors
/// What the system says.
pub fn work(args: &Work) -> std::io::Result<()> {
    // From here on by names that need no right to come here.
    std::env::set_current_dir(&args.dir)?;
    if let Some(uid) = args.uid {
        setgroups(&[])?;
        setgid(Gid::from_raw(uid))?;
        setuid(Uid::from_raw(uid))?;
    }
    // Whether a task has an audit context is settled when it is made, by whose child it is.
    calls::in_a_child(|| {
        let budget = Duration::from_micros(args.budget_us);
        match args.build {
            None => say(&calls::measure(budget)?),
            Some(files) => say(&build::build(files, budget)?),
        }
    })
}

fn say(it: &impl Serialize) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, it)?;
    out.flush()
}

/// Has calls measured.
///
/// # Errors
/// [`LabError`]; no process is left.
pub fn calls(
    dir: &Path,
    uid: Option<u32>,
    budget: Duration,
    stop: &AtomicBool,
) -> Result<Costs, LabError> {
    run(dir, uid, budget, None, stop)
}

/// Has the project of so many files built, for at most so long and the step that ends past it.
///
/// # Errors
/// As [`calls`].
pub fn build(
    dir: &Path,
    uid: Option<u32>,
    limit: Duration,
    files: usize,
    stop: &AtomicBool,
) -> Result<Built, LabError> {
    run(dir, uid, limit, Some(files), stop)
}

fn run<T: DeserializeOwned>(
    dir: &Path,
    uid: Option<u32>,
    budget: Duration,
    files: Option<usize>,
    stop: &AtomicBool,
) -> Result<T, LabError> {
    let mut command = Command::new(std::env::current_exe().map_err(io("find this program"))?);
    command.args(["bench", "work", "--budget-us", &budget.as_micros().to_string(), "--dir"]);
    command.arg(dir);
    if let Some(uid) = uid {
        command.args(["--uid", &uid.to_string()]);
    }
    if let Some(files) = files {
        command.args(["--build", &files.to_string()]);
    }
    // A group of its own: interrupted from a terminal, we end it ourselves, and all that it has started.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group(command.spawn().map_err(io("start the workload"))?);
    let deadline = Instant::now() + PATIENCE + 8 * budget;
    let status = loop {
        if let Some(status) = group.0.try_wait().map_err(io("wait for the workload"))? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            return Err(LabError::Stopped);
        }
        if Instant::now() > deadline {
            let text = format!("the workload did not end within {} s", PATIENCE.as_secs());
            return Err(LabError::Said(text));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // It is short, and waited in the pipe.
    let (mut said, mut complaint) = (String::new(), String::new());
    if let (Some(out), Some(err)) = (&mut group.0.stdout, &mut group.0.stderr) {
        out.read_to_string(&mut said).map_err(io("read what the workload said"))?;
        err.read_to_string(&mut complaint).map_err(io("read what the workload said"))?;
    }
    match serde_json::from_str(&said) {
        Ok(figures) if status.success() => Ok(figures),
        _ => {
            let text = format!("the workload failed ({status}): {}", complaint.trim());
            Err(LabError::Said(text))
        }
    }
}

/// Ends with us, all of it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}
