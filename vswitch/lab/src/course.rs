//! A lab's text: Markdown in which each heading of the second level begins a stage, for a terminal and for the web view.

use std::fmt::Write;

/// What comes before the first stage, and the part of each stage.
pub(crate) fn parts(text: &str) -> (&str, Vec<&str>) {
    let (mut starts, mut at, mut code) = (Vec::new(), 0, false);
    for line in text.split_inclusive('\n') {
        code ^= line.starts_with("```");
        if !code && line.starts_with("## ") {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parts = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect();
    (&text[..starts.first().copied().unwrap_or(text.len())], parts)
}

/// The text for a terminal: as it is, with headings and code set off where the terminal can.
pub(crate) fn for_terminal(text: &str, styled: bool) -> String {
    if !styled {
        return text.to_owned();
    }
    let (mut shown, mut code) = (String::new(), false);
    for line in text.lines() {
        // Writing into a string cannot fail.
        let _ = if line.starts_with("```") {
            code = !code;
            Ok(())
        } else if code {
            writeln!(shown, "    \x1b[36m{line}\x1b[0m")
        } else if line.starts_with('#') {
            writeln!(shown, "\x1b[1m{}\x1b[0m", line.trim_start_matches('#').trim_start())
        } else {
            writeln!(shown, "{}", inline(line))
        };
    }
    shown
}

/// A line with its code and its stressed words set off.
fn inline(line: &str) -> String {
    let spans = line.split('`').enumerate();
    let spans = spans.map(|(at, span)| if at % 2 == 1 { format!("\x1b[36m{span}\x1b[0m") } else { stressed(span) });
    spans.collect()
}

fn stressed(span: &str) -> String {
    let parts = span.split("**").enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { format!("\x1b[1m{part}\x1b[0m") } else { part.to_owned() }).collect()
}

/// The text as HTML. Raw HTML of the text is shown as it is written.
pub(crate) fn html(text: &str) -> String {
    use pulldown_cmark::{Event, Options, Parser};
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Event::Text(raw),
        other => other,
    });
    let mut page = String::new();
    pulldown_cmark::html::push_html(&mut page, events);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_heading_of_the_second_level_begins_a_stage() {
        let text = "# T\nintro\n## A\na\n```sh\n## no heading\n```\n### B\n## C\nc\n";
        let (introduction, stages) = parts(text);
        assert_eq!(introduction, "# T\nintro\n");
        assert_eq!(stages, ["## A\na\n```sh\n## no heading\n```\n### B\n", "## C\nc\n"]);
        assert_eq!(parts("only"), ("only", vec![]));
    }

    #[test]
    fn a_terminal_shows_code_without_its_marks_and_a_pipe_everything() {
        assert_eq!(
            for_terminal("# A\n`b` **c**\n```\nd\n```\n", true),
            "\x1b[1mA\x1b[0m\n\x1b[36mb\x1b[0m \x1b[1mc\x1b[0m\n    \x1b[36md\x1b[0m\n"
        );
        assert_eq!(for_terminal("# A\n", false), "# A\n");
    }

    #[test]
    fn a_text_cannot_bring_html_of_its_own() {
        assert_eq!(html("a <script>x</script> `b`\n"), "<p>a &lt;script&gt;x&lt;/script&gt; <code>b</code></p>\n");
    }
}
