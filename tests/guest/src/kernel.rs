//! A kernel as Debian ships it, and its modules.

use crate::apt::Cache;
use crate::command::output;
use crate::{GuestError, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lines of Debian's kernels that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Long-term 6.1: bookworm's own.
    V6_1,
    /// Long-term 6.12: trixie's, which bookworm has too.
    V6_12,
}

impl Line {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    fn number(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

/// A kernel with its modules, unpacked.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub(crate) vmlinuz: PathBuf,
    /// Files of modules, by name.
    modules: BTreeMap<String, PathBuf>,
    /// Names of what is in the kernel itself.
    builtin: Vec<String>,
}

/// Of packages for clouds: they have what virtual machines need, and start fast.
const FLAVOUR: &str = "-cloud-amd64";

impl Kernel {
    /// The newest kernel of a line that apt has.
    ///
    /// # Errors
    /// [`GuestError::Missing`] if apt has none or cannot fetch it.
    pub fn newest(cache: &Cache, line: Line) -> Result<Self> {
        let prefix = "linux-image-";
        let package = cache.newest(&format!("{prefix}{}.", line.number()), FLAVOUR)?;
        let dir = cache.unpack(&package)?;
        Self::at(&dir, &package[prefix.len()..])
    }

    fn at(dir: &Path, release: &str) -> Result<Self> {
        let vmlinuz = dir.join(format!("boot/vmlinuz-{release}"));
        // Where usr is merged the package says so.
        let dirs = ["lib/modules", "usr/lib/modules"].map(|lib| dir.join(lib).join(release));
        let Some(modules_dir) = dirs.into_iter().find(|dir| dir.is_dir()) else {
            return Err(GuestError::failed(format!("look into {}", dir.display()), "no modules"));
        };
        let builtin = fs::read_to_string(modules_dir.join("modules.builtin"))
            .map_err(|why| GuestError::failed("read modules.builtin", why))?;
        let mut modules = BTreeMap::new();
        collect(&modules_dir, &mut modules)
            .map_err(|why| GuestError::failed(format!("list {}", modules_dir.display()), why))?;
        Ok(Self {
            release: release.to_owned(),
            vmlinuz,
            modules,
            builtin: builtin.lines().map(|line| name_of(Path::new(line))).collect(),
        })
    }

    /// The named modules and what they depend on, each after all that it needs, uncompressed. What is in
    /// the kernel itself is left out.
    ///
    /// # Errors
    /// The kernel has no such module.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut ordered = Vec::new();
        for name in names {
            self.add(name, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn add(&self, name: &str, ordered: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || ordered.iter().any(|(there, _)| *there == name) {
            return Ok(());
        }
        let path = self.modules.get(&name).ok_or_else(|| {
            GuestError::failed(format!("look for the module {name}"), &self.release)
        })?;
        let bytes = if path.extension().is_some_and(|end| end == "xz") {
            output(Command::new("xz").arg("-dc").arg(path))?.stdout
        } else {
            fs::read(path).map_err(|why| GuestError::failed("read a module", why))?
        };
        for needed in depends(&bytes) {
            self.add(&needed, ordered)?;
        }
        ordered.push((name, bytes));
        Ok(())
    }
}

/// A module's name by the name of its file.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn collect(dir: &Path, modules: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if path.to_string_lossy().contains(".ko") {
            modules.insert(name_of(&path), path);
        }
    }
    Ok(())
}

/// What a module says that it depends on: `depends=a,b` among the strings of its `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else {
        return Vec::new();
    };
    let rest = &module[at + FIELD.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_its_dependencies() {
        let module = b"\x7fELF\0license=GPL\0depends=virtio,virtio_ring\0name=x\0";
        assert_eq!(depends(module), ["virtio", "virtio_ring"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"\0depends=a").len() == 1, "a file that was cut off");
    }

    #[test]
    fn a_modules_name_has_no_dashes() {
        assert_eq!(name_of(Path::new("kernel/drivers/md/dm-mod.ko.xz")), "dm_mod");
    }
}
