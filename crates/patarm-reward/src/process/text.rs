//! Solutions as token segments.

use std::sync::Arc;

use patarm_models::files::{PromptForm, StepConfig, StepReadout};
use patarm_text::steps::{MAX_STEPS, character_ranges, segment};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Conversation, Item, Solution};

use crate::error::{Error, ErrorKind, Result};
use crate::scalar::{ScalarText, refuse_empty};

/// Turns solutions into segments that end in the marker.
#[derive(Clone, Debug)]
pub struct StepText {
    scalar: ScalarText,
    config: StepConfig,
    marker: Vec<u32>,
    tokens: Option<[u32; 2]>,
}

/// A solution as segments; equal beginnings are equal segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EncodedSolution {
    /// Everything before the first step.
    pub prompt: Vec<u32>,
    /// Every step with the marker at its end.
    pub steps: Vec<Vec<u32>>,
    /// What ends the turn; may be empty.
    pub ending: Vec<u32>,
}

impl EncodedSolution {
    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prompt.len() + self.steps.iter().map(Vec::len).sum::<usize>() + self.ending.len()
    }

    /// Whether there is no token at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which tokens of the row that is prompt, steps and ending each step has, the
    /// marker included.
    #[must_use]
    pub fn token_ranges(&self) -> Vec<std::ops::Range<usize>> {
        let mut end = self.prompt.len();
        let next = |step: &Vec<u32>| {
            let start = end;
            end += step.len();
            start..end
        };
        self.steps.iter().map(next).collect()
    }
}

impl StepText {
    /// Binds a tokenizer to a layout.
    ///
    /// # Errors
    /// When the marker has no tokens here, is a special token that this vocabulary
    /// lacks, a label is not one token, or the chat template cannot be compiled.
    pub fn new(tokenizer: Arc<Tokenizer>, config: &StepConfig) -> Result<Self> {
        let marker = marker_tokens(&tokenizer, &config.marker)?;
        let tokens = match &config.readout {
            StepReadout::Tokens { right, wrong } => {
                Some([label_token(&tokenizer, right)?, label_token(&tokenizer, wrong)?])
            }
            _ => None,
        };
        if let Some([right, wrong]) = tokens
            && right == wrong
        {
            let message = "the labels of right and wrong steps are the same token";
            return Err(Error::new(ErrorKind::Input, message));
        }
        let scalar = ScalarText::new(tokenizer)?;
        Ok(Self { scalar, config: config.clone(), marker, tokens })
    }

    /// The layout.
    #[must_use]
    pub fn config(&self) -> &StepConfig {
        &self.config
    }

    /// The tokens of right and wrong, where the layout reads tokens.
    #[must_use]
    pub fn tokens(&self) -> Option<[u32; 2]> {
        self.tokens
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.scalar.tokenizer()
    }

    /// Cuts a response into its steps, with their places in characters.
    ///
    /// # Errors
    /// When the response is empty or has too many steps.
    pub fn cut(&self, item: &Item) -> Result<(Solution, Vec<(usize, usize)>)> {
        refuse_empty(item)?;
        let cut = segment(&item.response, &self.config.segmentation).map_err(refused)?;
        let words = cut.iter().map(|step| step.words(&item.response).to_owned());
        let solution = Solution { prompt: item.prompt.clone(), steps: words.collect() };
        Ok((solution, character_ranges(&item.response, &cut)))
    }

    /// Encodes a solution; data never yields a control token, whatever it spells.
    ///
    /// # Errors
    /// When there is no step or there are too many, or the chat template refuses the
    /// prompt.
    pub fn encode(&self, solution: &Solution) -> Result<EncodedSolution> {
        if solution.steps.is_empty() || solution.steps.len() > MAX_STEPS {
            let message =
                format!("the solution has {} steps, not 1 to {MAX_STEPS}", solution.steps.len());
            return Err(Error::new(ErrorKind::Input, message));
        }
        let (prompt, ending) = self.frame(&solution.prompt)?;
        let step = |words: &String| -> Result<Vec<u32>> {
            let mut tokens = self.tokenizer().encode_text(words).map_err(refused)?;
            tokens.extend(&self.marker);
            Ok(tokens)
        };
        let steps = solution.steps.iter().map(step).collect::<Result<_>>()?;
        Ok(EncodedSolution { prompt, steps, ending })
    }

    /// What stands before the steps and what after them.
    fn frame(&self, prompt: &Conversation) -> Result<(Vec<u32>, Vec<u32>)> {
        let PromptForm::Plain { end } = &self.config.prompt else {
            // Any response shows where one stands.
            let shown = Item { prompt: prompt.clone(), response: "x".to_owned() };
            let encoded = self.scalar.encode(&shown)?;
            return Ok((encoded.prompt, encoded.response[encoded.num_content..].to_vec()));
        };
        let tokenizer = self.tokenizer();
        let special = tokenizer.special_ids();
        let mut tokens: Vec<u32> = special.bos.into_iter().collect();
        let text = format!("{}{end}", prompt.transcript());
        tokens.extend(tokenizer.encode_text(&text).map_err(refused)?);
        if tokens.is_empty() {
            return Err(Error::new(ErrorKind::Input, "the prompt is empty"));
        }
        Ok((tokens, special.eos.first().copied().into_iter().collect()))
    }
}

fn marker_tokens(tokenizer: &Tokenizer, marker: &str) -> Result<Vec<u32>> {
    let refuse = |problem: &str| {
        let message =
            format!("the step marker {marker:?} {problem}; it is no marker of this model");
        Err(Error::new(ErrorKind::Input, message))
    };
    let tokens = tokenizer.encode_template(marker).map_err(refused)?;
    let is_special = marker.starts_with('<') && marker.ends_with('>');
    match tokens.as_slice() {
        [] => refuse("has no tokens in this vocabulary"),
        [_, _, ..] if is_special => refuse("is not one token of this vocabulary"),
        _ => Ok(tokens),
    }
}

fn label_token(tokenizer: &Tokenizer, label: &str) -> Result<u32> {
    match tokenizer.encode_template(label).map_err(refused)?.as_slice() {
        [one] => Ok(*one),
        tokens => {
            let message = format!(
                "the label {label:?} is {} tokens of this vocabulary; it must be one",
                tokens.len()
            );
            Err(Error::new(ErrorKind::Input, message))
        }
    }
}

fn refused(error: patarm_text::Error) -> Error {
    Error::new(ErrorKind::Input, error)
}
