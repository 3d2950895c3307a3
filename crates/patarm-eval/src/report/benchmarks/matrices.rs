//! Matrices of shares, such as RM-Bench's styles against styles.

use serde_json::Value;

use super::{BenchmarkRun, tables::words};
use crate::report::html::{escape, number};

/// Most rows and columns of a matrix that is drawn.
const MAX_SIDE: usize = 12;

/// Most matrices drawn of a run.
const MAX_MATRICES: usize = 24;

/// A matrix with the names of its rows and columns.
struct Matrix {
    rows: Vec<String>,
    columns: Vec<String>,
    cells: Vec<Vec<Option<f64>>>,
}

/// Every matrix among the details of a run: a list of equally long lists of numbers, or
/// an object `{"rows", "columns", "values"}` that names them.
pub(super) fn matrices(run: &BenchmarkRun, named: Option<&str>) -> String {
    let drawn: String = run
        .summary
        .details
        .iter()
        .filter_map(|(name, value)| Some((name, read(value)?)))
        .take(MAX_MATRICES)
        .map(|(name, matrix)| card(name, &matrix))
        .collect();
    if drawn.is_empty() {
        return drawn;
    }
    let heading = named.map_or(String::new(), |name| format!("<h3>{}</h3>", escape(name)));
    format!(
        "{heading}<p class=\"hint\">Rows are right responses, columns wrong ones; a cell is the \
         share of pairs in which the right one wins. Right of the diagonal the wrong one has the \
         richer style.</p><div class=\"charts\">{drawn}</div>"
    )
}

fn read(value: &Value) -> Option<Matrix> {
    let (values, names) = match value {
        Value::Object(fields) => (fields.get("values")?, Some(fields)),
        other => (other, None),
    };
    let rows = values.as_array().filter(|rows| (2..=MAX_SIDE).contains(&rows.len()))?;
    let cells: Vec<Vec<Option<f64>>> = rows.iter().map(cells).collect::<Option<_>>()?;
    let width = cells.first()?.len();
    if !(2..=MAX_SIDE).contains(&width) || cells.iter().any(|row| row.len() != width) {
        return None;
    }
    let listed = |field: &str, count: usize| {
        let names = names.and_then(|fields| fields.get(field)).and_then(Value::as_array);
        let names = names.filter(|names| names.len() == count);
        let text = |(i, name): (usize, &Value)| name.as_str().map_or(format!("{i}"), str::to_owned);
        match names {
            Some(names) => names.iter().enumerate().map(text).collect(),
            None if count == 3 => ["concise", "detailed", "markdown"].map(str::to_owned).to_vec(),
            None => (0..count).map(|i| i.to_string()).collect(),
        }
    };
    Some(Matrix { rows: listed("rows", cells.len()), columns: listed("columns", width), cells })
}

fn cells(row: &Value) -> Option<Vec<Option<f64>>> {
    let cell = |value: &Value| match value {
        Value::Null => Some(None),
        Value::Number(number) => Some(number.as_f64()),
        _ => None,
    };
    row.as_array()?.iter().map(cell).collect()
}

fn card(name: &str, matrix: &Matrix) -> String {
    let head: String =
        matrix.columns.iter().map(|c| format!("<th class=\"n\">{}</th>", escape(c))).collect();
    let body: String = matrix
        .rows
        .iter()
        .zip(&matrix.cells)
        .map(|(name, cells)| {
            let cells: String = cells.iter().map(|cell| cell_markup(*cell)).collect();
            format!("<tr><th>{}</th>{cells}</tr>", escape(name))
        })
        .collect();
    format!(
        "<div class=\"card chart\"><h4>{}</h4><div class=\"scroll\"><table class=\"matrix\">\
         <thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div></div>",
        escape(&words(name))
    )
}

/// The darker, the higher; five steps, so that the page needs no inline style.
fn cell_markup(cell: Option<f64>) -> String {
    let step = cell.map_or(0, |value| (value.clamp(0.0, 1.0) * 4.0).round() as usize);
    format!("<td class=\"n heat{step}\">{}</td>", number(cell))
}
