//! Audit record types: the numbers that the kernel and its user space send, and their names.
//!
//! The names are those that audit logs print after `type=`: the macro of `linux/audit.h` or of
//! the audit daemon's headers without its `AUDIT_` in front, except 1500, which logs call
//! `APPARMOR`. A number without a name prints as `UNKNOWN[n]`, as the audit daemon does.

use core::fmt;

/// `SYSCALL`: the record that opens a system call's event.
pub const SYSCALL: u16 = 1300;
/// `CONFIG_CHANGE`: a change of the audit system itself.
pub const CONFIG_CHANGE: u16 = 1305;
/// `EOE`: the record that ends a system call's event.
pub const EOE: u16 = 1320;
/// `REPLACE`: the kernel asks whether the registered daemon is alive. Not a record.
pub const REPLACE: u16 = 1329;
/// `URINGOP`: an io_uring operation.
pub const URINGOP: u16 = 1336;
/// `TRUSTED_APP`: free text of a trusted program; Graven's heartbeats are of this type.
pub const TRUSTED_APP: u16 = 1121;
/// `DAEMON_ERR`: an error inside the audit daemon; a loss statement is a record of this type.
pub const DAEMON_ERR: u16 = 1209;

/// Every known type, ascending, so that a number is found by bisection.
#[rustfmt::skip]
const KINDS: &[(u16, &str)] = &[
    // Commands of the audit system; some of them also appear as records.
    (1000, "GET"), (1001, "SET"), (1002, "LIST"), (1003, "ADD"), (1004, "DEL"), (1005, "USER"),
    (1006, "LOGIN"), (1007, "WATCH_INS"), (1008, "WATCH_REM"), (1009, "WATCH_LIST"),
    (1010, "SIGNAL_INFO"), (1011, "ADD_RULE"), (1012, "DEL_RULE"), (1013, "LIST_RULES"),
    (1014, "TRIM"), (1015, "MAKE_EQUIV"), (1016, "TTY_GET"), (1017, "TTY_SET"),
    (1018, "SET_FEATURE"), (1019, "GET_FEATURE"),
    // Trusted programs of user space.
    (1100, "USER_AUTH"), (1101, "USER_ACCT"), (1102, "USER_MGMT"), (1103, "CRED_ACQ"),
    (1104, "CRED_DISP"), (1105, "USER_START"), (1106, "USER_END"), (1107, "USER_AVC"),
    (1108, "USER_CHAUTHTOK"), (1109, "USER_ERR"), (1110, "CRED_REFR"), (1111, "USYS_CONFIG"),
    (1112, "USER_LOGIN"), (1113, "USER_LOGOUT"), (1114, "ADD_USER"), (1115, "DEL_USER"),
    (1116, "ADD_GROUP"), (1117, "DEL_GROUP"), (1118, "DAC_CHECK"), (1119, "CHGRP_ID"),
    (1120, "TEST"), (1121, "TRUSTED_APP"), (1122, "USER_SELINUX_ERR"), (1123, "USER_CMD"),
    (1124, "USER_TTY"), (1125, "CHUSER_ID"), (1126, "GRP_AUTH"), (1127, "SYSTEM_BOOT"),
    (1128, "SYSTEM_SHUTDOWN"), (1129, "SYSTEM_RUNLEVEL"), (1130, "SERVICE_START"),
    (1131, "SERVICE_STOP"), (1132, "GRP_MGMT"), (1133, "GRP_CHAUTHTOK"), (1134, "MAC_CHECK"),
    (1135, "ACCT_LOCK"), (1136, "ACCT_UNLOCK"), (1137, "USER_DEVICE"), (1138, "SOFTWARE_UPDATE"),
    // The audit daemon itself.
    (1200, "DAEMON_START"), (1201, "DAEMON_END"), (1202, "DAEMON_ABORT"), (1203, "DAEMON_CONFIG"),
    (1204, "DAEMON_RECONFIG"), (1205, "DAEMON_ROTATE"), (1206, "DAEMON_RESUME"),
    (1207, "DAEMON_ACCEPT"), (1208, "DAEMON_CLOSE"), (1209, "DAEMON_ERR"),
    // Events.
    (1300, "SYSCALL"), (1301, "FS_WATCH"), (1302, "PATH"), (1303, "IPC"), (1304, "SOCKETCALL"),
    (1305, "CONFIG_CHANGE"), (1306, "SOCKADDR"), (1307, "CWD"), (1308, "FS_INODE"),
    (1309, "EXECVE"), (1311, "IPC_SET_PERM"), (1312, "MQ_OPEN"), (1313, "MQ_SENDRECV"),
    (1314, "MQ_NOTIFY"), (1315, "MQ_GETSETATTR"), (1316, "KERNEL_OTHER"), (1317, "FD_PAIR"),
    (1318, "OBJ_PID"), (1319, "TTY"), (1320, "EOE"), (1321, "BPRM_FCAPS"), (1322, "CAPSET"),
    (1323, "MMAP"), (1324, "NETFILTER_PKT"), (1325, "NETFILTER_CFG"), (1326, "SECCOMP"),
    (1327, "PROCTITLE"), (1328, "FEATURE_CHANGE"), (1329, "REPLACE"), (1330, "KERN_MODULE"),
    (1331, "FANOTIFY"), (1332, "TIME_INJOFFSET"), (1333, "TIME_ADJNTPVAL"), (1334, "BPF"),
    (1335, "EVENT_LISTENER"), (1336, "URINGOP"), (1337, "OPENAT2"), (1338, "DM_CTRL"),
    (1339, "DM_EVENT"),
    // SELinux and the other mandatory access controls.
    (1400, "AVC"), (1401, "SELINUX_ERR"), (1402, "AVC_PATH"), (1403, "MAC_POLICY_LOAD"),
    (1404, "MAC_STATUS"), (1405, "MAC_CONFIG_CHANGE"), (1406, "MAC_UNLBL_ALLOW"),
    (1407, "MAC_CIPSOV4_ADD"), (1408, "MAC_CIPSOV4_DEL"), (1409, "MAC_MAP_ADD"),
    (1410, "MAC_MAP_DEL"), (1411, "MAC_IPSEC_ADDSA"), (1412, "MAC_IPSEC_DELSA"),
    (1413, "MAC_IPSEC_ADDSPD"), (1414, "MAC_IPSEC_DELSPD"), (1415, "MAC_IPSEC_EVENT"),
    (1416, "MAC_UNLBL_STCADD"), (1417, "MAC_UNLBL_STCDEL"), (1418, "MAC_CALIPSO_ADD"),
    (1419, "MAC_CALIPSO_DEL"), (1420, "IPE_ACCESS"), (1421, "IPE_CONFIG_CHANGE"),
    (1422, "IPE_POLICY_LOAD"), (1423, "LANDLOCK_ACCESS"), (1424, "LANDLOCK_DOMAIN"),
    (1425, "MAC_TASK_CONTEXTS"), (1426, "MAC_OBJ_CONTEXTS"),
    // AppArmor.
    (1500, "APPARMOR"), (1501, "APPARMOR_AUDIT"), (1502, "APPARMOR_ALLOWED"),
    (1503, "APPARMOR_DENIED"), (1504, "APPARMOR_HINT"), (1505, "APPARMOR_STATUS"),
    (1506, "APPARMOR_ERROR"), (1507, "APPARMOR_KILL"),
    // Kernel anomalies.
    (1700, "ANOM_PROMISCUOUS"), (1701, "ANOM_ABEND"), (1702, "ANOM_LINK"), (1703, "ANOM_CREAT"),
    // Integrity.
    (1800, "INTEGRITY_DATA"), (1801, "INTEGRITY_METADATA"), (1802, "INTEGRITY_STATUS"),
    (1803, "INTEGRITY_HASH"), (1804, "INTEGRITY_PCR"), (1805, "INTEGRITY_RULE"),
    (1806, "INTEGRITY_EVM_XATTR"), (1807, "INTEGRITY_POLICY_RULE"), (1808, "INTEGRITY_USERSPACE"),
    // Kernel text without an event.
    (2000, "KERNEL"),
    // Anomalies found by user space.
    (2100, "ANOM_LOGIN_FAILURES"), (2101, "ANOM_LOGIN_TIME"), (2102, "ANOM_LOGIN_SESSIONS"),
    (2103, "ANOM_LOGIN_ACCT"), (2104, "ANOM_LOGIN_LOCATION"), (2105, "ANOM_MAX_DAC"),
    (2106, "ANOM_MAX_MAC"), (2107, "ANOM_AMTU_FAIL"), (2108, "ANOM_RBAC_FAIL"),
    (2109, "ANOM_RBAC_INTEGRITY_FAIL"), (2110, "ANOM_CRYPTO_FAIL"), (2111, "ANOM_ACCESS_FS"),
    (2112, "ANOM_EXEC"), (2113, "ANOM_MK_EXEC"), (2114, "ANOM_ADD_ACCT"), (2115, "ANOM_DEL_ACCT"),
    (2116, "ANOM_MOD_ACCT"), (2117, "ANOM_ROOT_TRANS"), (2118, "ANOM_LOGIN_SERVICE"),
    (2119, "ANOM_LOGIN_ROOT"), (2120, "ANOM_ORIGIN_FAILURES"), (2121, "ANOM_SESSION"),
    // Answers to anomalies.
    (2200, "RESP_ANOMALY"), (2201, "RESP_ALERT"), (2202, "RESP_KILL_PROC"),
    (2203, "RESP_TERM_ACCESS"), (2204, "RESP_ACCT_REMOTE"), (2205, "RESP_ACCT_LOCK_TIMED"),
    (2206, "RESP_ACCT_UNLOCK_TIMED"), (2207, "RESP_ACCT_LOCK"), (2208, "RESP_TERM_LOCK"),
    (2209, "RESP_SEBOOL"), (2210, "RESP_EXEC"), (2211, "RESP_SINGLE"), (2212, "RESP_HALT"),
    (2213, "RESP_ORIGIN_BLOCK"), (2214, "RESP_ORIGIN_BLOCK_TIMED"),
    (2215, "RESP_ORIGIN_UNBLOCK_TIMED"),
    // Labelled security.
    (2300, "USER_ROLE_CHANGE"), (2301, "ROLE_ASSIGN"), (2302, "ROLE_REMOVE"),
    (2303, "LABEL_OVERRIDE"), (2304, "LABEL_LEVEL_CHANGE"), (2305, "USER_LABELED_EXPORT"),
    (2306, "USER_UNLABELED_EXPORT"), (2307, "DEV_ALLOC"), (2308, "DEV_DEALLOC"),
    (2309, "FS_RELABEL"), (2310, "USER_MAC_POLICY_LOAD"), (2311, "ROLE_MODIFY"),
    (2312, "USER_MAC_CONFIG_CHANGE"), (2313, "USER_MAC_STATUS"),
    // Cryptography of user space.
    (2400, "CRYPTO_TEST_USER"), (2401, "CRYPTO_PARAM_CHANGE_USER"), (2402, "CRYPTO_LOGIN"),
    (2403, "CRYPTO_LOGOUT"), (2404, "CRYPTO_KEY_USER"), (2405, "CRYPTO_FAILURE_USER"),
    (2406, "CRYPTO_REPLAY_USER"), (2407, "CRYPTO_SESSION"), (2408, "CRYPTO_IKE_SA"),
    (2409, "CRYPTO_IPSEC_SA"),
    // Virtual machines and containers.
    (2500, "VIRT_CONTROL"), (2501, "VIRT_RESOURCE"), (2502, "VIRT_MACHINE_ID"),
    (2503, "VIRT_INTEGRITY_CHECK"), (2504, "VIRT_CREATE"), (2505, "VIRT_DESTROY"),
    (2506, "VIRT_MIGRATE_IN"), (2507, "VIRT_MIGRATE_OUT"),
];

/// The name of a type number, or `None` if no header known here gives it one.
#[must_use]
pub fn name(kind: u16) -> Option<&'static str> {
    let index = KINDS.binary_search_by_key(&kind, |&(number, _)| number).ok()?;
    Some(KINDS[index].1)
}

/// The number of a type name in capitals, or of the text `UNKNOWN[n]`.
#[must_use]
pub fn from_name(name: &str) -> Option<u16> {
    if let Some(number) = name.strip_prefix("UNKNOWN[").and_then(|rest| rest.strip_suffix(']')) {
        // `parse` would also take a sign.
        return number
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| number.parse().ok())
            .flatten();
    }
    KINDS.iter().find(|&&(_, known)| known == name).map(|&(number, _)| number)
}

/// Every known type and its name, ascending by number.
pub fn all() -> impl Iterator<Item = (u16, &'static str)> {
    KINDS.iter().copied()
}

/// A type number that prints as its name, or as `UNKNOWN[n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u16);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(self.0) {
            Some(name) => f.pad(name),
            None => write!(f, "UNKNOWN[{}]", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn the_table_is_ascending_and_names_are_unique() {
        assert!(KINDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for &(number, text) in KINDS {
            assert_eq!(name(number), Some(text));
            assert_eq!(from_name(text), Some(number), "{text}");
        }
    }

    #[test]
    fn an_unknown_number_prints_as_the_audit_daemon_prints_it() {
        assert_eq!(Kind(1300).to_string(), "SYSCALL");
        assert_eq!(Kind(1999).to_string(), "UNKNOWN[1999]");
        assert_eq!(from_name("UNKNOWN[1999]"), Some(1999));
        for wrong in ["UNKNOWN[+5]", "UNKNOWN[]", "UNKNOWN[70000]", "UNKNOWN[1", "syscall", ""] {
            assert_eq!(from_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_named_constants_agree_with_the_table() {
        for (number, text) in [
            (SYSCALL, "SYSCALL"),
            (CONFIG_CHANGE, "CONFIG_CHANGE"),
            (EOE, "EOE"),
            (REPLACE, "REPLACE"),
            (URINGOP, "URINGOP"),
            (TRUSTED_APP, "TRUSTED_APP"),
            (DAEMON_ERR, "DAEMON_ERR"),
        ] {
            assert_eq!(name(number), Some(text));
        }
    }

    /// The names that this machine's `ausearch -m` knows; an oracle that is not ours.
    #[test]
    fn every_name_that_ausearch_knows_is_known_here() {
        let Ok(output) = std::process::Command::new("ausearch").arg("-m").output() else {
            std::eprintln!("SKIPPED: ausearch is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr);
        let Some((_, names)) = text.split_once("Valid message types are: ALL ") else {
            std::eprintln!("SKIPPED: ausearch -m does not list its types here");
            return;
        };
        assert!(names.split_whitespace().count() > 150, "the list was read");
        for known in names.split_whitespace() {
            assert!(from_name(known).is_some(), "{known} is missing");
        }
    }

    /// The numbers that this machine's kernel header gives.
    #[test]
    fn every_number_of_the_kernel_header_has_its_name() {
        let Ok(header) = std::fs::read_to_string("/usr/include/linux/audit.h") else {
            std::eprintln!("SKIPPED: no /usr/include/linux/audit.h");
            return;
        };
        let mut seen = 0;
        for line in header.lines() {
            let mut words = line.split_whitespace();
            let (Some("#define"), Some(macro_name), Some(number)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Some(text), Ok(number)) =
                (macro_name.strip_prefix("AUDIT_"), number.parse::<u16>())
            else {
                continue;
            };
            let bound = text.starts_with("FIRST_") || text.starts_with("LAST_");
            if (1000..3000).contains(&number) && !bound {
                assert_eq!(name(number), Some(text), "{number}");
                seen += 1;
            }
        }
        assert!(seen > 80, "the header was read: {seen}");
    }
}
