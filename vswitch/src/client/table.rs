//! Tables of text as `vsctl` prints them, for `print.rs`, `gateway.rs` and `stats.rs`. A pure function of the cells.

use std::fmt::Write;

/// Columns as wide as their widest cell; one that holds only numbers is set to the right, and one with nothing in it is left out.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(heads: [&str; N]) -> Self {
        Self { rows: vec![heads.map(str::to_owned)] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table below another; nothing, if it has no row.
    pub(super) fn more(&self) -> String {
        if self.is_empty() { String::new() } else { format!("\n{}", self.text()) }
    }

    pub(super) fn text(&self) -> String {
        let column = |index: usize| self.rows.iter().map(move |row| row[index].as_str());
        let is_shown = |index: &usize| self.is_empty() || column(*index).skip(1).any(|cell| !cell.is_empty());
        let shown: Vec<usize> = (0..N).filter(is_shown).collect();
        let widths: [usize; N] = std::array::from_fn(|index| column(index).map(|cell| cell.chars().count()).max().unwrap_or(0));
        let numbers: [bool; N] = std::array::from_fn(|index| {
            let is_number = |cell: &str| cell.trim_end_matches('s').bytes().all(|byte| byte.is_ascii_digit());
            !self.is_empty() && index > 0 && column(index).skip(1).all(is_number)
        });
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for &index in &shown {
                let (cell, width) = (&row[index], widths[index]);
                let _ = if numbers[index] { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_takes_no_column() {
        let mut table = Table::new(["PORT", "CONTAINER", "NETWORK"]);
        table.row(["a".into(), String::new(), "net1".into()]);
        table.row(["b".into(), String::new(), String::new()]);
        assert_eq!(table.text(), "PORT  NETWORK\na     net1\nb\n");
    }

    #[test]
    fn numbers_stand_at_the_right_and_no_line_ends_in_spaces() {
        let mut table = Table::new(["PORT", "FRAMES", "STATE"]);
        table.row(["a".into(), "5".into(), "up".into()]);
        table.row(["container-12345".into(), "123456789".into(), "down".into()]);
        assert_eq!(
            table.text(),
            "PORT                FRAMES  STATE\na                        5  up\ncontainer-12345  123456789  down\n"
        );
    }
}
