//! `patarm bench serve`: load on a running server, every answer checked.
//!
//! Texts come from a pool whose scores are asked for first, one response a request and one
//! request at a time. That is what a server without batching does with them, so its rate
//! is the one to compare with. Under load every answer must carry its request's id and,
//! to the last bit, the score of its text: a wrong pairing or a score that depends on its
//! batch shows.

mod client;
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
use report::{LoadReport, Memory, Outcome, Tally};
use workload::{Draw, Kind, Text, Workload};

/// The route that is loaded.
const PATH: &str = "/v1/score";

/// Loads the server and prints what came of it; anything but a clean run is a failure.
pub(super) fn run(options: &LoadOptions, global: &Global) -> anyhow::Result<()> {
    if options.connections == 0 || options.requests == 0 {
        return Err(failure(Code::Usage, "--connections and --requests must be at least 1"));
    }
    let work = Workload::new(options);
    let start = Instant::now();
    let pool = reference(options, &work)?;
    let alone = Alone::new(&pool, start.elapsed());
    let memory = Memory::watch(options.server_pid);
    let start = Instant::now();
    let tallies = load(options, &pool, &memory)?;
    let seconds = start.elapsed().as_secs_f64();
    let report = LoadReport::new(options, tallies, seconds, (alone, &memory));
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

/// A text with the score the server gives it when it is asked for nothing else.
struct Known {
    text: Text,
    scores: Vec<f64>,
    tokens: u64,
}

/// What the server does with requests that come one at a time.
#[derive(Clone, Copy, Debug, Default)]
struct Alone {
    requests: usize,
    tokens: u64,
    seconds: f64,
}

impl Alone {
    fn new(pool: &[Known], time: std::time::Duration) -> Self {
        Self {
            requests: pool.iter().map(|known| known.scores.len()).sum(),
            tokens: pool.iter().map(|known| known.tokens).sum(),
            seconds: time.as_secs_f64(),
        }
    }
}

fn reference(options: &LoadOptions, work: &Workload) -> anyhow::Result<Vec<Known>> {
    let mut client = Client::new(&options.url)?;
    work.texts().into_iter().map(|text| know(&mut client, options, text)).collect()
}

/// Asks for every response of a text in a request of its own.
fn know(client: &mut Client, options: &LoadOptions, text: Text) -> anyhow::Result<Known> {
    let mut known = Known { scores: Vec::new(), tokens: 0, text };
    for response in known.text.responses.clone() {
        let alone = Text { prompt: known.text.prompt.clone(), responses: vec![response] };
        let reply = client.post(PATH, &alone.body("alone"))?.json()?;
        let scores = scores(&reply, "alone", 1)
            .map_err(|what| failure(Code::Remote, format!("{}: {what}", options.url)))?;
        known.scores.extend(scores);
        known.tokens += reply["prompt_tokens"].as_u64().unwrap_or(0);
    }
    Ok(known)
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

fn load(options: &LoadOptions, pool: &[Known], memory: &Memory) -> anyhow::Result<Vec<Tally>> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.connections)
            .map(|_| scope.spawn(|| connection(options, pool, &next, memory)))
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
    memory: &Memory,
) -> anyhow::Result<Tally> {
    let mut client = Client::new(&options.url)?;
    let mut tally = Tally::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.requests {
            return Ok(tally);
        }
        memory.sample(number, options.requests);
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
    Ok(match scores(&reply.json()?, &id, known.scores.len()) {
        Err(what) => Outcome::Mispaired(what),
        Ok(scores) if scores.iter().zip(&known.scores).any(|(a, b)| a.to_bits() != b.to_bits()) => {
            Outcome::OtherScore(json!({ "alone": known.scores, "loaded": scores }).to_string())
        }
        Ok(_) => Outcome::Answered { tokens: known.tokens },
    })
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
