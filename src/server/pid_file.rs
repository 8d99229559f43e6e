//! The file with the number of the process that serves.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes it, as a whole: whoever reads at this moment finds the old number or the new one.
pub(super) fn write(path: &Path) -> io::Result<()> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(folder)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    writeln!(options.open(&beside)?, "{}", std::process::id())?;
    fs::rename(&beside, path)
}

/// Takes it away, if it is still this process's.
pub(super) fn remove(path: &Path) {
    let ours = fs::read_to_string(path)
        .is_ok_and(|text| text.trim_end() == std::process::id().to_string());
    if ours {
        // Another could have written it just now; it would write it again at its next start.
        let _ = fs::remove_file(path);
    }
}
