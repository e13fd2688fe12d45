//! Both disk drivers, on the filesystem that the build is on and on tmpfs: what the engine relies
//! on, and what happens when the disk, the kernel or the engine does something else.

mod faults;
mod rig;
mod waking;

use graven_writer::disk::{Completion, DiskChoice, DriverKind, FileId, Op, open_disk};
use rig::{everywhere, text_of};
use std::collections::HashMap;
use std::time::Duration;

const A: FileId = FileId(7);
const B: FileId = FileId(8);

fn create(file: FileId, name: &str) -> Op {
    Op::Create { file, name: name.into() }
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename { from: from.into(), to: to.into() }
}

/// The life of a segment, as the engine leads it.
#[test]
fn a_segment_is_made_written_sealed_and_read() {
    everywhere(|rig| {
        let align = rig.align();
        rig.ok(create(A, "new.tmp"));
        rig.ok(Op::Allocate { file: A, len: 3 << 20 });
        rig.ok(Op::Zero { file: A, offset: 0, len: 3 << 20 });
        let mut buf = rig.buffer();
        let len = 4 * align;
        buf[..len].fill(0xA5);
        let done = rig.run(Op::Write { file: A, offset: align as u64, buf, len });
        done.result.unwrap();
        assert_eq!(done.buf.expect("the buffer comes back")[0], 0xA5);
        rig.ok(Op::Sync { file: A });
        rig.ok(rename("new.tmp", "0.seg"));
        rig.ok(Op::SyncDir);

        let listed = rig.disk.list().unwrap();
        assert_eq!((listed[0].name.as_str(), listed[0].len, listed.len()), ("0.seg", 3 << 20, 1));
        let text = text_of(&mut *rig.disk, "0.seg");
        assert_eq!(text.len(), 3 << 20);
        for (at, byte) in text.iter().enumerate() {
            let written = (align..align + len).contains(&at);
            assert_eq!(*byte, if written { 0xA5 } else { 0 }, "byte {at}");
        }

        rig.ok(Op::Truncate { file: A, len: 5 * align as u64 });
        rig.ok(Op::Sync { file: A });
        rig.ok(Op::Close { file: A });
        assert_eq!(rig.disk.list().unwrap()[0].len, 5 * align as u64);
        rig.ok(Op::Open { file: A, name: "0.seg".into() });
        rig.ok(Op::Remove { name: "0.seg".into() });
        rig.ok(Op::Close { file: A });
        rig.ok(Op::SyncDir);
        assert_eq!(rig.disk.list().unwrap(), []);
    });
}

#[test]
fn many_writes_in_flight_all_arrive_where_they_belong() {
    everywhere(|rig| {
        let align = rig.align();
        let count = 200;
        rig.ok(create(A, "a"));
        rig.ok(Op::Allocate { file: A, len: (count * align) as u64 });
        // Zeroing goes on beside them, in a file of its own.
        rig.ok(create(B, "b"));
        let zeroing = rig.submit(Op::Zero { file: B, offset: 0, len: 5 << 20 });
        let mut expected = HashMap::new();
        for at in 0..count {
            // Registered ones while there are any, others after that: both have to work.
            let mut buf = rig.buffer();
            buf[..align].fill(at as u8);
            let offset = (at * align) as u64;
            let id = rig.submit(Op::Write { file: A, offset, buf, len: align });
            expected.insert(id, at as u8);
        }
        for _ in 0..=count {
            let Completion { id, result, buf } = rig.next();
            result.unwrap();
            if id == zeroing {
                assert!(buf.is_none());
            } else {
                assert_eq!(buf.unwrap()[0], expected.remove(&id).expect("completes once"));
            }
        }
        assert!(expected.is_empty());
        let text = text_of(&mut *rig.disk, "a");
        for at in 0..count {
            assert!(text[at * align..(at + 1) * align].iter().all(|byte| *byte == at as u8));
        }
        assert!(text_of(&mut *rig.disk, "b").iter().all(|byte| *byte == 0));
    });
}

#[test]
fn rename_never_replaces() {
    everywhere(|rig| {
        for (file, name, byte) in [(A, "a", 1), (B, "b", 2)] {
            rig.ok(create(file, name));
            rig.write(file, 0, byte).result.unwrap();
        }
        assert_eq!(rig.errno(rename("a", "b")), libc::EEXIST);
        assert_eq!(rig.errno(rename("c", "d")), libc::ENOENT);
        assert_eq!(text_of(&mut *rig.disk, "a")[0], 1);
        assert_eq!(text_of(&mut *rig.disk, "b")[0], 2);
    });
}

#[test]
fn create_and_open_are_strict() {
    everywhere(|rig| {
        rig.ok(create(A, "a"));
        assert_eq!(rig.errno(create(B, "a")), libc::EEXIST, "the name is taken");
        assert_eq!(rig.errno(create(A, "b")), libc::EEXIST, "the number is taken");
        assert_eq!(rig.errno(Op::Open { file: B, name: "b".into() }), libc::ENOENT);
        // A number whose opening failed is free.
        rig.ok(create(B, "b"));
        std::os::unix::fs::symlink("a", rig.path().join("link")).unwrap();
        let link = Op::Open { file: FileId(9), name: "link".into() };
        assert_eq!(rig.errno(link), libc::ELOOP, "links are not followed");
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(rig.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "the trail is its owner's only");
    });
}

#[test]
fn names_are_plain_names() {
    everywhere(|rig| {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b"] {
            assert_eq!(rig.errno(create(A, name)), libc::EINVAL, "{name:?}");
            assert_eq!(rig.errno(rename("a", name)), libc::EINVAL, "{name:?}");
            assert_eq!(rig.errno(Op::Remove { name: name.into() }), libc::EINVAL, "{name:?}");
            let error = rig.disk.read(name, 0, &mut [0; 8]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}");
        }
        assert_eq!(rig.disk.list().unwrap(), []);
    });
}

#[test]
fn what_is_not_open_or_not_aligned_is_refused_and_the_buffer_comes_back() {
    everywhere(|rig| {
        let align = rig.align();
        let done = rig.write(A, 0, 1);
        assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(done.buf.is_some());
        for op in [Op::Sync { file: A }, Op::Close { file: A }, Op::Truncate { file: A, len: 0 }] {
            assert_eq!(rig.errno(op), libc::EBADF);
        }
        assert_eq!(rig.errno(Op::Zero { file: A, offset: 0, len: 1 << 20 }), libc::EBADF);
        rig.ok(create(A, "a"));
        let longest = rig.buffer().len();
        for (offset, len) in [(1, align), (0, align - 1), (0, 0), (0, longest + align)] {
            let buf = rig.buffer();
            let done = rig.run(Op::Write { file: A, offset, buf, len });
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EINVAL), "{len}");
            assert!(done.buf.is_some());
        }
        rig.ok(Op::Close { file: A });
        let done = rig.write(A, 0, 1);
        assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EBADF), "closed");
        // A refusal is no failure of the file: opened again, it works.
        rig.ok(Op::Open { file: A, name: "a".into() });
        rig.write(A, 0, 1).result.unwrap();
    });
}

#[test]
fn numbers_of_files_can_be_used_again_many_times() {
    everywhere(|rig| {
        // More at once than the ring has slots for.
        for round in 0..3u8 {
            for file in 0..100 {
                rig.ok(create(FileId(file), &format!("{round}-{file}")));
                rig.write(FileId(file), 0, round).result.unwrap();
            }
            for file in 0..100 {
                rig.ok(Op::Close { file: FileId(file) });
            }
        }
        for listed in rig.disk.list().unwrap() {
            let expected = listed.name.as_bytes()[0] - b'0';
            assert_eq!(text_of(&mut *rig.disk, &listed.name)[0], expected);
        }
    });
}

#[test]
fn a_driver_dropped_with_work_in_flight_leaves_memory_and_files_whole() {
    everywhere(|rig| {
        let align = rig.align();
        rig.ok(create(A, "a"));
        rig.submit(Op::Zero { file: A, offset: 0, len: 64 << 20 });
        for at in 0..50 {
            let buf = rig.buffer();
            let offset = (at * align) as u64 + (64 << 20);
            rig.submit(Op::Write { file: A, offset, buf, len: align });
        }
        // Some are with the kernel, some in a queue.
        let mut done = Vec::new();
        rig.disk.poll(&mut done);
        rig.submit(Op::Sync { file: A });
        rig.submit(create(B, "b"));
        rig.reopen();
        rig.ok(Op::Open { file: A, name: "a".into() });
        rig.write(A, 0, 3).result.unwrap();
        assert_eq!(text_of(&mut *rig.disk, "a")[0], 3);
    });
}

#[test]
fn more_operations_than_the_limit_are_refused_not_lost() {
    everywhere(|rig| {
        let extra = 10;
        let count = graven_writer::disk::OPS_IN_FLIGHT_MAX + extra;
        for _ in 0..count {
            rig.submit(Op::SyncDir);
        }
        let mut refused = 0;
        for _ in 0..count {
            match rig.next().result {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, extra);
        rig.ok(Op::SyncDir);
    });
}

/// Buffers of one driver are ordinary memory to the next.
#[test]
fn buffers_outlive_their_driver() {
    everywhere(|rig| {
        let mut bufs = rig.take_buffers();
        rig.reopen();
        rig.ok(create(A, "a"));
        let align = rig.align();
        let mut buf = bufs.pop().unwrap();
        buf[..align].fill(9);
        let done = rig.run(Op::Write { file: A, offset: 0, buf, len: align });
        done.result.unwrap();
        drop((bufs, done.buf));
        assert_eq!(text_of(&mut *rig.disk, "a")[..align], vec![9; align]);
    });
}

#[test]
fn a_driver_says_what_it_is() {
    let at = tempfile::tempdir().unwrap();
    for (choice, driver) in
        [(DiskChoice::Uring, DriverKind::Uring), (DiskChoice::Sync, DriverKind::Sync)]
    {
        let Ok((disk, report)) = open_disk(at.path(), choice, &mut [], None) else {
            eprintln!("SKIPPED: no {driver}");
            continue;
        };
        assert_eq!(report.driver, driver);
        assert_eq!(report.geometry, disk.geometry());
        assert_eq!(report.ring.is_some(), driver == DriverKind::Uring);
        if report.ring.as_ref().is_some_and(|ring| ring.linked_flush) {
            let device = report.device.as_ref().unwrap();
            assert!(report.geometry.direct, "{report:?}");
            assert_eq!((device.volatile_cache, device.fua), (Some(true), Some(false)));
        }
        assert_eq!(report.fallback_reason, None);
        assert!(report.to_string().contains(&driver.to_string()), "{report}");
    }
}

#[test]
fn a_directory_that_is_none_is_an_error_that_names_it() {
    let at = tempfile::tempdir().unwrap();
    for choice in [DiskChoice::Auto, DiskChoice::Sync] {
        let error = open_disk(&at.path().join("missing"), choice, &mut [], None).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

/// A file with work in flight is not closed under it.
#[test]
fn closing_a_busy_file_is_refused() {
    everywhere(|rig| {
        rig.ok(create(A, "a"));
        let zeroing = rig.submit(Op::Zero { file: A, offset: 0, len: 256 << 20 });
        let closing = rig.submit(Op::Close { file: A });
        let mut ended = HashMap::new();
        for _ in 0..2 {
            let done = rig.next();
            ended.insert(done.id, done.result.map_err(|error| error.raw_os_error()));
        }
        assert_eq!(ended[&zeroing], Ok(()));
        assert_eq!(ended[&closing], Err(Some(libc::EBUSY)));
        rig.ok(Op::Close { file: A });
    });
}

/// A sleep without work and without a call ends, and a driver without work completes nothing.
#[test]
fn an_idle_driver_is_quiet() {
    everywhere(|rig| {
        rig.disk.wait(Some(Duration::from_millis(1)));
        let mut done = Vec::new();
        rig.disk.poll(&mut done);
        assert!(done.is_empty());
    });
}
