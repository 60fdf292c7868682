//! `vsctl top`: the switch as a screen that follows it.
//!
//! - `model`: what two looks at the counters come to; touches nothing.
//! - `draw`: the model on a terminal of any size; `flows`: its lowest part.
//!
//! Counters and flows come once a second without a worker being asked. Sessions are asked for every other second, while they are shown.

mod draw;
mod flows;
mod model;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::ClientError;
use super::connection::Control;
use api::{LiveInfo, Reply, Request, SessionInfo};
use model::Model;

/// How often the switch is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Sessions are asked for at every look of so many.
const SESSIONS: u64 = 2;

/// Shows the switch until the user has seen enough.
pub(super) async fn run(control: Control, json: bool) -> Result<(), ClientError> {
    let live = counters(&control).await?;
    if json {
        return super::show(&Reply::Live(Box::new(live)), json);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "top needs a terminal: `vsctl --json top` prints what it would show, `vsctl stats --interval 1s` the rates";
        return Err(ClientError::Argument(why.to_owned()));
    }
    let failed = |error| ClientError::System("the terminal cannot be used", error);
    // It also gives the terminal back if this program panics.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let shown = follow(&control, Model::new(live), &mut terminal).await;
    ratatui::restore();
    shown.map_err(failed)
}

async fn follow(control: &Control, mut model: Model, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut keys = keys();
    let mut ends = [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?];
    let [term, hang_up, interrupt] = &mut ends;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        terminal.draw(|frame| draw::screen(frame, &mut model))?;
        tokio::select! {
            _ = ticks.tick(), if !model.is_paused() => {
                let with_sessions = model.with_sessions && looks % SESSIONS == 0;
                look(control, &mut model, with_sessions).await;
                looks += 1;
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if press(&mut model, key) {
                        return Ok(());
                    }
                }
                // Another size is drawn for at once.
                Some(_) => {}
                None => return Ok(()),
            },
            _ = term.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// What is typed, from a thread of its own, which ends with the program.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}

/// What a key does; says whether it ends the program.
fn press(model: &mut Model, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('s') => model.sort_otherwise(),
        KeyCode::Char('u') => model.count_otherwise(),
        KeyCode::Char('f') => model.turn_over(),
        KeyCode::Char('p' | ' ') => model.pause(),
        KeyCode::Down | KeyCode::Char('j') => model.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => model.scroll(-1),
        KeyCode::PageDown => model.scroll(8),
        KeyCode::PageUp => model.scroll(-8),
        KeyCode::Home => model.scroll(isize::MIN),
        _ => {}
    }
    false
}

async fn look(control: &Control, model: &mut Model, with_sessions: bool) {
    match counters(control).await {
        Ok(live) => model.take(live),
        Err(error) => return model.lose(error.to_string()),
    }
    if with_sessions {
        match sessions(control).await {
            Ok(rows) => model.take_sessions(rows),
            Err(error) => model.lose(error.to_string()),
        }
    }
}

async fn counters(control: &Control) -> Result<LiveInfo, ClientError> {
    match control.ask(&Request::Live).await? {
        Reply::Live(live) => Ok(*live),
        _ => Err(ClientError::Answer("it has no counters".to_owned())),
    }
}

async fn sessions(control: &Control) -> Result<Vec<SessionInfo>, ClientError> {
    match control.ask(&Request::Sessions(None)).await? {
        Reply::Sessions(rows) => Ok(rows),
        _ => Err(ClientError::Answer("it has no sessions".to_owned())),
    }
}
