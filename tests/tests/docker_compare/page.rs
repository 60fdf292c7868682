//! The comparison as it is printed, 80 columns wide: what is asked for, and beside it what each of the two answers.

/// The widths of its columns, which a blank follows.
const WIDTHS: [usize; 3] = [22, 28, 28];

/// One check.
pub(super) fn row(what: &str, answers: &[&str], reason: Option<&str>) -> String {
    let mut columns = vec![wrapped(what, WIDTHS[0])];
    columns.extend(answers.iter().zip(&WIDTHS[1..]).map(|(answer, width)| wrapped(&answer.replace('\n', " / "), *width)));
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |column: &[String], line: usize| column.get(line).cloned().unwrap_or_default();
    let mut text = String::new();
    for line in 0..height {
        let cells = columns.iter().zip(WIDTHS).map(|(column, width)| format!("{:width$} ", cell(column, line)));
        text += &format!("{}\n", cells.collect::<String>().trim_end());
    }
    for line in reason.iter().flat_map(|reason| wrapped(&format!("({reason})"), WIDTHS[1] + 1 + WIDTHS[2])) {
        text += &format!("{:width$} {line}\n", "", width = WIDTHS[0]);
    }
    text
}

/// The lines of a text, broken at blanks where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let last = lines.len() - 1;
        let used = lines[last].chars().count();
        if used > 0 && used + 1 + word.len() <= width {
            lines[last].push(' ');
        } else if used > 0 {
            lines.push(String::new());
        }
        while word.len() > width {
            let rest = word.split_off(width);
            let last = lines.len() - 1;
            lines[last].extend(word);
            lines.push(String::new());
            word = rest;
        }
        let last = lines.len() - 1;
        lines[last].extend(word);
    }
    lines
}

#[test]
fn a_row_has_its_answers_beside_each_other() {
    assert_eq!(
        row("a name", &["yes", "no"], Some("as is right")),
        "a name                 yes                          no\n                       (as is right)\n"
    );
    let long = row(&"word ".repeat(9), &["x".repeat(30).as_str(), "1\n2"], None);
    assert_eq!(long.lines().count(), 3, "{long}");
    assert!(long.lines().all(|line| line.chars().count() <= 80) && long.contains("1 / 2"), "{long}");
}
