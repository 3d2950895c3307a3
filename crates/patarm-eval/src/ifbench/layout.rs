//! `format:` instructions.

use super::marks::{first, stripped, without_punctuation};
use super::{Rule, plain, sentences};
use crate::ifeval::{InstructionError, arguments::Arguments};
use crate::python::text;

/// Most lines of a response that `format:line_indent` takes.
const MAX_LINES: usize = 20_000;

pub(super) fn rule(id: &str, a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    Ok(match id {
        "format:parentheses" => plain(|response| is_nested(&response.text)),
        "format:quotes" => plain(|response| has_nested_quotes(&response.text)),
        "format:options" => options(a)?,
        "format:newline" => plain(|response| {
            let bare = without_punctuation(&response.text);
            let bare = text::strip(&bare);
            let num_lines = bare.split('\n').filter(|line| !line.is_empty()).count();
            num_lines == text::split(bare).count()
        }),
        "format:line_indent" => plain(|response| is_staircase(&response.text)),
        "format:quote_unquote" => plain(|response| has_explained_quotes(&response.text)),
        "format:list" => {
            let separator = a.text("sep")?.to_owned();
            plain(move |response| response.text.matches(&separator).count() >= 2)
        }
        "format:thesis" => plain(|response| has_thesis(&response.text).is_some()),
        "format:sub-bullets" => {
            plain(|response| response.text.split('*').skip(1).all(|bullet| bullet.contains('-')))
        }
        "format:no_bullets_bullets" => plain(|response| has_sentences_then_bullets(&response.text)),
        "format:title_case" => plain(|response| {
            response.tokens().iter().all(|token| {
                let (head, tail) = token.split_at(first(token).map_or(0, char::len_utf8));
                !text::is_lower(head) || !(text::is_upper(tail) || text::is_lower(tail))
            })
        }),
        "format:output_template" => plain(|response| {
            ["My Answer:", "My Conclusion:", "Future Outlook:"]
                .iter()
                .all(|label| response.text.contains(label))
        }),
        "format:no_whitespace" => plain(|response| !response.text.contains(text::is_space)),
        _ => None,
    })
}

/// Brackets of the three kinds at least five deep, of which at least one is closed again.
fn is_nested(response: &str) -> bool {
    let (mut open, mut deepest) = (Vec::new(), 0);
    for c in response.chars() {
        match c {
            '(' | '[' | '{' => {
                open.push(c);
                deepest = deepest.max(open.len());
            }
            ')' | ']' | '}' => {
                let fits = matches!(
                    (open.last(), c),
                    (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')
                );
                if !fits {
                    open.clear();
                    deepest = 0;
                    continue;
                }
                open.pop();
                if deepest >= 5 && open.len() < deepest {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Double and single quotes in each other, three deep, all of which are closed again.
fn has_nested_quotes(response: &str) -> bool {
    let (mut open, mut deepest) = (Vec::new(), 0);
    for c in response.chars().filter(|c| matches!(c, '"' | '\'')) {
        if open.last() == Some(&c) {
            open.pop();
            if deepest >= 3 + open.len() {
                return true;
            }
        } else {
            open.push(c);
            deepest = deepest.max(open.len());
        }
    }
    false
}

/// The response is one of the options: exactly, where they are labelled a, b, c; else without marks
/// on either side and in any case.
fn options(a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    let listed = a.text("options")?;
    let mut letters = listed.chars().filter(|&c| text::is_word(c));
    let is_labelled = ['a', 'b', 'c']
        .iter()
        .all(|label| letters.next().is_some_and(|letter| letter.to_ascii_lowercase() == *label));
    let separator = if listed.contains('/') {
        "/"
    } else if listed.contains("or") {
        "or"
    } else {
        ","
    };
    let options: Vec<String> =
        listed.split(separator).map(|option| text::strip(option).to_owned()).collect();
    if is_labelled {
        return Ok(plain(move |response| options.contains(&response.text)));
    }
    let options: Vec<String> =
        options.iter().map(|option| stripped(option).to_lowercase()).collect();
    Ok(plain(move |response| options.contains(&stripped(&response.text).to_lowercase())))
}

/// Each line is indented more than the one before. Blank lines are removed the way the reference
/// does, while it walks over the same list: the line after a removed one is not looked at.
fn is_staircase(response: &str) -> bool {
    let mut lines: Vec<&str> = response.split('\n').collect();
    if lines.len() > MAX_LINES {
        return false;
    }
    let mut at = 0;
    while at < lines.len() {
        if text::strip(lines[at]).is_empty()
            && let Some(first) = lines.iter().position(|line| *line == lines[at])
        {
            lines.remove(first);
        }
        at += 1;
    }
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    lines.windows(2).all(|pair| indent(pair[1]) > indent(pair[0]))
}

/// No two quotes stand side by side, and the last thing besides digits and marks is no quote.
fn has_explained_quotes(response: &str) -> bool {
    let quotes = response.replace(['“', '”'], "\"").replace("'\"'", "");
    let joined: String = text::split(&quotes).collect();
    let is_filler = |c: char| c.is_ascii_digit() || (c.is_ascii_punctuation() && c != '"');
    let last = joined.trim_matches(is_filler).chars().last();
    !joined.contains("\"\"") && last.is_some_and(|c| c != '"')
}

/// A filled `<i>` or `<em>` element with text after it.
fn has_thesis(response: &str) -> Option<()> {
    let start = response.find("<i>").or_else(|| response.find("<em>"))?;
    let rest = &response[start..];
    let end = rest.find("</i>").or_else(|| rest.find("</em>"))?;
    // The offsets are those of `<i>` and `</i>` also for the longer names.
    let is_filled = |text: Option<&str>| text.is_some_and(|text| !text::strip(text).is_empty());
    (is_filled(rest.get(3..end)) && is_filled(rest.get(end + 4..))).then_some(())
}

/// At least two sentences, then at least two lines that begin with `*`, and nothing after them.
fn has_sentences_then_bullets(response: &str) -> bool {
    let (mut in_text, mut num_sentences, mut num_bullets) = (true, 0, 0);
    for line in response.split('\n').map(text::strip) {
        if line.starts_with('*') {
            in_text = false;
            num_bullets += 1;
            if num_sentences < 2 {
                return false;
            }
        } else if in_text {
            let found = sentences::split(line).len();
            num_sentences += found;
            in_text = found > 0;
        } else {
            return false;
        }
    }
    num_bullets >= 2
}
