//! Final answers of worked solutions: found by rule, compared by value.
//!
//! The rules are ours, in the spirit of the graders of GSM8K and MATH: a boxed answer,
//! the line after `####`, "the answer is …", a last line `A: …`, else the last number.
//! They say nothing of equivalence beyond numbers, fractions and spelling.

/// The final answer of a solution; `None` where no rule finds one.
#[must_use]
pub fn final_answer(text: &str) -> Option<String> {
    let rules: [fn(&str) -> Option<&str>; 4] = [boxed, after_hashes, announced, labelled_line];
    let found = rules.iter().find_map(|rule| rule(text)).or_else(|| last_number(text));
    found.map(|answer| answer.trim().to_owned()).filter(|answer| !answer.is_empty())
}

/// The final answer where the text says that it is one: without the last number.
#[must_use]
pub fn stated_answer(text: &str) -> Option<String> {
    let rules: [fn(&str) -> Option<&str>; 4] = [boxed, after_hashes, announced, labelled_line];
    let found = rules.iter().find_map(|rule| rule(text))?.trim();
    (!found.is_empty()).then(|| found.to_owned())
}

/// Whether two answers say the same: equal numbers, or equal but for spelling.
#[must_use]
pub fn same_answer(first: &str, second: &str) -> bool {
    let (first, second) = (canonical(first), canonical(second));
    match (number(&first), number(&second)) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => first == second,
    }
}

/// The content of the last `\boxed{…}`, braces balanced.
fn boxed(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("\\boxed{")?;
    let mut depth = 1_usize;
    for (at, c) in after.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&after[..at]);
        }
    }
    None
}

fn after_hashes(text: &str) -> Option<&str> {
    first_line(text.rsplit_once("####")?.1)
}

/// What follows the last "answer is" or "answer:", up to the end of its sentence.
fn announced(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let places = ["answer is", "answer:"].iter();
    let found = places.filter_map(|cue| Some(lower.rfind(cue)? + cue.len()));
    let line = first_line(&text[found.max()?..])?.trim_start_matches([' ', ':']);
    Some(line.split(". ").next().unwrap_or(line))
}

/// A last line of the form `A: 18`, as GSM8K's sampled solutions end.
fn labelled_line(text: &str) -> Option<&str> {
    text.trim_end().lines().next_back()?.trim_start().strip_prefix("A:")
}

fn first_line(text: &str) -> Option<&str> {
    text.trim_start().lines().next()
}

fn last_number(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = text[..end]
        .rfind(|c: char| !is_part(c))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let start = start + text[start..end].find(|c: char| c.is_ascii_digit())?;
    let negative = text[..start].strip_suffix('-').is_some_and(|before| {
        before.chars().next_back().is_none_or(|c| c.is_whitespace() || c == '(' || c == '=')
    });
    Some(if negative { &text[start - 1..end] } else { &text[start..end] })
}

/// Without what does not change an answer.
fn canonical(answer: &str) -> String {
    let mut text = answer.trim().trim_matches('$').trim_end_matches(['.', '!']).to_lowercase();
    for (from, to) in [
        ("\\left", ""),
        ("\\right", ""),
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\$", ""),
        ("\\%", ""),
        ("\\!", ""),
        ("\\,", ""),
        ("**", ""),
        ("$", ""),
        ("%", ""),
    ] {
        text = text.replace(from, to);
    }
    text.retain(|c| !c.is_whitespace());
    let without = text.replace(',', "");
    if number(&without).is_some() { without } else { text }
}

/// A decimal number, a fraction `a/b` or `\frac{a}{b}`.
fn number(text: &str) -> Option<f64> {
    let plain = |text: &str| -> Option<f64> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
        text.parse::<f64>().ok().filter(|_| is_plain)
    };
    if let Some(value) = plain(text) {
        return Some(value);
    }
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let parts = match rest.strip_prefix("\\frac{") {
        Some(inner) => inner.strip_suffix('}')?.split_once("}{")?,
        None => rest.split_once('/')?,
    };
    let (above, below) = (plain(parts.0)?, plain(parts.1)?);
    (below != 0.0).then(|| sign * above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_where_they_are_stated() {
        for (text, expected) in [
            ("so \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"),
            ("first \\boxed{1}, then \\boxed{2}", "2"),
            ("18 apples\n#### 1,800\n", "1,800"),
            ("Therefore the answer is 42. We are done.", "42"),
            ("The Answer: $7.50", "$7.50"),
            ("2*9=18\nA: 18", "18"),
        ] {
            assert_eq!(stated_answer(text).as_deref(), Some(expected), "{text}");
            assert_eq!(final_answer(text).as_deref(), Some(expected), "{text}");
        }
        for (text, expected) in [
            ("she has 9 eggs and 3.5 pies", Some("3.5")),
            ("it is -4", Some("-4")),
            ("7-4", Some("4")),
            ("über 1,250 ist", Some("1,250")),
            ("none", None),
            ("", None),
            ("\\boxed{", None),
        ] {
            assert_eq!(final_answer(text).as_deref(), expected, "{text}");
            assert_eq!(stated_answer(text), None, "{text}");
        }
    }

    #[test]
    fn answers_are_compared_by_value_and_spelling() {
        for (first, second) in [
            ("18", "18.0"),
            ("$1,800", "1800"),
            ("1/2", "0.5"),
            ("\\dfrac{1}{2}", "\\frac{1}{2}"),
            ("\\frac{1}{2}", ".5"),
            ("-\\frac{3}{4}", "-0.75"),
            ("50\\%", "50"),
            ("(1, 2)", "(1,2)"),
            ("Monday.", "monday"),
            ("**12**", "12"),
        ] {
            assert!(same_answer(first, second), "{first} {second}");
        }
        for (first, second) in
            [("18", "19"), ("1/0", "1"), ("x", "y"), ("(1,2)", "(12)"), ("inf", "1"), ("", "0")]
        {
            assert!(!same_answer(first, second), "{first} {second}");
        }
    }
}
