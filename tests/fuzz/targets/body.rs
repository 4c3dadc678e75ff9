//! No content ends the data, and taking the stuffed dots off gives the content back.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use rs_smtpmail::mail::Raw;
use rs_smtpmail::smtp::Body;

fuzz_target!(|raw: &[u8]| {
    let mut canonical = Vec::new();
    Raw::from(raw).write_canonical(&mut canonical).unwrap();
    for (at, &octet) in canonical.iter().enumerate() {
        assert!(octet != b'\r' || canonical.get(at + 1) == Some(&b'\n'));
        assert!(octet != b'\n' || (at > 0 && canonical[at - 1] == b'\r'));
    }
    let size = canonical.len() as u64;
    let mut body = Body::new(Box::new(Cursor::new(canonical.clone())), size, true);
    let mut wire = Vec::new();
    while body.append_block(&mut wire).unwrap() {}
    let mut plain = Vec::new();
    for line in wire.split_inclusive(|&octet| octet == b'\n') {
        assert_ne!(line, b".\r\n");
        plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    assert_eq!(plain, canonical);
});
