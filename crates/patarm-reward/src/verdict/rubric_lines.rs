//! Criteria as a judge writes them: one `Name (weight): description` a line.

use crate::rubric::{Criterion, Origin, Rubric};

/// Criteria beyond this number are counted as unparsed.
pub const MAX_CRITERIA: usize = 64;

/// The criteria of a section and the number of its lines that state none.
///
/// Bullets, numbering and bold marks are tolerated; weight and description may be
/// missing, but not both.
#[must_use]
pub fn parse(section: &str) -> (Rubric, usize) {
    let mut rubric = Rubric::default();
    let mut unparsed = 0;
    for line in section.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match criterion(line) {
            Some(criterion) if rubric.criteria.len() < MAX_CRITERIA => {
                rubric.criteria.push(criterion);
            }
            _ => unparsed += 1,
        }
    }
    (rubric, unparsed)
}

/// One criterion in the form that [`parse`] reads.
#[must_use]
pub fn format(criterion: &Criterion) -> String {
    let weight = criterion.weight.map_or_else(String::new, |weight| format!(" ({weight}%)"));
    if criterion.description.is_empty() && criterion.weight.is_some() {
        return format!("{}{weight}", criterion.name);
    }
    format!("{}{weight}: {}", criterion.name, criterion.description)
}

fn criterion(line: &str) -> Option<Criterion> {
    let line = without_marker(line);
    let (head, description) = match line.split_once(':') {
        Some((head, description)) => (head, description.trim_matches(is_decoration)),
        None => (line, ""),
    };
    let (name, weight) = name_and_weight(head.trim_matches(is_decoration));
    let states_something = weight.is_some() || line.contains(':');
    (!name.is_empty() && states_something).then(|| Criterion {
        name: name.to_owned(),
        description: description.to_owned(),
        weight,
        origin: Origin::Generated,
    })
}

/// The line without a leading bullet or number.
pub(super) fn without_marker(line: &str) -> &str {
    let line = line.trim_start_matches(['-', '*', '•', ' ']);
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    match line[digits..].strip_prefix(['.', ')']) {
        Some(rest) if digits > 0 => rest.trim_start_matches(is_decoration),
        _ => line,
    }
}

fn is_decoration(c: char) -> bool {
    c == '*' || c.is_whitespace()
}

/// Splits `Name (40%)`; the weight must be a number of per cent from 0 to 100.
fn name_and_weight(head: &str) -> (&str, Option<f64>) {
    let split = || {
        let (name, rest) = head.rsplit_once('(')?;
        let inside = rest.strip_suffix(')')?.trim();
        let number = inside.strip_suffix('%').unwrap_or(inside).trim();
        if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return None;
        }
        let weight: f64 = number.parse().ok()?;
        (0.0..=100.0).contains(&weight).then_some((name.trim_end_matches(is_decoration), weight))
    };
    match split() {
        Some((name, weight)) => (name, Some(weight)),
        None => (head, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<(String, Option<f64>, String)> {
        criterion(line).map(|c| (c.name, c.weight, c.description))
    }

    #[test]
    fn lines_judges_write() {
        for (line, name, weight, description) in [
            ("Accuracy (60%): facts hold", "Accuracy", Some(60.0), "facts hold"),
            ("Accuracy (60): facts: all", "Accuracy", Some(60.0), "facts: all"),
            ("- **Tone** (12.5 %): polite", "Tone", Some(12.5), "polite"),
            ("2. Depth (40%)", "Depth", Some(40.0), ""),
            ("Clarity: easy to read", "Clarity", None, "easy to read"),
            ("Style (informal): loose", "Style (informal)", None, "loose"),
            ("Odd (150%): x", "Odd (150%)", None, "x"),
        ] {
            let expected = Some((name.to_owned(), weight, description.to_owned()));
            assert_eq!(one(line), expected, "{line}");
        }
    }

    #[test]
    fn lines_that_state_nothing() {
        for line in ["just words", "(40%): nameless", ": x", "----", "**"] {
            assert_eq!(one(line), None, "{line}");
        }
    }

    #[test]
    fn counts_what_it_cannot_use() {
        let many = "Name (1%): d\n".repeat(MAX_CRITERIA + 5);
        let (rubric, unparsed) = parse(&format!("\nno criterion\n{many}"));
        assert_eq!((rubric.criteria.len(), unparsed), (MAX_CRITERIA, 6));
    }

    #[test]
    fn written_lines_read_back() {
        let section = "Accuracy (60%): facts hold\nTone (40%)\nClarity: easy";
        let (rubric, unparsed) = parse(section);
        let written: Vec<String> = rubric.criteria.iter().map(format).collect();
        assert_eq!((written.join("\n").as_str(), unparsed), (section, 0));
    }
}
