//! Other ways to the server: a SOCKS proxy, a Unix socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::code;
use smtp_test_server::{Options, Server, SocksProxy, deadline};

/// Says `sent` step by step; what comes back, and then up to the end of a line.
fn socks(proxy: &SocksProxy, steps: &[(&[u8], usize)]) -> (Vec<Vec<u8>>, TcpStream) {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(deadline())).unwrap();
    let mut replies = Vec::new();
    for (sent, octets) in steps {
        stream.write_all(sent).unwrap();
        let mut reply = vec![0; *octets];
        stream.read_exact(&mut reply).unwrap();
        replies.push(reply);
    }
    (replies, stream)
}

fn greeting(stream: &mut impl std::io::Read) -> String {
    let mut octets = [0; 4];
    stream.read_exact(&mut octets).unwrap();
    String::from_utf8_lossy(&octets).into_owned()
}

#[test]
fn the_proxy_leads_to_the_server() {
    let server = Server::start(Options::default());
    let proxy = SocksProxy::start(server.port());
    let call = b"\x05\x01\x00\x03\x0cmail.example\x02\x4b";
    let (replies, mut stream) = socks(&proxy, &[(b"\x05\x01\x00", 2), (call, 10)]);
    assert_eq!(replies[0], b"\x05\x00");
    assert_eq!(&replies[1][..2], b"\x05\x00");
    assert_eq!(greeting(&mut stream), "220 ");
    let call = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x19";
    socks(&proxy, &[(b"\x05\x01\x00", 2), (call, 10)]);
    let expected = [
        ("mail.example".to_owned(), 587),
        ("127.0.0.1".to_owned(), 25),
    ];
    assert_eq!(proxy.calls(), expected);
}

#[test]
fn the_proxy_can_be_choosy() {
    let server = Server::start(Options::default());
    let proxy = SocksProxy::with_credentials(server.port(), "me", "secret");
    let (replies, _) = socks(&proxy, &[(b"\x05\x01\x00", 2)]);
    assert_eq!(replies[0], b"\x05\xff");
    let (replies, _) = socks(&proxy, &[(b"\x05\x01\x02", 2), (b"\x01\x02me\x03bad", 2)]);
    assert_eq!(replies[1], b"\x01\x01");
    let call = b"\x05\x01\x00\x03\x01x\x00\x19";
    let steps: &[(&[u8], usize)] = &[
        (b"\x05\x02\x00\x02", 2),
        (b"\x01\x02me\x06secret", 2),
        (call, 10),
    ];
    let (replies, mut stream) = socks(&proxy, steps);
    assert_eq!(replies[1], b"\x01\x00");
    assert_eq!(greeting(&mut stream), "220 ");
    let proxy = SocksProxy::refusing();
    let (replies, _) = socks(&proxy, &[(b"\x05\x01\x00", 2), (call, 10)]);
    assert_eq!(replies[1][1], 4);
}

#[test]
fn a_unix_socket_is_a_door_too() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let server = Server::start(Options {
        unix_socket: Some(socket.clone()),
        ..Options::default().lmtp()
    });
    let mut stream = UnixStream::connect(socket).unwrap();
    assert_eq!(code(&greeting(&mut stream)), 220);
    assert_eq!(server.connections().len(), 1);
}
