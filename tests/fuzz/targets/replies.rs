//! However the server's octets come in, the replies read from them are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rs_smtpmail::smtp::{Reply, ReplyError, ReplyReader};

fn read(octets: &[u8], at_a_time: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let mut reader = ReplyReader::default();
    let mut replies = Vec::new();
    for piece in octets.chunks(at_a_time) {
        reader.feed(piece);
        loop {
            match reader.next_reply() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

fuzz_target!(|octets: &[u8]| {
    let (whole, _) = read(octets, octets.len().max(1));
    let (pieces, _) = read(octets, 7);
    assert_eq!(whole, pieces);
    for reply in whole {
        assert!((200..600).contains(&reply.code()));
        assert!(!reply.to_string().contains('\r'));
    }
});
