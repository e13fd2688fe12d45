//! Programs of the host.

use crate::{GuestError, Result};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Where a program is, also outside the path of a user without root.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut found = std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program));
    found.find(|path| path.is_file())
}

/// A program that must be there, of a Debian package.
pub(crate) fn need(program: &str, package: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| {
        GuestError::Missing(format!("there is no program {program} (apt-get install {package})"))
    })
}

/// Runs a command to its end; its output counts only if it succeeded.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let doing = words(command);
    let output =
        command.env("LC_ALL", "C").output().map_err(|why| GuestError::failed(&doing, why))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(GuestError::failed(doing, format!("{}: {said}", output.status)))
}

/// The same, as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?.stdout).into_owned())
}

/// A command as it would be typed.
pub(crate) fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
