//! The Jinja environment chat templates expect, as `transformers` sets it up:
//! trimmed blocks, loop controls, Python methods, `tojson` without HTML escapes,
//! `raise_exception`, `strftime_now`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, ErrorKind as JinjaKind, Value};

use super::python_json::{self, Layout};
use super::{CalendarDate, MAX_STEPS};
use crate::error::{Error, ErrorKind, Result};

type JinjaError = minijinja::Error;

pub(super) fn build(name: &'static str, source: &str) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(super::failed)?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_debug(false);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_recursion_limit(64);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| match python_word(value) {
        Some(word) => out.write_str(word).map_err(JinjaError::from),
        None => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    let source = without_generation_tags(source);
    environment.add_template_owned(name, source).map_err(super::failed)?;
    Ok(environment)
}

/// Values that Python prints with a capital.
fn python_word(value: &Value) -> Option<&'static str> {
    if value.is_none() {
        return Some("None");
    }
    match bool::try_from(value.clone()) {
        Ok(true) if value.kind() == minijinja::value::ValueKind::Bool => Some("True"),
        Ok(false) if value.kind() == minijinja::value::ValueKind::Bool => Some("False"),
        _ => None,
    }
}

fn raise_exception(message: String) -> Result<String, JinjaError> {
    Err(JinjaError::new(JinjaKind::InvalidOperation, message))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
fn tojson(value: &Value, options: Kwargs) -> Result<String, JinjaError> {
    let layout = Layout {
        indent: options.get::<Option<u32>>("indent")?,
        separators: options.get::<Option<Vec<String>>>("separators")?,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    python_json::dumps(value, &layout)
}

/// Training marks of newer templates; they add nothing to the text. A block that
/// is always entered stands in for them, so that whitespace control stays theirs.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        text.push_str(&replaced(&tag[..end]));
        rest = &tag[end..];
    }
    text.push_str(rest);
    text
}

fn replaced(tag: &str) -> String {
    let word = tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-', '+']);
    match word.trim() {
        "generation" => tag.replace("generation", "if true"),
        "endgeneration" => tag.replace("endgeneration", "endif"),
        _ => tag.to_owned(),
    }
}

/// `strftime_now` for a fixed day at midnight.
pub(super) fn strftime_now(date: CalendarDate) -> Result<Value> {
    if !is_valid(date) {
        let context = format!("{}-{}-{} is not a date", date.year, date.month, date.day);
        return Err(Error::new(ErrorKind::Template, context));
    }
    Ok(Value::from_function(move |format: String| strftime(date, &format)))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_valid(date: CalendarDate) -> bool {
    (1..=9999).contains(&date.year)
        && (1..=12).contains(&date.month)
        && (1..=days_of_month(date.year, date.month)).contains(&date.day)
}

fn day_of_year(date: CalendarDate) -> u16 {
    let before: u16 = (1..date.month).map(|m| u16::from(days_of_month(date.year, m))).sum();
    before + u16::from(date.day)
}

/// 0 for Sunday. 1 January of the year 1 was a Monday in this calendar.
fn weekday(date: CalendarDate) -> usize {
    let years = usize::from(date.year) - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400;
    (days + usize::from(day_of_year(date))) % 7
}

fn strftime(date: CalendarDate, format: &str) -> Result<String, JinjaError> {
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        // `%-d` is the way of C libraries to leave out leading zeros.
        let (directive, padded) = match chars.next() {
            Some('-') => (chars.next(), false),
            other => (other, true),
        };
        let value = directive.and_then(|directive| field(date, directive));
        let Some(value) = value else {
            let message = format!("strftime_now does not know all of {format:?}");
            return Err(JinjaError::new(JinjaKind::InvalidOperation, message));
        };
        text.push_str(if padded { &value } else { unpadded(&value) });
    }
    Ok(text)
}

fn unpadded(value: &str) -> &str {
    let shorter = value.trim_start_matches('0');
    if shorter.is_empty() { "0" } else { shorter }
}

fn field(date: CalendarDate, directive: char) -> Option<String> {
    let month = MONTHS[usize::from(date.month) - 1];
    let day = WEEKDAYS[weekday(date)];
    Some(match directive {
        'Y' => date.year.to_string(),
        'y' => format!("{:02}", date.year % 100),
        'm' => format!("{:02}", date.month),
        'd' => format!("{:02}", date.day),
        'e' => format!("{:2}", date.day),
        'j' => format!("{:03}", day_of_year(date)),
        'B' => month.to_owned(),
        'b' | 'h' => month[..3].to_owned(),
        'A' => day.to_owned(),
        'a' => day[..3].to_owned(),
        'w' => weekday(date).to_string(),
        'F' => format!("{}-{:02}-{:02}", date.year, date.month, date.day),
        'H' | 'M' | 'S' => "00".to_owned(),
        'I' => "12".to_owned(),
        'p' => "AM".to_owned(),
        'T' => "00:00:00".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_weekdays() {
        let date = |year, month, day| CalendarDate { year, month, day };
        let name = |d| WEEKDAYS[weekday(d)];
        assert_eq!(name(date(1969, 7, 20)), "Sunday");
        assert_eq!(name(date(2000, 2, 29)), "Tuesday");
        assert_eq!(name(date(2024, 7, 26)), "Friday");
        assert_eq!(strftime(date(2024, 12, 31), "%j %d %b %Y %-m").unwrap(), "366 31 Dec 2024 12");
        assert!(strftime(date(2024, 1, 1), "%Q").is_err());
        assert!(strftime(date(2024, 1, 1), "%").is_err());
        assert!(strftime_now(date(2023, 2, 29)).is_err());
        assert!(strftime_now(date(0, 1, 1)).is_err());
    }

    #[test]
    fn generation_tags_keep_their_whitespace_control() {
        let source = "a {%- generation -%} b {% endgeneration +%}{% x";
        assert_eq!(without_generation_tags(source), "a {%- if true -%} b {% endif +%}{% x");
    }
}
