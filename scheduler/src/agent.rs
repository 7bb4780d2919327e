//! A stream agent: who a camera is, and for whom it is looked at.

use crate::SubscriptionKey;
use base::CameraId;

/// Who a camera is, and for whom.
#[derive(Debug)]
pub(crate) struct Agent {
    pub id: CameraId,
    state: AgentState,
    /// In the order in which they were added.
    subscriptions: Vec<SubscriptionKey>,
}

impl Agent {
    pub fn new(id: CameraId) -> Agent {
        Agent { id, state: AgentState::Created, subscriptions: Vec::new() }
    }

    /// Whether no subscription is left.
    pub fn stopped(&self) -> bool {
        self.state == AgentState::Stopped
    }

    pub fn subscriptions(&self) -> &[SubscriptionKey] {
        &self.subscriptions
    }

    /// One more subscription.
    pub fn add(&mut self, key: SubscriptionKey) {
        self.subscriptions.push(key);
    }

    /// One less. It stops with the last one.
    pub fn remove(&mut self, key: SubscriptionKey) {
        self.subscriptions.retain(|k| *k != key);
        if self.subscriptions.is_empty() {
            self.stop();
        }
    }

    /// Created to running. Any other start is a mistake of the caller.
    pub fn start(&mut self) {
        assert_eq!(self.state, AgentState::Created, "an agent starts once");
        self.state = AgentState::Running;
    }

    /// Running to stopped. Any other stop is a mistake of the caller.
    fn stop(&mut self) {
        assert_eq!(self.state, AgentState::Running, "an agent stops once, after it was started");
        self.state = AgentState::Stopped;
    }
}

/// Life of an agent: created with its first subscription, stopped with its last. A logical entity,
/// not a thread. A camera that is wanted again gets a new agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AgentState {
    /// Known, not started.
    Created,
    /// Frames are looked at.
    Running,
    /// No subscription is left.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "an agent starts once")]
    fn a_running_agent_can_not_start() {
        let mut agent = Agent::new("a".parse().unwrap());
        agent.start();
        agent.start();
    }
}
