//! Audit text made up, the same each time.

/// One record of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The audit message type.
    pub kind: u16,
    /// The event's serial.
    pub serial: u32,
    /// The message, from `audit(` on.
    pub text: Vec<u8>,
}

/// `AUDIT_SYSCALL`, `AUDIT_CWD`, `AUDIT_PATH` and `AUDIT_PROCTITLE`: the records of one event.
const KINDS: [u16; 4] = [1300, 1307, 1302, 1327];

/// Opens of files by a few programs, four records each, whose numbers differ as a kernel's do.
#[must_use]
pub fn events(count: u32) -> Vec<Line> {
    let mut state = 7_u64;
    let mut below = |n: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let programs = ["cat", "sh", "python3", "sshd", "systemd", "cron", "git", "find"];
    let mut lines = Vec::new();
    for serial in 1_000_000..1_000_000 + count {
        let program = programs[below(8) as usize];
        let (pid, items) = (10_000 + below(2000), 1);
        let stamp =
            format!("audit(17955267{:02}.{:03}:{serial}):", serial / 1000 % 100, serial % 1000);
        let (a1, exit, uid) = (0x7ffc_0000_0000 + below(1 << 28), below(40), below(3) * 500);
        let texts = [
            format!(
                "{stamp} arch=c000003e syscall=257 success=yes exit={exit} a0=ffffff9c a1={a1:x} a2=80000 a3=0 \
                 items={items} ppid={} pid={pid} auid={uid} uid={uid} gid={uid} euid={uid} suid={uid} fsuid={uid} \
                 egid={uid} sgid={uid} fsgid={uid} tty=(none) ses={} comm=\"{program}\" exe=\"/usr/bin/{program}\" \
                 key=\"files\"",
                pid - 1 - below(50),
                below(30)
            ),
            format!("{stamp} cwd=\"/home/user{}\"", below(20)),
            format!(
                "{stamp} item=0 name=\"/usr/share/{program}/part{:x}/file{}.conf\" inode={} dev=fe:00 mode=0100644 \
                 ouid={uid} ogid={uid} rdev=00:00 nametype=NORMAL cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0",
                below(4096),
                below(500),
                300_000 + below(900_000)
            ),
            format!("{stamp} proctitle=2F7573722F62696E2F{:010X}", below(1 << 40)),
        ];
        let line = |(kind, text): (u16, String)| Line { kind, serial, text: text.into_bytes() };
        lines.extend(KINDS.into_iter().zip(texts).map(line));
    }
    lines
}
