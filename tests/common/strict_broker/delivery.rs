//! What goes to the device: config and commands, once or again and again, and its acknowledgements.

use std::time::Instant;

use bytes::Bytes;

use super::super::packet::{self, Publish};
use super::super::record::Delivery;
use super::super::rules;
use super::Bridge;

pub struct Sent {
    delivery: usize,
    redelivered: bool,
}

/// A config that is never done.
pub struct Redelivery {
    payload: Bytes,
    left: u32,
    started: bool,
}

impl Bridge {
    pub(super) fn subscribe(&mut self, number: usize, id: u16, filters: Vec<(String, u8)>, now: Instant) -> Result<(), String> {
        rules::judge_subscribe(&self.rules, &filters)?;
        let granted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
        self.say(number, &packet::suback(id, &granted));
        let topic = self.rules.config_topic();
        let config = filters.iter().any(|(filter, _)| *filter == topic);
        let subscriptions = &mut self.seen.connections[number].subscriptions;
        subscriptions.retain(|(old, _)| !filters.iter().any(|(new, _)| new == old));
        subscriptions.extend(filters);
        if let Some(payload) = self.config.clone().filter(|_| config) {
            self.deliver(number, &topic, payload, false, now);
        }
        if config {
            self.redeliver_to(number, None, now);
        }
        Ok(())
    }

    /// Connections that have subscribed to this filter.
    fn subscribers(&self, filter: &str) -> Vec<usize> {
        let mut up = self.up();
        up.retain(|n| self.seen.connections[*n].subscriptions.iter().any(|(f, _)| f == filter));
        up
    }

    /// Remembered as the device's config, and sent to who has subscribed to it.
    pub fn set_config(&mut self, payload: &Bytes, now: Instant) -> usize {
        self.config = Some(payload.clone());
        self.send_once(payload, now)
    }

    /// A config that is not remembered.
    pub fn send_once(&mut self, payload: &Bytes, now: Instant) -> usize {
        let topic = self.rules.config_topic();
        let receivers = self.subscribers(&topic);
        for number in &receivers {
            self.deliver(*number, &topic, payload.clone(), false, now);
        }
        receivers.len()
    }

    pub fn command(&mut self, tail: &str, payload: &Bytes, retained: bool, now: Instant) -> usize {
        let base = self.rules.commands_topic();
        let topic = if tail.is_empty() {
            base.clone()
        } else {
            format!("{base}/{tail}")
        };
        let receivers = self.subscribers(&format!("{base}/#"));
        for number in &receivers {
            self.deliver(*number, &topic, payload.clone(), retained, now);
        }
        receivers.len()
    }

    fn deliver(&mut self, number: usize, topic: &str, payload: Bytes, retain: bool, now: Instant) {
        self.deliver_as(number, topic, payload, (retain, false), None, now);
    }

    /// `flags`: retain, duplicate. `again`: the identifier of the copy before.
    fn deliver_as(
        &mut self,
        number: usize,
        topic: &str,
        payload: Bytes,
        flags: (bool, bool),
        again: Option<u16>,
        now: Instant,
    ) -> u16 {
        let base = self.rules.commands_topic();
        let matches = |filter: &str| filter == topic || (topic.starts_with(&base) && filter.starts_with(&base));
        let subscriptions = &self.seen.connections[number].subscriptions;
        let qos = subscriptions.iter().find(|(f, _)| matches(f)).map_or(0, |(_, qos)| *qos);
        let live = self.live.get_mut(&number).unwrap();
        let id = again.unwrap_or_else(|| {
            live.ids = live.ids.checked_add(1).unwrap_or(1);
            live.ids
        });
        self.seen.deliveries.push(Delivery {
            at: now,
            connection: number,
            topic: topic.to_owned(),
            len: payload.len(),
            qos,
            dup: flags.1 && qos > 0,
            acknowledged: false,
        });
        if qos > 0 {
            let sent = Sent {
                delivery: self.seen.deliveries.len() - 1,
                redelivered: false,
            };
            live.in_flight.insert(id, sent);
        }
        let publish = Publish {
            topic: topic.to_owned(),
            payload,
            qos,
            retain: flags.0,
            dup: flags.1 && qos > 0,
            id,
        };
        self.say(number, &packet::publish_to_device(&publish));
        id
    }

    pub(super) fn acknowledged(&mut self, number: usize, id: u16, now: Instant) -> Result<(), String> {
        let live = self.live.get_mut(&number).unwrap();
        let Some(sent) = live.in_flight.remove(&id) else {
            return Err(format!("a PUBACK came for packet identifier {id}, which nothing has"));
        };
        self.seen.deliveries[sent.delivery].acknowledged = true;
        if sent.redelivered {
            self.redeliver_to(number, Some(id), now);
        }
        Ok(())
    }

    /// A config that comes again, `copies` times after the first, whenever it is acknowledged or subscribed to.
    pub fn redeliver(&mut self, payload: &Bytes, copies: u32, now: Instant) {
        self.redelivery = Some(Redelivery {
            payload: payload.clone(),
            left: copies.saturating_add(1),
            started: false,
        });
        let topic = self.rules.config_topic();
        for number in self.subscribers(&topic) {
            self.redeliver_to(number, None, now);
        }
    }

    fn redeliver_to(&mut self, number: usize, again: Option<u16>, now: Instant) {
        let Some(redelivery) = self.redelivery.as_mut().filter(|r| r.left > 0) else {
            return;
        };
        redelivery.left -= 1;
        let (payload, dup) = (redelivery.payload.clone(), redelivery.started);
        redelivery.started = true;
        let topic = self.rules.config_topic();
        let id = self.deliver_as(number, &topic, payload, (false, dup), again, now);
        let live = self.live.get_mut(&number).unwrap();
        if let Some(sent) = live.in_flight.get_mut(&id) {
            sent.redelivered = true;
        }
    }
}
