//! Stopping producers: the cgroups that were named are frozen, through cgroup v2 or the freezer of v1.
//!
//! A cgroup is frozen with all below it. So each time before, it is looked whether any of that is a process
//! of ours, PID 1, or one of an exempt user's: then it is left alone, and it is said.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Deepest nesting of cgroups that is looked into.
const DEPTH_MAX: usize = 64;

/// Whom freezing must never reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spared<'a> {
    /// Processes of ours. PID 1 is spared in any case.
    pub(super) pids: &'a [u32],
    /// Users: who has logged in as one of them, whoever he is by now, and who runs as one.
    pub(super) uids: &'a [u32],
}

impl Spared<'_> {
    fn has(&self, pid: u32) -> bool {
        // Zeros are processes of another pid namespace, of which nothing is known.
        pid <= 1 || self.pids.contains(&pid) || !self.uids.is_empty() && self.has_user(pid)
    }

    /// One that has just ended is nobody's.
    fn has_user(&self, pid: u32) -> bool {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let login = read("loginuid");
        let all = uids.split_whitespace().chain(login.split_whitespace());
        all.filter_map(|uid| uid.parse().ok()).any(|uid: u32| self.uids.contains(&uid))
    }
}

/// A cgroup that can be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// The file to write to, and what to write to freeze and to thaw.
    file: &'static str,
    words: [&'static str; 2],
}

/// Why a cgroup is not frozen.
#[derive(Debug, thiserror::Error)]
pub(super) enum FreezeError {
    /// It is no cgroup, or the root, or its controller is not the freezer.
    #[error("it is no cgroup that can be frozen: neither cgroup.freeze nor freezer.state is in it")]
    NotACgroup,
    /// It holds a process that must not be frozen.
    #[error("it holds process {0}, which must not be frozen")]
    Holds(u32),
    /// The system refused.
    #[error("{file}: {source}")]
    Io {
        /// The file in the cgroup.
        file: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Cgroup {
    /// The cgroup at this path.
    ///
    /// # Errors
    /// [`FreezeError::NotACgroup`].
    pub(super) fn open(path: &Path) -> Result<Self, FreezeError> {
        let kinds = [("cgroup.freeze", ["1", "0"]), ("freezer.state", ["FROZEN", "THAWED"])];
        kinds
            .into_iter()
            .find(|(file, _)| path.join(file).is_file() && path.join("cgroup.procs").is_file())
            .map(|(file, words)| Self { path: path.to_owned(), file, words })
            .ok_or(FreezeError::NotACgroup)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Freezes it, unless it holds a process that is spared.
    ///
    /// # Errors
    /// [`FreezeError`]; it is not frozen then.
    pub(super) fn freeze(&self, spared: Spared<'_>) -> Result<(), FreezeError> {
        if let Some(pid) = self.holds(&self.path, spared, DEPTH_MAX)? {
            return Err(FreezeError::Holds(pid));
        }
        self.write(self.words[0])
    }

    /// Thaws it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn thaw(&self) -> Result<(), FreezeError> {
        self.write(self.words[1])
    }

    fn write(&self, word: &str) -> Result<(), FreezeError> {
        fs::write(self.path.join(self.file), word)
            .map_err(|source| FreezeError::Io { file: self.file, source })
    }

    /// The first process in a cgroup, or below it, that must not be frozen.
    fn holds(
        &self,
        path: &Path,
        spared: Spared<'_>,
        depth: usize,
    ) -> Result<Option<u32>, FreezeError> {
        const FILE: &str = "cgroup.procs";
        let failed = |source| FreezeError::Io { file: FILE, source };
        let text = match fs::read_to_string(path.join(FILE)) {
            // One below that has just been removed.
            Err(why) if why.kind() == io::ErrorKind::NotFound && path != self.path => {
                return Ok(None);
            }
            read => read.map_err(failed)?,
        };
        let mut pids = text.lines().filter_map(|line| line.trim().parse::<u32>().ok());
        if let Some(pid) = pids.find(|pid| spared.has(*pid)) {
            return Ok(Some(pid));
        }
        if depth == 0 {
            return Err(failed(io::Error::other("nested too deep")));
        }
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Some(pid) = self.holds(&entry.path(), spared, depth - 1)?
            {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a cgroup.
    fn cgroup(dir: &Path, file: &str, pids: &str) -> Cgroup {
        fs::create_dir_all(dir).expect("a directory");
        fs::write(dir.join(file), "").expect("a file");
        fs::write(dir.join("cgroup.procs"), pids).expect("a file");
        Cgroup::open(dir).expect("it looks like one")
    }

    fn of<'a>(pids: &'a [u32], uids: &'a [u32]) -> Spared<'a> {
        Spared { pids, uids }
    }

    #[test]
    fn what_holds_a_process_of_an_exempt_user_is_never_frozen() {
        let dir = tempfile::tempdir().expect("a directory");
        let group = cgroup(dir.path(), "cgroup.freeze", &format!("{}\n", std::process::id()));
        let me = rustix::process::getuid().as_raw();
        assert!(matches!(group.freeze(of(&[], &[me])), Err(FreezeError::Holds(_))));
        group.freeze(of(&[], &[me.wrapping_add(77)])).expect("he has no process there");
    }

    #[test]
    fn both_kinds_are_written_as_the_kernel_wants_it() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, words) in
            [("cgroup.freeze", ["1", "0"]), ("freezer.state", ["FROZEN", "THAWED"])]
        {
            let path = dir.path().join(name.replace('.', "-"));
            let group = cgroup(&path, name, "77\n78\n");
            group.freeze(of(&[9], &[])).expect("nothing stands in the way");
            assert_eq!(fs::read_to_string(path.join(name)).expect("a file"), words[0]);
            group.thaw().expect("nothing stands in the way");
            assert_eq!(fs::read_to_string(path.join(name)).expect("a file"), words[1]);
        }
        assert!(matches!(Cgroup::open(dir.path()), Err(FreezeError::NotACgroup)));
    }

    #[test]
    fn what_holds_one_of_ours_is_never_frozen() {
        let dir = tempfile::tempdir().expect("a directory");
        let outer = cgroup(&dir.path().join("outer"), "cgroup.freeze", "77\n");
        let inner = cgroup(&dir.path().join("outer/inner/most"), "cgroup.freeze", "90\n");
        fs::write(dir.path().join("outer/inner/cgroup.procs"), "").expect("a file");
        outer.freeze(of(&[5], &[])).expect("nobody of ours");
        for (spared, held) in [(77, 77), (90, 90)] {
            let error = outer.freeze(of(&[5, spared], &[])).expect_err("it is ours");
            assert!(matches!(error, FreezeError::Holds(pid) if pid == held), "{error}");
        }
        fs::write(inner.path().join("cgroup.procs"), "1\n").expect("a file");
        assert!(matches!(outer.freeze(of(&[], &[])), Err(FreezeError::Holds(1))));
    }
}
