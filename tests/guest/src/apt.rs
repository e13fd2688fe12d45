//! Packages of Debian, unpacked into a folder of ours and not installed.

use crate::command::{need, output, text};
use crate::{GuestError, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that packages are unpacked into, once.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// A cache in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// No apt or dpkg here, or no such folder can be made.
    pub fn new(dir: &Path) -> Result<Self> {
        for (program, package) in
            [("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg", "dpkg"), ("xz", "xz-utils")]
        {
            need(program, package)?;
        }
        fs::create_dir_all(dir)
            .map_err(|why| GuestError::failed(format!("make {}", dir.display()), why))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Held while something in the cache is made, so that it is made once.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|why| GuestError::failed(format!("lock {}", path.display()), why))
    }

    /// The newest package whose name begins and ends so, by the numbers in its name: of apt's lists, or
    /// of what was unpacked before where apt has none.
    pub(crate) fn newest(&self, prefix: &str, suffix: &str) -> Result<String> {
        let _lock = self.lock()?;
        if let Some(newest) = newest(&names(prefix)?, prefix, suffix) {
            return Ok(newest);
        }
        if let Some(newest) = newest(&self.unpacked()?, prefix, suffix) {
            return Ok(newest);
        }
        // An image of a machine comes without apt's lists; only root can fetch them.
        let updated = output(Command::new("apt-get").args(["-qq", "update"]));
        newest(&names(prefix)?, prefix, suffix).ok_or_else(|| {
            let why = updated.err().map_or_else(String::new, |why| format!(" ({why})"));
            GuestError::Missing(format!("apt has no package {prefix}…{suffix}{why}"))
        })
    }

    fn unpacked(&self) -> Result<String> {
        let listed = fs::read_dir(&self.dir)
            .map_err(|why| GuestError::failed(format!("list {}", self.dir.display()), why))?;
        let names = listed.flatten().map(|entry| entry.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned() + "\n").collect())
    }

    /// The folder with what is in a package.
    pub(crate) fn unpack(&self, package: &str) -> Result<PathBuf> {
        let dir = self.dir.join(package);
        let _lock = self.lock()?;
        if !dir.exists() {
            self.fetch_into(&[package], &dir)?;
        }
        Ok(dir)
    }

    /// Downloads packages and unpacks them into one new folder.
    pub(crate) fn fetch_into(&self, packages: &[&str], dir: &Path) -> Result<()> {
        let temporary = self.dir.join("unpacking");
        let _ = fs::remove_dir_all(&temporary);
        let made = (|| {
            fs::create_dir_all(temporary.join("root"))?;
            Ok::<_, std::io::Error>(temporary.join("root"))
        })();
        let root = made.map_err(|why| GuestError::failed("make a folder", why))?;
        for package in packages {
            // Offline there is nothing to test with.
            output(
                Command::new("apt-get").args(["-qq", "download", package]).current_dir(&temporary),
            )
            .map_err(|why| GuestError::Missing(why.to_string()))?;
        }
        for deb in files_ending_in(&temporary, ".deb")? {
            output(Command::new("dpkg").arg("-x").arg(&deb).arg(&root))?;
        }
        let finished = fs::rename(&root, dir).and_then(|()| fs::remove_dir_all(&temporary));
        finished.map_err(|why| GuestError::failed(format!("make {}", dir.display()), why))
    }
}

/// Names of apt's packages that begin so, one a line.
fn names(prefix: &str) -> Result<String> {
    text(Command::new("apt-cache").args(["pkgnames", prefix]))
}

/// The name with the highest numbers.
fn newest(names: &str, prefix: &str, suffix: &str) -> Option<String> {
    let matching = names.lines().filter(|name| name.starts_with(prefix) && name.ends_with(suffix));
    matching.max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// The numbers in a name, in order.
fn numbers(name: &str) -> Vec<u64> {
    let digits = name.split(|it: char| !it.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

/// What a package depends on, by name.
pub(crate) fn depends(package: &str) -> Result<Vec<String>> {
    let listed = text(Command::new("apt-cache").args(["depends", "--important", package]))?;
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.map(str::to_owned).collect())
}

fn files_ending_in(dir: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir)
        .map_err(|why| GuestError::failed(format!("list {}", dir.display()), why))?;
    let paths = listed.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.to_string_lossy().ends_with(end)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_told_by_numbers_and_not_by_letters() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-57-cloud-amd64-dbg\nlinux-image-6.1.0-47-cloud-amd64\n";
        let newest = newest(names, "linux-image-6.1.", "-cloud-amd64");
        assert_eq!(newest.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert!(numbers("linux-image-6.12.113+deb12") > numbers("linux-image-6.12.99+deb13"));
    }
}
