//! What TLS costs without sockets: handshakes per second, client and server together, and records per
//! second. Elapsed time of one thread; the method of `data_path.rs`, but not its catalogue, because keys and
//! randomness differ from run to run and so do the results.
//!
//! A handshake's figure is for both ends. The server's share is about half of a full one with ECDSA keys.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use tls::testing::{Authority, Pair, Side, Validity};
use tls::{
    Cipher, ClientOptions, ServerOptions, Version, client_config_with, rustls, server_config,
};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

fn main() {
    let bounded = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let mut criterion = bounded.configure_from_args();
    handshakes(&mut criterion);
    records(&mut criterion);
    criterion.final_summary();
}

fn configs(
    version: Version,
    sessions_max: usize,
) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let authority = Authority::new();
    let resolver = authority.resolver(&["a.example"], Validity::Now);
    let server = ServerOptions { version_max: version, ..ServerOptions::default() };
    let client = ClientOptions { sessions_max, ..ClientOptions::default() };
    let server = server_config(resolver, &server).expect("good options");
    (server, client_config_with(authority.roots(), &client).expect("good options"))
}

fn handshakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tls_handshake");
    group.throughput(Throughput::Elements(1));
    for version in VERSIONS {
        for (kind, sessions_max) in [("full", 0), ("resumed", 16)] {
            let (server, client) = configs(version, sessions_max);
            Pair::new(&server, &client, "a.example").drive(|all| all).expect("a handshake");
            group.bench_function(format!("{}/{kind}", version.name()), |bencher| {
                bencher.iter(|| {
                    let mut pair = Pair::new(&server, &client, "a.example");
                    pair.drive(|all| all).expect("a handshake");
                    let resumed = pair.server.facts().expect("established").resumed;
                    assert_eq!(resumed, sessions_max > 0);
                });
            });
        }
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tls_encrypt");
    for cipher in Cipher::ALL {
        for bytes in [1400, 4096, 16 * 1024, 64 * 1024] {
            let mut pair = Pair::established(Version::Tls13, cipher);
            let plain = vec![7; bytes];
            let mut out = Vec::with_capacity(tls::Session::encrypted_bytes(bytes));
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(format!("{}/{bytes}", cipher.name()), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    pair.server.encrypt(black_box(&plain), &mut out).expect("a record");
                    black_box(out.len())
                });
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("tls_decrypt");
    let mut pair = Pair::established(Version::Tls13, Cipher::Aes128Gcm);
    let plain = vec![7; 16 * 1024];
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("aes-128-gcm/16384, encrypting included", |bencher| {
        bencher.iter(|| {
            pair.server_plain.clear();
            pair.send(Side::Client, black_box(&plain)).expect("a record");
            let waiting = pair.to_server.len();
            pair.deliver(Side::Server, waiting).expect("a record");
            black_box(pair.server_plain.len())
        });
    });
    group.finish();
}
