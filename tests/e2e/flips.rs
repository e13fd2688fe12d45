//! Every single bit of a small sealed trail is flipped, and each of its files is cut at every length: each
//! time `verify` says damage, and where.
//!
//! All of them go through the library that the command is a shell around; a sample goes through the
//! command.

use crate::rig::lines::Lines;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::random::Random;
use crate::rig::{Running, on, record, temp_dir};
use graven_tools::verify::report::Problem;
use graven_tools::verify::{Options, Report, verify};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the largest alignment: a finding may begin where the frame does.
const FRAME: u64 = 4096;

/// A file of the trail, whole.
struct Whole {
    name: String,
    bytes: Vec<u8>,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip { offset: u64, bit: u32 },
    Cut { len: u64 },
}

/// Two segments of some frames each, and the identity.
fn small_trail() -> (tempfile::TempDir, Vec<Whole>) {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    if can_mount() {
        // Frames are a whole number of sectors: small sectors make a small trail.
        let disk = Mounted::ext4(24, 512);
        write_frames(&disk.trail());
        std::fs::create_dir(&trail).expect("a directory");
        for file in std::fs::read_dir(disk.trail()).expect("it is there").flatten() {
            std::fs::copy(file.path(), trail.join(file.file_name())).expect("it can be copied");
        }
    } else {
        write_frames(&trail);
    }
    let mut files = Vec::new();
    for file in std::fs::read_dir(&trail).expect("it is there").flatten() {
        let name = file.file_name().into_string().expect("a name of letters");
        // Neither is a part of what is verified.
        if name != "lock" && name != "key" {
            files.push(Whole { name, bytes: std::fs::read(file.path()).expect("it can be read") });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    (dir, files)
}

/// Two writers' lives of three frames each: every record waits for the one before it.
fn write_frames(trail: &Path) {
    let lines = Lines { seed: 7, bytes_max: 200, long_every: 0 };
    for life in 0..2 {
        let mut running =
            Running::start(record(trail).args(["--ring-bytes", "1M"]), Stdio::piped());
        let mut stdin = running.stdin();
        for number in 3 * life..3 * (life + 1) {
            stdin.write_all(&lines.bytes(number, number + 1)).expect("it reads");
            running.wait_until("acknowledgement", |it| it.acknowledged() == Some(number));
        }
        drop(stdin);
        running.end().expect(0);
    }
}

fn look(trail: &Path) -> Report {
    let options = Options { threads: NonZero::new(1), ..Options::default() };
    verify(trail, &options).expect("it is a trail")
}

/// A copy of the trail to do harm to, one a thread.
struct Victim<'a> {
    trail: PathBuf,
    files: &'a [Whole],
    /// Of each file, to write to.
    opened: Vec<File>,
}

impl<'a> Victim<'a> {
    fn new(trail: PathBuf, files: &'a [Whole]) -> Self {
        std::fs::create_dir(&trail).expect("a directory");
        let open = |file: &Whole| {
            let path = trail.join(&file.name);
            std::fs::write(&path, &file.bytes).expect("it can be written");
            OpenOptions::new().write(true).open(path).expect("it can be opened")
        };
        let opened = files.iter().map(open).collect();
        Self { trail, files, opened }
    }

    fn harm(&self, file: usize, harm: Harm) {
        let (opened, bytes) = (&self.opened[file], &self.files[file].bytes);
        match harm {
            Harm::Flip { offset, bit } => {
                let byte = bytes[offset as usize] ^ (1 << bit);
                opened.write_all_at(&[byte], offset).expect("written");
            }
            Harm::Cut { len } => opened.set_len(len).expect("cut"),
        }
    }

    fn heal(&self, file: usize, harm: Harm) {
        let (opened, bytes) = (&self.opened[file], &self.files[file].bytes);
        let from = match harm {
            Harm::Flip { offset, .. } => offset..offset + 1,
            Harm::Cut { len } => len..bytes.len() as u64,
        };
        let part = &bytes[from.start as usize..from.end as usize];
        opened.write_all_at(part, from.start).expect("written");
    }

    /// Does harm to a file, and checks that it is found and where.
    fn judge(&self, file: usize, harm: Harm) {
        self.harm(file, harm);
        let report = look(&self.trail);
        let name = &self.files[file].name;
        assert_eq!(report.exit_code, 1, "{name}, {harm:?}: {:?}", report.problems);
        let located = |problem: &Problem| {
            let here = problem.file.as_ref().is_some_and(|at| at.ends_with(name.as_str()));
            let at = problem.offset.unwrap_or(0);
            let end = at + problem.len.unwrap_or(0).max(FRAME);
            here && match harm {
                Harm::Flip { offset, .. } => (at..end).contains(&offset),
                Harm::Cut { len } => at <= len,
            }
        };
        assert!(
            report.problems.iter().any(located),
            "{name}, {harm:?} is not located: {:?}",
            report.problems
        );
        self.heal(file, harm);
    }
}

/// Everything that can be done.
fn all_harm(files: &[Whole]) -> Vec<(usize, Harm)> {
    let mut all = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let len = file.bytes.len() as u64;
        for offset in 0..len {
            all.extend((0..8).map(|bit| (index, Harm::Flip { offset, bit })));
        }
        all.extend((0..len).map(|len| (index, Harm::Cut { len })));
    }
    all
}

#[test]
fn every_flipped_bit_and_every_cut_is_damage_and_located() {
    let (dir, files) = small_trail();
    assert_eq!(files.len(), 3, "identity and two segments");
    assert_eq!(look(&dir.path().join("trail")).exit_code, 0);
    let all = all_harm(&files);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (all, files, next) = (&all, &files, &next);
            let trail = dir.path().join(format!("victim-{thread}"));
            scope.spawn(move || {
                let victim = Victim::new(trail, files);
                while let Some((file, harm)) =
                    all.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    victim.judge(*file, *harm);
                }
                assert_eq!(look(&victim.trail).exit_code, 0, "all harm was undone");
            });
        }
    });
    let flips = all.iter().filter(|(_, harm)| matches!(harm, Harm::Flip { .. })).count();
    eprintln!("{flips} flipped bits and {} cuts were found and located", all.len() - flips);
}

#[test]
fn a_sample_of_harm_through_the_command() {
    let (dir, files) = small_trail();
    let seed = Random::seed();
    eprintln!("GRAVEN_E2E_SEED={seed}");
    let all = all_harm(&files);
    let random = Mutex::new(Random::new(seed));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (all, files, random) = (&all, &files, &random);
            let trail = dir.path().join(format!("victim-{thread}"));
            scope.spawn(move || {
                let victim = Victim::new(trail, files);
                for _ in 0..60 {
                    let index = random.lock().expect("no panic").below(all.len() as u64);
                    let (file, harm) = all[index as usize];
                    victim.harm(file, harm);
                    let ran = on("verify", &victim.trail, &[]).expect(1);
                    let (text, name) = (ran.text(), &files[file].name);
                    assert!(text.contains(name.as_str()), "{name}, {harm:?}: {text}");
                    // Export gives what is intact, and shows nor hides nothing by a crash.
                    let exported = on("export", &victim.trail, &[]).code();
                    assert!(matches!(exported, 0..=2), "{name}, {harm:?}: {exported}");
                    victim.heal(file, harm);
                }
            });
        }
    });
}
