//! No text makes an address that breaks a command, and addresses parse as themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rs_smtpmail::mail::{Path, parse_address_list};

fuzz_target!(|text: &str| {
    let Ok(paths) = parse_address_list(text, "To") else {
        return;
    };
    for path in paths {
        assert!(!path.as_str().chars().any(char::is_control));
        assert_eq!(Path::parse(path.as_str(), "again").as_ref(), Ok(&path));
        if let Some(ascii) = path.to_ascii() {
            assert!(ascii.is_ascii());
        }
    }
});
