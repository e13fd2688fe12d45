//! Building a module that is not in the kernel's tree against the headers of a fetched kernel, with nothing
//! installed.

use crate::apt::{Cache, depends};
use crate::command::{need, output};
use crate::kernel::Kernel;
use crate::{GuestError, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The headers of a kernel and the programs that its build needs.
#[derive(Clone, Debug)]
pub struct Headers {
    /// As it would stand in `/usr/src`.
    dir: PathBuf,
}

impl Headers {
    /// Fetches them.
    ///
    /// # Errors
    /// [`GuestError::Missing`] if apt does not have them, or this machine has no compiler.
    pub fn fetch(cache: &Cache, kernel: &Kernel) -> Result<Self> {
        need("make", "make")?;
        let headers = format!("linux-headers-{}", kernel.release);
        let root = cache.dir().join(&headers);
        let _lock = cache.lock()?;
        if !root.exists() {
            let needed = depends(&headers).map_err(|why| GuestError::Missing(why.to_string()))?;
            let ours = |name: &&String| {
                name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-")
            };
            let needed = needed.iter().filter(ours).map(String::as_str);
            let packages: Vec<&str> = std::iter::once(&headers[..]).chain(needed).collect();
            cache.fetch_into(&packages, &root)?;
        }
        let src = root.join("usr/src");
        let this = Self { dir: src.join(&headers) };
        let compiler = this.compiler()?;
        need(&compiler, &compiler)?;
        this.lead_to(&src).map_err(|why| GuestError::failed("write the headers' Makefile", why))?;
        Ok(this)
    }

    /// The compiler that the kernel was built with, which the headers name: `gcc-12`.
    fn compiler(&self) -> Result<String> {
        let variables = fs::read_to_string(self.dir.join(".kernelvariables"))
            .map_err(|why| GuestError::failed("read .kernelvariables", why))?;
        let line = variables.lines().find(|line| line.starts_with("CC = "));
        let name = line.and_then(|line| line.rsplit([' ', ')']).next());
        Ok(name.unwrap_or("gcc").to_owned())
    }

    /// The flavour's Makefile includes the common one by where it would be installed. The cache is locked.
    fn lead_to(&self, src: &Path) -> std::io::Result<()> {
        let makefile = self.dir.join("Makefile");
        let included = fs::read_to_string(&makefile)?;
        let included = Path::new(included.trim().trim_start_matches("include "));
        let common = included.parent().and_then(Path::file_name).unwrap_or_default();
        let line = format!("include {}\n", src.join(common).join("Makefile").display());
        // Whole or not at all: another test may be building.
        let temporary = self.dir.join("Makefile.new");
        fs::write(&temporary, line)?;
        fs::rename(temporary, makefile)
    }

    /// Builds the module whose sources are in `source`, in the empty folder `dir`; returns the file `NAME.ko`. The
    /// Kbuild file is where that one will be: `name` may have a folder in front.
    ///
    /// # Errors
    /// It does not compile; what make said is in the error.
    pub fn build(&self, source: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
        output(Command::new("cp").arg("-rT").arg(source).arg(dir))?;
        let module = dir.join(format!("{name}.ko"));
        let mut make = Command::new("make");
        let folder = module.parent().unwrap_or(dir);
        make.arg("-C").arg(&self.dir).arg(format!("M={}", folder.display()));
        // What a make above this one has set is not for this one.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
        // Types for BPF would need pahole, and the kernel's own image.
        make.args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
        let made = output(&mut make)?;
        if !module.is_file() {
            let said = String::from_utf8_lossy(&made.stdout).into_owned();
            return Err(GuestError::failed(format!("build {name}.ko"), said));
        }
        Ok(module)
    }
}
