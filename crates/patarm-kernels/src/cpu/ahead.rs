//! Which lines of a weight to ask for while others are multiplied.
//!
//! A weight that does not fit the caches is read once a call, and every part of it is
//! multiplied with all rows, some rows a pass. Left alone, the first pass waits for
//! memory and the others leave it idle. So the first pass asks for what it will need
//! shortly, and the others for the part that comes next, a share of it each.

/// Lines between what the first pass multiplies and what it asks for: about as much as
/// arrives while they are multiplied.
const DISTANCE: usize = 64;

/// What one pass asks for, line by line (or row by row of a panel, which is some lines).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    /// Lines (rows) from the one being multiplied to the one asked for.
    pub(crate) distance: usize,
    /// One line in so many is asked for, from line `first` on.
    every: usize,
    first: usize,
}

impl Ahead {
    /// Pass `pass` of `passes` over a part of `lines` lines.
    #[inline(always)]
    pub(crate) fn new((pass, passes): (usize, usize), lines: usize) -> Self {
        match pass {
            0 => Self { distance: DISTANCE, every: 1, first: 0 },
            _ => Self { distance: lines, every: passes - 1, first: pass - 1 },
        }
    }

    /// Whether the line to follow line `n` of the part is asked for.
    #[inline(always)]
    pub(crate) fn asks(&self, n: usize) -> bool {
        self.every == 1 || n % self.every == self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passes_ask_for_every_line_of_the_next_part_once() {
        for (passes, lines) in [(2, 9), (4, 144), (5, 8), (64, 100)] {
            let mut asked = vec![0; 3 * lines];
            for pass in 1..passes {
                let ahead = Ahead::new((pass, passes), lines);
                for line in (0..lines).filter(|&line| ahead.asks(line)) {
                    asked[line + ahead.distance] += 1;
                }
            }
            let next = asked.split_off(lines);
            assert!(asked.iter().all(|&times| times == 0));
            assert!(next[..lines].iter().all(|&times| times == 1), "{passes} passes");
        }
    }
}
