//! Loops over the rows of a register tile, written out.

/// Repeats a statement for every row below a constant. Written out, because sums in
/// an array that a loop indexes would live in memory instead of registers.
macro_rules! each_row {
    ($rows:expr, $row:ident => $body:expr) => {
        each_row!(@ $rows, $row, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $rows:expr, $row:ident, $body:expr, $($n:literal)*) => {$(
        if $n < $rows {
            let $row = $n;
            $body;
        }
    )*};
}

pub(super) use each_row;
