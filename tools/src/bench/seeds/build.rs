//! A build: a C project that is made up, compiled file by file and linked.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The compiler.
pub const COMPILER: &str = "cc";

/// Functions in a file.
const FUNCTIONS: usize = 12;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Built {
    /// How long what was done took.
    pub seconds: f64,
    /// Compilations, and the link if it came to that.
    pub done: usize,
    /// What all of it would have been.
    pub steps: usize,
}

impl Built {
    /// Seconds of all steps, as far as those that were done tell.
    #[must_use]
    pub fn all_s(&self) -> f64 {
        self.seconds * self.steps as f64 / self.done.max(1) as f64
    }
}

/// Whether there is a compiler.
#[must_use]
pub fn has_compiler() -> bool {
    let mut command = Command::new(COMPILER);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Writes the sources into `dir`.
///
/// # Errors
/// What the filesystem says.
pub fn write_sources(dir: &Path, files: usize) -> io::Result<()> {
    let mut main = String::from("#include <stdio.h>\n");
    for number in 0..files {
        fs::write(dir.join(format!("part{number}.c")), source(number))?;
        let _ = writeln!(main, "unsigned part{number}(unsigned);");
    }
    main.push_str("int main(void)\n{\n\tunsigned sum = 1;\n");
    for number in 0..files {
        let _ = writeln!(main, "\tsum = part{number}(sum);");
    }
    main.push_str("\treturn printf(\"%u\\n\", sum) < 0;\n}\n");
    fs::write(dir.join("main.c"), main)
}

/// One file: some functions over the usual headers.
fn source(number: usize) -> String {
    let mut text = String::from(
        "#include <ctype.h>\n#include <errno.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n",
    );
    for function in 0..FUNCTIONS {
        let seed = number * FUNCTIONS + function + 1;
        let _ = write!(
            text,
            "\nstatic unsigned step{function}(unsigned sum)\n{{\n\tchar text[64];\n\tint length = snprintf(text, sizeof text, \
             \"%u-{seed}\", sum);\n\tfor (int at = 0; at < length; at++)\n\t\tsum = sum * {}u + (unsigned)toupper(text[at]);\n\
             \tuint32_t words[16];\n\tmemset(words, (int)(sum & 0xff), sizeof words);\n\tfor (size_t at = 1; at < 16; at++)\n\
             \t\twords[at] ^= words[at - 1] << (sum % {} + 1);\n\treturn words[sum % 16];\n}}\n",
            31 + 2 * seed,
            seed % 7 + 2,
        );
    }
    let _ = write!(text, "\nunsigned part{number}(unsigned sum)\n{{\n");
    for function in 0..FUNCTIONS {
        let _ = writeln!(text, "\tsum = step{function}(sum);");
    }
    text.push_str("\treturn sum;\n}\n");
    text
}

/// Compiles and links what is in the present folder, one after the other, and stops at the first step that ends past `limit`.
///
/// # Errors
/// The compiler refuses, or cannot be started.
pub fn build(files: usize, limit: Duration) -> io::Result<Built> {
    let names: Vec<String> =
        (0..files).map(|it| format!("part{it}")).chain(["main".to_owned()]).collect();
    let steps = names.len() + 1;
    let start = Instant::now();
    for (index, name) in names.iter().enumerate() {
        cc(&["-O1", "-c", &format!("{name}.c"), "-o", &format!("{name}.o")])?;
        let took = start.elapsed();
        if took > limit {
            return Ok(Built { seconds: took.as_secs_f64(), done: index + 1, steps });
        }
    }
    let objects: Vec<String> = names.iter().map(|it| format!("{it}.o")).collect();
    let mut link = vec!["-o", "program"];
    link.extend(objects.iter().map(String::as_str));
    cc(&link)?;
    Ok(Built { seconds: start.elapsed().as_secs_f64(), done: steps, steps })
}

fn cc(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(COMPILER)
        .args(arguments)
        // As he did; and its temporary files on the filesystem that is measured.
        .env("CCACHE_DISABLE", "1")
        .env("TMPDIR", ".")
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("cc: {}", said.lines().next().unwrap_or("failed"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_done_counts_as_what_was() {
        let built = Built { seconds: 2.0, done: 5, steps: 26 };
        assert!((built.all_s() - 10.4).abs() < 1e-9);
        let none = Built { seconds: 2.0, done: 0, steps: 26 };
        assert!(none.all_s().is_finite());
    }

    #[test]
    fn the_project_compiles_without_a_warning_and_runs() {
        if !has_compiler() {
            eprintln!("SKIPPED: no C compiler");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        write_sources(dir.path(), 2).expect("sources");
        let sources = ["part0.c", "part1.c", "main.c"];
        let mut cc = Command::new(COMPILER);
        cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o", "program"]).args(sources);
        let output = cc.current_dir(dir.path()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ran = Command::new(dir.path().join("program")).output().expect("it runs");
        let number: u64 = String::from_utf8_lossy(&ran.stdout).trim().parse().expect("a number");
        assert!(number > 0 && ran.status.success());
    }
}
