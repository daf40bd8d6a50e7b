//! esbuild as a service: its program answers requests on standard output, and asks for the plugin's answers.
//!
//! Options of its command line cannot resolve an import in one way where a package is installed and in another way where it is not,
//! and cannot name the file that imports a module of Node. A plugin can.

pub mod message;
mod packet;
mod plugin;

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use message::Message;
use packet::{Packet, Value};
pub use plugin::{Import, Kind, Loaded, Plugin, Resolution, Resolved, Step};

/// The version whose protocol this is.
pub const VERSION: &str = "0.28.2";
/// A packet has all files of an app at most.
const MAX_PACKET_BYTES: u32 = 256 << 20;
/// All builds run one after the other.
const BUILD_KEY: u32 = 0;

/// A running esbuild.
pub struct Service {
    child: Child,
    /// `None` while the service stops.
    requests: Option<ChildStdin>,
    packets: BufReader<ChildStdout>,
    next_id: u32,
}

/// The options of a build, as flags of the command line, and its entry points.
pub struct BuildOptions<'a> {
    /// The folder that paths in the result are relative to.
    pub folder: &'a Path,
    /// The path of each entry point, with the name of its output or an empty name.
    pub entries: Vec<(String, String)>,
    pub flags: Vec<String>,
    /// The source of an entry point without a file.
    pub stdin: Option<String>,
}

/// The result of a build.
pub struct Output {
    pub errors: Vec<Message>,
    pub warnings: Vec<Message>,
    /// The path of each output file with its content.
    pub files: Vec<(String, String)>,
    /// JSON about inputs and outputs. Empty unless it was requested.
    pub metafile: String,
}

impl Service {
    pub fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(format!("--service={VERSION}")).arg("--ping");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let (Some(requests), Some(packets)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{} has no standard input or output", program.display())
        };
        let mut service = Self { child, requests: Some(requests), packets: BufReader::new(packets), next_id: 0 };
        let version = service.read().with_context(|| format!("starting {}", program.display()))?;
        ensure!(version == VERSION.as_bytes(), "{} is not esbuild {VERSION}", program.display());
        Ok(service)
    }

    /// Runs a build. Mistakes in the sources are in the result.
    pub fn build(&mut self, options: &BuildOptions, plugin: &mut dyn Plugin) -> Result<Output> {
        let id = self.request(options.request()?)?;
        // Imports whose plugin waits for esbuild's own resolution: the id of that request, the id of esbuild's request, and the import.
        let mut waiting: Vec<(u32, u32, Import)> = Vec::new();
        loop {
            let body = self.read()?;
            let packet = Packet::decode(&body)?;
            if !packet.is_request {
                if let Some(at) = waiting.iter().position(|(asked, ..)| *asked == packet.id) {
                    let (_, answers, import) = waiting.swap_remove(at);
                    let resolution = plugin.resolved(&import, &Resolved::new(&packet.value));
                    self.respond(answers, resolution.encode())?;
                    continue;
                }
                ensure!(packet.id == id, "esbuild answered a request that was not made");
                return Output::new(packet.value);
            }
            match packet.value.get("command").text() {
                "on-resolve" => {
                    let import = Import::new(&packet.value);
                    match if import.is_repeated { Step::Default } else { plugin.resolve(&import) } {
                        Step::Default => self.respond(packet.id, Value::map([]))?,
                        Step::Answer(resolution) => self.respond(packet.id, resolution.encode())?,
                        Step::Ask => {
                            let asked = self.request(import.ask())?;
                            waiting.push((asked, packet.id, import));
                        }
                    }
                }
                "on-load" => {
                    let (path, namespace) = (packet.value.get("path").text(), packet.value.get("namespace").text());
                    let loaded = plugin.load(path, namespace)?;
                    self.respond(
                        packet.id,
                        loaded.map_or_else(|| Value::map([]), |it| it.encode(path, namespace, options.folder)),
                    )?;
                }
                "on-start" => {
                    let none = || Value::List(vec![]);
                    self.respond(packet.id, Value::map([("errors", none()), ("warnings", none())]))?;
                }
                "ping" => self.respond(packet.id, Value::map([]))?,
                other => bail!("esbuild sent the unknown request {other:?}"),
            }
        }
    }

    fn request(&mut self, value: Value) -> Result<u32> {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&Packet { id, is_request: true, value })?;
        Ok(id)
    }

    fn respond(&mut self, id: u32, value: Value) -> Result<()> {
        self.write(&Packet { id, is_request: false, value })
    }

    fn write(&mut self, packet: &Packet) -> Result<()> {
        let requests = self.requests.as_mut().context("esbuild stopped")?;
        requests.write_all(&packet.encode()).and_then(|()| requests.flush()).context("writing to esbuild")
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 4];
        self.packets.read_exact(&mut length).context("esbuild stopped")?;
        let length = u32::from_le_bytes(length);
        ensure!(length <= MAX_PACKET_BYTES, "esbuild sent a packet of {length} bytes");
        let mut body = vec![0; length as usize];
        self.packets.read_exact(&mut body).context("esbuild stopped")?;
        Ok(body)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // esbuild ends with its input.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

impl BuildOptions<'_> {
    fn request(&self) -> Result<Value> {
        let folder = self.folder.to_str().with_context(|| format!("{} is not UTF-8", self.folder.display()))?;
        let entries = self.entries.iter().map(|(path, output)| Value::texts([output, path])).collect();
        let filter = |id: u32, filter: &str, namespace: &str| {
            Value::map([("id", id.into()), ("filter", filter.into()), ("namespace", namespace.into())])
        };
        let plugin = Value::map([
            ("name", "tidegate".into()),
            ("onStart", false.into()),
            ("onEnd", false.into()),
            ("onResolve", Value::List(vec![filter(0, plugin::RESOLVED, ""), filter(1, ".*", plugin::NAMESPACE)])),
            ("onLoad", Value::List(vec![filter(2, plugin::LOADED, "file"), filter(3, ".*", plugin::NAMESPACE)])),
        ]);
        let stdin = self.stdin.as_ref().map_or(Value::Null, |text| Value::Bytes(text.clone().into_bytes()));
        Ok(Value::map([
            ("command", "build".into()),
            ("key", BUILD_KEY.into()),
            ("entries", Value::List(entries)),
            ("flags", Value::texts(self.flags.iter().map(String::as_str))),
            ("write", false.into()),
            ("stdinResolveDir", if self.stdin.is_some() { folder.into() } else { Value::Null }),
            ("stdinContents", stdin),
            ("absWorkingDir", folder.into()),
            ("nodePaths", Value::List(vec![])),
            ("context", false.into()),
            ("plugins", Value::List(vec![plugin])),
        ]))
    }
}

impl Output {
    fn new(response: Value) -> Result<Self> {
        if let error @ [_, ..] = response.get("error").text().as_bytes() {
            bail!("esbuild: {}", String::from_utf8_lossy(error));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let file = |file: &Value| (file.get("path").text().to_owned(), text(file.get("contents").bytes()));
        Ok(Self {
            errors: Message::list(response.get("errors")),
            warnings: Message::list(response.get("warnings")),
            files: response.get("outputFiles").list().iter().map(file).collect(),
            metafile: match response.get("metafile") {
                Value::Bytes(bytes) => text(bytes),
                other => other.text().to_owned(),
            },
        })
    }
}
