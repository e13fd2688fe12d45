//! The teeth of the model: what it must be able to lose, and what it must never lose.

use super::*;
use crate::disk::IoBuf;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, prop_assert_ne, proptest};
use std::collections::BTreeSet;

const FILE: FileId = FileId(1);
const EIO: i32 = libc::EIO;

/// No chance but that of order and crash, and nothing lingers: scripted failures only.
fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, SimOptions::default())
}

/// Submits one operation and waits for its end.
fn run(disk: &mut SimDisk, op: Op) -> io::Result<()> {
    let id = OpId(disk.clock + 1_000_000);
    disk.submit(id, op);
    let mut done = Vec::new();
    loop {
        disk.wait(None);
        disk.poll(&mut done);
        if let Some(index) = done.iter().position(|completion| completion.id == id) {
            return done.swap_remove(index).result;
        }
    }
}

fn write(offset: u64, byte: u8, len: usize) -> Op {
    let mut buf = IoBuf::new(len).unwrap();
    buf.fill(byte);
    Op::Write { file: FILE, offset, buf, len }
}

/// A durable file `a` of `len` bytes of value 1, open as `FILE`.
fn with_file(seed: u64, len: usize) -> SimDisk {
    let mut disk = disk(seed);
    disk.put("a", &vec![1; len]);
    run(&mut disk, Op::Open { file: FILE, name: "a".into() }).unwrap();
    disk
}

fn names(disk: &mut SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().map(|listed| listed.name).collect()
}

/// What many crashes of the same moment leave of `a`, sector by sector.
fn futures(disk: &SimDisk) -> Vec<Vec<u8>> {
    (0..300).map(|seed| disk.crash_with(seed).content("a").expect("durable name")).collect()
}

/// Whether all bytes are `byte`.
fn all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|&it| it == byte)
}

#[test]
fn a_completed_write_survives_every_crash() {
    let mut disk = with_file(1, 8192);
    run(&mut disk, write(4096, 2, 4096)).unwrap();
    for content in futures(&disk) {
        assert!(all(&content[..4096], 1) && all(&content[4096..], 2));
    }
}

#[test]
fn a_write_in_flight_may_be_lost_kept_partial_in_any_order_and_torn() {
    let mut disk = with_file(1, 8192);
    disk.submit(OpId(1), write(0, 2, 8192));
    let (mut lost, mut kept, mut hole, mut torn) = (false, false, false, false);
    for content in futures(&disk) {
        let sectors: Vec<_> = content.chunks(SECTOR_BYTES).collect();
        lost |= all(&content, 1);
        kept |= all(&content, 2);
        hole |= all(sectors[0], 1) && all(sectors[15], 2);
        torn |= sectors.iter().any(|sector| !all(sector, 1) && !all(sector, 2));
    }
    assert!(lost && kept && hole && torn, "{lost} {kept} {hole} {torn}");
    // The disk from which the crashes were drawn goes on.
    assert!(all(&disk.content("a").unwrap(), 1), "reads do not see it yet");
    disk.wait(None);
    while disk.in_flight() > 0 {
        disk.wait(None);
        disk.poll(&mut Vec::new());
    }
    assert!(futures(&disk).iter().all(|content| all(content, 2)));
}

#[test]
fn a_sector_written_twice_without_a_barrier_may_keep_any_version() {
    let mut disk = with_file(1, 4096);
    disk.submit(OpId(1), write(0, 2, 4096));
    disk.submit(OpId(2), write(0, 3, 4096));
    let seen: BTreeSet<u8> =
        futures(&disk).iter().flat_map(|content| content.iter().copied()).collect();
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[test]
fn zeros_and_sizes_are_durable_only_behind_a_sync() {
    let mut disk = with_file(1, 4096);
    run(&mut disk, Op::Zero { file: FILE, offset: 0, len: 4096 }).unwrap();
    run(&mut disk, Op::Allocate { file: FILE, len: 65536 }).unwrap();
    assert!(all(&disk.content("a").unwrap(), 0));
    let left = futures(&disk);
    assert!(left.iter().any(|content| all(&content[..4096], 1)));
    assert!(left.iter().any(|content| content.len() == 4096));
    assert!(left.iter().any(|content| content.len() == 65536));
    run(&mut disk, Op::Sync { file: FILE }).unwrap();
    assert!(futures(&disk).iter().all(|content| content.len() == 65536 && all(content, 0)));

    run(&mut disk, Op::Truncate { file: FILE, len: 512 }).unwrap();
    let left: BTreeSet<usize> = futures(&disk).iter().map(Vec::len).collect();
    assert_eq!(left, BTreeSet::from([512, 65536]));
    run(&mut disk, Op::Sync { file: FILE }).unwrap();
    assert!(futures(&disk).iter().all(|content| content.len() == 512));
}

#[test]
fn a_barrier_does_not_cover_what_completed_after_it_was_submitted() {
    let mut disk = with_file(1, 4096);
    disk.submit(OpId(1), Op::Sync { file: FILE });
    disk.submit(OpId(2), Op::Zero { file: FILE, offset: 0, len: 4096 });
    disk.advance(OpId(2));
    disk.advance(OpId(1));
    assert_eq!(disk.ready.len(), 2);
    assert!(futures(&disk).iter().any(|content| all(content, 1)), "the sync came too early");
}

#[test]
fn a_write_makes_as_much_of_the_size_durable_as_its_bytes_need() {
    let mut disk = with_file(1, 4096);
    run(&mut disk, Op::Allocate { file: FILE, len: 65536 }).unwrap();
    run(&mut disk, write(8192, 2, 4096)).unwrap();
    let left = futures(&disk);
    assert!(left.iter().all(|content| all(&content[8192..12288], 2)));
    let lens: BTreeSet<usize> = left.iter().map(Vec::len).collect();
    assert_eq!(lens, BTreeSet::from([12288, 65536]));
}

#[test]
fn truncated_bytes_do_not_come_back_when_the_file_grows_again() {
    let mut disk = with_file(1, 8192);
    run(&mut disk, Op::Zero { file: FILE, offset: 4096, len: 4096 }).unwrap();
    run(&mut disk, Op::Truncate { file: FILE, len: 700 }).unwrap();
    run(&mut disk, Op::Truncate { file: FILE, len: 8192 }).unwrap();
    assert!(all(&disk.content("a").unwrap()[700..], 0));
    run(&mut disk, Op::Sync { file: FILE }).unwrap();
    for content in futures(&disk) {
        assert!(content.len() == 8192 && all(&content[..700], 1) && all(&content[700..], 0));
    }
}

#[test]
fn a_new_name_is_durable_only_behind_a_sync_of_the_directory() {
    let mut disk = disk(1);
    run(&mut disk, Op::Create { file: FILE, name: "new".into() }).unwrap();
    run(&mut disk, write(0, 7, 4096)).unwrap();
    let left = |disk: &SimDisk| -> BTreeSet<Vec<String>> {
        (0..100).map(|seed| names(&mut disk.crash_with(seed))).collect()
    };
    assert_eq!(left(&disk), BTreeSet::from([vec![], vec!["new".into()]]));
    run(&mut disk, Op::SyncDir).unwrap();
    assert_eq!(left(&disk), BTreeSet::from([vec!["new".into()]]));
    assert!(all(&disk.crash_with(5).content("new").unwrap(), 7));

    run(&mut disk, Op::Rename { from: "new".into(), to: "it".into() }).unwrap();
    assert_eq!(names(&mut disk), ["it"]);
    let either = BTreeSet::from([vec!["it".into()], vec!["new".into()]]);
    assert_eq!(left(&disk), either, "one name, never none, never both");
    run(&mut disk, Op::SyncDir).unwrap();
    assert_eq!(left(&disk), BTreeSet::from([vec!["it".into()]]));

    run(&mut disk, Op::Remove { name: "it".into() }).unwrap();
    assert_eq!(left(&disk), BTreeSet::from([vec![], vec!["it".into()]]));
}

#[test]
fn a_rename_without_a_durable_creation_leaves_one_name_or_none() {
    let mut disk = disk(1);
    run(&mut disk, Op::Create { file: FILE, name: "tmp".into() }).unwrap();
    run(&mut disk, Op::Rename { from: "tmp".into(), to: "seg".into() }).unwrap();
    let left: BTreeSet<_> = (0..100).map(|seed| names(&mut disk.crash_with(seed))).collect();
    let one = |name: &str| vec![name.to_owned()];
    assert_eq!(left, BTreeSet::from([vec![], one("tmp"), one("seg")]));
}

#[test]
fn a_failed_sync_loses_and_the_next_one_succeeds_without_it() {
    let mut disk = with_file(1, 4096);
    run(&mut disk, Op::Zero { file: FILE, offset: 0, len: 4096 }).unwrap();
    disk.fail_nth(OpKind::Sync, 0, EIO);
    let error = run(&mut disk, Op::Sync { file: FILE }).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EIO));
    run(&mut disk, Op::Sync { file: FILE }).expect("the kernel says that all is well");
    assert!(all(&disk.content("a").unwrap(), 0), "reads see it");
    let left = futures(&disk);
    assert!(left.iter().all(|content| !all(content, 0)), "and it is not there");
    assert!(left.iter().all(|content| content.contains(&0)), "but for some sectors");
    assert!(left.windows(2).all(|pair| pair[0] == pair[1]), "settled, no longer at risk");
}

#[test]
fn a_failed_write_leaves_any_part_and_stays_lost() {
    let mut partial = false;
    for seed in 0..20 {
        let mut disk = with_file(seed, 8192);
        disk.fail_nth(OpKind::Write, 0, EIO);
        assert!(run(&mut disk, write(0, 2, 8192)).is_err());
        run(&mut disk, Op::Sync { file: FILE }).unwrap();
        let content = disk.content("a").unwrap();
        partial |= content.contains(&1) && content.contains(&2);
        assert!(futures(&disk).iter().all(|left| *left == content), "direct: reads see the media");
    }
    assert!(partial);
}

#[test]
fn a_failed_sync_of_the_directory_is_not_made_good_by_the_next() {
    let mut lost = 0;
    for seed in 0..40 {
        let mut disk = disk(seed);
        run(&mut disk, Op::Create { file: FILE, name: "new".into() }).unwrap();
        disk.fail_nth(OpKind::SyncDir, 0, EIO);
        assert!(run(&mut disk, Op::SyncDir).is_err());
        run(&mut disk, Op::SyncDir).unwrap();
        lost += usize::from(names(&mut disk.crash_with(1)).is_empty());
    }
    assert!((1..40).contains(&lost), "{lost}");
}

#[test]
fn a_full_disk_says_so_until_there_is_room() {
    let mut disk = with_file(1, 4096);
    disk.set_capacity(8192);
    let no_space = |result: io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    };
    no_space(run(&mut disk, Op::Allocate { file: FILE, len: 8193 }));
    no_space(run(&mut disk, write(8192, 2, 4096)));
    assert!(futures(&disk).iter().all(|content| *content == vec![1; 4096]), "nothing happened");
    run(&mut disk, write(4096, 2, 4096)).unwrap();
    no_space(run(&mut disk, Op::Create { file: FileId(2), name: "b".into() }));
    disk.set_capacity(1 << 20);
    run(&mut disk, Op::Create { file: FileId(2), name: "b".into() }).unwrap();
    run(&mut disk, Op::Allocate { file: FILE, len: 65536 }).unwrap();
    run(&mut disk, Op::Sync { file: FILE }).unwrap();
    assert!(futures(&disk).iter().all(|content| all(&content[8192..], 0)), "refused for good");
}

#[test]
fn malformed_operations_are_refused_and_give_their_buffer_back() {
    let mut disk = with_file(1, 4096);
    let mut refused = |op: Op, errno: i32| {
        let is_write = matches!(op, Op::Write { .. });
        disk.submit(OpId(9), op);
        let mut done = Vec::new();
        disk.poll(&mut done);
        let completion = done.pop().expect("at once");
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(errno));
        assert_eq!(completion.buf.is_some(), is_write);
    };
    refused(write(512, 1, 4096), libc::EINVAL);
    let buf = IoBuf::new(4096).unwrap();
    refused(Op::Write { file: FILE, offset: 0, buf, len: 8192 }, libc::EINVAL);
    let buf = IoBuf::new(4096).unwrap();
    refused(Op::Write { file: FILE, offset: u64::MAX - 4095, buf, len: 4096 }, libc::EFBIG);
    refused(Op::Sync { file: FileId(7) }, libc::EBADF);
    refused(Op::Create { file: FILE, name: "b".into() }, libc::EEXIST);
    refused(Op::Create { file: FileId(2), name: "../b".into() }, libc::EINVAL);
    assert!(run(&mut disk, Op::Create { file: FileId(2), name: "a".into() }).is_err());
    assert!(run(&mut disk, Op::Open { file: FileId(2), name: "no".into() }).is_err());
    disk.submit(OpId(10), write(0, 1, 4096));
    disk.submit(OpId(11), Op::Close { file: FILE });
    assert_eq!(disk.ready[0].result.as_ref().unwrap_err().raw_os_error(), Some(libc::EBUSY));
}

#[test]
fn flipped_bits_are_reported_and_are_the_only_difference() {
    let mut disk = with_file(1, 4096);
    disk.set_faults(SimFaults { bit_flip_ppm: 1_000_000, ..SimFaults::none() });
    let after = disk.crash();
    let report = after.report().expect("it came from a crash");
    let [flip] = &report.flips[..] else { panic!("one flip") };
    let mut content = after.content("a").unwrap();
    content[flip.offset as usize] ^= 1 << flip.bit;
    assert_eq!(content, report.files["a"].pristine);
}

#[test]
fn operations_complete_out_of_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let mut disk = with_file(seed, 65536);
        for id in 0..3 {
            disk.submit(OpId(id), write(id * 4096, 2, 4096));
        }
        let mut done = Vec::new();
        while done.len() < 3 {
            disk.wait(None);
            disk.poll(&mut done);
        }
        orders.insert(done.iter().map(|completion| completion.id).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 6, "every order occurs");
}

/// A long random life of one disk with every fault; returns what a test can compare.
fn life(seed: u64) -> (u64, Vec<Vec<u8>>) {
    let faults = SimFaults::swarm(seed);
    let options = SimOptions { faults, capacity_bytes: 1 << 18, ..SimOptions::default() };
    let mut disk = SimDisk::new(seed, options);
    let mut rng = Rng::new(!seed);
    let mut done = Vec::new();
    for step in 0..200_u64 {
        let file = FileId(rng.below(3) as u32);
        let name = format!("f{}", rng.below(3));
        let (offset, len) = (rng.below(8) * 4096, (1 + rng.below(4)) * 4096);
        let op = match rng.below(14) {
            0 => Op::Create { file, name },
            1 | 2 => Op::Open { file, name },
            3 => Op::Allocate { file, len: len * 4 },
            4 => Op::Zero { file, offset, len },
            5 => Op::Truncate { file, len: rng.below(40_000) },
            6 => Op::Sync { file },
            7 => Op::Rename { from: name, to: format!("f{}", rng.below(3)) },
            8 => Op::Remove { name },
            9 => Op::SyncDir,
            10 => Op::Close { file },
            _ => {
                let mut buf = IoBuf::new(len as usize).unwrap();
                buf.fill(step as u8);
                Op::Write { file, offset, buf, len: len as usize }
            }
        };
        disk.submit(OpId(step), op);
        match rng.below(4) {
            0 => disk.wait(None),
            1 => disk.poll(&mut done),
            _ => {}
        }
        if rng.below(40) == 0 {
            disk = disk.crash();
            check_report(&disk);
        }
    }
    let contents = ["f0", "f1", "f2"].iter().filter_map(|name| disk.content(name)).collect();
    (disk.trace_hash(), contents)
}

/// What no barrier covered is all that may differ from what was durable.
fn check_report(disk: &SimDisk) {
    let report = disk.report().expect("it came from a crash");
    for (name, file) in &report.files {
        let content = disk.content(name).expect("reported by its present name");
        assert_eq!(content.len() as u64, file.len);
        assert_eq!(disk.durable_content(name).as_ref(), Some(&content));
        let at_risk: BTreeSet<u64> = file.fates.iter().map(|(sector, _)| *sector).collect();
        for (offset, (left, right)) in content.iter().zip(&file.pristine).enumerate() {
            let flipped =
                report.flips.iter().any(|flip| flip.name == *name && flip.offset == offset as u64);
            let excused = flipped || at_risk.contains(&((offset / SECTOR_BYTES) as u64));
            // A truncation in between zeroes, and it is the only thing that may.
            assert!(left == right || excused || *left == 0, "{name} at {offset}");
        }
    }
}

/// Writes to blocks of one file, a few at a time, with a crash at a random moment. What had
/// completed is there, whatever was in flight beside it; of the rest, nothing that was never
/// written. The oracle knows nothing of the model but the promises of [`Disk`].
fn writes_and_a_crash(seed: u64) {
    const BLOCKS: u64 = 6;
    let faults = SimFaults { linger_ppm: 700_000, split_ppm: 1_000_000, ..SimFaults::swarm(seed) };
    let faults = SimFaults { write_error_ppm: 0, bit_flip_ppm: 0, ..faults };
    let mut disk = with_file(seed, BLOCKS as usize * 4096);
    disk.set_faults(faults);
    let mut rng = Rng::new(!seed);
    let mut completed = vec![1_u8; BLOCKS as usize];
    let mut flying: BTreeMap<OpId, (usize, u8)> = BTreeMap::new();
    for step in 0..rng.below(60) {
        let block = rng.index(BLOCKS as usize);
        if !flying.values().any(|(busy, _)| *busy == block) {
            let byte = 2 + step as u8;
            disk.submit(OpId(step), write(block as u64 * 4096, byte, 4096));
            flying.insert(OpId(step), (block, byte));
        }
        let mut done = Vec::new();
        disk.poll(&mut done);
        for completion in done {
            let (block, byte) = flying.remove(&completion.id).expect("submitted");
            completion.result.expect("no faults");
            completed[block] = byte;
        }
    }
    let left = disk.crash().content("a").expect("durable name");
    for (block, content) in left.chunks(4096).enumerate() {
        let in_flight = flying.values().find(|(busy, _)| *busy == block).map(|(_, byte)| *byte);
        let possible = |byte: &u8| *byte == completed[block] || Some(*byte) == in_flight;
        assert!(content.iter().all(possible), "block {block}");
    }
}

proptest! {
    #[test]
    fn what_had_completed_survives_whatever_was_in_flight(seed in any::<u64>()) {
        writes_and_a_crash(seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_seed_gives_the_same_life(seed in any::<u64>()) {
        prop_assert_eq!(life(seed), life(seed));
    }

    #[test]
    fn another_seed_gives_another_life(seed in any::<u64>()) {
        prop_assert_ne!(life(seed).0, life(seed.wrapping_add(1)).0);
    }
}
