//! Records of the kernel shim: exported as audit's own, which stock tools read; shown as lines.

mod common;

use common::on;
use graven_format::{Flags, Record, Source};
use graven_shim_abi::decode::parse;
use graven_shim_abi::encode::PartBuilder;
use graven_shim_abi::{
    Call, Gap, ITEM_ARGV, ITEM_CONTINUES, ITEM_CWD, ITEM_EXE, ITEM_MADE, ITEM_NAME, ITEM_NO_OBJECT,
    ITEM_NOT_CAPTURED, ITEM_PROCTITLE, ITEM_SOCKADDR, ITEM_TTY, Item, Object, PART_LAST,
    PART_NO_RETURN, ROLE_NEW, ROLE_OLD, ROLE_PROGRAM, ROLE_TARGET,
};
use graven_writer::own::Own;
use graven_writer::{Options, Trail, clock};
use std::path::Path;
use std::process::Command;

const END_NS: u64 = 1_763_759_789_123_456_789;
const X86_64: u32 = 0xc000_003e;

fn call(nr: u32, result: i64) -> Call {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"test");
    Call {
        start_ns: END_NS - 5,
        end_ns: END_NS,
        captured: 0x1fff,
        args: [0xffff_ff9c, 0x10, 2, 3, 4, 5],
        result,
        arch: X86_64,
        nr,
        pid: 4242,
        tid: 4243,
        ppid: 4000,
        auid: 1000,
        session: 7,
        uid: 1000,
        gid: 1001,
        euid: 1000,
        suid: 1000,
        fsuid: 1000,
        egid: 1001,
        sgid: 1001,
        fsgid: 1001,
        comm,
        ..Call::default()
    }
}

const OBJECT: Object = Object {
    inode: 77,
    dev_major: 8,
    dev_minor: 17,
    rdev_major: 0,
    rdev_minor: 0,
    mode: 0o100_644,
    uid: 0,
    gid: 5,
    dir_fd: -100,
};

fn whole(order: u64, call: &Call) -> PartBuilder {
    PartBuilder::call(order, call)
        .flags(PART_LAST)
        .item(Item::of(ITEM_EXE), b"/usr/bin/test")
        .item(Item::of(ITEM_CWD), b"/home/u")
}

/// A trail of these parts, made by the writer.
fn trail(parts: &[Vec<u8>]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = Trail::open(&dir.path().join("trail"), &Options::default()).expect("a trail");
    for bytes in parts {
        let (kind, order) =
            parse(bytes).map_or((1, 999), |part| (part.header.kind, part.header.order));
        let record = Record {
            source: Source::Shim,
            kind,
            flags: Flags::NONE,
            realtime_ns: END_NS + 1_000_000_000,
            boottime_ns: 50_000_000_000,
            source_seq: order,
            bytes,
        };
        trail.append(&record).expect("appended");
    }
    trail.close().expect("closed");
    dir
}

fn exported(parts: &[Vec<u8>], code: i32) -> String {
    let dir = trail(parts);
    let ran = on("export", &dir.path().join("trail"), &["--format", "raw"]);
    assert_eq!(ran.code, code, "{}", ran.stderr);
    let text = ran.text();
    text.lines().filter(|line| !line.contains("op=start")).map(|line| format!("{line}\n")).collect()
}

const SYSCALL_REST: &str = "ppid=4000 pid=4242 auid=1000 uid=1000 gid=1001 euid=1000 suid=1000 fsuid=1000 egid=1001 \
                            sgid=1001 fsgid=1001";

#[test]
fn a_call_comes_out_as_the_kernel_would_have_written_it() {
    let open = whole(256, &call(257, -13))
        .item(Item::of(ITEM_TTY), b"pts0")
        .item(Item::of(ITEM_PROCTITLE), b"test\0a\0")
        .name(ROLE_TARGET, 0, &OBJECT, b"a file");
    let msg = "msg=audit(1763759789.123:257): ";
    let expected = format!(
        "type=SYSCALL {msg}arch=c000003e syscall=257 success=no exit=-13 a0=ffffff9c a1=10 a2=2 a3=3 items=1 \
         {SYSCALL_REST} tty=pts0 ses=7 comm=\"test\" exe=\"/usr/bin/test\" key=(null)\n\
         type=CWD {msg}cwd=\"/home/u\"\n\
         type=PATH {msg}item=0 name=612066696C65 inode=77 dev=08:11 mode=0100644 ouid=0 ogid=5 rdev=00:00 nametype=NORMAL\n\
         type=PROCTITLE {msg}proctitle=746573740061\n"
    );
    assert_eq!(exported(&[open.build()], 0), expected);
}

/// That an open made the file is said, as the kernel says it.
#[test]
fn what_a_call_made_is_created() {
    let made = Item { role: ROLE_TARGET, flags: ITEM_MADE, ..Item::of(ITEM_NAME) };
    let name = [&OBJECT.to_bytes()[..], b"a file"].concat();
    let open = whole(256, &call(257, 3)).item(made, &name).build();
    let text = exported(std::slice::from_ref(&open), 0);
    assert!(text.contains(" inode=77 ") && text.contains(" nametype=CREATE\n"), "{text}");
    let dir = trail(&[open]);
    let shown = on("show", &dir.path().join("trail"), &[]).text();
    assert!(shown.contains("target=\"a file\"(made)"), "{shown}");
}

#[test]
fn what_is_not_captured_is_said_in_audits_words() {
    let call = Call { captured: 0, arch: 0x4000_0003, ..call(5, -2) };
    let name = Item { flags: ITEM_NOT_CAPTURED | ITEM_NO_OBJECT, ..Item::of(ITEM_NAME) };
    let part = PartBuilder::call(0, &call).flags(PART_LAST).item(name, &[0; Object::LEN]);
    let msg = "msg=audit(1763759790.123:1): ";
    let unset = ["uid", "gid", "euid", "suid", "fsuid", "egid", "sgid", "fsgid"]
        .map(|name| format!("{name}=4294967295"))
        .join(" ");
    let expected = format!(
        "type=SYSCALL {msg}arch=40000003 syscall=5 a0=? a1=? a2=? a3=? items=1 ppid=? pid=? auid=4294967295 {unset} \
         tty=(none) ses=4294967295 comm=(null) exe=(null) key=(null)\n\
         type=PATH {msg}item=0 name=(null) nametype=UNKNOWN\n"
    );
    assert_eq!(exported(&[part.build()], 0), expected);
}

#[test]
fn outcomes_are_those_that_the_kernel_says() {
    let outcome = |result: i64, flags: u16| {
        let text = exported(&[whole(1, &call(0, result)).flags(flags).build()], 0);
        let (_, rest) = text.split_once("syscall=0 ").expect("a call");
        rest.split_once("a0=").expect("arguments").0.to_owned()
    };
    assert_eq!(outcome(3, 0), "success=yes exit=3 ");
    assert_eq!(outcome(-4095, 0), "success=no exit=-4095 ");
    assert_eq!(outcome(-4096, 0), "success=yes exit=-4096 ");
    assert_eq!(outcome(-512, 0), "success=no exit=-4 ");
    assert_eq!(outcome(-515, 0), "success=no exit=-515 ");
    assert_eq!(outcome(3, PART_NO_RETURN), "");
}

#[test]
fn gaps_and_what_cannot_be_read_are_lines_of_their_own() {
    let gap =
        Gap { from_ns: 48_000_000_000, to_ns: 49_000_000_000, count: 12, reason: 1, reserved: 0 };
    let later = PartBuilder::new(9, 6).build();
    let text = exported(
        &[PartBuilder::gap(5, &gap).flags(PART_LAST).build(), b"short".to_vec(), later],
        2,
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "type=DAEMON_ERR msg=audit(1763759789.123:6): op=shim-gap source=shim cause=no-reader count=12 unit=calls \
         from=1763759788.123456789 to=1763759789.123456789"
    );
    assert!(lines[1].contains("op=shim-unreadable source=shim seq=1 offset=0"), "{text}");
    assert!(lines[2].contains("op=shim-unreadable source=shim seq=2 kind=9"), "{text}");
    assert_eq!(lines.len(), 3);
}

/// A gap has the number of the record that comes next, parts of which may be there already.
#[test]
fn a_gap_leaves_the_record_of_its_number_whole() {
    let first = PartBuilder::call(5, &call(257, 3)).item(Item::of(ITEM_EXE), b"/usr/bin/test");
    let gap = PartBuilder::gap(5, &Gap { count: 3, reason: 1, ..Gap::default() }).flags(PART_LAST);
    let rest = PartBuilder::more(5, 1).flags(PART_LAST).item(Item::of(ITEM_CWD), b"/home/u");
    let text = exported(&[first.build(), gap.build(), rest.build()], 0);
    let types: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(types, ["type=DAEMON_ERR", "type=SYSCALL", "type=CWD"], "{text}");
}

#[test]
fn a_part_is_one_line_for_people() {
    let rename = whole(4, &call(82, 0))
        .name(ROLE_OLD, 0, &OBJECT, b"a\x1b")
        .name(ROLE_NEW, 1, &OBJECT, b"b");
    let dir = trail(&[rename.build(), b"\x07".to_vec()]);
    let text = on("show", &dir.path().join("trail"), &[]).text();
    assert!(
        text.contains(
            " shim CALL order=4 part=0 ring=0:0 last rename = 0 pid=4242 tid=4243 comm=\"test\" exe=\"/usr/bin/test\" \
             cwd=\"/home/u\" old=\"a\\x1b\" new=\"b\"\n"
        ),
        "{text}"
    );
    assert!(text.contains("unreadable (offset 0: graven_part needs 32 bytes"), "{text}");
}

/// An execve in three parts with other records between, a connect, a rename, a failed open.
fn storm() -> Vec<Vec<u8>> {
    let long = [&b"run\0"[..], &b"x".repeat(9000), b"END\0", b"two words\0"].concat();
    let (first, second) = long.split_at(5000);
    let argv = |index, flags| Item { index, flags, ..Item::of(ITEM_ARGV) };
    let mut sockaddr = vec![2, 0, 0x1f, 0x90, 10, 1, 2, 3];
    sockaddr.resize(16, 0);
    let missing = Item { role: ROLE_TARGET, flags: ITEM_NO_OBJECT, ..Item::of(ITEM_NAME) };
    let missing_name = [&[0; Object::LEN][..], b"/no/such"].concat();
    vec![
        PartBuilder::call(10, &call(59, 0))
            .item(Item::of(ITEM_EXE), b"/usr/bin/run")
            .name(ROLE_PROGRAM, 0, &OBJECT, b"/usr/bin/run")
            .item(argv(0, ITEM_CONTINUES), first)
            .build(),
        whole(11, &call(42, 0)).item(Item::of(ITEM_SOCKADDR), &sockaddr).build(),
        PartBuilder::more(10, 1).flags(PART_LAST).item(argv(1, 0), second).build(),
        whole(12, &call(82, 0))
            .name(ROLE_OLD, 0, &OBJECT, b"old-name")
            .name(ROLE_NEW, 1, &OBJECT, b"new-name")
            .build(),
        whole(13, &call(257, -2)).item(missing, &missing_name).build(),
        PartBuilder::gap(14, &Gap { count: 3, reason: 1, ..Gap::default() })
            .flags(PART_LAST)
            .build(),
    ]
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("SKIPPED: there is no program {program}");
    }
    found
}

fn tool(program: &str, log: &Path, args: &[&str]) -> String {
    let output = Command::new(program).arg("-if").arg(log).args(args).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_tools_of_audit_read_names_outcome_arguments_and_addresses() {
    if !has("ausearch") || !has("aureport") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.log");
    std::fs::write(&log, exported(&storm(), 0)).expect("written");
    let search = |args: &[&str]| tool("ausearch", &log, &[&["-i"][..], args].concat());

    let exec = search(&["-sc", "execve"]);
    assert!(exec.contains(" syscall=execve success=yes exit=0 "), "{exec}");
    assert!(exec.contains("argc=3 a0=run "), "{exec}");
    assert!(exec.contains("a2=two words") && exec.contains("xxxEND"), "{exec}");
    assert_eq!(exec.matches("type=EXECVE").count(), 3, "{exec}");
    let connect = search(&["-sc", "connect"]);
    assert!(connect.contains("saddr_fam=inet laddr=10.1.2.3 lport=8080"), "{connect}");
    let rename = search(&["-f", "old-name"]);
    assert!(rename.contains("name=old-name ") && rename.contains("nametype=DELETE"), "{rename}");
    assert!(rename.contains("name=new-name ") && rename.contains("nametype=CREATE"), "{rename}");
    assert!(rename.contains("cwd=/home/u") && rename.contains("comm=test"), "{rename}");
    let failed = search(&["-sv", "no"]);
    assert!(failed.contains("exit=ENOENT(No such file or directory)"), "{failed}");
    assert!(failed.contains("name=/no/such nametype=UNKNOWN"), "{failed}");
    assert_eq!(failed.matches("type=SYSCALL").count(), 1, "only one failed: {failed}");
    assert!(search(&["-m", "DAEMON_ERR"]).contains("op=shim-gap"));
    assert_eq!(search(&["-p", "4242"]).matches("type=SYSCALL").count(), 4);

    let files = tool("aureport", &log, &["-f", "-i"]);
    // It names one file an event, also of the kernel's own.
    for name in ["old-name", "/no/such", "/usr/bin/run"] {
        assert!(files.contains(name), "{name}: {files}");
    }
    let programs = tool("aureport", &log, &["-x", "-i"]);
    for name in ["/usr/bin/run", "/usr/bin/test"] {
        assert!(programs.contains(name), "{name}: {programs}");
    }
    let calls = tool("aureport", &log, &["-s", "-i"]);
    for name in ["execve", "connect", "rename", "openat"] {
        assert!(calls.contains(name), "{name}: {calls}");
    }
}

/// What nothing was captured of is read as well.
#[test]
fn the_tools_of_audit_take_what_was_not_captured() {
    if !has("ausearch") {
        return;
    }
    let call = Call { captured: 0, ..call(257, -2) };
    let name = Item { flags: ITEM_NOT_CAPTURED | ITEM_NO_OBJECT, ..Item::of(ITEM_NAME) };
    let cwd = Item { flags: ITEM_NOT_CAPTURED, ..Item::of(ITEM_CWD) };
    let part =
        PartBuilder::call(0, &call).flags(PART_LAST).item(name, &[0; Object::LEN]).item(cwd, b"");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.log");
    std::fs::write(&log, exported(&[part.build()], 0)).expect("written");
    for args in
        [&["-i", "-sc", "openat"][..], &["-i", "-f", "(null)"], &["-i", "-ul", "4294967295"]]
    {
        let found = tool("ausearch", &log, args);
        assert!(found.contains("auid=unset uid=unset"), "{args:?}: {found}");
        assert!(found.contains("name=(null)"), "{args:?}: {found}");
    }
}

/// A part that is in no ring's place, whatever the writer says.
#[test]
fn verify_finds_the_number_that_a_ring_lacks() {
    let part = |ring, number, order| whole(order, &call(39, 1)).ring(ring, number).build();
    let verified = |parts: &[Vec<u8>]| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("trail");
        let trail = Trail::open(&path, &Options::default()).expect("a trail");
        let mark = |state: &str, next: &str| {
            Own::new(1203, "shim-session", clock::now())
                .field("state", state)
                .field("instance", "00000000000000aa")
                .field("next", next)
                .field("tested", "none")
                .append(&trail)
                .expect("appended");
        };
        mark("begin", "0,0");
        for bytes in parts {
            let (source, boottime_ns, source_seq) = (Source::Shim, 5, 1);
            let (flags, realtime_ns) = (Flags::NONE, END_NS);
            let record =
                Record { source, kind: 1, flags, realtime_ns, boottime_ns, source_seq, bytes };
            trail.append(&record).expect("appended");
        }
        mark("end", "2,1");
        trail.close().expect("closed");
        on("verify", &path, &[])
    };
    let good = verified(&[part(0, 0, 0), part(1, 0, 1), part(0, 1, 2)]);
    assert_eq!(good.code, 0, "{}", good.text());
    let said = "1 session of the kernel shim by the numbers of its rings: nothing is missing that is not stated";
    assert!(good.text().contains(said), "{}", good.text());
    for (parts, first) in [
        (vec![part(0, 1, 2), part(1, 0, 1)], "0 to 0 of ring 0"),
        (vec![part(0, 0, 0), part(1, 0, 1)], "1 to 1 of ring 0"),
    ] {
        let bad = verified(&parts);
        assert_eq!(bad.code, 4, "{}", bad.text());
        assert!(
            bad.text().contains("1 part is missing from source shim and not stated"),
            "{}",
            bad.text()
        );
        assert!(bad.text().contains(first), "{}", bad.text());
    }
}
