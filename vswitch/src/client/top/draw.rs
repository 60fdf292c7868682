//! The model on a terminal: ports on top, below them drops beside the fill of tables, then the busiest flows, and the keys.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::flows;
use super::model::{Model, PortRow, Unit};
use api::PortState;

/// Columns of a curve.
const CURVE: usize = 14;
/// The smallest screen that shows more than a sentence.
const LEAST: (u16, u16) = (72, 14);
pub(super) const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const GOOD: Style = Style::new().fg(Color::Green);

/// Draws everything.
pub(super) fn screen(frame: &mut Frame<'_>, model: &mut Model) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let sentence = format!("vsctl top needs {} columns and {} lines; q ends it", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(sentence), area);
    }
    // With 24 lines: 8 ports, 4 reasons, 5 flows.
    let body = area.height - 2;
    let lower = (body - 10).min(6 + body / 8).min(body / 3 - 1).max(3);
    let rows = [1, 0, lower, lower, 1];
    let [head, ports, middle, lowest, keys] =
        Layout::vertical(rows.map(|height| if height == 0 { Constraint::Fill(1) } else { Constraint::Length(height) }))
            .areas(area);
    let [drops, tables] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(middle);
    draw_head(frame, head, model);
    draw_ports(frame, ports, model);
    draw_drops(frame, drops, model);
    draw_tables(frame, tables, model);
    flows::draw(frame, lowest, model);
    draw_keys(frame, keys, model);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let live = &model.live;
    let up = live.ports.iter().filter(|port| port.state == PortState::Up).count();
    let workers = if live.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", live.workers) };
    let text =
        format!("vswitch {}  up {}  {workers}  {up} of {} ports up", live.version, time(live.uptime_seconds), live.ports.len());
    let mut line = vec![Span::styled(text, HEAD)];
    if live.captures > 0 {
        line.push(Span::raw(format!("  {} captures", live.captures)));
    }
    if model.paused {
        line.push(Span::styled("  paused", WARN));
    }
    if let Some(problem) = &model.problem {
        line = vec![Span::styled(format!("not now: {problem}"), BAD)];
    }
    frame.render_widget(Line::from(line), area);
}

fn draw_ports(frame: &mut Frame<'_>, area: Rect, model: &mut Model) {
    let room = usize::from(area.height.saturating_sub(2));
    model.scrolled = model.scrolled.min(model.ports.len().saturating_sub(room));
    let shown = model.ports.iter().skip(model.scrolled).take(room);
    let unit = model.unit;
    let rows: Vec<Row<'_>> = shown.map(|row| port_line(row, unit)).collect();
    let more = model.ports.len().saturating_sub(model.scrolled + rows.len());
    let name = if more > 0 || model.scrolled > 0 {
        format!("PORT {}-{}/{}", model.scrolled + 1, model.scrolled + rows.len(), model.ports.len())
    } else {
        "PORT".to_owned()
    };
    let head = [
        name,
        "STATE".to_owned(),
        right("IN", 8),
        right("OUT", 8),
        unit.name().to_owned(),
        right("DROPS/s", 8),
        "WHERE".to_owned(),
    ];
    let curve = u16::try_from(CURVE).unwrap_or(u16::MAX);
    let widths = [15, 10, 8, 8, curve, 8].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    let table = Table::new(rows, widths).header(Row::new(head).style(HEAD)).column_spacing(1);
    frame.render_widget(table, area);
}

fn port_line(row: &PortRow, unit: Unit) -> Row<'static> {
    let port = &row.port;
    let (state, style) = match &port.state {
        PortState::Up => ("up".to_owned(), GOOD),
        PortState::Down => ("down".to_owned(), DIM),
        PortState::NoCarrier => ("no carrier".to_owned(), WARN),
        PortState::DeviceGone | PortState::NamespaceGone => ("gone".to_owned(), BAD),
        PortState::Unusable(_) => ("unusable".to_owned(), BAD),
    };
    let bridge = port.bridge.as_ref().map(ToString::to_string).unwrap_or_default();
    let place = port.place.as_deref().unwrap_or_default();
    let drops = if row.drops > 0.0 { number(row.drops) } else { "-".to_owned() };
    let drops_style = if row.drops > 0.0 { BAD } else { DIM };
    Row::new([
        Cell::from(port.name.to_string()),
        Cell::from(Span::styled(state, style)),
        Cell::from(right(&number(unit.of(row.rx)), 8)),
        Cell::from(right(&number(unit.of(row.tx)), 8)),
        Cell::from(Span::styled(curve(&row.curve), Style::new().fg(Color::Cyan))),
        Cell::from(Span::styled(right(&drops, 8), drops_style)),
        Cell::from(Span::styled(format!("{bridge} {place}").trim().to_owned(), DIM)),
    ])
}

fn draw_drops(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let room = usize::from(area.height.saturating_sub(2));
    let row = |drop: &super::model::DropRow| {
        let style = if drop.rate > 0.0 { Style::new() } else { DIM };
        let rate = if drop.rate > 0.0 { number(drop.rate) } else { "-".to_owned() };
        let cells = [drop.port.to_string(), drop.reason.clone(), right(&rate, 6), right(&number(drop.total as f64), 6)];
        Row::new(cells).style(style)
    };
    let rows: Vec<Row<'_>> = model.drops.iter().take(room).map(row).collect();
    if rows.is_empty() {
        let text = vec![Line::styled("DROPS", HEAD), Line::styled("none so far", DIM)];
        return frame.render_widget(Paragraph::new(text), area);
    }
    let head = ["DROPS AT".to_owned(), "REASON".to_owned(), right("1/s", 6), right("ALL", 6)];
    let widths = [Constraint::Length(8), Constraint::Fill(1), Constraint::Length(6), Constraint::Length(6)];
    frame.render_widget(Table::new(rows, widths).header(Row::new(head).style(HEAD)).column_spacing(1), area);
}

/// How full a table is.
struct Fill {
    name: String,
    used: u64,
    size: u64,
}

fn fills(model: &Model) -> Vec<Fill> {
    let live = &model.live;
    let macs = live.bridges.iter().map(|bridge| Fill {
        name: format!("{} MACs", bridge.name),
        used: bridge.macs as u64,
        size: bridge.max_macs.into(),
    });
    let pools = live.bridges.iter().flat_map(|bridge| {
        let version = |pool: &api::PoolInfo| if pool.subnet.addr().is_ipv4() { "DHCP" } else { "DHCPv6" };
        let fill = move |pool: &api::PoolInfo| Fill {
            name: format!("{} {}", bridge.name, version(pool)),
            used: pool.used as u64,
            size: pool.size as u64,
        };
        bridge.pools.iter().map(fill).collect::<Vec<_>>()
    });
    let sessions = live.uplinks.iter().map(|uplink| Fill {
        name: format!("{} sessions", uplink.name),
        used: uplink.sessions,
        size: uplink.max_sessions,
    });
    let peers = live.tunnels.iter().map(|tunnel| Fill {
        name: format!("{} peers up", tunnel.name),
        used: tunnel.peers.iter().filter(|peer| peer.state == "up").count() as u64,
        size: tunnel.peers.len() as u64,
    });
    let mut fills: Vec<Fill> = sessions.chain(pools).chain(macs).collect();
    fills.sort_by(|one, other| other.share().total_cmp(&one.share()));
    // Of peers few are bad, of all others many.
    peers.chain(fills).collect()
}

impl Fill {
    fn share(&self) -> f64 {
        if self.size == 0 { 0.0 } else { self.used as f64 / self.size as f64 }
    }
}

fn draw_tables(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let room = usize::from(area.height.saturating_sub(2));
    let row = |fill: &Fill| {
        let is_peers = fill.name.ends_with("peers up");
        let style = match fill.share() {
            share if is_peers && share < 1.0 => BAD,
            _ if is_peers => GOOD,
            0.9.. => BAD,
            0.7.. => WARN,
            _ => Style::new(),
        };
        let text = format!("{} of {}", number(fill.used as f64), number(fill.size as f64));
        Row::new([
            Cell::from(fill.name.clone()),
            Cell::from(Span::styled(gauge(fill.share()), style)),
            Cell::from(right(&text, 14)),
        ])
    };
    let rows: Vec<Row<'_>> = fills(model).iter().take(room).map(row).collect();
    let widths = [Constraint::Fill(1), Constraint::Length(8), Constraint::Length(14)];
    let head = Row::new(["TABLES".to_owned(), String::new(), right("IN USE", 14)]).style(HEAD);
    frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let (sort, unit) = (model.sort.name(), model.unit.name());
    let other = if model.with_sessions { "flows" } else { "sessions" };
    let keys = [("q", "quit"), ("s", sort), ("u", unit), ("f", other), ("p", "pause"), ("↑↓", "scroll")];
    let mut line = Vec::new();
    for (key, what) in keys {
        line.push(Span::styled(format!(" {key} "), Style::new().add_modifier(Modifier::REVERSED)));
        let what = match key {
            "s" => format!(" by {what}  "),
            "u" => format!(" in {what}  "),
            _ => format!(" {what}  "),
        };
        line.push(Span::raw(what));
    }
    frame.render_widget(Line::from(line), area);
}

/// The last rates as a curve whose top is the largest of them.
fn curve(rates: &VecDeque<f64>) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown: Vec<f64> = rates.iter().rev().take(CURVE).rev().copied().collect();
    let top = shown.iter().copied().fold(0.0, f64::max);
    let step = |rate: f64| {
        if rate <= 0.0 {
            return ' ';
        }
        let height = STEPS.iter().zip(1_u8..).find(|(_, level)| rate / top <= f64::from(*level) / 8.0);
        height.map_or('█', |(step, _)| *step)
    };
    let curve: String = shown.iter().map(|rate| step(*rate)).collect();
    format!("{curve:>CURVE$}")
}

/// A bar of eight columns; what is not empty shows.
fn gauge(share: f64) -> String {
    let filled = (1_u8..=8).filter(|level| share * 8.0 >= f64::from(*level) - 0.5).count().max(usize::from(share > 0.0));
    "█".repeat(filled) + &"░".repeat(8 - filled)
}

/// A number in at most six characters: 3 digits and what they are multiplied by.
pub(super) fn number(value: f64) -> String {
    let mut value = value.max(0.0);
    if value > 0.0 && value < 1.0 {
        return "<1".to_owned();
    }
    for unit in ["", "k", "M", "G", "T"] {
        if value < 999.5 {
            let digits = usize::from(!unit.is_empty() && value < 99.95) + usize::from(!unit.is_empty() && value < 9.995);
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}P")
}

pub(super) fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

fn time(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
