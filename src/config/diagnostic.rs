//! How mistakes are shown: place, field and what is wrong in one line, then the text pointed at, then help.
//!
//! The text is shown as typed, except that what may be a secret is `***` and that control characters cannot reach the
//! terminal. Diagnostics own what they need of the text, so that they can outlive the reading.

use std::fmt;
use std::sync::Arc;

use tollgate_sdk::document::{Problem, Severity, Span};

/// No more of a line than this many characters is shown.
const WIDTH: usize = 140;

/// Everything that is wrong with a file, in the order of the file.
#[derive(Clone)]
pub struct Diagnostics {
    name: Arc<str>,
    text: Arc<str>,
    problems: Vec<Problem>,
    masked: Arc<[Span]>,
}

impl Diagnostics {
    /// The problems of a text that is called `name`; what `masked` spans is shown as `***`.
    pub fn new(name: &str, text: &str, mut problems: Vec<Problem>, mut masked: Vec<Span>) -> Self {
        problems.sort_by(|a, b| (a.span, &a.path).cmp(&(b.span, &b.path)));
        problems.dedup();
        masked.sort_unstable();
        Self {
            name: name.into(),
            text: text.into(),
            problems,
            masked: masked.into(),
        }
    }

    /// One error at a byte of the text.
    pub(super) fn one(
        name: &str,
        text: &str,
        at: usize,
        message: &str,
        help: Option<&str>,
    ) -> Self {
        let problem = Problem {
            span: Span::new(at, at),
            path: String::new(),
            message: message.into(),
            help: help.map(Into::into),
            severity: Severity::Error,
        };
        Self::new(name, text, vec![problem], Vec::new())
    }

    /// One error about a file of which there is no text.
    pub fn whole(name: &str, message: &str, help: &str) -> Self {
        Self::one(name, "", 0, message, Some(help))
    }

    /// Errors in one, warnings in the other.
    pub(super) fn split(self) -> (Self, Self) {
        let (errors, warnings) = self
            .problems
            .iter()
            .cloned()
            .partition(|p| p.severity == Severity::Error);
        let with = |problems| Self {
            problems,
            ..self.clone()
        };
        (with(errors), with(warnings))
    }

    /// These and those of the same text, in order.
    pub(super) fn and(mut self, more: &Self) -> Self {
        self.problems.extend_from_slice(&more.problems);
        self.problems
            .sort_by(|a, b| (a.span, &a.path).cmp(&(b.span, &b.path)));
        self
    }

    /// The problems themselves, for other ways of showing them.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many of them refuse the file.
    pub fn errors(&self) -> usize {
        self.problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count()
    }

    /// How many of them do not.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// Where a problem is: line and column, both from 1, the column in characters.
    pub fn place(&self, problem: &Problem) -> (usize, usize) {
        line_and_column(&self.text, problem.span.start)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let (line, column) = self.place(problem);
        write!(f, "{}:", self.name)?;
        if !self.text.is_empty() {
            write!(f, "{line}:{column}:")?;
        }
        if problem.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !problem.path.is_empty() {
            write!(f, " {}:", Plain(&problem.path))?;
        }
        writeln!(f, " {}", Plain(&problem.message))?;
        let shown = Shown::of(&self.text, problem.span, &self.masked);
        if !shown.line.trim().is_empty() {
            let gutter = line.to_string().len().max(3);
            writeln!(f, "{line:>gutter$} | {}", shown.line)?;
            writeln!(f, "{:>gutter$} | {}", "", shown.carets)?;
        }
        match &problem.help {
            Some(help) => writeln!(f, "help: {}", Plain(help)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            self.write(f, problem)?;
        }
        Ok(())
    }
}

/// As displayed: the text itself may hold secrets.
impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Diagnostics {}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..floor(text, at)).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The last place not after `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Text without control characters.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|char| write!(f, "{}", if char.is_control() { '\u{fffd}' } else { char }))
    }
}

/// A line as it is shown, and the carets below it.
struct Shown {
    line: String,
    carets: String,
}

impl Shown {
    fn of(text: &str, span: Span, masked: &[Span]) -> Self {
        let start = floor(text, span.start);
        let line_start = text
            .get(..start)
            .and_then(|t| t.rfind('\n'))
            .map_or(0, |at| at + 1);
        let line = text.get(line_start..).unwrap_or_default();
        let line = line
            .split('\n')
            .next()
            .unwrap_or_default()
            .trim_end_matches('\r');
        let end = span.end.max(start + 1);

        // What is shown, each character with whether it is pointed at.
        let mut cells: Vec<(char, bool)> = Vec::new();
        let mut hidden = None;
        for (at, char) in line.char_indices() {
            let at = line_start + at;
            let marked = at + char.len_utf8() > start && at < end;
            let mask = masked.iter().find(|mask| mask.start <= at && at < mask.end);
            match mask {
                Some(mask) if hidden == Some(mask) => {
                    // The stars stand for all of it: they are pointed at if any of it is.
                    let stars = cells.len().saturating_sub(3);
                    cells
                        .iter_mut()
                        .skip(stars)
                        .for_each(|cell| cell.1 |= marked);
                }
                Some(mask) => {
                    hidden = Some(mask);
                    cells.extend([('*', marked); 3]);
                }
                None => {
                    hidden = None;
                    let char = if char.is_control() && char != '\t' {
                        '\u{fffd}'
                    } else {
                        char
                    };
                    cells.push((char, marked));
                }
            }
        }
        if !cells.iter().any(|(_, marked)| *marked) {
            // Past the end of the line.
            cells.push((' ', true));
        }
        Self::cut(&cells)
    }

    /// Writes the cells, around those pointed at if there are too many.
    fn cut(cells: &[(char, bool)]) -> Self {
        let first = cells.iter().position(|(_, marked)| *marked).unwrap_or(0);
        let skip = if cells.len() <= WIDTH {
            0
        } else {
            first.saturating_sub(WIDTH / 2)
        };
        let mut shown = Self {
            line: if skip > 0 {
                "…".into()
            } else {
                String::new()
            },
            carets: if skip > 0 { " ".into() } else { String::new() },
        };
        for (char, marked) in cells.iter().skip(skip).take(WIDTH) {
            shown.line.push(*char);
            let below = match char {
                _ if *marked => '^',
                '\t' => '\t',
                _ => ' ',
            };
            shown.carets.extend(std::iter::repeat_n(
                below,
                if is_wide(*char) { 2 } else { 1 },
            ));
        }
        if cells.len() > skip + WIDTH {
            shown.line.push('…');
        }
        shown.line.truncate(shown.line.trim_end().len());
        shown.carets.truncate(shown.carets.trim_end().len());
        shown
    }
}

/// Whether a terminal gives the character two columns: East Asian scripts and pictures.
fn is_wide(char: char) -> bool {
    matches!(u32::from(char), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd)
}
