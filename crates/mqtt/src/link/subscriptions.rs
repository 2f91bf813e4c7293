//! Which topics a connection subscribes to, and which were given up. PURE: time is an argument.
//!
//! A packet that exceeds our limit ends the connection before its topic is known, and a retained one would end every connection.
//! The next connection therefore searches: it subscribes to one filter after the other and pauses after each acknowledgement. A
//! retained message arrives within that pause. Its filter is then reported and given up; the other filters stay.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::topics::{MAX_PACKET, Topics};

/// Pause after each acknowledged filter while searching.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Filter {
    topic: String,
    is_command: bool,
    is_given_up: bool,
}

/// The filters of one link.
#[derive(Debug)]
pub(super) struct Subscriptions {
    filters: Vec<Filter>,
    /// Filters that are still to be subscribed to on this connection.
    pending: VecDeque<String>,
    asked: Option<(Duration, Vec<String>)>,
    /// The filter subscribed to last while searching.
    suspect: Option<String>,
    quiet_until: Option<Duration>,
    /// Size in bytes of the packet whose filter is searched for; 0 if that packet was reported already.
    searched: Option<usize>,
    /// Number of packets that no search could attribute: they were not retained.
    unattributed: u32,
    /// Whether this connection subscribes to commands.
    has_commands: bool,
}

impl Subscriptions {
    pub(super) fn new(topics: &Topics) -> Self {
        let filter = |topic: &String, is_command| Filter {
            topic: topic.clone(),
            is_command,
            is_given_up: false,
        };
        let always = topics.subscriptions.iter().map(|topic| filter(topic, false));
        Self {
            filters: always.chain([filter(&topics.command_filter, true)]).collect(),
            pending: VecDeque::new(),
            asked: None,
            suspect: None,
            quiet_until: None,
            searched: None,
            unattributed: 0,
            has_commands: false,
        }
    }

    /// Records a new connection. `commands` is whether the owner acts on commands.
    pub(super) fn connected(&mut self, commands: bool) {
        self.has_commands = commands;
        let wanted = |filter: &&Filter| !filter.is_given_up && (commands || !filter.is_command);
        self.pending = self.filters.iter().filter(wanted).map(|f| f.topic.clone()).collect();
        (self.asked, self.suspect, self.quiet_until) = (None, None, None);
    }

    /// Returns the filters to subscribe to now.
    pub(super) fn ask(&mut self, now: Duration) -> Option<Vec<String>> {
        if self.asked.is_some() || self.quiet_until.is_some_and(|at| now < at) {
            return None;
        }
        self.quiet_until = None;
        let batch: Vec<String> = if self.searched.is_some() {
            // Commands first: most messages to a device are commands.
            self.pending.pop_back().into_iter().collect()
        } else {
            self.pending.drain(..).collect()
        };
        if batch.is_empty() {
            return None;
        }
        self.suspect = batch.last().filter(|_| self.searched.is_some()).cloned();
        self.asked = Some((now, batch.clone()));
        Some(batch)
    }

    /// Records the acknowledgement of the last subscription. Returns its filters.
    pub(super) fn acknowledged(&mut self, now: Duration) -> Vec<String> {
        self.quiet_until = self.searched.map(|_| now.saturating_add(QUIET));
        self.asked.take().map(|(_, filters)| filters).unwrap_or_default()
    }

    /// Returns when the last subscription was sent; `None` if its acknowledgement has arrived.
    pub(super) fn asked_since(&self) -> Option<Duration> {
        self.asked.as_ref().map(|(at, _)| *at)
    }

    /// Returns when to call [`Self::ask`] and [`Self::search_is_over`] again; `None` if nothing is left to do.
    pub(super) fn due_at(&self) -> Option<Duration> {
        self.quiet_until.filter(|_| self.asked.is_none())
    }

    /// Ends a search that has found no filter. Returns the text to report.
    pub(super) fn search_is_over(&mut self, now: Duration) -> Option<String> {
        let is_over = self.asked.is_none() && self.pending.is_empty() && self.quiet_until.is_none_or(|at| now >= at);
        let size = self.searched.filter(|_| is_over && self.suspect.is_some())?;
        (self.searched, self.suspect, self.quiet_until) = (None, None, None);
        if size == 0 {
            // The packet was reported together with its filter, see `too_large`.
            return None;
        }
        self.unattributed = self.unattributed.saturating_add(1);
        (self.unattributed == 1).then(|| {
            format!(
                "the broker sent a packet of {size} bytes, which is over the limit of {MAX_PACKET} bytes and broke the connection; \
                 publish less to this device"
            )
        })
    }

    /// Records a packet of `size` bytes that broke the connection. Returns the text to report once the filter is known.
    pub(super) fn too_large(&mut self, size: usize) -> Option<String> {
        let culprits = match self.searched {
            Some(_) => self.suspect.iter().cloned().collect(),
            // A search has found nothing for the last such packet, so it was not retained: do not search again.
            None if self.unattributed > 0 => self.likely(),
            None => Vec::new(),
        };
        if culprits.is_empty() {
            self.searched = Some(size);
            return None;
        }
        self.filters
            .iter_mut()
            .filter(|f| culprits.contains(&f.topic))
            .for_each(|f| f.is_given_up = true);
        // The search continues for other filters; this packet has been reported.
        self.searched = Some(0);
        let culprits = culprits.join(" and ");
        Some(format!(
            "a packet of {size} bytes came for the subscription to {culprits}; at most {MAX_PACKET} bytes are taken, so no message \
             arrives from there until this element starts again. Publish less there, and clear a retained message by an empty one"
        ))
    }

    /// Returns the filters to give up for a packet that no search could attribute. First the commands, if this connection
    /// subscribes to them: others publish those. Then all others except the first, which brings a plain client the echo of
    /// `online`. The first one last.
    fn likely(&self) -> Vec<String> {
        let open = |is_meant: fn(usize, &Filter) -> bool| -> Vec<String> {
            let all = self.filters.iter().enumerate();
            let open = all.filter(|(at, f)| !f.is_given_up && is_meant(*at, f));
            open.map(|(_, f)| f.topic.clone()).collect()
        };
        let commands = open(|_, f| f.is_command);
        if self.has_commands && !commands.is_empty() {
            return commands;
        }
        let others = open(|at, f| at > 0 && !f.is_command);
        if others.is_empty() {
            return open(|at, _| at == 0);
        }
        others
    }
}
