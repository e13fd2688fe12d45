//! `graven checkpoint --witness`: one checkpoint, cosigned by all witnesses at once.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::prove;
use crate::recording::witnesses::{diagnostic, say_key};
use crate::trail::TrailDir;
use crate::witness::{Cosignature, Session, Witness, WitnessError, log_key};
use graven_format::note::{Note, SecretKey};
use std::thread;
use std::time::Duration;

/// The note with the cosignatures of those that have given theirs, and what the command ends with if nothing
/// else is wrong. `again` gets a newer note, where there is one.
pub(super) fn all(
    dir: &TrailDir,
    note: String,
    witnesses: &[Witness],
    timeout: Duration,
    again: impl Fn() -> Result<String, Diagnostic>,
) -> (String, Exit) {
    let origin = Note::parse(note.as_bytes()).map(|note| note.checkpoint.head.origin);
    let key = match log_key::open(&dir.path, &origin.unwrap_or_default()) {
        Ok((key, made)) => {
            if made {
                say_key(&dir.path, &key);
            }
            key
        }
        Err(why) => {
            let text = format!("there is no key by which witnesses know the trail: {why}");
            Diagnostic::error(text).at(escape::path(&dir.path)).emit();
            return (note, Exit::CannotCheck);
        }
    };
    let mut sessions: Vec<Session> = witnesses.iter().cloned().map(Session::new).collect();
    let (mut note, mut answers) = (note, Vec::new());
    for round in 0..2 {
        answers = ask(dir, &key, &note, &mut sessions, timeout);
        // The running writer may have had a newer one cosigned meanwhile.
        let ahead = |it: &Result<_, WitnessError>| matches!(it, Err(WitnessError::Ahead { .. }));
        if round > 0 || dir.writer.is_none() || !answers.iter().any(ahead) {
            break;
        }
        match again() {
            Ok(newer) if newer != note => note = newer,
            _ => break,
        }
    }
    let mut exit = Exit::Success;
    for (answer, witness) in answers.into_iter().zip(witnesses) {
        match answer {
            Ok(Cosignature { line, .. }) => note += &line,
            Err(why) => {
                let (said, disagrees) = judge(dir, diagnostic(witness, &why, &key), &why);
                said.emit();
                exit = match exit {
                    Exit::Damage => exit,
                    _ if disagrees => Exit::Damage,
                    _ => Exit::CannotCheck,
                };
            }
        }
    }
    (note, exit)
}

fn ask(
    dir: &TrailDir,
    key: &SecretKey,
    note: &str,
    sessions: &mut [Session],
    timeout: Duration,
) -> Vec<Result<Cosignature, WitnessError>> {
    thread::scope(|scope| {
        let asked: Vec<_> = (sessions.iter_mut())
            .map(|session| {
                thread::Builder::new()
                    .spawn_scoped(scope, || session.cosign(&dir.path, key, note, timeout))
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let no_thread = |why| Err(WitnessError::Unreachable(format!("there is no thread: {why}")));
        asked.into_iter().map(|asked| asked.map_or_else(no_thread, join)).collect()
    })
}

/// Whether the answer shows another trail. A witness may have seen more than the last sealed segment holds, if
/// the writer died since: the end of the trail tells.
fn judge(dir: &TrailDir, said: Diagnostic, why: &WitnessError) -> (Diagnostic, bool) {
    let WitnessError::Ahead { seen, .. } = why else { return (said, why.is_disagreement()) };
    if dir.writer.is_some() {
        return (said, true);
    }
    match prove::end(dir) {
        Ok(end) if end >= *seen => {
            let text = format!("the trail has {end} records, of which the newest are not sealed");
            (said.note(text).note("the next start of the writer seals and signs them"), false)
        }
        Ok(end) => {
            (said.note(format!("the trail has {end} records: it was cut or rolled back")), true)
        }
        Err(failed) => (said.note(format!("where the trail ends cannot be said: {failed}")), true),
    }
}
