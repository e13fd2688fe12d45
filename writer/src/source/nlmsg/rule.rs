//! Rules, as the kernel takes and lists them.

use super::u32_at;

/// Which of the kernel's lists a rule is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleList {
    /// Judged when a task is made: by its maker's ids.
    Task,
    /// Judged when a system call ends.
    Exit,
    /// Judged when an io_uring operation ends.
    UringExit,
}

/// A condition of a rule: a field equals a value. The numbers are those of `linux/audit.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleField {
    /// The real user id of the caller.
    Uid(u32),
    /// The ABI of the call, an `AUDIT_ARCH_` number.
    Arch(u32),
    /// The audit session of the caller.
    Session(u32),
    /// The process of the caller, all of its threads.
    Pid(u32),
}

/// Words of the system call mask in a rule: calls 0 to 2047.
pub const MASK_WORDS: usize = 64;
/// Most conditions in a rule.
const FIELDS_MAX: usize = 64;

/// What a rule does where it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// It makes a record.
    Always,
    /// Nothing is recorded, whatever rules behind it say.
    Never,
    /// The same, and it is put in front of all others. To remove it, name it as one that is not.
    NeverFirst,
}

/// A rule: `struct audit_rule_data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The list it is on.
    pub list: RuleList,
    /// What it does.
    pub action: RuleAction,
    /// What must hold, all of it.
    pub fields: Vec<RuleField>,
    /// The calls that it is for, a bit each.
    pub mask: [u32; MASK_WORDS],
    /// The key in the records that it makes.
    pub key: String,
}

impl Rule {
    /// The payload of `AUDIT_ADD_RULE` and `AUDIT_DEL_RULE`; `None` if there are more conditions
    /// than a rule has room for or the key is longer than the kernel takes (256 bytes).
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        const PREPEND: u32 = 0x10;
        const OPERATOR_EQUAL: u32 = 0x4000_0000;
        const FIELD_KEY: u32 = 210;
        const KEY_BYTES_MAX: usize = 256;
        if self.fields.len() + 1 > FIELDS_MAX || self.key.len() > KEY_BYTES_MAX {
            return None;
        }
        let list = match self.list {
            RuleList::Task => 1,
            RuleList::Exit => 4,
            RuleList::UringExit => 7,
        };
        let (flags, action) = match self.action {
            RuleAction::Always => (list, 2),
            RuleAction::Never => (list, 0),
            RuleAction::NeverFirst => (list | PREPEND, 0),
        };
        let mut fields = [0_u32; FIELDS_MAX];
        let mut values = [0_u32; FIELDS_MAX];
        let mut operators = [0_u32; FIELDS_MAX];
        let conditions = self.fields.iter().map(|field| match *field {
            RuleField::Uid(uid) => (1, uid),
            RuleField::Arch(arch) => (11, arch),
            RuleField::Session(session) => (25, session),
            RuleField::Pid(pid) => (0, pid),
        });
        // The value of a text condition is the text's length; the text itself stands at the end.
        let key_len = self.key.len() as u32;
        let mut count = 0;
        for (field, value) in conditions.chain([(FIELD_KEY, key_len)]) {
            fields[count] = field;
            values[count] = value;
            operators[count] = OPERATOR_EQUAL;
            count += 1;
        }
        let words = [flags, action, count as u32]
            .into_iter()
            .chain(self.mask)
            .chain(fields)
            .chain(values)
            .chain(operators)
            .chain([key_len]);
        let mut payload: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        payload.extend_from_slice(self.key.as_bytes());
        Some(payload)
    }
}

/// The process that a rule as the kernel lists it is for, if that and this key are all its conditions.
#[must_use]
pub fn pid_of_rule(rule: &[u8], key: &str) -> Option<u32> {
    let word = |index: usize| u32_at(rule, 4 * index);
    let key_len = word(259)? as usize;
    let conditions = (word(2)?, word(67)?, word(68)?);
    (conditions == (2, 0, 210) && rule.get(1040..)?.get(..key_len)? == key.as_bytes())
        .then(|| word(131))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_the_layout_of_the_kernel() {
        let rule = Rule {
            list: RuleList::Exit,
            action: RuleAction::Always,
            fields: vec![RuleField::Arch(0xc000_003e), RuleField::Session(7)],
            mask: [u32::MAX; MASK_WORDS],
            key: "graven".into(),
        };
        let bytes = rule.encode().expect("fits");
        assert_eq!(bytes.len(), 1040 + 6, "sizeof(struct audit_rule_data) and the key");
        let word = |index: usize| u32_at(&bytes, 4 * index).expect("inside");
        assert_eq!([word(0), word(1), word(2)], [4, 2, 3]);
        assert_eq!([word(67), word(68), word(69)], [11, 25, 210]);
        assert_eq!([word(131), word(132), word(133)], [0xc000_003e, 7, 6]);
        assert_eq!([word(195), word(196), word(197)], [0x4000_0000; 3]);
        assert_eq!(word(259), 6);
        assert_eq!(&bytes[1040..], b"graven");
        let first = Rule {
            action: RuleAction::NeverFirst,
            fields: vec![RuleField::Pid(9)],
            ..rule.clone()
        };
        let bytes_first = first.encode().expect("fits");
        let word = |index: usize| u32_at(&bytes_first, 4 * index).expect("inside");
        assert_eq!([word(0), word(1), word(2), word(67), word(131)], [0x14, 0, 2, 0, 9]);
        assert_eq!(pid_of_rule(&bytes_first, "graven"), Some(9));
        assert_eq!(pid_of_rule(&bytes_first, "craven"), None);
        assert_eq!(pid_of_rule(&bytes_first[..1042], "graven"), None);
        assert_eq!(pid_of_rule(&bytes, "graven"), None, "it is for a session");
        let task = Rule { list: RuleList::Task, action: RuleAction::Never, ..rule.clone() };
        let bytes_task = task.encode().expect("fits");
        assert_eq!([u32_at(&bytes_task, 0), u32_at(&bytes_task, 4)], [Some(1), Some(0)]);
        assert_eq!(Rule { key: "k".repeat(257), ..rule.clone() }.encode(), None);
        assert_eq!(Rule { fields: vec![RuleField::Uid(0); 64], ..rule }.encode(), None);
    }
}
