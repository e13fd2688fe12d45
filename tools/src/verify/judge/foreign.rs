//! Files in the directory whose names no trail has.

use super::Judge;
use crate::trail::dir::{header_of, name_text};
use crate::verify::report::{Class, Problem};
use graven_format::name;

impl Judge<'_> {
    /// Files that do not belong here. One that is a segment of this trail under a name that it never
    /// had is damage if the segment is missing.
    pub(super) fn check_foreign(&mut self) {
        for foreign in &self.dir.foreign {
            let file = crate::escape::path(&self.dir.path.join(foreign));
            let known = self.dir.trail_id();
            let inside = header_of(&self.dir.path.join(foreign))
                .filter(|header| known.is_none_or(|id| id == header.trail_id));
            let problem = match inside {
                Some(it) if !self.dir.segments.iter().any(|file| file.segment == it.segment) => {
                    let was = name::segment(it.segment, it.first_seq);
                    Problem::new(Class::Damage, "renamed-segment", format!("this is {was}"))
                        .note("its header is intact and is of this trail; its records were not checked")
                        .at(it.first_seq, 0)
                }
                Some(it) => Problem::new(
                    Class::ForeignFile,
                    "foreign-file",
                    format!("a copy of segment {} that does not belong here", it.segment),
                ),
                None => Problem::new(
                    Class::ForeignFile,
                    "foreign-file",
                    format!("no trail has a file of the name {}", name_text(foreign)),
                ),
            };
            self.problems.push(problem.in_file(file));
        }
    }
}
