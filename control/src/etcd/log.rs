//! The keys of this cluster in etcd, and the transactions on them.
//!
//! `PREFIX/head` is the number of the last entry, `PREFIX/log/N` an entry, `PREFIX/base` names the
//! snapshot that stands for what is no longer in the log, `PREFIX/snapshot/NAME/N` its pieces, and
//! `PREFIX/hearer` who hears the edges.
//!
//! # Invariants
//! - The head moves by one, in the transaction that writes its entry, and never goes away: a
//!   replica that lags cannot write into the past, whatever was deleted there.
//! - An entry is written at one place at most, however often it was tried: it is tried at another
//!   place only after this one was seen to be taken by other bytes.
//! - What may have been done is told as unknown, never as undone.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, GetResponse,
    KeyValue, KvClient, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse,
    WatchOptions, WatchStream,
};
use meridian_config::control::etcd::Etcd as Limits;
use meridian_control_wire::secret::Secret;
use tokio::sync::OnceCell;

use crate::etcd::entry::{Base, Hearer};
use crate::world;

/// Bytes of entries that are asked for at once.
const PAGE_BYTES: usize = 16 << 20;

/// How soon a question is asked again that found no answer.
const PAUSE: Duration = Duration::from_millis(25);

/// Why etcd did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Nothing is done, and that is certain.
    #[error("etcd did nothing: {0}")]
    Nothing(String),
    /// It may be done or not.
    #[error("nobody knows what etcd did: {0}")]
    Unknown(String),
    /// The request is larger than it takes: nothing is done.
    #[error("etcd takes no request of this size")]
    TooLarge,
    /// What stands in etcd makes no sense, or is of another history.
    #[error("{0}")]
    Foreign(String),
}

/// The log as of one moment.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) head: u64,
    pub(super) base: Option<Base>,
    /// Entries after what was asked for: all there are, unless it is a full page.
    pub(super) entries: Vec<(u64, Bytes)>,
    /// The revision of etcd at that moment.
    pub(super) revision: i64,
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It stands where it was to stand.
    Done,
    /// Another one stands there.
    Taken,
}

/// Who hears the edges, as of now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// Whoever asked, since this revision.
    Mine(i64),
    /// Another run, of this or another replica, since that revision.
    Others(Hearer, i64),
}

/// etcd, as replicas of one cluster use it.
pub(super) struct Log {
    client: OnceCell<Client>,
    endpoints: Vec<String>,
    options: ConnectOptions,
    prefix: String,
    patience: Duration,
    page: i64,
    longest: usize,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", self.prefix, self.endpoints) // no password
    }
}

impl Log {
    pub(super) fn new(limits: &Limits, user: Option<(String, Secret)>) -> Self {
        let patience = limits.quorum_timeout.get();
        let mut options = ConnectOptions::new()
            // A member without a leader says so at once, and then has certainly done nothing.
            .with_require_leader(true)
            .with_connect_timeout(patience)
            // A connection that died in silence is noticed by whoever waits on it.
            .with_keep_alive(Duration::from_secs(1), Duration::from_secs(1));
        if let Some((name, password)) = user {
            options = options.with_user(name, password.expose()).with_auto_token_refresh(true);
        }
        let size = limits.request_size.to_usize();
        Self {
            client: OnceCell::new(),
            endpoints: limits.endpoints.iter().map(|at| format!("http://{at}")).collect(),
            options,
            prefix: limits.prefix.clone(),
            patience,
            page: i64::try_from((PAGE_BYTES / size).clamp(1, 256)).unwrap_or(1),
            longest: 2 * PAGE_BYTES + 2 * size,
        }
    }

    async fn client(&self) -> Result<Client, Fault> {
        let connect = || Client::connect(&self.endpoints, Some(self.options.clone()));
        let client = self.client.get_or_try_init(connect).await;
        client.cloned().map_err(|error| Fault::Nothing(error.to_string()))
    }

    async fn keys(&self) -> Result<KvClient, Fault> {
        Ok(self.client().await?.kv_client().max_decoding_message_size(self.longest))
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn entry(&self, index: u64) -> String {
        format!("{}/log/{index:020}", self.prefix)
    }

    /// One transaction. It may be tried again where nothing was done.
    async fn once(&self, txn: Txn, limit: Duration) -> Result<TxnResponse, Fault> {
        let asked = async { self.keys().await?.txn(txn).await.map_err(|error| fault(&error)) };
        match tokio::time::timeout(limit, asked).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Fault::Unknown(format!("no answer within {limit:?}"))),
        }
    }

    /// A transaction that only reads, asked of one member after the other until `deadline`.
    async fn read(&self, reads: Vec<TxnOp>, deadline: Instant) -> Result<TxnResponse, Fault> {
        loop {
            let left = deadline.saturating_duration_since(world::now());
            // The member that is asked may be cut off: half the time is for another one.
            let limit = left.min((self.patience / 2).max(PAUSE));
            match self.once(Txn::new().and_then(reads.clone()), limit).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Unknown(why) | Fault::Nothing(why)) => {
                    if deadline.saturating_duration_since(world::now()) <= PAUSE {
                        return Err(Fault::Nothing(why)); // a read does nothing
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// The last entry, as a majority of etcd knows it.
    pub(super) async fn head(&self, deadline: Instant) -> Result<u64, Fault> {
        let answer = self.read(vec![TxnOp::get(self.at("head"), None)], deadline).await?;
        head_of(gets(&answer).first())
    }

    /// The entries after `after`, and what goes with them.
    pub(super) async fn page(&self, after: u64, deadline: Instant) -> Result<Page, Fault> {
        let range = GetOptions::new()
            .with_range(self.entry(u64::MAX))
            .with_limit(self.page)
            .with_sort(SortTarget::Key, SortOrder::Ascend);
        let reads = vec![
            TxnOp::get(self.at("head"), None),
            TxnOp::get(self.at("base"), None),
            TxnOp::get(self.entry(after.saturating_add(1)), Some(range)),
        ];
        let answer = self.read(reads, deadline).await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let got = gets(&answer);
        let mut entries = Vec::new();
        for pair in got.get(2).into_iter().flat_map(GetResponse::kvs) {
            entries.push((self.index_of(pair)?, Bytes::copy_from_slice(pair.value())));
        }
        Ok(Page { head: head_of(got.first())?, base: base_of(got.get(1))?, entries, revision })
    }

    /// The bytes of one entry, if it is still in the log.
    pub(super) async fn one(&self, index: u64, by: Instant) -> Result<Option<Bytes>, Fault> {
        let answer = self.read(vec![TxnOp::get(self.entry(index), None)], by).await?;
        Ok(first(gets(&answer).first()).map(|pair| Bytes::copy_from_slice(pair.value())))
    }

    /// The number of an entry that was read or watched.
    pub(super) fn index_of(&self, pair: &KeyValue) -> Result<u64, Fault> {
        let key = String::from_utf8_lossy(pair.key());
        let number = key.rsplit('/').next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| Fault::Foreign(format!("{key} is no key of an entry")))
    }

    /// Writes `bytes` as the entry `index`, after the last one.
    pub(super) async fn append(
        &self,
        index: u64,
        bytes: &Bytes,
        deadline: Instant,
    ) -> Result<Appended, Fault> {
        let (head, entry) = (self.at("head"), self.entry(index));
        let last = match index.checked_sub(1) {
            None | Some(0) => Compare::create_revision(head.as_str(), CompareOp::Equal, 0),
            Some(last) => Compare::value(head.as_str(), CompareOp::Equal, last.to_string()),
        };
        let txn = Txn::new()
            .when(vec![last])
            .and_then(vec![
                TxnOp::put(entry.as_str(), bytes.to_vec(), None),
                TxnOp::put(head, index.to_string(), None),
            ])
            .or_else(vec![TxnOp::get(entry, None)]);
        let mut doubt = None;
        loop {
            let left = deadline.saturating_duration_since(world::now());
            let limit = left.min((self.patience / 2).max(PAUSE));
            let why = match self.once(txn.clone(), limit).await {
                Ok(answer) if answer.succeeded() => return Ok(Appended::Done),
                Ok(answer) => {
                    let there = gets(&answer);
                    return match first(there.first()) {
                        // An earlier try, whose answer was lost.
                        Some(pair) if pair.value() == &bytes[..] => Ok(Appended::Done),
                        Some(_) => Ok(Appended::Taken),
                        // It is gone into a snapshot already, and nobody can tell whose it was.
                        None => match doubt {
                            Some(why) => Err(Fault::Unknown(why)),
                            None => Ok(Appended::Taken),
                        },
                    };
                }
                Err(Fault::Unknown(why)) => {
                    doubt = Some(why.clone());
                    why
                }
                Err(Fault::Nothing(why)) => why,
                Err(other) => return Err(other),
            };
            if deadline.saturating_duration_since(world::now()) <= PAUSE {
                return Err(doubt.map_or(Fault::Nothing(why), Fault::Unknown));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells every entry that is written from `revision` on.
    pub(super) async fn tail(&self, revision: i64) -> Result<WatchStream, Fault> {
        let options = WatchOptions::new()
            .with_range(self.entry(u64::MAX))
            .with_start_revision(revision)
            .with_fragment();
        let watch = async {
            let client = self.client().await?.watch_client();
            let mut client = client.max_decoding_message_size(self.longest);
            client.watch(self.entry(0), Some(options)).await.map_err(|error| fault(&error))
        };
        match tokio::time::timeout(self.patience, watch).await {
            Ok(stream) => stream,
            Err(_elapsed) => Err(Fault::Nothing("no watch in time".to_owned())),
        }
    }

    /// Writes a piece of a snapshot, which nobody reads before [`Log::rebase`].
    pub(super) async fn put_piece(&self, base: &Base, n: u32, piece: &[u8]) -> Result<(), Fault> {
        let put = TxnOp::put(self.piece(&base.name, n), piece, None);
        self.once(Txn::new().and_then(vec![put]), self.patience * 4).await.map(drop)
    }

    /// Reads a piece of a snapshot; none: another one has taken its place.
    pub(super) async fn piece_of(&self, base: &Base, n: u32) -> Result<Option<Bytes>, Fault> {
        let deadline = world::now() + self.patience * 4;
        let read = vec![TxnOp::get(self.piece(&base.name, n), None)];
        let answer = self.read(read, deadline).await?;
        Ok(first(gets(&answer).first()).map(|pair| Bytes::copy_from_slice(pair.value())))
    }

    fn piece(&self, name: &str, n: u32) -> String {
        format!("{}/snapshot/{name}/{n:08}", self.prefix)
    }

    /// Has `new` stand for the log up to it and takes entries up to `upto` away, if `old` stood
    /// there until now.
    pub(super) async fn rebase(
        &self,
        old: Option<&Base>,
        new: &Base,
        upto: u64,
    ) -> Result<bool, Fault> {
        let base = self.at("base");
        let text = |base: &Base| serde_json::to_vec(base).unwrap_or_default();
        let same = match old {
            None => Compare::create_revision(base.as_str(), CompareOp::Equal, 0),
            Some(old) => Compare::value(base.as_str(), CompareOp::Equal, text(old)),
        };
        let entries = DeleteOptions::new().with_range(self.entry(upto.saturating_add(1)));
        let older = DeleteOptions::new().with_range(self.at(&format!("snapshot/{}/", new.name)));
        let txn = Txn::new().when(vec![same]).and_then(vec![
            TxnOp::put(base, text(new), None),
            TxnOp::delete(self.entry(0), Some(entries)),
            TxnOp::delete(self.at("snapshot/"), Some(older)),
        ]);
        // Nothing waits for it: etcd takes its time to delete that many.
        Ok(self.once(txn, self.patience * 10).await?.succeeded())
    }

    /// A lease, and for how long it holds: as long as it was granted from when it was asked for.
    pub(super) async fn grant(&self, seconds: i64) -> Result<(i64, Duration), Fault> {
        let asked = async {
            let mut client = self.client().await?;
            let granted = client.lease_grant(seconds, None).await;
            granted.map_err(|error| fault(&error))
        };
        let granted = self.in_time(asked).await?;
        let held = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0));
        Ok((granted.id(), held))
    }

    /// Prolongs a lease; whether there still is one.
    pub(super) async fn prolong(&self, lease: i64) -> Result<bool, Fault> {
        let asked = async {
            let mut client = self.client().await?;
            // To open the stream is to prolong it once; what it would tell later is not waited for.
            match client.lease_keep_alive(lease).await {
                Ok(_stream) => Ok(true),
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(fault(&error)),
            }
        };
        self.in_time(asked).await
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Fault> {
        let asked = async {
            let revoked = self.client().await?.lease_revoke(lease).await;
            revoked.map(drop).map_err(|error| fault(&error))
        };
        self.in_time(asked).await
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match tokio::time::timeout(self.patience, asked).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Fault::Unknown(format!("no answer within {:?}", self.patience))),
        }
    }

    /// Has `me` hear the edges as long as `lease` lasts, if nobody does, or the run `instead_of`.
    pub(super) async fn hear(
        &self,
        me: &Hearer,
        lease: i64,
        instead_of: Option<i64>,
    ) -> Result<Hearing, Fault> {
        let key = self.at("hearer");
        let text = serde_json::to_vec(me).unwrap_or_default();
        let free = match instead_of {
            None => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
            Some(revision) => Compare::mod_revision(key.as_str(), CompareOp::Equal, revision),
        };
        let options = PutOptions::new().with_lease(lease);
        let txn = Txn::new()
            .when(vec![free])
            .and_then(vec![TxnOp::put(key.as_str(), text, Some(options))])
            .or_else(vec![TxnOp::get(key, None)]);
        let answer = self.once(txn, self.patience).await?;
        if answer.succeeded() {
            let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            return Ok(Hearing::Mine(revision));
        }
        let gone = || Fault::Nothing("whoever heard the edges has just left".to_owned());
        let (other, revision) = hearer_of(gets(&answer).first())?.ok_or_else(gone)?;
        Ok(if other == *me { Hearing::Mine(revision) } else { Hearing::Others(other, revision) })
    }

    /// Who hears the edges.
    pub(super) async fn hearer(&self, deadline: Instant) -> Result<Option<Hearer>, Fault> {
        let answer = self.read(vec![TxnOp::get(self.at("hearer"), None)], deadline).await?;
        Ok(hearer_of(gets(&answer).first())?.map(|(hearer, _)| hearer))
    }
}

/// What the reads of a transaction found.
fn gets(answer: &TxnResponse) -> Vec<GetResponse> {
    let found = answer.op_responses().into_iter().filter_map(|one| match one {
        TxnOpResponse::Get(found) => Some(found),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    found.collect()
}

fn first(found: Option<&GetResponse>) -> Option<&KeyValue> {
    found.and_then(|found| found.kvs().first())
}

fn head_of(found: Option<&GetResponse>) -> Result<u64, Fault> {
    let Some(pair) = first(found) else { return Ok(0) };
    let index = pair.value_str().ok().and_then(|text| text.parse().ok());
    index.ok_or_else(|| Fault::Foreign("the head in etcd is no number".to_owned()))
}

fn base_of(found: Option<&GetResponse>) -> Result<Option<Base>, Fault> {
    let Some(pair) = first(found) else { return Ok(None) };
    let base = serde_json::from_slice(pair.value());
    base.map(Some).map_err(|why| Fault::Foreign(format!("the base in etcd: {why}")))
}

fn hearer_of(found: Option<&GetResponse>) -> Result<Option<(Hearer, i64)>, Fault> {
    let Some(pair) = first(found) else { return Ok(None) };
    let hearer = serde_json::from_slice(pair.value());
    let hearer = hearer.map_err(|why| Fault::Foreign(format!("the hearer in etcd: {why}")))?;
    Ok(Some((hearer, pair.mod_revision())))
}

/// What an error of etcd says of what it did. Only what it refuses before it proposes anything to
/// its own members, or undoes, is certain.
fn fault(error: &Error) -> Fault {
    const CERTAIN: [&str; 7] = [
        "etcdserver: no leader",
        "etcdserver: too many requests",
        "etcdserver: mvcc: database space exceeded",
        "etcdserver: permission denied",
        "etcdserver: invalid auth token",
        "etcdserver: user name is empty",
        "etcdserver: requested lease not found",
    ];
    match error {
        Error::GRpcStatus(status) => {
            let told = status.message();
            if told.contains("request is too large") || told.contains("larger than max") {
                return Fault::TooLarge;
            }
            if CERTAIN.iter().any(|certain| told.contains(certain)) {
                return Fault::Nothing(told.to_owned());
            }
            Fault::Unknown(status.to_string())
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            Fault::Nothing(error.to_string())
        }
        _ => Fault::Unknown(error.to_string()),
    }
}
