//! The table on a terminal of 80 columns.

use std::fmt::Write;

use super::comparison::{Comparison, Row, middle};
use super::report::{Report, title};

/// The whole report.
pub fn table(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", report.machine.line(), report.settings());
    text.push_str("Ratio: vswitch to the other, in neighbouring runs. (<): less is better.\n");
    let mut paths: Vec<&str> = report.comparisons.iter().map(|comparison| comparison.path).collect();
    paths.dedup();
    for path in paths {
        let comparisons: Vec<&Comparison> = report.comparisons.iter().filter(|comparison| comparison.path == path).collect();
        let _ = write!(text, "\n{}\n", title(path));
        part(&mut text, &comparisons);
    }
    for absence in &report.absent {
        let _ = write!(text, "\n{}", wrapped(absence, ""));
    }
    text
}

/// A path: for each of the others a block of lines, then what failed.
fn part(text: &mut String, comparisons: &[&Comparison]) {
    let rows: Vec<Row<'_>> = comparisons.iter().flat_map(|comparison| comparison.rows()).collect();
    let mut others: Vec<&str> = Vec::new();
    for row in &rows {
        if !others.contains(&row.beside) {
            others.push(row.beside);
        }
    }
    for other in others {
        let heading = format!("beside {other}");
        let _ = writeln!(text, "  {heading:<34}{:>9}{:>10}{:>8}{:>8}{:>8}", "ours", "theirs", "ratio", "min", "max");
        rows.iter().filter(|row| row.beside == other).for_each(|row| text.push_str(&line(row)));
    }
    for comparison in comparisons {
        for series in &comparison.series {
            if let Some((count, reason)) = series.failures() {
                let of = series.runs.len();
                let sentence = format!("{}, {}: {count} of {of} failed: {reason}", series.contender, comparison.measure);
                text.push_str(&wrapped(&sentence, "  ! "));
            }
        }
    }
}

fn line(row: &Row<'_>) -> String {
    let name = format!("{}{}", row.metric.name, if row.metric.less { " (<)" } else { "" });
    let [ours, theirs] = [&row.ours, &row.theirs].map(|figures| middle(figures).map_or_else(|| "n/a".to_owned(), short));
    let spread = row.spread().map(|spread| [spread.median, spread.least, spread.most]);
    let [ratio, least, most] = spread.map_or_else(|| [const { String::new() }; 3], |spread| spread.map(short));
    format!("  {name:<34}{ours:>9}{theirs:>10}{ratio:>8}{least:>8}{most:>8}").trim_end().to_owned() + "\n"
}

/// Three digits that count.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 99.95 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{figure:.2}"),
        size if size >= 0.00995 => format!("{figure:.3}"),
        _ => format!("{figure:.1e}"),
    }
}

/// A sentence in lines of 80 columns, the first with a mark, the others indented as far.
fn wrapped(sentence: &str, mark: &str) -> String {
    let mut lines = vec![mark.to_owned()];
    for word in sentence.split_whitespace() {
        let last = lines.last_mut().expect("a line");
        if last.len() + word.len() >= 80 && last.len() > mark.len() {
            lines.push(format!("{:1$}{word} ", "", mark.len()));
        } else {
            let _ = write!(last, "{word} ");
        }
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::*;

    #[test]
    fn it_fits_and_says_it_all() {
        let text = table(&report::example());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let line = |of: &str| text.lines().find(|line| line.trim_start().starts_with(of)).unwrap_or_default().to_owned();
        let words = |of: &str| line(of).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words("1 TCP stream")[4..], ["10.0", "4.00", "2.50", "2.00", "3.00"]);
        assert_eq!(words("switch CPU")[6..], ["0.550", "n/a"]);
        assert!(line("beside").contains("beside a bridge"));
        assert!(text.contains("vswitch, tcp: 1 of 3 failed: it <hung>"));
        assert!(text.contains("VDE is not in tap"));
    }

    #[test]
    fn figures_have_three_digits() {
        let written = [0.0, 0.0123, 1.5, 12.34, 123.4, 56789.0, 0.00001].map(short);
        assert_eq!(written, ["0.00", "0.012", "1.50", "12.3", "123", "56789", "1.0e-5"]);
    }

    #[test]
    fn long_sentences_are_wrapped() {
        let text = wrapped(&"word ".repeat(40), "  ! ");
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.starts_with("  ! word") && text.lines().nth(1).is_some_and(|line| line.starts_with("    word")));
    }
}
