//! How often a worker turns, and how long its turns gather: on a simulated network, in its time.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use edge::access::Rules;
use edge::command::{Events, Wake, WorkerHandle, worker_link};
use edge::config::Config;
use edge::shared::Shared;
use edge::worker::{Clocks, EntranceUse, Flow, Worker};
use rtmp::Millis;
use rtmp::session::{ClientConfig, ClientEvent, ClientRole, ClientSession, MediaKind};
use uring::sim::{Faults, SimIo, SimNet, SimPeer};
use uring::{Io, IoConfig, ListenOptions, Nanos};

/// An AAC frame.
const AUDIO: [u8; 6] = [0xAF, 1, 7, 7, 7, 7];

/// Bytes of a keyframe.
const KEYFRAME_BYTES: usize = 40_000;
/// Players that watch it: for all of them it takes several turns.
const PLAYERS: usize = 60;
/// What a turn hands out while somebody comes, as the worker has it.
const ARRIVAL_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    /// CPU time the worker is told that it has used.
    static CPU_NANOS: Cell<u64> = const { Cell::new(0) };
}

/// One worker and its clients.
struct World {
    net: SimNet,
    /// Ends a rest.
    alarm: SimIo<ring::Lease>,
    worker: Worker<SimIo<ring::Lease>>,
    handle: WorkerHandle,
    addr: SocketAddr,
    clients: Vec<Client>,
    turns: u32,
    /// Most bytes sent by what one turn handed out.
    longest_turn: u64,
    _events: Events,
}

struct Client {
    peer: SimPeer,
    session: ClientSession,
    out: Vec<u8>,
    unread: Vec<u8>,
    messages: u32,
}

impl World {
    fn new() -> Self {
        let net = SimNet::new(1, Faults::none());
        let (sink, events) = Events::channel();
        let (port, seed) = worker_link(0, sink);
        let config = Arc::new(Config::default());
        let rules = Arc::new(Rules::open(Arc::clone(&config)));
        let clocks = Clocks { cpu_nanos: || CPU_NANOS.get(), unix_s: || 1_800_000_000 };
        let io = net.io::<ring::Lease>(IoConfig::default()).unwrap();
        let alarm = net.io(IoConfig { recv_buffers: 2, ..IoConfig::default() }).unwrap();
        let shared = Arc::new(Shared::new(1));
        let mut worker = Worker::new(io, port, shared, config, rules, 1, clocks);
        let listened = worker.listen(
            "10.0.0.1:1935".parse().unwrap(),
            &ListenOptions::default(),
            EntranceUse::default(),
        );
        let handle = seed.with_waker(Arc::new(NobodyWaits));
        let addr = listened.unwrap();
        Self {
            net,
            alarm,
            worker,
            handle,
            addr,
            clients: Vec::new(),
            turns: 0,
            longest_turn: 0,
            _events: events,
        }
    }

    fn now_ms(&self) -> u64 {
        self.net.now().as_millis()
    }

    fn open(&mut self, role: ClientRole) -> usize {
        let config = ClientConfig {
            tc_url: "rtmp://sim.test/live".to_owned(),
            app: "live".to_owned(),
            stream: "cam".to_owned(),
            role,
            ..ClientConfig::default()
        };
        let random = self.clients.len() as u64;
        let session = ClientSession::new(config, random, Millis(self.now_ms()));
        let peer = self.net.connect(self.addr);
        let (out, unread) = (Vec::new(), Vec::new());
        self.clients.push(Client { peer, session, out, unread, messages: 0 });
        self.clients.len() - 1
    }

    /// Lets so much time pass, from event to event. `each_ms` happens in every millisecond.
    fn pass(&mut self, span_ms: u64, mut each_ms: impl FnMut(&mut Self)) {
        for _ in 0..span_ms {
            each_ms(self);
            self.rest(1);
        }
    }

    /// The same, and nobody does anything.
    fn rest(&mut self, span_ms: u64) {
        let until = self.net.now().saturating_add(Nanos::from_millis(span_ms));
        while self.net.now() < until {
            let sent = self.handle.metrics().egress_bytes.value();
            assert_eq!(self.worker.turn().unwrap(), Flow::Continue);
            self.turns += 1;
            // A turn begins with what has become of the sends of the one before.
            let sent = self.handle.metrics().egress_bytes.value() - sent;
            self.longest_turn = self.longest_turn.max(sent);
            let now = Millis(self.now_ms());
            self.clients.iter_mut().for_each(|client| client.turn(now));
            self.alarm.turn(Some(until), &mut Vec::new()).unwrap();
            assert!(self.net.advance_to_next_event(), "the alarm at least");
        }
    }

    fn gathering_s(&self) -> f64 {
        self.handle.metrics().turn_gathering.value()
    }

    fn send_keyframe(&mut self, publisher: usize) {
        let at_ms = u32::try_from(self.now_ms()).unwrap();
        // A keyframe of a codec without headers.
        let keyframe = vec![0x12; KEYFRAME_BYTES];
        let client = &mut self.clients[publisher];
        client.session.write_media(MediaKind::Video, at_ms, &keyframe, &mut client.out);
    }

    /// Ten small messages.
    fn send_audio(&mut self, publisher: usize) {
        let at_ms = u32::try_from(self.now_ms()).unwrap();
        let client = &mut self.clients[publisher];
        for _ in 0..10 {
            client.session.write_media(MediaKind::Audio, at_ms, &AUDIO, &mut client.out);
        }
    }
}

impl Client {
    fn turn(&mut self, now: Millis) {
        if !self.peer.is_connected() {
            return;
        }
        self.unread.extend_from_slice(&self.peer.read(usize::MAX));
        let unread = std::mem::take(&mut self.unread);
        let mut input = unread.as_slice();
        loop {
            match self.session.handle_bytes(now, &mut input).unwrap() {
                Some(ClientEvent::Media(part)) => self.messages += u32::from(part.last),
                Some(_) => {}
                None if input.is_empty() => break,
                None => self.session.take_replies(&mut self.out),
            }
        }
        self.session.take_replies(&mut self.out);
        let written = self.peer.write(&self.out);
        self.out.drain(..written);
    }
}

struct NobodyWaits;

impl Wake for NobodyWaits {
    fn wake(&self) {}
}

#[test]
fn turns_gather_long_only_while_nobody_watches_and_nobody_comes() {
    let mut world = World::new();
    let publisher = world.open(ClientRole::Publish);
    world.rest(100);
    assert_eq!(world.gathering_s(), 0.0, "there is nothing to gather");
    // 10,000 messages a second. For a second its own commands might still come.
    world.pass(600, |world| world.send_audio(publisher));
    assert_eq!(world.gathering_s(), 0.005);
    world.pass(600, |world| world.send_audio(publisher));
    assert_eq!(world.gathering_s(), 0.020);

    let player = world.open(ClientRole::Play);
    let (mut shortest_s, mut longest_s) = (f64::MAX, 0.0_f64);
    world.pass(2_000, |world| {
        world.send_audio(publisher);
        if world.clients[player].messages > 0 {
            shortest_s = shortest_s.min(world.gathering_s());
            longest_s = longest_s.max(world.gathering_s());
        }
    });
    assert_eq!((shortest_s, longest_s), (0.005, 0.005), "while it watches");

    world.clients.remove(player).peer.close();
    world.pass(200, |world| world.send_audio(publisher));
    assert_eq!(world.gathering_s(), 0.020, "it has left");
    world.rest(200);
    assert_eq!(world.gathering_s(), 0.0, "nothing is published");
}

#[test]
fn players_commands_and_acknowledgements_are_nothing_to_gather() {
    let mut world = World::new();
    let publisher = world.open(ClientRole::Publish);
    world.rest(100);
    let mut longest_s = 0.0_f64;
    let mut came_ms = 0;
    // A player each millisecond: some thousand receives a second.
    world.pass(400, |world| {
        came_ms += 1;
        world.open(ClientRole::Play);
        if came_ms % 20 == 0 {
            world.send_audio(publisher);
        }
        longest_s = longest_s.max(world.gathering_s());
    });
    assert!(world.clients.iter().filter(|client| client.messages > 0).count() > 300);
    assert_eq!(longest_s, 0.0);
}

#[test]
fn a_worker_whose_watched_stream_rests_turns_for_its_sweep_only() {
    let mut world = World::new();
    let publisher = world.open(ClientRole::Publish);
    let player = world.open(ClientRole::Play);
    world.rest(200);
    world.pass(100, |world| world.send_audio(publisher));
    world.rest(100);
    let all = world.clients[player].messages;
    assert!((900..=1_000).contains(&all), "audio alone is sent when its time is up: {all}");
    world.turns = 0;
    world.rest(2_000);
    // A sweep every 50 ms, and the turn before it that waits for it.
    assert!((40..=82).contains(&world.turns), "{} turns in 2 s", world.turns);
}

#[test]
fn who_comes_during_a_fan_out_waits_for_a_part_of_it_only() {
    let mut world = World::new();
    let publisher = world.open(ClientRole::Publish);
    for _ in 0..PLAYERS {
        world.open(ClientRole::Play);
    }
    world.rest(200);
    world.send_keyframe(publisher);
    world.rest(200);
    let longest_turn_of_a_fan_out = |world: &mut World| {
        world.longest_turn = 0;
        world.send_keyframe(publisher);
        world.rest(200);
        world.longest_turn
    };
    let few = longest_turn_of_a_fan_out(&mut world);
    world.rest(1_000);
    let all = longest_turn_of_a_fan_out(&mut world);
    // Three quarters of its time.
    world.pass(2_500, |_| CPU_NANOS.set(CPU_NANOS.get() + 750_000));
    world.open(ClientRole::Play);
    let busy = longest_turn_of_a_fan_out(&mut world);
    let have_all = world.clients.iter().filter(|client| client.messages == 4).count();
    assert_eq!(have_all, PLAYERS);
    // What crosses the bound is the last.
    let (keyframe, bound) = (KEYFRAME_BYTES as u64, ARRIVAL_BYTES_MAX as u64);
    assert!((bound..bound + keyframe + keyframe / 8).contains(&few), "{few} bytes");
    let whole = PLAYERS as u64 * keyframe;
    assert!(all >= whole, "nobody comes any more: {all} bytes");
    assert!(busy >= whole, "turns have their price: {busy} bytes");
}
