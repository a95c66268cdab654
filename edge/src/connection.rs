//! One client connection: what it is doing, and since when. Its bytes are [`crate::watched`]'s.
//!
//! Timers per request would cost the hit path, so a connection only notes what it does
//! ([`Connection`]), and one sweep per core and tick ([`Connection::overdue`]) finds those that
//! exceed a limit of `[accept]`.
//!
//! # Invariants
//! - A head is timed from its first byte, also while the protocol is being detected. Not so with
//!   HTTP/2, where bytes between requests are mostly about the connection: there idleness bounds it.
//! - A connection is idle only while no request is in flight on it and no byte of one came.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::frames::Motion;
use crate::framing::Follows;
use crate::interim::Interim;
use crate::pace::{LeastRate, Paced, Waits};
use crate::tunnel::Tunnel;

/// Where the sweep draws the line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    pub(crate) send: Duration,
    /// A request in flight without a byte of a message in either direction: longer than any upstream may take.
    pub(crate) silence: Duration,
    pub(crate) least_rate: LeastRate,
}

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const SERVING: u64 = 2;
const TUNNEL: u64 = 3;

/// What follows a head, in one word: a length is that much above the others.
const UNKNOWN: u64 = 0;
const NOTHING: u64 = 1;
const CHUNKS: u64 = 2;
const OPAQUE: u64 = 3;
const LENGTH: u64 = 4;

/// Requests in flight on the connections of one listener. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Load(AtomicU64);

impl Load {
    pub(crate) fn requests(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a connection is doing, shared by its parts.
#[derive(Debug)]
pub(crate) struct Connection {
    clock: SharedClock,
    load: Arc<Load>,
    opened: Instant,
    /// Milliseconds since `opened` in the upper bits, the phase in the lowest two.
    phase: AtomicU64,
    /// Milliseconds since `opened` at which a write first found no room, plus one; 0: none does.
    write_blocked: AtomicU64,
    /// Milliseconds since `opened` of the last byte of a message in either direction.
    last_byte: AtomicU64,
    /// What the client makes of the time in which it is waited for.
    pub(crate) paced: Arc<Paced>,
    in_flight: AtomicU32,
    served: AtomicU32,
    max_requests: u32,
    retiring: AtomicBool,
    /// Whether bytes outside of a request may be something else than the head of one.
    is_http2: AtomicBool,
    /// What it has to send before the answer that is being made.
    pub(crate) interim: Interim,
    /// What it becomes once the last answer is sent.
    tunnel: Mutex<Option<Tunnel>>,
    /// What follows the head that was read last, until the socket has taken note of it.
    follows: AtomicU64,
    /// A line of a head that was read, but not yet served, ended in a bare LF.
    bare_lf: AtomicBool,
    /// Wakes the connection's task: it is to end in good order.
    pub(crate) retire: Notify,
    /// Wakes the connection's task: it is to end at once.
    pub(crate) cut: Notify,
}

impl Connection {
    pub(crate) fn new(clock: SharedClock, load: Arc<Load>, max_requests: u32) -> Arc<Self> {
        let opened = clock.now().mono;
        Arc::new(Self {
            paced: Paced::new(Arc::clone(&clock), opened),
            clock,
            load,
            opened,
            phase: AtomicU64::new(IDLE),
            write_blocked: AtomicU64::new(0),
            last_byte: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            served: AtomicU32::new(0),
            max_requests,
            retiring: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            interim: Interim::default(),
            tunnel: Mutex::default(),
            follows: AtomicU64::new(UNKNOWN),
            bare_lf: AtomicBool::new(false),
            retire: Notify::new(),
            cut: Notify::new(),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now().mono
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: u64) {
        let now = self.millis(self.clock.now().mono);
        self.phase.store(now << 2 | phase, Ordering::Relaxed);
    }

    /// A request has been read; it is in flight until the guard is gone.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.paced.pace.begin_anew();
        }
        self.load.0.fetch_add(1, Ordering::Relaxed);
        self.phase.store(SERVING, Ordering::Relaxed);
        if self.served.fetch_add(1, Ordering::Relaxed) + 1 >= self.max_requests {
            self.end_in_order();
        }
        Busy(Arc::clone(self))
    }

    /// Asks for a graceful end.
    pub(crate) fn end_in_order(&self) {
        if !self.retiring.swap(true, Ordering::Relaxed) {
            self.retire.notify_one();
        }
    }

    /// Whether an idle client is told that the connection ends (RFC 9113 §6.8), for which it has as
    /// long again. HTTP/1 has no word for that.
    pub(crate) fn says_farewell(&self) -> bool {
        let says = self.is_http2.load(Ordering::Relaxed) && !self.retiring.load(Ordering::Relaxed);
        if says {
            self.enter(IDLE);
            self.end_in_order();
        }
        says
    }

    /// The protocol has been detected: it is HTTP/2.
    pub(crate) fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
        self.enter(IDLE);
    }

    /// Becomes `tunnel` when the answer that came with it is sent.
    pub(crate) fn will_become(&self, tunnel: Tunnel) {
        self.is_followed_by(Follows::Tunnel);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    /// The tunnel that it is from now on, if it is one: that one minds its own time.
    pub(crate) fn become_tunnel(&self) -> Option<Tunnel> {
        let tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.enter(TUNNEL);
        Some(tunnel)
    }

    /// The head that was read last is followed by that.
    pub(crate) fn is_followed_by(&self, follows: Follows) {
        let word = match follows {
            Follows::Nothing => NOTHING,
            Follows::Chunks => CHUNKS,
            Follows::Tunnel => OPAQUE,
            Follows::Length(length) => length.saturating_add(LENGTH),
        };
        self.follows.store(word, Ordering::Relaxed);
    }

    /// What has been said of the head that was read last, once.
    pub(crate) fn follows(&self) -> Option<Follows> {
        let word = self.follows.load(Ordering::Relaxed);
        if word != UNKNOWN {
            self.follows.store(UNKNOWN, Ordering::Relaxed);
        }
        match word {
            UNKNOWN => None,
            NOTHING => Some(Follows::Nothing),
            CHUNKS => Some(Follows::Chunks),
            OPAQUE => Some(Follows::Tunnel),
            length => Some(Follows::Length(length - LENGTH)),
        }
    }

    /// Whether it speaks HTTP/2, as far as that is known.
    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// A line of a head that is handed on ended in a bare LF.
    pub(crate) fn note_bare_lf(&self) {
        self.bare_lf.store(true, Ordering::Relaxed);
    }

    /// Whether the head of the request that is begun had a line that ended in a bare LF.
    pub(crate) fn had_bare_lf(&self) -> bool {
        self.bare_lf.load(Ordering::Relaxed) && self.bare_lf.swap(false, Ordering::Relaxed)
    }

    fn moved(&self) {
        let now = self.millis(self.clock.now().mono);
        self.last_byte.store(now, Ordering::Relaxed);
    }

    /// Bytes came in; whether any of them is of a message.
    pub(crate) fn read_some(&self, is_motion: bool) {
        if is_motion {
            self.moved();
        }
        let is_idle = self.phase.load(Ordering::Relaxed) & 3 == IDLE;
        if is_idle && !self.is_http2.load(Ordering::Relaxed) {
            self.enter(HEAD);
        }
    }

    /// A write went `on`, with that much of messages; or it found no room.
    pub(crate) fn wrote(&self, on: Poll<Motion>) {
        let was_blocked = self.write_blocked.load(Ordering::Relaxed) > 0;
        if let Poll::Ready(Motion { moves, content }) = on {
            self.paced.pace.count(content);
            if moves {
                self.moved();
            }
            if was_blocked {
                self.write_blocked.store(0, Ordering::Relaxed);
                self.paced.pace.go_on(self.millis(self.clock.now().mono));
                // What takes so long that it blocks is sent after its request is over.
                if self.phase.load(Ordering::Relaxed) & 3 == IDLE {
                    self.enter(IDLE);
                }
            }
        } else if !was_blocked {
            let now = self.millis(self.clock.now().mono);
            self.write_blocked.store(now + 1, Ordering::Relaxed);
            self.paced.pace.wait(now);
        }
    }

    /// Which limit it exceeds, if any.
    pub(crate) fn overdue(&self, patience: &Patience, now: Instant) -> Option<Overdue> {
        let now = self.millis(now);
        let since = |from: u64| Duration::from_millis(now.saturating_sub(from));
        let blocked = self.write_blocked.load(Ordering::Relaxed);
        if blocked > 0 && since(blocked - 1) > patience.send {
            return Some(Overdue::Send);
        }
        if self.paced.pace.is_below(patience.least_rate, now) {
            return Some(Overdue::Rate);
        }
        let phase = self.phase.load(Ordering::Relaxed);
        match phase & 3 {
            HEAD if since(phase >> 2) > patience.head => Some(Overdue::Head),
            IDLE if blocked == 0 && since(phase >> 2) > patience.idle => Some(Overdue::Idle),
            SERVING if since(self.last_byte.load(Ordering::Relaxed)) > patience.silence => {
                Some(Overdue::Silence)
            }
            _ => None,
        }
    }
}

/// Which limit a connection exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    Head,
    Idle,
    Send,
    Rate,
    Silence,
}

impl Overdue {
    pub(crate) const ALL: [Self; 5] =
        [Self::Head, Self::Idle, Self::Send, Self::Rate, Self::Silence];

    /// The word in metrics and logs.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::Head => "head_timeout",
            Self::Idle => "idle_timeout",
            Self::Send => "send_timeout",
            Self::Rate => "least_rate",
            Self::Silence => "silence",
        }
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.load.0.fetch_sub(1, Ordering::Relaxed);
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(IDLE);
        }
    }
}

impl Busy {
    /// Over HTTP/2 the rest of a body waits for the client where its stream has no window, without
    /// a byte at the socket (RFC 9113 §5.2).
    pub(crate) fn withheld(&self) -> Option<Waits> {
        self.0.is_http2.load(Ordering::Relaxed).then(|| self.0.paced.waits())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use meridian_edge_rules::time::Now;

    use super::*;
    use crate::clock::Clock;

    #[derive(Debug)]
    struct Set(Mutex<Now>);

    impl Clock for Set {
        fn now(&self) -> Now {
            *self.0.lock().unwrap()
        }
    }

    /// A connection and the clock that it goes by.
    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn connection() -> (Arc<Set>, Arc<Connection>) {
        let now = Now { wall: SystemTime::UNIX_EPOCH, mono: Instant::now() };
        let clock = Arc::new(Set(Mutex::new(now)));
        let connection = Connection::new(Arc::clone(&clock) as SharedClock, Arc::default(), 2);
        (clock, connection)
    }

    impl Set {
        /// Goes on by so many seconds and says what is overdue then.
        fn after(&self, seconds: u64, connection: &Connection) -> Option<Overdue> {
            let mut now = self.0.lock().unwrap();
            now.mono += Duration::from_secs(seconds);
            let patience = Patience {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(60),
                send: Duration::from_secs(30),
                silence: Duration::from_secs(90),
                least_rate: LeastRate { bytes: 1_000, grace: Duration::from_secs(40) },
            };
            connection.overdue(&patience, now.mono)
        }
    }

    #[test]
    fn a_head_is_timed_from_its_first_byte_however_often_more_comes() {
        let (clock, connection) = connection();
        assert_eq!(clock.after(59, &connection), None, "idle until the first byte");
        connection.read_some(true);
        for _ in 0..10 {
            assert_eq!(clock.after(1, &connection), None);
            connection.read_some(true);
        }
        assert_eq!(clock.after(1, &connection), Some(Overdue::Head));
    }

    #[test]
    fn frames_between_requests_of_http2_are_no_heads_and_no_activity() {
        let (clock, connection) = connection();
        connection.read_some(true);
        assert_eq!(clock.after(5, &connection), None);
        connection.speaks_http2();
        let busy = connection.begin();
        drop(busy);
        for _ in 0..4 {
            assert_eq!(clock.after(15, &connection), None, "a window, a ping, an acknowledgement");
            connection.read_some(true);
        }
        assert_eq!(clock.after(1, &connection), Some(Overdue::Idle));
    }

    #[test]
    fn idleness_begins_again_after_each_request() {
        let (clock, connection) = connection();
        connection.read_some(true);
        let busy = connection.begin();
        assert_eq!(clock.after(80, &connection), None, "a request in flight is not idle");
        drop(busy);
        assert_eq!(clock.after(60, &connection), None);
        assert_eq!(clock.after(1, &connection), Some(Overdue::Idle));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_and_one_that_takes_something_is_not() {
        let (clock, connection) = connection();
        let _busy = connection.begin();
        connection.wrote(Poll::Pending);
        assert_eq!(clock.after(30, &connection), None);
        connection.wrote(Poll::Ready(Motion::of(100_000)));
        connection.wrote(Poll::Pending);
        assert_eq!(clock.after(30, &connection), None);
        assert_eq!(clock.after(1, &connection), Some(Overdue::Send));
    }

    #[test]
    fn a_request_without_a_byte_in_either_direction_ends_some_day() {
        let (clock, connection) = connection();
        connection.read_some(true);
        let _busy = connection.begin();
        assert_eq!(clock.after(90, &connection), None);
        assert_eq!(clock.after(1, &connection), Some(Overdue::Silence));
    }

    #[test]
    fn what_is_about_the_connection_is_no_byte_of_a_request() {
        let (clock, connection) = connection();
        connection.speaks_http2();
        connection.read_some(true);
        let _busy = connection.begin();
        for _ in 0..9 {
            assert_eq!(clock.after(10, &connection), None);
            connection.read_some(false); // pings and their answers
            connection.wrote(Poll::Ready(Motion { moves: false, content: 0 }));
        }
        assert_eq!(clock.after(1, &connection), Some(Overdue::Silence));
        connection.wrote(Poll::Ready(Motion { moves: true, content: 1 }));
        assert_eq!(clock.after(90, &connection), None);
    }

    #[test]
    fn what_is_still_being_sent_after_its_request_is_not_idle() {
        let (clock, connection) = connection();
        connection.read_some(true);
        drop(connection.begin());
        for _ in 0..10 {
            connection.wrote(Poll::Pending);
            assert_eq!(clock.after(20, &connection), None, "the rest of it drains");
            connection.wrote(Poll::Ready(Motion::of(100_000)));
        }
        assert_eq!(clock.after(60, &connection), None);
        assert_eq!(clock.after(1, &connection), Some(Overdue::Idle));
    }

    #[test]
    fn a_client_that_takes_or_gives_hardly_anything_is_cut_and_a_slow_origin_is_not_its_fault() {
        let (clock, connection) = connection();
        let busy = connection.begin();
        connection.speaks_http2();
        let _busy_again = connection.begin();
        connection.read_some(true);
        assert_eq!(clock.after(60, &connection), None, "nobody waits for it");
        connection.read_some(true);
        let waits = busy.withheld();
        assert_eq!(clock.after(30, &connection), None, "within the grace");
        connection.read_some(true);
        connection.paced.pace.count(10_000);
        assert_eq!(clock.after(11, &connection), Some(Overdue::Rate));
        drop(waits);
        assert_eq!(clock.after(1, &connection), None);
    }
}
