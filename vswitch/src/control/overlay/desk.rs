//! What is kept of overlay networks besides their tables, and what is due: decided here by what is heard and by the time that is given, carried out
//! by [`super`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::config::Config;
use crate::confine::Confinement;
use crate::control::ControlError;
use crate::overlay::{Elsewhere, Happening, OverlayFile, OverlayNews, Thread, Truth, private_key, public_key};
use plane::device::PrivateKey;

/// How often is looked at what is here, if nothing tells that it has changed.
const LOOK: Duration = Duration::from_secs(2);

/// What belongs to overlay networks.
pub(in crate::control) struct OverlayDesk {
    /// `None`: the file has no `[cluster]`.
    pub(super) thread: Option<Thread>,
    /// This host's key for encrypted networks; or why there is none.
    key: Result<PrivateKey, String>,
    /// Where the thread's news go.
    pub(super) news: UnboundedSender<OverlayNews>,
    /// What the thread was told last.
    told: Truth,
    looked: Option<Instant>,
    /// Whether what is here may have changed.
    pub(super) is_stale: bool,
    /// Whether the tunnels may have to change.
    is_due: bool,
    /// What was said of tunnels that cannot be.
    said: BTreeSet<String>,
    /// Whether the store was reached when it was last told.
    pub(super) is_up: bool,
    /// Why it was not.
    problem: Option<String>,
}

/// What is to be said of something that happened in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) struct ClusterWord {
    /// What the log says instead, as a warning.
    pub(in crate::control) warning: Option<String>,
    pub(in crate::control) summary: String,
    pub(in crate::control) address: Option<IpAddr>,
}

impl OverlayDesk {
    fn new(news: UnboundedSender<OverlayNews>) -> Self {
        Self {
            thread: None,
            key: Err("switch.toml has no [cluster]".to_owned()),
            news,
            told: Truth::default(),
            looked: None,
            is_stale: true,
            is_due: true,
            said: BTreeSet::new(),
            is_up: false,
            problem: None,
        }
    }

    /// Starts the thread if the file has a cluster. Returns the tables that were kept, and what is to be said.
    ///
    /// # Errors
    /// The store is required, and cannot be used.
    pub(in crate::control) fn start(
        config: &Config,
        news: UnboundedSender<OverlayNews>,
        sandbox: &Confinement,
    ) -> Result<(Self, Elsewhere, Vec<String>), ControlError> {
        let mut desk = Self::new(news);
        let Some(settings) = &config.cluster else { return Ok((desk, Elsewhere::default(), Vec::new())) };
        let kept = OverlayFile::new(&config.switch.state_dir);
        let (tables, note) = kept.read();
        desk.key = private_key(&config.switch.state_dir);
        let key = desk.key.as_ref().ok().map(public_key);
        let news = desk.news.clone();
        // At the end there is no receiver any more.
        let tell = move |heard| drop(news.send(heard));
        let thread = Thread::start(settings.clone(), (kept, tables.clone(), key), tell, sandbox.clone())
            .map_err(ControlError::Cluster)?;
        desk.thread = Some(thread);
        let notes = note.into_iter().chain(desk.key.as_ref().err().cloned()).collect();
        Ok((desk, tables, notes))
    }

    /// This host's key for encrypted networks.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::control) fn key(&self) -> Result<&PrivateKey, String> {
        self.key.as_ref().map_err(Clone::clone)
    }

    /// Takes note that something was made, changed or removed.
    pub(in crate::control) fn touch(&mut self) {
        (self.is_stale, self.is_due) = (true, true);
    }

    /// Whether the store was reached and heard when it was last told.
    pub(in crate::control) const fn is_up(&self) -> bool {
        self.is_up
    }

    /// Why it was not.
    pub(in crate::control) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether it is time to bring the tunnels to what is known; they are then taken to be.
    pub(super) fn takes_tunnels(&mut self, now: Instant) -> bool {
        std::mem::take(&mut self.is_due) || self.is_time(now)
    }

    /// Whether it is time to look at what is here; it is then taken to be done.
    pub(super) fn takes_truth(&mut self, now: Instant) -> bool {
        let due = std::mem::take(&mut self.is_stale) || self.is_time(now);
        if due {
            self.looked = Some(now);
        }
        due
    }

    fn is_time(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now >= looked + LOOK)
    }

    /// What the thread is to be told, if what is here is not what it was told last.
    pub(super) fn changed(&mut self, truth: Truth) -> Option<Truth> {
        let is_news = truth != self.told;
        is_news.then(|| {
            self.told.clone_from(&truth);
            truth
        })
    }

    /// What was not said yet of tunnels that cannot be.
    pub(super) fn say(&mut self, said: BTreeSet<String>) -> Vec<String> {
        let new = said.difference(&self.said).cloned().collect();
        self.said = said;
        new
    }

    /// Takes note of what happened in the cluster.
    pub(super) fn hear(&mut self, happening: Happening) -> ClusterWord {
        match &happening {
            Happening::Up { .. } => (self.is_up, self.problem) = (true, None),
            Happening::Down(why) => (self.is_up, self.problem) = (false, Some(why.clone())),
            Happening::Joined(..) | Happening::Gone(..) | Happening::Note(_) => {}
        }
        let (warning, summary, address) = match happening {
            Happening::Joined(host, underlay) => (None, format!("host {host} has joined the cluster"), Some(underlay)),
            Happening::Gone(host, underlay) => (None, format!("host {host} is gone from the cluster"), Some(underlay)),
            Happening::Up { again: false } => (None, "the store of overlay networks is reached".to_owned(), None),
            Happening::Up { again: true } => (None, "the store of overlay networks is reached again".to_owned(), None),
            Happening::Down(why) => {
                let rest = "frames are forwarded by what is known, and it is tried again";
                let warning = format!("overlay networks: {why}; {rest}");
                (Some(warning), format!("the store of overlay networks is not to be used: {why}"), None)
            }
            Happening::Note(sentence) => (Some(sentence.clone()), sentence, None),
        };
        ClusterWord { warning, summary, address }
    }

    /// Ends the thread. With `leave`, the others hear at once that this host is gone.
    pub(in crate::control) fn end(&mut self, leave: bool) {
        if let Some(thread) = self.thread.take() {
            thread.end(leave);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> OverlayDesk {
        OverlayDesk::new(tokio::sync::mpsc::unbounded_channel().0)
    }

    #[test]
    fn what_has_changed_is_looked_at_at_once_and_everything_now_and_again() {
        let (start, mut desk) = (Instant::now(), desk());
        let mut due = |milliseconds, is_touched: bool| {
            let now = start + Duration::from_millis(milliseconds);
            if is_touched {
                desk.touch();
            }
            (desk.takes_tunnels(now), desk.takes_truth(now))
        };
        assert_eq!(due(0, false), (true, true), "nothing is known yet");
        assert_eq!(due(400, false), (false, false));
        assert_eq!(due(800, true), (true, true));
        assert_eq!(due(2700, false), (false, false), "two seconds from then on");
        assert_eq!(due(2800, false), (true, true));
        assert_eq!(due(3000, false), (false, false));
    }

    #[test]
    fn a_tunnel_that_is_made_is_told_in_the_same_turn() {
        let (now, mut desk) = (Instant::now(), desk());
        assert!(desk.takes_tunnels(now) && desk.takes_truth(now));
        desk.is_due = true;
        assert!(desk.takes_tunnels(now));
        desk.touch();
        assert!(desk.takes_truth(now));
    }

    #[test]
    fn the_thread_and_the_log_are_told_once() {
        let mut desk = desk();
        let truth = Truth { generation: 1, ..Truth::default() };
        assert_eq!(desk.changed(Truth::default()), None);
        assert_eq!(desk.changed(truth.clone()), Some(truth.clone()));
        assert_eq!(desk.changed(truth), None);
        let mut say = |sentences: &[&str]| desk.say(sentences.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(say(&["one", "two"]), ["one", "two"]);
        assert_eq!(say(&["two", "three"]), ["three"]);
        assert_eq!(say(&["one"]), ["one"], "it is so again");
    }

    #[test]
    fn the_store_is_up_from_when_it_is_reached_until_it_is_not() {
        let mut desk = desk();
        let word = desk.hear(Happening::Joined("b".to_owned(), "192.0.2.2".parse().unwrap()));
        assert_eq!((word.warning, word.address, desk.is_up), (None, "192.0.2.2".parse().ok(), false));
        desk.hear(Happening::Up { again: false });
        assert!(desk.is_up);
        desk.hear(Happening::Note("a note".to_owned()));
        assert!(desk.is_up);
        let word = desk.hear(Happening::Down("it does not answer".to_owned()));
        assert!(
            word.warning.is_some_and(|warning| warning.contains("it does not answer; frames are forwarded")) && !desk.is_up
        );
    }
}
