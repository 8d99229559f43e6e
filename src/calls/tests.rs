use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A server that reads a head and answers with what it is told, connection by connection.
struct Server {
    address: SocketAddr,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

/// How the connection goes on after each of its requests.
type Script = fn(&mut std::net::TcpStream);

fn serve(script: Script) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server {
        address: listener.local_addr().unwrap(),
        heads: Arc::default(),
        connections: Arc::default(),
    };
    let (heads, connections) = (server.heads.clone(), server.connections.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (heads, mut stream) = (heads.clone(), stream.unwrap());
            connections.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut stream) {
                    heads.lock().unwrap().push(head);
                    script(&mut stream);
                }
            });
        }
    });
    server
}

fn read_head(stream: &mut std::net::TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn get(address: impl std::fmt::Display) -> Request<Bytes> {
    let request = Request::get(format!("http://{address}/x"));
    request.body(Bytes::new()).unwrap()
}

fn once(script: Script, most: usize) -> Result<Response<Bytes>, CallError> {
    let server = serve(script);
    runtime().block_on(Calls::new().call(get(server.address), LONG, most))
}

fn fine(stream: &mut std::net::TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody");
}

#[test]
fn an_answer_is_read_whole_and_its_connection_kept() {
    let server = serve(fine);
    let calls = Calls::new();
    runtime().block_on(async {
        for _ in 0..3 {
            let answer = calls.call(get(server.address), LONG, 4).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(&answer.body()[..], b"body");
        }
    });
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let host = format!("host: {}\r\n", server.address);
    let heads = server.heads.lock().unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.starts_with("GET /x HTTP/1.1\r\n"))
    );
    assert!(heads.iter().all(|head| head.contains(&host)), "{heads:?}");
}

#[test]
fn a_connection_whose_runtime_is_gone_is_not_used_again() {
    let server = serve(fine);
    let calls = Calls::new();
    for _ in 0..3 {
        let answer = runtime().block_on(calls.call(get(server.address), LONG, 4));
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[test]
fn an_answer_that_is_too_large_is_not_read() {
    assert_eq!(once(fine, 3).unwrap_err(), CallError::TooLarge);
    // Nobody says how long it is, and it never ends.
    let endless: Script = |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while stream.write_all(b"4\r\nbody\r\n").is_ok() {}
    };
    assert_eq!(once(endless, 1000).unwrap_err(), CallError::TooLarge);
    let endless_head: Script = |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x: aaaaaaaaaaaaaaaaaaaa\r\n").is_ok() {}
    };
    assert_eq!(once(endless_head, 1000).unwrap_err(), CallError::Broken);
}

#[test]
fn what_breaks_off_or_is_no_http_is_broken() {
    let cut: Script = |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nbody");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    };
    let other: Script = |stream| {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
    };
    let nothing: Script = |stream| {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    };
    for script in [cut, other, nothing] {
        assert_eq!(once(script, 1000).unwrap_err(), CallError::Broken);
    }
}

#[test]
fn a_redirect_is_an_answer() {
    let elsewhere: Script = |stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        );
    };
    assert_eq!(once(elsewhere, 1000).unwrap().status(), 302);
}

#[test]
fn patience_bounds_the_head_and_the_body() {
    let silent: Script = |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nbody");
    };
    let mute: Script = |_| {};
    for script in [silent, mute] {
        let server = serve(script);
        let call = Calls::new().call(get(server.address), Duration::from_millis(50), 1000);
        assert_eq!(runtime().block_on(call).unwrap_err(), CallError::Timeout);
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let calls = Calls::new();
    let refused = |uri: &str| {
        let request = Request::get(uri).body(Bytes::new()).unwrap();
        runtime()
            .block_on(calls.call(request, LONG, 1000))
            .unwrap_err()
    };
    assert_eq!(refused("/relative"), CallError::Broken);
    assert_eq!(refused("ftp://127.0.0.1/"), CallError::Broken);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(refused(&format!("http://{closed}/")), CallError::Connect);
    // TLS to somebody who speaks none.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"220 mail.example.com ESMTP\r\n");
        }
    });
    assert_eq!(refused(&format!("https://{address}/")), CallError::Connect);
}
