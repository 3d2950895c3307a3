//! Stop strings: clients never see them.

/// A text up to the first stop string in it.
pub(super) fn cut<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let first = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
    first.map_or(text, |at| &text[..at])
}

/// Passes on pieces of a text, but nothing that may be the beginning of a stop string.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdback {
    held: String,
    is_over: bool,
}

impl Holdback {
    /// Takes a piece; gives what is certain to belong to the answer.
    pub(super) fn push(&mut self, piece: &str, stops: &[String]) -> String {
        if self.is_over {
            return String::new();
        }
        self.held.push_str(piece);
        if stops.iter().any(|stop| self.held.contains(stop.as_str())) {
            self.is_over = true;
            let kept = cut(&self.held, stops).to_owned();
            self.held.clear();
            return kept;
        }
        let keep = stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// The text is complete: what was held back belongs to it.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of `text` begin `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    let ends = (1..=longest).rev().find(|&len| {
        stop.is_char_boundary(len) && text.as_bytes().ends_with(&stop.as_bytes()[..len])
    });
    ends.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[&str], stops: &[&str]) -> String {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut holdback = Holdback::default();
        let mut text: String = pieces.iter().map(|piece| holdback.push(piece, &stops)).collect();
        text.push_str(&holdback.finish());
        text
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let text = "one END two ENE END three é";
        for stops in [vec![], vec!["END"], vec!["ENEND", "three"], vec!["nothing", "é"]] {
            let owned: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
            let whole = cut(text, &owned);
            for size in 1..6 {
                let chars: Vec<char> = text.chars().collect();
                let pieces: Vec<String> = chars.chunks(size).map(|c| c.iter().collect()).collect();
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                assert_eq!(stream(&pieces, &stops), whole, "{stops:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_beginning_of_a_stop_string_waits() {
        let stops = ["END".to_owned()];
        let mut holdback = Holdback::default();
        assert_eq!(holdback.push("a E", &stops), "a ");
        assert_eq!(holdback.push("N", &stops), "");
        assert_eq!(holdback.push("x", &stops), "ENx");
        assert_eq!(holdback.push(" EN", &stops), " ");
        assert_eq!(holdback.finish(), "EN");
    }
}
