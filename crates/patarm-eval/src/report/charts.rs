//! Charts as inline SVG: lines, histograms, intervals.
//!
//! Colours come from the page's style (classes `c0` … `c7`), so a chart follows
//! light and dark; sizes are fixed units that the page scales to its columns.

use super::{
    html::{escape, number},
    scale::{Scale, extent, rounded, tick_label, ticks},
};
use crate::{distribution::Histogram, interval::Interval};

/// Number of colours of the style.
const NUM_COLOURS: usize = 8;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

/// About how many ticks a vertical axis has.
const Y_TICKS: usize = 5;

/// Two sets of more bins than this are drawn over each other, not side by side.
const OVERLAY_FROM: usize = 12;

/// Points kept of a line; longer ones are averaged down, since no more can be seen.
const MAX_POINTS: usize = 400;

/// Lines with more points than this are drawn faint, with their moving average on top.
const SMOOTH_FROM: usize = 24;

/// A line.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) is_reference: bool,
}

/// Names of a chart and what its axes show.
pub(super) struct Labels<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// What stands below a chart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Legend {
    /// Names and last values of the lines.
    LastValues,
    /// Nothing: the title says it all.
    None,
}

/// How far the vertical axis reaches.
#[derive(Clone, Copy)]
pub(super) enum Vertical {
    /// As far as the data.
    Data,
    /// From 0 to 1.
    Share,
    /// From 0 as far as the data, at least to a twentieth.
    SmallShare,
}

/// A chart of lines; empty when no line has a point.
pub(super) fn line_chart(
    labels: &Labels<'_>,
    series: &[Series],
    vertical: Vertical,
    below: Legend,
) -> String {
    let points = || series.iter().flat_map(|s| s.points.iter());
    let Some(x_domain) = extent(points().map(|p| p.0)) else {
        return String::new();
    };
    let Some(data) = extent(points().map(|p| p.1)) else {
        return String::new();
    };
    let y_domain = match vertical {
        Vertical::Share => (0.0, 1.0),
        Vertical::SmallShare => rounded((0.0, data.1.max(0.05)), Y_TICKS),
        Vertical::Data => rounded(data, Y_TICKS),
    };
    let frame = Frame::new(x_domain, y_domain);
    let mut drawn = frame.axes(labels);
    for (index, line) in series.iter().enumerate() {
        drawn.push_str(&frame.line(line, index % NUM_COLOURS));
    }
    let entries: Vec<(String, Option<f64>)> = series
        .iter()
        .filter(|s| !s.is_reference)
        .map(|s| (s.name.clone(), s.points.last().map(|p| p.1)))
        .collect();
    let legend = if below == Legend::LastValues { legend(&entries) } else { String::new() };
    card(labels, &frame.svg(labels.title, &drawn), &legend)
}

/// A histogram of one or two sets of counts over the same bins; empty without counts.
pub(super) fn histogram_chart(labels: &Labels<'_>, sets: &[(&str, &Histogram)]) -> String {
    let totals: Vec<u64> = sets.iter().map(|(_, h)| h.counts.iter().sum()).collect();
    let Some((_, bins)) = sets.first().filter(|_| totals.iter().sum::<u64>() > 0) else {
        return String::new();
    };
    let share = |count: u64, total: u64| count as f64 / total.max(1) as f64;
    let highest = sets
        .iter()
        .zip(&totals)
        .flat_map(|((_, h), &total)| h.counts.iter().map(move |&c| share(c, total)))
        .fold(0.0, f64::max);
    let frame = Frame::new((bins.low, bins.high), rounded((0.0, highest.max(1e-9)), Y_TICKS));
    let mut drawn = frame.axes(labels);
    for (index, ((_, histogram), &total)) in sets.iter().zip(&totals).enumerate() {
        for (bin, &count) in histogram.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
            let low = histogram.low + bin as f64 * histogram.bin_width();
            let parts = if histogram.counts.len() > OVERLAY_FROM { 1 } else { sets.len() };
            let room = histogram.bin_width() / parts as f64;
            let from = low + room * (index % parts) as f64;
            drawn.push_str(&frame.bar((from, from + room), share(count, total), index));
        }
    }
    if bins.low < 0.0 && 0.0 < bins.high {
        drawn.push_str(&frame.vertical_mark(0.0));
    }
    let entries: Vec<(String, Option<f64>)> =
        sets.iter().map(|(name, _)| ((*name).to_owned(), None)).collect();
    let legend = if sets.len() > 1 { legend(&entries) } else { String::new() };
    card(labels, &frame.svg(labels.title, &drawn), &legend)
}

/// A figure with an interval, as a line of [`interval_chart`].
pub(super) struct Whisker {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) interval: Interval,
    /// Place in the palette.
    pub(super) colour: usize,
}

/// Figures with intervals below each other on one axis from 0 to 1, with a mark at
/// one half; empty without figures. Every row is a drawing of its own beside its name,
/// so that a narrow page can set the name above it.
pub(super) fn interval_chart(title: &str, whiskers: &[Whisker]) -> String {
    if whiskers.is_empty() {
        return String::new();
    }
    let title = escape(title);
    let rows: String = whiskers.iter().map(|whisker| whisker_row(&title, whisker)).collect();
    format!(
        "<div class=\"card chart\"><h4>{title}</h4>{rows}<div class=\"whisker\"><span></span>\
         <div class=\"ends\"><span>0</span><span>0.5</span><span>1</span></div><b></b></div></div>"
    )
}

/// Units of a row's drawing; it is stretched to its column.
const ROW: (f64, f64) = (200.0, 20.0);

fn whisker_row(title: &str, whisker: &Whisker) -> String {
    let (width, height) = ROW;
    let x = Scale { domain: (0.0, 1.0), range: (0.0, width) };
    let line = |class: &str, at: f64, (top, bottom): (f64, f64)| {
        let at = x.place(at);
        format!(
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>"
        )
    };
    let grid: String =
        [0.0, 0.25, 0.75, 1.0].iter().map(|at| line("grid", *at, (0.0, height))).collect();
    let name = escape(&shortened(&whisker.name, 90));
    let colour = whisker.colour % NUM_COLOURS;
    format!(
        "<div class=\"whisker\"><span>{name}</span><svg viewBox=\"0 0 {width} {height}\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}: {name}\">{grid}{}\
         <path class=\"c{colour}\" d=\"M{:.1} 10H{:.1}\"/>{}</svg><b>{}</b></div>",
        line("mark", 0.5, (0.0, height)),
        x.place(whisker.interval.low),
        x.place(whisker.interval.high),
        line(&format!("value c{colour}"), whisker.value, (3.0, 17.0)),
        number(Some(whisker.value)),
    )
}

/// The first characters of a text.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn card(labels: &Labels<'_>, svg: &str, legend: &str) -> String {
    format!("<div class=\"card chart\"><h4>{}</h4>{svg}{legend}</div>", escape(labels.title))
}

fn legend(entries: &[(String, Option<f64>)]) -> String {
    let items: String = entries
        .iter()
        .enumerate()
        .map(|(index, (name, last))| {
            let value = last.map_or(String::new(), |v| format!(" <b>{}</b>", number(Some(v))));
            let colour = index % NUM_COLOURS;
            format!("<span><i class=\"c{colour}\"></i>{}{value}</span>", escape(name))
        })
        .collect();
    format!("<div class=\"legend\">{items}</div>")
}

fn svg_element(title: &str, width: f64, height: f64, content: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">{content}</svg>",
        escape(title)
    )
}

/// The drawing area of a chart with two axes.
struct Frame {
    x: Scale,
    y: Scale,
}

impl Frame {
    fn new(x_domain: (f64, f64), y_domain: (f64, f64)) -> Self {
        Self {
            x: Scale { domain: x_domain, range: (LEFT, WIDTH - RIGHT) },
            y: Scale { domain: y_domain, range: (HEIGHT - BOTTOM, TOP) },
        }
    }

    fn svg(&self, title: &str, content: &str) -> String {
        svg_element(title, WIDTH, HEIGHT, content)
    }

    fn axes(&self, labels: &Labels<'_>) -> String {
        let (left, right) = self.x.range;
        let (bottom, top) = self.y.range;
        let mut drawn = String::new();
        for tick in ticks(self.y.domain, Y_TICKS) {
            let y = self.y.place(tick);
            drawn.push_str(&format!(
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                tick_label(tick)
            ));
        }
        for tick in ticks(self.x.domain, 6) {
            let x = self.x.place(tick);
            drawn.push_str(&format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 15.0,
                tick_label(tick)
            ));
        }
        drawn.push_str(&format!(
            "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"11\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 11 {:.1})\">{}</text>",
            (left + right) / 2.0,
            HEIGHT - 5.0,
            escape(labels.x),
            (top + bottom) / 2.0,
            (top + bottom) / 2.0,
            escape(labels.y),
        ));
        drawn
    }

    fn line(&self, series: &Series, colour: usize) -> String {
        if series.is_reference {
            return format!("<path class=\"c7 dashed\" d=\"{}\"/>", self.path(&series.points));
        }
        let points = thinned(&series.points);
        if let [only] = points.as_slice() {
            let (x, y) = (self.x.place(only.0), self.y.place(only.1));
            return format!("<circle class=\"c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
        }
        if points.len() <= SMOOTH_FROM {
            return format!("<path class=\"c{colour}\" d=\"{}\"/>", self.path(&points));
        }
        let (raw, average) = (self.path(&points), self.path(&moving_average(&points)));
        format!(
            "<path class=\"c{colour} faint\" d=\"{raw}\"/><path class=\"c{colour}\" d=\"{average}\"/>"
        )
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (index, &(x, y)) in points.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            path.push_str(&format!("{verb}{:.1} {:.1}", self.x.place(x), self.y.place(y)));
        }
        path
    }

    fn bar(&self, (from, to): (f64, f64), height: f64, colour: usize) -> String {
        let (left, right) = (self.x.place(from) + 0.5, self.x.place(to) - 0.5);
        let (top, bottom) = (self.y.place(height), self.y.range.0);
        format!(
            "<rect class=\"c{colour}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            (right - left).max(0.5),
            bottom - top
        )
    }

    fn vertical_mark(&self, at: f64) -> String {
        let (x, (bottom, top)) = (self.x.place(at), self.y.range);
        format!("<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>")
    }
}

/// Neighbours averaged until at most [`MAX_POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(size)
        .map(|chunk| {
            let n = chunk.len() as f64;
            (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
        })
        .collect()
}

/// Moving average with falling weights over about an eighth of the line on either
/// side; centred, so that it does not lag behind.
fn moving_average(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 8 + 1;
    (0..points.len())
        .map(|centre| {
            let window = centre.saturating_sub(reach)..(centre + reach + 1).min(points.len());
            let weight = |i: usize| 1.0 - i.abs_diff(centre) as f64 / (reach + 1) as f64;
            let total: f64 = window.clone().map(weight).sum();
            let sum: f64 = window.map(|i| weight(i) * points[i].1).sum();
            (points[centre].0, sum / total)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: Labels<'static> = Labels { title: "a < b", x: "step", y: "share" };

    fn series(n: usize) -> Series {
        let points = (0..n).map(|i| (i as f64, (i % 5) as f64)).collect();
        Series { name: "run <1>".to_owned(), points, is_reference: false }
    }

    #[test]
    fn long_lines_are_thinned_and_smoothed() {
        assert_eq!(thinned(&series(100_000).points).len(), MAX_POINTS);
        let level = moving_average(&[(0.0, 3.0); 40]);
        assert!(level.iter().all(|p| (p.1 - 3.0).abs() < 1e-12));
        assert!(
            line_chart(&LABELS, &[series(100)], Vertical::Data, Legend::None).contains("faint")
        );
        assert!(!line_chart(&LABELS, &[series(5)], Vertical::Data, Legend::None).contains("faint"));
    }

    #[test]
    fn names_are_escaped() {
        let chart = line_chart(&LABELS, &[series(3)], Vertical::Share, Legend::LastValues);
        assert!(chart.contains("a &lt; b") && chart.contains("run &lt;1&gt;"), "{chart}");
        assert!(!chart.contains("<1>"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(line_chart(&LABELS, &[], Vertical::Data, Legend::None), "");
        assert_eq!(line_chart(&LABELS, &[series(0)], Vertical::Share, Legend::None), "");
        assert_eq!(interval_chart("x", &[]), "");
        let empty = Histogram { low: 0.0, high: 1.0, counts: vec![0], outside: 0 };
        assert_eq!(histogram_chart(&LABELS, &[("a", &empty)]), "");
        assert_eq!(histogram_chart(&LABELS, &[]), "");
    }

    #[test]
    fn bars_stand_for_shares() {
        let histogram = Histogram { low: -1.5, high: 1.5, counts: vec![1, 0, 3], outside: 0 };
        let chart = histogram_chart(&LABELS, &[("a", &histogram), ("b", &histogram)]);
        assert_eq!(chart.matches("<rect").count(), 4);
        assert!(chart.contains("class=\"mark\""));
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(shortened("äöü", 2), "äö…");
        assert_eq!(shortened("äö", 2), "äö");
    }
}
