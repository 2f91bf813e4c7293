//! MQTT 3.1.1 packets as a server sees them: what a device sends is read by the letter of the standard, what the bridge
//! says is built. No I/O. It shares no code with the product's MQTT client.

use bytes::Bytes;

/// Largest packet that is read: the bridge takes telemetry of 256 KiB; the rest is room for the topic.
pub const MAX_PACKET: usize = (256 << 10) + 1024;

/// What a device may send.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    Connect(Connect),
    Publish(Publish),
    PubAck(u16),
    /// The three packets of QoS 2, by name.
    ExactlyOnce(&'static str),
    Subscribe {
        id: u16,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Connect {
    /// Not MQTT 3.1.1: the rest cannot be read.
    Foreign {
        name: String,
        level: u8,
    },
    V311(Login),
}

/// The CONNECT of MQTT 3.1.1.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    pub client_id: String,
    pub clean_session: bool,
    /// Seconds; 0 = none.
    pub keep_alive: u16,
    /// Topic of the will.
    pub will: Option<String>,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// 0 with QoS 0.
    pub id: u16,
}

/// The first packet of `input` and its length, or `None` when it has not come whole.
///
/// # Errors
/// A sentence on what the standard forbids.
pub fn parse(input: &[u8]) -> Result<Option<(Packet, usize)>, String> {
    let Some((head, body_len)) = header(input)? else {
        return Ok(None);
    };
    let total = head + body_len;
    if total > MAX_PACKET {
        return Err(format!("a packet of {total} bytes was announced; {MAX_PACKET} is the most"));
    }
    let (Some(first), Some(body)) = (input.first(), input.get(head..total)) else {
        return Ok(None);
    };
    let (kind, flags) = (first >> 4, first & 0x0f);
    let mut fields = Fields { rest: body };
    let packet = match kind {
        1 => Packet::Connect(connect(&mut fields)?),
        3 => Packet::Publish(publish(&mut fields, flags)?),
        4 => Packet::PubAck(fields.id()?),
        5 => exactly_once("PUBREC", &mut fields)?,
        6 => exactly_once("PUBREL", &mut fields)?,
        7 => exactly_once("PUBCOMP", &mut fields)?,
        8 => subscribe(&mut fields)?,
        10 => unsubscribe(&mut fields)?,
        12 => Packet::PingReq,
        14 => Packet::Disconnect,
        other => return Err(format!("packet type {other} is not one that a client sends")),
    };
    let wanted = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
    if kind != 3 && flags != wanted {
        return Err(format!("the flags of packet type {kind} are {flags:#06b}, not {wanted:#06b}"));
    }
    let foreign = matches!(packet, Packet::Connect(Connect::Foreign { .. }));
    if !fields.rest.is_empty() && !foreign {
        return Err(format!("packet type {kind} has {} bytes too many", fields.rest.len()));
    }
    Ok(Some((packet, total)))
}

/// Length of the fixed header, and what it says about the length of the rest.
fn header(input: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0usize;
    for place in 0..4 {
        let Some(byte) = input.get(1 + place) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + place, length)));
        }
    }
    Err("the remaining length has more than four bytes".to_owned())
}

fn connect(fields: &mut Fields<'_>) -> Result<Connect, String> {
    let (name, level) = (fields.text("protocol name")?, fields.u8()?);
    if name != "MQTT" || level != 4 {
        return Ok(Connect::Foreign { name, level });
    }
    let flags = fields.u8()?;
    let set = |bit: u8| flags & (1 << bit) != 0;
    if set(0) {
        return Err("the reserved flag of the CONNECT is set".to_owned());
    }
    let will_qos = (flags >> 3) & 3;
    if will_qos == 3 || (!set(2) && (will_qos != 0 || set(5))) {
        return Err("the will flags of the CONNECT contradict each other".to_owned());
    }
    if set(6) && !set(7) {
        return Err("the CONNECT has a password and no user name".to_owned());
    }
    let keep_alive = fields.u16()?;
    let client_id = fields.text("client id")?;
    let will = set(2).then(|| will(fields)).transpose()?;
    let user = set(7).then(|| fields.text("user name")).transpose()?;
    let password = set(6).then(|| fields.binary().map(<[u8]>::to_vec)).transpose()?;
    Ok(Connect::V311(Login {
        client_id,
        clean_session: set(1),
        keep_alive,
        will,
        user,
        password,
    }))
}

fn will(fields: &mut Fields<'_>) -> Result<String, String> {
    let topic = fields.text("topic of the will")?;
    fields.binary()?;
    Ok(topic)
}

fn publish(fields: &mut Fields<'_>, flags: u8) -> Result<Publish, String> {
    let (qos, dup) = ((flags >> 1) & 3, flags & 8 != 0);
    if qos == 3 {
        return Err("a PUBLISH has QoS 3".to_owned());
    }
    if qos == 0 && dup {
        return Err("a PUBLISH with QoS 0 is marked as a duplicate".to_owned());
    }
    let topic = fields.text("topic")?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(format!("a PUBLISH has the topic {topic:?}"));
    }
    let id = if qos > 0 { fields.id()? } else { 0 };
    let payload = Bytes::copy_from_slice(std::mem::take(&mut fields.rest));
    Ok(Publish {
        topic,
        payload,
        qos,
        retain: flags & 1 != 0,
        dup,
        id,
    })
}

fn exactly_once(name: &'static str, fields: &mut Fields<'_>) -> Result<Packet, String> {
    fields.id()?;
    Ok(Packet::ExactlyOnce(name))
}

fn subscribe(fields: &mut Fields<'_>) -> Result<Packet, String> {
    let id = fields.id()?;
    let mut filters = Vec::new();
    while !fields.rest.is_empty() {
        let (filter, qos) = (fields.text("topic filter")?, fields.u8()?);
        if filter.is_empty() || qos > 2 {
            return Err(format!("a SUBSCRIBE asks for {filter:?} with QoS {qos}"));
        }
        filters.push((filter, qos));
    }
    if filters.is_empty() {
        return Err("a SUBSCRIBE has no topic filter".to_owned());
    }
    Ok(Packet::Subscribe { id, filters })
}

fn unsubscribe(fields: &mut Fields<'_>) -> Result<Packet, String> {
    let id = fields.id()?;
    let mut filters = Vec::new();
    while !fields.rest.is_empty() {
        filters.push(fields.text("topic filter")?);
    }
    if filters.is_empty() {
        return Err("an UNSUBSCRIBE has no topic filter".to_owned());
    }
    Ok(Packet::Unsubscribe { id, filters })
}

/// The fields of a packet that are not yet read.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| "a packet ends in the middle of a field".to_owned())?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn id(&mut self) -> Result<u16, String> {
        match self.u16()? {
            0 => Err("a packet identifier is 0".to_owned()),
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], String> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        match std::str::from_utf8(self.binary()?) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err(format!("the {what} is not UTF-8 without U+0000")),
        }
    }
}

/// CONNACK without a session; `code` 0 = accepted.
pub fn connack(code: u8) -> Vec<u8> {
    vec![0x20, 2, 0, code]
}

pub fn puback(id: u16) -> Vec<u8> {
    with_id(0x40, id)
}

pub fn unsuback(id: u16) -> Vec<u8> {
    with_id(0xb0, id)
}

pub fn pingresp() -> Vec<u8> {
    vec![0xd0, 0]
}

fn with_id(first: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![first, 2, high, low]
}

/// SUBACK that grants what was asked for.
pub fn suback(id: u16, granted: &[u8]) -> Vec<u8> {
    assemble(0x90, &[&id.to_be_bytes(), granted])
}

/// A PUBLISH to the device; it has an identifier when `publish.qos` is not 0.
pub fn publish_to_device(publish: &Publish) -> Vec<u8> {
    let flags = u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    let topic = publish.topic.as_bytes();
    let topic_len = u16::try_from(topic.len()).unwrap().to_be_bytes();
    let id = publish.id.to_be_bytes();
    let id: &[u8] = if publish.qos > 0 { &id } else { &[] };
    assemble(0x30 | flags, &[&topic_len, topic, id, &publish.payload])
}

fn assemble(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut rest: usize = parts.iter().map(|p| p.len()).sum();
    let mut packet = vec![first];
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        packet.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    parts.iter().for_each(|p| packet.extend_from_slice(p));
    packet
}
