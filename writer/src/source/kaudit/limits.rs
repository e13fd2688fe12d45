//! The kernel's queue limits and what it does on a loss: what is asked for, and what a locked kernel does not give.

use super::{AttachError, Daemon, Options};
use crate::source::nlmsg::{Status, StatusChange};
use rustix::time::{ClockId, clock_getres};
use std::sync::PoisonError;
use std::time::Duration;

impl Daemon {
    /// Whether nothing but the registration can be changed before the next boot.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.before.enabled == LOCKED
    }

    /// Changes the queue's limits, and what is done on a loss, to what `options` ask for; what they do not ask for any
    /// more is put back.
    ///
    /// # Errors
    /// [`AttachError`]; nothing was changed then.
    pub fn set_limits(&self, options: &Options) -> Result<(), AttachError> {
        let wanted = wanted(&self.before, options);
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let change = wanted.over(&ours.undone(&self.before));
        if self.is_locked()
            && let Some(needs) = needs(&self.before, &wanted)
        {
            return Err(AttachError::Locked { needs });
        }
        self.set("set queue limits", &change)?;
        *ours = wanted;
        if let Some(notes) = &self.notes {
            notes.note_limits(&wanted);
        }
        Ok(())
    }

    /// Takes up what another process has changed of the limits.
    pub fn take_up_limits(&self, changed: StatusChange) {
        *self.ours.lock().unwrap_or_else(PoisonError::into_inner) = changed;
    }
}

/// `enabled` when nothing can be changed before the next boot.
pub(super) const LOCKED: u32 = 2;

/// What a locked kernel would have to be changed in, in words; none if nothing.
pub(super) fn needs(before: &Status, change: &StatusChange) -> Option<String> {
    let is = |name: &str, before: Option<u32>, wanted: Option<u32>| {
        let before = before.map_or("unknown".to_owned(), |it| it.to_string());
        wanted.map(|wanted| format!("{name} is {before} and not {wanted}"))
    };
    let needs: Vec<_> = [
        is("backlog_limit", Some(before.backlog_limit), change.backlog_limit),
        is("rate_limit", Some(before.rate_limit), change.rate_limit),
        is("failure", Some(before.failure), change.failure),
        is("backlog_wait_time in ticks", before.backlog_wait_ticks, change.backlog_wait_ticks),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!needs.is_empty()).then(|| needs.join(", "))
}

/// What to change while attached; nothing that is already so, to leave no trace of no change.
pub(super) fn wanted(before: &Status, options: &Options) -> StatusChange {
    let mut change = StatusChange::default();
    // A limit of 0 means none, which is more.
    if before.backlog_limit != 0 && before.backlog_limit < options.backlog_limit {
        change.backlog_limit = Some(options.backlog_limit);
    }
    // A rate limit drops records by design.
    if before.rate_limit != 0 {
        change.rate_limit = Some(0);
    }
    change.failure = options.failure.filter(|wanted| before.failure != *wanted);
    let ticks = ticks(options.backlog_wait);
    if before.backlog_wait_ticks.is_some_and(|before| before != ticks) {
        change.backlog_wait_ticks = Some(ticks);
    }
    change
}

/// A time in the kernel's ticks, at most what the kernel takes.
#[must_use]
pub fn ticks(time: Duration) -> u32 {
    const WAIT_MAX: Duration = Duration::from_secs(600);
    let ticks = time.min(WAIT_MAX).as_nanos() / tick().as_nanos();
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The time of so many of the kernel's ticks.
#[must_use]
pub fn time_of(ticks: u32) -> Duration {
    tick().saturating_mul(ticks)
}

/// The length of a tick: the coarse clock advances once in each.
fn tick() -> Duration {
    let resolution = clock_getres(ClockId::RealtimeCoarse);
    Duration::from_nanos(u64::try_from(resolution.tv_nsec).unwrap_or(0).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_small_is_changed() {
        let options = Options::default();
        let before = Status {
            backlog_limit: 64,
            rate_limit: 100,
            backlog_wait_ticks: Some(0),
            ..Status::default()
        };
        let change = wanted(&before, &options);
        assert_eq!(change.backlog_limit, Some(8192));
        assert_eq!(change.rate_limit, Some(0));
        assert_eq!(change.backlog_wait_ticks, Some(ticks(Duration::from_secs(60))));
        let large = Status { backlog_limit: 100_000, ..Status::default() };
        assert_eq!(
            wanted(&large, &options),
            StatusChange::default(),
            "no wait time on old kernels"
        );
        let unlimited = Status { backlog_limit: 0, ..Status::default() };
        assert_eq!(wanted(&unlimited, &options).backlog_limit, None);
    }

    #[test]
    fn a_locked_kernel_is_taken_as_it_is_or_not_at_all() {
        let options = Options::default();
        let minute = Some(ticks(Duration::from_secs(60)));
        let before = Status {
            enabled: LOCKED,
            backlog_limit: 8192,
            backlog_wait_ticks: minute,
            failure: 1,
            ..Status::default()
        };
        assert_eq!(needs(&before, &wanted(&before, &options)), None);
        let asks = Options { backlog_limit: 9000, failure: Some(2), ..options };
        assert_eq!(
            needs(&before, &wanted(&before, &asks)).as_deref(),
            Some("backlog_limit is 8192 and not 9000, failure is 1 and not 2")
        );
    }

    #[test]
    fn other_limits_undo_what_is_not_asked_for_any_more() {
        let before = Status { backlog_limit: 64, failure: 1, ..Status::default() };
        let first = Options { failure: Some(0), ..Options::default() };
        let ours = wanted(&before, &first);
        assert_eq!((ours.backlog_limit, ours.failure), (Some(8192), Some(0)));
        let later = Options { backlog_limit: 10_000, ..Options::default() };
        let change = wanted(&before, &later).over(&ours.undone(&before));
        assert_eq!((change.backlog_limit, change.failure), (Some(10_000), Some(1)));
    }

    #[test]
    fn a_minute_is_a_minute_of_ticks() {
        let minute = ticks(Duration::from_secs(60));
        assert!(
            [6_000, 15_000, 18_000, 60_000].iter().any(|&hz| minute.abs_diff(hz) < 20),
            "{minute}"
        );
        assert_eq!(ticks(time_of(15_000)), 15_000);
        assert_eq!(ticks(Duration::from_secs(86_400)), ticks(Duration::from_secs(600)));
    }
}
