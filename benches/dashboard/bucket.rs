//! A Cloud Storage server for listings that no emulator answers in time: names of chunks are reckoned, not stored, so that a page of a
//! listing costs what is in it, whatever the size of the bucket. Objects are one chunk of FLV with its times moved.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gcstreamer_schema::name::{NameFields, Template};
use gcstreamer_schema::session::session_id;

use super::common::{Cut, SECOND, iso};

/// Chunks of one length, one after the other, of some cameras.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub cameras: u64,
    /// Of each camera.
    pub chunks: u64,
    /// When the first of each begins, ns since the Unix epoch.
    pub start: u64,
}

/// Length of a chunk, ns.
pub(crate) const CHUNK: u64 = 10 * SECOND;

pub(crate) struct Server {
    pub address: SocketAddr,
    pub lists: Arc<AtomicU64>,
}

struct Shared {
    buckets: BTreeMap<&'static str, Bucket>,
    /// The names of buckets with one camera, made beforehand: making them is not to be measured.
    names: BTreeMap<u64, Vec<String>>,
    items: BTreeMap<u64, Vec<String>>,
    template: Template,
    cut: Cut,
    /// How long a listing takes, as it does over a network.
    latency: Duration,
    lists: Arc<AtomicU64>,
}

impl Server {
    pub(crate) fn start(buckets: BTreeMap<&'static str, Bucket>, cut: Cut, latency: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lists = Arc::new(AtomicU64::new(0));
        let template = Template::parse(gcstreamer_dashboard::settings::DEFAULT_LOCATION).unwrap();
        let mut shared = Shared {
            buckets,
            names: BTreeMap::new(),
            items: BTreeMap::new(),
            template,
            cut,
            latency,
            lists: lists.clone(),
        };
        for bucket in shared.buckets.clone().into_values().filter(|bucket| bucket.cameras == 1) {
            let names: Vec<String> = (0..bucket.chunks)
                .map(|number| shared.name(&bucket, number).into_owned())
                .collect();
            if bucket.chunks < 10_000 {
                let items = (0..)
                    .zip(&names)
                    .map(|(number, name)| shared.item(&bucket, number, name, true).into_owned());
                let items = items.collect();
                shared.items.insert(bucket.chunks, items);
            }
            shared.names.insert(bucket.chunks, names);
        }
        let shared = Arc::new(shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, lists }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut out = stream.try_clone().ok()?;
        let mut lines = BufReader::new(stream).lines();
        loop {
            let first = lines.next()?.ok()?;
            let mut range = None;
            loop {
                let line = lines.next()?.ok()?;
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    let (from, to) = value.split_once('-')?;
                    range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?));
                }
            }
            let target = first.split(' ').nth(1)?;
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let (bucket, object) = path.strip_prefix("/storage/v1/b/")?.split_once("/o")?;
            let bucket = &self.buckets[bucket];
            match object.strip_prefix('/') {
                None => {
                    std::thread::sleep(self.latency);
                    let body = self.list(bucket, &parameters(query));
                    self.lists.fetch_add(1, Ordering::Relaxed);
                    write!(
                        out,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    )
                    .ok()?;
                    out.write_all(body.as_bytes()).ok()?;
                }
                Some(name) => {
                    let bytes = self.object(&decode(name));
                    let (from, to) = range.unwrap_or((0, bytes.len() - 1));
                    let part = &bytes[from..=to.min(bytes.len() - 1)];
                    write!(
                        out,
                        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{to}/{}\r\nContent-Length: {}\r\n\r\n",
                        bytes.len(),
                        part.len()
                    )
                    .ok()?;
                    out.write_all(part).ok()?;
                }
            }
        }
    }

    fn name(&self, bucket: &Bucket, number: u64) -> Cow<'_, str> {
        if let Some(name) = self.made(&self.names, bucket, number) {
            return name.into();
        }
        let (camera, index) = (number / bucket.chunks, number % bucket.chunks);
        let device = format!("cam{camera:03}");
        let session = session_id(bucket.start, u32::try_from(camera).unwrap().into());
        let naming = NameFields {
            device: &device,
            session: &session,
            seq: index,
            ext: "flv",
            start: bucket.start + index * CHUNK,
        };
        self.template.format(&naming).unwrap().into()
    }

    /// What was made beforehand for this number.
    fn made<'a>(&self, of: &'a BTreeMap<u64, Vec<String>>, bucket: &Bucket, number: u64) -> Option<&'a str> {
        let all = of.get(&bucket.chunks).filter(|_| bucket.cameras == 1)?;
        all.get(usize::try_from(number).unwrap()).map(String::as_str)
    }

    /// The first number whose name does not fulfil what all before it do.
    fn point(&self, bucket: &Bucket, is_before: impl Fn(&str) -> bool) -> u64 {
        let (mut low, mut high) = (0, bucket.cameras * bucket.chunks);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(&self.name(bucket, middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn list(&self, bucket: &Bucket, query: &BTreeMap<String, String>) -> String {
        let get = |key: &str| query.get(key).map_or("", String::as_str);
        let prefix = get("prefix");
        let most: usize = get("maxResults").parse().unwrap_or(1000);
        let from = prefix.max(get("startOffset"));
        let token = get("pageToken");
        let mut at = match token {
            "" => self.point(bucket, |name| name < from),
            token => self.point(bucket, |name| {
                name <= token || token.ends_with('/') && name.starts_with(token)
            }),
        };
        let end = get("endOffset");
        let ends = self.point(bucket, |name| {
            (name < prefix || name.starts_with(prefix)) && (end.is_empty() || name < end)
        });
        let is_full = get("fields").contains("metadata");
        let (mut items, mut prefixes, mut last) = (Vec::new(), Vec::new(), String::new());
        while at < ends && items.len() + prefixes.len() < most {
            let name = self.name(bucket, at);
            let folder = Some(get("delimiter"))
                .filter(|by| !by.is_empty())
                .and_then(|by| name[prefix.len()..].find(by));
            match folder {
                Some(length) => {
                    let folder = name[..=prefix.len() + length].to_owned();
                    at = self.point(bucket, |name| name < folder.as_str() || name.starts_with(&folder));
                    prefixes.push(serde_json::Value::from(folder.clone()));
                    last = folder;
                }
                None => {
                    items.push(self.item(bucket, at, &name, is_full));
                    last = name.into_owned();
                    at += 1;
                }
            }
        }
        let next = if at < ends {
            serde_json::Value::from(last)
        } else {
            serde_json::Value::Null
        };
        format!(
            "{{\"items\":[{}],\"prefixes\":{},\"nextPageToken\":{next}}}",
            items.join(","),
            serde_json::Value::from(prefixes)
        )
    }

    fn item(&self, bucket: &Bucket, number: u64, name: &str, is_full: bool) -> Cow<'_, str> {
        if !is_full {
            return format!("{{\"name\":\"{name}\"}}").into();
        }
        if let Some(item) = self.made(&self.items, bucket, number) {
            return item.into();
        }
        let (camera, index) = (number / bucket.chunks, number % bucket.chunks);
        let start = bucket.start + index * CHUNK;
        let mut info = self.cut.info.clone();
        (info.start, info.duration) = (start, CHUNK);
        (info.sequence, info.pts_start) = (index, Some(index * CHUNK));
        info.gap = info.gap.filter(|_| index == 0);
        let session = session_id(bucket.start, u32::try_from(camera).unwrap().into());
        let metadata = info.metadata(&format!("cam{camera:03}"), &session, &BTreeMap::new());
        format!(
            "{{\"name\":\"{name}\",\"generation\":\"{}\",\"size\":\"{}\",\"timeCreated\":\"{}\",\"metadata\":{}}}",
            1_700_000_000_000_000 + number,
            self.cut.bytes.len(),
            iso(start + CHUNK),
            serde_json::to_string(&metadata).unwrap()
        )
        .into()
    }

    /// The chunk with its times moved to where its number says.
    fn object(&self, name: &str) -> Vec<u8> {
        let index: u64 = self.template.read(name).and_then(|parts| parts.sequence).unwrap();
        let shift = u32::try_from(index * CHUNK / 1_000_000).unwrap();
        let mut bytes = self.cut.bytes.clone();
        let mut at = usize::try_from(self.cut.info.init_bytes).unwrap();
        while at + 11 <= bytes.len() {
            let tag = &mut bytes[at..];
            let size = usize::from(tag[1]) << 16 | usize::from(tag[2]) << 8 | usize::from(tag[3]);
            let time = u32::from_be_bytes([tag[7], tag[4], tag[5], tag[6]])
                .wrapping_add(shift)
                .to_be_bytes();
            (tag[7], tag[4], tag[5], tag[6]) = (time[0], time[1], time[2], time[3]);
            at += 11 + size + 4;
        }
        bytes
    }
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), decode(&value.replace('+', " "))))
        .collect()
}

fn decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let byte = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(out).unwrap()
}
