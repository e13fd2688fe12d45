use super::schema::section;
use super::value::{Number, Problem, Value, quoted};
use crate::recording::beside::{Beside, BesideArgs};
use crate::recording::listen;
use graven_writer::source::socket::CLIENTS_MAX;
use std::path::PathBuf;
use toml::de::DeValue;

section! {
    /// The socket for applications' own records: docs/socket.md. It is the source `socket`, or beside the kernel's
    /// audit with the sources `netlink` and `multicast`; the other sources have none.
    pub struct SocketSection in "socket" {
        /// Where applications connect. There is no socket unless it is set, and the keys below need it.
        [restart] listen: Option<PathBuf> = None, like "\"/run/graven/socket\"";
        /// Its permissions: who may write to it may connect. 0660 unless set.
        [restart] mode: Option<Mode> = None, like "\"0660\"";
        /// Its group; that of the process unless set.
        [restart] group: Option<Group> = None, like "\"root\"";
        /// Applications at once; others wait to be accepted. 256 unless set.
        [restart] clients: Option<Number<1, { CLIENTS_MAX as i64 }>> = None, like "256";
    }
}

impl SocketSection {
    /// Puts what was given on the command line into the section, and the rest of the section there.
    pub fn settle(&mut self, args: &mut BesideArgs, source: Option<Beside>) {
        let path = if source == Some(Beside::Socket) { &mut args.path } else { &mut args.listen };
        both(&mut self.listen, path, |it| it, |it| it);
        both(&mut self.mode, &mut args.mode, Mode, |it| it.0);
        both(&mut self.group, &mut args.group, Group, |it| it.0);
        both(
            &mut self.clients,
            &mut args.clients,
            |it| Number(it.into()),
            |it| u16::try_from(it.0).unwrap_or(CLIENTS_MAX),
        );
    }
}

/// Makes both say the same: what was given, or else what the file says.
fn both<K: Clone, A: Clone>(
    key: &mut Option<K>,
    arg: &mut Option<A>,
    into: impl FnOnce(A) -> K,
    from: impl FnOnce(K) -> A,
) {
    match arg {
        Some(given) => *key = Some(into(given.clone())),
        None => *arg = key.clone().map(from),
    }
}

/// Permissions of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Value for Mode {
    fn takes() -> String {
        "octal digits as a text, \"0000\" to \"0666\" and none for executing".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = String::read(value)?;
        // The option's words are what is said anyway of what it takes.
        listen::parse_mode(&text).map(Self).map_err(|_| format!("{} is none", quoted(&text)))
    }

    fn write(&self) -> Option<String> {
        Some(format!("\"{:04o}\"", self.0))
    }
}

/// A group of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(pub u32);

impl Value for Group {
    fn takes() -> String {
        "a group as a text, by its name or number".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = String::read(value)?;
        listen::parse_group(&text).map(Self).map_err(|why| format!("{}: {why}", quoted(&text)))
    }

    fn write(&self) -> Option<String> {
        Some(quoted(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::parse;

    #[test]
    fn what_was_given_counts_before_the_file_and_both_say_the_same() {
        let text = "[socket]\nlisten = \"/f\"\nmode = \"0600\"\ngroup = \"root\"\nclients = 7\n";
        let file = parse(text).expect("it is right").socket;
        for source in [None, Some(Beside::Socket)] {
            let (mut section, mut args) = (file.clone(), BesideArgs::default());
            args.mode = Some(0o666);
            section.settle(&mut args, source);
            let listen = args.listening(source).expect("a socket");
            assert_eq!(listen.path, PathBuf::from("/f"));
            assert_eq!((listen.mode, listen.group, listen.clients_max), (0o666, Some(0), 7));
            assert_eq!(section, SocketSection { mode: Some(Mode(0o666)), ..file.clone() });
        }
        let mut none = BesideArgs::default();
        SocketSection::default().settle(&mut none, None);
        assert!(none.listening(None).is_none(), "no socket is asked for");
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_key() {
        for (line, what, help) in [
            ("listen = \"socket\"", "it does not begin with /", "an absolute path"),
            ("mode = \"0770\"", "\"0770\" is none", "octal digits"),
            ("mode = 432", "it is an integer", "octal digits"),
            ("group = \"no such group\"", "no such group", "by its name or number"),
            ("clients = 1000", "1000 is out of range", "1 to 999"),
        ] {
            let errors = parse(&format!("[socket]\n{line}\n")).expect_err(line);
            let [error] = &errors[..] else { panic!("{line}: {errors:?}") };
            assert_eq!(error.at.map(|(line, _)| line), Some(2), "{line}");
            let key = line.split(' ').next().expect("a key");
            assert_eq!(error.key.as_deref(), Some(format!("socket.{key}").as_str()));
            assert!(error.what.contains(what) && error.help.contains(help), "{error:?}");
        }
    }
}
