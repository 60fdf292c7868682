//! How long one packet is delayed. The distributions are those of netem's tables (iproute2, `netem/maketable`): of mean 0, in jitters.

use std::time::Duration;

use api::{Delay, Distribution};

use super::random::Draws;

/// Where netem's tables end, in jitters.
const CUT: f64 = 4.0;

/// The delay of the next packet.
pub(super) fn draw(delay: &Delay, stream: &mut Draws) -> Duration {
    if delay.jitter.is_zero() {
        return delay.time;
    }
    let quantile = stream.fraction();
    let away = match delay.distribution {
        Distribution::Uniform => 2.0 * quantile - 1.0,
        Distribution::Normal => normal(quantile).clamp(-CUT, CUT),
        Distribution::Pareto => pareto(quantile),
        Distribution::ParetoNormal => 0.25 * normal(quantile).clamp(-CUT, CUT) + 0.75 * pareto(quantile),
    };
    let by = delay.jitter.mul_f64(away.abs());
    if away < 0.0 { delay.time.saturating_sub(by) } else { delay.time + by }
}

/// The quantile of a Pareto distribution with the exponent 3 and the mean 1.5, moved and scaled as netem's.
fn pareto(quantile: f64) -> f64 {
    (((1.0 - quantile).powf(-1.0 / 3.0) - 1.5) * 4.0 / 3.0).min(CUT)
}

/// The quantile of the normal distribution, with a relative error of 1.2 x 10^-9 at most (P. J. Acklam's approximation).
fn normal(quantile: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    const TAIL: f64 = 0.024_25;
    let polynomial = |factors: &[f64], x: f64| factors.iter().fold(0.0, |sum, factor| sum * x + factor);
    let tail = |quantile: f64| {
        let x = (-2.0 * quantile.ln()).sqrt();
        polynomial(&C, x) / polynomial(&D, x)
    };
    if quantile < TAIL {
        return tail(quantile);
    }
    if quantile > 1.0 - TAIL {
        return -tail(1.0 - quantile);
    }
    let x = quantile - 0.5;
    x * polynomial(&A, x * x) / polynomial(&B, x * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Direction;

    #[test]
    fn the_distributions_have_their_means_and_deviations() {
        for (words, deviation, least, most) in [
            ("", 1.0 / 3.0_f64.sqrt(), -1.0, 1.0),
            (" distribution normal", 1.0, -4.0, 4.0),
            // Cut where netem's tables are: without the cut they would stray further.
            (" distribution pareto", 0.821, -0.67, 4.0),
            (" distribution paretonormal", 0.835, -1.5, 4.0),
        ] {
            let rules: api::Impairment = format!("delay 50ms jitter 10ms{words}").parse().unwrap();
            let mut stream = super::super::random::Streams::new(1, Direction::In).jitter;
            let draws: Vec<f64> =
                (0..100_000).map(|_| (draw(&rules.delay.unwrap(), &mut stream).as_secs_f64() - 0.05) / 0.01).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!(mean.abs() < 0.06, "{words}: {mean}");
            assert!((variance.sqrt() / deviation - 1.0).abs() < 0.05, "{words}: {}", variance.sqrt());
            assert!(draws.iter().all(|draw| (least..=most).contains(&(draw * 0.999_999))), "{words}");
        }
    }

    #[test]
    fn the_normal_quantiles_are_those_of_the_tables() {
        for (quantile, value) in
            [(0.5, 0.0), (0.841_344_746, 1.0), (0.975, 1.959_964), (0.001, -3.090_232), (0.999_9, 3.719_016)]
        {
            assert!((normal(quantile) - value).abs() < 1e-5, "{quantile}: {}", normal(quantile));
        }
    }
}
