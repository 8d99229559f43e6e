//! The built program as a process of its own.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::gateway::complete;
use super::{Api, Client, PATIENCE, free_port, get, leaks, until};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");

/// A running program. What is still running when this is dropped is killed.
pub(crate) struct Process {
    child: Child,
    /// The file that is run, which a test may replace.
    program: PathBuf,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Runs `tollgate run` with this TOML, on free addresses, until it is ready.
    pub(crate) fn run(toml: &str) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, admin) = (local(free_port()), local(free_port()));
        let file = folder.path().join("tollgate.toml");
        let text = format!(
            "{toml}\n[admin]\naddress = \"{admin}\"\n[log]\naccess = \"./access.log\"\n[[listener]]\naddress = \"{address}\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let arguments = [
            "run".to_owned(),
            "-c".to_owned(),
            file.display().to_string(),
        ];
        let process = Self::spawn(&arguments, folder, address, admin);
        until("the process to be ready", || {
            process.is_ready().then_some(())
        });
        process
    }

    /// Runs `tollgate run` with this TOML, filled up as for [`Gateway::start`](super::Gateway::start), until it is ready. `./` is a folder of its own.
    pub(crate) fn start(toml: &str) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, admin) = (local(free_port()), local(free_port()));
        let file = folder.path().join("tollgate.toml");
        let text = complete(toml, address, admin);
        leaks::learn_from(&text);
        std::fs::write(&file, text).unwrap();
        let arguments = ["run", "-c", "tollgate.toml"].map(str::to_owned);
        let process = Self::spawn(&arguments, folder, address, admin);
        process.wait_ready();
        process
    }

    /// The same from a program file of its own, `./tollgate`, with these variables; its number is in `./tollgate.pid`.
    pub(crate) fn start_own(toml: &str, environment: &[(&str, &str)]) -> Process {
        let folder = tempfile::tempdir().unwrap();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, admin) = (local(free_port()), local(free_port()));
        let text = complete(toml, address, admin);
        let text = text.replacen("[server]", "[server]\npid_file = \"./tollgate.pid\"", 1);
        std::fs::write(folder.path().join("tollgate.toml"), text).unwrap();
        let program = folder.path().join("tollgate");
        put_program(&program, Path::new(PROGRAM));
        let arguments = ["run", "-c", "tollgate.toml"].map(str::to_owned);
        let process = Process {
            child: child(&program, &arguments, folder.path(), environment),
            program,
            arguments: arguments.to_vec(),
            folder,
            address,
            admin,
        };
        process.wait_ready();
        process
    }

    /// Puts another program in the place of this one's, as an installation does.
    pub(crate) fn replace_program(&self, with: &str) {
        let beside = self.path("tollgate.new");
        std::fs::write(&beside, with).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(beside, &self.program).unwrap();
    }

    /// Puts the program back.
    pub(crate) fn restore_program(&self) {
        put_program(&self.program, Path::new(PROGRAM));
    }

    /// Another one of the same program in the same folder.
    pub(crate) fn beside(&self, arguments: &[&str]) -> Beside {
        let arguments: Vec<_> = arguments.iter().map(|&a| a.to_owned()).collect();
        Beside(child(&self.program, &arguments, self.folder.path(), &[]))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs it again after its end, with the same arguments in the same folder; outputs go on where they ended.
    pub(crate) fn restart(&mut self) {
        assert!(self.has_ended().is_some(), "it still runs");
        self.child = child(&self.program, &self.arguments, self.folder.path(), &[]);
        self.wait_ready();
    }

    #[track_caller]
    fn wait_ready(&self) {
        until("the process to be ready", || self.is_ready().then_some(()));
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.admin)
    }

    /// Runs the program; both outputs go to files of `folder`.
    pub(crate) fn spawn(
        arguments: &[String],
        folder: tempfile::TempDir,
        address: SocketAddr,
        admin: SocketAddr,
    ) -> Process {
        Process {
            child: child(Path::new(PROGRAM), arguments, folder.path(), &[]),
            program: PROGRAM.into(),
            arguments: arguments.to_vec(),
            folder,
            address,
            admin,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.admin_status("/readyz") == Some(200)
    }

    /// The status of a page of the admin listener, if it answers.
    pub(crate) fn admin_status(&self, path: &str) -> Option<u16> {
        let mut client = Client::try_connect(self.admin).ok()?;
        client.try_send(&get(path, "")).ok()?;
        client.try_reply().ok().map(|reply| reply.status)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([format!("-{name}"), pid])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Bytes it has in memory.
    pub(crate) fn resident(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let mut lines = status.lines();
        let resident = lines.find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
        resident.unwrap().trim().parse::<usize>().unwrap() * 1024
    }

    /// Lets its files grow to this many bytes only; `None` is for ever.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let (pid, limit) = (self.child.id().to_string(), format!("--fsize={soft}:"));
        let set = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status();
        assert!(set.unwrap().success());
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and tells how long that took.
    #[track_caller]
    pub(crate) fn end(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return (status, start.elapsed());
            }
            assert!(
                start.elapsed() < 2 * PATIENCE,
                "it does not end: {}",
                self.read("stderr")
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process that shares another one's folder; killed when dropped.
pub(crate) struct Beside(Child);

impl Beside {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the other process to end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process is there and not only waited for by its parent.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit(") ").next().unwrap_or_default();
        !state.starts_with(['Z', 'X'])
    })
}

/// A file is replaced as a whole: a running one cannot be written.
fn put_program(at: &Path, from: &Path) {
    let beside = at.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    if std::fs::hard_link(from, &beside).is_err() {
        std::fs::copy(from, &beside).unwrap();
    }
    std::fs::rename(beside, at).unwrap();
}

fn child(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    environment: &[(&str, &str)],
) -> Child {
    let file = |name: &str| {
        let path = folder.join(name);
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.unwrap()
    };
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .unwrap()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of several that took over from each other the last has its number here.
        let serving = self.read("tollgate.pid");
        if !serving.is_empty() {
            let _ = Command::new("kill").args(["-9", serving.trim()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            for name in ["stderr", "access.log"] {
                leaks::search(name, &self.read(name));
            }
            leaks::assert_none();
        }
    }
}
