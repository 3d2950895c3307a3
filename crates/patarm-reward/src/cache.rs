//! Answers kept on disk, so that an interrupted run asks for nothing twice.
//!
//! A file of JSON lines, only ever appended to: one line an answer, keyed by the
//! SHA-256 of everything it depends on: the engine and its revision, the whole prompt
//! (and with it template, rubric, prompt and response), the sampling settings and the
//! seed. [`CachedCompleter`] keeps completions; [`judged`] keeps judgements, votes and
//! rewards. A last line torn by a crash is cut off when the file is opened; other lines
//! that cannot be read are skipped and counted. One process at a time holds the file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::completer::{
    Completer, Completion, CompletionError, CompletionRequest, CompletionResult, OnDone,
};
use crate::error::{Error, ErrorKind, Result};

pub mod judged;

/// The version of the line format.
const VERSION: u32 = 2;
/// Longer lines are skipped; no answer is so long.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// What an answer depends on, hashed.
pub type CacheKey = [u8; 32];

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<T> {
    version: u32,
    key: String,
    answer: T,
}

/// Completions by key, in memory and on disk.
pub type VerdictCache = DiskCache<Completion>;

/// Answers by key, in memory and on disk.
#[derive(Debug)]
pub struct DiskCache<T> {
    path: PathBuf,
    file: File,
    known: HashMap<CacheKey, T>,
    num_skipped: usize,
}

impl<T: Clone + Serialize + DeserializeOwned> DiskCache<T> {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When the file cannot be opened, read or repaired, or another run holds it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let cannot = |source| Error::io(format!("verdict cache {shown}: cannot be read"), source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("verdict cache {shown}: another run is using it");
                return Err(Error::new(ErrorKind::File, message));
            }
            Err(TryLockError::Error(source)) => return Err(cannot(source)),
        }
        let mut cache = Self { path: path.to_owned(), file, known: HashMap::new(), num_skipped: 0 };
        cache.load().map_err(cannot)?;
        Ok(cache)
    }

    /// Reads every whole line and cuts off a torn last one.
    fn load(&mut self) -> std::io::Result<()> {
        let mut reader = BufReader::new(self.file.try_clone()?);
        let mut whole_bytes = 0u64;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            let mut length = read as u64;
            if line.last() != Some(&b'\n') {
                let (rest, ended) = skip_line(&mut reader)?;
                if !ended {
                    break;
                }
                length += rest;
                line.clear();
            }
            whole_bytes += length;
            match parse_line(&line) {
                Some((key, answer)) => {
                    self.known.insert(key, answer);
                }
                None => self.num_skipped += 1,
            }
        }
        self.file.set_len(whole_bytes)?;
        self.file.seek(SeekFrom::End(0))?;
        Ok(())
    }

    /// An empty cache on a device that refuses every write, where there is one.
    #[cfg(test)]
    pub(crate) fn on_full_device() -> Option<Self> {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        Some(Self { path, file, known: HashMap::new(), num_skipped: 0 })
    }

    /// Answers known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Lines that could not be read when the file was opened.
    #[must_use]
    pub fn num_skipped(&self) -> usize {
        self.num_skipped
    }

    /// The answer of a key.
    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Option<&T> {
        self.known.get(key)
    }

    /// Keeps an answer, on disk before this returns to the caller.
    ///
    /// # Errors
    /// When the line cannot be written; the answer is then known in memory only, and
    /// what was written of it is cut off again.
    pub fn insert(&mut self, key: CacheKey, answer: &T) -> Result<()> {
        self.known.insert(key, answer.clone());
        let shown = self.path.display();
        let line = Line { version: VERSION, key: hex(&key), answer };
        let mut bytes = serde_json::to_vec(&line).map_err(|error| {
            Error::new(ErrorKind::File, format!("verdict cache {shown}: {error}"))
        })?;
        bytes.push(b'\n');
        let cannot =
            |source| Error::io(format!("verdict cache {shown}: cannot be written"), source);
        let before = self.file.stream_position().map_err(cannot)?;
        self.file.write_all(&bytes).map_err(|source| {
            // Half a line would spoil the next one. The first failure is the one to tell.
            let _ =
                self.file.set_len(before).and_then(|()| self.file.seek(SeekFrom::Start(before)));
            cannot(source)
        })
    }
}

/// Reads to the end of a line without keeping it; says how far, and whether it ended.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok((skipped, false));
        }
        let end = buffer.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let used = end.unwrap_or(buffer.len());
        reader.consume(used);
        skipped += used as u64;
        if end.is_some() {
            return Ok((skipped, true));
        }
    }
}

fn parse_line<T: DeserializeOwned>(line: &[u8]) -> Option<(CacheKey, T)> {
    let line: Line<T> = serde_json::from_slice(line).ok()?;
    if line.version != VERSION {
        return None;
    }
    Some((unhex(&line.key)?, line.answer))
}

fn hex(key: &CacheKey) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<CacheKey> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}

/// The key of a request to an engine.
#[must_use]
pub fn cache_key(engine: &str, revision: &str, request: &CompletionRequest) -> CacheKey {
    let mut hash = Sha256::new();
    // Every part goes in with its length, so that no two requests run together.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(engine.as_bytes());
    part(revision.as_bytes());
    for message in &request.prompt.messages {
        part(format!("{:?}", message.role).as_bytes());
        part(message.plain_text().as_bytes());
        for call in &message.tool_calls {
            part(call.name.as_bytes());
            part(call.arguments.as_bytes());
        }
    }
    for tool in &request.prompt.tools {
        part(tool.name.as_bytes());
        part(tool.description.as_bytes());
        part(tool.parameters.as_bytes());
    }
    for stop in &request.stop {
        part(stop.as_bytes());
    }
    let counts = [
        request.prompt.messages.len() as u64,
        request.prompt.tools.len() as u64,
        request.stop.len() as u64,
        request.max_tokens as u64,
        request.temperature.to_bits(),
        request.top_p.to_bits(),
        request.seed,
    ];
    for count in counts {
        part(&count.to_le_bytes());
    }
    hash.finalize().into()
}

/// A completer that remembers.
#[derive(Debug)]
pub struct CachedCompleter<C> {
    inner: C,
    revision: String,
    cache: Mutex<VerdictCache>,
    /// The first failure to write, until somebody asks.
    write_error: Mutex<Option<Error>>,
}

impl<C: Completer> CachedCompleter<C> {
    /// A completer that asks `inner` only for what `cache` does not hold. `revision`
    /// tells apart models that share a name: a commit, or the hash of the weights.
    #[must_use]
    pub fn new(inner: C, revision: impl Into<String>, cache: VerdictCache) -> Self {
        let (cache, write_error) = (Mutex::new(cache), Mutex::new(None));
        Self { inner, revision: revision.into(), cache, write_error }
    }

    /// The first failure to write the cache since the last call. Results are returned
    /// even when they cannot be kept, so the caller decides whether to go on.
    pub fn take_write_error(&self) -> Option<Error> {
        lock(&self.write_error).take()
    }

    fn keep(&self, key: CacheKey, completion: &Completion) {
        if let Err(error) = lock(&self.cache).insert(key, completion) {
            lock(&self.write_error).get_or_insert(error);
        }
    }
}

/// The lock even after a panic elsewhere: cache entries are whole or absent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<C: Completer> Completer for CachedCompleter<C> {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        self.complete_each(requests, &mut |_, _| {})
    }

    fn complete_each(
        &self,
        requests: &[CompletionRequest],
        on_done: OnDone<'_>,
    ) -> Vec<CompletionResult> {
        let engine = self.inner.name();
        let keys: Vec<CacheKey> =
            requests.iter().map(|request| cache_key(&engine, &self.revision, request)).collect();
        let mut results: Vec<Option<CompletionResult>> = requests.iter().map(|_| None).collect();
        // Equal requests are asked once; their places share the answer.
        let mut places: HashMap<CacheKey, Vec<usize>> = HashMap::new();
        let mut asked: Vec<(CacheKey, CompletionRequest)> = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let known = lock(&self.cache).get(key).cloned();
            if let Some(completion) = known {
                let result = Ok(completion);
                on_done(i, &result);
                results[i] = Some(result);
                continue;
            }
            let sharing = places.entry(*key).or_default();
            if sharing.is_empty() {
                asked.push((*key, requests[i].clone()));
            }
            sharing.push(i);
        }
        let (asked_keys, asked): (Vec<CacheKey>, Vec<CompletionRequest>) =
            asked.into_iter().unzip();
        self.inner.complete_each(&asked, &mut |n, result| {
            let Some(key) = asked_keys.get(n) else { return };
            if let Ok(completion) = result {
                self.keep(*key, completion);
            }
            for &i in places.get(key).map_or(&[][..], Vec::as_slice) {
                on_done(i, result);
                results[i] = Some(result.clone());
            }
        });
        let lost = || {
            let message = "no answer to this request".into();
            Err(CompletionError::Failed { engine: engine.clone(), attempts: 1, message })
        };
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests;
