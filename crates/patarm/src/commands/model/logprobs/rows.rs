//! Reading rows `{"ids": […]}` or `{"text": "…"}`, checked against the model.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use patarm_text::Tokenizer;
use serde::Deserialize;

use crate::exit::{Code, failure};

/// Longest line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// What a row may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Ids are below this.
    pub(super) vocab: usize,
    /// Tokens of a row with its continuation.
    pub(super) max_tokens: usize,
    /// Tokens by which each row is continued.
    pub(super) greedy: usize,
}

/// A row and where it stands.
#[derive(Debug)]
pub(super) struct NumberedRow {
    /// `FILE:LINE`.
    pub(super) place: String,
    /// Its tokens.
    pub(super) ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    ids: Option<Vec<u32>>,
    text: Option<String>,
}

/// An input file, opened before the model is, so that a mistyped name costs nothing.
#[derive(Debug)]
pub(super) struct RowReader {
    path: PathBuf,
    lines: BufReader<File>,
    number: usize,
}

type OpenTokenizer<'a> = dyn Fn() -> patarm_text::Result<Tokenizer> + 'a;

/// The rows of a file, in order.
pub(super) struct Rows<'a> {
    reader: RowReader,
    limits: Limits,
    open_tokenizer: &'a OpenTokenizer<'a>,
    tokenizer: OnceCell<Tokenizer>,
    waiting: Option<NumberedRow>,
}

impl RowReader {
    /// Opens a file of rows.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let refused = |cause: std::io::Error| {
            failure(Code::Data, format!("cannot read {}: {cause}", path.display()))
        };
        let file = File::open(path).map_err(refused)?;
        Ok(Self { path: path.to_owned(), lines: BufReader::new(file), number: 0 })
    }

    /// Turns lines into checked rows; the tokenizer is opened at the first text.
    pub(super) fn rows<'a>(
        self,
        limits: Limits,
        open_tokenizer: &'a OpenTokenizer<'a>,
    ) -> Rows<'a> {
        Rows { reader: self, limits, open_tokenizer, tokenizer: OnceCell::new(), waiting: None }
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let mut line = String::new();
            self.number += 1;
            let mut limited = Read::by_ref(&mut self.lines).take(MAX_LINE_BYTES + 1);
            let read = limited.read_line(&mut line).map_err(|cause| self.refuse(cause))?;
            if read as u64 > MAX_LINE_BYTES {
                return Err(self.refuse(format!("the line is longer than {MAX_LINE_BYTES} bytes")));
            }
            if read == 0 {
                return Ok(None);
            }
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }

    fn refuse(&self, what: impl std::fmt::Display) -> anyhow::Error {
        failure(Code::Data, format!("{}: {what}", self.place()))
    }
}

impl Rows<'_> {
    /// Rows of about `max_tokens` tokens together, at least one; none at the end.
    pub(super) fn next_batch(&mut self, max_tokens: usize) -> anyhow::Result<Vec<NumberedRow>> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while let Some(row) = self.next_row()? {
            let needed = row.ids.len() + self.limits.greedy;
            if !batch.is_empty() && tokens + needed > max_tokens {
                self.waiting = Some(row);
                break;
            }
            tokens += needed;
            batch.push(row);
        }
        Ok(batch)
    }

    fn next_row(&mut self) -> anyhow::Result<Option<NumberedRow>> {
        if let Some(row) = self.waiting.take() {
            return Ok(Some(row));
        }
        let Some(line) = self.reader.next_line()? else {
            return Ok(None);
        };
        let row: Row =
            serde_json::from_str(&line).map_err(|error| self.reader.refuse(told(&error)))?;
        let ids = match (row.ids, row.text) {
            (Some(ids), None) => ids,
            (None, Some(text)) => self.encode(&text)?,
            _ => return Err(self.reader.refuse("a row has either `ids` or `text`")),
        };
        self.check(&ids)?;
        Ok(Some(NumberedRow { place: self.reader.place(), ids }))
    }

    /// Control tokens are recognised: whoever asks for the log-probabilities of a
    /// text means the text the model sees.
    fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let tokenizer = match self.tokenizer.get() {
            Some(tokenizer) => tokenizer,
            None => {
                let opened = (self.open_tokenizer)().map_err(|error| {
                    failure(Code::Model, format!("{error}; give rows with `ids` instead of `text`"))
                })?;
                self.tokenizer.get_or_init(|| opened)
            }
        };
        tokenizer.encode_template(text).map_err(|error| self.reader.refuse(error))
    }

    fn check(&self, ids: &[u32]) -> anyhow::Result<()> {
        let Limits { vocab, max_tokens, greedy } = self.limits;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            let what = format!("token id {id} is outside the model's vocabulary of {vocab}");
            return Err(self.reader.refuse(what));
        }
        let total = ids.len().saturating_add(greedy);
        if total > max_tokens {
            let what = format!(
                "{total} tokens are more than the {max_tokens} the model takes; shorten the row"
            );
            return Err(self.reader.refuse(what));
        }
        if ids.is_empty() && greedy > 0 {
            return Err(self.reader.refuse("an empty row cannot be continued"));
        }
        Ok(())
    }
}

/// What the JSON reader says, without its line number: it only ever sees one line.
fn told(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let end = said.rfind(" at line ").unwrap_or(said.len());
    format!("not a row of this command: {} (column {})", &said[..end], error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { vocab: 10, max_tokens: 6, greedy: 0 };

    fn read(text: &str, limits: Limits, max_tokens: usize) -> anyhow::Result<Vec<Vec<Vec<u32>>>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        let none = || Tokenizer::open(Path::new("no tokenizer"));
        let mut rows = RowReader::open(&path)?.rows(limits, &none);
        let mut batches = Vec::new();
        loop {
            let batch = rows.next_batch(max_tokens)?;
            if batch.is_empty() {
                return Ok(batches);
            }
            batches.push(batch.into_iter().map(|row| row.ids).collect());
        }
    }

    fn refusal(text: &str, limits: Limits) -> String {
        read(text, limits, 100).unwrap_err().to_string()
    }

    #[test]
    fn rows_are_batched_in_order_and_blank_lines_skipped() {
        let text = "{\"ids\":[1,2]}\n\n{\"ids\":[3]}\n{\"ids\":[4,5,6]}\n{\"ids\":[]}";
        let batches = read(text, LIMITS, 3).unwrap();
        assert_eq!(batches, [vec![vec![1, 2], vec![3]], vec![vec![4, 5, 6], vec![]]]);
    }

    #[test]
    fn a_row_longer_than_a_batch_goes_alone() {
        let batches = read("{\"ids\":[1,2,3]}\n{\"ids\":[4]}", LIMITS, 2).unwrap();
        assert_eq!(batches, [vec![vec![1, 2, 3]], vec![vec![4]]]);
    }

    #[test]
    fn refusals_name_file_line_and_reason() {
        let cases = [
            ("{\"ids\":[1]}\n{\"ids\":[10]}", "rows.jsonl:2: token id 10"),
            ("{\"ids\":[1,1,1,1,1,1,1]}", "rows.jsonl:1: 7 tokens"),
            ("\n{\"ids\":[1]", "rows.jsonl:2: not a row"),
            ("{\"ids\":[-1]}", "rows.jsonl:1: not a row"),
            ("{\"ids\":[1],\"extra\":1}", "unknown field `extra`"),
            ("{}", "either `ids` or `text`"),
            ("{\"ids\":[1],\"text\":\"a\"}", "either `ids` or `text`"),
            ("{\"text\":\"a\"}", "rows with `ids`"),
        ];
        for (text, expected) in cases {
            let said = refusal(text, LIMITS);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn continuations_need_room_and_a_beginning() {
        let limits = Limits { greedy: 3, ..LIMITS };
        assert!(refusal("{\"ids\":[1,2,3,4]}", limits).contains("7 tokens"));
        assert!(refusal("{\"ids\":[]}", limits).contains("cannot be continued"));
        assert!(
            refusal("{\"ids\":[1]}", Limits { greedy: usize::MAX, ..LIMITS }).contains("tokens")
        );
    }
}
