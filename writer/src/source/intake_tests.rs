//! Tests of the intake: what is stated, and that no loss is stated twice.

use std::sync::Mutex;

use super::*;
use graven_format::session::Mark;

/// Keeps the loss statements and the number of other records.
#[derive(Default)]
struct List {
    statements: Mutex<Vec<LossStatement>>,
    marks: Mutex<Vec<Vec<u8>>>,
    records: Mutex<Vec<(u16, u64, Vec<u8>)>>,
}

impl Sink for List {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        if Mark::read(record).is_some() {
            self.marks.lock().unwrap().push(record.bytes.to_vec());
        } else if record.flags.contains(Flags::LOSS) {
            assert_eq!(record.source, Source::Graven);
            let (statement, _) = LossStatement::parse(record.bytes).expect("canonical");
            self.statements.lock().unwrap().push(statement);
        } else {
            let taken = (record.kind, record.source_seq, record.bytes.to_vec());
            self.records.lock().unwrap().push(taken);
        }
        Ok(0)
    }

    fn next_seq(&self) -> u64 {
        0
    }
}

const PID: u32 = 77;
const SEC_NS: u64 = 1_000_000_000;

fn terms(lost: u32) -> Terms {
    Terms { pids: [PID; 2], lost, left_on: true, own: 1 }
}

fn datagram(kind: u16, text: &str) -> Vec<u8> {
    nlmsg::request(kind, 0, text.as_bytes())
}

fn at(seconds: u64) -> Moment {
    let ns = seconds * SEC_NS;
    Moment { realtime_ns: 1_700_000_000 * SEC_NS + ns, boottime_ns: ns, active_ns: ns }
}

/// An intake whose window starts behind serial 10.
fn started(list: &List) -> Intake<'_> {
    let mut intake = Intake::new(list, terms(100), Past::default(), at(0));
    let text = format!(
        "audit(1.000:10): pid={PID} uid=0 auid=4294967295 ses=4294967295 msg='{}'",
        heartbeat_text(0)
    );
    let bytes = datagram(kind::TRUSTED_APP, &text);
    assert_eq!(give(&mut intake, &bytes), [Seen::Heartbeat { number: 0, serial: 10 }]);
    intake.start(10).expect("taken");
    intake
}

/// Gives the intake one datagram that came whole.
fn give(intake: &mut Intake<'_>, bytes: &[u8]) -> Vec<Seen> {
    intake.datagrams([(bytes, bytes.len())].into_iter()).expect("taken")
}

fn take(intake: &mut Intake<'_>, serials: impl IntoIterator<Item = u32>) {
    for serial in serials {
        let bytes = datagram(1400, &format!("audit(1.000:{serial}): avc"));
        assert_eq!(give(intake, &bytes), []);
    }
}

/// Lets time pass, a look each half second.
fn pass(intake: &mut Intake<'_>, from: u64, to: u64) {
    for second in from..=to {
        intake.set_now(at(second));
        intake.tick().expect("taken");
    }
}

/// What a statement says, without its times.
type Said = (Cause, Certainty, u64, Option<(u64, u64)>);

fn said(list: &List) -> Vec<Said> {
    let statements = list.statements.lock().unwrap();
    statements.iter().map(|said| (said.cause, said.certainty, said.count, said.range)).collect()
}

#[test]
fn records_are_kept_byte_for_byte_with_their_serial() {
    let list = List::default();
    let mut intake = Intake::new(&list, terms(0), Past::default(), at(0));
    for text in ["audit(1.000:7): a=\u{fffd}\u{1}", "no stamp at all", ""] {
        let bytes = datagram(1300, text);
        give(&mut intake, &bytes);
    }
    let records = list.records.lock().unwrap();
    let seqs: Vec<_> = records.iter().map(|&(_, seq, _)| seq).collect();
    assert_eq!(seqs, [7, 0, 0]);
    assert_eq!(records[0].2, "audit(1.000:7): a=\u{fffd}\u{1}".as_bytes());
    assert_eq!(intake.summary.unstamped, 2);
}

#[test]
fn answers_of_the_kernel_are_no_records() {
    let list = List::default();
    let mut intake = Intake::new(&list, terms(0), Past::default(), at(0));
    for kind in [2, 3, 1000, 1013, kind::REPLACE] {
        let bytes = datagram(kind, "0123456789abcdef");
        assert_eq!(give(&mut intake, &bytes), []);
    }
    assert_eq!(give(&mut intake, b"short"), []);
    assert_eq!(intake.summary.takeovers, 1);
    let records = list.records.lock().unwrap();
    assert_eq!(records.len(), 1, "what is recorded is that somebody tried to take over");
}

#[test]
fn a_loss_that_shows_twice_is_stated_once() {
    let list = List::default();
    let mut intake = started(&list);
    take(&mut intake, [11, 12, 16]);
    // Three events are missing; the kernel counted five records.
    intake.status(&Status { lost: 105, ..Status::default() });
    pass(&mut intake, 0, 10);
    assert_eq!(
        said(&list),
        [
            (Cause::SerialGap, Certainty::Exactly, 3, Some((13, 15))),
            (Cause::KernelLost, Certainty::AtLeast, 2, None),
        ]
    );
    pass(&mut intake, 11, 30);
    assert_eq!(said(&list).len(), 2, "and never again");
    assert_eq!((intake.summary.lost_events, intake.summary.lost_records), (3, 2));
}

#[test]
fn a_count_that_the_gaps_explain_adds_nothing() {
    let list = List::default();
    let mut intake = started(&list);
    take(&mut intake, [11, 16]);
    intake.status(&Status { lost: 104, ..Status::default() });
    pass(&mut intake, 0, 10);
    assert_eq!(said(&list), [(Cause::SerialGap, Certainty::Exactly, 4, Some((12, 15)))]);
}

#[test]
fn events_refused_before_they_took_a_serial_are_stated_exactly() {
    let list = List::default();
    let mut intake = started(&list);
    take(&mut intake, 11..20);
    intake.status(&Status { lost: 107, ..Status::default() });
    pass(&mut intake, 0, 10);
    // Reset by someone, then one more.
    intake.status(&Status { lost: 1, ..Status::default() });
    pass(&mut intake, 11, 20);
    assert_eq!(
        said(&list),
        [
            (Cause::KernelLost, Certainty::Exactly, 7, None),
            (Cause::KernelLost, Certainty::Exactly, 1, None),
        ]
    );
}

#[test]
fn a_full_socket_is_stated_only_where_it_may_have_lost() {
    let list = List::default();
    let mut intake = started(&list);
    take(&mut intake, 11..20);
    // Five failures, then rest, then five more: every record had a try left.
    for count in [5, 5, 10, 10] {
        intake.failed_sends(count);
    }
    pass(&mut intake, 0, 10);
    assert_eq!(said(&list), []);
    intake.failed_sends(13);
    intake.failed_sends(16);
    pass(&mut intake, 11, 20);
    assert_eq!(said(&list), [(Cause::Enobufs, Certainty::AtLeast, 0, None)]);
    assert_eq!(intake.summary.overruns, 16);
}

#[test]
fn a_storm_of_gaps_is_one_statement() {
    let list = List::default();
    let mut intake = started(&list);
    take(&mut intake, (11..1011).filter(|serial| serial % 2 == 0));
    take(&mut intake, [1011]);
    pass(&mut intake, 0, 10);
    assert_eq!(said(&list), [(Cause::SerialGap, Certainty::Exactly, 500, Some((11, 1009)))]);
}

#[test]
fn a_cut_datagram_is_kept_and_stated() {
    let list = List::default();
    let mut intake = started(&list);
    let sent = [11, 12, 13].map(|serial| datagram(1400, &format!("audit(1.000:{serial}): text")));
    let whole_len = |bytes: &Vec<u8>| bytes.len() + usize::from(bytes == &sent[1]);
    let seen = intake.datagrams(sent.iter().map(|bytes| (&bytes[..], whole_len(bytes))));
    assert_eq!(seen, Ok(vec![]));
    assert_eq!(said(&list), [(Cause::InputTooLong, Certainty::Exactly, 1, Some((12, 12)))]);
    let kept: Vec<_> = list.records.lock().unwrap().iter().map(|&(_, serial, _)| serial).collect();
    assert_eq!(kept, [10, 11, 12, 13]);
    assert_eq!(intake.traffic(), 3);
}

#[test]
fn an_end_without_its_marker_is_said() {
    let list = List::default();
    let mut intake = started(&list);
    take(&mut intake, [11, 13]);
    let summary = intake.finish(13, false).expect("taken");
    assert_eq!(
        said(&list),
        [
            (Cause::SerialGap, Certainty::Exactly, 1, Some((12, 12))),
            (Cause::Undrained, Certainty::AtLeast, 0, None),
        ]
    );
    assert!(!summary.drained);
}

#[test]
fn only_our_own_process_writes_heartbeats() {
    let own = format!("audit(1.000:3): pid={PID} uid=0 ses=1 msg='{}'", heartbeat_text(12));
    assert_eq!(heartbeat_number(own.as_bytes(), PID), Some(12));
    for forged in [
        format!("audit(1.000:3): pid=78 uid=0 msg='pid={PID} msg='{}'", heartbeat_text(12)),
        format!("audit(1.000:3): pid=78 uid=0 msg='): pid={PID} x msg='{}'", heartbeat_text(12)),
        format!("audit(1.000:3): uid=0 msg='{}'", heartbeat_text(12)),
        format!("audit(1.000:3): pid={PID}"),
        String::new(),
    ] {
        assert_eq!(heartbeat_number(forged.as_bytes(), PID), None, "{forged}");
    }
}
