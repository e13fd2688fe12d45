//! lmbench-like costs of system calls, as the process that makes them sees them.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getppid, waitpid};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;
use std::time::{Duration, Instant};

/// Calls that are made before anything is measured, or fewer in [`FILL_LIMIT`]. Where all are recorded and the daemon is slower
/// than we are, that fills its queue: what is measured then is what the daemon lets us do, and not how long its queue lasts.
const FILL: u64 = 4096;

/// See [`FILL`].
const FILL_LIMIT: Duration = Duration::from_millis(250);

/// Calls between two looks at the clock, of those that are short.
const BATCH: u32 = 64;

/// A file in the present folder, which is looked at and opened.
pub const FILE: &str = "file";

/// The columns of lmbench's table that are measured, and of [`super::faith`].
pub const NAMES: [&str; 7] = ["null", "I/O", "stat", "open/close", "fork", "exec", "sh"];

/// What the process says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Costs {
    /// Microseconds a call, as [`NAMES`].
    pub us: [f64; 7],
    /// How often getppid was called, all in all: so many records of it there must be.
    pub null_calls: u64,
}

/// Measures each for so long, or longer by the call that does not return before.
///
/// # Errors
/// A call failed.
pub fn measure(budget: Duration) -> io::Result<Costs> {
    let zero = rustix::fs::open("/dev/zero", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let file = CString::new(FILE)?;
    let hello = Program::new(&[&program("true")?])?;
    let shell = Program::new(&[&program("sh")?, "-c", &program("true")?])?;
    let (start, mut filled) = (Instant::now(), 0);
    while filled < FILL && start.elapsed() < FILL_LIMIT {
        let _ = getppid();
        filled += 1;
    }
    let (null_us, null_calls) = cost(budget, BATCH, || {
        let _ = getppid();
        Ok(())
    })?;
    // As lmbench does: the mean of the two.
    let (read_us, _) = cost(budget, BATCH, || rustix::io::read(&zero, &mut [0_u8]).map(drop))?;
    let (write_us, _) = cost(budget, BATCH, || rustix::io::write(&null, &[0]).map(drop))?;
    let (stat_us, _) = cost(budget, BATCH, || rustix::fs::stat(file.as_c_str()).map(drop))?;
    let (open_us, _) = cost(budget, BATCH, || {
        rustix::fs::open(file.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(drop)
    })?;
    let (fork_us, _) = cost(budget, 1, || ended(fork(|| 0)?))?;
    let (exec_us, _) = cost(budget, 1, || ended(fork(|| hello.become_it())?))?;
    let (sh_us, _) = cost(budget, 1, || ended(fork(|| shell.become_it())?))?;
    let us = [null_us, f64::midpoint(read_us, write_us), stat_us, open_us, fork_us, exec_us, sh_us];
    Ok(Costs { us, null_calls: filled + null_calls })
}

/// Microseconds of one, and how many there were.
fn cost(
    budget: Duration,
    batch: u32,
    mut call: impl FnMut() -> Result<(), Errno>,
) -> io::Result<(f64, u64)> {
    let start = Instant::now();
    let mut count = 0;
    loop {
        for _ in 0..batch {
            call()?;
        }
        count += u64::from(batch);
        let took = start.elapsed();
        if took >= budget {
            return Ok((took.as_secs_f64() * 1e6 / count as f64, count));
        }
    }
}

/// Where a program of every system is.
fn program(name: &str) -> io::Result<String> {
    let places = ["/bin", "/usr/bin"].map(|dir| format!("{dir}/{name}"));
    let found = places.into_iter().find(|place| std::path::Path::new(place).exists());
    found.ok_or_else(|| io::Error::other(format!("there is no program {name}")))
}

/// A program and its arguments, made before anything is measured.
struct Program {
    words: Vec<CString>,
    /// Pointers to them, and a null.
    arguments: Vec<*const libc::c_char>,
}

impl Program {
    fn new(words: &[&str]) -> io::Result<Self> {
        let words: Vec<_> = words.iter().map(|it| CString::new(*it)).collect::<Result<_, _>>()?;
        let pointers = words.iter().map(|it| it.as_ptr());
        let arguments = pointers.chain([std::ptr::null()]).collect();
        Ok(Self { words, arguments })
    }

    /// Becomes it. Comes back only if that cannot be, with the code of a shell.
    fn become_it(&self) -> i32 {
        if let Some(path) = self.words.first() {
            // SAFETY: path and arguments end with a null, and what the pointers point to is in `words`.
            unsafe { libc::execv(path.as_ptr(), self.arguments.as_ptr()) };
        }
        127
    }
}

/// Does something in a child, and says how that ended. For a process that has one thread.
///
/// # Errors
/// There is no child; it says itself what went wrong in it.
pub fn in_a_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let child = fork(|| match work() {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    })?;
    ended(child).map_err(|_| io::Error::other("its child ended with an error"))
}

/// A child that does this and ends with what it gives.
fn fork(work: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: this process has one thread (it is started for this, see `workload`), so its child has all locks free.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = work();
        // SAFETY: it ends this process and nothing else. Nothing of it has to be cleaned up.
        unsafe { libc::_exit(code) };
    }
    if pid < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::AGAIN));
    }
    Pid::from_raw(pid).ok_or(Errno::AGAIN)
}

/// Waits for a child, which has to end well.
fn ended(pid: Pid) -> Result<(), Errno> {
    let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    let ok = waited.is_some_and(|(_, status)| status.exit_status() == Some(0));
    if ok { Ok(()) } else { Err(Errno::NOEXEC) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_the_time_of_one() {
        let (us, count) = cost(Duration::from_millis(20), 4, || {
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        })
        .expect("nothing fails");
        assert!(count.is_multiple_of(4) && count <= 12, "{count}");
        assert!(us >= 2000.0, "{us}");
    }

    #[test]
    fn a_call_that_fails_is_no_figure() {
        let failed = cost(Duration::from_secs(9), BATCH, || Err(Errno::PERM));
        assert_eq!(failed.expect_err("it failed").raw_os_error(), Some(libc::EPERM));
    }
}
