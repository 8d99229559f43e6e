//! The screen of `tollgate top`: a view drawn into a buffer, on a terminal or as plain lines.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, Widget};

use super::view::{Order, Rates, ServiceRow, TargetRow, View};

/// How a view is looked at.
pub(super) struct Looking<'a> {
    pub(super) server: &'a str,
    pub(super) order: Order,
    /// How many targets have been scrolled past.
    pub(super) offset: usize,
    /// The last line: keys, or why there is nothing new. `None` leaves it out.
    pub(super) foot: Option<&'a str>,
}

const SERVICE_WIDTHS: [Constraint; 9] = [
    Constraint::Fill(2),
    Constraint::Length(8),
    Constraint::Length(8),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(8),
    Constraint::Length(8),
    Constraint::Length(9),
    Constraint::Length(6),
];
const TARGET_WIDTHS: [Constraint; 8] = [
    Constraint::Fill(2),
    Constraint::Fill(2),
    Constraint::Fill(3),
    Constraint::Length(7),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(6),
    Constraint::Length(7),
];
/// Lines above the tables.
const HEAD: u16 = 3;

/// Draws all that fits; targets have at least half of what is left.
pub(super) fn draw(view: &View, looking: &Looking<'_>, area: Rect, buffer: &mut Buffer) {
    let line = |number: u16| Rect {
        y: area.y.saturating_add(number),
        height: 1,
        ..area
    };
    if area.height < HEAD + 2 {
        title(view, looking).render(line(0).intersection(area), buffer);
        return;
    }
    title(view, looking).render(line(0), buffer);
    totals(&view.total).render(line(1), buffer);
    let foot = u16::from(looking.foot.is_some());
    let left = area.height - HEAD - foot;
    let wanted = rows(view.services.len());
    let services = wanted.min((left / 2).max(left.saturating_sub(rows(view.targets.len()) + 1)));
    let upper = Rect {
        height: services,
        ..line(HEAD)
    };
    services_table(&view.services, looking.order, services).render(upper, buffer);
    let begin = HEAD + services + 1;
    if left > services + 1 {
        let height = left - services - 1;
        let lower = Rect {
            height,
            ..line(begin)
        };
        targets_table(&view.targets, looking.offset, height).render(lower, buffer);
    }
    if let Some(foot) = looking.foot {
        Line::from(foot.dim()).render(line(area.height - 1), buffer);
    }
}

/// A table's lines with its head.
fn rows(number: usize) -> u16 {
    u16::try_from(number + 1).unwrap_or(u16::MAX)
}

/// The whole view as text, however many lines that are.
pub(super) fn plain(view: &View, looking: &Looking<'_>, width: u16) -> String {
    let tables = rows(view.services.len()).saturating_add(rows(view.targets.len()));
    let area = Rect::new(0, 0, width.max(1), tables.saturating_add(HEAD + 1));
    let mut buffer = Buffer::empty(area);
    draw(view, looking, area, &mut buffer);
    lines(&buffer)
}

fn lines(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for cells in buffer.content().chunks(width) {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn title<'v>(view: &'v View, looking: &'v Looking<'_>) -> Line<'v> {
    let ready = match view.is_ready {
        true => "ready".green(),
        false => "not ready".red(),
    };
    Line::from(vec![
        "tollgate ".bold(),
        view.version.as_str().into(),
        "  ".into(),
        looking.server.into(),
        "  revision ".into(),
        view.revision.as_str().into(),
        "  ".into(),
        ready,
    ])
}

fn totals(total: &ServiceRow) -> Line<'static> {
    let Rates {
        requests,
        errors,
        input,
        output,
        p50,
        p99,
    } = &total.rates;
    let parts = [
        ("in flight", amount(Some(total.in_flight))),
        ("queued", total.queued.to_string()),
        ("req/s", amount(*requests)),
        ("err/s", amount(*errors)),
        ("tok/s in", amount(*input)),
        ("out", amount(*output)),
        ("TTFT p50", time(*p50)),
        ("p99", time(*p99)),
    ];
    let parts = parts.into_iter().flat_map(|(name, value)| {
        [
            Span::from(format!("{name} ")).dim(),
            format!("{value}  ").bold(),
        ]
    });
    Line::from(parts.collect::<Vec<_>>())
}

fn services_table(services: &[ServiceRow], order: Order, height: u16) -> Table<'_> {
    let mark = |name: &str, by: Order| match by == order {
        true => format!("{name}▼"),
        false => name.to_owned(),
    };
    let heads = [
        mark("SERVICE", Order::Name),
        mark("REQ/S", Order::Requests),
        "ERR/S".to_owned(),
        "IN TOK/S".to_owned(),
        mark("TOK/S", Order::Tokens),
        "TTFT P50".to_owned(),
        mark("P99", Order::Latency),
        "IN FLIGHT".to_owned(),
        "QUEUE".to_owned(),
    ];
    let row = |service: &ServiceRow| {
        let rates = &service.rates;
        let numbers = [
            amount(rates.requests),
            amount(rates.errors),
            amount(rates.input),
            amount(rates.output),
            time(rates.p50),
            time(rates.p99),
            amount(Some(service.in_flight)),
            service.queued.to_string(),
        ];
        let name = Cell::from(service.name.clone());
        Row::new(std::iter::once(name).chain(numbers.map(right)))
    };
    let rows = seen(services, 0, height).map(row);
    Table::new(rows, SERVICE_WIDTHS)
        .column_spacing(1)
        .header(head(heads, 1))
}

fn targets_table(targets: &[TargetRow], offset: usize, height: u16) -> Table<'_> {
    let heads = [
        "UPSTREAM",
        "TARGET",
        "URL",
        "HEALTH",
        "BREAKER",
        "IN FLIGHT",
        "WEIGHT",
        "COOLING",
    ];
    let row = |target: &TargetRow| {
        let style = match (target.health.as_str(), target.breaker.as_str()) {
            ("down", _) | (_, "open") => Style::new().fg(Color::Red),
            (_, "half_open") => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        let cooling = match target.cooling_ms {
            0 => "-".to_owned(),
            left => format!("{}s", left.div_ceil(1000)),
        };
        let texts = [
            &target.upstream,
            &target.id,
            &target.url,
            &target.health,
            &target.breaker,
        ];
        let texts = texts.map(|text| Cell::from(text.clone()));
        let numbers = [target.in_flight.to_string(), target.weight.clone(), cooling].map(right);
        Row::new(texts.into_iter().chain(numbers)).style(style)
    };
    let rows = seen(targets, offset, height).map(row);
    Table::new(rows, TARGET_WIDTHS)
        .column_spacing(1)
        .header(head(heads.map(str::to_owned), 5))
}

/// The rows that a table of so many lines shows.
fn seen<T>(all: &[T], offset: usize, height: u16) -> impl Iterator<Item = &T> {
    let most = usize::from(height).saturating_sub(1);
    let offset = offset.min(all.len().saturating_sub(most));
    all.iter().skip(offset).take(most)
}

/// Heads, those from `numbers` on to the right as their columns are.
fn head<const N: usize>(heads: [String; N], numbers: usize) -> Row<'static> {
    let cells = heads
        .into_iter()
        .enumerate()
        .map(|(index, name)| match index < numbers {
            true => Cell::from(name),
            false => right(name),
        });
    Row::new(cells).bold()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

/// A number in at most five characters.
fn amount(number: Option<f64>) -> String {
    match number {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(number) if number < 10.0 && number.fract() != 0.0 => format!("{number:.1}"),
        Some(number) if number < 10_000.0 => format!("{number:.0}"),
        Some(number) if number < 1e7 => format!("{:.0}k", number / 1e3),
        Some(number) => format!("{:.0}M", number / 1e6),
    }
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn view() -> View {
        let service = |name: &str, requests| ServiceRow {
            name: name.to_owned(),
            rates: Rates {
                requests: Some(requests),
                errors: Some(0.25),
                input: Some(81_234.0),
                output: Some(12.0),
                p50: Some(0.21),
                p99: Some(1.84),
            },
            in_flight: 3.0,
            queued: 2,
        };
        let target = |id: usize| TargetRow {
            upstream: "pool".to_owned(),
            id: format!("t{id}"),
            url: format!("http://10.0.0.{id}:8000"),
            health: if id == 0 { "down" } else { "up" }.to_owned(),
            breaker: "closed".to_owned(),
            in_flight: 7,
            weight: "1".to_owned(),
            cooling_ms: 1500,
        };
        View {
            version: "1.2.3".to_owned(),
            revision: "42".to_owned(),
            is_ready: true,
            total: service("", 812.0),
            services: vec![service("alpha", 800.0), service("beta", 12.0)],
            targets: (0..6).map(target).collect(),
        }
    }

    fn looking(foot: Option<&str>) -> Looking<'_> {
        Looking {
            server: "http://gate",
            order: Order::Requests,
            offset: 0,
            foot,
        }
    }

    /// What a terminal of this size shows.
    fn screen(view: &View, looking: &Looking<'_>, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let drawn = terminal.draw(|frame| draw(view, looking, frame.area(), frame.buffer_mut()));
        drawn.unwrap();
        lines(terminal.backend().buffer())
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn everything_is_on_the_screen() {
        let screen = screen(&view(), &looking(Some("q quit")), 100, 24);
        assert_eq!(screen[0], "tollgate 1.2.3  http://gate  revision 42  ready");
        let totals = "in flight 3  queued 2  req/s 812  err/s 0.2  tok/s in 81k  out 12  TTFT p50 210ms  p99 1.8s";
        assert_eq!(screen[1], totals);
        let words = |line: usize| screen[line].split_whitespace().collect::<Vec<_>>();
        assert!(words(3).contains(&"REQ/S▼") && words(3)[0] == "SERVICE");
        assert_eq!(
            words(4),
            [
                "alpha", "800", "0.2", "81k", "12", "210ms", "1.8s", "3", "2"
            ]
        );
        assert_eq!(words(7)[0], "UPSTREAM");
        assert_eq!(
            words(8),
            [
                "pool",
                "t0",
                "http://10.0.0.0:8000",
                "down",
                "closed",
                "7",
                "1",
                "2s"
            ]
        );
        assert_eq!(screen[23], "q quit");
    }

    #[test]
    fn a_small_terminal_shows_what_it_can() {
        for width in [1, 7, 20, 80, 300] {
            for height in 1..30 {
                screen(&view(), &looking(Some("q")), width, height);
            }
        }
        let mut scrolled = looking(Some("q"));
        scrolled.offset = 2;
        let screen = screen(&view(), &scrolled, 100, 12);
        let shows = |text: &str| screen.iter().any(|line| line.contains(text));
        assert!(shows("alpha") && shows("t2") && !shows("t0"), "{screen:#?}");
    }

    #[test]
    fn plain_lines_hold_every_row() {
        let mut view = view();
        view.targets = vec![view.targets[0].clone(); 200];
        let text = plain(&view, &looking(None), 100);
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("http://10"))
                .count(),
            200
        );
        assert!(text.lines().all(|line| line.chars().count() <= 100));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.04, 2.0, 9.96, 99.4, 9_999.0, 81_234.0, 2.5e7].map(|n| amount(Some(n)));
        assert_eq!(shown, ["0", "0.0", "2", "10.0", "99", "9999", "81k", "25M"]);
        let times = [0.0004, 0.2104, 1.84, 61.0].map(|s| time(Some(s)));
        assert_eq!(times, ["0.4ms", "210ms", "1.8s", "61.0s"]);
        assert_eq!((amount(None), time(None)), ("-".into(), "-".into()));
    }
}
