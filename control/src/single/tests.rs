//! The store against a model without a disk, and what its writers share.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use meridian_config::control::Control;
use meridian_config::load::parse;
use meridian_control_wire::purge::PurgeOrder;
use meridian_control_wire::selector::Selector;
use proptest::prelude::{any, proptest};
use proptest::strategy::{Just, Strategy};
use proptest::{prop_oneof, test_runner::Config};
use serde_json::json;

use super::{Single, Writer, open};
use crate::control_store::{ControlStore, Denied, What};
use crate::machine::draft::seq_of;
use crate::order::{Change, Condition, PurgeRequest, Refused, RepeatKey};
use crate::watcher::Unwatched;

fn config(data: &Path, keep: u32) -> Control {
    let data = data.display();
    let text = format!(
        "name = 'c'\nregion = 'iad'\nlisten = '127.0.0.1:0'\ndata = '{data}'\n\
         [journal]\nkeep = {keep}\nmax_folded = 5\nmax_keys = 6\nmax_registers = 3\n"
    );
    parse(&text, Path::new("/x.toml")).unwrap()
}

fn request(tag: &str, key: Option<u8>) -> PurgeRequest {
    let selectors = vec![Selector::Tag(tag.to_owned())];
    let mut fingerprint = [0; 32];
    fingerprint[..tag.len()].copy_from_slice(tag.as_bytes());
    let key = key.map(|key| RepeatKey { key: [key; 32], fingerprint });
    PurgeRequest { order: PurgeOrder { selectors, soft: false }, by: "ci".to_owned(), key }
}

/// Runs `work` against a store whose writer runs, and ends it.
async fn with_store<T>(config: &Control, work: impl AsyncFnOnce(&Single) -> T) -> T {
    let (single, writer): (Single, Writer) = open(config, Arc::new(Unwatched)).unwrap();
    let writer = tokio::task::spawn_blocking(move || writer.run());
    let done = work(&single).await;
    single.end().await;
    writer.await.unwrap();
    done
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_writer_writes_and_all_of_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1_000);
    let (single, writer) = open(&config, Arc::new(Unwatched)).unwrap();
    let orders = (0..50).map(|n| single.purge(request(&format!("t{n}"), None)));
    let mut orders: Vec<_> = orders.collect();
    for order in &mut orders {
        // Each is in the queue once it has been polled.
        assert!(poll_fn(|context| Poll::Ready(order.as_mut().poll(context))).await.is_pending());
    }
    assert_eq!(single.state().last, 0);
    let writer = tokio::task::spawn_blocking(move || writer.run());
    let mut ids = BTreeSet::new();
    for order in orders {
        let accepted = order.await.unwrap();
        assert_eq!(seq_of(&accepted.id), Some(accepted.seq));
        ids.insert(accepted.id);
    }
    assert_eq!(ids.len(), 50);
    single.end().await;
    writer.await.unwrap();
    assert_eq!(single.purge(request("late", None)).await, Err(Denied::Ending));
    drop(single);
    let kept = with_store(&config, async |store| store.entries(0, 1_000).await.unwrap()).await;
    assert_eq!(kept.len(), 50);
}

#[derive(Debug, Clone)]
enum Step {
    Purge(u8, Option<u8>),
    Set(u8, bool),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u8, any::<Option<bool>>(), 0..9_u8)
            .prop_map(|(tag, keyed, key)| Step::Purge(tag, keyed.map(|_| key))),
        3 => (0..5_u8, any::<bool>()).prop_map(|(key, there)| Step::Set(key, there)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What a store should be, without any disk.
#[derive(Debug, Default)]
struct Model {
    log: Vec<What>,
    /// Keys in the order of their first use, with tag and entry.
    keys: Vec<(u8, u8, u64)>,
    registers: BTreeMap<String, (Option<serde_json::Value>, u64)>,
}

impl Model {
    async fn purge(&mut self, store: &Single, tag: u8, key: Option<u8>) {
        let known = key.and_then(|key| self.keys.iter().find(|known| known.0 == key).copied());
        let done = store.purge(request(&format!("t{tag}"), key)).await;
        match known {
            Some((_, first, seq)) if first == tag => {
                let done = done.unwrap();
                assert!(done.replayed && done.seq == seq);
                return;
            }
            Some(_) => return assert_eq!(done, Err(Denied::Refused(Refused::Mismatch))),
            None => {}
        }
        let done = done.unwrap();
        let seq = u64::try_from(self.log.len()).unwrap() + 1;
        assert!(!done.replayed && done.seq == seq);
        let entry = store.entries(seq - 1, 1).await.unwrap().remove(0);
        self.log.push(entry.row.what);
        if let Some(key) = key {
            self.keys.push((key, tag, seq));
        }
    }

    async fn set(&mut self, store: &Single, key: u8, there: bool) {
        let key = format!("site/k{key}");
        let value = there.then(|| json!(self.log.len()));
        let change = Change {
            key: key.clone(),
            value: value.clone(),
            condition: Condition::Any,
            by: "ops".to_owned(),
        };
        let done = store.change(change).await;
        let live = self.registers.get(&key).is_some_and(|(value, _)| value.is_some());
        if !self.registers.contains_key(&key) && self.registers.len() >= 3 {
            let gone = self.registers.iter().filter(|(_, (value, _))| value.is_none());
            let oldest = gone.min_by_key(|(_, (_, seq))| *seq).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else {
                return assert_eq!(done, Err(Denied::Refused(Refused::Full)));
            };
            if there {
                self.registers.remove(&oldest);
            }
        }
        if !there && !live {
            return assert_eq!(done, Err(Denied::Refused(Refused::Absent)));
        }
        let seq = u64::try_from(self.log.len()).unwrap() + 1;
        assert_eq!(done.unwrap().seq, seq);
        self.log.push(What::Config { key: key.clone(), value: value.clone() });
        self.registers.insert(key, (value, seq));
    }

    /// The store holds what it should, the oldest entries aside.
    async fn hold(&self, store: &Single) {
        let state = store.state();
        assert_eq!(state.last, u64::try_from(self.log.len()).unwrap());
        assert!(state.last - state.low_water <= 8 && state.sound);
        let kept = store.entries(state.low_water, 100).await.unwrap();
        let kept: Vec<What> = kept.into_iter().map(|entry| entry.row.what).collect();
        assert_eq!(kept, self.log[usize::try_from(state.low_water).unwrap()..]);
        if let Some(older) = state.low_water.checked_sub(1) {
            let low_water = state.low_water;
            assert_eq!(store.entries(older, 1).await, Err(Denied::Compacted { low_water }));
        }
        let sites: BTreeMap<_, _> = store.sites(state.last).into_iter().collect();
        let want: BTreeMap<_, _> =
            self.registers.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        assert_eq!(sites, want);
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]
    #[test]
    fn the_store_is_what_was_acknowledged_also_over_restarts(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let config = config(folder.path(), 8);
            let mut model = Model::default();
            for life in steps.split(|step| matches!(step, Step::Restart)) {
                with_store(&config, async |store| {
                    for step in life {
                        // The oldest keys go when the next batch finds too many.
                        let surplus = model.keys.len().saturating_sub(6);
                        model.keys.drain(..surplus);
                        match step {
                            Step::Purge(tag, key) => model.purge(store, *tag, *key).await,
                            Step::Set(key, there) => model.set(store, *key, *there).await,
                            Step::Restart => {}
                        }
                        model.hold(store).await;
                    }
                })
                .await;
            }
        });
    }
}
