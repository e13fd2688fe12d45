//! What may wait for a disk, on a thread of its own: how much room the trail's filesystem has, and the
//! file of metrics. If that disk hangs, the status is told all the same, without these two.

use super::{Board, metrics};
use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::recording::TrailArgs;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often the filesystem is asked.
const SPACE_EVERY: Duration = Duration::from_secs(5);
/// How long the end waits for a thread that may hang.
const END_WAIT: Duration = Duration::from_secs(1);
/// Metrics are read by whoever collects them; they hold numbers only.
const FILE_MODE: u32 = 0o644;

/// The thread, until it is dropped.
#[derive(Debug)]
pub struct Gauge {
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl Gauge {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn start(args: &TrailArgs, board: &Arc<Board>) -> io::Result<Self> {
        let (stop, asked) = channel();
        let (done, ended) = channel();
        let (dir, board) = (args.trail.clone(), Arc::clone(board));
        let mut file =
            args.metrics_file.clone().map(|path| MetricsFile::new(path, args.metrics_interval));
        thread::Builder::new().name("graven-gauge".to_owned()).spawn(move || {
            run(&dir, &board, file.as_mut(), &asked);
            if let Some(file) = file {
                file.remove();
            }
            let _ = done.send(());
        })?;
        Ok(Self { stop: Some(stop), ended })
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.stop = None;
        // A filesystem that hangs is no reason to hang with it.
        let _ = self.ended.recv_timeout(END_WAIT);
    }
}

/// Asks and writes until the other end of `asked` is gone.
fn run(dir: &Path, board: &Board, mut file: Option<&mut MetricsFile>, asked: &Receiver<()>) {
    let mut space_at = Instant::now();
    loop {
        let now = Instant::now();
        if now >= space_at {
            space_at = now + SPACE_EVERY;
            if let Ok(stat) = rustix::fs::statvfs(dir) {
                let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                board.tell_space(bytes(stat.f_blocks), bytes(stat.f_bavail));
            }
        }
        let mut next = space_at;
        if let Some(file) = &mut file {
            next = next.min(file.write_when_due(board, now));
        }
        match asked.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}

/// The file of metrics.
#[derive(Debug)]
struct MetricsFile {
    path: PathBuf,
    temporary: PathBuf,
    interval: Duration,
    due: Instant,
    failing: bool,
}

impl MetricsFile {
    fn new(path: PathBuf, interval: Duration) -> Self {
        // The collector reads only what ends in `.prom`.
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        Self { path, temporary: temporary.into(), interval, due: Instant::now(), failing: false }
    }

    /// Writes if it is time, and returns when it is next. The first failure in a row is said.
    fn write_when_due(&mut self, board: &Board, now: Instant) -> Instant {
        if now < self.due {
            return self.due;
        }
        self.due = now + self.interval;
        let text = metrics::prometheus(&board.snapshot());
        let written = self.write(&text);
        if self.failing != written.is_err() {
            self.failing = written.is_err();
            let place = escape::path(&self.path);
            match written {
                Err(why) => Diagnostic::warning(format!("cannot write metrics: {why}"))
                    .at(place)
                    .note("recording goes on, and it is tried again"),
                Ok(()) => Diagnostic::new(Level::Note, "metrics are written again").at(place),
            }
            .emit();
        }
        self.due
    }

    /// Under another name first, so that nobody reads half of it.
    fn write(&self, text: &str) -> io::Result<()> {
        let mut file = File::create(&self.temporary)?;
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        file.write_all(text.as_bytes())?;
        fs::rename(&self.temporary, &self.path)
    }

    /// What is not there any more is seen to be missing.
    fn remove(self) {
        let _ = fs::remove_file(&self.temporary);
        let _ = fs::remove_file(&self.path);
    }
}
