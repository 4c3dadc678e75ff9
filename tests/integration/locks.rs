//! What is tested is what is built: the lock file here agrees with the module's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The versions of packages that a lock file names: by name, and by what may not differ between
/// versions that can stand for each other.
fn versions(lock: &str) -> BTreeMap<(String, String), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(lock);
    let text = fs::read_to_string(path).unwrap();
    let packages = text.split("[[package]]").skip(1);
    packages
        .map(|package| {
            let mut values = package.split('"').skip(1).step_by(2);
            let (name, version) = (values.next().unwrap(), values.next().unwrap());
            let after_zeros = version.find(|c: char| c != '0' && c != '.').unwrap_or(0);
            let end = version[after_zeros..].find('.').map(|at| after_zeros + at);
            let series = &version[..end.unwrap_or(version.len())];
            ((name.to_owned(), series.to_owned()), version.to_owned())
        })
        .collect()
}

#[test]
fn both_lock_files_have_the_same_versions() {
    let (ours, modules) = (versions("Cargo.lock"), versions("../Cargo.lock"));
    let shared = ours.keys().filter(|key| modules.contains_key(key)).count();
    assert!(shared > 100, "{shared}");
    // Either may lack what only the other's tests need.
    for (key, version) in &ours {
        let theirs = modules.get(key).unwrap_or(version);
        assert_eq!(version, theirs, "{key:?}: copy Cargo.lock here");
    }
}
