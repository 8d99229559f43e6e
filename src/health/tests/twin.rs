//! The state machine against a twin that remembers everything and computes how a target stands from that.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Probe(bool),
    Enter,
    EnterAnyway,
    Succeed(usize),
    Fail(usize, Failure),
    Leave(usize),
    Cool(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        Just(Failure::Connect),
        Just(Failure::Reset),
        Just(Failure::Timeout),
        Just(Failure::Status(502)),
        Just(Failure::Status(429)),
    ];
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Probe),
        5 => Just(Step::Enter),
        1 => Just(Step::EnterAnyway),
        2 => any::<usize>().prop_map(Step::Succeed),
        5 => (any::<usize>(), failure).prop_map(|(which, failure)| Step::Fail(which, failure)),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (0u64..2_000).prop_map(Step::Cool),
        3 => (0u64..700).prop_map(Step::Pass),
        1 => (700u64..12_000).prop_map(Step::Pass),
    ]
}

/// Time is in milliseconds since the beginning.
#[derive(Debug, Default)]
struct Twin {
    answers: Vec<bool>,
    verdicts: Vec<(bool, u64)>,
    /// Every opening and closing: when, whether it opened, and whether only for want of reach.
    turns: Vec<(u64, bool, bool)>,
    /// Failures that counted while closed: when, in which epoch, whether of reach.
    failures: Vec<(u64, usize, bool)>,
    /// Probes that ended an opening early.
    reached: Vec<(u64, usize)>,
    cooled: Vec<u64>,
    entered: Vec<Entered>,
}

#[derive(Clone, Debug)]
struct Entered {
    epoch: usize,
    trial: bool,
    settled: bool,
    gone: bool,
}

impl Twin {
    fn epoch(&self) -> usize {
        self.turns.len()
    }

    /// `None` closed; `Some(until)` open until then, or half-open from then on.
    fn open_until(&self) -> Option<u64> {
        let (at, opened, _) = self.turns.last().copied()?;
        let early = self
            .reached
            .iter()
            .find(|(_, epoch)| *epoch == self.epoch());
        opened.then(|| early.map_or(at + 500, |(at, _)| *at))
    }

    fn busy(&self) -> bool {
        let here = |e: &Entered| e.trial && !e.gone && e.epoch == self.epoch();
        self.entered.iter().any(here)
    }

    fn probe(&mut self, ok: bool, now: u64) -> Option<Turn> {
        self.answers.push(ok);
        let up = self.verdicts.last().map(|(up, _)| *up);
        let run = self
            .answers
            .iter()
            .rev()
            .take_while(|answer| **answer == ok)
            .count();
        let turned = match (up, ok) {
            (Some(true), true) | (Some(false), false) => false,
            _ => run >= 2,
        };
        if turned {
            self.verdicts.push((ok, now));
        }
        let of_reach = self.turns.last().is_some_and(|turn| turn.2);
        let recovered = turned && up == Some(false);
        if ok && (of_reach || recovered) && self.open_until().is_some_and(|until| until > now) {
            self.reached.push((now, self.epoch()));
        }
        turned.then_some(if ok { Turn::WentUp } else { Turn::WentDown })
    }

    fn enter(&mut self, anyway: bool, now: u64) -> Option<usize> {
        let trial = match self.open_until() {
            None => false,
            Some(until) if until <= now && !self.busy() => true,
            Some(_) if anyway => false,
            Some(_) => return None,
        };
        self.entered.push(Entered {
            epoch: self.epoch(),
            trial,
            settled: false,
            gone: false,
        });
        Some(self.entered.len() - 1)
    }

    fn succeed(&mut self, which: usize, now: u64) -> Option<Turn> {
        let entered = self.entered[which].clone();
        let closes = entered.epoch == self.epoch() && self.open_until().is_some();
        if entered.settled || !closes {
            return None;
        }
        self.turns.push((now, false, false));
        self.entered[which].epoch = self.epoch();
        self.entered[which].trial = false;
        Some(Turn::Closed)
    }

    fn fail(&mut self, which: usize, failure: Failure, now: u64) -> Option<Turn> {
        if self.entered[which].settled || failure == Failure::Status(429) {
            return None;
        }
        self.entered[which].settled = true;
        let entered = self.entered[which].clone();
        let of_reach = matches!(failure, Failure::Connect | Failure::Reset);
        if entered.epoch != self.epoch() {
            return None;
        }
        if self.open_until().is_some() {
            if entered.trial {
                self.turns.push((now, true, of_reach));
            }
            return entered.trial.then_some(Turn::Opened);
        }
        self.failures.push((now, self.epoch(), of_reach));
        let counts = |f: &&(u64, usize, bool)| f.1 == self.epoch() && now - f.0 <= 1_000;
        let counting: Vec<_> = self.failures.iter().filter(counts).collect();
        if counting.len() < 3 {
            return None;
        }
        let of_reach = counting.iter().all(|f| f.2);
        self.turns.push((now, true, of_reach));
        Some(Turn::Opened)
    }

    fn standing(&self, now: u64, start: Instant) -> Standing {
        let at = |millis: u64| start + Duration::from_millis(millis);
        if matches!(self.verdicts.last(), Some((false, _))) {
            return Standing::Down;
        }
        let open = self.open_until();
        if let Some(until) = open.filter(|until| *until > now) {
            return Standing::Open { until: at(until) };
        }
        if let Some(until) = self.cooled.iter().max().filter(|until| **until > now) {
            return Standing::Cooling { until: at(*until) };
        }
        if open.is_some() {
            return Standing::HalfOpen { busy: self.busy() };
        }
        if self.verdicts.is_empty() {
            return Standing::Unchecked;
        }
        let closed = self.turns.iter().filter(|turn| !turn.1).map(|turn| turn.0);
        let came_up = self
            .verdicts
            .iter()
            .skip(1)
            .filter(|(up, _)| *up)
            .map(|(_, at)| *at);
        // The first verdict of all gives no slow start.
        match closed.chain(came_up).max() {
            Some(back) if now - back < 10_000 => {
                Standing::Starting(0.1 + 0.9 * ((now - back) as f32 / 10_000.0))
            }
            _ => Standing::Up,
        }
    }
}

fn same(a: Standing, b: Standing) -> bool {
    match (a, b) {
        (Standing::Starting(a), Standing::Starting(b)) => (a - b).abs() < 1e-4,
        _ => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn they_agree_at_every_step(steps in proptest::collection::vec(step(), 1..80)) {
        let bench = Bench::new(true);
        let (start, mut passed) = (bench.now, 0);
        let mut twin = Twin::default();
        let mut tickets: Vec<Option<Ticket>> = Vec::new();
        for step in steps {
            let now = start + Duration::from_millis(passed);
            match step {
                Step::Pass(millis) => passed += millis,
                Step::Probe(ok) => {
                    let turn = bench.health.probed(ok, &TWO, now);
                    prop_assert_eq!(turn, twin.probe(ok, passed));
                }
                Step::Enter | Step::EnterAnyway => {
                    let anyway = matches!(step, Step::EnterAnyway);
                    let ticket = match anyway {
                        true => Some(bench.health.enter_anyway(now)),
                        false => bench.health.enter(now),
                    };
                    let entered = twin.enter(anyway, passed);
                    prop_assert_eq!(ticket.is_some(), entered.is_some());
                    if let (Some(ticket), Some(entered)) = (&ticket, entered) {
                        prop_assert_eq!(ticket.is_trial(), twin.entered[entered].trial);
                        prop_assert_eq!(entered, tickets.len());
                    }
                    tickets.extend(ticket.map(Some));
                }
                Step::Cool(millis) => {
                    bench.health.cool(now + Duration::from_millis(millis));
                    twin.cooled.push(passed + millis);
                }
                Step::Succeed(_) | Step::Fail(..) | Step::Leave(_) if tickets.is_empty() => {}
                Step::Succeed(which) => {
                    let which = which % tickets.len();
                    if let Some(ticket) = &mut tickets[which] {
                        prop_assert_eq!(ticket.succeeded(now), twin.succeed(which, passed));
                    }
                }
                Step::Fail(which, failure) => {
                    let which = which % tickets.len();
                    if let Some(ticket) = &mut tickets[which] {
                        let turn = ticket.failed(failure, now);
                        prop_assert_eq!(turn, twin.fail(which, failure, passed));
                    }
                }
                Step::Leave(which) => {
                    let which = which % tickets.len();
                    tickets[which] = None;
                    twin.entered[which].gone = true;
                }
            }
            let now = start + Duration::from_millis(passed);
            let (ours, twins) = (bench.health.standing(now), twin.standing(passed, start));
            prop_assert!(same(ours, twins), "{:?} is not {:?}: {:?}", ours, twins, twin);
        }
    }
}
