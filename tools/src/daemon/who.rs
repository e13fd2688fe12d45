//! Who this process is, and who has signalled it, in the words of audit.

use graven_writer::own::Own;
use graven_writer::source::kaudit;
use signal_hook::low_level::siginfo::Origin;

/// A login uid, or a session, that is not set.
pub const UNSET: u32 = u32::MAX;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The login uid; [`UNSET`] if there was no login or it is not known.
    pub auid: u32,
    /// The uid.
    pub uid: u32,
    /// The process; 0 if it is not known.
    pub pid: u32,
    /// The audit session; [`UNSET`] if there is none or it is not known.
    pub ses: u32,
    /// The security context; empty if there is none or it is not known.
    pub subj: Vec<u8>,
}

impl Who {
    /// This process.
    #[must_use]
    pub fn myself() -> Self {
        Self::of(std::process::id(), rustix::process::getuid().as_raw())
    }

    /// Nobody that is known.
    #[must_use]
    pub fn nobody() -> Self {
        Self { auid: UNSET, uid: UNSET, pid: 0, ses: UNSET, subj: Vec::new() }
    }

    /// A process, as far as it can still be asked about.
    fn of(pid: u32, uid: u32) -> Self {
        let file = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).ok();
        let number = |name: &str| {
            let text = String::from_utf8(file(name)?).ok()?;
            text.trim().parse().ok()
        };
        let subj = file("attr/current").unwrap_or_default();
        let auid = number("loginuid").unwrap_or(UNSET);
        Self { auid, uid, pid, ses: number("sessionid").unwrap_or(UNSET), subj }
    }

    /// Who sent a signal: what came with it, and what that process says of itself, if it is still there.
    #[must_use]
    pub fn sent(origin: &Origin) -> Self {
        let process = origin.process.as_ref();
        let pid = process.and_then(|process| u32::try_from(process.pid).ok());
        match (process, pid) {
            (Some(process), Some(pid @ 1..)) => Self::of(pid, process.uid),
            _ => Self::nobody(),
        }
    }

    /// The same with what the kernel's audit says, which knows it also of a process that is gone. It keeps the last
    /// signaller of the registered daemon only, so that what it says is of use if it is of the same process.
    #[must_use]
    pub fn signalled(origin: &Origin) -> Self {
        let mut who = Self::sent(origin);
        if let Ok(info) = kaudit::signal_info()
            && info.pid == who.pid
        {
            // Where there was no login, the kernel says the uid.
            let is_login = who.auid != UNSET || info.uid != who.uid;
            who.auid = if is_login { info.uid } else { UNSET };
            who.subj = info.context;
        }
        who
    }

    /// The same in a record: the fields of auditd's that say who asked for something.
    #[must_use]
    pub fn asked(&self, own: Own) -> Own {
        self.subject(own.field("auid", signed(self.auid)).field("pid", self.pid_text()))
    }

    /// The same with uid and session, as in auditd's record of its end.
    #[must_use]
    pub fn ended(&self, own: Own) -> Own {
        let own = own.field("auid", signed(self.auid)).field("uid", signed(self.uid));
        self.subject(own.field("ses", signed(self.ses)).field("pid", self.pid_text()))
    }

    /// The same as of the daemon itself, as in auditd's record of its start.
    #[must_use]
    pub fn started(&self, own: Own) -> Own {
        let own = own.field("auid", self.auid).field("pid", self.pid_text());
        self.subject(own.field("uid", self.uid).field("ses", self.ses))
    }

    fn pid_text(&self) -> String {
        if self.pid == 0 { "-1".to_owned() } else { self.pid.to_string() }
    }

    /// A context is a word that its security module made; what is none is not written.
    fn subject(&self, own: Own) -> Own {
        let end = self.subj.iter().position(|byte| matches!(byte, 0 | b'\n'));
        let word = &self.subj[..end.unwrap_or(self.subj.len())];
        let is_word = !word.is_empty()
            && word
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'='));
        own.field("subj", if is_word { String::from_utf8_lossy(word) } else { "?".into() })
    }
}

/// A number as auditd writes one that is not known.
fn signed(number: u32) -> i64 {
    if number == UNSET { -1 } else { number.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_writer::clock::Now;
    use graven_writer::own;

    fn text(own: &Own) -> String {
        let record = own.record();
        let text = String::from_utf8_lossy(record.bytes).into_owned();
        text.split_once(": ").expect("audit's form").1.to_owned()
    }

    #[test]
    fn somebody_is_written_as_auditd_does() {
        let at = Now { realtime_ns: 0, boottime_ns: 0 };
        let subj = b"system_u:system_r:auditd_t:s0\0".to_vec();
        let who = Who { auid: 1000, uid: 0, pid: 7, ses: 3, subj };
        assert_eq!(
            text(&who.ended(Own::new(own::END, "terminate", at)).result(true)),
            "op=terminate auid=1000 uid=0 ses=3 pid=7 subj=system_u:system_r:auditd_t:s0 res=success"
        );
        assert_eq!(
            text(&Who::nobody().asked(Own::new(own::ROTATE, "rotate-logs", at)).result(true)),
            "op=rotate-logs auid=-1 pid=-1 subj=? res=success"
        );
        let forged = Who { subj: b"x res=success".to_vec(), ..who };
        assert!(text(&forged.asked(Own::new(own::RESUME, "x", at))).ends_with("subj=?"));
    }

    #[test]
    fn this_process_is_somebody() {
        let myself = Who::myself();
        assert_eq!(myself.pid, std::process::id());
        assert_eq!(myself.uid, rustix::process::getuid().as_raw());
    }
}
