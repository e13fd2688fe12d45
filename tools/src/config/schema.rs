//! What a section of the configuration is, and the one macro that defines one: from the doc comments come the
//! documentation, the sample file and `graven config explain`; from the types come the checks.

use super::value::Problem;
use toml::de::DeValue;

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At the next SIGHUP.
    Reload,
    /// When the daemon is started again.
    Restart,
}

impl Effect {
    /// The words for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Reload => "on SIGHUP",
            Self::Restart => "at the next start",
        }
    }
}

/// One key, as its section defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in the section.
    pub name: &'static str,
    /// What it means, a line each.
    pub about: &'static [&'static str],
    /// When a change takes effect.
    pub effect: Effect,
    /// What it takes, in words.
    pub takes: String,
    /// A value to show where the default is none.
    pub example: Option<&'static str>,
}

/// A table of the file.
pub trait Section: Default {
    /// Its name.
    const NAME: &'static str;
    /// What it is about, a line each.
    const ABOUT: &'static [&'static str];

    /// Its keys, in the order of the sample.
    fn keys() -> Vec<Key>;

    /// Takes a value; `None` if there is no such key.
    fn set(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), Problem>>;

    /// The value as it stands in a file; `None` if the key is not set, or there is no such key.
    fn get(&self, key: &str) -> Option<String>;
}

/// Defines a section: a struct, its defaults, and what [`Section`] wants to know.
///
/// ```ignore
/// section! {
///     /// What the section is about.
///     pub struct Space in "space" {
///         /// What the key means.
///         [reload] keep: u32 = 5;
///         /// A key that is not set unless somebody sets it, with a value to show.
///         [restart] max_total: Option<Bytes> = None, like "100G";
///     }
/// }
/// ```
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $Name:ident in $name:literal {
            $(
                $(#[doc = $doc:literal])+
                [$effect:ident] $key:ident: $Type:ty = $default:expr $(, like $example:literal)? ;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            $( $(#[doc = $doc])+ pub $key: $Type, )+
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $( $key: $default, )+ }
            }
        }

        impl $crate::config::schema::Section for $Name {
            const NAME: &'static str = $name;
            const ABOUT: &'static [&'static str] = &[$($about),+];

            fn keys() -> Vec<$crate::config::schema::Key> {
                vec![$(
                    $crate::config::schema::Key {
                        name: stringify!($key),
                        about: &[$($doc),+],
                        effect: $crate::config::schema::section!(@effect $effect),
                        takes: <$Type as $crate::config::value::Value>::takes(),
                        example: $crate::config::schema::section!(@example $($example)?),
                    },
                )+]
            }

            fn set(
                &mut self,
                key: &str,
                value: &toml::de::DeValue<'_>,
            ) -> Option<Result<(), $crate::config::value::Problem>> {
                use $crate::config::value::Value;
                match key {
                    $( stringify!($key) => {
                        Some(<$Type as Value>::read(value).map(|value| self.$key = value))
                    } )+
                    _ => None,
                }
            }

            fn get(&self, key: &str) -> Option<String> {
                use $crate::config::value::Value;
                match key {
                    $( stringify!($key) => Value::write(&self.$key), )+
                    _ => None,
                }
            }
        }
    };
    (@effect reload) => { $crate::config::schema::Effect::Reload };
    (@effect restart) => { $crate::config::schema::Effect::Restart };
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
}

pub(crate) use section;
