//! `custom:` instructions: one prompt each, with its answer in the rule.

use unicode_normalization::UnicodeNormalization as _;

use super::marks::{bare_words, stripped};
use super::{Rule, csv, plain, sentences};
use crate::ifeval::{InstructionError, arguments::Arguments, format::pattern};
use crate::python::text::{self, SPACE};

/// Capitals of Europe north of 45°, by latitude from the north, as the benchmark has them.
const CAPITALS: [&str; 27] = [
    "Reykjavik",
    "Helsinki",
    "Oslo",
    "Tallinn",
    "Stockholm",
    "Riga",
    "Moscow",
    "Copenhagen",
    "Vilnius",
    "Minsk",
    "Dublin",
    "Berlin",
    "Amsterdam",
    "Warsaw",
    "London",
    "Brussels",
    "Prague",
    "Luxembourg",
    "Paris",
    "Vienna",
    "Bratislava",
    "Budapest",
    "Vaduz",
    "Chisinau",
    "Bern",
    "Ljubljana",
    "Zagreb",
];

pub(super) fn rule(id: &str, _: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    Ok(match id {
        "custom:multiples" => plain(|response| {
            let numbers =
                response.text.split(|c| !text::is_decimal(c)).filter(|run| !run.is_empty());
            numbers.eq(["14", "21", "28", "35", "42", "49"])
        }),
        "custom:mcq_count_length" => plain(|response| has_four_questions(&response.text)),
        "custom:reverse_newline" => plain(|response| lists_countries_reversed(&response.text)),
        "custom:word_reverse" => plain(|response| {
            let words = bare_words(text::strip(response.lower()));
            let reversed = words.into_iter().rev().collect::<Vec<_>>().join(" ");
            reversed.contains("bald eagle") && sentences::split(&reversed).contains(&reversed)
        }),
        "custom:character_reverse" => plain(|response| response.lower().contains("elgae dlab")),
        "custom:european_capitals_sort" => plain(|response| {
            let plain_text = ascii(&response.text);
            let capitals = plain_text.split(',').map(text::strip).filter(|c| !c.is_empty());
            capitals.eq(CAPITALS)
        }),
        "custom:csv_city" => plain(|response| is_city_table(&response.text)),
        "custom:csv_special_character" => plain(|response| is_product_table(&response.text)),
        "custom:csv_quotes" => plain(|response| is_grade_table(&response.text)),
        "custom:date_format_list" => {
            plain(|response| text::strip(&response.text).split(',').all(is_date))
        }
        _ => None,
    })
}

/// Four questions with five options each, each question longer than the one before.
fn has_four_questions(response: &str) -> bool {
    if !response.starts_with("Question") {
        return false;
    }
    let heading = pattern!(&format!(r"\n*(?:Question \d+[.|):;]?[{SPACE}]*)"));
    let option = pattern!(&format!(r"^[A-Ea-e][.|)][{SPACE}]*[\p{{L}}\p{{N}}_]"));
    let questions: Vec<&str> =
        heading.split(response).map(text::strip).filter(|part| !part.is_empty()).collect();
    let mut lengths = Vec::new();
    for question in &questions {
        let lines: Vec<&str> = question.split('\n').map(text::strip).collect();
        let num_options = lines.iter().filter(|line| option.is_match(line)).count();
        let asked = lines.iter().take_while(|line| !option.is_match(line));
        let asked = asked.map(|line| format!(" {line}")).collect::<String>();
        if num_options != 5 {
            return false;
        }
        lengths.push(text::strip(&asked).chars().count());
    }
    questions.len() == 4 && lengths.windows(2).all(|pair| pair[0] < pair[1])
}

/// At least 52 lines from the one with Zimbabwe on, in reverse order.
fn lists_countries_reversed(response: &str) -> bool {
    let lines = response.split('\n').map(stripped).filter(|line| !line.is_empty());
    let lines: Vec<String> =
        lines.skip_while(|line| !line.contains("Zimbabwe")).map(ascii).collect();
    lines.len() >= 52 && lines.windows(2).all(|pair| pair[0] >= pair[1])
}

/// Compatibility decomposition without what is not ASCII.
fn ascii(text: &str) -> String {
    text.nfkd().filter(char::is_ascii).collect()
}

fn is_city_table(response: &str) -> bool {
    let Some(rows) = csv::rows(response, ',') else { return false };
    let is_header = |row: &Vec<String>| row.iter().eq(["ID", "Country", "City", "Year", "Count"]);
    rows.len() == 8 && is_header(&rows[0]) && rows[1..].iter().all(|row| row.len() == 5)
}

/// The first line without white space around it.
fn header(response: &str) -> &str {
    text::strip(response.split('\n').next().unwrap_or_default())
}

/// Each column plain or in double quotes, with spaces after the separator.
fn header_pattern(columns: [&str; 5], separator: &str) -> String {
    format!("^{}$", columns.map(|column| format!("({column}|\"{column}\")")).join(separator))
}

/// Fourteen rows; the first with a quoted special character decides, rows before it are checked.
fn is_product_table(response: &str) -> bool {
    const COLUMNS: [&str; 5] = ["ProductID", "Category", "Brand", "Price", "Stock"];
    let first_line = pattern!(&header_pattern(COLUMNS, r",[ \t]*"));
    let special = pattern!(&format!("^\".*[^\\p{{L}}\\p{{N}}_{SPACE}].*\""));
    if !first_line.is_match(header(response)) {
        return false;
    }
    let Some(rows) = csv::rows(&response.replace('"', "\"\"\""), ',') else { return false };
    if rows.len() != 15 {
        return false;
    }
    for row in &rows[1..] {
        if row.len() != 5 {
            return false;
        }
        if row.iter().any(|field| special.is_match(field)) {
            return true;
        }
    }
    false
}

/// A header and three rows with tabs between fields, every field in double quotes.
fn is_grade_table(response: &str) -> bool {
    const COLUMNS: [&str; 5] = ["StudentID", "Subject", "Grade", "Semester", "Score"];
    let first_line = pattern!(&header_pattern(COLUMNS, r"\t *"));
    if !first_line.is_match(header(response)) {
        return false;
    }
    let Some(rows) = csv::rows(&response.replace('"', "\"\"\""), '\t') else { return false };
    let is_quoted = |field: &String| {
        let field = text::strip(field);
        field.starts_with('"') && field.ends_with('"')
    };
    rows.len() == 4 && rows.iter().all(|row| row.len() == 5 && row.iter().all(is_quoted))
}

/// `YYYY-MM-DD` within Napoleon's life, with a day that the month can have. The month may be 0, and
/// so may the day, as in the reference.
fn is_date(date: &str) -> bool {
    let date = text::strip(date);
    let is_shaped = pattern!("^[0-9]{4}-[0-9]{2}-[0-9]{2}$").is_match(date);
    let parts: Vec<u32> = date.split('-').filter_map(|part| part.parse().ok()).collect();
    let (true, [year, month, day]) = (is_shaped, parts.as_slice()) else { return false };
    let most = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 29,
        _ => 99,
    };
    (1769..=1821).contains(year) && *month <= 12 && *day <= most
}
