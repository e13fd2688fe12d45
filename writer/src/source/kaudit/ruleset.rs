//! The kernel's audit rules as a whole: listed before somebody else changes them, and put back as they were.
//!
//! Graven does not read rules: whoever loads a file of them (`auditctl -R`) does so between two listings, and
//! what is put back are the kernel's own bytes.

use super::{ControlError, Daemon};
use crate::source::control::Control;
use crate::source::nlmsg;
use rustix::io::Errno;
use std::sync::PoisonError;

/// Most times that putting back is begun anew because somebody changes rules meanwhile.
const ROUNDS_MAX: usize = 3;

/// The key of rules that exempt Graven's own processes: `-D` in a file of rules does not mean them.
const EXEMPT_KEY: &str = "graven-exempt";

/// One rule as the kernel lists it: a `struct audit_rule_data` with the texts behind it.
type RawRule = Vec<u8>;

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
        if clear {
            remove_all(&mut self.control(), &before)?;
        }
        let returned = load();
        let change = RuleChange::between(before, list(&mut self.control())?);
        if returned.is_ok() {
            *loaded = Some(change);
        } else {
            change.undo(&mut self.control())?;
            if let Some(last) = last {
                last.redo(&mut self.control())?;
                *loaded = Some(last);
            }
        }
        Ok(returned)
    }

    /// What the rules that were loaded have changed; none if none are.
    #[must_use]
    pub fn loaded(&self) -> Option<RuleChange> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The rules of the kernel, in the order in which it judges by them.
fn list(control: &mut Control) -> Result<Vec<RawRule>, ControlError> {
    control.list("list rules", nlmsg::LIST_RULES)
}

fn without(rules: &[RawRule], others: &[RawRule]) -> Vec<RawRule> {
    rules.iter().filter(|rule| !others.contains(rule)).cloned().collect()
}

/// Removes these rules, but for those that exempt our own processes.
fn remove_all(control: &mut Control, rules: &[RawRule]) -> Result<(), ControlError> {
    let is_ours = |rule: &RawRule| rule.ends_with(EXEMPT_KEY.as_bytes());
    rules.iter().rev().filter(|rule| !is_ours(rule)).try_for_each(|rule| delete(control, rule))
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
