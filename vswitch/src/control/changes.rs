//! What vsctl changed: kept for the next start, listed beside the file, and forgotten where it does not fit that any more.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::plan::Step;
use super::{ControlError, Switch};
use crate::attach;
use crate::config::{self, Change, Fate, Note, State};
use api::{ChangeInfo, ChangeKind, Part, Reply};

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
        let before = self.state.clone();
        keep(&mut self.state);
        let steps = steps(self);
        let kept = self.state_file.save(&self.state_after(&steps)).map_err(ControlError::State);
        let is_kept = kept.is_ok();
        let done = kept.and_then(|()| self.apply(steps));
        if done.is_err() {
            let made = std::mem::take(&mut self.state.made);
            self.state = State { made, ..before };
        }
        // What was removed on the way, or not made, is written down too.
        if is_kept && let Err(error) = self.state_file.save(&self.state) {
            tracing::warn!("{error}");
        }
        done.map(|_| Reply::Done(Vec::new()))
    }

    /// The state with all that the steps are about to make, so that it is kept by the write that keeps the change, and needs none of its own.
    fn state_after(&self, steps: &[Step]) -> State {
        let mut state = self.state.clone();
        for step in steps {
            if let Step::AddPort(spec, _) | Step::SetPort(spec, _) = step {
                state.made.expect(spec);
                state.made.netns.extend(spec.netns.as_ref().and_then(attach::netns_to_make));
            }
        }
        state
    }

    /// Writes down what was made, unless the file has it. A start goes on where this fails: the next one finds by its marks what it still wants.
    pub(super) fn write_down(&mut self) -> Result<(), ControlError> {
        if self.state_file.known_made().is_some_and(|known| known.covers(&self.state.made)) {
            return Ok(());
        }
        match self.state_file.save(&self.state) {
            Err(error) if self.started_up => Err(ControlError::State(error)),
            _ => Ok(()),
        }
    }

    /// Forgets a thing that vsctl added and that is not there because the file left no room for it. `None`: it is no such thing, and is to be
    /// deleted as others of its kind are.
    pub(super) fn forget_left_out<N: Ord, T>(
        &mut self,
        is_there: bool,
        changes: impl Fn(&mut State) -> &mut BTreeMap<N, Change<T>>,
        name: &N,
    ) -> Option<Result<Reply, ControlError>> {
        let is_left_out = !is_there && matches!(changes(&mut self.state).get(name), Some(Change::Set(_)));
        is_left_out.then(|| self.remember(|state| changes(state).remove(name), Vec::new()))
    }

    pub(super) fn changes(&mut self, forget: bool) -> Result<Reply, ControlError> {
        let changes = self.list_changes();
        if !forget {
            return Ok(Reply::Changes(changes));
        }
        let left_out: Vec<ChangeInfo> = changes.into_iter().filter(|change| !change.in_force).collect();
        if !left_out.is_empty() {
            self.remember(|state| left_out.iter().for_each(|change| drop_change(state, change)), Vec::new())?;
        }
        Ok(Reply::Changes(left_out))
    }

    fn list_changes(&self) -> Vec<ChangeInfo> {
        let (_, notes) = config::merge(&self.file, &self.state);
        let State { bridges, ports, uplinks, forwards, vxlans, .. } = &self.state;
        [
            rows(Part::Uplink, uplinks, &notes),
            rows(Part::Bridge, bridges, &notes),
            rows(Part::Vxlan, vxlans, &notes),
            rows(Part::Port, ports, &notes),
            rows(Part::Forward, forwards, &notes),
        ]
        .concat()
    }
}

fn rows<N: Display, T>(what: Part, changes: &BTreeMap<N, Change<T>>, notes: &[Note]) -> Vec<ChangeInfo> {
    let row = |(name, change): (&N, &Change<T>)| {
        let name = name.to_string();
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
    };
    changes.iter().map(row).collect()
}

fn drop_change(state: &mut State, change: &ChangeInfo) {
    fn drop_named<N: Display + Ord, T>(changes: &mut BTreeMap<N, T>, name: &str) {
        changes.retain(|other, _| other.to_string() != name);
    }
    match change.what {
        Part::Bridge => drop_named(&mut state.bridges, &change.name),
        Part::Port => drop_named(&mut state.ports, &change.name),
        Part::Uplink => drop_named(&mut state.uplinks, &change.name),
        Part::Forward => drop_named(&mut state.forwards, &change.name),
        Part::Vxlan => drop_named(&mut state.vxlans, &change.name),
    }
}

/// Notes that something was deleted. Only if the file names it is the note kept: the next start will make it again, and say so.
pub(super) fn forget<N: Ord + Clone, T>(changes: &mut BTreeMap<N, Change<T>>, name: &N, in_file: bool) {
    if in_file {
        changes.insert(name.clone(), Change::Deleted);
    } else {
        changes.remove(name);
    }
}
