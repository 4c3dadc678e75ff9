//! The native side's one instance in a process, as Emacs's thread sees it: every call
//! here returns at once, having done at most a few file-system calls.

mod settings;

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::LocalSet;

use crate::bridge::{Answer, Event, Kind, Outbox, Requests};
use crate::copies::Copies;
use crate::dispatcher::{self, Command, Due};
use crate::flights::{Cancellation, Flights};
use crate::mail::{Endpoint, Path, Raw, Server, Timestamp};
use crate::shared::Shared;
use crate::spool::fs::Fs;
use crate::spool::{Claim, Entry, EntryId, Need, RecipientState, Spool, SpoolError, State, Wishes};
pub use settings::{ConfigError, Settings, Unconfirmed};

/// Why a call on the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The spool could not be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What was given can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The entry is being worked on.
    #[error("message {0} is being sent just now")]
    Busy(EntryId),
    /// There is no thread for the sessions.
    #[error("cannot start the sending thread: {0}")]
    Thread(std::io::Error),
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    spool: Arc<Spool>,
    outbox: Arc<Outbox>,
    flights: Arc<Flights>,
    copies: Arc<Copies>,
    requests: Arc<Requests>,
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    commands: UnboundedSender<Command>,
    ended: std_mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Opens the spool. No thread is started before there is something to send.
    pub fn new(
        directory: PathBuf,
        settings: Settings,
        wake: Box<dyn Write + Send>,
    ) -> Result<Self, EngineError> {
        Engine::with_fs(directory, settings, wake, Fs::default())
    }

    /// The same on another file system, for tests.
    pub fn with_fs(
        directory: PathBuf,
        settings: Settings,
        wake: Box<dyn Write + Send>,
        fs: Fs,
    ) -> Result<Self, EngineError> {
        let spool = Spool::open(directory, fs)?;
        let outbox = Outbox::new(wake);
        spool.sweep()?;
        Ok(Engine {
            spool: Arc::new(spool),
            outbox: Arc::new(outbox),
            flights: Arc::default(),
            copies: Arc::default(),
            requests: Arc::default(),
            settings: Mutex::new(settings),
            running: Mutex::new(None),
        })
    }

    /// Replaces the settings.
    pub fn configure(&self, settings: Settings) -> Result<(), EngineError> {
        let mut current = self.lock_settings();
        if *current != settings {
            *current = settings.clone();
            drop(current);
            if self.is_running() {
                self.command(Command::Configure(Box::new(settings)))?;
            }
        }
        Ok(())
    }

    fn lock_settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the events since the last call.
    pub fn drain(&self) -> Vec<Event> {
        self.outbox.drain()
    }

    /// Answers an event that asks; false if nobody waits for the answer any more.
    pub fn answer(&self, request: u64, answer: Answer) -> bool {
        self.requests.answer(request, answer)
    }

    /// Accepts a message: on return it is on disk, and will be sent.
    pub fn send(
        &self,
        message: impl Into<Raw>,
        sender: Path,
        recipients: Vec<Path>,
        server: Server,
        wishes: Wishes,
    ) -> Result<EntryId, EngineError> {
        if recipients.is_empty() {
            return Err(ConfigError::NoRecipients.into());
        }
        let message = message.into();
        if message.is_empty() {
            return Err(ConfigError::EmptyMessage.into());
        }
        let mut entry = Entry::new(sender, recipients, server, wishes);
        self.spool.commit(&mut entry, &message)?;
        if !self.spool.waits_for_origin(&entry)
            && let Err(error) = self.schedule(vec![Due::wanted(&entry)])
        {
            // It is accepted all the same: an error now would have it sent twice.
            self.outbox.push(Event::Problem(error.to_string()));
        }
        Ok(entry.id)
    }

    /// All entries with their states, oldest first. What can't be read is reported
    /// as an event.
    pub fn list(&self) -> Result<Vec<(Entry, State)>, EngineError> {
        let listing = self.spool.list(|id| self.flights.contains(id))?;
        for problem in listing.problems {
            self.outbox.push(Event::Problem(problem));
        }
        Ok(listing.entries)
    }

    /// One entry with its state.
    pub fn entry(&self, id: EntryId) -> Result<(Entry, State), EngineError> {
        Ok(self.spool.look(id, self.flights.contains(id))?)
    }

    /// An entry's `state`, with what the spool does not know: that it waits for the
    /// user to give a password.
    pub fn state_to_show(&self, entry: &Entry, state: State) -> State {
        match state {
            State::Pending if self.requests.is_asking_for(&entry.server) => State::NeedsCredentials,
            _ => state,
        }
    }

    /// The stored bytes of an entry.
    pub fn message(&self, id: EntryId) -> Result<Vec<u8>, EngineError> {
        Ok(self.spool.message(id)?)
    }

    /// Takes up everything that waits, each entry at its time. Returns how many.
    pub fn resume(&self) -> Result<usize, EngineError> {
        let patience = self.lock_settings().patience;
        let now = Timestamp::now();
        self.take_up(|entry| Due::later(entry, patience, now))
    }

    /// Tries everything that waits now, but for what is to be sent later by the user's
    /// wish. Returns how many.
    pub fn flush(&self) -> Result<usize, EngineError> {
        self.take_up(Due::wanted)
    }

    fn take_up(&self, due: impl Fn(&Entry) -> Due) -> Result<usize, EngineError> {
        let mut waiting = Vec::new();
        for (entry, state) in self.list()? {
            if entry.is_to_be_filed() {
                self.file_copy(entry.id)?;
            }
            if self.spool.is_to_be_taken_up(&entry, state) {
                waiting.push(due(&entry));
            }
        }
        let count = waiting.len();
        if count > 0 {
            self.schedule(waiting)?;
        }
        Ok(count)
    }

    /// Asks Lisp to file the copy of an accepted message, if nobody does that yet.
    fn file_copy(&self, id: EntryId) -> Result<(), EngineError> {
        match self.spool.claim(id) {
            Ok(Some(claim)) if claim.entry.is_to_be_filed() => {
                let entry = claim.entry.clone();
                if entry.is_delivered() {
                    self.copies.hold(claim);
                }
                self.tell(Kind::Unfiled, entry);
                Ok(())
            }
            Ok(_) | Err(SpoolError::NoSuchEntry(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes note that the copy of an accepted message has been filed; or that it could
    /// not be, and why. Then it is asked for again with the next resume or flush, as `copy`
    /// says if given: a part of it may be done.
    pub fn filed(
        &self,
        id: EntryId,
        problem: Option<String>,
        copy: Option<String>,
    ) -> Result<(), EngineError> {
        let mut claim = self.claim_from_filing(id)?;
        if problem.is_some() {
            claim.entry.error = problem;
            if copy.is_some() {
                claim.entry.wishes.copy = copy;
            }
            return Ok(self.spool.update(&claim)?);
        }
        claim.entry.wishes.copy = None;
        let entry = claim.entry.clone();
        if entry.is_delivered() {
            self.spool.settle(claim)?;
        } else {
            self.spool.update(&claim)?;
        }
        self.tell(Kind::Filed, entry);
        Ok(())
    }

    /// Tries one entry now, whatever became of it before; or, if it was accepted and its
    /// copy could not be filed, that.
    pub fn retry(&self, id: EntryId) -> Result<(), EngineError> {
        let mut claim = self.claim(id)?;
        claim.entry.turn(
            &[RecipientState::Failed, RecipientState::Unconfirmed],
            RecipientState::Pending,
        );
        claim.entry.hold = false;
        claim.entry.wishes.not_before = None;
        let is_to_be_filed = claim.entry.is_to_be_filed();
        if claim.entry.need == Some(Need::Auth) && self.is_running() {
            let server = Box::new(claim.entry.server.clone());
            self.command(Command::TryLoginAgain(server))?;
        }
        self.release(claim)?;
        if is_to_be_filed {
            self.file_copy(id)?;
        }
        Ok(())
    }

    /// Sets the time the user wants an entry sent at; `None` for now.
    pub fn schedule_at(
        &self,
        id: EntryId,
        not_before: Option<Timestamp>,
    ) -> Result<(), EngineError> {
        let mut claim = self.claim(id)?;
        claim.entry.wishes.not_before = not_before;
        self.release(claim)
    }

    /// Writes an entry's message, with LF line ends, to a `file` outside of the spool,
    /// which stands for it from then on: the entry is not sent while the file exists.
    pub fn export(&self, id: EntryId, file: PathBuf) -> Result<(), EngineError> {
        let mut claim = self.claim(id)?;
        claim.entry.wishes.origin = Some(file);
        self.spool.update(&claim)?;
        Ok(self.spool.export(&claim)?)
    }

    /// Holds an entry back, or lets it go again.
    pub fn hold(&self, id: EntryId, hold: bool) -> Result<(), EngineError> {
        if hold {
            return match self.cancel(id)? {
                true => Ok(()),
                false => Err(EngineError::Busy(id)),
            };
        }
        let mut claim = self.claim(id)?;
        claim.entry.hold = false;
        self.release(claim)
    }

    /// Stores a claimed entry as one that waits, and schedules it.
    fn release(&self, mut claim: Claim) -> Result<(), EngineError> {
        claim.entry.need = None;
        claim.entry.next_try = Timestamp::default();
        self.spool.update(&claim)?;
        let due = Due::wanted(&claim.entry);
        let is_ready = claim.entry.is_ready() && !self.spool.waits_for_origin(&claim.entry);
        drop(claim);
        if is_ready {
            self.schedule(vec![due])?;
        }
        Ok(())
    }

    /// Stops an entry, which stays in the spool, held. False if it is too late.
    pub fn cancel(&self, id: EntryId) -> Result<bool, EngineError> {
        match self.flights.cancel(id, false) {
            Cancellation::Stopping => {
                self.command(Command::Interrupt)?;
                return Ok(true);
            }
            Cancellation::TooLate => return Ok(false),
            Cancellation::NotInFlight => {}
        }
        let mut claim = self.claim(id)?;
        claim.entry.hold = true;
        self.spool.update(&claim)?;
        self.tell(Kind::Cancelled, claim.entry.clone());
        Ok(true)
    }

    /// Deletes an entry, stopping it first. A copy not yet filed is given up.
    pub fn remove(&self, id: EntryId) -> Result<(), EngineError> {
        match self.flights.cancel(id, true) {
            Cancellation::Stopping => return self.command(Command::Interrupt),
            Cancellation::TooLate => return Err(EngineError::Busy(id)),
            Cancellation::NotInFlight => {}
        }
        let claim = self.claim_from_filing(id)?;
        let entry = claim.entry.clone();
        self.spool.settle(claim)?;
        self.tell(Kind::Removed, entry);
        Ok(())
    }

    fn tell(&self, kind: Kind, entry: Entry) {
        self.outbox.push(Event::Outcome {
            kind,
            entry: Box::new(entry),
            error: None,
            reply: None,
        });
    }

    /// Claims an entry, if need be from where it is held until its copy is filed.
    fn claim_from_filing(&self, id: EntryId) -> Result<Claim, EngineError> {
        match self.copies.take(id) {
            Some(claim) => Ok(claim),
            None => self.claim(id),
        }
    }

    fn claim(&self, id: EntryId) -> Result<Claim, EngineError> {
        self.spool.claim(id)?.ok_or(EngineError::Busy(id))
    }

    /// Checks whether mail could be sent to `server`; the result comes as events under
    /// the number returned.
    pub fn check(&self, server: Server) -> Result<u64, EngineError> {
        let number = self.requests.number();
        self.command(Command::Check(Box::new(server), number))?;
        Ok(number)
    }

    /// Forgets that `server` has ever offered STARTTLS, and whom the user trusts there
    /// for this session.
    pub fn forget_tls(&self, server: &Server) -> Result<(), EngineError> {
        let endpoint = Endpoint::of(server);
        self.spool.forget_starttls(&endpoint)?;
        if self.is_running() {
            self.command(Command::ForgetTls(endpoint))?;
        }
        Ok(())
    }

    /// How many messages sessions work on now.
    pub fn in_flight(&self) -> usize {
        self.flights.count()
    }

    /// Stops the thread. What is in flight may still be answered, for at most `limit`.
    /// What is in the spool stays there; the next call that sends starts anew.
    pub fn stop(&self, limit: Duration) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.take() {
            // An error means that it has ended already.
            let _ = running.commands.send(Command::Stop(limit));
            let patience = limit + Duration::from_millis(500);
            if running.ended.recv_timeout(patience) != Err(std_mpsc::RecvTimeoutError::Timeout) {
                let _ = running.thread.join();
                self.flights.clear();
            }
        }
    }

    fn is_running(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_some()
    }

    fn schedule(&self, entries: Vec<Due>) -> Result<(), EngineError> {
        self.command(Command::Schedule(entries))
    }

    /// Hands a command to the thread, starting it if there is none.
    fn command(&self, command: Command) -> Result<(), EngineError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let command = match &*running {
            None => command,
            Some(live) => match live.commands.send(command) {
                Ok(()) => return Ok(()),
                // The thread died of a panic: a new one takes over.
                Err(refused) => refused.0,
            },
        };
        let started = self.start().map_err(EngineError::Thread)?;
        // Its receiver lives in the thread just started.
        let _ = started.commands.send(command);
        *running = Some(started);
        Ok(())
    }

    fn start(&self) -> std::io::Result<Running> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (ended_sender, ended) = std_mpsc::channel();
        let parts = Parts {
            spool: Arc::clone(&self.spool),
            outbox: Arc::clone(&self.outbox),
            flights: Arc::clone(&self.flights),
            copies: Arc::clone(&self.copies),
            requests: Arc::clone(&self.requests),
            settings: self.lock_settings().clone(),
        };
        let thread = std::thread::Builder::new()
            .name("rs-smtpmail".to_owned())
            .spawn(move || {
                crate::platform::block_signals();
                let outbox = Arc::clone(&parts.outbox);
                let run = AssertUnwindSafe(|| parts.run(receiver));
                if std::panic::catch_unwind(run).is_err() {
                    outbox.push(Event::Problem(
                        "internal error in the sending thread (please report it); what waits \
                         is in the spool and goes out with the next message sent or flushed"
                            .to_owned(),
                    ));
                }
                // Nobody waits if this fails.
                let _ = ended_sender.send(());
            })?;
        Ok(Running {
            commands,
            ended,
            thread,
        })
    }
}

/// What the thread takes with it.
struct Parts {
    spool: Arc<Spool>,
    outbox: Arc<Outbox>,
    flights: Arc<Flights>,
    copies: Arc<Copies>,
    requests: Arc<Requests>,
    settings: Settings,
}

impl Parts {
    fn run(self, commands: mpsc::UnboundedReceiver<Command>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let text = format!("cannot start the network runtime: {error}");
                return self.outbox.push(Event::Problem(text));
            }
        };
        let (reports, reports_receiver) = mpsc::unbounded_channel();
        let shared = Rc::new(Shared::new(
            self.spool,
            self.outbox,
            self.flights,
            self.copies,
            self.requests,
            self.settings,
            reports,
        ));
        let dispatcher = dispatcher::run(shared, commands, reports_receiver);
        LocalSet::new().block_on(&runtime, dispatcher);
        // A name lookup or gpg may still run; Emacs need not wait for it.
        runtime.shutdown_background();
    }
}
