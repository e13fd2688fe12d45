//! The configuration of the daemon: a TOML file, one file here a section.
//!
//! A section is one file with one `section!` in it (see [`schema`]) and one line in the `sections!` below. All else
//! follows: reading with an error a wrong key, the sample of `graven config show-default`, `graven config explain`,
//! and what a reload changes.

pub mod given;
pub mod import;
pub mod read;
pub mod schema;
pub mod text;
pub mod value;

mod checkpoint;
mod netlink;
mod process;
mod shim;
mod socket;
mod space;
mod status;
mod trail;

pub use checkpoint::CheckpointSection;
pub use netlink::NetlinkSection;
pub use process::ProcessSection;
pub use shim::{ShimSection, Slots};
pub use socket::SocketSection;
pub use space::{ReserveSize, SpaceSection};
pub use status::StatusSection;
pub use trail::TrailSection;

use schema::{Effect, Key, Section};
use toml::de::DeValue;
use value::Problem;

/// Lists the sections, each with the name of its field.
macro_rules! sections {
    ($( $(#[doc = $doc:literal])+ $field:ident: $Section:ty, )+) => {
        /// The whole configuration.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config {
            $( $(#[doc = $doc])+ pub $field: $Section, )+
        }

        impl Config {
            /// Every section: its name, what it is about, and its keys.
            #[must_use]
            pub fn sections() -> Vec<(&'static str, &'static [&'static str], Vec<Key>)> {
                vec![$( (<$Section>::NAME, <$Section>::ABOUT, <$Section>::keys()), )+]
            }

            /// The value of a key as it stands in a file; `None` if it is not set, or unknown.
            #[must_use]
            pub fn get(&self, section: &str, key: &str) -> Option<String> {
                $( if section == <$Section>::NAME { return self.$field.get(key); } )+
                None
            }

            /// Takes a value; `None` if there is no such key.
            pub fn set(
                &mut self,
                section: &str,
                key: &str,
                value: &DeValue<'_>,
            ) -> Option<Result<(), Problem>> {
                $( if section == <$Section>::NAME { return self.$field.set(key, value); } )+
                None
            }
        }
    };
}

sections! {
    /// The trail: where it is and how it is written.
    trail: TrailSection,
    /// Signed checkpoints and keys.
    checkpoint: CheckpointSection,
    /// The kernel's audit.
    netlink: NetlinkSection,
    /// The kernel module.
    shim: ShimSection,
    /// The socket for applications.
    socket: SocketSection,
    /// Space, and what is done when it is short or storage fails.
    space: SpaceSection,
    /// The process itself.
    process: ProcessSection,
    /// How the status is told.
    status: StatusSection,
}

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// `section.key`.
    pub name: String,
    /// Whether a reload is enough.
    pub effect: Effect,
}

impl Config {
    /// The keys in which `newer` differs, in the order of the sample.
    #[must_use]
    pub fn changed(&self, newer: &Self) -> Vec<Changed> {
        let mut changed = Vec::new();
        for (section, _, keys) in Self::sections() {
            for key in keys {
                if self.get(section, key.name) != newer.get(section, key.name) {
                    let name = format!("{section}.{}", key.name);
                    changed.push(Changed { name, effect: key.effect });
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_when_it_takes_effect() {
        let config = Config::default();
        assert_eq!(config.changed(&config), []);
        let mut newer = config.clone();
        newer.process.mlock = false;
        newer.netlink.failure = Some(value::Number(1));
        let changed = |name: &str, effect| Changed { name: name.to_owned(), effect };
        assert_eq!(
            config.changed(&newer),
            [changed("netlink.failure", Effect::Reload), changed("process.mlock", Effect::Restart)]
        );
    }
}
