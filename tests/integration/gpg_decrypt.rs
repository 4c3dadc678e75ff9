//! Decryption with a real GnuPG, in a throw-away home with throw-away keys.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use rs_smtpmail::credentials::gpg::{self, GpgError, GpgErrorKind};
use rs_smtpmail::credentials::{Ask, Query, forget, search_file};
use zeroize::Zeroizing;

const TEXT: &str = "machine mail.example login ann password p\u{e4}ss\n";
const PASSPHRASE: &str = "correct horse";

/// A process of its own, for gpgme takes its home from the environment.
#[test]
fn decryption() {
    // The path of the agent's socket must be short: tests/isolated sees to that.
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gpg_decrypt::process_with_a_gnupg_home"])
        .env("GNUPGHOME", home.path())
        .env("RS_SMTPMAIL_GNUPG_HOME", home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// Not a test of its own: the process that [`decryption`] starts.
#[test]
fn process_with_a_gnupg_home() {
    let Some(home) = std::env::var_os("RS_SMTPMAIL_GNUPG_HOME") else {
        return;
    };
    let gnupg = Gnupg::new(home.into());
    a_key_without_passphrase(&gnupg);
    a_key_with_passphrase(&gnupg);
    a_symmetric_key(&gnupg);
    trouble_is_told_apart(&gnupg);
    decrypted_text_is_kept_until_forgotten(&gnupg);
    a_secret_may_be_encrypted_by_itself(&gnupg);
    an_expired_key(&gnupg);
    a_key_on_a_card_that_is_not_there(&gnupg);
    #[cfg(target_os = "linux")]
    an_agent_started_by_us_takes_signals(&gnupg);
    an_agent_that_cannot_be_started(&gnupg);
    without_gnupg(&gnupg);
}

fn a_key_without_passphrase(gnupg: &Gnupg) {
    let path = gnupg.encrypt(
        "open.gpg",
        &["--recipient", "open@mail.example", "--encrypt"],
    );
    assert_eq!(plain(decrypt(&path, None)), TEXT);
    let mut asked = Vec::new();
    assert_eq!(
        plain(decrypt(&path, Some(&mut answer("", &mut asked)))),
        TEXT
    );
    assert_eq!(asked, [""; 0]);
}

fn a_key_with_passphrase(gnupg: &Gnupg) {
    let path = gnupg.encrypt(
        "locked.gpg",
        &["--recipient", "locked@mail.example", "--encrypt"],
    );
    let mut asked = Vec::new();
    assert_eq!(
        plain(decrypt(&path, Some(&mut answer(PASSPHRASE, &mut asked)))),
        TEXT
    );
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("<locked@mail.example>"), "{asked:?}");

    gnupg.forget_passphrases();
    let mut asked = Vec::new();
    let error = decrypt(&path, Some(&mut answer("wrong", &mut asked))).unwrap_err();
    expect(&error, GpgErrorKind::BadPassphrase, &path);
    let error = decrypt(&path, Some(&mut |_| Err("quit".to_owned()))).unwrap_err();
    expect(&error, GpgErrorKind::Cancelled, &path);
    assert!(error.to_string().contains("quit"), "{error}");
    let error = decrypt(&path, None).unwrap_err();
    expect(&error, GpgErrorKind::NoPinentry, &path);
}

fn a_symmetric_key(gnupg: &Gnupg) {
    let path = gnupg.encrypt(
        "symmetric.gpg",
        &["--passphrase", PASSPHRASE, "--symmetric"],
    );
    gnupg.forget_passphrases();
    let error = decrypt(&path, None).unwrap_err();
    expect(&error, GpgErrorKind::NoPinentry, &path);
    let mut asked = Vec::new();
    let error = decrypt(&path, Some(&mut answer("wrong", &mut asked))).unwrap_err();
    expect(&error, GpgErrorKind::BadPassphrase, &path);
    let error = decrypt(&path, Some(&mut |_| Err("quit".to_owned()))).unwrap_err();
    expect(&error, GpgErrorKind::Cancelled, &path);
    let mut asked = Vec::new();
    assert_eq!(
        plain(decrypt(&path, Some(&mut answer(PASSPHRASE, &mut asked)))),
        TEXT
    );
    assert_eq!(asked, [path.display().to_string()]);
}

fn trouble_is_told_apart(gnupg: &Gnupg) {
    let path = gnupg.encrypt(
        "lost.gpg",
        &["--recipient", "lost@mail.example", "--encrypt"],
    );
    gnupg.delete_secret_key("lost@mail.example");
    expect(
        &decrypt(&path, None).unwrap_err(),
        GpgErrorKind::NoSecretKey,
        &path,
    );

    let path = gnupg.path("plain.gpg");
    for text in [TEXT, ""] {
        fs::write(&path, text).unwrap();
        expect(
            &decrypt(&path, None).unwrap_err(),
            GpgErrorKind::NotOpenPgp,
            &path,
        );
    }

    let path = gnupg.encrypt(
        "damaged.gpg",
        &["--recipient", "open@mail.example", "--encrypt"],
    );
    let mut bytes = fs::read(&path).unwrap();
    let near_the_end = bytes.len() - 10;
    bytes[near_the_end] ^= 1;
    fs::write(&path, bytes).unwrap();
    expect(
        &decrypt(&path, None).unwrap_err(),
        GpgErrorKind::Other,
        &path,
    );
}

fn decrypted_text_is_kept_until_forgotten(gnupg: &Gnupg) {
    let path = gnupg.path("symmetric.gpg");
    let search = |asks: bool| {
        gnupg.forget_passphrases();
        let mut asked = Vec::new();
        let found = search_file(&path, &query(), Some(&mut answer(PASSPHRASE, &mut asked)));
        let found = found.unwrap().unwrap();
        assert_eq!(found.user.as_deref(), Some("ann"));
        assert_eq!(*found.secret.unwrap(), "p\u{e4}ss");
        assert_eq!(asked.len(), usize::from(asks));
    };
    search(true);
    search(false);
    forget();
    search(true);
    gnupg.encrypt("new.gpg", &["--passphrase", PASSPHRASE, "--symmetric"]);
    fs::rename(gnupg.path("new.gpg"), &path).unwrap();
    search(true);
    search(false);
}

fn a_secret_may_be_encrypted_by_itself(gnupg: &Gnupg) {
    let recipient = ["--recipient", "open@mail.example", "--armor", "--encrypt"];
    let token = fs::read(gnupg.encrypt_text("token.asc", &recipient, "s\u{eb}cret")).unwrap();
    let token = base64::engine::general_purpose::STANDARD.encode(token);
    let path = gnupg.path("authinfo");
    fs::write(&path, format!("machine mail.example password gpg:{token}")).unwrap();
    let found = search_file(&path, &query(), None).unwrap().unwrap();
    assert_eq!(*found.secret.unwrap(), "s\u{eb}cret");
}

fn an_agent_that_cannot_be_started(gnupg: &Gnupg) {
    fs::write(gnupg.path("gpg.conf"), "no-autostart\n").unwrap();
    gnupg.kill_agent();
    for name in ["open.gpg", "symmetric.gpg"] {
        let path = gnupg.path(name);
        expect(
            &decrypt(&path, None).unwrap_err(),
            GpgErrorKind::NoAgent,
            &path,
        );
    }
}

/// It still decrypts, as with gpg.
fn an_expired_key(gnupg: &Gnupg) {
    let then = ["--faked-system-time", "20200101T000000!"];
    let key = ["--passphrase", "", "--quick-gen-key", "<old@mail.example>"];
    gnupg.gpg(
        &[&then[..], &key, &["future-default", "default", "1d"]].concat(),
        "",
    );
    let recipient = ["--recipient", "old@mail.example", "--encrypt"];
    let path = gnupg.encrypt("old.gpg", &[&then[..], &recipient].concat());
    assert_eq!(plain(decrypt(&path, None)), TEXT);
}

/// The secret key is replaced by what is left of it when it has been moved to a card.
fn a_key_on_a_card_that_is_not_there(gnupg: &Gnupg) {
    let path = gnupg.encrypt(
        "card.gpg",
        &["--recipient", "card@mail.example", "--encrypt"],
    );
    let listed = gnupg.gpg(
        &["--with-colons", "--with-keygrip", "-K", "card@mail.example"],
        "",
    );
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut grips = listed.lines().filter(|line| line.starts_with("grp:"));
    let grip = grips.next_back().unwrap().split(':').nth(9).unwrap();
    let file = gnupg.path(&format!("private-keys-v1.d/{grip}.key"));
    let key = fs::read_to_string(&file).unwrap();
    let (public, _) = key.split_once("(d #").expect("a key without passphrase");
    let public = public.replace("(private-key", "(shadowed-private-key");
    let moved =
        format!("{public}(shadowed t1-v1 (#D2760001240102000006000000010000# OPENPGP.2))))\n");
    fs::remove_file(&file).unwrap();
    fs::write(&file, moved).unwrap();
    gnupg.kill_agent();
    let error = decrypt(&path, Some(&mut answer("", &mut Vec::new()))).unwrap_err();
    expect(&error, GpgErrorKind::NoCard, &path);
}

/// As the threads are that decrypt, ours are deaf.
#[cfg(target_os = "linux")]
fn an_agent_started_by_us_takes_signals(gnupg: &Gnupg) {
    let path = gnupg.path("open.gpg");
    let blocked = || {
        let pid = gnupg.connect_agent("GETINFO pid");
        let pid = pid.strip_prefix("D ").and_then(|rest| rest.lines().next());
        let status = fs::read_to_string(format!("/proc/{}/status", pid.unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("SigBlk:"));
        line.unwrap().to_owned()
    };
    gnupg.kill_agent();
    gnupg.gpgconf(&["--launch", "gpg-agent"]);
    let usual = blocked();
    gnupg.kill_agent();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: all zeroes is a valid set, and only this thread's mask changes.
            let before = unsafe {
                let mut signals: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut signals);
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const signals, std::ptr::null_mut());
                thread_mask()
            };
            assert_eq!(plain(decrypt(&path, None)), TEXT);
            assert_eq!(thread_mask(), before);
            assert_ne!(before, usual);
        });
    });
    assert_eq!(blocked(), usual);
}

#[cfg(target_os = "linux")]
fn thread_mask() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("SigBlk:"));
    line.unwrap().to_owned()
}

fn without_gnupg(gnupg: &Gnupg) {
    let path = gnupg.path("open.gpg");
    gpgme::init()
        .set_engine_path(gpgme::Protocol::OpenPgp, "/nonexistent/gpg")
        .unwrap();
    expect(
        &decrypt(&path, None).unwrap_err(),
        GpgErrorKind::NoGnuPg,
        &path,
    );
}

fn query() -> Query {
    Query {
        host: "mail.example".to_owned(),
        port: "587".to_owned(),
        user: None,
    }
}

fn decrypt(path: &Path, ask: Option<Ask<'_>>) -> Result<Zeroizing<Vec<u8>>, GpgError> {
    gpg::decrypt(path, &fs::read(path).unwrap(), ask)
}

fn plain(decrypted: Result<Zeroizing<Vec<u8>>, GpgError>) -> String {
    String::from_utf8(decrypted.unwrap().to_vec()).unwrap()
}

/// Gives `passphrase`, and notes what for.
fn answer(
    passphrase: &str,
    asked: &mut Vec<String>,
) -> impl FnMut(&str) -> Result<Zeroizing<String>, String> {
    move |hint| {
        asked.push(hint.to_owned());
        Ok(Zeroizing::new(passphrase.to_owned()))
    }
}

fn expect(error: &GpgError, kind: GpgErrorKind, path: &Path) {
    assert_eq!(error.kind(), kind, "{error}");
    let name = path.display().to_string();
    assert!(error.to_string().contains(&name), "{error}");
}

/// A GnuPG home with the keys of open@, locked@ (with a passphrase), lost@ and
/// card@mail.example, and an agent without pinentry.
struct Gnupg {
    home: PathBuf,
}

impl Gnupg {
    fn new(home: PathBuf) -> Self {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&home, private).unwrap();
        let settings = "allow-loopback-pinentry\npinentry-program /nonexistent/pinentry\n";
        fs::write(home.join("gpg-agent.conf"), settings).unwrap();
        let gnupg = Gnupg { home };
        for (name, passphrase) in [
            ("open", ""),
            ("locked", PASSPHRASE),
            ("lost", ""),
            ("card", ""),
        ] {
            let user = format!("Ann <{name}@mail.example>");
            let key = [
                "--quick-gen-key",
                &user,
                "future-default",
                "default",
                "never",
            ];
            gnupg.gpg(&[&["--passphrase", passphrase], &key[..]].concat(), "");
        }
        gnupg
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn encrypt(&self, name: &str, how: &[&str]) -> PathBuf {
        self.encrypt_text(name, how, TEXT)
    }

    fn encrypt_text(&self, name: &str, how: &[&str], text: &str) -> PathBuf {
        let path = self.path(name);
        let output = [
            "--trust-model",
            "always",
            "--output",
            path.to_str().unwrap(),
        ];
        self.gpg(&[&output, how].concat(), text);
        path
    }

    fn delete_secret_key(&self, user: &str) {
        let listed = self.gpg(&["--with-colons", "--list-secret-keys", user], "");
        let listed = String::from_utf8(listed.stdout).unwrap();
        let line = listed
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .unwrap();
        let fingerprint = line.split(':').nth(9).unwrap();
        self.gpg(&["--yes", "--delete-secret-keys", fingerprint], "");
    }

    fn gpg(&self, arguments: &[&str], input: &str) -> Output {
        let mut gpg = Command::new("gpg")
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("this test needs gpg on PATH: {error}"));
        gpg.stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = gpg.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {errors}");
        output
    }

    fn forget_passphrases(&self) {
        self.gpgconf(&["--reload", "gpg-agent"]);
    }

    fn kill_agent(&self) {
        self.gpgconf(&["--kill", "gpg-agent"]);
    }

    /// What the agent answers to `command`.
    #[cfg(target_os = "linux")]
    fn connect_agent(&self, command: &str) -> String {
        let output = Command::new("gpg-connect-agent")
            .args(["--no-autostart", command, "/bye"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn gpgconf(&self, arguments: &[&str]) {
        // Without an agent there is nothing to do: no success needed.
        let _ = Command::new("gpgconf").args(arguments).output();
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        self.kill_agent();
        self.gpgconf(&["--remove-socketdir"]);
    }
}
