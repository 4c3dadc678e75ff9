//! The order of the house: every import runs down, and none in a circle.
//!
//! ```text
//! lisp > engine > {bridge, smtp} > credentials > {spool, net} > {mail, mime, platform}
//! ```
//!
//! It is read from the sources: `use` declarations and paths in the code, with what a
//! module re-exports taken for an import of the file that defines it. Tests within the
//! sources are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The wings from the ground up. Those on one floor do not know of each other.
const FLOORS: &[&[&str]] = &[
    &["mail", "mime", "platform"],
    &["spool", "net"],
    &["credentials"],
    &["bridge", "smtp"],
    &["engine"],
    &["lisp"],
];

/// A module's path, such as `["net", "tls"]`; the crate's root is empty.
type Module = Vec<String>;

/// A path in the code, made absolute, and the name it has here.
struct Import {
    path: Module,
    name: String,
}

struct File {
    /// Relative to `src/`.
    name: String,
    imports: Vec<Import>,
    /// What it makes known under its own path without using it itself.
    re_exports: Vec<Import>,
}

impl File {
    fn wing(&self) -> &str {
        match self.name.split_once('/') {
            Some((wing, _)) => wing,
            None => self.name.trim_end_matches(".rs"),
        }
    }

    fn floor(&self) -> usize {
        let floor = FLOORS.iter().position(|floor| floor.contains(&self.wing()));
        floor.unwrap_or_else(|| panic!("{} is in no wing", self.name))
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    PathSeparator,
    Sign(char),
}

/// The tokens of Rust code, without comments, literals and lifetimes.
fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").unwrap() + 2
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else if rest.starts_with("::") {
            tokens.push(Token::PathSeparator);
            2
        } else if first.is_alphanumeric() || first == '_' {
            let is_inside = |c: char| c.is_alphanumeric() || c == '_';
            let length = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..length].to_owned()));
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn string(rest: &str) -> usize {
    let mut is_escaped = false;
    let end = rest[1..].find(|c| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.unwrap() + 2
}

fn raw_string(rest: &str) -> Option<usize> {
    let start = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let before = rest.len() - start.len() + hashes + 1;
    Some(before + rest[before..].find(&end).unwrap() + end.len())
}

/// A character literal; of a lifetime only the quote.
fn character(rest: &str) -> usize {
    let mut inside = rest[1..].char_indices();
    match (inside.next(), inside.next()) {
        (Some((_, '\\')), Some(_)) => rest[3..].find('\'').unwrap() + 4,
        (Some(_), Some((length, '\''))) => length + 2,
        _ => 1,
    }
}

/// The code before the tests.
fn without_tests(code: &str) -> &str {
    let tests = code.find("#[cfg(test)]\nmod tests {");
    &code[..tests.unwrap_or(code.len())]
}

/// The leaves of a `use` declaration that starts at `at`, and where it ends.
fn use_tree(tokens: &[Token], mut at: usize, before: &[String]) -> (Vec<Import>, usize) {
    let mut path = before.to_vec();
    loop {
        match &tokens[at] {
            Token::Name(name) if name == "as" => {
                let Token::Name(alias) = &tokens[at + 1] else {
                    panic!("no name after as");
                };
                let name = alias.clone();
                return (vec![Import { path, name }], at + 2);
            }
            Token::Name(name) => {
                // `a::{self}` is `a`.
                if name != "self" || path.is_empty() {
                    path.push(name.clone());
                }
                at += 1;
            }
            Token::PathSeparator => at += 1,
            Token::Sign('{') => {
                let mut leaves = Vec::new();
                at += 1;
                while tokens[at] != Token::Sign('}') {
                    let (some, end) = use_tree(tokens, at, &path);
                    leaves.extend(some);
                    at = end;
                    if tokens[at] == Token::Sign(',') {
                        at += 1;
                    }
                }
                return (leaves, at + 1);
            }
            Token::Sign('*') => panic!("a glob hides what is imported: {path:?}"),
            Token::Sign(_) => {
                let name = path.last().cloned().unwrap_or_default();
                return (vec![Import { path, name }], at);
            }
        }
    }
}

/// What the code names of other files.
fn read(name: String, code: &str, module: &Module, modules: &BTreeMap<Module, usize>) -> File {
    let tokens = tokens(without_tests(code));
    let mut used = BTreeSet::new();
    let mut declared = Vec::new();
    let mut imports = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Name(word) if word == "use" => {
                let is_public = at > 0
                    && (tokens[at - 1] == Token::Name("pub".to_owned())
                        || tokens[at - 1] == Token::Sign(')'));
                let (leaves, end) = use_tree(&tokens, at + 1, &[]);
                declared.extend(leaves.into_iter().map(|leaf| (leaf, is_public)));
                at = end;
            }
            Token::Name(_) => {
                let mut path = Vec::new();
                while let Some(Token::Name(part)) = tokens.get(at) {
                    path.push(part.clone());
                    at += 1;
                    let goes_on = tokens.get(at) == Some(&Token::PathSeparator)
                        && matches!(tokens.get(at + 1), Some(Token::Name(_)));
                    if !goes_on {
                        break;
                    }
                    at += 1;
                }
                used.insert(path[0].clone());
                if path.len() > 1 {
                    let name = path[path.len() - 1].clone();
                    imports.push(Import { path, name });
                }
            }
            _ => at += 1,
        }
    }
    let mut re_exports = Vec::new();
    for (leaf, is_public) in declared {
        if is_public && !used.contains(&leaf.name) {
            re_exports.push(leaf);
        } else {
            imports.push(leaf);
        }
    }
    let absolute = |imports: Vec<Import>| -> Vec<Import> {
        let ours = imports.into_iter().filter_map(|import| {
            Some(Import {
                path: absolute(&import.path, module, modules)?,
                name: import.name,
            })
        });
        ours.collect()
    };
    File {
        name,
        imports: absolute(imports),
        re_exports: absolute(re_exports),
    }
}

/// The path from the crate's root; `None` for one that leads out of the crate.
fn absolute(path: &[String], module: &Module, modules: &BTreeMap<Module, usize>) -> Option<Module> {
    let mut base = module.clone();
    let mut rest = path;
    match path[0].as_str() {
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        child => {
            base.push(child.to_owned());
            if !modules.contains_key(&base) {
                return None;
            }
            rest = &path[1..];
        }
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The file that defines what `path` names, through all re-exports.
fn home(path: &[String], modules: &BTreeMap<Module, usize>, files: &[File]) -> usize {
    let mut at = modules[&Module::new()];
    for (depth, part) in path.iter().enumerate() {
        let re_exported = files[at].re_exports.iter().chain(&files[at].imports);
        let re_exported = re_exported
            .filter(|import| import.name == *part && import.path != path[..=depth])
            .map(|import| &import.path)
            .next();
        let is_last = depth + 1 == path.len();
        let child = modules.get(&path[..=depth].to_vec());
        match (child, re_exported) {
            // A function may be called as the module is that has it.
            (Some(&child), None) => at = child,
            (Some(&child), Some(_)) if !is_last => at = child,
            (_, Some(target)) => {
                let whole = [target.as_slice(), &path[depth + 1..]].concat();
                return home(&whole, modules, files);
            }
            (None, None) => return at,
        }
    }
    at
}

struct House {
    files: Vec<File>,
    /// Which files each file imports.
    imports: Vec<BTreeSet<usize>>,
    /// Which files have what it only passes on.
    re_exports: Vec<BTreeSet<usize>>,
}

impl House {
    fn read() -> Self {
        let sources = sources();
        let mut names = Vec::new();
        collect(&sources, "", &mut names);
        let module_of = |name: &str| -> Module {
            let bare = name.strip_suffix(".rs").unwrap();
            let bare = bare.strip_suffix("/mod").unwrap_or(bare);
            let parts = bare.split('/').map(str::to_owned);
            parts.filter(|part| part != "lib").collect()
        };
        let modules: BTreeMap<Module, usize> = names
            .iter()
            .enumerate()
            .map(|(number, name)| (module_of(name), number))
            .collect();
        let files: Vec<File> = names
            .iter()
            .map(|name| {
                let code = fs::read_to_string(sources.join(name)).unwrap();
                read(name.clone(), &code, &module_of(name), &modules)
            })
            .collect();
        let homes = |number: usize, imports: &[Import]| -> BTreeSet<usize> {
            let homes = imports.iter();
            let homes = homes.map(|import| home(&import.path, &modules, &files));
            homes.filter(|home| *home != number).collect()
        };
        let numbered = || files.iter().enumerate();
        House {
            imports: numbered()
                .map(|(number, file)| homes(number, &file.imports))
                .collect(),
            re_exports: numbered()
                .map(|(number, file)| homes(number, &file.re_exports))
                .collect(),
            files,
        }
    }

    /// Which file names which, be it only to re-export what is there.
    fn edges(&self) -> impl Iterator<Item = (&File, &File)> {
        let edges = self.imports.iter().zip(&self.re_exports).enumerate();
        edges.flat_map(move |(from, (imports, re_exports))| {
            let targets = imports.union(re_exports);
            targets.map(move |&to| (&self.files[from], &self.files[to]))
        })
    }

    /// The files that can be reached from `from` by imports.
    fn reached(&self, from: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(next) = open.pop() {
            let new = self.imports[next].iter().filter(|to| reached.insert(**to));
            open.extend(new);
        }
        reached
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
}

fn collect(sources: &Path, under: &str, names: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(sources.join(under))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{under}{}", entry.file_name().to_str().unwrap());
        if !entry.file_type().unwrap().is_dir() {
            names.push(name);
        } else if !name.ends_with("tests") {
            collect(sources, &format!("{name}/"), names);
        }
    }
}

#[test]
fn every_import_runs_down() {
    let house = House::read();
    let mut upward = BTreeSet::new();
    for (from, to) in house.edges() {
        let is_root = from.name == "lib.rs";
        if !is_root && from.wing() != to.wing() && to.floor() >= from.floor() {
            upward.insert((from.name.as_str(), to.name.as_str()));
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn no_import_runs_in_a_circle() {
    let house = House::read();
    let mut circles = BTreeSet::new();
    for from in 0..house.files.len() {
        let reached = house.reached(from);
        if reached.contains(&from) {
            let back = reached
                .iter()
                .filter(|other| house.reached(**other).contains(&from))
                .map(|other| house.files[*other].name.as_str());
            circles.insert(back.collect::<Vec<_>>());
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_reader_sees_what_rust_sees() {
    let house = House::read();
    let imports = |from: &str, to: &str| {
        let mut edges = house.edges();
        edges.any(|(one, other)| one.name == from && other.name == to)
    };
    // Through a re-export, by a path in the code, and by `super`.
    assert!(imports("smtp/session.rs", "mail/server.rs"));
    assert!(imports("credentials/source.rs", "credentials/gpg.rs"));
    assert!(imports("smtp/wire.rs", "net/transport.rs"));
    assert!(imports("net/tls/pins.rs", "mail/server.rs"));
    assert!(!imports("smtp/wire.rs", "net/mod.rs"));
    let of = |code: &str| tokens(code).len();
    assert_eq!(of("'a' '\\'' \"b\\\"//\" r#\"c\"c\"# // d\n/* e */"), 0);
    assert_eq!(of("x: &'a str"), 5);
}

#[test]
fn no_call_on_the_file_system_goes_round_the_spools_fs() {
    for file in House::read().files {
        let is_concerned = ["spool/", "engine/"]
            .iter()
            .any(|wing| file.name.starts_with(wing));
        if is_concerned && file.name != "spool/fs.rs" {
            let text = fs::read_to_string(sources().join(&file.name)).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for call in [
                "fs::read",
                "fs::write",
                "fs::remove",
                "fs::rename",
                "fs::create",
                "File::open",
                "File::create",
                "OpenOptions",
                ".metadata()",
                "symlink_metadata",
                ".exists()",
                "sync_all",
            ] {
                let mut lines = code.lines().filter(|line| !line.contains("fs."));
                let found = lines.find(|line| line.contains(call));
                assert!(found.is_none(), "{}: {found:?}", file.name);
            }
        }
    }
}
