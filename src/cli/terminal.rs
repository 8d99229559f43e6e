//! The outputs: whether they are a terminal, how wide it is, colour, and questions.
//!
//! Tables go to standard output, everything else to standard error. Invariant: what a server or a document says cannot move the
//! cursor: control characters are shown as U+FFFD.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use super::ending::Ended;

/// Writes to standard output.
///
/// # Errors
/// [`Ended::Unheard`] if nobody reads it.
pub(super) fn say(text: &str) -> Result<(), Ended> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|_| Ended::Unheard)
}

/// The columns of the terminal that standard output is, if it is one.
pub(super) fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = ratatui::crossterm::terminal::size().ok();
    size.map(|(columns, _)| usize::from(columns))
        .filter(|columns| *columns > 0)
}

/// Whether somebody can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// Asks on standard error; only a clear yes is one.
pub(super) fn agrees(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Text without control characters, but for line ends.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    match text.contains(steers) {
        true => text.replace(steers, "\u{fffd}").into(),
        false => text.into(),
    }
}

/// The colours of what goes to standard output.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Colour {
    Green,
    Yellow,
    Red,
    Grey,
}

impl Paint {
    /// Only on a terminal, and not if `NO_COLOR` says otherwise.
    pub(super) fn of_stdout() -> Paint {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint {
            on: io::stdout().is_terminal() && !unwanted,
        }
    }

    #[cfg(test)]
    pub(super) const OFF: Paint = Paint { on: false };

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Grey => 90,
        };
        match self.on {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// What is shown again and again: on a terminal each text takes the place of the one before, elsewhere it follows it. The same text is not
/// shown twice.
pub(super) struct Screen {
    on_terminal: bool,
    last: Option<String>,
    in_trouble: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen {
            on_terminal: io::stdout().is_terminal(),
            last: None,
            in_trouble: false,
        }
    }

    pub(super) fn show(&mut self, text: &str) -> Result<(), Ended> {
        if self.last.as_deref() == Some(text) && !self.in_trouble {
            return Ok(());
        }
        match (self.on_terminal, &self.last) {
            // Home, and everything below it gone.
            (true, _) => say(&format!("\x1b[H\x1b[2J{text}"))?,
            (false, Some(last)) if last == text => {}
            (false, None) => say(text)?,
            (false, Some(_)) => say(&format!("\n{text}"))?,
        }
        self.last = Some(text.to_owned());
        self.in_trouble = false;
        Ok(())
    }

    /// Says once why nothing new is shown.
    pub(super) fn trouble(&mut self, why: &dyn std::fmt::Display) {
        if !self.in_trouble {
            eprintln!("tollgate: {why}");
        }
        self.in_trouble = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\n\tc"), "a\u{fffd}[2Jb\n\u{fffd}c");
        assert_eq!(plain("grün"), "grün");
    }
}
