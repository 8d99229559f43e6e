//! `tollgate top`: a live view of a running gateway, from `/metrics` and `/v1/status`, each second.
//!
//! A thread of its own asks, so that keys are answered while the gateway is not. Rates are those of the last few seconds.

mod frame;
mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use axum::http::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::frame::Looking;
use self::view::{Look, Order, View};
use super::ending::{Ended, end};
use super::remote::{Api, Refused, Remote};
use super::terminal::{plain, say, width};
use crate::telemetry::Scrape;

/// How often the gateway is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// Over how many periods rates are taken.
const WINDOW: usize = 5;
/// How long a key may wait for its effect.
const BLINK: Duration = Duration::from_millis(100);
/// Columns where there is no terminal.
const WIDTH: u16 = 120;
const KEYS: &str = "sort: n name, r requests, t tokens, l latency   ↑↓ targets   q quit";

#[derive(clap::Args)]
pub(super) struct Asked {
    /// Print one frame as plain text, after a second of looking.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(asked: &Asked) -> ExitCode {
    end(match asked.once {
        true => once(asked),
        false => live(asked),
    })
}

/// Whoever asks the gateway, and since when.
struct Watch {
    api: Api,
    began: Instant,
}

impl Watch {
    fn look(&self) -> Result<Look, Refused> {
        // Who may not see the one is told so before the other is asked for.
        let status = self.api.ask(Method::GET, "/v1/status", None)?;
        let scrape = Scrape::parse(&self.api.text("/metrics")?);
        Ok(Look {
            at: self.began.elapsed(),
            scrape,
            status,
        })
    }
}

fn once(asked: &Asked) -> Result<(), Ended> {
    let watch = asked.watch()?;
    let first = watch.look()?;
    std::thread::sleep(PERIOD);
    let view = View::between(&first, &watch.look()?, Order::Name);
    let server = plain(watch.api.server());
    let looking = Looking {
        server: &server,
        order: Order::Name,
        offset: 0,
        foot: None,
    };
    let width = width().and_then(|width| u16::try_from(width).ok());
    say(&frame::plain(&view, &looking, width.unwrap_or(WIDTH)))
}

fn live(asked: &Asked) -> Result<(), Ended> {
    if !io::stdout().is_terminal() {
        let help = "standard output is no terminal; `tollgate top --once` prints one frame";
        return Err(Ended::Misused(help.into()));
    }
    let watch = asked.watch()?;
    let server = plain(watch.api.server()).into_owned();
    // What is wrong from the beginning is told without a screen.
    let first = watch.look()?;
    let (send, looks) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PERIOD);
            if send.send(watch.look()).is_err() {
                return;
            }
        }
    });
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal: {error}"))?;
    let mut screen = Screen {
        looks: VecDeque::from([first]),
        server,
        order: Order::Requests,
        offset: 0,
        trouble: None,
    };
    let done = screen.run(&mut terminal, &looks);
    ratatui::restore();
    done.map_err(|error| Ended::Failed(format!("the terminal: {error}")))
}

impl Asked {
    fn watch(&self) -> Result<Watch, Ended> {
        Ok(Watch {
            api: self.remote.open()?,
            began: Instant::now(),
        })
    }
}

/// What is seen, and how.
struct Screen {
    looks: VecDeque<Look>,
    server: String,
    order: Order,
    offset: usize,
    trouble: Option<String>,
}

impl Screen {
    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        looks: &Receiver<Result<Look, Refused>>,
    ) -> io::Result<()> {
        self.draw(terminal)?;
        loop {
            let mut is_new = false;
            for look in looks.try_iter() {
                self.take(look);
                is_new = true;
            }
            if event::poll(BLINK)? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => {
                        if !self.press(key) {
                            return Ok(());
                        }
                        is_new = true;
                    }
                    Event::Resize(..) => is_new = true,
                    _ => {}
                }
            }
            if is_new {
                self.draw(terminal)?;
            }
        }
    }

    fn take(&mut self, look: Result<Look, Refused>) {
        match look {
            Ok(look) => {
                self.trouble = None;
                self.looks.push_back(look);
                while self.looks.len() > WINDOW + 1 {
                    self.looks.pop_front();
                }
            }
            Err(refused) => {
                let why = plain(refused.message()).replace('\n', " ");
                self.trouble = Some(format!("no answer, asking again: {why}"));
            }
        }
    }

    /// Whether to go on.
    fn press(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('n') => self.order = Order::Name,
            KeyCode::Char('r') => self.order = Order::Requests,
            KeyCode::Char('t') => self.order = Order::Tokens,
            KeyCode::Char('l') => self.order = Order::Latency,
            KeyCode::Down => self.offset = self.offset.saturating_add(1),
            KeyCode::Up => self.offset = self.offset.saturating_sub(1),
            _ => {}
        }
        true
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let (Some(older), Some(newer)) = (self.looks.front(), self.looks.back()) else {
            return Ok(());
        };
        let view = View::between(older, newer, self.order);
        self.offset = self.offset.min(view.targets.len().saturating_sub(1));
        let looking = Looking {
            server: &self.server,
            order: self.order,
            offset: self.offset,
            foot: Some(self.trouble.as_deref().unwrap_or(KEYS)),
        };
        terminal.draw(|frame| frame::draw(&view, &looking, frame.area(), frame.buffer_mut()))?;
        Ok(())
    }
}
