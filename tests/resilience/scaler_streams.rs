//! Streams of KEDA's external scaler when one side of them goes, or opens too many.

use super::upgrade::{gone, upgrade};
use crate::harness::keda::{Activity, Keda, object};
use crate::harness::{Gateway, Process, RESET, RawH2, scaled};

/// As many as may be open.
const MOST: usize = 256;
/// More calls than anybody may leave.
const MANY: u32 = 20_000;

fn asleep() -> String {
    scaled("max = 1\ntarget = 1.0", "{ type = \"none\" }", "")
}

fn open(gateway: &Gateway, wanted: usize) {
    gateway.wait_for("tollgate_scaler_streams", &[], |n| n == wanted as f64);
}

#[test]
fn a_stream_that_is_left_leaves_nothing_behind() {
    let gateway = Gateway::start(&asleep());
    let keda = Keda::connect(gateway.admin_address());
    // More in a row than may be open at once.
    for _ in 0..MOST + 50 {
        let mut activity = keda.watch("qwen");
        assert!(!activity.next());
        activity.cancel();
    }
    open(&gateway, 0);
    // And with its connection.
    let activity = keda.watch("qwen");
    open(&gateway, 1);
    drop((activity, keda));
    open(&gateway, 0);
    gateway.assert_gauges_zero();
}

/// Who opens one too many is told so, and the others are asked and answered beside them, on the same connection.
#[test]
fn there_is_room_for_questions_beside_all_streams() {
    let gateway = Gateway::start(&asleep());
    let keda = Keda::connect(gateway.admin_address());
    let mut activities: Vec<Activity> = (0..MOST).map(|_| keda.watch("qwen")).collect();
    assert!(activities.iter_mut().all(|activity| !activity.next()));
    let asked = object(&[("service", "qwen")]);
    keda.call("StreamIsActive", &asked)
        .assert_refused(8, "type: external");
    keda.call("IsActive", &asked).assert_is(&[]);
    assert!(gateway.admin("/healthz").status == 200);
    activities.pop().unwrap().cancel();
    open(&gateway, MOST - 1);
    assert!(!keda.watch("qwen").next());
}

/// The stream ends as it should, so that KEDA opens the next one soon, and finds the new process.
#[test]
fn the_next_process_takes_over() {
    let process = Process::start_own(&asleep(), &[]);
    let keda = Keda::connect(process.admin);
    let mut activity = keda.watch("qwen");
    assert!(!activity.next());
    let (old, _) = upgrade(&process);
    assert_eq!(activity.ends(), (0, String::new()));
    gone(old);
    let keda = Keda::connect(process.admin);
    assert!(!keda.watch("qwen").next());
}

/// Calls that are begun and reset at once (CVE-2023-44487).
#[test]
fn who_calls_and_resets_is_cut_off() {
    const ASK: &[(&[u8], &[u8])] = &[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/externalscaler.ExternalScaler/IsActive"),
        (b":authority", b"test"),
        (b"content-type", b"application/grpc"),
    ];
    let gateway = Gateway::start(&asleep());
    let mut client = RawH2::connect(gateway.admin_address());
    let over = (0..MANY).any(|turn| {
        let stream = turn * 2 + 1;
        client.headers(stream, ASK, false);
        client.frame(RESET, 0, stream, &[0, 0, 0, 8]);
        client.skim()
    });
    assert!(over, "{MANY} calls were begun and reset");
    assert_eq!(gateway.admin("/healthz").status, 200);
}
