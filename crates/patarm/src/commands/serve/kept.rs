//! A reward model that lives where it was opened: on a thread of its own.
//!
//! `patarm score` opens every kind of model within a call, so that one may borrow from
//! another: an energy network from its base, an ensemble from its members. A server
//! needs something to own. This owns the thread on which such a call waits for items.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use patarm_reward::model::{ItemFault, Reward, RewardModel};
use patarm_reward::observer::Silent;
use patarm_text::Item;

use crate::cli::{Global, JudgeOptions};
use crate::exit::{Code, failure, without_faults};
use crate::reward_models::with_reward_model;

type Rewards = Vec<Result<Reward, ItemFault>>;

/// Items to score, and where the rewards go; `None` where scoring them panicked.
struct Asked {
    items: Vec<Item>,
    reply: Sender<Option<Rewards>>,
}

/// The model, as the server holds it. The thread ends with it.
pub(super) struct KeptModel {
    name: String,
    asks: Sender<Asked>,
}

impl KeptModel {
    /// Opens the model and waits until it is there.
    pub(super) fn open(asked: &JudgeOptions, global: &Global) -> anyhow::Result<Self> {
        let (asks, waiting) = channel();
        let (ready, opened) = channel();
        let (asked, global) = (asked.clone(), global.clone());
        let name = asked.model.clone();
        std::thread::Builder::new().name("reward model".into()).spawn(move || {
            let ended = without_faults(|| {
                with_reward_model(&asked, &global, &(Arc::new(Silent) as _), &mut |model| {
                    // Nobody listens any more where the server is gone already.
                    let _ = ready.send(Ok(()));
                    answer(model, &waiting);
                    Ok(())
                })
            });
            if let Err(error) = ended {
                let _ = ready.send(Err(error));
            }
        })?;
        opened.recv().map_err(|_| failure(Code::Bug, format!("{name}: opening it panicked")))??;
        Ok(Self { name, asks })
    }
}

/// Scores what is asked until nobody can ask any more.
fn answer(model: &dyn RewardModel, waiting: &Receiver<Asked>) {
    while let Ok(Asked { items, reply }) = waiting.recv() {
        let rewards = catch_unwind(AssertUnwindSafe(|| model.score(&items))).ok();
        let _ = reply.send(rewards);
    }
}

impl RewardModel for KeptModel {
    /// # Panics
    /// When the model panicked over these items: the server finds out over which.
    fn score(&self, items: &[Item]) -> Rewards {
        let (reply, rewards) = channel();
        let asked = self.asks.send(Asked { items: items.to_vec(), reply });
        match asked.map_err(|_| ()).and_then(|()| rewards.recv().map_err(|_| ())) {
            Ok(Some(rewards)) => rewards,
            Ok(None) => std::panic::resume_unwind(Box::new("the reward model panicked")),
            Err(()) => {
                let gone = || Err(ItemFault::Engine("the reward model is gone".to_owned()));
                items.iter().map(|_| gone()).collect()
            }
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
