//! The page's frame, escaping, and the way numbers are written.

use crate::interval::Estimate;

const STYLE: &str = include_str!("style.css");

/// A page under construction.
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn new(title: &str) -> Self {
        let title = escape(title);
        let text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <h1>{title}</h1>\n"
        );
        Self { text }
    }

    /// Adds markup.
    pub(super) fn raw(&mut self, markup: &str) {
        self.text.push_str(markup);
    }

    /// Adds a section, unless its content is empty.
    pub(super) fn section(&mut self, heading: &str, content: &str) {
        if !content.is_empty() {
            self.text.push_str(&format!("<section>\n<h2>{heading}</h2>\n{content}\n</section>\n"));
        }
    }

    pub(super) fn finish(mut self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        self.text
            .push_str(&format!("<footer>patarm {version}</footer>\n</main>\n</body>\n</html>\n"));
        self.text
    }
}

/// Text as it may stand in an element or a quoted attribute. Control characters
/// other than line ends and tabs become U+FFFD, because HTML forbids them.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\r' => {}
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A number with as many digits as its size deserves, `–` for none.
pub(super) fn number(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "–".to_owned();
    };
    let size = value.abs();
    let text = match size {
        _ if size >= 1e6 || (size > 0.0 && size < 1e-3) => format!("{value:.2e}"),
        _ if size >= 1000.0 => format!("{value:.0}"),
        _ if size >= 100.0 => format!("{value:.1}"),
        _ if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    text.replace('-', "−")
}

/// A share in per cent.
pub(super) fn per_cent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |s| format!("{:.1} %", 100.0 * s))
}

/// A figure with its interval.
pub(super) fn estimate(estimate: &Estimate) -> String {
    let interval = estimate.interval.map_or(String::new(), |i| {
        format!(" <small>[{}, {}]</small>", number(Some(i.low)), number(Some(i.high)))
    });
    number(estimate.value) + &interval
}

/// A table that scrolls sideways when it must. Columns whose heading starts with
/// `#` hold numbers and are set flush right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let class = |i: usize| match (i, headings[i].starts_with('#')) {
        (0, _) => " class=\"name\"",
        (_, true) => " class=\"n\"",
        (_, false) => "",
    };
    let head: String = headings
        .iter()
        .enumerate()
        .map(|(i, h)| format!("<th{}>{}</th>", class(i), h.trim_start_matches('#')))
        .collect();
    let body: String = rows
        .iter()
        .map(|row| {
            let cells: String = row
                .iter()
                .enumerate()
                .map(|(i, cell)| format!("<td{}>{cell}</td>", class(i)))
                .collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<div class=\"card scroll\"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )
}
