//! Puts the process together: configuration, log, admin listener, workers, banner, control loop.
//!
//! Called by `main` with the function that starts the workers, so that this file and everything the
//! control thread does can be tested with workers that are not real.
//!
//! ```text
//!   main ─► Setup (config, log) ─► run ─► workers prepared ─► take over, if there is whom from
//!        ─► bind admin ─► workers begin ─► URLs, ready line ─► control::run
//! ```

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::access::Rules;
use crate::access::manager::Manager;
use crate::certs::{CertSources, CertStore};
use crate::command::{EventSink, Events, WorkerHandle};
use crate::config::{Config, IoChoice, Loaded, Source};
use crate::control::notify::Notifier;
use crate::control::{self, Control, Listening, RunError, Threads};
use crate::hand_over::{HandOverError, Predecessor, Program};
use crate::hls::packager::Packaging;
use crate::host;
use crate::inherit::Inherited;
use crate::log::{LogHandle, event};

/// What `main` has prepared.
#[derive(Debug)]
pub struct Setup {
    /// Where the configuration came from, for reloads.
    pub source: Source,
    /// The configuration.
    pub loaded: Loaded,
    /// The running log.
    pub log: LogHandle,
    /// Sockets that were made before this process.
    pub inherited: Inherited,
    /// Who wants to know how it goes.
    pub notifier: Notifier,
    /// The process this one takes over from.
    pub predecessor: Option<Predecessor>,
    /// How this process was started, to start it anew; `None` where it cannot be.
    pub program: Option<Program>,
}

/// Kernel interface the workers run on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum IoKind {
    /// `io_uring`.
    Uring,
    /// epoll.
    Epoll,
}

impl IoKind {
    /// As in the ready line.
    pub fn text(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Running workers, all of them listening.
#[derive(Debug)]
pub struct StartedWorkers {
    /// Those that take over from another process begin with a word by these; dropped, they end.
    pub go: Vec<mpsc::Sender<()>>,
    /// One per worker, in index order.
    pub handles: Vec<WorkerHandle>,
    /// One per worker. A thread ends after `Command::Stop` or when it fails.
    pub threads: Vec<JoinHandle<()>>,
    /// One per worker that can be replaced: has another one take the place of one that has failed.
    pub renew: Vec<mpsc::Sender<Renewal>>,
    /// The threads of packager and storage; `None` without.
    pub packaging: Option<Packaging>,
    /// Address RTMP is served on, with the port the kernel chose; `None` when off.
    pub rtmp: Option<SocketAddr>,
    /// Address RTMPS is served on; `None` when off or without certificates.
    pub rtmps: Option<SocketAddr>,
    /// Address viewers' HTTP is served on; `None` when off.
    pub http: Option<SocketAddr>,
    /// The kernel makes TLS records, for the ciphers it knows.
    pub is_kernel_tls: bool,
    /// What they run on.
    pub io: IoKind,
    /// Why it is not `io_uring`, if `auto` had to fall back.
    pub io_refused: Option<String>,
}

/// What a worker begins with that takes another one's place.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The running configuration.
    pub config: Arc<Config>,
    /// The rules in force.
    pub rules: Arc<Rules>,
}

/// The server could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Listen {
        /// Which key of `[listen]`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// `workers.io = "uring"`, and the kernel refuses.
    UringRefused(String),
    /// `tls.kernel = "require"`, and the kernel cannot.
    KernelTlsRefused(String),
    /// Anything else, in words.
    Failed(String),
    /// It started and then failed.
    Run(RunError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { what, address, source } => {
                write!(f, "cannot listen on {address} (listen.{what}): {source}")?;
                match source.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("; another program holds the port"),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need CAP_NET_BIND_SERVICE or root")
                    }
                    _ => Ok(()),
                }
            }
            Self::UringRefused(reason) => write!(
                f,
                "io_uring is required (workers.io = \"uring\") but refused: {reason}. Allow it (sysctl \
                 kernel.io_uring_disabled=0; in a container a seccomp profile with io_uring_setup, \
                 io_uring_enter and io_uring_register) or set workers.io = \"auto\""
            ),
            Self::KernelTlsRefused(reason) => write!(
                f,
                "kernel TLS is required (tls.kernel = \"require\"), but: {reason}. Run modprobe tls, or set \
                 tls.kernel = \"auto\""
            ),
            Self::Failed(message) => f.write_str(message),
            Self::Run(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the server until a signal, the admin API or a failure ends it. Blocks the calling thread, which
/// becomes the control thread. `out` gets the URLs and the ready line. `prepare` makes workers ready, and
/// what it returns has them begin.
///
/// # Errors
/// [`StartError`] if it could not start, or stopped because of a failure.
pub fn run<Prepared>(
    setup: Setup,
    out: &mut dyn Write,
    prepare: impl FnOnce(Arc<Config>, Arc<CertStore>, EventSink) -> Result<Prepared, StartError>,
) -> Result<(), StartError>
where
    Prepared: FnOnce(Arc<Rules>, Inherited) -> Result<StartedWorkers, StartError>,
{
    let Setup { source, loaded, log, mut inherited, notifier, predecessor, program } = setup;
    let config = Arc::new(loaded.config);
    let fds_max = host::raise_file_descriptor_limit();
    announce(&config, &loaded.overridden, &loaded.warnings, fds_max);
    let refused = |error: StartError| {
        if let Some(predecessor) = &predecessor {
            predecessor.refuse(&error.to_string());
        }
        error
    };
    // What takes long comes first: while it is taken over from, the other process stands still.
    let certs = load_certificates(&config).map_err(refused)?;
    let (sink, events) = Events::channel();
    let start_workers = prepare(Arc::clone(&config), Arc::clone(&certs), sink).map_err(refused)?;
    // Wiped when nobody stands still for that any more.
    let mut block = None;
    if let Some(predecessor) = &predecessor {
        let (passed, came_in) = predecessor.receive(&config).map_err(handed_over)?;
        (inherited, block) = (passed, Some(came_in));
    }
    // Bound before any worker exists, so that a taken admin port ends the start before a peer connects.
    let admin = match inherited.admin.pop() {
        Some(socket) => Some(passed_admin(socket, &config).map_err(refused)?),
        None => config.listen.admin.address().map(bind_admin).transpose().map_err(refused)?,
    };
    let access = Manager::open(Arc::clone(&config), control::unix_s())
        .map_err(|error| refused(StartError::Failed(format!("access.store: {error}"))))?;
    let started = start_workers(access.rules(), inherited).map_err(refused)?;
    if let Some(reason) = &started.io_refused {
        tracing::warn!(
            event = event::IO_FEATURE,
            reason,
            "io_uring is refused; running on epoll. Set workers.io = \"uring\" to make this fatal"
        );
    }

    let addresses = Addresses {
        rtmp: started.rtmp,
        rtmps: started.rtmps,
        http: started.http,
        is_kernel_tls: started.is_kernel_tls,
        has_domains: access.counts().0 > 0,
        admin: admin.as_ref().map(TcpListener::local_addr).transpose().map_err(failed)?,
        workers: started.handles.len(),
        io: started.io,
    };
    let admin_socket = admin.as_ref().map(TcpListener::try_clone).transpose().map_err(failed)?;
    // From the word on this process has everything: whoever wants it to end must not just end it.
    let waiting = control::Waiting::new().map_err(StartError::Run)?;
    if let Some(predecessor) = &predecessor {
        let still_max = Duration::from_millis(u64::from(config.shutdown.still_ms_max));
        predecessor.ready(still_max).map_err(handed_over)?;
        tracing::info!(event = event::UPGRADE, "took over");
    }
    for worker in &started.go {
        // One that has ended is noticed by the control loop.
        let _ = worker.send(());
    }
    drop((predecessor, block));
    let mut control = Control::new(source, config, certs, access, log, started.handles, fds_max);
    control.set_listening(addresses.listening());
    control.set_hand_over(admin_socket.map(OwnedFd::from), program);
    if let Some(packaging) = &started.packaging {
        control.set_packaging(packaging);
    }
    let control = Arc::new(control);
    let announce = || {
        // A closed standard output is no reason to stop serving.
        drop(out.write_all(addresses.banner().as_bytes()).and_then(|()| out.flush()));
        tracing::info!(event = event::READY, "{}", addresses.ready_line());
    };
    let threads = Threads { handles: started.threads, renew: started.renew };
    let result = control::run(control, admin, notifier, (waiting, &events), threads, announce);
    if let Some(packaging) = started.packaging {
        // After the workers, so that it sees every stream end.
        packaging.stop();
    }
    result.map_err(StartError::Run)
}

/// Certificates that cannot be used are told one by one; the server starts as long as there is one that can.
fn load_certificates(config: &Config) -> Result<Arc<CertStore>, StartError> {
    let sources = CertSources::of(config);
    let (certs, report) =
        CertStore::load(&sources).map_err(|error| StartError::Failed(error.to_string()))?;
    if !sources.is_empty() {
        let (loaded, failed) = (report.loaded, report.failed_total);
        let names = certs.figures().names;
        tracing::info!(event = event::CERT_LOADED, loaded, failed, names, "certificates loaded");
    }
    Ok(certs)
}

fn handed_over(error: HandOverError) -> StartError {
    StartError::Failed(format!("hand-over: {error}"))
}

fn failed(error: io::Error) -> StartError {
    StartError::Failed(error.to_string())
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen_error = |source| StartError::Listen { what: "admin", address, source };
    let listener = TcpListener::bind(address).map_err(listen_error)?;
    listener.set_nonblocking(true).map_err(listen_error)?;
    Ok(listener)
}

/// An admin socket of somebody else's making may be bound where the configuration would not let us.
fn passed_admin(socket: OwnedFd, config: &Config) -> Result<TcpListener, StartError> {
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().map_err(failed)?;
    if !address.ip().is_loopback() && !config.admin.token.is_set() {
        let text = format!("the socket passed for admin is bound to {address}: set admin.token");
        return Err(StartError::Failed(text));
    }
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn announce(config: &Config, overridden: &[String], warnings: &[String], fds_max: u64) {
    tracing::info!(event = event::START, version = env!("CARGO_PKG_VERSION"), "starting");
    for message in overridden {
        tracing::info!(event = event::CONFIG_OVERRIDE, "{message}");
    }
    for message in warnings {
        tracing::warn!(event = event::CONFIG_WARNING, "{message}");
    }
    if config.workers.io == IoChoice::Epoll {
        tracing::info!(event = event::IO_FEATURE, "epoll, as configured");
    }
    for finding in host::findings(Path::new("/"), config, fds_max) {
        tracing::warn!(event = event::HOST_FINDING, fix = finding.fix, "{}", finding.what);
    }
}

/// What listens where.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// RTMP.
    pub rtmp: Option<SocketAddr>,
    /// RTMPS.
    pub rtmps: Option<SocketAddr>,
    /// Viewers' HTTP.
    pub http: Option<SocketAddr>,
    /// The kernel makes TLS records.
    pub is_kernel_tls: bool,
    /// Addresses must be those of a domain.
    pub has_domains: bool,
    /// Admin HTTP.
    pub admin: Option<SocketAddr>,
    /// Number of workers.
    pub workers: usize,
    /// What they run on.
    pub io: IoKind,
}

impl Addresses {
    /// The line scripts wait for.
    pub fn ready_line(&self) -> String {
        let shown = |address: Option<SocketAddr>| match address {
            Some(address) => address.to_string(),
            None => "off".to_owned(),
        };
        format!(
            "ready rtmp={} rtmps={} http={} admin={} workers={} io={} ktls={}",
            shown(self.rtmp),
            shown(self.rtmps),
            shown(self.http),
            shown(self.admin),
            self.workers,
            self.io.text(),
            if self.rtmps.is_some() && self.is_kernel_tls { "on" } else { "off" },
        )
    }

    fn listening(&self) -> Listening {
        Listening {
            rtmp: self.rtmp,
            rtmps: self.rtmps,
            http: self.http,
            admin: self.admin,
            is_kernel_tls: self.is_kernel_tls,
            io: self.io.text(),
        }
    }

    /// URLs to paste, then the ready line.
    pub fn banner(&self) -> String {
        let mut out = format!("Ringcast {}\n", env!("CARGO_PKG_VERSION"));
        if self.has_domains {
            out.push_str(
                "\n  Domains are configured: only addresses on them are served. To get one:\n\
                 \x20   ringctl url publish --domain NAME --app live --stream mystream\n",
            );
        } else if let Some(address) = self.rtmp {
            let server = format!("rtmp://{}/live", url_authority(address, 1935));
            out.push_str(&format!(
                "\n  Publish  (any stream name; \"mystream\" is an example)\n\
                 \x20   OBS      Settings > Stream > Service: Custom   \
                          Server: {server}   Stream Key: mystream\n\
                 \x20   ffmpeg   ffmpeg -re -i FILE -c copy -f flv {server}/mystream\n\
                 \x20 Play\n\
                 \x20   ffplay   ffplay {server}/mystream\n\
                 \x20   VLC      vlc {server}/mystream\n"
            ));
            if address.ip().is_unspecified() {
                out.push_str(
                    "  From another machine use this machine's name or address in place of \
                     127.0.0.1 or [::1].\n",
                );
            }
        }
        if let Some(address) = self.http.filter(|_| !self.has_domains) {
            let stream = format!("http://{}/live/mystream", url_authority(address, 80));
            out.push_str(&format!(
                "  Watch over HTTP\n\
                 \x20   FLV      {stream}.flv\n\
                 \x20   HLS      {stream}.m3u8\n"
            ));
        }
        if let Some(address) = self.rtmps.filter(|_| !self.has_domains) {
            let server = format!("rtmps://{}/live", url_authority(address, 443));
            out.push_str(&format!(
                "  Over TLS, by a name of the certificate in place of the address\n\
                 \x20   OBS      Server: {server}\n\
                 \x20   ffmpeg   ffmpeg -re -i FILE -c copy -f flv {server}/mystream\n"
            ));
        }
        if let Some(address) = self.admin {
            let authority = url_authority(address, 80);
            out.push_str(&format!(
                "  Admin\n\x20   console  http://{authority}/\n\
                 \x20   health   curl http://{authority}/readyz\n\
                 \x20   status   ringctl --admin {} status\n",
                local(address)
            ));
        }
        out.push('\n');
        out.push_str(&self.ready_line());
        out.push('\n');
        out
    }
}

/// An address a client on this machine can use: unspecified becomes loopback.
fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn url_authority(address: SocketAddr, default_port: u16) -> String {
    let address = local(address);
    let text = address.to_string();
    if address.port() == default_port {
        text.strip_suffix(&format!(":{default_port}")).unwrap_or(&text).to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(rtmp: &str) -> Addresses {
        Addresses {
            rtmp: Some(rtmp.parse().unwrap()),
            rtmps: None,
            http: None,
            is_kernel_tls: false,
            has_domains: false,
            admin: Some("127.0.0.1:9090".parse().unwrap()),
            workers: 2,
            io: IoKind::Uring,
        }
    }

    #[test]
    fn the_ready_line_is_the_contract() {
        let mut addresses = addresses("0.0.0.0:1935");
        assert_eq!(
            addresses.ready_line(),
            "ready rtmp=0.0.0.0:1935 rtmps=off http=off admin=127.0.0.1:9090 workers=2 io=uring ktls=off"
        );
        (addresses.rtmps, addresses.is_kernel_tls) = (Some("[::]:443".parse().unwrap()), true);
        let line = addresses.ready_line();
        assert!(line.contains(" rtmps=[::]:443 ") && line.ends_with(" ktls=on"), "{line}");
        addresses.http = Some("0.0.0.0:8080".parse().unwrap());
        assert!(addresses.ready_line().contains(" http=0.0.0.0:8080 "));
        (addresses.rtmps, addresses.is_kernel_tls) = (None, true);
        addresses.http = None;
        (addresses.rtmp, addresses.admin, addresses.io) = (None, None, IoKind::Epoll);
        assert_eq!(
            addresses.ready_line(),
            "ready rtmp=off rtmps=off http=off admin=off workers=2 io=epoll ktls=off"
        );
    }

    #[test]
    fn urls_can_be_pasted_and_the_ready_line_is_last() {
        let banner = addresses("0.0.0.0:1935").banner();
        assert!(banner.contains("Server: rtmp://127.0.0.1/live   Stream Key: mystream\n"));
        assert!(banner.lines().last().unwrap().starts_with("ready rtmp=0.0.0.0:1935 "));
        let with_domains = Addresses { has_domains: true, ..addresses("0.0.0.0:1935") }.banner();
        assert!(!with_domains.contains("rtmp://") && with_domains.contains("ringctl url publish"));
        let banner = addresses("[::]:4000").banner();
        assert!(banner.contains("ffplay rtmp://[::1]:4000/live/mystream\n"), "{banner}");
    }
}
