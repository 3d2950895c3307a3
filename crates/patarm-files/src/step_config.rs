//! How a process reward model reads a response: where its steps end, what follows each
//! of them, and which numbers are read there. Plain data, part of a model's description.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest marker, separator or label in bytes.
const MAX_TEXT_BYTES: usize = 64;

/// How a response is cut into steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Segmentation {
    /// At empty lines.
    BlankLines {},
    /// At line breaks.
    Lines {},
    /// After every occurrence of a text.
    Separator {
        /// The text.
        text: String,
    },
    /// Before lines that announce a step: `Step 2:`, `2.`, `2)`, `- `, `## `.
    Markers {},
    /// At the ends of sentences (Unicode annex 29).
    Sentences {
        /// Shorter sentences join the following one, in characters.
        min_characters: usize,
    },
}

/// Which number is read at the end of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum StepReadout {
    /// Two outputs; the probability of the second.
    Classes {},
    /// One output, as it is.
    Value {},
    /// One output through the logistic function.
    Logistic {},
    /// No head: the probability of one token against another as the next.
    Tokens {
        /// What stands for a right step.
        right: String,
        /// What stands for a wrong one.
        wrong: String,
    },
}

impl StepReadout {
    /// Outputs of the head; 0 where there is none.
    #[must_use]
    pub fn num_outputs(&self) -> usize {
        match self {
            Self::Classes {} => 2,
            Self::Value {} | Self::Logistic {} => 1,
            Self::Tokens { .. } => 0,
        }
    }

    /// Whether the number is a probability.
    #[must_use]
    pub fn is_probability(&self) -> bool {
        !matches!(self, Self::Value {})
    }
}

/// How the numbers of the steps become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAggregation {
    /// Their mean.
    #[default]
    Mean,
    /// The smallest.
    Minimum,
    /// The last.
    Last,
    /// Their product; for probabilities.
    Product,
}

/// How the prompt is shown to the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum PromptForm {
    /// As the model's chat template says; where it has none, the begin token, the text
    /// and a line break.
    Chat {},
    /// The begin token, the text, and what ends it.
    Plain {
        /// What stands between the prompt and the first step.
        end: String,
    },
}

/// What a process reward model is, beside its decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepConfig {
    /// How a response is cut.
    pub segmentation: Segmentation,
    /// What follows every step, the last included; its last token is where the number
    /// is read. A special token is written as the tokenizer spells it.
    pub marker: String,
    /// Which number is read.
    pub readout: StepReadout,
    /// Layers of the head: 1, or 2 with a rectifier between them.
    pub head_layers: usize,
    /// How the prompt is shown.
    pub prompt: PromptForm,
    /// How the steps become one number.
    pub aggregation: StepAggregation,
    /// Weight α of the number read at the end of the whole turn; 0 = it is not read.
    pub trajectory_weight: f64,
}

impl Default for StepConfig {
    fn default() -> Self {
        Self {
            segmentation: Segmentation::BlankLines {},
            marker: "\n\n".to_owned(),
            readout: StepReadout::Classes {},
            head_layers: 1,
            prompt: PromptForm::Chat {},
            aggregation: StepAggregation::default(),
            trajectory_weight: 0.0,
        }
    }
}

impl StepConfig {
    /// The layout of Qwen2.5-Math-PRM and ReasonFlux-PRM-7B, class
    /// `Qwen2ForProcessRewardModel`: two layers, two classes, `<extra_0>` after each step.
    /// Source: the authors' model code as served by vLLM (`qwen2_rm.py`).
    #[must_use]
    pub fn qwen_math_prm() -> Self {
        Self { marker: "<extra_0>".to_owned(), head_layers: 2, ..Self::default() }
    }

    /// The layout of Skywork-o1-Open-PRM, class `Qwen2ForPrmModel`: a value head through
    /// the logistic function after each line. Known second-hand only.
    #[must_use]
    pub fn skywork_prm() -> Self {
        Self {
            segmentation: Segmentation::Lines {},
            marker: "\n".to_owned(),
            readout: StepReadout::Logistic {},
            prompt: PromptForm::Plain { end: "\n".to_owned() },
            ..Self::default()
        }
    }

    /// What TRL's `PRMTrainer` makes with its defaults, class `…ForTokenClassification`
    /// with two labels: each step followed by a line break, no chat template. The
    /// configuration does not say which separator was used. Source: TRL's trainer.
    #[must_use]
    pub fn token_classifier() -> Self {
        Self {
            segmentation: Segmentation::Lines {},
            marker: "\n".to_owned(),
            prompt: PromptForm::Plain { end: String::new() },
            ..Self::default()
        }
    }

    /// Refuses what cannot work; the message names the key.
    ///
    /// # Errors
    /// When a text is empty or too long, or a number has no meaning.
    pub fn check(&self) -> Result<()> {
        let mut texts = vec![("marker", &self.marker)];
        if let Segmentation::Separator { text } = &self.segmentation {
            texts.push(("segmentation.text", text));
        }
        if let StepReadout::Tokens { right, wrong } = &self.readout {
            texts.extend([("readout.right", right), ("readout.wrong", wrong)]);
        }
        if let Some((key, _)) =
            texts.iter().find(|(_, text)| text.is_empty() || text.len() > MAX_TEXT_BYTES)
        {
            return Err(Error::malformed(format!("`{key}` must have 1 to {MAX_TEXT_BYTES} bytes")));
        }
        if let PromptForm::Plain { end } = &self.prompt
            && end.len() > MAX_TEXT_BYTES
        {
            return Err(Error::malformed(format!(
                "`prompt.end` is longer than {MAX_TEXT_BYTES} bytes"
            )));
        }
        if !(1..=2).contains(&self.head_layers) {
            return Err(Error::malformed("`head_layers` must be 1 or 2".to_owned()));
        }
        if !self.trajectory_weight.is_finite() {
            return Err(Error::malformed("`trajectory_weight` must be a finite number".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_survives_its_own_json() {
        let tokens = StepConfig {
            readout: StepReadout::Tokens { right: "+".into(), wrong: "-".into() },
            segmentation: Segmentation::Sentences { min_characters: 20 },
            ..StepConfig::default()
        };
        let published = [
            StepConfig::qwen_math_prm(),
            StepConfig::skywork_prm(),
            StepConfig::token_classifier(),
        ];
        for config in published.into_iter().chain([tokens]) {
            config.check().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<StepConfig>(&text).unwrap(), config);
        }
        assert!(serde_json::from_str::<StepConfig>("{\"markers\": \"x\"}").is_err());
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let refused = [
            (StepConfig { marker: String::new(), ..StepConfig::default() }, "marker"),
            (StepConfig { marker: long, ..StepConfig::default() }, "marker"),
            (StepConfig { head_layers: 3, ..StepConfig::default() }, "head_layers"),
            (StepConfig { trajectory_weight: f64::NAN, ..StepConfig::default() }, "trajectory"),
            (
                StepConfig {
                    segmentation: Segmentation::Separator { text: String::new() },
                    ..StepConfig::default()
                },
                "segmentation.text",
            ),
        ];
        for (config, key) in refused {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
