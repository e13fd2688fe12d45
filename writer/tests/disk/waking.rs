//! Sleeping and waking: no call is lost, whoever sleeps on whatever.

use crate::rig::everywhere;
use graven_writer::disk::Op;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than any test may take: a sleep that lasts this long was not ended by a call.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[test]
fn a_call_before_the_sleep_ends_it() {
    everywhere(|rig| {
        for _ in 0..100 {
            rig.disk.waker().wake();
            rig.disk.wait(Some(FOR_EVER));
        }
    });
}

#[test]
fn a_timeout_ends_the_sleep_and_not_before_it_is_over() {
    everywhere(|rig| {
        // The first sleeps may end early for no reason.
        rig.disk.wait(Some(Duration::ZERO));
        let timeout = Duration::from_millis(50);
        let start = Instant::now();
        let mut sleeps = 0;
        while start.elapsed() < timeout {
            rig.disk.wait(Some(timeout.saturating_sub(start.elapsed())));
            sleeps += 1;
        }
        assert!(sleeps < 10, "{sleeps} sleeps: this is a busy loop");
    });
}

/// Every call is answered: the caller waits for the answer before it calls again, so one lost
/// call would be the end of this test.
#[test]
fn no_call_is_lost_when_each_waits_for_its_answer() {
    everywhere(|rig| {
        let rounds = 20_000;
        let asked = Arc::new(AtomicU64::new(0));
        let answered = Arc::new(AtomicU64::new(0));
        let waker = rig.disk.waker();
        let caller = {
            let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
            std::thread::spawn(move || {
                for round in 1..=rounds {
                    // Relaxed: the ordering that makes this safe has to come from `wake`.
                    asked.store(round, Ordering::Relaxed);
                    waker.wake();
                    while answered.load(Ordering::Acquire) < round {
                        std::thread::yield_now();
                    }
                }
            })
        };
        let mut seen = 0;
        while seen < rounds {
            rig.disk.wait(Some(FOR_EVER));
            seen = asked.load(Ordering::Relaxed);
            answered.store(seen, Ordering::Release);
        }
        caller.join().unwrap();
    });
}

/// Many callers that do not wait: the last of what they left is always seen.
#[test]
fn no_call_is_lost_in_a_storm() {
    everywhere(|rig| {
        let (callers, calls) = (2, 50_000);
        let left = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..callers)
            .map(|_| {
                let (left, waker) = (Arc::clone(&left), rig.disk.waker());
                std::thread::spawn(move || {
                    for _ in 0..calls {
                        left.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while taken < callers * calls {
            rig.disk.wait(Some(FOR_EVER));
            taken += left.swap(0, Ordering::Relaxed);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Completions and calls end the same sleep, in any mixture.
#[test]
fn completions_and_calls_together() {
    everywhere(|rig| {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = {
            let (stop, waker) = (Arc::clone(&stop), rig.disk.waker());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    waker.wake();
                    std::thread::sleep(Duration::from_micros(50));
                }
            })
        };
        for _ in 0..500 {
            rig.ok(Op::SyncDir);
        }
        stop.store(true, Ordering::Relaxed);
        caller.join().unwrap();
        // And without any call: only the completion ends this sleep.
        for _ in 0..100 {
            rig.submit(Op::SyncDir);
            let mut done = Vec::new();
            while done.is_empty() {
                rig.disk.wait(Some(FOR_EVER));
                rig.disk.poll(&mut done);
            }
        }
    });
}
