//! Figures of contenders that were measured in turns, and what they say.

use super::measure::{Figures, Metric};
use crate::measure::median;

/// What all contenders of a path came to by one measure.
pub(crate) struct Comparison {
    /// The name of the path.
    pub(crate) path: &'static str,
    /// The name of the measure.
    pub(crate) measure: &'static str,
    /// What the measure yields.
    pub(crate) metrics: &'static [Metric],
    /// The contenders, this project's switch first.
    pub(crate) series: Vec<Series>,
}

/// What one contender came to, round by round: its figures, or why there are none.
pub(crate) struct Series {
    /// Its name.
    pub(crate) contender: &'static str,
    /// One for each round.
    pub(crate) runs: Vec<Result<Figures, String>>,
}

/// A line of the table: the switch beside one other, by one metric.
pub(crate) struct Row<'a> {
    /// The metric.
    pub(crate) metric: &'a Metric,
    /// Whether it is the first of its measure.
    pub(crate) first: bool,
    /// The contender beside the switch.
    pub(crate) beside: &'static str,
    /// The switch's figures of all rounds.
    pub(crate) ours: Vec<Option<f64>>,
    /// The other's.
    pub(crate) theirs: Vec<Option<f64>>,
}

/// The middle, the least and the most of some ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The middle one.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
}

impl Comparison {
    /// The switch beside each of the others by each metric; if it ran alone, beside an empty series.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let Some((ours, others)) = self.series.split_first() else { return Vec::new() };
        let nobody = Series { contender: "nobody", runs: Vec::new() };
        let others = if others.is_empty() { std::slice::from_ref(&nobody) } else { others };
        let numbered = || self.metrics.iter().enumerate();
        let row = |theirs: &Series, number, metric| Row {
            metric,
            first: number == 0,
            beside: theirs.contender,
            ours: ours.of(number),
            theirs: theirs.of(number),
        };
        others.iter().flat_map(|theirs| numbered().map(move |(number, metric)| row(theirs, number, metric))).collect()
    }
}

impl Series {
    fn of(&self, metric: usize) -> Vec<Option<f64>> {
        self.runs.iter().map(|run| run.as_ref().ok().and_then(|figures| *figures.get(metric)?)).collect()
    }

    /// How many rounds failed, and why the first of them did.
    pub(crate) fn failures(&self) -> Option<(usize, &str)> {
        let mut reasons = self.runs.iter().filter_map(|run| run.as_ref().err());
        let first = reasons.next()?;
        Some((reasons.count() + 1, first))
    }
}

impl Row<'_> {
    /// The ratios of the rounds in which both have a figure, ours to theirs. There is none to zero.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.theirs).filter_map(|(one, other)| one.zip(*other));
        pairs.filter(|(_, other)| *other > 0.0).map(|(one, other)| one / other).collect()
    }

    /// Of the ratios.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let ratios = self.ratios();
        let least = ratios.iter().copied().min_by(f64::total_cmp)?;
        let most = ratios.iter().copied().max_by(f64::total_cmp)?;
        Some(Spread { median: median(ratios), least, most })
    }
}

/// The middle of the figures that are there.
pub(crate) fn middle(figures: &[Option<f64>]) -> Option<f64> {
    let there: Vec<f64> = figures.iter().copied().flatten().collect();
    (!there.is_empty()).then(|| median(there))
}

/// A comparison for tests of what is made of it: figures for two rounds, and one that failed.
#[cfg(test)]
pub(crate) fn example() -> Comparison {
    static METRICS: [Metric; 2] =
        [Metric { name: "1 TCP stream, Gbit/s", less: false }, Metric { name: "  switch CPU, s per GB", less: true }];
    let series = |contender, runs| Series { contender, runs };
    Comparison {
        path: "tap",
        measure: "tcp",
        metrics: &METRICS,
        series: vec![
            series(
                "vswitch",
                vec![Ok(vec![Some(8.0), Some(0.5)]), Ok(vec![Some(12.0), Some(0.6)]), Err("it <hung>".to_owned())],
            ),
            series("a bridge", vec![Ok(vec![Some(4.0), None]), Ok(vec![Some(4.0), None]), Ok(vec![Some(5.0), None])]),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbours() {
        let comparison = example();
        let rows = comparison.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].ratios(), [2.0, 3.0], "the round that failed has none");
        assert_eq!(rows[0].spread(), Some(Spread { median: 2.5, least: 2.0, most: 3.0 }));
        assert_eq!(rows[1].spread(), None, "what does not apply has none");
        assert_eq!(middle(&rows[0].ours), Some(10.0));
        assert_eq!(middle(&rows[1].theirs), None);
    }

    #[test]
    fn who_is_alone_is_beside_nobody() {
        let mut comparison = example();
        comparison.series.truncate(1);
        let rows = comparison.rows();
        assert_eq!((rows[0].beside, rows[0].spread(), middle(&rows[0].ours)), ("nobody", None, Some(10.0)));
    }

    #[test]
    fn failures_are_counted_with_the_first_reason() {
        let comparison = example();
        assert_eq!(comparison.series[0].failures(), Some((1, "it <hung>")));
        assert_eq!(comparison.series[1].failures(), None);
    }

    #[test]
    fn there_is_no_ratio_to_zero() {
        let metric = Metric { name: "idle", less: true };
        let row =
            Row { metric: &metric, first: true, beside: "x", ours: vec![Some(1.0); 2], theirs: vec![Some(0.0), Some(2.0)] };
        assert_eq!(row.ratios(), [0.5]);
    }
}
