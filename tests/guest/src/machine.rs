//! A guest: QEMU, from its start to its end.

use crate::command::need;
use crate::disk::Disk;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::verdict::{END_MARK, End, Verdict};
use crate::{GuestError, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often a guest is looked after.
const POLL: Duration = Duration::from_millis(5);

/// How long a guest may take unless told otherwise. It bounds a hang and measures nothing.
const LIMIT: Duration = Duration::from_secs(300);

/// How long a guest of a working KVM needs at most to start and to end.
const KVM_LIMIT: Duration = Duration::from_secs(20);

/// The kernel's level of log: warnings and what is worse. Everything would take a second. Its check of the timer is
/// against the clock, and on a busy host it finds that the timer does not work; a processor that such a host does not run
/// for 21 s is no stall of the kernel's either, and a guest that stands still ends at its [limit](LIMIT). The processors'
/// own clocks are the host's one: by themselves older kernels doubt that, and ask an emulated timer instead.
const BASE_COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=5 random.trust_cpu=1 no_timer_check \
                                 rcupdate.rcu_cpu_stall_timeout=300 tsc=reliable";

/// What executes a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU itself: everywhere, and slow.
    Tcg,
    /// The processor, where the host's kernel lets us.
    Kvm,
}

/// A guest that may be started.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: PathBuf,
    initramfs: Initramfs,
    disks: Vec<Disk>,
    command_line: String,
    memory_mib: u32,
    processors: u32,
    single_thread: bool,
    accelerator: Accelerator,
    limit: Duration,
}

impl Machine {
    /// A guest with one processor and 512 MiB, under TCG.
    #[must_use]
    pub fn new(kernel: &Kernel, initramfs: Initramfs) -> Self {
        Self {
            kernel: kernel.vmlinuz.clone(),
            initramfs,
            disks: Vec::new(),
            command_line: BASE_COMMAND_LINE.to_owned(),
            memory_mib: 512,
            processors: 1,
            single_thread: false,
            accelerator: Accelerator::Tcg,
            limit: LIMIT,
        }
    }

    /// Adds the next disk: /dev/vda, /dev/vdb and so on.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Adds to the kernel's command line.
    #[must_use]
    pub fn command_line(mut self, more: &str) -> Self {
        self.command_line = format!("{} {more}", self.command_line);
        self
    }

    /// Sets memory and processors.
    #[must_use]
    pub fn size(mut self, memory_mib: u32, processors: u32) -> Self {
        (self.memory_mib, self.processors) = (memory_mib, processors);
        self
    }

    /// Runs all processors of the guest on one thread. QEMU 7.2 with several panics ("Oops: int3") when
    /// static keys are toggled under load: what attaches and detaches probes under load needs this.
    #[must_use]
    pub fn single_thread(mut self) -> Self {
        self.single_thread = true;
        self
    }

    /// Chooses what executes it.
    #[must_use]
    pub fn accelerator(mut self, accelerator: Accelerator) -> Self {
        self.accelerator = accelerator;
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it. What it says is kept in `dir`, which must be of this guest alone.
    ///
    /// # Errors
    /// [`GuestError::Missing`] without QEMU; [`GuestError::Failed`] if it cannot be started.
    pub fn boot(&self, dir: &Path) -> Result<Running> {
        let qemu = need("qemu-system-x86_64", "qemu-system-x86")?;
        let setpriv = need("setpriv", "util-linux")?;
        let files = Files::new(dir)?;
        fs::write(&files.initramfs, self.initramfs.archive())
            .map_err(|why| GuestError::failed("write an initramfs", why))?;
        // A guest does not outlive the test, however that ends.
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL"]).arg(qemu);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-machine", "pc", "-cpu", "max", "-accel", &self.accel()]);
        command.args(["-m", &self.memory_mib.to_string(), "-smp", &self.processors.to_string()]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&files.initramfs);
        command.args(["-append", &self.command_line]);
        for path in [&files.kernel_log, &files.output, &files.data] {
            command.arg("-serial").arg(format!("file:{}", path.display()));
        }
        for (number, disk) in self.disks.iter().enumerate() {
            command.args(disk.args(number));
        }
        let said =
            File::create(&files.qemu).map_err(|why| GuestError::failed("make a file", why))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(|why| GuestError::failed("start QEMU", why))?;
        let started = Instant::now();
        Ok(Running { child, files, started, limit: self.limit })
    }

    fn accel(&self) -> String {
        let name = match self.accelerator {
            Accelerator::Kvm => return "kvm".to_owned(),
            Accelerator::Tcg => "tcg",
        };
        let threads = if self.single_thread || self.processors == 1 { "single" } else { "multi" };
        format!("{name},thread={threads}")
    }
}

impl Accelerator {
    /// KVM if a guest with this kernel starts and ends under it, TCG if not; tried once.
    ///
    /// # Errors
    /// What [`Machine::boot`] says.
    pub fn best(kernel: &Kernel, dir: &Path) -> Result<Self> {
        static BEST: OnceLock<Accelerator> = OnceLock::new();
        if let Some(best) = BEST.get() {
            return Ok(*best);
        }
        let best = if File::options().read(true).write(true).open("/dev/kvm").is_ok() {
            let mut initramfs = Initramfs::new(kernel)?;
            initramfs.script("exit 7");
            let machine = Machine::new(kernel, initramfs).accelerator(Self::Kvm).limit(KVM_LIMIT);
            // QEMU says so if the host's kernel refuses.
            let end = machine.boot(dir).and_then(Running::end).map(|verdict| verdict.end);
            if end.is_ok_and(|end| end == End::Script(7)) { Self::Kvm } else { Self::Tcg }
        } else {
            Self::Tcg
        };
        Ok(*BEST.get_or_init(|| best))
    }
}

/// Where a guest's words go.
#[derive(Debug)]
struct Files {
    initramfs: PathBuf,
    kernel_log: PathBuf,
    output: PathBuf,
    data: PathBuf,
    qemu: PathBuf,
}

impl Files {
    fn new(dir: &Path) -> Result<Self> {
        let files = Self {
            initramfs: dir.join("initramfs"),
            kernel_log: dir.join("kernel.log"),
            output: dir.join("output"),
            data: dir.join("data"),
            qemu: dir.join("qemu"),
        };
        for path in [&files.kernel_log, &files.output, &files.data] {
            // QEMU would append to what the last guest said.
            File::create(path).map_err(|why| GuestError::failed("make a file", why))?;
        }
        Ok(files)
    }
}

/// A guest that runs. It is killed if it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    files: Files,
    started: Instant,
    limit: Duration,
}

impl Running {
    /// What the script has given to the host so far.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        fs::read(&self.files.data).unwrap_or_default()
    }

    /// What the script has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        read_text(&self.files.output)
    }

    /// Waits until something is so; false if the guest has ended before, or its time is over.
    pub fn wait_until(&mut self, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if is_so(self) {
                return true;
            }
            if self.has_ended() || self.started.elapsed() > self.limit {
                return is_so(self);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Cuts the power: nobody in the guest or in QEMU gets to do anything more.
    ///
    /// # Errors
    /// It had ended before.
    pub fn power_cut(mut self) -> Result<Verdict> {
        if self.has_ended() {
            let told = self.verdict(End::PoweredOff).told();
            return Err(GuestError::failed("cut the power", format!("it has ended: {told}")));
        }
        self.kill();
        Ok(self.verdict(End::PowerCut))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// QEMU itself failed.
    pub fn end(mut self) -> Result<Verdict> {
        // A halted guest does nothing more, and QEMU would wait for ever; a script's end is the end.
        let ended = self.wait_until(|it| it.output().contains(END_MARK)) && {
            let deadline = Instant::now() + KVM_LIMIT;
            while !self.has_ended() && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
            true
        };
        let status = self.child.try_wait().ok().flatten();
        self.kill();
        if let Some(status) = status
            && !status.success()
        {
            let why = format!("{status}: {}", read_text(&self.files.qemu));
            return Err(GuestError::failed("run QEMU", why));
        }
        let verdict = self.verdict(End::TooLong);
        if !ended && status.is_none() {
            return Ok(verdict);
        }
        let end = Verdict::end_of(&verdict.kernel_log, &verdict.output);
        Ok(Verdict { end, ..verdict })
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn verdict(&self, end: End) -> Verdict {
        Verdict {
            end,
            kernel_log: read_text(&self.files.kernel_log),
            output: self.output(),
            data: self.data(),
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
