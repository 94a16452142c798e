//! What a benchmark case is, and the list of all of them.

use std::fmt;
use std::io;

use crate::clock::Clock;
use crate::work::{
    amf0, chunk_reader, chunk_writer, echo, fan_out, floor, gop_join, handshake, packaging, publish,
};

/// How large a case is built.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Size {
    /// For tests and instruction counts: milliseconds, also in a debug build.
    Small,
    /// For measuring.
    Full,
}

impl Size {
    /// One of two numbers.
    pub fn pick<T>(self, small: T, full: T) -> T {
        match self {
            Size::Small => small,
            Size::Full => full,
        }
    }
}

/// What one iteration did.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// What [`Case::unit`] names: messages, flushes, joins.
    pub units: u64,
    /// Bytes that went through.
    pub bytes: u64,
    /// Payload bytes copied in user space.
    pub copied_bytes: u64,
    /// Digest of the results; the same for the same iteration of every run.
    pub digest: u64,
}

/// The measured part of a case, with its state from iteration to iteration.
pub trait Work {
    /// One iteration. Nothing in it waits for other threads, unless the kernel's buffers are full.
    fn run(&mut self) -> Outcome;

    /// Waits, outside the measurement, until what the iteration set off elsewhere is done.
    fn settle(&mut self) {}
}

/// Why a case cannot run here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Skipped {
    fn from(error: io::Error) -> Skipped {
        Skipped(error.to_string())
    }
}

impl From<uring::OpenError> for Skipped {
    fn from(error: uring::OpenError) -> Skipped {
        Skipped(error.to_string())
    }
}

/// How to build a case.
pub type Build = fn(Size) -> Result<Box<dyn Work>, Skipped>;

/// One case of the catalogue.
#[derive(Copy, Clone, Debug)]
pub struct Case {
    /// `group` or `group/variant`.
    pub name: &'static str,
    /// What one unit is, in the singular.
    pub unit: &'static str,
    /// Most allocations per unit after warm-up. 0 is a promise of the data path.
    pub allocations_per_unit_max: u64,
    /// Payload bytes copied per payload byte, at most; 0 where nothing is copied.
    pub copies_max: f64,
    /// Digest of the small case as `tests/small.rs` runs it. It changes only together with
    /// what the case computes.
    pub digest: u64,
    /// Timed by.
    pub clock: Clock,
    /// Builds it, or says why it cannot run here.
    pub build: Build,
}

impl Case {
    /// The part of the name before the slash.
    pub fn group(&self) -> &'static str {
        self.name.split('/').next().unwrap_or(self.name)
    }

    /// True when the case touches no socket: it can run under an instruction counter.
    pub fn is_in_memory(&self) -> bool {
        self.clock == Clock::Wall
    }
}

const fn memory(name: &'static str, unit: &'static str, digest: u64, build: Build) -> Case {
    Case {
        name,
        unit,
        allocations_per_unit_max: 0,
        copies_max: 0.0,
        digest,
        clock: Clock::Wall,
        build,
    }
}

const fn sockets(name: &'static str, unit: &'static str, digest: u64, build: Build) -> Case {
    Case { clock: Clock::ThreadCpu, ..memory(name, unit, digest, build) }
}

const fn copying(copies_max: f64, case: Case) -> Case {
    Case { copies_max, ..case }
}

const fn allocating(allocations_per_unit_max: u64, case: Case) -> Case {
    Case { allocations_per_unit_max, ..case }
}

static CATALOGUE: &[Case] = &[
    memory("chunk_reader/128", "message", 0x0ba6_89aa_b131_9d73, chunk_reader::build::<128>),
    memory("chunk_reader/4096", "message", 0x55f1_7888_9193_ef84, chunk_reader::build::<4_096>),
    memory("chunk_reader/65536", "message", 0x9af8_47da_697c_ea0c, chunk_reader::build::<65_536>),
    copying(
        1.0,
        memory("chunk_writer/4096", "message", 0xfb85_d784_64fc_0b8f, chunk_writer::build_writer),
    ),
    copying(
        1.0,
        memory("framing/65536", "message", 0xc491_1b24_33ef_5211, chunk_writer::build_framing),
    ),
    allocating(
        3,
        memory("amf0/read_connect", "body", 0xdcb1_013c_5fa3_4cdc, amf0::build_read_connect),
    ),
    allocating(
        3,
        memory("amf0/read_metadata", "body", 0x0e12_486b_00ed_7083, amf0::build_read_metadata),
    ),
    memory("amf0/write_result", "body", 0x72ba_7c93_6332_ae58, amf0::build_write_result),
    allocating(
        2,
        memory("handshake/simple", "handshake", 0xfd0e_4b54_f39e_d6b2, handshake::build_simple),
    ),
    allocating(
        2,
        memory("handshake/digest", "handshake", 0xd984_e4f6_d7be_7630, handshake::build_digest),
    ),
    memory("ring_publish", "message", 0xe8aa_3f41_6130_858f, publish::build_ring),
    copying(1.0, memory("publish", "message", 0x7404_da52_219b_20a4, publish::build_publisher)),
    memory("gop_join", "join", 0x210f_4032_26e2_ea3b, gop_join::build),
    copying(
        2.2,
        allocating(
            1,
            memory("packaging/fmp4", "message", 0xe4f4_86fe_2e3b_c060, packaging::build_fmp4),
        ),
    ),
    copying(
        2.2,
        allocating(
            1,
            memory("packaging/ts", "message", 0xccf8_8f51_db00_6ea0, packaging::build_ts),
        ),
    ),
    copying(1.0, memory("fan_out/1", "send", 0x1bcd_62ae_bb3d_b706, fan_out::build::<1>)),
    copying(0.11, memory("fan_out/100", "send", 0x535e_4fcb_36be_8f3b, fan_out::build::<100>)),
    copying(0.01, memory("fan_out/10000", "send", 0x1063_83cb_194c_c303, fan_out::build::<10_000>)),
    copying(
        0.11,
        sockets("fan_out_sockets/frame", "flush", 0xe15f_33be_6462_209a, floor::build_fan_out::<1>),
    ),
    copying(
        0.11,
        sockets(
            "fan_out_sockets/window_100",
            "flush",
            0x3d1d_0bac_3f79_2a13,
            floor::build_fan_out::<3>,
        ),
    ),
    copying(
        0.11,
        sockets(
            "fan_out_sockets/window_350",
            "flush",
            0x4eb4_b2e2_2321_a8b3,
            floor::build_fan_out::<10>,
        ),
    ),
    copying(
        1.0,
        sockets("fan_out_sockets/1", "flush", 0xc17f_e945_f53e_0a9f, floor::build_fan_out_to::<1>),
    ),
    copying(
        0.03,
        sockets(
            "fan_out_sockets/10000",
            "flush",
            0x0f8d_90db_1661_1b4e,
            floor::build_fan_out_to::<10_000>,
        ),
    ),
    sockets("floor_send/frame", "flush", 0xe15f_33be_6462_209a, floor::build_send::<1>),
    sockets("floor_send/window_100", "flush", 0x3d1d_0bac_3f79_2a13, floor::build_send::<3>),
    sockets("floor_send/window_350", "flush", 0x4eb4_b2e2_2321_a8b3, floor::build_send::<10>),
    sockets("floor_uring/frame", "flush", 0xe15f_33be_6462_209a, floor::build_uring::<1>),
    sockets("floor_uring/window_100", "flush", 0x3d1d_0bac_3f79_2a13, floor::build_uring::<3>),
    sockets("floor_uring/window_350", "flush", 0x4eb4_b2e2_2321_a8b3, floor::build_uring::<10>),
    copying(1.0, sockets("turn_echo/uring", "echo", 0x33b0_3acd_95c1_823e, echo::build_uring)),
    copying(1.0, sockets("turn_echo/epoll", "echo", 0x33b0_3acd_95c1_823e, echo::build_epoll)),
];

/// All cases, in the order of a byte's way.
pub fn catalogue() -> &'static [Case] {
    CATALOGUE
}

/// The case of that name.
pub fn find(name: &str) -> Option<&'static Case> {
    CATALOGUE.iter().find(|case| case.name == name)
}
