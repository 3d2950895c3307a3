//! What a server needs of a model: requests one by one, results as they come.
//!
//! [`RewardModel`](crate::model::RewardModel) takes a list and returns a list. A server
//! has callers who come and go, so it sees a model in two halves. [`ServedText`] is
//! shared by everybody who takes requests: it turns what is asked into token ids and
//! counts them before anything is queued. [`ServedEngine`] belongs to one thread: it
//! takes prepared work, advances in steps and reports [`Event`]s. What a piece of work
//! yields never depends on what it is batched with.

mod batch;
mod cached;
mod crash;
mod generative;
mod generative_engine;
mod numbers;
mod reading;
mod remote;
mod waiting;

pub use batch::BatchModel;
pub use cached::CachedModel;
pub use crash::Crash;
pub use generative::{GenerativeModel, GenerativeText};
pub use numbers::NumberModel;
pub use reading::Reading;
pub use remote::RemoteModel;
pub use waiting::{Step, StepEngine, Waiting};

use std::sync::Arc;

use patarm_text::{Conversation, Item, Task};

use crate::embedded::ReadOut;
use crate::judgement::Judgement;
use crate::model::{CompareRequest, ItemFault, JudgeRequest, PairwiseVerdict, Reward};
use crate::template::{JudgeTemplate, RubricMode};
use crate::voting::{Vote, VoteCombine, vote};

/// Identity of a piece of work, chosen by whoever submits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId(pub u64);

/// Whether text is reported while it is generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Only when it is complete.
    #[default]
    Whole,
    /// Piece by piece.
    Streamed,
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// A number for one response; judgements with it from models that write them.
    Judge(JudgeAsk),
    /// A verdict on two responses, shown to the judge in both orders.
    Compare(CompareAsk),
    /// A number for a sequence that is not taken apart into prompt and response.
    Sequence(Sequence),
    /// An answer to a conversation.
    Chat(ChatAsk),
}

/// What [`Ask::Judge`] asks.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeAsk {
    /// What to judge.
    pub request: JudgeRequest,
    /// Judgements wanted; ignored by models that write none.
    pub votes: usize,
    /// Whether judgements are streamed.
    pub delivery: Delivery,
}

impl JudgeAsk {
    /// One response to be judged `votes` times.
    #[must_use]
    pub fn new(item: Item, task: Option<Task>, votes: usize) -> Self {
        Self { request: JudgeRequest { item, task }, votes, delivery: Delivery::Whole }
    }
}

/// What [`Ask::Compare`] asks.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareAsk {
    /// What to compare.
    pub request: CompareRequest,
    /// Judgements in each order.
    pub votes: usize,
}

/// A sequence as a scalar model reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum Sequence {
    /// Text that already went through a chat template, control tokens spelt out.
    Text {
        /// The text.
        text: String,
        /// Whether the tokenizer's own special tokens are put around it.
        special_tokens: SpecialTokens,
    },
    /// Token ids.
    Ids(Vec<u32>),
    /// A conversation for the model's chat template.
    Conversation {
        /// The conversation.
        conversation: Conversation,
        /// Whether the template ends with what introduces the next turn.
        ends_open: bool,
    },
}

/// Whether a tokenizer puts its special tokens around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As the tokenizer is used to.
    Add,
    /// The text has them, or needs none.
    Omit,
}

/// What [`Ask::Chat`] asks.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatAsk {
    /// The conversation to be continued.
    pub conversation: Conversation,
    /// Generation limit in tokens; `None` = what the model is set to.
    pub max_tokens: Option<usize>,
    /// 0 = greedy.
    pub temperature: f64,
    /// Nucleus threshold; 1 = off.
    pub top_p: f64,
    /// Generation ends after any of these strings.
    pub stop: Vec<String>,
    /// Seed of the draws.
    pub seed: u64,
    /// Tells apart several answers to one request.
    pub choice: u64,
    /// Most probable tokens to tell beside every one that was written.
    pub top_logprobs: usize,
    /// Whether the answer is streamed.
    pub delivery: Delivery,
}

/// What a piece of work yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The reward of a model that writes no judgements.
    Reward(Box<Reward>),
    /// Judgements, as many as votes were asked for.
    Judgements(Vec<Judgement>),
    /// The verdict of a comparison.
    Verdict(PairwiseVerdict),
    /// The answer to a conversation.
    Chat(ChatAnswer),
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatAnswer {
    /// The text, stop string included, control tokens left out.
    pub text: String,
    /// Generated tokens with their log-probabilities; empty where the engine gives none.
    pub tokens: Vec<ChatToken>,
    /// Number of generated tokens.
    pub num_tokens: usize,
    /// Whether the token limit ended it.
    pub truncated: bool,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatToken {
    /// The bytes it stands for; not always whole characters.
    pub bytes: Vec<u8>,
    /// Its log-probability.
    pub logprob: f64,
    /// The most probable tokens at its place with their log-probabilities, most probable
    /// first; as many as were asked for.
    pub alternatives: Vec<(Vec<u8>, f64)>,
}

/// What a step reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More text of one of the work's judgements or answers.
    Text {
        /// Whose.
        id: WorkId,
        /// Which of its votes.
        vote: usize,
        /// What was added.
        text: String,
    },
    /// The work is done; nothing else follows.
    Done {
        /// Whose.
        id: WorkId,
        /// What it yields.
        result: Result<Answer, ItemFault>,
    },
}

/// What kind of model it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One number by a head on the last token; writes nothing and takes any sequence.
    Scalar,
    /// The mean of a number for every token of the response; writes nothing.
    Token,
    /// The expected rating under its own digits; writes nothing.
    Ordinal,
    /// A number for every step of a response, as one; writes nothing.
    Step,
    /// A scalar model whose numbers an energy network refines; writes nothing.
    Energy,
    /// Several models as one, which may write judgements but show none.
    Combined,
    /// Writes judgements.
    Generative,
}

impl Family {
    /// The name used in files and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Token => "token",
            Self::Ordinal => "ordinal",
            Self::Step => "step",
            Self::Energy => "energy",
            Self::Combined => "combined",
            Self::Generative => "generative",
        }
    }

    /// Whether it takes sequences whose prompt and response are not told apart.
    #[must_use]
    pub fn takes_sequences(self) -> bool {
        self == Self::Scalar
    }
}

/// What a model says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCard {
    /// The name requests use.
    pub name: String,
    /// What kind it is.
    pub family: Family,
    /// Longest sequence in tokens, prompt and answer together.
    pub max_tokens: usize,
    /// Judgements an item where a request does not say.
    pub votes: usize,
    /// Which number of a judgement counts.
    pub read_out: ReadOut,
    /// How several judgements become one number.
    pub combine: VoteCombine,
    /// Smallest and largest score, where the scale has ends.
    pub scale: Option<(f64, f64)>,
    /// Mean and standard deviation of the scores on held-out data, where known.
    pub normalisation: Option<(f64, f64)>,
    /// Name of the judge template, for models that have one.
    pub template: Option<String>,
    /// What tells apart models of one name: a commit, or a hash of the weights.
    pub revision: Option<String>,
}

impl ModelCard {
    /// The card of a judge on a remote engine, which writes in the words of `template`.
    #[must_use]
    pub fn of_remote_judge(
        name: impl Into<String>,
        template: &JudgeTemplate,
        votes: usize,
    ) -> Self {
        let scale = template.format(RubricMode::Both).scale;
        Self {
            name: name.into(),
            family: Family::Generative,
            max_tokens: usize::MAX,
            votes: votes.max(1),
            read_out: ReadOut::Sampled,
            combine: VoteCombine::Mean,
            scale: Some((scale.min, scale.max)),
            normalisation: None,
            template: Some(template.name().to_owned()),
            revision: None,
        }
    }

    /// The number of an answer, with how far its votes agree.
    ///
    /// # Errors
    /// When no judgement has a usable score, or the answer is of another kind.
    pub fn number(&self, answer: &Answer) -> Result<Vote, ItemFault> {
        match answer {
            Answer::Reward(reward) => {
                Ok(Vote { value: reward.value, spread: 0.0, num_valid: 1, num_votes: 1 })
            }
            Answer::Judgements(judgements) => vote(judgements, self.read_out, self.combine)
                .ok_or_else(|| {
                    let faults = judgements.iter().filter_map(|judgement| judgement.score.err());
                    ItemFault::Unparsed(faults.collect())
                }),
            Answer::Verdict(_) | Answer::Chat(_) => {
                Err(ItemFault::Unsupported("the answer carries no score".into()))
            }
        }
    }

    /// A score less its mean over its standard deviation, where both are known.
    #[must_use]
    pub fn normalised(&self, score: f64) -> f64 {
        self.normalisation.map_or(score, |(mean, std)| (score - mean) / std)
    }

    /// A score mapped to 0..=1: linearly on a scale with ends, else by the logistic
    /// function.
    #[must_use]
    pub fn to_unit(&self, score: f64) -> f64 {
        match self.scale {
            Some((low, high)) if high > low => ((score - low) / (high - low)).clamp(0.0, 1.0),
            _ => 1.0 / (1.0 + (-score).exp()),
        }
    }
}

/// Work that was turned into tokens and counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    ask: Ask,
    num_prompt_tokens: usize,
    cost: usize,
    prompts: Vec<Vec<Vec<u32>>>,
}

impl Prepared {
    /// Work without token ids of its own; `cost` is what it weighs in a batch, in tokens.
    #[must_use]
    pub fn plain(ask: Ask, num_prompt_tokens: usize, cost: usize) -> Self {
        Self { ask, num_prompt_tokens, cost, prompts: Vec::new() }
    }

    /// Work with one prompt, or one for each order, as segments that equal prompts share.
    #[must_use]
    pub fn tokens(ask: Ask, prompts: Vec<Vec<Vec<u32>>>, num_generated: usize) -> Self {
        let num_prompt_tokens = prompts.iter().flatten().map(Vec::len).sum();
        Self { ask, num_prompt_tokens, cost: num_prompt_tokens + num_generated, prompts }
    }

    /// What was asked.
    #[must_use]
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The prompts as token segments; empty for work that has none.
    #[must_use]
    pub fn prompts(&self) -> &[Vec<Vec<u32>>] {
        &self.prompts
    }

    /// Tokens of what is read.
    #[must_use]
    pub fn num_prompt_tokens(&self) -> usize {
        self.num_prompt_tokens
    }

    /// What the work weighs in a batch, in tokens: what is read and what may be written.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.cost
    }
}

/// Tokens an engine has computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens that did not have to be read because another request had read them.
    pub shared_tokens: u64,
    /// Tokens written.
    pub generated_tokens: u64,
}

/// The half of a model that everybody who takes requests shares.
pub trait ServedText: Send + Sync {
    /// What the model is.
    fn card(&self) -> &ModelCard;

    /// Turns what is asked into tokens and counts them.
    ///
    /// # Errors
    /// When the model cannot do what is asked, or it does not fit.
    fn prepare(&self, ask: Ask) -> Result<Prepared, ItemFault>;
}

/// The half of a model that one thread owns.
pub trait ServedEngine {
    /// Takes work; every piece ends in one [`Event::Done`] unless it is cancelled.
    fn submit(&mut self, id: WorkId, work: Prepared);

    /// Makes progress and reports it. May wait a few milliseconds for something outside
    /// this process, not longer.
    fn step(&mut self, report: &mut dyn FnMut(Event));

    /// Forgets a piece of work; nothing is reported of it any more.
    fn cancel(&mut self, id: WorkId);

    /// Whether there is nothing to do.
    fn is_idle(&self) -> bool;

    /// Tokens computed so far.
    fn counters(&self) -> Counters;
}

/// A model that can be served.
pub trait ServedModel: Send {
    /// The shared half.
    fn text(&self) -> Arc<dyn ServedText>;

    /// A fresh engine. There is one at a time; another is made when one has panicked.
    fn engine(&self) -> Box<dyn ServedEngine + '_>;
}

#[cfg(test)]
mod tests;
