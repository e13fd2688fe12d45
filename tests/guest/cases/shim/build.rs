//! What recording every call costs the build of a C project, beside kernel audit with auditd in the same guest and the same round.
//!
//! `cargo test -p graven --test guest -- --ignored --exact shim::build::a_build --nocapture`
//!
//! The compiler is this machine's own gcc, with `make -j2`: what people build with, some 3,000 calls a file, many of them names
//! that are not there. What is built lies in memory, so that only the records go to the disk.
//!
//! One project is real: the library of zstd, whose sources cargo has fetched for Graven itself, with the flags that a configure
//! script gives. The other is the worst that a build
//! can be: files so small that a compiler makes a call every fifteen microseconds.

use super::Rig;
use super::speed::{AUDITED, auditd_files, spread};
use crate::rig::{here, number, skip, temp_dir, verify};
use graven_guest::{End, Initramfs};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Where the real one has its sources, below `lib/` of zstd.
const PARTS: [&str; 4] = ["common", "compress", "decompress", "dictBuilder"];

/// Its program: something compressed, and what it was again.
const ROUND_TRIP: &str = r#"#include <stdio.h>
#include <string.h>
#include "zstd.h"

int main(void)
{
	char text[4096], packed[8192], again[4096];

	for (size_t at = 0; at < sizeof(text); at++)
		text[at] = (char)(at % 251);
	size_t len = ZSTD_compress(packed, sizeof(packed), text, sizeof(text), 19);
	size_t len_again = ZSTD_decompress(again, sizeof(again), packed, len);
	int right = len < len_again && len_again == sizeof(text) && !memcmp(text, again, len_again);
	return puts(right ? "right" : "wrong") < 0;
}
"#;

/// Files of the small one, and functions in each.
const FILES: usize = 24;
const FUNCTIONS: usize = 12;

/// `build NAME` prints how long one takes.
const SCRIPT: &str = r#"
export PATH=/bin:/usr/bin
build() {
    rm -rf /tmp/project; cp -r /project /tmp/project; chmod -R a+rwX /tmp/project
    now; start=$now
    load user make -s -j2 -C /tmp/project || exit 1
    now; echo "build $1 $((now - start))"
    [ "$(/tmp/project/all)" = right ] || exit 1
}
round=0; while [ $round -lt $rounds ]; do
    build nothing
    load_shim --slots 8192
    record all; build recorded; ended
    echo "calls $(field records)"
    graven shim unload || exit 1
    if [ $round -lt $auditd_rounds ]; then
        for how in auditd-raw auditd-shipped; do
            audited $how "-S all" build $how
            echo "there $how $there"
        done
    fi
    round=$((round + 1))
done
umount /mnt"#;

/// A C project in a directory, whose program says `right`.
struct Project {
    /// All its files.
    files: Vec<String>,
    flags: &'static str,
}

impl Project {
    fn sources(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str).filter(|name| name.ends_with(".c"))
    }

    fn makefile(&self) -> String {
        let objects: Vec<_> = self.sources().map(|name| name.replace(".c", ".o")).collect();
        let (objects, flags) = (objects.join(" "), self.flags);
        format!("CC = gcc\nCFLAGS = {flags}\nall: {objects}\n\t$(CC) -o $@ $^\n")
    }
}

#[test]
#[ignore = "a measurement of half an hour"]
fn a_build() {
    compare(zstd);
}

#[test]
#[ignore = "a measurement"]
fn a_build_of_small_files() {
    compare(|dir| Some(small_files(dir)));
}

/// Builds what `project` writes to a directory, with every call recorded and without.
fn compare(project: impl Fn(&Path) -> Option<Project>) {
    let rounds = number("GRAVEN_GUEST_SHIM_ROUNDS").unwrap_or(3);
    let auditd_rounds = number("GRAVEN_GUEST_AUDITD_ROUNDS").unwrap_or(rounds);
    for rig in Rig::all().into_iter().rev() {
        let script = format!("rounds={rounds}; auditd_rounds={auditd_rounds}\n{AUDITED}{SCRIPT}");
        let Some(mut initramfs) = rig.initramfs(&script, &["auditd", "auditctl"], &auditd_files())
        else {
            return;
        };
        let dir = temp_dir();
        let Some(project) = project(dir.path()) else { return };
        if compiler(&mut initramfs, dir.path(), &project).is_none() {
            return;
        }
        let Some(machine) = rig.machine_of(initramfs) else { return };
        let machine = machine.size(1536, 2);
        let machine = machine.limit(std::time::Duration::from_secs(3600 * rounds));
        let Some(running) = here(machine.boot(rig.dir.path())) else { return };
        let verdict = running.end().unwrap().expect(&End::Script(0));
        let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for line in verdict.output.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["build", name, hundredths] => {
                    took.entry(name).or_default().push(hundredths.parse::<f64>().unwrap() / 100.0);
                }
                ["calls" | "there", ..] => eprintln!("{line}"),
                _ => {}
            }
        }
        let release = &rig.kernel.release;
        eprintln!("{release}: a build takes {} s", spread(took["nothing"].clone()));
        for (name, seconds) in took.iter().filter(|(name, _)| **name != "nothing") {
            let speed = took["nothing"].iter().zip(seconds).map(|(nothing, it)| nothing / it);
            eprintln!("{release} {name}: {} of that speed", spread(speed.collect()));
        }
        verify(&rig.trail(), &[0]);
    }
}

/// Adds this machine's compiler, what it links with, make, and the project with the headers that it includes.
fn compiler(initramfs: &mut Initramfs, dir: &Path, project: &Project) -> Option<()> {
    let cc = |args: &[&str]| {
        let said = Command::new("gcc").args(args).current_dir(dir).output().ok()?;
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
    };
    // What is included depends on it.
    let args: Vec<_> = project.flags.split(' ').chain(["-M"]).chain(project.sources()).collect();
    let Some(headers) = cc(&args) else {
        skip("there is no gcc that compiles this (apt-get install gcc libc6-dev)");
        return None;
    };
    let headers = headers.split_whitespace().filter(|word| word.starts_with('/'));
    for header in headers.map(Path::new) {
        put(initramfs, &plain(header), 0o644);
    }
    let objects = "Scrt1.o crti.o crtbeginS.o crtendS.o crtn.o";
    let libraries =
        "libc.so libc.so.6 libc_nonshared.a libgcc.a libgcc_s.so libgcc_s.so.1 liblto_plugin.so";
    for name in objects.split(' ').chain(libraries.split(' ')) {
        let at = cc(&[&format!("-print-file-name={name}")])?;
        put(initramfs, &plain(Path::new(at.trim())), 0o755);
    }
    for name in ["cc1", "collect2"] {
        let at = cc(&[&format!("-print-prog-name={name}")])?;
        here(initramfs.placed(&plain(Path::new(at.trim()))))?;
    }
    // The driver looks for its parts from where it is itself; the module was built with all of these.
    for name in ["gcc", "as", "ld", "make"] {
        here(initramfs.placed(&Path::new("/usr/bin").join(name)))?;
    }
    for name in &project.files {
        initramfs.file(&format!("project/{name}"), 0o644, std::fs::read(dir.join(name)).unwrap());
    }
    initramfs.file("project/Makefile", 0o644, project.makefile().into());
    Some(())
}

fn put(initramfs: &mut Initramfs, path: &Path, permissions: u32) {
    let bytes = std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    initramfs.file(path.to_string_lossy().trim_start_matches('/'), permissions, bytes);
}

/// A path without `..`, as the compiler names what it finds beside itself.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
        plain
    })
}

/// Writes zstd's library, with a program that uses it.
fn zstd(dir: &Path) -> Option<Project> {
    let metadata = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1"]).output();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.ok()?.stdout).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|it| it["name"] == "zstd-sys")?;
    let library = Path::new(package["manifest_path"].as_str()?).with_file_name("zstd/lib");
    let mut files = vec!["main.c".to_owned()];
    std::fs::write(dir.join("main.c"), ROUND_TRIP).unwrap();
    for part in [""].into_iter().chain(PARTS) {
        std::fs::create_dir_all(dir.join(part)).unwrap();
        for entry in std::fs::read_dir(library.join(part)).unwrap() {
            let name = entry.unwrap().file_name();
            let name = Path::new(part).join(name);
            if name.extension().is_some_and(|it| it == "c" || it == "h") {
                std::fs::copy(library.join(&name), dir.join(&name)).unwrap();
                files.push(name.to_string_lossy().into_owned());
            }
        }
    }
    files.sort_unstable();
    Some(Project { files, flags: "-g -O2 -DZSTD_DISABLE_ASM" })
}

/// Writes a project whose program says `right` if its parts add up.
fn small_files(dir: &Path) -> Project {
    let mut header = "#pragma once\n".to_owned();
    let mut main =
        "#include <stdio.h>\n#include \"project.h\"\nint main(void)\n{\n\tlong sum = 0;\n"
            .to_owned();
    let mut files = vec!["main.c".to_owned()];
    for file in 0..FILES - 1 {
        writeln!(header, "long part_{file}(const char *text);").unwrap();
        writeln!(main, "\tsum += part_{file}(\"{file}\");").unwrap();
        let name = format!("part_{file}.c");
        std::fs::write(dir.join(&name), source(file)).unwrap();
        files.push(name);
    }
    // Of each part: 0 + 1 + … of its functions, and its own number for each.
    let functions = FUNCTIONS * (FILES - 1);
    let numbers = (FILES - 1) * (FILES - 2) / 2 * FUNCTIONS;
    let wanted = functions * (FUNCTIONS - 1) / 2 + numbers;
    writeln!(main, "\treturn puts(sum == {wanted} ? \"right\" : \"wrong\") < 0;\n}}").unwrap();
    std::fs::write(dir.join("main.c"), main).unwrap();
    std::fs::write(dir.join("project.h"), header).unwrap();
    files.push("project.h".to_owned());
    Project { files, flags: "-O1 -Wall" }
}

/// One file of it: some 300 lines, with headers as programs include them.
fn source(file: usize) -> String {
    let mut text = String::new();
    for header in [
        "errno",
        "fcntl",
        "netdb",
        "netinet/in",
        "pthread",
        "signal",
        "stdio",
        "stdlib",
        "string",
        "sys/mman",
        "sys/socket",
        "sys/stat",
        "sys/wait",
        "time",
        "unistd",
    ] {
        writeln!(text, "#include <{header}.h>").unwrap();
    }
    text.push_str("#include \"project.h\"\n");
    for function in 0..FUNCTIONS {
        write!(
            text,
            "
struct item_{function} {{
	char name[{size}];
	struct item_{function} *next;
	long value;
}};

static long function_{function}(const char *text, long depth)
{{
	struct item_{function} first = {{ .value = {function} }}, *item;
	size_t length = strlen(text);

	snprintf(first.name, sizeof(first.name), \"%s-%ld\", text, depth);
	for (item = &first; item; item = item->next) {{
		if (depth > {function} && length > sizeof(item->name))
			return -errno;
		item->value += strtol(item->name, NULL, 10);
	}}
	return first.value;
}}
",
            size = 16 + function % 7
        )
        .unwrap();
    }
    writeln!(text, "\nlong part_{file}(const char *text)\n{{\n\tlong sum = 0;\n").unwrap();
    for function in 0..FUNCTIONS {
        writeln!(text, "\tsum += function_{function}(text, {});", file % 3).unwrap();
    }
    text.push_str("\treturn sum;\n}\n");
    text
}
