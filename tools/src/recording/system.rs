//! The machine's own programs and files that actions use: syslog's socket, sendmail, what changes the run level, and the
//! kernel's switch for a panic.
//!
//! # Trying actions without the machine
//!
//! `GRAVEN_SYSTEM_ROOT=DIR` has all of them looked for below `DIR`, and nowhere else: what is not there fails. So a test
//! can watch `halt` without a halt. It gives nobody anything:
//!
//! - whoever sets the environment of a process of root is root, or is trusted by root to (sudo, a service manager, which
//!   both clear it);
//! - where the kernel says that environment and privileges may be of different people (`AT_SECURE`: set-user-ID, file
//!   capabilities), the variable is not looked at;
//! - `DIR` has to be absolute, of root or of the user that we are, and writable by nobody else. If it is not, actions fail:
//!   they never fall back to the machine that somebody meant to spare.

use rustix::process::geteuid;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The variable that names another root.
pub const ROOT_VARIABLE: &str = "GRAVEN_SYSTEM_ROOT";

/// `AT_SECURE` of the kernel's auxiliary vector.
const AT_SECURE: u64 = 23;

/// Where the machine's programs and files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    root: Result<PathBuf, String>,
}

impl System {
    /// As the environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        match std::env::var_os(ROOT_VARIABLE).filter(|_| !is_secure()) {
            None => Self { root: Ok(PathBuf::from("/")) },
            Some(root) => Self::at(Path::new(&root)),
        }
    }

    /// Below this directory.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        let refused = |why: &str| Err(format!("{ROOT_VARIABLE}={}: {why}", root.display()));
        let root = match std::fs::symlink_metadata(root) {
            _ if !root.is_absolute() => refused("it is not absolute"),
            Err(why) => refused(&why.to_string()),
            Ok(meta) if !meta.is_dir() => refused("it is no directory"),
            Ok(meta) if meta.uid() != 0 && meta.uid() != geteuid().as_raw() => {
                refused("it belongs to another user")
            }
            Ok(meta) if meta.mode() & 0o022 != 0 => refused("others may write to it"),
            Ok(_) => Ok(root.to_owned()),
        };
        Self { root }
    }

    /// A file of the machine.
    ///
    /// # Errors
    /// The root that was asked for cannot be used.
    pub fn path(&self, name: &str) -> io::Result<PathBuf> {
        match &self.root {
            Ok(root) => Ok(root.join(name)),
            Err(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why.clone())),
        }
    }

    /// The first of these programs that is there.
    ///
    /// # Errors
    /// None is.
    pub fn program(&self, names: &[&str]) -> io::Result<PathBuf> {
        for name in names {
            let path = self.path(name)?;
            let runs = |meta: std::fs::Metadata| meta.is_file() && meta.mode() & 0o111 != 0;
            if std::fs::metadata(&path).is_ok_and(runs) {
                return Ok(path);
            }
        }
        let text = format!("there is neither of /{}", names.join(", /"));
        Err(io::Error::new(io::ErrorKind::NotFound, text))
    }
}

/// Whether the kernel says that our environment may come from somebody with fewer privileges. Where it does not say, it
/// may.
fn is_secure() -> bool {
    let Ok(vector) = std::fs::read("/proc/self/auxv") else { return true };
    let (entries, _) = vector.as_chunks::<16>();
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    // The words of this machine, which is little-endian as all that we run on.
    entries.iter().find(|it| number(&it[..8]) == AT_SECURE).is_none_or(|it| number(&it[8..]) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn tests_are_not_secure_and_another_root_holds_all_there_is() {
        assert!(!is_secure());
        let root = tempfile::tempdir().expect("a directory");
        let system = System::at(root.path());
        assert!(
            system.program(&["sbin/telinit", "sbin/init"]).is_err(),
            "it is not this machine's"
        );
        std::fs::create_dir(root.path().join("sbin")).expect("a directory");
        let program = root.path().join("sbin/telinit");
        std::fs::write(&program, "").expect("a file");
        assert!(system.program(&["sbin/telinit"]).is_err(), "it does not run");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("a mode");
        assert_eq!(system.program(&["sbin/init", "sbin/telinit"]).expect("one"), program);
    }

    #[test]
    fn a_root_that_others_may_write_to_is_refused_and_not_passed_over() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777))
            .expect("a mode");
        for bad in [root.path(), Path::new("tmp"), Path::new("/nowhere"), Path::new("/etc/passwd")]
        {
            let why = System::at(bad).path("sbin/init").expect_err("refused");
            assert!(why.to_string().contains(ROOT_VARIABLE), "{why}");
        }
    }
}
