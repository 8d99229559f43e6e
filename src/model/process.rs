//! The process-wide tables: server, admin, log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tollgate_sdk::document::{FromText, Invalid, Size};
use tollgate_sdk::secret::Secret;
use tollgate_sdk::{document, text_in_document};

document! {
    /// The process as a whole.
    pub struct Server (default) {
        /// Threads that serve requests; 0 means one per core.
        threads: usize = 0,
        /// Where what must be remembered is kept: a file, made if it is not there; "memory" keeps nothing beyond the process.
        state: StateStore = StateStore::File("tollgate.db".into()),
        /// How long a record of every request is kept.
        keep_usage: Duration = Duration::from_secs(30 * 86_400),
        /// How long sums of them by the hour are kept.
        keep_usage_by_hour: Duration = Duration::from_secs(400 * 86_400),
        /// How long a stopping process lets open streams finish.
        grace: Duration = Duration::from_secs(30),
        /// Addresses whose X-Forwarded-For is believed; nobody's by default.
        trusted_proxies: Vec<IpNet> = Vec::new(),
        /// Connections of clients that may be open; more are turned away with 503. 0: half as many as files may be open.
        max_connections: usize = 0,
        /// Connections that may be open from one address, or one IPv6 network of 64 bits; 0: as many as all.
        max_connections_per_address: usize = 0,
        /// The largest request body; larger ones get 413.
        max_body: Size = Size::mib(32),
        /// All buffered bodies together; beyond it requests get 503 with Retry-After.
        body_memory: Size = Size::gib(1),
        /// How long a client may take over a request's headers; slower ones get 408.
        header_timeout: Duration = Duration::from_secs(10),
        /// How long a client may pause while sending a body; slower ones get 408.
        body_timeout: Duration = Duration::from_secs(60),
        /// Where a process that is to take over finds this one (`tollgate run --upgrade`), if somebody else starts it: a socket in a folder
        /// that only its owner can enter, made if it is not there. `tollgate upgrade` needs none.
        #[example = "/run/tollgate/upgrade.sock"]
        upgrade_socket: Option<FilePath>,
        /// Where the serving process writes its number.
        #[example = "/run/tollgate/tollgate.pid"]
        pid_file: Option<FilePath>,
    }
}

document! {
    /// The admin listener: metrics, health, the admin API.
    pub struct Admin (default) {
        /// The address it listens on.
        address: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 9091)),
        /// The token of the admin API; if empty, only clients on this machine may use it.
        #[example = "${TOLLGATE_TOKEN:-}"]
        token: Option<Secret<String>>,
        /// A token that opens the calls of KEDA's external scaler and nothing else; if empty, they ask for `token`.
        #[example = "${KEDA_TOKEN:-}"]
        scaler_token: Option<Secret<String>>,
        /// A unix socket with the same pages, for its owner alone; whoever can open it needs no token.
        #[example = "/run/tollgate/admin.sock"]
        socket: Option<SocketPath>,
    }
}

document! {
    /// What is logged, and where to.
    pub struct Log (default) {
        /// How much is told.
        level: Level = Level::Info,
        /// How lines are written.
        format: LogFormat = LogFormat::Json,
        /// Where a line for every request goes: a path, "stdout" or "off".
        access: AccessLog = AccessLog::Stdout,
    }
}

document! {
    /// How much is told.
    pub enum Level {
        /// What failed.
        Error = "error",
        /// What may become a failure.
        Warn = "warn",
        /// What the process does.
        Info = "info",
        /// What it decides.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

document! {
    /// How lines are written.
    pub enum LogFormat {
        /// One JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// To a file.
    Path(PathBuf),
    /// To standard output.
    Stdout,
    /// Nowhere.
    Off,
}

impl FromText for AccessLog {
    const EXPECTED: &'static str = "a path, \"stdout\" or \"off\"";
    const EXAMPLE: &'static str = "stdout";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            // A bare word is rather a mistyped one of ours than a file.
            path if path.contains(['/', '.']) => Ok(Self::Path(path.into())),
            _ => Err(Invalid::new("neither a path nor one of the words for none")
                .help("write \"stdout\", \"off\", or a path with a slash: \"./access.log\"")),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Stdout => "stdout".into(),
            Self::Off => "off".into(),
        }
    }
}

text_in_document!(AccessLog);

/// Where a unix socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath(pub PathBuf);

impl FromText for SocketPath {
    const EXPECTED: &'static str = "the path of a unix socket";
    const EXAMPLE: &'static str = "/run/tollgate/admin.sock";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        /// The system takes 107 bytes; for a moment the name is longer.
        const LONGEST: usize = 90;
        match text {
            "" => Err(Invalid::new("an empty path").help("leave the field out for none")),
            long if long.len() > LONGEST => Err(Invalid::new(format!(
                "a path of {} bytes is too long for a socket",
                long.len()
            ))
            .help(format!("{LONGEST} at most: \"/run/tollgate/admin.sock\""))),
            dirty if dirty.contains('\0') => Err(Invalid::new("not a path")),
            folder if folder.ends_with('/') => Err(Invalid::new("a folder, not a socket")
                .help("add a name: \"/run/tollgate/admin.sock\"")),
            path => Ok(Self(path.into())),
        }
    }

    fn to_text(&self) -> String {
        self.0.display().to_string()
    }
}

/// A file's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl FromText for FilePath {
    const EXPECTED: &'static str = "a path";
    const EXAMPLE: &'static str = "/run/tollgate/file";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        match text.is_empty() || text.ends_with('/') {
            true => {
                Err(Invalid::new("no file's path").help("write a path: \"/run/tollgate/file\""))
            }
            false => Ok(Self(text.into())),
        }
    }

    fn to_text(&self) -> String {
        self.0.display().to_string()
    }
}

text_in_document!(SocketPath);
text_in_document!(FilePath);

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateStore {
    /// In the process, and lost with it.
    Memory,
    /// In an SQLite file.
    File(PathBuf),
}

impl FromText for StateStore {
    const EXPECTED: &'static str = "a path or \"memory\"";
    const EXAMPLE: &'static str = "/var/lib/tollgate/tollgate.db";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        match text {
            "memory" => Ok(Self::Memory),
            url if url.contains("://") => Err(Invalid::new(
                "keeping state in a database server is not supported yet by this version",
            )
            .help("supported now: \"memory\", or the path of a file")),
            // A bare word is rather a mistyped one of ours than a file.
            path if path.contains(['/', '.']) => Ok(Self::File(path.into())),
            _ => Err(Invalid::new("neither a path nor the word for none")
                .help("write \"memory\", or a path: \"./tollgate.db\"")),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Memory => "memory".into(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

text_in_document!(StateStore);
