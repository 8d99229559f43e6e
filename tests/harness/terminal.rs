//! The program on a terminal: what it shows there, keys pressed on it, and its size.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{PROGRAM, until};

/// A running program with a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs the program with only these of its own variables, on so many columns and 30 lines.
    pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)], columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        resize(&master, columns);
        let side =
            || -> OwnedFd { open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap() };
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", PROGRAM]).args(arguments);
        for name in ["TOLLGATE_SERVER", "TOLLGATE_TOKEN", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied());
        let child = command
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        // The command keeps its sides of the terminal open, which would never end then.
        drop(command);
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, theirs) = (master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Reading fails once the program has ended.
            while let Ok(n @ 1..) = reader.read(&mut piece) {
                theirs.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        Terminal {
            child,
            master,
            shown,
        }
    }

    /// Everything shown so far, with what steers the terminal.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits for a text.
    #[track_caller]
    pub(crate) fn wait(&self, text: &str) -> String {
        until(&format!("`{text}` on the terminal"), || {
            let shown = self.shown();
            shown.contains(text).then_some(shown)
        })
    }

    /// Waits for a text on a screen of which only what changes is drawn: it is drawn anew again and again, at this width or one less.
    #[track_caller]
    pub(crate) fn wait_redrawn(&self, text: &str, columns: u16) {
        let mut narrower = 0;
        until(&format!("`{text}` on the screen"), || {
            let before = self.shown().len();
            narrower = 1 - narrower;
            self.resize(columns - narrower);
            until("it to be drawn anew", || {
                (self.shown().len() > before).then_some(())
            });
            let shown = self.shown();
            shown[before..].contains(text).then_some(())
        });
    }

    /// Waits until a text has been shown so often.
    #[track_caller]
    pub(crate) fn wait_times(&self, text: &str, times: usize) {
        until(&format!("`{text}` {times} times on the terminal"), || {
            (self.shown().matches(text).count() >= times).then_some(())
        });
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, columns: u16) {
        resize(&self.master, columns);
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    pub(crate) fn end(&mut self) -> i32 {
        let status = until("the program to end", || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }
}

fn resize(master: impl std::os::fd::AsFd, columns: u16) {
    let size = Winsize {
        ws_row: 30,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whoever loses its terminal ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
