//! The core in a program of C alone, under the compiler's sanitizers: what goes wrong without anybody seeing it.

use crate::mutants::copy_core;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sanitized/threads.c");
const RECORDS: &str = "4000";
/// Without builtins: a memcpy that is written out would not be looked at.
const FLAGS: &[&str] =
    &["-std=gnu11", "-g", "-O1", "-pthread", "-fno-builtin", "-fno-sanitize-recover=all"];

fn compile(sanitizer: &str, from: &Path, core: &Path, to: &Path) -> Result<(), String> {
    let mut cc = Command::new("cc");
    cc.args(FLAGS);
    cc.arg(format!("-fsanitize={sanitizer}")).arg("-I").arg(core).arg("-o").arg(to).arg(from);
    let said = cc.output().unwrap();
    if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into()) }
}

/// Whether this machine compiles and starts programs with it. If not, it is said.
pub(crate) fn works(sanitizer: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("empty.c"), dir.path().join("empty"));
    std::fs::write(&source, "int main(void)\n{\n\treturn 0;\n}\n").unwrap();
    let works = compile(sanitizer, &source, dir.path(), &program).is_ok()
        && Command::new(&program).status().is_ok_and(|status| status.success());
    if !works {
        println!("SKIPPED: the C compiler here has no working -fsanitize={sanitizer}");
    }
    works
}

/// Runs the threads with the core that is in this folder; what they say if something is wrong.
pub(crate) fn run(sanitizer: &str, core: &Path) -> Result<String, String> {
    let program = core.join("threads");
    compile(sanitizer, Path::new(PROGRAM), core, &program).unwrap();
    let ran = Command::new(&program)
        .arg(RECORDS)
        .env("TSAN_OPTIONS", "halt_on_error=1")
        .output()
        .unwrap();
    if ran.status.success() {
        Ok(String::from_utf8_lossy(&ran.stdout).into())
    } else {
        Err(String::from_utf8_lossy(&ran.stderr).into())
    }
}

#[test]
fn sanitizers_find_nothing() {
    for sanitizer in ["thread", "address,undefined"] {
        if works(sanitizer) {
            let dir = tempfile::tempdir().unwrap();
            copy_core(dir.path(), None);
            let said =
                run(sanitizer, &dir.path().join("core")).unwrap_or_else(|said| panic!("{said}"));
            println!("{sanitizer}: {said}");
        }
    }
}
