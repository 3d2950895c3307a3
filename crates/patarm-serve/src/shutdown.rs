//! Asking a server to stop.

use tokio::sync::watch;

/// A switch that is thrown once; clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { sender: watch::Sender::new(false) }
    }
}

impl Shutdown {
    /// Asks the server to take no more requests, finish those it has, and return.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Whether it was asked.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Waits until it is asked.
    pub async fn triggered(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = receiver.wait_for(|triggered| *triggered).await;
    }
}
