//! The kernel's audit rules as a whole: listed before somebody else changes them, and put back as they were.
//!
//! Graven does not read rules: whoever loads a file of them (`auditctl -R`) does so between two listings, and
//! what is put back are the kernel's own bytes.

use super::{ControlError, Daemon, EXEMPT_KEY};
use crate::source::control::Control;
use crate::source::nlmsg::{self, StatusChange};
use rustix::io::Errno;
use std::sync::PoisonError;

/// Most times that putting back is begun anew because somebody changes rules meanwhile.
const ROUNDS_MAX: usize = 3;

/// One rule as the kernel lists it: a `struct audit_rule_data` with the texts behind it.
type RawRule = Vec<u8>;

/// Remembers what was changed in the kernel, for whoever has to take it back if this process dies.
pub trait RuleNotes: std::fmt::Debug + Send + Sync {
    /// From now on this has to be taken back; or nothing.
    fn note(&self, change: Option<&RuleChange>);

    /// The limits are these of ours now.
    fn note_limits(&self, ours: &StatusChange);
}

/// The rules before and after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChange {
    before: Vec<RawRule>,
    after: Vec<RawRule>,
}

impl RuleChange {
    /// What was done to the rules between two listings.
    fn between(before: Vec<RawRule>, after: Vec<RawRule>) -> Self {
        Self { before, after }
    }

    /// As words and bytes, to be read back by [`RuleChange::decode`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for rules in [&self.before, &self.after] {
            bytes.extend((rules.len() as u64).to_le_bytes());
            for rule in rules {
                bytes.extend((rule.len() as u64).to_le_bytes());
                bytes.extend(rule);
            }
        }
        bytes
    }

    /// Reads what [`RuleChange::encode`] has made; `None` of anything else.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        fn number(bytes: &mut &[u8]) -> Option<usize> {
            let (word, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            usize::try_from(u64::from_le_bytes(*word)).ok()
        }
        let mut rules = || {
            let count = number(&mut bytes)?;
            let mut rules = Vec::new();
            for _ in 0..count {
                let len = number(&mut bytes)?;
                let (rule, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                rules.push(rule.to_vec());
            }
            Some(rules)
        };
        let (before, after) = (rules()?, rules()?);
        bytes.is_empty().then_some(Self { before, after })
    }

    /// Rules that it added.
    #[must_use]
    pub fn added(&self) -> usize {
        without(&self.after, &self.before).len()
    }

    /// Rules that it removed.
    #[must_use]
    pub fn removed(&self) -> usize {
        without(&self.before, &self.after).len()
    }

    /// What the rules are to be when they are `now` and the change is taken back: as they were before, less what
    /// somebody has removed since, and with what somebody has added since: in front of them if it is in front now.
    fn undone(&self, now: &[RawRule]) -> Vec<RawRule> {
        let added_since = without(now, &self.after);
        let removed_since = without(&self.after, now);
        let in_front = now.iter().take_while(|rule| added_since.contains(rule)).count();
        let mut wanted = added_since[..in_front].to_vec();
        wanted.extend(without(&self.before, &removed_since));
        wanted.extend_from_slice(&added_since[in_front..]);
        wanted
    }

    /// Takes the change back.
    ///
    /// # Errors
    /// The kernel refused a request; what could be done was done.
    pub(super) fn undo(&self, control: &mut Control) -> Result<(), ControlError> {
        for _ in 0..ROUNDS_MAX {
            let now = list(control)?;
            let wanted = self.undone(&now);
            if now == wanted {
                return Ok(());
            }
            // The kernel adds at the end, so what stays must be the beginning of what is wanted.
            let kept = now.iter().filter(|rule| wanted.contains(rule));
            let stay = kept.zip(&wanted).take_while(|(now, wanted)| now == wanted).count();
            for rule in now.iter().rev().filter(|rule| !wanted[..stay].contains(rule)) {
                delete(control, rule)?;
            }
            wanted[stay..].iter().try_for_each(|rule| add(control, rule))?;
            if list(control)? == wanted {
                return Ok(());
            }
        }
        // Somebody changes them all the time, and has the last word.
        Ok(())
    }

    /// Makes the change again, after it was taken back.
    ///
    /// # Errors
    /// As [`RuleChange::undo`].
    fn redo(&self, control: &mut Control) -> Result<(), ControlError> {
        Self { before: self.after.clone(), after: self.before.clone() }.undo(control)
    }
}

impl Daemon {
    /// Has `load` change the kernel's rules, which are put back as they were when the daemon ends, or when rules are
    /// loaded again. `clear` removes those that are there first, but for our own. If `load` fails, the
    /// rules are as they were at once.
    ///
    /// # Errors
    /// A request to the kernel failed: what `load` returned is not known then.
    pub fn load_rules<T, E>(
        &self,
        clear: bool,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<Result<T, E>, ControlError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let last = loaded.take();
        if let Some(last) = &last {
            last.undo(&mut self.control())?;
        }
        let before = list(&mut self.control())?;
        // What is done from here on is known to nobody else until it is all done.
        self.note(Some(&RuleChange { before: before.clone(), after: Vec::new() }));
        if clear {
            remove_all(&mut self.control(), &before)?;
        }
        let returned = load();
        let change = RuleChange::between(before, list(&mut self.control())?);
        if returned.is_ok() {
            self.note(Some(&change));
            *loaded = Some(change);
        } else {
            change.undo(&mut self.control())?;
            if let Some(last) = last {
                last.redo(&mut self.control())?;
                *loaded = Some(last);
            }
            self.note(loaded.as_ref());
        }
        Ok(returned)
    }

    /// Has what is done to the rules remembered.
    #[must_use]
    pub fn with_notes(mut self, notes: Box<dyn RuleNotes>) -> Self {
        self.notes = Some(notes);
        self
    }

    pub(super) fn note(&self, change: Option<&RuleChange>) {
        if let Some(notes) = &self.notes {
            notes.note(change);
        }
    }

    /// Takes up what a process has done to the rules that is dead: it is taken back when this daemon ends. A
    /// change in whose middle it died is what is there now.
    ///
    /// # Errors
    /// The kernel did not say what rules there are.
    pub fn take_up(&self, change: RuleChange) -> Result<(), ControlError> {
        let change = if change.after.is_empty() {
            RuleChange { after: list(&mut self.control())?, ..change }
        } else {
            change
        };
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
        Ok(())
    }

    /// What the rules that were loaded have changed; none if none are.
    #[must_use]
    pub fn loaded(&self) -> Option<RuleChange> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The rules of the kernel, in the order in which it judges by them, but for those that exempt our own processes:
/// they stand in front of all others, and come and go with the processes.
fn list(control: &mut Control) -> Result<Vec<RawRule>, ControlError> {
    let is_ours = |rule: &RawRule| rule.ends_with(EXEMPT_KEY.as_bytes());
    let mut rules = control.list("list rules", nlmsg::LIST_RULES)?;
    rules.retain(|rule| !is_ours(rule));
    Ok(rules)
}

fn without(rules: &[RawRule], others: &[RawRule]) -> Vec<RawRule> {
    rules.iter().filter(|rule| !others.contains(rule)).cloned().collect()
}

/// Removes these rules.
fn remove_all(control: &mut Control, rules: &[RawRule]) -> Result<(), ControlError> {
    rules.iter().rev().try_for_each(|rule| delete(control, rule))
}

fn delete(control: &mut Control, rule: &RawRule) -> Result<(), ControlError> {
    match control.call("delete rule", nlmsg::DEL_RULE, rule, false) {
        Err(error) if error.errno != Errno::NOENT => Err(error),
        _ => Ok(()),
    }
}

fn add(control: &mut Control, rule: &RawRule) -> Result<(), ControlError> {
    match control.call("put rule back", nlmsg::ADD_RULE, rule, false) {
        Err(error) if error.errno != Errno::EXIST => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<RawRule> {
        text.bytes().map(|byte| vec![byte]).collect()
    }

    fn undone(before: &str, after: &str, now: &str) -> Vec<RawRule> {
        let change = RuleChange { before: rules(before), after: rules(after) };
        change.undone(&rules(now))
    }

    #[test]
    fn what_is_put_back_is_what_was_there() {
        assert_eq!(undone("ab", "xy", "xy"), rules("ab"));
        assert_eq!(undone("ab", "abxy", "abxy"), rules("ab"));
        assert_eq!(undone("", "x", "x"), rules(""));
        assert_eq!(undone("ab", "ba", "ba"), rules("ab"), "also their order");
    }

    #[test]
    fn what_others_did_meanwhile_stays_theirs() {
        assert_eq!(undone("ab", "abxy", "abxyz"), rules("abz"));
        assert_eq!(undone("ab", "abxy", "bxy"), rules("b"), "somebody removed a");
        assert_eq!(undone("ab", "abxy", "ab"), rules("ab"), "somebody removed ours");
        assert_eq!(undone("ab", "xy", "0xyz"), rules("0abz"), "what was put in front stays there");
    }
}
