//! Targets asked over real sockets.

use std::sync::atomic::Ordering;

use http::{HeaderName, HeaderValue, Method};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch::{Sender, channel};
use tokio::time::timeout;

use super::server::{Manner, Server, Tongue, on_a_path, untrusted};
use super::*;
use crate::model::{Engine, Health, HttpProbe, HttpStatus, Probe, TargetUrl};
use tollgate_sdk::document::FromText;

const INTERVAL: Duration = Duration::from_millis(300);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_millis(250);

fn settings(probe: Probe) -> Health {
    Health {
        probe,
        interval: INTERVAL,
        timeout: Duration::from_millis(200),
        unhealthy_after: 2,
        healthy_after: 1,
    }
}

fn watched(url: &str, probe: Probe) -> Watched {
    let url = TargetUrl::from_text(url).unwrap();
    let address = format!("127.0.0.1:{}", url.port).parse().ok();
    let health = Arc::new(TargetHealth::default());
    health.configure(true, None, Instant::now());
    Watched {
        upstream: "pool".into(),
        target: url.to_string().into(),
        settings: Arc::new(settings(probe)),
        place: Place {
            authority: HeaderValue::from_static("engine.internal"),
            server_name: "engine.internal".into(),
            verify: true,
            credentials: None,
            http2: false,
            url,
        },
        address: Arc::new(move || address),
        health,
        engine: Engine::None,
        headers: Arc::new([]),
        kv_events: None,
        state: Arc::default(),
        freed: Arc::default(),
        edition: Arc::default(),
    }
}

fn http() -> Probe {
    Probe::Http(HttpProbe::default())
}

/// All in one group.
fn together(set: Vec<Watched>) -> Arc<[Group]> {
    [set.into_iter().map(Arc::new).collect()].into()
}

struct Asking {
    sets: Sender<Arc<[Group]>>,
    turns: UnboundedReceiver<(Arc<str>, Turn, Instant)>,
    task: tokio::task::JoinHandle<()>,
}

impl Asking {
    fn start(set: Vec<Watched>) -> Asking {
        let (sets, receiver) = channel(together(set));
        let (tell, turns) = unbounded_channel();
        let task = tokio::spawn(watch(receiver, move |watched, turn, _| {
            let _ = tell.send((watched.target.clone(), turn, Instant::now()));
        }));
        Asking { sets, turns, task }
    }

    async fn turn(&mut self) -> (Arc<str>, Turn, Instant) {
        let turn = timeout(Duration::from_secs(10), self.turns.recv()).await;
        turn.expect("a turn in time").unwrap()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The server goes and comes back: down and up in time.
async fn follows(
    mut asking: Asking,
    server: Server,
    restart: impl Fn(std::net::SocketAddr) -> Server,
) {
    assert_eq!(asking.turn().await.1, Turn::WentUp);
    let address = server.stop().await;
    let gone = Instant::now();
    let (_, turn, at) = asking.turn().await;
    assert_eq!(turn, Turn::WentDown);
    // The second check finds it at the latest after two intervals.
    assert!(at - gone < INTERVAL * 2 + SLACK, "{:?}", at - gone);
    let _server = restart(address);
    let back = Instant::now();
    let (_, turn, at) = asking.turn().await;
    assert_eq!(turn, Turn::WentUp);
    assert!(at - back < INTERVAL + SLACK, "{:?}", at - back);
}

#[tokio::test]
async fn tcp_goes_down_and_comes_back_in_time() {
    let manner = Manner::of(200);
    let server = Server::start(manner.clone(), Tongue::Http).await;
    let target = watched(
        &format!("http://127.0.0.1:{}", server.address.port()),
        Probe::Tcp,
    );
    let health = target.health.clone();
    let restart = |address| Server::start_at(address, manner.clone(), Tongue::Http);
    follows(Asking::start(vec![target]), server, restart).await;
    assert!(matches!(
        health.standing(Instant::now()),
        Standing::Starting(_)
    ));
}

#[tokio::test]
async fn http_goes_down_and_comes_back_in_time() {
    let manner = Manner::of(200);
    let server = Server::start(manner.clone(), Tongue::Http).await;
    let target = watched(
        &format!("http://127.0.0.1:{}", server.address.port()),
        http(),
    );
    let restart = |address| Server::start_at(address, manner.clone(), Tongue::Http);
    follows(Asking::start(vec![target]), server, restart).await;
}

#[tokio::test]
async fn grpc_goes_down_and_comes_back_in_time() {
    let manner = Manner::of(1);
    let server = Server::start(manner.clone(), Tongue::H2c).await;
    let target = watched(
        &format!("http://127.0.0.1:{}", server.address.port()),
        Probe::Grpc,
    );
    let restart = |address| Server::start_at(address, manner.clone(), Tongue::H2c);
    follows(Asking::start(vec![target]), server, restart).await;
    assert!(
        manner
            .last
            .lock()
            .unwrap()
            .ends_with("/grpc.health.v1.Health/Check")
    );
}

#[tokio::test]
async fn what_is_answered_decides() {
    let manner = Manner::of(503);
    let server = Server::start(manner.clone(), Tongue::Http).await;
    let probe = HttpProbe {
        path: "/ready?deep=1".into(),
        method: Method::POST,
        headers: vec![(
            HeaderName::from_static("x-a"),
            HeaderValue::from_static("b"),
        )],
        body: Some("{\"ping\":1}".into()),
        expect: vec![HttpStatus(200), HttpStatus(204)],
    };
    let url = format!("http://127.0.0.1:{}/ignored", server.address.port());
    let mut asking = Asking::start(vec![watched(&url, Probe::Http(probe))]);
    assert_eq!(asking.turn().await.1, Turn::WentDown);
    manner.set(200);
    assert_eq!(asking.turn().await.1, Turn::WentUp);
    let asked = manner.last.lock().unwrap().to_lowercase();
    assert!(
        asked.starts_with("post /ready?deep=1 http/1.1\r\n"),
        "{asked}"
    );
    for part in [
        "host: engine.internal\r\n",
        "x-a: b\r\n",
        "content-length: 10\r\n",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    assert!(asked.ends_with("{\"ping\":1}"), "{asked}");
}

#[tokio::test]
async fn grpc_that_does_not_serve_is_down() {
    let manner = Manner::of(2);
    let server = Server::start(manner.clone(), Tongue::H2c).await;
    let url = format!("h2c://127.0.0.1:{}", server.address.port());
    let mut asking = Asking::start(vec![watched(&url, Probe::Grpc)]);
    assert_eq!(asking.turn().await.1, Turn::WentDown);
    manner.set(1);
    assert_eq!(asking.turn().await.1, Turn::WentUp);
    // An HTTP/2 server that does not know gRPC's health protocol.
    manner.set(404);
    assert_eq!(asking.turn().await.1, Turn::WentDown);
}

#[tokio::test]
async fn h2c_tls_and_unix_are_asked_too() {
    let manner = Manner::of(200);
    let h2c = Server::start(manner.clone(), Tongue::H2c).await;
    let tls = Server::start(manner.clone(), Tongue::Tls(untrusted())).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let _unix = on_a_path(&path, manner.clone());
    let doubted = format!("https://127.0.0.1:{}", tls.address.port());
    let mut believed = watched(&doubted, http());
    believed.upstream = "believed".into();
    believed.place.verify = false;
    let unix = format!("unix:{}", path.display());
    let mut unix_tcp = watched(&unix, Probe::Tcp);
    unix_tcp.upstream = "connected".into();
    let up = [
        watched(&format!("h2c://127.0.0.1:{}", h2c.address.port()), http()),
        believed,
        watched(&unix, http()),
        unix_tcp,
        watched(&doubted, Probe::Tcp),
    ];
    let down = {
        let mut down = watched(&doubted, http());
        down.upstream = "doubted".into();
        down
    };
    let healths: Vec<_> = up.iter().map(|w| w.health.clone()).collect();
    let mut asking = Asking::start(up.into_iter().chain([down]).collect());
    let mut turns = Vec::new();
    for _ in 0..6 {
        let (target, turn, _) = asking.turn().await;
        turns.push((target, turn));
    }
    let ups = turns
        .iter()
        .filter(|(_, turn)| *turn == Turn::WentUp)
        .count();
    assert_eq!(ups, 5, "{turns:?}");
    assert!(
        turns
            .iter()
            .any(|(target, turn)| **target == *doubted && *turn == Turn::WentDown)
    );
    for health in healths {
        assert_eq!(health.standing(Instant::now()), Standing::Up);
    }
}

#[tokio::test]
async fn one_that_hangs_times_out_and_delays_nobody() {
    let silent = Manner::of(0);
    let hanging = Server::start(silent.clone(), Tongue::Http).await;
    let good = Manner::of(200);
    let server = Server::start(good.clone(), Tongue::Http).await;
    let mut slow = watched(
        &format!("http://127.0.0.1:{}", hanging.address.port()),
        http(),
    );
    Arc::make_mut(&mut slow.settings).timeout = Duration::from_secs(2);
    let mut set = vec![slow.clone()];
    set.push(watched(
        &format!("http://127.0.0.1:{}", server.address.port()),
        http(),
    ));
    let start = Instant::now();
    let mut asking = Asking::start(set);
    let (target, turn, at) = asking.turn().await;
    assert_eq!(turn, Turn::WentUp);
    assert!(target.ends_with(&server.address.port().to_string()));
    assert!(at - start < INTERVAL + SLACK);
    let (target, turn, at) = asking.turn().await;
    assert_eq!((turn, &target), (Turn::WentDown, &slow.target));
    // Two checks of two seconds each.
    let took = at - start;
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    // Meanwhile the good one was asked at its own pace.
    let asked = good.asked.load(Ordering::SeqCst);
    assert!((11..=18).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_new_set_leaves_who_is_unchanged_alone() {
    let manner = Manner::of(200);
    let kept = Server::start(manner.clone(), Tongue::Http).await;
    let other = Manner::of(200);
    let changed = Server::start(other.clone(), Tongue::Http).await;
    let mut first = watched(&format!("http://127.0.0.1:{}", kept.address.port()), http());
    Arc::make_mut(&mut first.settings).interval = Duration::from_secs(60);
    let mut second = watched(
        &format!("http://127.0.0.1:{}", changed.address.port()),
        http(),
    );
    let mut asking = Asking::start(vec![first.clone(), second.clone()]);
    // The first of a long interval may come after a second.
    asking.turn().await;
    asking.turn().await;
    let Probe::Http(probe) = &mut Arc::make_mut(&mut second.settings).probe else {
        unreachable!()
    };
    probe.path = "/other".into();
    // Sources are closures and differ each time; they do not matter.
    first.address = Arc::new({
        let address = kept.address;
        move || Some(address)
    });
    asking
        .sets
        .send(together(vec![first.clone(), second]))
        .unwrap();
    timeout(Duration::from_secs(5), async {
        while !other.last.lock().unwrap().contains("/other") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("asked in its new way");
    tokio::time::sleep(INTERVAL).await;
    assert_eq!(manner.asked.load(Ordering::SeqCst), 1, "not started again");
    asking.sets.send(together(vec![first])).unwrap();
    tokio::time::sleep(INTERVAL).await;
    let asked = other.asked.load(Ordering::SeqCst);
    tokio::time::sleep(INTERVAL * 2).await;
    assert_eq!(other.asked.load(Ordering::SeqCst), asked, "no longer asked");
}

#[tokio::test]
async fn a_name_that_never_resolved_is_down() {
    let mut target = watched("http://nowhere.invalid:80", Probe::Tcp);
    target.address = Arc::new(|| None);
    let mut asking = Asking::start(vec![target]);
    assert_eq!(asking.turn().await.1, Turn::WentDown);
}
