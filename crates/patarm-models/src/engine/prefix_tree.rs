//! Which prompt segments the cache holds, who uses them, and what can go.

use std::collections::HashMap;

use patarm_kernels::{Buffer, Span};

use crate::kv_cache::{KvCache, Slots};

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeId(usize);

#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    tokens: Vec<u32>,
    slots: Slots,
    depth: usize,
    /// Requests whose path ends here plus children that exist.
    users: usize,
    last_hidden: Option<Buffer>,
    last_use: u64,
}

/// Prompt segments by parent and content.
#[derive(Debug, Default)]
pub(super) struct PrefixTree {
    nodes: Vec<Option<Node>>,
    vacant: Vec<usize>,
    index: HashMap<(Option<NodeId>, Vec<u32>), NodeId>,
    pending: Vec<NodeId>,
    clock: u64,
}

impl PrefixTree {
    /// Tokens of a prompt that are not held yet.
    pub(super) fn missing_tokens(&self, prompt: &[Vec<u32>]) -> usize {
        let mut parent = None;
        for (level, segment) in prompt.iter().enumerate() {
            match self.index.get(&(parent, segment.clone())) {
                Some(node) => parent = Some(*node),
                None => return prompt[level..].iter().map(Vec::len).sum(),
            }
        }
        0
    }

    /// Finds or creates the child of `parent` with these tokens and moves the
    /// caller's use from the parent to it. `None` when there is no room; the caller
    /// still uses the parent. The second value says whether it was there already.
    pub(super) fn acquire(
        &mut self,
        parent: Option<NodeId>,
        tokens: &[u32],
        cache: &mut KvCache,
    ) -> Option<(NodeId, bool)> {
        self.clock += 1;
        let key = (parent, tokens.to_vec());
        if let Some(&id) = self.index.get(&key) {
            let clock = self.clock;
            let node = self.node_mut(id);
            node.users += 1;
            node.last_use = clock;
            self.drop_use(parent);
            return Some((id, true));
        }
        if !self.make_room(cache, tokens.len()) {
            return None;
        }
        let slots = cache.take(tokens.len())?;
        let depth = parent.map_or(0, |id| self.node(id).depth) + tokens.len();
        let node = Node {
            parent,
            tokens: tokens.to_vec(),
            slots,
            depth,
            users: 1,
            last_hidden: None,
            last_use: self.clock,
        };
        let id = self.insert(node);
        self.index.insert(key, id);
        self.pending.push(id);
        // The caller's use of the parent becomes the new child's use of it.
        Some((id, false))
    }

    fn insert(&mut self, node: Node) -> NodeId {
        match self.vacant.pop() {
            Some(index) => {
                self.nodes[index] = Some(node);
                NodeId(index)
            }
            None => {
                self.nodes.push(Some(node));
                NodeId(self.nodes.len() - 1)
            }
        }
    }

    /// Ends one use of a node.
    pub(super) fn release(&mut self, id: NodeId) {
        self.drop_use(Some(id));
    }

    fn drop_use(&mut self, id: Option<NodeId>) {
        if let Some(id) = id {
            let node = self.node_mut(id);
            node.users = node.users.saturating_sub(1);
        }
    }

    /// Forgets unused segments until `needed` slots are free; says whether they are.
    pub(super) fn make_room(&mut self, cache: &mut KvCache, needed: usize) -> bool {
        while cache.num_free() < needed {
            match self.evict() {
                Some(slots) => cache.give_back(slots),
                None => return false,
            }
        }
        true
    }

    /// Forgets the unused segment that was used longest ago and returns its slots.
    fn evict(&mut self) -> Option<Slots> {
        let unused = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let node = node.as_ref()?;
            (node.users == 0 && node.last_hidden.is_some()).then_some((node.last_use, index))
        });
        let (_, index) = unused.min()?;
        let node = self.nodes[index].take()?;
        self.vacant.push(index);
        self.index.remove(&(node.parent, node.tokens));
        self.drop_use(node.parent);
        Some(node.slots)
    }

    /// Spans of the path down to and including a node, and its depth in tokens.
    pub(super) fn path(&self, leaf: NodeId) -> (Vec<Span>, usize) {
        let mut spans = Vec::new();
        let mut next = Some(leaf);
        while let Some(id) = next {
            let node = self.node(id);
            spans.extend(node.slots.spans(0..node.tokens.len()).into_iter().rev());
            next = node.parent;
        }
        spans.reverse();
        (spans, self.node(leaf).depth)
    }

    /// Nodes that wait for their keys, parents first, in chunks of about
    /// `max_tokens`.
    pub(super) fn pending_chunks(&mut self, max_tokens: usize) -> Vec<Vec<NodeId>> {
        let mut chunks: Vec<Vec<NodeId>> = Vec::new();
        let mut room = 0;
        for id in std::mem::take(&mut self.pending) {
            let len = self.node(id).tokens.len();
            match chunks.last_mut() {
                Some(chunk) if len <= room => chunk.push(id),
                _ => {
                    chunks.push(vec![id]);
                    room = max_tokens;
                }
            }
            room = room.saturating_sub(len);
        }
        chunks
    }

    /// Tokens of a node.
    pub(super) fn tokens(&self, id: NodeId) -> &[u32] {
        &self.node(id).tokens
    }

    /// Slots of a node's tokens.
    pub(super) fn slots(&self, id: NodeId) -> impl Iterator<Item = u32> {
        let node = self.node(id);
        node.slots.numbers(0..node.tokens.len())
    }

    /// Hidden state after a node's last token.
    pub(super) fn last_hidden(&self, id: NodeId) -> Option<&Buffer> {
        self.node(id).last_hidden.as_ref()
    }

    /// Keeps the hidden state after a node's last token.
    pub(super) fn set_last_hidden(&mut self, id: NodeId, hidden: Buffer) {
        self.node_mut(id).last_hidden = Some(hidden);
    }

    #[expect(clippy::expect_used, reason = "ids are only handed out for nodes in use")]
    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0].as_ref().expect("node is in use")
    }

    #[expect(clippy::expect_used, reason = "ids are only handed out for nodes in use")]
    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0].as_mut().expect("node is in use")
    }
}
