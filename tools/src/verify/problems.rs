//! All problems of a trail: the first ones in full, of the others what the verdict needs.

use crate::verify::report::{Class, Problem};

/// Most problems of a trail that are listed.
pub const PROBLEMS_MAX: usize = 10_000;

/// Collects problems in any order, in memory for twice [`PROBLEMS_MAX`] of them.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    left_out: u64,
    /// The classes that occurred.
    classes: Vec<Class>,
    first_wrong: Option<u64>,
    missing: u64,
    damage_end: u64,
}

impl Problems {
    /// Adds one. What the list has no room for is what comes last in the order of seq.
    pub fn push(&mut self, problem: Problem) {
        let class = problem.class;
        if !self.classes.contains(&class) {
            self.classes.push(class);
        }
        if class >= Class::Unchecked {
            self.missing = self.missing.saturating_add(problem.missing);
            self.first_wrong = self.first_wrong.into_iter().chain(problem.seq).min();
        }
        if class == Class::Damage {
            let end = problem.seq.and_then(|seq| seq.checked_add(problem.missing));
            self.damage_end = self.damage_end.max(end.unwrap_or(0));
        }
        self.list.push(problem);
        if self.list.len() >= 2 * PROBLEMS_MAX {
            self.cut();
        }
    }

    /// Sorts by seq, what was added first in front, and keeps [`PROBLEMS_MAX`].
    fn cut(&mut self) {
        self.list.sort_by_key(|problem| (problem.seq.is_none(), problem.seq));
        self.left_out += self.list.len().saturating_sub(PROBLEMS_MAX) as u64;
        self.list.truncate(PROBLEMS_MAX);
    }

    /// Those that are still listed, to be completed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Problem> {
        self.list.iter_mut()
    }

    /// Whether one of this class was added.
    #[must_use]
    pub fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// Whether one was added that is more than a torn tail.
    #[must_use]
    pub fn any_wrong(&self) -> bool {
        self.classes.iter().any(|class| *class >= Class::Unchecked)
    }

    /// The smallest seq of those; `u64::MAX` if there are none.
    #[must_use]
    pub fn first_wrong(&self) -> u64 {
        self.first_wrong.unwrap_or(u64::MAX)
    }

    /// How many records those say are missing.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// One past the last seq that damage covers; 0 without any.
    #[must_use]
    pub fn damage_end(&self) -> u64 {
        self.damage_end
    }

    /// At most [`PROBLEMS_MAX`] in the order of seq, and how many there were besides.
    #[must_use]
    pub fn into_listed(mut self) -> (Vec<Problem>, u64) {
        self.cut();
        (self.list, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are: the list is what sorting all of them and cutting once gives.
    #[test]
    fn what_is_kept_does_not_depend_on_when_it_is_cut() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 40
        };
        let mut all = Vec::new();
        let mut problems = Problems::default();
        for n in 0..70_000 {
            let class = if n % 3 == 0 { Class::Tail } else { Class::Damage };
            let mut problem = Problem::new(class, "gap", format!("number {n}"));
            if n % 1000 != 0 {
                problem = problem.at(random() % 5000, random() % 3);
            }
            all.push(problem.clone());
            problems.push(problem);
            assert!(problems.list.len() <= 2 * PROBLEMS_MAX);
        }
        let damage = || all.iter().filter(|it| it.class == Class::Damage);
        assert_eq!(problems.missing(), damage().map(|it| it.missing).sum::<u64>());
        assert_eq!(Some(problems.first_wrong()), damage().filter_map(|it| it.seq).min());
        let end = damage().filter_map(|it| Some(it.seq? + it.missing)).max();
        assert_eq!(Some(problems.damage_end()), end);
        assert!(problems.any_wrong() && problems.has(Class::Tail));
        assert!(!problems.has(Class::Unsupported));
        all.sort_by_key(|it| (it.seq.is_none(), it.seq));
        let (list, left_out) = problems.into_listed();
        assert_eq!(left_out, 60_000);
        let texts = |list: &[Problem]| list.iter().map(|it| it.message.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&list), texts(&all[..PROBLEMS_MAX]));
    }
}
