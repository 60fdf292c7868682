//! The lowest part of the screen: the busiest flows of all traffic, or the busiest sessions of uplinks.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

use super::draw::{DIM, HEAD, number, right};
use super::model::{Model, Rate, SessionRow, Unit};
use api::LiveFlow;

/// Draws the one or the other.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    if model.with_sessions { draw_sessions(frame, area, model) } else { draw_flows(frame, area, model) }
}

fn draw_flows(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let room = usize::from(area.height.saturating_sub(1));
    let unit = model.unit;
    let rate = |flow: &LiveFlow| unit.of(Rate { frames: flow.frames_per_second, bytes: flow.bytes_per_second });
    let mut flows: Vec<&LiveFlow> = model.live.flows.iter().collect();
    flows.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
    let row = |flow: &LiveFlow| {
        let (from, to) = (flow.from().to_string(), flow.to().to_string());
        Row::new([flow.protocol.clone(), from, "→".to_owned(), to, flow.way(), right(&number(rate(flow)), 8)])
    };
    let rows: Vec<Row<'_>> = flows.into_iter().take(room).map(row).collect();
    if rows.is_empty() {
        let text = vec![Line::styled("FLOWS", HEAD), Line::styled("nothing moves", DIM)];
        return frame.render_widget(Paragraph::new(text), area);
    }
    let head = ["FLOW", "FROM (estimated)", "", "TO", "PORTS"].map(str::to_owned);
    let head = head.into_iter().chain([right(unit.name(), 8)]);
    let widths = [
        Constraint::Length(6),
        Constraint::Fill(5),
        Constraint::Length(1),
        Constraint::Fill(5),
        Constraint::Fill(4),
        Constraint::Length(8),
    ];
    frame.render_widget(Table::new(rows, widths).header(Row::new(head).style(HEAD)).column_spacing(1), area);
}

fn draw_sessions(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let room = usize::from(area.height.saturating_sub(1));
    let row = |row: &SessionRow| {
        let session = &row.session;
        let unit = if model.unit == Unit::Bits { 8.0 } else { 1.0 };
        let name = session.docker.container.clone();
        let inside = name.map_or_else(|| session.inside.to_string(), |name| format!("{name}:{}", session.inside.port()));
        let arrow = if session.direction == "out" { "→" } else { "←" };
        Row::new([
            session.protocol.clone(),
            inside,
            arrow.to_owned(),
            session.remote.to_string(),
            session.state.clone(),
            right(&number(row.out_bytes * unit), 7),
            right(&number(row.in_bytes * unit), 7),
        ])
    };
    let rows: Vec<Row<'_>> = model.sessions.iter().take(room).map(row).collect();
    if rows.is_empty() {
        let text = if model.live.uplinks.is_empty() { "there is no uplink" } else { "none" };
        let text = vec![Line::styled("SESSIONS", HEAD), Line::styled(text, DIM)];
        return frame.render_widget(Paragraph::new(text), area);
    }
    let unit = if model.unit == Unit::Bits { "bit/s" } else { "B/s" };
    let head = [
        "SESS".to_owned(),
        format!("STATION (busiest of {}, {unit})", model.sessions.len()),
        String::new(),
        "REMOTE".to_owned(),
        "STATE".to_owned(),
        right("OUT", 7),
        right("IN", 7),
    ];
    let widths = [
        Constraint::Length(4),
        Constraint::Fill(5),
        Constraint::Length(1),
        Constraint::Fill(4),
        Constraint::Length(11),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    frame.render_widget(Table::new(rows, widths).header(Row::new(head).style(HEAD)).column_spacing(1), area);
}
