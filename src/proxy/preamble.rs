//! What a proxy in front says of a connection before anything else: the PROXY protocol, versions 1 (a line) and 2 (binary), as HAProxy's
//! `proxy-protocol.txt` of 2020 defines them. Only the client's address is taken from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2's fixed part: the signature, version and command, family, length.
const FIXED: usize = 16;
/// How version 1 begins.
const LINE: &[u8; 6] = b"PROXY ";
/// Bytes of version 1's longest line, with its end.
const LONGEST_LINE: usize = 107;
/// Bytes after version 2's fixed part. Addresses are 36 at most; what a proxy tells beside them (certificates, names) seldom needs more.
const LONGEST_REST: usize = 4096;

/// Bytes of the longest of all.
pub(super) const LONGEST: usize = FIXED + LONGEST_REST;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This client's.
    Client(SocketAddr),
    /// The proxy's own (a health check, say), or it does not know.
    Own,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A whole preamble, and how many bytes it takes.
    Whole(Said, usize),
    /// The beginning of one.
    Begun,
    /// None, or a broken one: what is wrong.
    Bad(&'static str),
}

/// Reads what a connection begins with.
pub(super) fn read(bytes: &[u8]) -> Read {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes.get(..length) == with.get(..length)
    };
    if begins(SIGNATURE) {
        return binary(bytes).unwrap_or(Read::Begun);
    }
    if begins(LINE) {
        return line(bytes);
    }
    Read::Bad("it does not begin with a PROXY header")
}

fn line(bytes: &[u8]) -> Read {
    let head = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return match head.len() < LONGEST_LINE {
            true => Read::Begun,
            false => Read::Bad("its PROXY line does not end"),
        };
    };
    let text = head.get(LINE.len()..end);
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let Some(text) = text else {
        return Read::Bad("its PROXY line is no text");
    };
    match said(text) {
        Some(said) => Read::Whole(said, end + 2),
        None => Read::Bad("its PROXY line names no address"),
    }
}

/// What a line says after its first word.
fn said(text: &str) -> Option<Said> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest is to be passed over.
        return Some(Said::Own);
    }
    let (client, server) = (words.next()?, words.next()?);
    let (port, other) = (number(words.next()?)?, number(words.next()?)?);
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => Some(text.parse::<Ipv4Addr>().ok()?.into()),
            "TCP6" => Some(text.parse::<Ipv6Addr>().ok()?.into()),
            _ => None,
        }
    };
    let (client, _, _) = (address(client)?, address(server)?, other);
    let whole = words.next().is_none();
    whole.then(|| Said::Client(SocketAddr::new(client.to_canonical(), port)))
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// `None`: not all of it is there.
fn binary(bytes: &[u8]) -> Option<Read> {
    let (&[command, family, high, low], rest) =
        bytes.get(SIGNATURE.len()..)?.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Some(Read::Bad("its PROXY header is of another version than 2"));
    }
    if length > LONGEST_REST {
        return Some(Read::Bad("its PROXY header is too long"));
    }
    let rest = rest.get(..length)?;
    let own = match command & 0xF {
        0 => true,
        1 => family >> 4 == 0,
        _ => return Some(Read::Bad("its PROXY header has an unknown command")),
    };
    let said = match family {
        _ if own => Some(Said::Own),
        0x11 => v4(rest),
        0x21 => v6(rest),
        // A unix socket before the proxy: there is no address to tell.
        0x31 => (rest.len() >= 216).then_some(Said::Own),
        _ => return Some(Read::Bad("its PROXY header is of no stream")),
    };
    Some(match said {
        Some(said) => Read::Whole(said, FIXED + length),
        None => Read::Bad("its PROXY header is too short for its addresses"),
    })
}

/// Client, server, and their ports.
fn v4(rest: &[u8]) -> Option<Said> {
    let (client, rest) = rest.split_first_chunk::<4>()?;
    let (_server, rest) = rest.split_first_chunk::<4>()?;
    ports(rest, Ipv4Addr::from(*client).into())
}

fn v6(rest: &[u8]) -> Option<Said> {
    let (client, rest) = rest.split_first_chunk::<16>()?;
    let (_server, rest) = rest.split_first_chunk::<16>()?;
    ports(rest, Ipv6Addr::from(*client).to_canonical())
}

fn ports(rest: &[u8], client: IpAddr) -> Option<Said> {
    let ([high, low, _, _], _) = rest.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([*high, *low]);
    Some(Said::Client(SocketAddr::new(client, port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2 with addresses of its family and `more` after them.
    fn written(client: SocketAddr, server: SocketAddr, more: &[u8]) -> Vec<u8> {
        let (family, mut rest) = match (client.ip(), server.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (0x11, [a.octets(), b.octets()].concat()),
            (a, b) => {
                let wide = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                (0x21, [wide(a), wide(b)].concat())
            }
        };
        rest.extend(client.port().to_be_bytes());
        rest.extend(server.port().to_be_bytes());
        rest.extend(more);
        let mut header = SIGNATURE.to_vec();
        header.extend([0x21, family]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits)).to_canonical()),
        ];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    /// Every part of it is its beginning, and what follows it is not looked at.
    fn comes_in_any_pieces(header: &[u8], said: Said) {
        for length in 0..header.len() {
            assert_eq!(read(&header[..length]), Read::Begun, "{length}");
        }
        let followed = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(read(&followed), Read::Whole(said, header.len()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(client in address(), server in address(), more in prop::collection::vec(any::<u8>(), 0..200)) {
            comes_in_any_pieces(&written(client, server, &more), Said::Client(client));
        }

        #[test]
        fn lines_that_are_written_are_read(client in address(), server in address()) {
            let family = match (client.is_ipv4(), server.is_ipv4()) {
                (true, true) => "TCP4",
                (false, false) => "TCP6",
                _ => return Ok(()),
            };
            let (from, to) = (client.ip(), server.ip());
            let line = format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), server.port());
            comes_in_any_pieces(line.as_bytes(), Said::Client(client));
        }

        #[test]
        fn anything_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64), begin in prop::sample::select(vec![&b""[..], LINE, SIGNATURE])) {
            let bytes = [begin, &bytes].concat();
            if let Read::Whole(_, length) = read(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }

    #[test]
    fn who_does_not_know_is_the_client() {
        comes_in_any_pieces(b"PROXY UNKNOWN\r\n", Said::Own);
        comes_in_any_pieces(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Said::Own);
        let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
        comes_in_any_pieces(&local, Said::Own);
        let unspecified = [&SIGNATURE[..], &[0x21, 0, 0, 3, 1, 2, 3]].concat();
        comes_in_any_pieces(&unspecified, Said::Own);
    }

    #[test]
    fn what_is_none_is_refused() {
        let bad = |bytes: &[u8]| {
            assert!(matches!(read(bytes), Read::Bad(_)), "{bytes:?}");
        };
        bad(b"GET / HTTP/1.1\r\n");
        bad(b"PROXYTCP4");
        bad(b"\r\n\r\nGET");
        for line in [
            "TCP4 1.2.3.4 1.2.3.5 1",
            "TCP4 1.2.3.4 1.2.3.5 1 2 3",
            "TCP4 1.2.3.4  1.2.3.5 1 2",
            "TCP4 ::1 ::2 1 2",
            "TCP6 1.2.3.4 1.2.3.5 1 2",
            "TCP4 1.2.3.04 1.2.3.5 1 2",
            "TCP4 1.2.3.4 1.2.3.5 +1 2",
            "TCP4 1.2.3.4 1.2.3.5 01 2",
            "TCP4 1.2.3.4 1.2.3.5 65536 2",
            "UDP4 1.2.3.4 1.2.3.5 1 2",
            "tcp4 1.2.3.4 1.2.3.5 1 2",
            "",
        ] {
            bad(format!("PROXY {line}\r\n").as_bytes());
        }
        bad(&[&LINE[..], &[b'x'; 200]].concat());
        let header = |tail: &[u8]| [&SIGNATURE[..], tail].concat();
        // Version, command, family, addresses that do not fit, a length nobody needs.
        bad(&header(&[0x31, 0x11, 0, 0]));
        bad(&header(&[0x2f, 0x11, 0, 0]));
        bad(&header(&[0x21, 0x12, 0, 0]));
        bad(&header(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]));
        bad(&header(&[
            0x21, 0x21, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ]));
        bad(&header(&[0x21, 0x11, 0xff, 0xff]));
    }
}
