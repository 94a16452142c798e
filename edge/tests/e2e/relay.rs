//! Another RTMP server as publisher and as player: nginx with its RTMP module.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::child::{Program, Running, Scratch, have, poll_until};
use crate::media::{self, assert_all_frames, assert_run_from_keyframe};
use crate::playing::PUBLISH_MAX;
use crate::server::Server;
use crate::{players, publishers};

/// Programs these tests need.
const RELAY_PROGRAMS: [&str; 3] = ["nginx", "ffmpeg", "rtmpdump"];
/// nginx is up in a moment.
const NGINX_MAX: Duration = Duration::from_secs(10);
/// Where distributions put dynamic modules.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

/// Starts nginx with `directives` in its application `live` and waits until it accepts.
fn nginx(scratch: &Scratch, directives: &str) -> (Running, SocketAddr) {
    let address = free_address();
    let dir = scratch.file("nginx");
    fs::create_dir_all(&dir).expect("its directory can be made");
    let module = if fs::exists(MODULE).unwrap_or(false) {
        format!("load_module {MODULE};\n")
    } else {
        String::new()
    };
    let text = format!(
        "daemon off; master_process off;\n{module}pid nginx.pid; error_log stderr info;\n\
         events {{ worker_connections 256; }}\n\
         rtmp {{ access_log off; server {{ listen {address}; application live {{\n\
             live on; sync 0; publish_notify on; {directives}\n\
         }} }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), text).expect("its configuration can be written");
    let mut running = Program::new("nginx", scratch, "nginx")
        .arg("-p")
        .arg(&dir)
        .args(["-c", "nginx.conf", "-e", "stderr"])
        .start();
    poll_until("nginx accepts", NGINX_MAX, || {
        assert!(running.is_running(), "nginx ended");
        TcpStream::connect(address).ok()
    });
    (running, address)
}

/// nginx wants a number in its configuration, so a port the kernel chose is given back for it.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
    listener.local_addr().expect("a bound socket has an address")
}

#[test]
fn nginx_pushes_to_us() {
    if !have(&RELAY_PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let push = format!("push rtmp://{}/live;", server.rtmp());
    let (_nginx, nginx_address) = nginx(&scratch, &push);
    let clip = media::h264_aac();
    let player = players::rtmpdump(&scratch, "player", &server.url("show"));
    server.wait_players("show", 1);
    let nginx_url = format!("rtmp://{nginx_address}/live/show");
    publishers::ffmpeg(&scratch, clip, &nginx_url).expect_success(PUBLISH_MAX);
    // What nginx heard while it was still connecting to us is lost there.
    let tail = player.tail;
    assert_run_from_keyframe(&clip.packets, &player.finish(&scratch), tail);
}

#[test]
fn nginx_pulls_from_us() {
    if !have(&RELAY_PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let pull = format!("pull rtmp://{}/live name=show;", server.rtmp());
    let (_nginx, nginx_address) = nginx(&scratch, &pull);
    let clip = media::h264_aac();
    let nginx_url = format!("rtmp://{nginx_address}/live/show");
    let player = players::rtmpdump(&scratch, "player", &nginx_url);
    // nginx pulls when somebody plays.
    server.wait_players("show", 1);
    publishers::ffmpeg(&scratch, clip, &server.url("show")).expect_success(PUBLISH_MAX);
    let tail = player.tail;
    assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
}
