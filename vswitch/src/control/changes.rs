//! What vsctl changed: kept for the next start, listed beside the file, and forgotten where it does not fit that any more.

use super::plan::Step;
use super::{ControlError, Switch};
use crate::attach;
use crate::config::{Change, Fate, Made, Note, State};
use api::{ChangeInfo, ChangeKind, Reply, Resource, ResourceKey};

impl Switch {
    /// Carries out a change of one thing and keeps it for the next start. It is kept first: a change that cannot be kept is not
    /// made, and taking a made one back might need what a full disk does not give.
    pub(super) fn remember<T>(&mut self, keep: impl FnOnce(&mut State) -> T, steps: Vec<Step>) -> Result<Reply, ControlError> {
        self.remember_and_follow(keep, |_| steps)
    }

    /// As [`Self::remember`], with steps that follow from what is kept.
    pub(super) fn remember_and_follow<T>(
        &mut self,
        keep: impl FnOnce(&mut State) -> T,
        steps: impl FnOnce(&Self) -> Vec<Step>,
    ) -> Result<Reply, ControlError> {
        // What was made is none of what is taken back, and the longest part.
        let made = std::mem::take(&mut self.ledger.state.made);
        let before = self.ledger.state.clone();
        self.ledger.state.made = made;
        keep(&mut self.ledger.state);
        let steps = steps(self);
        let kept = self.ledger.keep(self.state_after(&steps));
        let is_kept = kept.is_ok();
        let done = kept.and_then(|()| self.apply(steps));
        if done.is_err() {
            let made = std::mem::take(&mut self.ledger.state.made);
            self.ledger.state = State { made, ..before };
        }
        // What was not made is written down too, if the next start would be misled.
        if is_kept
            && !self.ledger.state_file.suffices(&self.ledger.state)
            && let Err(error) = self.ledger.save()
        {
            tracing::warn!("{error}");
        }
        done.map(|_| Reply::Done(Vec::new()))
    }

    /// The state with all that the steps are about to make, so that it is kept by the write that keeps the change, and needs none of its own.
    fn state_after(&self, steps: &[Step]) -> State {
        let mut state = self.ledger.state.clone();
        for step in steps {
            if let Step::Add(Resource::Port(spec), _) | Step::Set(Resource::Port(spec), _) = step {
                state.made.expect(spec);
                state.made.netns.extend(spec.netns.as_ref().and_then(attach::netns_to_make));
            }
        }
        state
    }

    /// Writes down what is made, unless that is known. A start goes on where that cannot be; what it made is found by its marks if it is wanted.
    pub(super) fn write_down(&mut self, news: &Made) -> Result<(), ControlError> {
        if self.ledger.state_file.known_made().is_some_and(|known| known.covers(news)) {
            return Ok(());
        }
        match self.ledger.save() {
            Err(error) if self.life.started_up => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn changes(&mut self, forget: bool) -> Result<Reply, ControlError> {
        let changes = self.list_changes();
        if !forget {
            return Ok(Reply::Changes(changes));
        }
        let left_out: Vec<ChangeInfo> = changes.into_iter().filter(|change| !change.in_force).collect();
        if !left_out.is_empty() {
            let is_left_out =
                |key: &ResourceKey| left_out.iter().any(|info| info.what == key.part() && info.name == key.to_string());
            self.remember(|state| state.changes.0.retain(|key, _| !is_left_out(key)), Vec::new())?;
        }
        Ok(Reply::Changes(left_out))
    }

    fn list_changes(&self) -> Vec<ChangeInfo> {
        let (_, notes) = self.ledger.merged();
        self.ledger.state.changes.0.iter().map(|(key, change)| row(key, change, &notes)).collect()
    }
}

fn row(key: &ResourceKey, change: &Change, notes: &[Note]) -> ChangeInfo {
    let (what, name) = (key.part(), key.to_string());
    let fate = notes.iter().find(|note| note.what == what && note.name == name).map(|note| &note.fate);
    // A start or reload puts the file into force, and forgets what it overrules.
    let until = || Some("switch.toml has it: it is as the file says after the next reload or start".to_owned());
    let (kind, in_force, why) = match (change, fate) {
        (Change::Deleted, _) => (ChangeKind::Deleted, true, until()),
        (Change::Set(_), Some(Fate::Overruled | Fate::Back)) => (ChangeKind::Changed, true, until()),
        (Change::Set(_), Some(Fate::LeftOut { why, .. })) => (ChangeKind::Added, false, Some(why.clone())),
        (Change::Set(_), None) => (ChangeKind::Added, true, None),
    };
    ChangeInfo { what, name, change: kind, in_force, why }
}
