//! Scales and ticks: from numbers to places in a chart.

/// A linear map from a range of numbers to a range of places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The numbers at both ends.
    pub(super) domain: (f64, f64),
    /// Their places.
    pub(super) range: (f64, f64),
}

impl Scale {
    /// The place of a number, held inside the range.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = self.domain;
        let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
        self.range.0 + share * (self.range.1 - self.range.0)
    }
}

/// The smallest and the largest of finite numbers, widened when they are one.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return None;
    }
    if high - low <= 1e-12 * low.abs().max(1e-9) {
        let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        return Some((low - room, high + room));
    }
    Some((low, high))
}

/// About `target` round numbers (1, 2 or 5 times a power of ten apart) within the domain.
pub(super) fn ticks(domain: (f64, f64), target: usize) -> Vec<f64> {
    let span = domain.1 - domain.0;
    if !(span > 0.0 && span.is_finite()) {
        return vec![domain.0];
    }
    let step = round_step(span / target.max(1) as f64);
    let first = (domain.0 / step - 1e-9).ceil() as i64;
    let last = (domain.1 / step + 1e-9).floor() as i64;
    (first..=last.min(first + 50)).map(|i| i as f64 * step).collect()
}

/// The domain widened to the next ticks on both sides.
pub(super) fn rounded(domain: (f64, f64), target: usize) -> (f64, f64) {
    let step = round_step((domain.1 - domain.0) / target.max(1) as f64);
    let (low, high) = ((domain.0 / step).floor() * step, (domain.1 / step).ceil() * step);
    if low < high && low.is_finite() && high.is_finite() { (low, high) } else { domain }
}

fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let lead = rough / power;
    let round = [1.0, 2.0, 5.0].into_iter().find(|&r| lead <= r * 1.0001).unwrap_or(10.0);
    round * power
}

/// A tick's label, with thousands as k and millions as M.
pub(super) fn tick_label(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size >= 1e9 || (size > 0.0 && size < 1e-4) => format!("{value:.1e}"),
        _ if size >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        _ if size >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    };
    text.replace('-', "−")
}

/// At most four decimals, without trailing zeros or a negative zero.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks((0.0, 10.0), 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((1.0, 1.0), 5), [1.0]);
        let labels: Vec<String> = ticks((0.43, 0.78), 4).into_iter().map(tick_label).collect();
        assert_eq!(labels, ["0.5", "0.6", "0.7"]);
        assert_eq!(rounded((0.43, 0.78), 4), (0.4, 0.8));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(tick_label(-0.5), "−0.5");
        assert_eq!(tick_label(25_000.0), "25k");
        assert_eq!(tick_label(1_500_000.0), "1.5M");
        assert_eq!(tick_label(0.000_02), "2.0e−5");
        assert_eq!(tick_label(-0.000_000_0), "0");
    }

    #[test]
    fn extents_have_width() {
        assert_eq!(extent([2.0, 2.0].into_iter()), Some((1.8, 2.2)));
        assert_eq!(extent([0.0].into_iter()), Some((-1.0, 1.0)));
        assert_eq!(extent([f64::NAN].into_iter()), None);
    }

    proptest! {
        #[test]
        fn places_stay_inside(a in -1e9f64..1e9, b in -1e9f64..1e9, v in -1e10f64..1e10) {
            let domain = extent([a, b].into_iter()).unwrap();
            let scale = Scale { domain: rounded(domain, 4), range: (10.0, 90.0) };
            prop_assert!((10.0..=90.0).contains(&scale.place(v)));
            prop_assert!(ticks(domain, 5).len() <= 51);
        }
    }
}
