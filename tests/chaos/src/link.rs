//! One link: how it behaves now, what it counted, and how an order changes it.
//!
//! # Invariants
//! - A change is seen by every connection before the order is answered: each looks at the state
//!   before each piece, and `settled` tells that the listener obeyed too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use meridian_config::units::{Address, ByteSize, HumanDuration, NodeName};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::names::Node;
use crate::order::Effect;
use crate::pace::Pace;
use crate::shape::{Shape, Way, Ways};
use crate::view::{Connections, LinkView, WayView};

/// A listener obeys within this; longer, and the order is answered all the same.
const SETTLE: Duration = Duration::from_secs(1);

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) shapes: Ways<Shape>,
    /// Counts half-closes: a connection that saw fewer closes its way.
    pub(crate) closed: Ways<u64>,
    /// Counts resets: a connection of an earlier count is reset.
    pub(crate) severed: u64,
    /// Counts orders.
    version: u64,
}

impl State {
    /// Whether any way is cut: then no connection can be made.
    pub(crate) fn is_cut(&self) -> bool {
        self.shapes.there.cut || self.shapes.back.cut
    }

    /// What a packet needs for both ways.
    pub(crate) fn round_trip(&self) -> Duration {
        self.shapes.there.delay.saturating_add(self.shapes.back.delay)
    }
}

/// What went over one way.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) bytes: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) held: AtomicUsize,
    pub(crate) pace: Pace,
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) listen: SocketAddr,
    pub(crate) dial: Address,
    /// What it is healed to.
    base: Ways<Shape>,
    state: watch::Sender<State>,
    settled: watch::Sender<u64>,
    pub(crate) flows: Ways<Flow>,
    pub(crate) open: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) reset: AtomicU64,
    /// Decides the jitter of its connections.
    pub(crate) seed: u64,
}

impl Link {
    /// A link that behaves as `base` says until an order changes it.
    pub(crate) fn new(
        (from, to): (Node, Node),
        listen: SocketAddr,
        dial: Address,
        base: Ways<Shape>,
        seed: u64,
    ) -> Arc<Self> {
        let closed = Ways { there: 0, back: 0 };
        let state = State { shapes: base, closed, severed: 0, version: 0 };
        Arc::new(Self {
            from,
            to,
            listen,
            dial,
            base,
            state: watch::Sender::new(state),
            settled: watch::Sender::new(0),
            flows: Ways::default(),
            open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            seed,
        })
    }

    /// Follows the state.
    pub(crate) fn follow(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The listener obeys `state`.
    pub(crate) fn settle(&self, state: &State) {
        self.settled.send_replace(state.version);
    }

    /// Does what an order wants of `ways`.
    pub(crate) fn change(&self, ways: &[Way], effect: Effect) {
        self.state.send_modify(|state| {
            state.version += 1;
            let mut severs = effect == Effect::Reset;
            for way in ways {
                let shape = state.shapes.of_mut(*way);
                let was_cut = shape.cut;
                match effect {
                    Effect::Cut => shape.cut = true,
                    Effect::Delay(delay, jitter) => (shape.delay, shape.jitter) = (delay, jitter),
                    Effect::Rate(rate) => shape.rate = Some(rate),
                    Effect::Slice(slice) => shape.slice = Some(slice),
                    Effect::Heal => *shape = *self.base.of(*way),
                    Effect::Reset => {}
                    Effect::HalfClose => *state.closed.of_mut(*way) += 1,
                }
                severs |= was_cut && effect == Effect::Heal;
                self.flows.of(*way).pace.clear();
            }
            if severs {
                state.severed += 1;
            }
        });
    }

    /// Resolves when the listener obeys all orders given so far, or should have.
    pub(crate) async fn settled(&self) {
        let version = self.state.borrow().version;
        let mut settled = self.settled.subscribe();
        // A listener that is gone, or slower than that, changes nothing about the order.
        drop(timeout(SETTLE, settled.wait_for(|settled| *settled >= version)).await);
    }

    /// What is told of it.
    pub(crate) fn view(&self) -> LinkView {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = *self.state.borrow();
        let way = |way: Way| {
            let (shape, flow) = (state.shapes.of(way), self.flows.of(way));
            let held = flow.held.load(Ordering::Relaxed);
            WayView {
                cut: shape.cut,
                delay: HumanDuration::from(shape.delay),
                jitter: HumanDuration::from(shape.jitter),
                rate: shape.rate.map(|rate| ByteSize::bytes(rate.get())),
                slice: shape.slice.map(|slice| ByteSize::bytes(slice.get())),
                bytes: count(&flow.bytes),
                lost_bytes: count(&flow.lost),
                held_bytes: u64::try_from(held).unwrap_or(u64::MAX),
            }
        };
        LinkView {
            from: self.from.name.clone(),
            from_region: self.from.region.clone(),
            to: self.to.name.clone(),
            to_region: self.to.region.clone(),
            listen: self.listen.to_string(),
            dial: self.dial.clone(),
            connections: Connections {
                open: count(&self.open),
                accepted: count(&self.accepted),
                reset: count(&self.reset),
            },
            there: way(Way::There),
            back: way(Way::Back),
        }
    }

    /// The ways on which bytes go from one of `a` to one of `b`; both ways round unless `one_way`.
    pub(crate) fn ways(
        &self,
        is_a: impl Fn(&NodeName) -> bool,
        is_b: impl Fn(&NodeName) -> bool,
        one_way: bool,
    ) -> Vec<Way> {
        let goes = |from: &NodeName, to: &NodeName| {
            is_a(from) && is_b(to) || !one_way && is_b(from) && is_a(to)
        };
        let (from, to) = (&self.from.name, &self.to.name);
        let ways = [(Way::There, goes(from, to)), (Way::Back, goes(to, from))];
        ways.into_iter().filter(|(_, is_meant)| *is_meant).map(|(way, _)| way).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use meridian_config::units::NodeName;

    use super::Link;
    use crate::names::Node;
    use crate::order::Effect;
    use crate::shape::{Shape, Way, Ways};

    fn link(base: Ways<Shape>) -> Arc<Link> {
        let node = |name: &str| Node { name: name.parse().unwrap(), role: "edge", region: None };
        let address = "127.0.0.1:1";
        let ends = (node("x"), node("y"));
        Link::new(ends, address.parse().unwrap(), address.parse().unwrap(), base, 0)
    }

    #[test]
    fn a_way_is_named_by_who_sends_whoever_dialled() {
        let link = link(Ways::default());
        let ways = |a: &str, b: &str, one_way: bool| {
            let is = |word: &str| {
                let word = word.to_owned();
                move |name: &NodeName| name.as_str() == word
            };
            link.ways(is(a), is(b), one_way)
        };
        assert_eq!(ways("x", "y", true), [Way::There]);
        assert_eq!(ways("y", "x", true), [Way::Back]);
        assert_eq!(ways("y", "x", false), [Way::There, Way::Back]);
        assert_eq!(ways("x", "z", false), []);
    }

    #[test]
    fn healing_returns_to_the_beginning_and_severs_only_what_was_cut() {
        let delayed = Shape::delayed(Duration::from_millis(45));
        let base = Ways { there: delayed, back: delayed };
        let link = link(base);
        let state = || *link.follow().borrow();
        link.change(&[Way::There], Effect::Delay(Duration::from_secs(30), Duration::ZERO));
        assert_eq!(state().shapes.there.delay, Duration::from_secs(30));
        link.change(&[Way::There, Way::Back], Effect::Heal);
        assert_eq!((state().shapes, state().severed), (base, 0));
        link.change(&[Way::Back], Effect::Cut);
        assert!(state().is_cut() && state().severed == 0);
        link.change(&[Way::There], Effect::Heal);
        assert!(state().is_cut() && state().severed == 0, "the other way is not healed");
        link.change(&[Way::Back], Effect::Heal);
        assert_eq!((state().shapes, state().severed), (base, 1));
    }
}
