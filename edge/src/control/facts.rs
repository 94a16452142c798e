//! Admin API route of the server's own facts: where it listens, its limits and their use, what the host
//! lacks.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::{Control, api, locked};
use crate::host::{self, Finding};
use crate::metrics::{Label as _, MemoryStep};

/// The host is looked at again after this time.
const HOST_INTERVAL: Duration = Duration::from_secs(60);

/// Where the server listens and on what it runs; known once its workers are.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Listening {
    /// RTMP.
    pub rtmp: Option<SocketAddr>,
    /// RTMP and HTTP over TLS.
    pub rtmps: Option<SocketAddr>,
    /// Viewers' HTTP.
    pub http: Option<SocketAddr>,
    /// Admin HTTP.
    pub admin: Option<SocketAddr>,
    /// The kernel makes TLS records.
    pub is_kernel_tls: bool,
    /// Kernel interface of the workers, as in the ready line.
    pub io: &'static str,
}

/// What was found about the host, and when.
#[derive(Debug, Default)]
pub(super) struct HostFindings(Option<(Instant, Vec<Finding>)>);

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new().route("/api/v1/server", get(server))
}

#[derive(Serialize)]
struct Listen {
    rtmp: Option<SocketAddr>,
    rtmps: Option<SocketAddr>,
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

#[derive(Copy, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Count,
    Bytes,
}

/// One limit and how much of it is used.
#[derive(Serialize)]
struct Limit {
    name: &'static str,
    used: u64,
    max: u64,
    unit: Unit,
    /// Key of the configuration, if it is one.
    setting: Option<&'static str>,
}

/// The budget of memory, and what is shed to keep to it.
#[derive(Serialize)]
struct Memory {
    /// The larger of what is counted and what is resident.
    used_bytes: u64,
    budget_bytes: u64,
    /// 0 while nothing is shed.
    level: u64,
    /// Steps in force, in the order in which they came.
    shed: Vec<&'static str>,
}

#[derive(Serialize)]
struct Facts {
    listen: Listen,
    io: &'static str,
    kernel_tls: bool,
    has_domains: bool,
    forbids_persist: bool,
    resident_bytes: u64,
    /// `None` before the first look.
    memory: Option<Memory>,
    limits: Vec<Limit>,
    findings: Vec<Finding>,
}

async fn server(State(control): State<Arc<Control>>) -> Json<Facts> {
    let Listening { rtmp, rtmps, http, admin, is_kernel_tls, io } = control.listening;
    let resident_bytes = host::resident_bytes();
    let memory = memory(&control, resident_bytes);
    let limits = limits(&control, memory.as_ref());
    Json(Facts {
        listen: Listen { rtmp, rtmps, http, admin },
        io,
        kernel_tls: rtmps.is_some() && is_kernel_tls,
        has_domains: control.access.counts().0 > 0,
        forbids_persist: control.access.is_persistent(),
        resident_bytes,
        memory,
        limits,
        findings: findings(&control),
    })
}

fn memory(control: &Control, resident_bytes: u64) -> Option<Memory> {
    let process = &control.process;
    let budget_bytes = process.memory_budget_bytes.value();
    let level = process.memory_level.value();
    let in_force = MemoryStep::ALL.iter().zip(0..level);
    (budget_bytes > 0).then(|| Memory {
        used_bytes: control.accounted_bytes().max(resident_bytes),
        budget_bytes,
        level,
        shed: in_force.map(|(step, _)| step.text()).collect(),
    })
}

fn limits(control: &Control, memory: Option<&Memory>) -> Vec<Limit> {
    let config = control.config();
    let status = api::status_of(control);
    let count = |name, used, max, setting| Limit { name, used, max, unit: Unit::Count, setting };
    let mut limits = vec![
        count(
            "connections",
            status.connections,
            config.limits.connections_max.into(),
            Some("limits.connections_max"),
        ),
        count(
            "streams",
            status.streams,
            config.limits.streams_max.into(),
            Some("limits.streams_max"),
        ),
    ];
    limits.push(Limit {
        name: "memory for HLS",
        used: control.packaging.bytes.value(),
        max: config.limits.hls_bytes_max,
        unit: Unit::Bytes,
        setting: Some("limits.hls_bytes_max"),
    });
    // Counting them one by one would cost as much as there are; kernels since 6.2 tell the number.
    let files = std::fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    if files > 0 {
        limits.push(count("open files", files, control.process.fds_max.value(), None));
    }
    if let Some(memory) = memory {
        limits.push(Limit {
            name: "memory",
            used: memory.used_bytes,
            max: memory.budget_bytes,
            unit: Unit::Bytes,
            setting: Some("limits.memory_bytes_max"),
        });
    }
    limits
}

fn findings(control: &Control) -> Vec<Finding> {
    let mut kept = locked(&control.host_findings);
    if let Some((at, findings)) = &kept.0
        && at.elapsed() < HOST_INTERVAL
    {
        return findings.clone();
    }
    let fds_max = control.process.fds_max.value();
    let findings = host::findings(Path::new("/"), &control.config(), fds_max);
    kept.0 = Some((Instant::now(), findings.clone()));
    findings
}
