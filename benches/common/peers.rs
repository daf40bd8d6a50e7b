//! The peers: nchan, Centrifugo, Mercure, and the npm package's own `handle()` on Node. Each of them needs a program that is installed or named.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use rustix::process::getuid;
use serde_json::json;

use super::clients::StreamRequest;
use super::emit::Emitter;
use super::machine::{Machine, child_of};
use super::servers::{Server, free, is_installed, root};

/// The channel of the peers.
const CHANNEL: &str = "fox";
/// Where Debian's package has the module; `NCHAN_MODULE` names another file.
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// The key of Mercure's tokens: 256 bits at least.
const MERCURE_KEY: &str = "0123456789abcdef0123456789abcdef";
const CENTRIFUGO_KEY: &str = "bench";

/// A peer with one request for a stream and a way to emit. No policy decides whether the client may read.
pub struct Peer {
    pub name: &'static str,
    pub server: Server,
    pub request: StreamRequest,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Nchan,
    Centrifugo,
    Mercure,
}

impl Peer {
    /// All peers without a decision that are installed.
    pub async fn all(machine: &Machine) -> Vec<Self> {
        let mut peers = Vec::new();
        if let Some(server) = nchan(machine, None).await {
            let request = nchan_request(&server, "open");
            peers.push(Self { name: "nchan", server, request, kind: Kind::Nchan });
        }
        if let Some(server) = centrifugo(machine).await {
            let connect: String =
                form_urlencoded::byte_serialize(json!({ "subs": { CHANNEL: {} } }).to_string().as_bytes()).collect();
            let request =
                StreamRequest::new(server.address, &format!("/connection/uni_sse?cf_connect={connect}"), "\"subs\"");
            peers.push(Self { name: "Centrifugo", server, request, kind: Kind::Centrifugo });
        }
        if let Some(server) = mercure(machine).await {
            // The head is sent when the subscriber is registered.
            let target = format!("/.well-known/mercure?topic={CHANNEL}");
            let request = StreamRequest::new(server.address, &target, "\r\n\r\n");
            peers.push(Self { name: "Mercure", server, request, kind: Kind::Mercure });
        }
        peers
    }

    pub fn emitter(&self) -> Emitter {
        let to = self.server.address;
        match self.kind {
            Kind::Nchan => {
                // The frame of a client of Tidegate, without the channel and the id.
                let body = |data| json!({ "data": data, "event": "fox" }).to_string();
                Emitter::post(to, &format!("/publish?channel={CHANNEL}"), "", body)
            }
            Kind::Centrifugo => {
                let fields = format!("X-API-Key: {CENTRIFUGO_KEY}\r\nContent-Type: application/json\r\n");
                let body = |data| json!({ "channel": CHANNEL, "data": data }).to_string();
                Emitter::post(to, "/api/publish", &fields, body)
            }
            Kind::Mercure => {
                let claims = json!({ "mercure": { "publish": ["*"] } });
                let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(MERCURE_KEY.as_bytes()));
                let fields = format!(
                    "Authorization: Bearer {}\r\nContent-Type: application/x-www-form-urlencoded\r\n",
                    token.expect("a token")
                );
                let body = |data: serde_json::Value| {
                    form_urlencoded::Serializer::new(String::new())
                        .append_pair("topic", CHANNEL)
                        .append_pair("data", &data.to_string())
                        .finish()
                };
                Emitter::post(to, "/.well-known/mercure", &fields, body)
            }
        }
    }
}

/// nginx with nchan. None if it is not installed.
pub async fn nchan(machine: &Machine, authority: Option<SocketAddr>) -> Option<Server> {
    let module = std::env::var("NCHAN_MODULE").unwrap_or_else(|_| NCHAN.into());
    if !is_installed("nginx") || !Path::new(&module).exists() {
        eprintln!("nchan is left out: it needs nginx and {module}");
        return None;
    }
    let (address, http2, dir) = (free(), free(), tempfile::tempdir().expect("a folder"));
    let folder = dir.path().display();
    let user = if getuid().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {folder}/{of};\n"))
        .concat();
    let authority = authority.unwrap_or(address);
    let config = format!(
        "load_module {module};\n{user}\ndaemon off;\nworker_processes 1;\nworker_rlimit_nofile {files};\npid {folder}/pid;\n\
         events {{ worker_connections {files}; }}\n\
         http {{\n{temporary}\naccess_log {folder}/access.log;\nnchan_message_buffer_length 256;\n\
         upstream authority {{ server {authority}; keepalive 64; }}\n\
         server {{ listen {address} backlog=1024;\nlisten {http2} http2;\n\
         location = /open {{ nchan_subscriber eventsource; nchan_subscriber_first_message newest; nchan_channel_id $arg_channel; }}\n\
         location = /authorized {{ nchan_subscriber eventsource; nchan_subscriber_first_message newest; nchan_channel_id $arg_channel; nchan_authorize_request /authority; }}\n\
         location = /authority {{ internal; proxy_pass http://authority/; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_pass_request_body off; proxy_set_header Content-Length \"\"; }}\n\
         location = /publish {{ nchan_publisher; nchan_channel_id $arg_channel; }}\n}} }}\n",
        files = machine.files.min(1 << 20),
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).expect("the configuration is written");
    let mut command = machine.on_server_cores("nginx");
    command.arg("-e").arg(dir.path().join("error.log")).arg("-c").arg(file);
    let mut server = Server::start_at(command, dir, address).await;
    while child_of(server.pid).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.pid = child_of(server.pid).expect("a worker");
    server.http2 = Some(http2);
    Some(server)
}

/// A request to nchan.
pub fn nchan_request(server: &Server, location: &str) -> StreamRequest {
    // The first bytes of nchan's body are `: hi`.
    StreamRequest::new(server.address, &format!("/{location}?channel={CHANNEL}"), ": hi")
}

/// The npm package's own `handle()` on Node. None if either is not installed.
pub fn node(machine: &Machine, redis: &Server) -> Option<Server> {
    let package = root().join("tests/e2e/package.json");
    if !is_installed("node") || !root().join("tests/e2e/node_modules/@upstash/realtime").exists() {
        eprintln!("`handle()` on Node is left out: it needs node, and `npm ci` in tests/e2e");
        return None;
    }
    let mut command = machine.on_server_cores("node");
    command.arg(root().join("benches/streams/node.mjs")).arg(redis.address.port().to_string()).arg(package);
    Some(Server::start(command, tempfile::tempdir().expect("a folder"), 1))
}

/// A program that a variable of the environment names.
fn named(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from);
    if program.is_none() {
        eprintln!("{variable} is not set: this peer is left out");
    }
    program
}

/// Centrifugo with unidirectional SSE for anonymous clients. None if `CENTRIFUGO_BIN` is not set.
async fn centrifugo(machine: &Machine) -> Option<Server> {
    let program = named("CENTRIFUGO_BIN")?;
    let (address, dir) = (free(), tempfile::tempdir().expect("a folder"));
    let config = json!({
        "http_server": { "address": address.ip(), "port": address.port() },
        "log": { "level": "error" },
        "client": { "allow_anonymous_connect_without_token": true, "allowed_origins": ["*"] },
        "channel": { "without_namespace": { "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true } },
        "uni_sse": { "enabled": true },
        "http_api": { "key": CENTRIFUGO_KEY },
    });
    let file = dir.path().join("config.json");
    std::fs::write(&file, config.to_string()).expect("the configuration is written");
    let mut command = machine.on_server_cores(program);
    command.arg("--config").arg(file);
    Some(Server::start_at(command, dir, address).await)
}

/// Mercure 1.0 with anonymous subscribers. None if `MERCURE_BIN` is not set.
async fn mercure(machine: &Machine) -> Option<Server> {
    let program = named("MERCURE_BIN")?;
    let (address, dir) = (free(), tempfile::tempdir().expect("a folder"));
    // Streams without a maximum duration. No history, like the other peers. Version 1.0 takes keys without an issuer in this mode only.
    let config = format!(
        "{{\nauto_https off\nadmin off\npersist_config off\nlog {{\nlevel ERROR\n}}\n}}\n\
         http://{address} {{\nmercure {{\npublisher_jwt {MERCURE_KEY}\nsubscriber_jwt {MERCURE_KEY}\nanonymous\n\
         transport local\nwrite_timeout 0s\nprotocol_version_compatibility 8\n}}\nrespond 404\n}}\n"
    );
    let file = dir.path().join("Caddyfile");
    std::fs::write(&file, config).expect("the configuration is written");
    let mut command = machine.on_server_cores(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("XDG_DATA_HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
    Some(Server::start_at(command, dir, address).await)
}
