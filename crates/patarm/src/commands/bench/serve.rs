//! `patarm bench serve`: load on a running server, every answer checked.
//!
//! Texts come from a pool whose scores are asked for first, one response a request and one
//! request at a time. That is what a server without batching does with them, so its rate
//! is the one to compare with. Under load every answer must carry its request's id and,
//! to the last bit, the score of its text: a wrong pairing or a score that depends on its
//! batch shows.

mod client;
mod process;
mod report;
mod workload;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::cli::load::LoadOptions;
use crate::exit::{Code, failure};
use crate::output;
use client::Client;
use process::{ServerProcess, Spent};
use report::{LoadReport, Outcome, Tally};
use workload::{Draw, Kind, Text, Workload};

/// The route that is loaded.
const PATH: &str = "/v1/score";

/// Loads the server and prints what came of it; anything but a clean run is a failure.
pub(super) fn run(options: &LoadOptions, global: &Global) -> anyhow::Result<()> {
    if options.connections == 0 || options.requests == 0 {
        return Err(failure(Code::Usage, "--connections and --requests must be at least 1"));
    }
    let process = ServerProcess::new(options.server_pid);
    let mut pool: Vec<Known> = Workload::new(options).texts().into_iter().map(Known::new).collect();
    let start = process.now();
    reference(options, &mut pool)?;
    let alone = Alone::new(&pool, start.spent());
    let start = process.now();
    let tallies = load(options, &pool, &process)?;
    let report = LoadReport::new(options, tallies, start.spent(), (alone, &process));
    if global.json {
        output::json(&report)?;
    } else {
        report.lines().iter().try_for_each(|line| output::line(line))?;
    }
    match report.faults() {
        None => Ok(()),
        Some(what) => Err(failure(Code::Remote, what)),
    }
}

/// A text with the scores the server gives it when it is asked for nothing else, where
/// it was asked.
struct Known {
    text: Text,
    scores: Option<Vec<f64>>,
    tokens: u64,
}

impl Known {
    fn new(text: Text) -> Self {
        Self { text, scores: None, tokens: 0 }
    }
}

/// What the server does with requests that come one at a time.
#[derive(Clone, Copy, Debug, Default)]
struct Alone {
    requests: usize,
    tokens: u64,
    spent: Spent,
}

impl Alone {
    fn new(pool: &[Known], spent: Spent) -> Self {
        Self {
            requests: pool.iter().filter_map(|known| Some(known.scores.as_ref()?.len())).sum(),
            tokens: pool.iter().map(|known| known.tokens).sum(),
            spent,
        }
    }
}

fn reference(options: &LoadOptions, pool: &mut [Known]) -> anyhow::Result<()> {
    let mut client = Client::new(&options.url)?;
    let alone = options.alone.unwrap_or(pool.len());
    pool.iter_mut().take(alone).try_for_each(|known| know(&mut client, options, known))
}

/// Asks for every response of a text in a request of its own.
fn know(client: &mut Client, options: &LoadOptions, known: &mut Known) -> anyhow::Result<()> {
    let mut alone_scores = Vec::new();
    for response in known.text.responses.clone() {
        let alone = Text { prompt: known.text.prompt.clone(), responses: vec![response] };
        let reply = client.post(PATH, &alone.body("alone"))?.json()?;
        let scores = scores(&reply, "alone", 1)
            .map_err(|what| failure(Code::Remote, format!("{}: {what}", options.url)))?;
        alone_scores.extend(scores);
        known.tokens += reply["prompt_tokens"].as_u64().unwrap_or(0);
    }
    known.scores = Some(alone_scores);
    Ok(())
}

/// The scores of a reply, if they are those of the request with this id.
fn scores(reply: &Value, id: &str, count: usize) -> Result<Vec<f64>, String> {
    let results = reply["results"].as_array().ok_or_else(|| format!("no results: {reply}"))?;
    if results.len() != count {
        return Err(format!("{} results for {count} items", results.len()));
    }
    let each = results.iter().enumerate().map(|(index, result)| {
        let expected = format!("{id}/{index}");
        match (result["id"].as_str(), result["score"].as_f64()) {
            (Some(own), Some(score)) if own == expected => Ok(score),
            _ => Err(format!("item {expected} was answered with {result}")),
        }
    });
    each.collect()
}

fn load(
    options: &LoadOptions,
    pool: &[Known],
    process: &ServerProcess,
) -> anyhow::Result<Vec<Tally>> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.connections)
            .map(|_| scope.spawn(|| connection(options, pool, &next, process)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a connection panicked"))?)
            .collect()
    })
}

/// One connection: takes requests until there is none left.
fn connection(
    options: &LoadOptions,
    pool: &[Known],
    next: &AtomicUsize,
    process: &ServerProcess,
) -> anyhow::Result<Tally> {
    let mut client = Client::new(&options.url)?;
    let mut tally = Tally::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.requests {
            return Ok(tally);
        }
        process.sample_memory(number, options.requests);
        let draw = Draw { seed: options.seed, number: number as u64 };
        let known = &pool[draw.text(pool.len(), options.requests)];
        let start = Instant::now();
        let outcome = match draw.kind(options) {
            Kind::Whole => whole(&mut client, known, number),
            Kind::Damaged => damaged(&mut client, &draw, known),
            Kind::Cancelled => cancelled(&mut client, known, number, &draw),
        };
        tally.add(outcome.context("talking to the server")?, start.elapsed());
    }
}

fn whole(client: &mut Client, known: &Known, number: usize) -> anyhow::Result<Outcome> {
    let id = format!("r{number}");
    let reply = client.post(PATH, &known.text.body(&id))?;
    if reply.status != 200 {
        return Ok(Outcome::Refused(reply.status));
    }
    let reply = reply.json()?;
    let tokens = reply["prompt_tokens"].as_u64().unwrap_or(0);
    Ok(match scores(&reply, &id, known.text.responses.len()) {
        Err(what) => Outcome::Mispaired(what),
        Ok(scores) => match &known.scores {
            Some(alone) if bits(alone) != bits(&scores) => {
                Outcome::OtherScore(json!({ "alone": alone, "loaded": scores }).to_string())
            }
            _ => Outcome::Answered { tokens },
        },
    })
}

fn bits(scores: &[f64]) -> Vec<u64> {
    scores.iter().map(|score| score.to_bits()).collect()
}

fn damaged(client: &mut Client, draw: &Draw, known: &Known) -> anyhow::Result<Outcome> {
    let reply = client.post(PATH, &draw.damage(&known.text.body("damaged")))?;
    Ok(match reply.status {
        400..=499 => Outcome::DamageRefused,
        status => Outcome::DamageMissed(status),
    })
}

fn cancelled(
    client: &mut Client,
    known: &Known,
    number: usize,
    draw: &Draw,
) -> anyhow::Result<Outcome> {
    client.post_and_leave(PATH, &known.text.body(&format!("r{number}")), draw.patience())?;
    Ok(Outcome::Cancelled)
}
