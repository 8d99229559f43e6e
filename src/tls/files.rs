//! The handles by their files: made while a configuration is compiled, filled before it comes into force, and filled anew when files change.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tollgate_sdk::secret::Secret;

use super::issued::Issued;
use super::pem::Wrong;
use super::{ClientFiles, Credentials, Identity, Origin, ServerFiles};

/// What tells one version of a file from another, through whatever links lead to it.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// All handles; by default, relative paths begin where the process does.
#[derive(Default)]
pub struct Files {
    /// Where relative paths begin.
    folder: PathBuf,
    // Held for a moment only.
    handles: Mutex<Handles>,
    // Held while files are read.
    looks: Mutex<HashMap<String, Look>>,
}

#[derive(Default)]
struct Handles {
    identities: HashMap<ServerFiles, Arc<Identity>>,
    credentials: HashMap<ClientFiles, Arc<Credentials>>,
    /// What was ordered, by gateway.
    issued: HashMap<Arc<str>, Arc<Issued>>,
}

/// How the files of a handle looked.
#[derive(Default)]
struct Look {
    /// When they were read.
    read: Vec<Stamp>,
    /// When they were looked at last.
    seen: Vec<Stamp>,
}

/// Which files are read.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    New,
    Changed,
    All,
}

/// What is common to both kinds.
trait Handle: Debug {
    fn paths(&self) -> Vec<&Path>;
    fn is_loaded(&self) -> bool;
    fn load(&self, files: &Files) -> Result<bool, Vec<Wrong>>;
    /// What is to be told of what was read: once, and although it is in force.
    fn doubt(&self) -> Option<String> {
        None
    }
}

impl Handle for Identity {
    fn paths(&self) -> Vec<&Path> {
        let files = self.files();
        let clients = files.clients.as_ref().map(|(path, _)| &**path);
        let pair = match &files.origin {
            Origin::Files { certificate, key } => vec![&**certificate, &**key],
            Origin::Ordered(_) => Vec::new(),
        };
        pair.into_iter().chain(clients).collect()
    }

    fn is_loaded(&self) -> bool {
        Identity::is_loaded(self)
    }

    fn load(&self, files: &Files) -> Result<bool, Vec<Wrong>> {
        let issued = match &self.files().origin {
            Origin::Files { .. } => None,
            Origin::Ordered(gateway) => files.issued(gateway),
        };
        Identity::load(self, &|path| files.read(path), issued.as_deref())
    }
}

impl Handle for Credentials {
    fn paths(&self) -> Vec<&Path> {
        let ClientFiles {
            authorities,
            pair,
            revoked,
        } = self.files();
        let pair = { pair.iter() }.flat_map(|(certificate, key)| [&**certificate, &**key]);
        let others = [authorities, revoked].into_iter();
        let others = others.filter_map(|path| path.as_deref());
        others.chain(pair).collect()
    }

    fn is_loaded(&self) -> bool {
        Credentials::is_loaded(self)
    }

    fn load(&self, files: &Files) -> Result<bool, Vec<Wrong>> {
        Credentials::load(self, &|path| files.read(path))
    }

    fn doubt(&self) -> Option<String> {
        let path = self.files().revoked.as_ref()?;
        Some(format!("{}: {}", path.display(), self.overdue()?))
    }
}

impl Files {
    /// With nothing read yet; relative paths begin at `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }

    /// The handle of what clients are shown.
    pub fn identity(&self, files: ServerFiles) -> Arc<Identity> {
        let mut handles = lock(&self.handles);
        let handle = handles.identities.entry(files.clone());
        handle
            .or_insert_with(|| Arc::new(Identity::new(files)))
            .clone()
    }

    /// The handle of what targets are shown.
    pub fn credentials(&self, files: ClientFiles) -> Arc<Credentials> {
        let mut handles = lock(&self.handles);
        let handle = handles.credentials.entry(files.clone());
        handle
            .or_insert_with(|| Arc::new(Credentials::new(files)))
            .clone()
    }

    /// What was issued for a gateway.
    pub fn issued(&self, gateway: &str) -> Option<Arc<Issued>> {
        lock(&self.handles).issued.get(gateway).cloned()
    }

    /// Shows from now on what was issued for a gateway. Waits for the disk if clients must show a certificate.
    pub fn issue(&self, gateway: &Arc<str>, issued: Issued) {
        let issued = Arc::new(issued);
        lock(&self.handles).issued.insert(gateway.clone(), issued);
        for identity in self.ordered(gateway) {
            if let Some(wrong) = self.read_again(&*identity) {
                log::error!("{wrong}");
            }
        }
    }

    /// Shows nothing for a gateway any more.
    pub fn withdraw(&self, gateway: &str) {
        lock(&self.handles).issued.remove(gateway);
        for identity in self.ordered(gateway) {
            identity.empty();
        }
    }

    /// The handles whose certificate is ordered for this gateway.
    fn ordered(&self, gateway: &str) -> Vec<Arc<Identity>> {
        let handles = lock(&self.handles);
        let of = |files: &ServerFiles| matches!(&files.origin, Origin::Ordered(whose) if **whose == *gateway);
        let ordered = handles.identities.iter().filter(|(files, _)| of(files));
        ordered.map(|(_, identity)| identity.clone()).collect()
    }

    /// The text of a file.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(&self, path: &Path) -> Result<Secret<String>, String> {
        read_pem(&self.folder.join(path))
    }

    /// Forgets what nothing holds any more.
    pub fn sweep(&self) {
        let mut handles = lock(&self.handles);
        (handles.identities).retain(|_, handle| Arc::strong_count(handle) > 1);
        let Handles {
            identities, issued, ..
        } = &mut *handles;
        let ordered: HashSet<&Arc<str>> = { identities.keys() }
            .filter_map(|files| match &files.origin {
                Origin::Ordered(gateway) => Some(gateway),
                Origin::Files { .. } => None,
            })
            .collect();
        issued.retain(|gateway, _| ordered.contains(gateway));
        (handles.credentials).retain(|_, handle| Arc::strong_count(handle) > 1);
    }

    /// Whether no document names any.
    pub fn is_empty(&self) -> bool {
        let handles = lock(&self.handles);
        handles.identities.is_empty() && handles.credentials.is_empty()
    }

    /// Whether all has been read that is named.
    pub fn is_loaded(&self) -> bool {
        self.all().iter().all(|handle| handle.is_loaded())
    }

    /// Reads what has not been read yet. Waits for the disk.
    ///
    /// # Errors
    /// What could not be read.
    pub fn load_new(&self) -> Result<(), Vec<String>> {
        self.visit(Which::New)
    }

    /// Reads what has changed and then stood still since it was last looked at. Waits for the disk.
    ///
    /// # Errors
    /// What could not be read; what was there before stays.
    pub fn load_changed(&self) -> Result<(), Vec<String>> {
        self.visit(Which::Changed)
    }

    /// Reads everything. Waits for the disk.
    ///
    /// # Errors
    /// What could not be read; what was there before stays.
    pub fn load_all(&self) -> Result<(), Vec<String>> {
        self.visit(Which::All)
    }

    fn visit(&self, which: Which) -> Result<(), Vec<String>> {
        let mut looks = lock(&self.looks);
        let mut wrong = Vec::new();
        let mut known = std::mem::take(&mut *looks);
        for handle in self.all() {
            let name = format!("{handle:?}");
            let mut look = known.remove(&name).unwrap_or_default();
            if which == Which::New && handle.is_loaded() {
                looks.insert(name, look);
                continue;
            }
            let now: Vec<Stamp> = handle.paths().iter().map(|path| self.stamp(path)).collect();
            let due = match which {
                Which::All | Which::New => true,
                // Whoever writes them may not be done: they must look the same twice.
                Which::Changed => now == look.seen && now != look.read,
            };
            look.seen.clone_from(&now);
            if due {
                look.read = now;
                wrong.extend(self.read_again(&*handle));
            }
            if let Some(doubt) = handle.doubt() {
                log::warn!("{doubt}");
            }
            looks.insert(name, look);
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }

    /// Reads the files of one handle; what is wrong with them.
    fn read_again(&self, handle: &dyn Handle) -> Option<String> {
        let known = handle.is_loaded();
        let paths: Vec<_> = handle.paths();
        let paths: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        // What was ordered is told of by whoever ordered it.
        let is_read = !paths.is_empty();
        let paths = paths.join(", ");
        match handle.load(self) {
            Ok(new) => {
                if new && known && is_read {
                    log::info!("{paths}: read again, and in force");
                }
                None
            }
            Err(wrong) => {
                let wrong: Vec<_> = wrong.iter().map(Wrong::to_string).collect();
                let stays = match known {
                    true => "what was read before stays in force",
                    false => "nothing is in its place",
                };
                Some(format!("{paths}: {} ({stays})", wrong.join("; ")))
            }
        }
    }

    fn all(&self) -> Vec<Arc<dyn Handle>> {
        let handles = lock(&self.handles);
        let identities = handles.identities.values().cloned();
        let identities = identities.map(|handle| handle as Arc<dyn Handle>);
        let credentials = handles.credentials.values().cloned();
        let credentials = credentials.map(|handle| handle as Arc<dyn Handle>);
        identities.chain(credentials).collect()
    }

    fn stamp(&self, path: &Path) -> Stamp {
        let of = |m: fs::Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size());
        fs::metadata(self.folder.join(path)).ok().map(of)
    }
}

/// The text of a PEM file.
///
/// # Errors
/// A sentence.
pub fn read_pem(path: &Path) -> Result<Secret<String>, String> {
    /// Bytes of the longest file that is looked at: a revocation list with 300,000 entries.
    const LONGEST: u64 = 16 << 20;
    let shown = path.display();
    let text = fs::metadata(path).and_then(|found| match found.len() {
        0..=LONGEST if found.is_file() => fs::read_to_string(path).map(Secret::new),
        _ => Err(ErrorKind::FileTooLarge.into()),
    });
    text.map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no file {shown}"),
        ErrorKind::InvalidData => format!("the file {shown} is not text"),
        ErrorKind::FileTooLarge => {
            format!("{shown} is not a file of certificates, keys or revocation lists")
        }
        _ => format!("the file {shown} cannot be read: {error}"),
    })
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
