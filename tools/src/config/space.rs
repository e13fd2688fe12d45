use super::schema::section;
use super::value::{Bytes, Every, Number, Problem, Time, Value, quoted};
use crate::recording::open::parse_bytes;
use graven_writer::policy::{Action, Condition, Limit, Settings, Threshold};
use graven_writer::retention::Keep;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use toml::de::DeValue;

section! {
    /// Space, and what is done when it is short or storage fails. The names are auditd's. Each action is taken once
    /// when its condition begins, and is a record in the trail. An action is "ignore", "log" (syslog and standard
    /// error), "email", "exec PATH", "block" (producers wait), "single", "halt", "panic" or "drop".
    pub struct SpaceSection in "space" {
        /// Less free room than this on the trail's filesystem is the first alarm.
        [reload] space_left: Threshold = Threshold::Percent(25);
        /// What is done once when less is free than space_left.
        [reload] space_left_action: Action = Action::Log;
        /// Less than this is the second one: what is left is for the administrator's own work.
        [reload] admin_space_left: Threshold = Threshold::Percent(5);
        /// What is done once when less is free than admin_space_left.
        [reload] admin_space_left_action: Action = Action::Log;
        /// What is done when there is no room for another segment. Producers wait whatever it is, unless it is "drop".
        [reload] disk_full_action: Action = Action::Block;
        /// What is done when a write or a barrier fails. The writer ends whatever it is.
        [reload] disk_error_action: Action = Action::Log;
        /// What is done, beside what netlink.ring_full says of producers, when the memory in which the kernel's records wait
        /// for the disk is nearly full.
        [reload] ring_full_action: Action = Action::Log;
        /// What is done when records were lost before they reached the trail.
        [reload] upstream_loss_action: Action = Action::Log;
        /// How long durable records may be under no checkpoint of a signed trail.
        [reload] checkpoint_overdue: Every<1000, 86_400_000> = Every(Some(Duration::from_secs(60)));
        /// What is done when they are for longer.
        [reload] checkpoint_overdue_action: Action = Action::Log;
        /// Room that is kept for what must be recorded when the disk is full: what was accepted by then, graven's own
        /// records, and those of exempt producers. "auto" is the ring and two segments.
        [restart] reserve: ReserveSize = ReserveSize::Auto;
        /// Remove the oldest sealed segments when there are more segments than this.
        [reload] keep: Option<Number<4, 1_000_000_000>> = None, like "1000";
        /// Remove the oldest sealed segments when all take more bytes than this.
        [reload] max_total: Option<Bytes<{ 4 << 20 }, { 1 << 60 }>> = None, like "\"100G\"";
        /// Remove sealed segments whose newest record is older than this.
        [reload] max_age: Option<Time<60_000, 3_153_600_000_000>> = None, like "\"365d\"";
        /// Who gets the mail of the action "email", by the system's sendmail.
        [reload] action_mail_acct: String = "root".to_owned();
        /// How long a program of "exec" may take before it is killed.
        [reload] exec_timeout: Time<100, 3_600_000> = Time(Duration::from_secs(30));
        /// Whether "panic" may be an action: it crashes the kernel at once.
        [reload] allow_panic: bool = false;
    }
}

/// How much room the reserve keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveSize {
    /// The ring, and two segments.
    Auto,
    /// There is none.
    Off,
    /// So many bytes.
    Bytes(u64),
}

impl fmt::Display for ReserveSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Bytes(bytes) if bytes.is_multiple_of(1 << 20) => write!(f, "{}M", bytes >> 20),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl FromStr for ReserveSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => parse_bytes(text).map(Self::Bytes).map_err(|why| format!("auto, off, or {why}")),
        }
    }
}

/// Values that are read from a text and written as one.
macro_rules! by_text {
    ($($Type:ty: $takes:expr;)+) => {$(
        impl Value for $Type {
            fn takes() -> String {
                $takes.to_owned()
            }

            fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
                // A number without a unit may stand without quotes.
                let text = match value.as_integer() {
                    Some(number) if number.radix() == 10 => number.as_str().to_owned(),
                    _ => String::read(value)?,
                };
                text.parse::<Self>().map_err(|why| why.to_string())
            }

            fn write(&self) -> Option<String> {
                Some(quoted(&self.to_string()))
            }
        }
    )+};
}

by_text! {
    Threshold: "MiB as a number or as a text with M, or a text with %, \"1%\" to \"99%\"";
    Action: "\"ignore\", \"log\", \"email\", \"exec PATH\", \"block\", \"single\", \"halt\", \"panic\" or \"drop\"";
    ReserveSize: "\"auto\", \"off\", or bytes as a number or as a text with K, M or G";
}

impl SpaceSection {
    /// Bytes of the reserve for a writer with such a ring and such segments.
    #[must_use]
    pub fn reserve_bytes(&self, ring_bytes: u64, segment_bytes: u64) -> u64 {
        match self.reserve {
            ReserveSize::Auto => least_reserve(ring_bytes, segment_bytes),
            ReserveSize::Off => 0,
            ReserveSize::Bytes(bytes) => bytes,
        }
    }

    /// What of the trail is to be kept.
    #[must_use]
    pub fn keep_what(&self) -> Keep {
        let ns = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        Keep {
            segments: self.keep.map(|it| it.0.unsigned_abs()),
            bytes: self.max_total.map(|it| it.0),
            age_ns: self.max_age.map(|it| ns(it.0)),
        }
    }

    /// What the state machine is told, for a writer with such a ring and such segments.
    ///
    /// # Errors
    /// What does not fit together, with the key in front.
    pub fn settings(&self, ring_bytes: u64, segment_bytes: u64) -> Result<Settings, String> {
        let limit = |below, action: &Action| Some(Limit { below, action: action.clone() });
        let overdue_ns = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        let settings = Settings {
            space_left: limit(self.space_left, &self.space_left_action),
            admin_space_left: limit(self.admin_space_left, &self.admin_space_left_action),
            disk_full: self.disk_full_action.clone(),
            disk_error: self.disk_error_action.clone(),
            ring_full: self.ring_full_action.clone(),
            upstream_loss: self.upstream_loss_action.clone(),
            checkpoint_overdue: self
                .checkpoint_overdue
                .0
                .map(|it| (overdue_ns(it), self.checkpoint_overdue_action.clone())),
            reserve_bytes: self.reserve_bytes(ring_bytes, segment_bytes),
            segment_bytes,
        };
        for condition in Condition::ALL {
            let Some(action) = settings.action(condition) else { continue };
            let key = condition.name();
            if let Some(why) = condition.refuses(action) {
                return Err(format!("{key}_action: {action} is no action for it: {why}"));
            }
            if *action == Action::Panic && !self.allow_panic {
                return Err(format!("{key}_action: panic has to be allowed by allow_panic too"));
            }
        }
        let both = (self.space_left, self.admin_space_left);
        if let (Threshold::Mib(first), Threshold::Mib(second)) = both
            && first <= second
        {
            return Err(format!(
                "space_left ({first}M) has to be more than admin_space_left ({second}M)"
            ));
        }
        if let (Threshold::Percent(first), Threshold::Percent(second)) = both
            && first <= second
        {
            return Err(format!(
                "space_left ({first}%) has to be more than admin_space_left ({second}%)"
            ));
        }
        let least = least_reserve(ring_bytes, segment_bytes);
        if (1..least).contains(&settings.reserve_bytes) {
            return Err(format!(
                "reserve: {} bytes do not hold the ring and two segments, which are {least}: nothing would be left \
                 for graven's own records",
                settings.reserve_bytes
            ));
        }
        Ok(settings)
    }
}

/// What was accepted when the disk was full may fill as many segments as the ring has bytes for, and one more begun; what
/// comes then needs one.
fn least_reserve(ring_bytes: u64, segment_bytes: u64) -> u64 {
    ring_bytes.next_multiple_of(segment_bytes.max(1)) + 2 * segment_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::parse;

    const MIB: u64 = 1 << 20;

    fn space(text: &str) -> SpaceSection {
        parse(&format!("[space]\n{text}\n")).expect("it is right").space
    }

    #[test]
    fn the_defaults_fit_together_and_keep_the_ring_and_two_segments() {
        let settings = SpaceSection::default().settings(64 * MIB, 64 * MIB).expect("they fit");
        assert_eq!(settings.reserve_bytes, 192 * MIB);
        assert_eq!(settings.disk_full, Action::Block);
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let read = space(
            "space_left = 75\nadmin_space_left = \"50M\"\nspace_left_action = \"exec /bin/x\"\nreserve = \"off\"",
        );
        assert_eq!(
            (read.space_left, read.admin_space_left),
            (Threshold::Mib(75), Threshold::Mib(50))
        );
        assert_eq!(read.space_left_action, Action::Exec("/bin/x".into()));
        assert_eq!(read.reserve_bytes(MIB, MIB), 0);
        assert_eq!(space("disk_full_action = \"SUSPEND\"").disk_full_action, Action::Block);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        for (text, key) in [
            ("space_left = 10\nadmin_space_left = 10", "space_left"),
            ("space_left = \"3%\"\nadmin_space_left = \"5%\"", "space_left"),
            ("disk_error_action = \"block\"", "disk_error_action"),
            ("space_left_action = \"drop\"", "space_left_action"),
            ("disk_full_action = \"panic\"", "disk_full_action"),
            ("reserve = \"1M\"", "reserve"),
        ] {
            let why = space(text).settings(MIB, MIB).expect_err(text);
            assert!(why.starts_with(key), "{why}");
        }
        assert!(
            space("disk_full_action = \"panic\"\nallow_panic = true").settings(MIB, MIB).is_ok()
        );
        assert!(parse("[space]\nspace_left_action = \"rotate\"\n").is_err());
        assert!(parse("[space]\nspace_left = \"100%\"\n").is_err());
    }
}
