//! Numbers for dialects that must answer with numbers.

use patarm_reward::serving::Ask;

use crate::exchange::Exchange;
use crate::fault::{Fault, FaultCode};

/// The number of one item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number {
    /// As the model gives it.
    pub(crate) raw: f64,
    /// Mapped to 0..=1.
    pub(crate) unit: f64,
    /// Standard deviation of the votes.
    pub(crate) spread: f64,
    /// Votes with a usable number.
    pub(crate) num_valid: usize,
    /// Whether the number stands in for one that does not exist.
    pub(crate) is_fault: bool,
}

/// Numbers of all items.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    /// Who gave them.
    pub(crate) model: String,
    /// In the order of the items.
    pub(crate) numbers: Vec<Number>,
    /// Tokens read for each item.
    pub(crate) prompt_tokens: Vec<usize>,
}

impl Numbers {
    /// Tokens read for all items.
    pub(crate) fn total_tokens(&self) -> usize {
        self.prompt_tokens.iter().sum()
    }
}

/// Scores every item. An item whose own contents leave it without a score gets the
/// configured stand-in; without one, and for every other fault, the request fails.
pub(crate) async fn numbers(
    exchange: &Exchange,
    model: Option<&str>,
    asks: Vec<Ask>,
) -> Result<Numbers, Fault> {
    let card = exchange.app.core().host(model)?.card();
    let stand_in = exchange.app.config().fault_score;
    let ticket = exchange.submit(model, asks).await?;
    let prompt_tokens = ticket.num_prompt_tokens().to_vec();
    let mut numbers = Vec::with_capacity(prompt_tokens.len());
    for answer in ticket.collect().await {
        let vote = answer.and_then(|answer| card.number(&answer).map_err(Fault::from));
        numbers.push(match (vote, stand_in) {
            (Ok(vote), _) => Number {
                raw: vote.value,
                unit: card.to_unit(vote.value),
                spread: vote.spread,
                num_valid: vote.num_valid,
                is_fault: false,
            },
            (Err(fault), Some(raw)) if is_of_item(fault.code) => {
                Number { raw, unit: card.to_unit(raw), spread: 0.0, num_valid: 0, is_fault: true }
            }
            (Err(fault), _) => return Err(fault),
        });
    }
    Ok(Numbers { model: card.name.clone(), numbers, prompt_tokens })
}

fn is_of_item(code: FaultCode) -> bool {
    matches!(code, FaultCode::Unscored | FaultCode::Overlong)
}
