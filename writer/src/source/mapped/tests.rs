//! A filter is asked about the datagrams of any socket, so that these tests need no audit.

use super::*;
use crate::source::netlink::Stop;
use proptest::prelude::*;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A socket with a filter over a ring of `bytes`, and its sender; `None`, said, where there is no BPF.
fn filtered(bytes: usize) -> Option<(UnixDatagram, UnixDatagram, Mapped)> {
    let (ours, theirs) = UnixDatagram::pair().expect("socket pair");
    theirs.set_nonblocking(true).expect("non-blocking");
    match Mapped::attach(&ours, bytes) {
        Ok(mapped) => Some((ours, theirs, mapped)),
        Err(Errno::PERM) => {
            eprintln!("SKIPPED: bpf(2) is not permitted here");
            None
        }
        Err(errno) => panic!("{errno}"),
    }
}

/// A datagram that tells its number.
fn datagram(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; len];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Takes what is there and holds it against what was sent, of which `taken` came before.
fn take_all(taker: &mut Taker<'_>, sent: &[Vec<u8>], taken: &mut usize) {
    while taker.take().expect("a socket that works") == Received::Some {
        for (bytes, whole) in taker.iter() {
            assert_eq!(bytes, sent[*taken], "datagram {taken}");
            assert_eq!(whole, bytes.len());
            *taken += 1;
        }
    }
}

const RING_BYTES: usize = 16384;

#[test]
fn every_length_arrives_whole_and_in_order() {
    let Some((ours, theirs, mapped)) = filtered(65536) else { return };
    let mut taker = Taker::new(ours.as_fd(), Some(&mapped), 40_000);
    let (mut sent, mut taken) = (Vec::new(), 0);
    let edges = CLASSES_BYTES.iter().flat_map(|class| class - 10..class - 6);
    for len in (16..70).chain(edges).chain([17_000, 30_000, 100]) {
        sent.push(datagram(sent.len() as u64, len as usize));
        theirs.send(&sent[sent.len() - 1]).expect("room");
        if sent.len().is_multiple_of(7) {
            take_all(&mut taker, &sent, &mut taken);
        }
    }
    take_all(&mut taker, &sent, &mut taken);
    assert_eq!(taken, sent.len());
    assert_eq!(mapped.ring.consumed().load(Ordering::Relaxed), taker.position, "all is given back");
}

#[test]
fn what_finds_no_room_is_in_the_socket_and_after_that_the_ring_is_used_again() {
    let Some((ours, theirs, mapped)) = filtered(RING_BYTES) else { return };
    let mut taker = Taker::new(ours.as_fd(), Some(&mapped), 4096);
    let (mut sent, mut taken) = (Vec::new(), 0);
    for round in 0..3 {
        while mapped.word(SPILLED_OFFSET) == 0 {
            sent.push(datagram(sent.len() as u64, 1000));
            theirs.send(&sent[sent.len() - 1]).expect("room");
        }
        assert!(sent.len() > (round + 1) * (RING_BYTES / 1040 - 1), "the ring was filled before");
        // This one would fit the ring, but would overtake.
        sent.push(datagram(sent.len() as u64, 20));
        theirs.send(&sent[sent.len() - 1]).expect("room");
        take_all(&mut taker, &sent, &mut taken);
        assert_eq!(taken, sent.len());
        assert_eq!(mapped.word(SPILLED_OFFSET), 0);
    }
    let before = mapped.ring.reserved().load(Ordering::Relaxed);
    sent.push(datagram(sent.len() as u64, 20));
    theirs.send(&sent[sent.len() - 1]).expect("room");
    assert!(mapped.ring.reserved().load(Ordering::Relaxed) > before, "it is in the ring");
    take_all(&mut taker, &sent, &mut taken);
    assert_eq!(taken, sent.len());
}

#[test]
fn who_sleeps_is_woken_by_the_next_datagram_and_only_who_sleeps() {
    let Some((ours, theirs, mapped)) = filtered(RING_BYTES) else { return };
    let stop = Stop::new().expect("a descriptor");
    let mut taker = Taker::new(ours.as_fd(), Some(&mapped), 4096);
    assert_eq!(taker.take(), Ok(Received::Empty));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            theirs.send(&datagram(0, 100)).expect("room");
        });
        let begin = std::time::Instant::now();
        mapped.lie_down();
        stop.wait_or(&[mapped.fd()], Duration::from_millis(900)).expect("poll");
        mapped.rise();
        assert!(begin.elapsed() < Duration::from_millis(800), "it was woken");
    });
    assert_eq!(taker.take(), Ok(Received::Some));
    assert_eq!(taker.iter().count(), 1);
    assert_eq!(mapped.state.word(ASLEEP_OFFSET).load(Ordering::Relaxed), 0);
}

#[test]
fn a_sender_beside_the_taker_loses_nothing_and_keeps_its_order() {
    const COUNT: u64 = 200_000;
    let Some((ours, theirs, mapped)) = filtered(RING_BYTES) else { return };
    theirs.set_nonblocking(false).expect("blocking");
    let mut spills = 0_u32;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                theirs.send(&datagram(number, 16 + (number * 37 % 600) as usize)).expect("sent");
            }
        });
        let mut taker = Taker::new(ours.as_fd(), Some(&mapped), 4096);
        let mut next = 0_u64;
        while next < COUNT {
            match taker.take().expect("a socket that works") {
                Received::Some => {
                    for (bytes, _) in taker.iter() {
                        let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight"));
                        assert_eq!(number, next);
                        assert_eq!(bytes.len(), 16 + (number * 37 % 600) as usize);
                        next += 1;
                    }
                }
                _ => {
                    // Sometimes late, so that the ring spills.
                    if next.is_multiple_of(5) {
                        std::thread::sleep(Duration::from_micros(next % 7 * 100));
                    }
                }
            }
            spills = mapped.word(KEPT_OFFSET);
        }
    });
    assert!(spills > 0, "the ring was never too small: this test shows nothing");
}

#[test]
fn a_ring_that_cannot_be_is_refused() {
    let (ours, _theirs) = UnixDatagram::pair().expect("socket pair");
    assert!(Mapped::attach(&ours, 0).is_err());
    assert!(Mapped::attach(&ours, 5000).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bursts of any lengths, taken at any times: all, once, in order.
    #[test]
    fn bursts_arrive_in_order(bursts in prop::collection::vec(
        (prop::collection::vec(16_usize..3000, 0..40), any::<bool>()), 1..20,
    )) {
        let Some((ours, theirs, mapped)) = filtered(RING_BYTES) else { return Ok(()) };
        let mut taker = Taker::new(ours.as_fd(), Some(&mapped), 4096);
        let (mut sent, mut taken) = (Vec::new(), 0);
        for (lens, take) in bursts {
            for len in lens {
                let bytes = datagram(sent.len() as u64, len);
                // The queue of such a socket is short; what is refused was not sent.
                if theirs.send(&bytes).is_ok() {
                    sent.push(bytes);
                }
            }
            if take {
                take_all(&mut taker, &sent, &mut taken);
            }
        }
        take_all(&mut taker, &sent, &mut taken);
        prop_assert_eq!(taken, sent.len());
    }
}
