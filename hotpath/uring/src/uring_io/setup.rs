//! Opens a ring with the best the kernel grants, and writes down what that was.
//!
//! Two tries: deferred task work with a single issuer (6.1), then cooperative task work (6.0). Below
//! that multishot receive is missing and there is no point in io_uring; the caller takes epoll.

use super::buf_ring::BufRing;
use super::restrict;
use crate::config::IoConfig;
use crate::probe::{Backend, FeatureState, Features, OpenError};
use io_uring::{IoUring, opcode, register::Probe};
use std::io;

/// Completion entries per submission entry. One submission may have several completions (accept,
/// receive) between two reaps; what does not fit is parked by the kernel and costs its time.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;

pub(super) struct Opened {
    pub(super) ring: IoUring,
    pub(super) buffers: BufRing,
    pub(super) features: Features,
}

pub(super) fn open(config: &IoConfig) -> Result<Opened, OpenError> {
    check_sizes(config)?;
    let mut features = Features::new(Backend::Uring);
    let ring = build(config, &mut features)?;
    probe_operations(&ring)?;
    note_parameters(&ring, &mut features)?;
    let submitter = ring.submitter();
    let buffers = BufRing::register(&submitter, config.recv_buffers, config.recv_buffer_bytes)
        .map_err(|error| OpenError::from_kernel("register the buffer ring", &error))?;
    features.push("buffer_ring", "5.19", FeatureState::On);
    features.push("multishot_receive", "6.0", FeatureState::On);
    features.push("multishot_accept", "5.19", FeatureState::On);
    note(&mut features, "restricted_operations", "5.10", restrict::restrict(&submitter));
    if let Err(error) = submitter.register_enable_rings() {
        // Whatever this answers, the error above is the one to report.
        let _ = buffers.release(&submitter);
        return Err(OpenError::from_kernel("enable the ring", &error));
    }
    note_unused(&mut features);
    Ok(Opened { ring, buffers, features })
}

fn check_sizes(config: &IoConfig) -> Result<(), OpenError> {
    let buffers = config.recv_buffers;
    if !buffers.is_power_of_two() || buffers > 1 << 15 || config.recv_buffer_bytes == 0 {
        return Err(OpenError::misconfigured(
            "recv_buffers must be a power of two up to 32768, recv_buffer_bytes not zero",
        ));
    }
    if !config.entries.is_power_of_two() || config.entries > 1 << 15 {
        return Err(OpenError::misconfigured("entries must be a power of two up to 32768"));
    }
    if config.connections_max > crate::token::INDEX_MAX {
        return Err(OpenError::misconfigured("connections_max is at most 2^28"));
    }
    Ok(())
}

fn build(config: &IoConfig, features: &mut Features) -> Result<IoUring, OpenError> {
    let mut common = IoUring::builder();
    common
        .dontfork()
        .setup_cqsize(config.entries.saturating_mul(COMPLETIONS_PER_SUBMISSION))
        .setup_clamp()
        .setup_submit_all()
        .setup_r_disabled()
        .setup_taskrun_flag();
    if config.defer_taskrun {
        let mut deferred = common.clone();
        deferred.setup_single_issuer().setup_defer_taskrun();
        match deferred.build(config.entries) {
            Ok(ring) => {
                features.push("single_issuer", "6.0", FeatureState::On);
                features.push("defer_taskrun", "6.1", FeatureState::On);
                return Ok(ring);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                note(features, "defer_taskrun", "6.1", Err(error));
            }
            Err(error) => return Err(OpenError::from_kernel("set up a ring", &error)),
        }
    } else {
        let reason = "the configuration says so";
        features.push("defer_taskrun", "6.1", FeatureState::Off { reason });
    }
    let ring = common
        .setup_coop_taskrun()
        .build(config.entries)
        .map_err(|error| OpenError::from_kernel("set up a ring", &error))?;
    features.push("coop_taskrun", "5.19", FeatureState::On);
    Ok(ring)
}

/// Refuses kernels that lack an operation we use.
///
/// Whether receive knows multishot cannot be asked; zero-copy send came with the same version, and
/// that can.
fn probe_operations(ring: &IoUring) -> Result<(), OpenError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| OpenError::from_kernel("ask for the operations", &error))?;
    let known = restrict::OPERATIONS.into_iter().all(|code| probe.is_supported(code));
    if known && probe.is_supported(opcode::SendZc::CODE) {
        Ok(())
    } else {
        Err(OpenError::too_old("multishot receive needs Linux 6.0"))
    }
}

fn note_parameters(ring: &IoUring, features: &mut Features) -> Result<(), OpenError> {
    let parameters = ring.params();
    if !parameters.is_feature_ext_arg() {
        return Err(OpenError::too_old("waiting with a timeout needs Linux 5.11"));
    }
    features.push("wait_timeout", "5.11", FeatureState::On);
    if !parameters.is_feature_nodrop() {
        return Err(OpenError::too_old("keeping completions that do not fit needs Linux 5.5"));
    }
    features.push("completions_kept", "5.5", FeatureState::On);
    Ok(())
}

fn note_unused(features: &mut Features) {
    let unused = [
        ("min_wait", "6.12", "the worker's own tick batches ingest"),
        ("receive_bundles", "6.10", "no gain measured; returned buffers out of order on 6.13"),
        ("zero_copy_send", "6.0", "no gain below 15 KB per flush, none on loopback"),
        ("registered_files", "5.1", "no gain measured for sends"),
    ];
    for (name, since, reason) in unused {
        features.push(name, since, FeatureState::Off { reason });
    }
}

fn note(features: &mut Features, name: &'static str, since: &'static str, result: io::Result<()>) {
    let state = match result {
        Ok(()) => FeatureState::On,
        Err(error) => OpenError::from_kernel(name, &error).into_state(),
    };
    features.push(name, since, state);
}
