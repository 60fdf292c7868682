//! The chart: for each comparison a bar of how many times better the switch is, on a logarithmic scale, as SVG by hand: a plotting
//! library would be a dependency for the sake of rectangles.

use std::fmt::Write;

use super::comparison::{Comparison, Row, Spread};
use super::report::{Report, title};

/// The first metric of every measure, where there is a ratio.
pub fn chart(report: &Report) -> String {
    let mut body = String::new();
    let mut y = TOP;
    let mut path = "";
    for comparison in &report.comparisons {
        for row in comparison.rows().iter().filter(|row| row.first) {
            let Some(spread) = row.spread().and_then(|spread| better(spread, row.metric.less)) else { continue };
            if path != comparison.path {
                path = comparison.path;
                y += 10.0;
                let _ =
                    writeln!(body, "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", y + 12.0, escaped(title(path)));
                y += LINE;
            }
            bar(&mut body, y, comparison, row, spread);
            y += LINE;
        }
    }
    let height = y + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"16\">Times better than the other (right of 1x); bar: median, line: least and most. {}</text>\n",
        escaped(&report.settings())
    );
    grid(&mut text, height);
    text + &body + "</svg>\n"
}

/// Turned so that more is better.
fn better(spread: Spread, less: bool) -> Option<Spread> {
    let Spread { median, least, most } = spread;
    let turned = if less { Spread { median: 1.0 / median, least: 1.0 / most, most: 1.0 / least } } else { spread };
    (least > 0.0 && most.is_finite()).then_some(turned)
}

fn bar(text: &mut String, y: f64, comparison: &Comparison, row: &Row<'_>, spread: Spread) {
    let [least, middle, most, one] = [spread.least, spread.median, spread.most, 1.0].map(x);
    let color = if spread.median >= 1.0 { "#4a90c2" } else { "#d9893f" };
    let label = format!("{}, beside {}", comparison.measure, row.beside);
    let (left, width, center) = (one.min(middle), (one - middle).abs().max(1.0), y + 7.0);
    let _ = writeln!(
        text,
        "<text x=\"16\" y=\"{:.0}\">{}</text>\
         <rect x=\"{left:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"14\" fill=\"{color}\"/>\
         <path d=\"M{least:.1} {center:.0}H{most:.1}\" stroke=\"#333\"/>\
         <text x=\"{:.0}\" y=\"{:.0}\">{:.2}</text>",
        y + 12.0,
        escaped(&label),
        RIGHT + 8.0,
        y + 12.0,
        spread.median
    );
}

fn grid(text: &mut String, height: f64) {
    for mark in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
        let (x, color) = (x(mark), if mark == 1.0 { "#333" } else { "#ddd" });
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {TOP}V{height:.0}\" stroke=\"{color}\"/><text x=\"{x:.1}\" y=\"36\" text-anchor=\"middle\">{mark}x</text>"
        );
    }
}

/// Where a factor is; what is off the scale is at its end.
fn x(factor: f64) -> f64 {
    let share = (factor.log10() + 1.0) / 3.0;
    LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 42.0;
const LINE: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::*;

    #[test]
    fn a_bar_goes_from_one_to_the_median() {
        let text = chart(&report::example());
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        // 2.5x is log10(2.5) = 0.398 of a decade right of 1x; a decade has (800 - 300) / 3.
        assert!(text.contains("x=\"466.7\" y=\"72\" width=\"66.3\""), "{text}");
        assert!(text.contains("tcp, beside a bridge") && text.contains(">2.50<"), "{text}");
        assert_eq!(text.matches("<rect").count(), 2, "the background, and one bar: the kernel's CPU time has none");
    }

    #[test]
    fn where_less_is_better_the_bar_is_turned() {
        let turned = better(Spread { median: 0.5, least: 0.25, most: 1.0 }, true);
        assert_eq!(turned, Some(Spread { median: 2.0, least: 1.0, most: 4.0 }));
    }

    #[test]
    fn the_scale_ends() {
        assert_eq!((x(1e-9), x(1e9)), (LEFT, RIGHT));
        assert_eq!(escaped("<a&b>"), "&lt;a&amp;b&gt;");
    }
}
