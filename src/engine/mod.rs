//! The native side's one instance in a process, as Emacs's thread sees it: every call
//! here returns at once, having done at most a few file-system calls.

mod authentication;
mod backoff;
mod check;
mod context;
mod delivery;
mod destination;
mod in_flight;
mod login;
mod scheduler;
mod settings;
mod settle;
mod thread;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

pub use backoff::Backoff;
use context::{Shared, tell};
use in_flight::{Stop, Stopping, UserClaim};
use scheduler::{Command, Due};
pub use settings::{ConfigError, Settings, Unconfirmed};
use thread::Thread;

use crate::bridge::{Answer, Event, Events, Kind};
use crate::mail::{Clock, Endpoint, Path, Raw, Server, Timestamp};
use crate::spool::fs::Fs;
use crate::spool::{Entry, EntryId, Need, RecipientState, Spool, SpoolError, State, Wishes};

/// How long the user's thread waits for a session to let go of a message that it stops:
/// the time of a few writes to the disk.
const LETTING_GO: Duration = Duration::from_secs(1);

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
    /// It will be stopped, but is not yet.
    #[error("message {0} will be stopped; that could not be written down so far")]
    Stopping(EntryId),
    /// There is no thread for the sessions.
    #[error("cannot start the sending thread: {0}")]
    Thread(std::io::Error),
}

/// What an engine takes from around it.
pub struct World {
    /// Where the spool is kept.
    pub fs: Fs,
    /// Tells the time.
    pub clock: Clock,
    /// Makes the ids of messages, the only random thing: pauses are spread by them.
    pub new_id: NewId,
}

/// Makes an id that is not that of any other message.
pub type NewId = Box<dyn Fn() -> EntryId + Send + Sync>;

/// The system's own.
impl Default for World {
    fn default() -> Self {
        World {
            fs: Fs::default(),
            clock: Clock::default(),
            new_id: Box::new(EntryId::new),
        }
    }
}

/// The running engine.
pub struct Engine {
    shared: Shared,
    new_id: NewId,
    settings: Mutex<Settings>,
    thread: Mutex<Option<Thread>>,
}

impl Engine {
    /// Opens the spool. No thread is started before there is something to send.
    pub fn new(
        directory: PathBuf,
        settings: Settings,
        wake: Box<dyn Write + Send>,
    ) -> Result<Self, EngineError> {
        Engine::within(directory, settings, wake, World::default())
    }

    /// The same in another world, for tests.
    pub fn within(
        directory: PathBuf,
        settings: Settings,
        wake: Box<dyn Write + Send>,
        world: World,
    ) -> Result<Self, EngineError> {
        let spool = Spool::open(directory, world.fs)?;
        let events = Events::new(wake);
        spool.sweep()?;
        Ok(Engine {
            shared: Shared {
                spool: Arc::new(spool),
                events: Arc::new(events),
                in_flight: Arc::default(),
                requests: Arc::default(),
                clock: world.clock,
            },
            new_id: world.new_id,
            settings: Mutex::new(settings),
            thread: Mutex::new(None),
        })
    }

    /// Replaces the settings.
    pub fn configure(&self, settings: Settings) -> Result<(), EngineError> {
        let mut current = self.lock_settings();
        if *current != settings {
            *current = settings.clone();
            drop(current);
            self.command_if_running(Command::Configure(Box::new(settings)));
        }
        Ok(())
    }

    fn lock_settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the events since the last call.
    pub fn drain(&self) -> Vec<Event> {
        self.shared.events.drain()
    }

    /// Answers an event that asks; false if nobody waits for the answer any more.
    pub fn answer(&self, request: u64, answer: Answer) -> bool {
        self.shared.requests.answer(request, answer)
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
        let Shared { spool, events, .. } = &self.shared;
        let now = self.now();
        let mut entry = Entry::new((self.new_id)(), sender, recipients, server, wishes, now);
        spool.commit(&mut entry, &message)?;
        if !spool.waits_for_origin(&entry)
            && let Err(error) = self.schedule(vec![Due::wanted(&entry, now)])
        {
            // It is accepted all the same: an error now would have it sent twice.
            events.push(Event::Problem(error.to_string()));
        }
        Ok(entry.id)
    }

    /// All entries with their states, oldest first. What can't be read is reported
    /// as an event.
    pub fn list(&self) -> Result<Vec<(Entry, State)>, EngineError> {
        let Shared {
            spool,
            in_flight,
            events,
            ..
        } = &self.shared;
        let listing = spool.list(self.now(), |id| in_flight.contains(id))?;
        for problem in listing.problems {
            events.push(Event::Problem(problem));
        }
        Ok(listing.entries)
    }

    /// One entry with its state.
    pub fn entry(&self, id: EntryId) -> Result<(Entry, State), EngineError> {
        let is_ours = self.shared.in_flight.contains(id);
        Ok(self.shared.spool.look(id, is_ours, self.now())?)
    }

    /// An entry's `state`, with what the spool does not know: that it waits for the
    /// user to give a password.
    pub fn state_to_show(&self, entry: &Entry, state: State) -> State {
        let requests = &self.shared.requests;
        match state {
            State::Pending if requests.is_asking_for(&entry.server) => State::NeedsCredentials,
            _ => state,
        }
    }

    /// The stored bytes of an entry.
    pub fn message(&self, id: EntryId) -> Result<Vec<u8>, EngineError> {
        Ok(self.shared.spool.message(id)?)
    }

    /// Takes up everything that waits, each entry at its time. Returns how many.
    pub fn resume(&self) -> Result<usize, EngineError> {
        let (backoff, now) = (self.lock_settings().backoff, self.now());
        self.take_up(|entry| Due::later(entry, backoff, now))
    }

    /// Tries everything that waits now, but for what is to be sent later by the user's
    /// wish. Returns how many.
    pub fn flush(&self) -> Result<usize, EngineError> {
        let now = self.now();
        self.take_up(|entry| Due::wanted(entry, now))
    }

    fn take_up(&self, due: impl Fn(&Entry) -> Due) -> Result<usize, EngineError> {
        let retries = self.lock_settings().unconfirmed == Unconfirmed::Retry;
        let mut waiting = Vec::new();
        for (entry, state) in self.list()? {
            if entry.is_to_be_filed() {
                self.file_copy(entry.id)?;
            }
            if self.shared.spool.is_to_be_taken_up(&entry, state, retries) {
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
        let Shared {
            spool, in_flight, ..
        } = &self.shared;
        match in_flight.claim_for_user(spool, id) {
            Ok(Some(held)) if held.claim.entry.is_to_be_filed() => {
                let entry = held.claim.entry.clone();
                if entry.is_delivered() {
                    held.keep_for_filing();
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
        let spool = &self.shared.spool;
        let mut held = self.claim_from_filing(id)?;
        let entry = &mut held.claim.entry;
        if problem.is_some() {
            entry.error = problem;
            if copy.is_some() {
                entry.wishes.copy = copy;
            }
            spool.update(&held.claim)?;
            return self.let_go(held);
        }
        entry.wishes.copy = None;
        let entry = entry.clone();
        if entry.is_delivered() {
            spool.settle(&held.claim)?;
        } else {
            spool.update(&held.claim)?;
            self.let_go(held)?;
        }
        self.tell(Kind::Filed, entry);
        Ok(())
    }

    /// Tries one entry now, whatever became of it before; or, if it was accepted and its
    /// copy could not be filed, that.
    pub fn retry(&self, id: EntryId) -> Result<(), EngineError> {
        let mut held = self.claim(id)?;
        let entry = &mut held.claim.entry;
        entry.turn(
            &[RecipientState::Failed, RecipientState::Unconfirmed],
            RecipientState::Pending,
        );
        entry.hold = false;
        entry.wishes.not_before = None;
        let is_to_be_filed = entry.is_to_be_filed();
        if entry.need == Some(Need::Auth) {
            let server = Box::new(entry.server.clone());
            self.command_if_running(Command::TryLoginAgain(server));
        }
        self.release(held)?;
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
        let mut held = self.claim(id)?;
        held.claim.entry.wishes.not_before = not_before;
        self.release(held)
    }

    /// Writes an entry's message, with LF line ends, to a `file` outside of the spool,
    /// which stands for it from then on: the entry is not sent while the file exists.
    pub fn export(&self, id: EntryId, file: PathBuf) -> Result<(), EngineError> {
        let mut held = self.claim(id)?;
        held.claim.entry.wishes.origin = Some(file);
        self.shared.spool.update(&held.claim)?;
        Ok(self.shared.spool.export(&held.claim)?)
    }

    /// Holds an entry back, or lets it go again.
    pub fn hold(&self, id: EntryId, hold: bool) -> Result<(), EngineError> {
        if hold {
            return match self.cancel(id)? {
                true => Ok(()),
                false => Err(EngineError::Busy(id)),
            };
        }
        let mut held = self.claim(id)?;
        held.claim.entry.hold = false;
        self.release(held)
    }

    /// Stores a claimed entry as one that waits, and schedules it.
    fn release(&self, mut held: UserClaim<'_>) -> Result<(), EngineError> {
        held.claim.entry.need = None;
        held.claim.entry.next_try = None;
        self.shared.spool.update(&held.claim)?;
        self.let_go(held)
    }

    /// Lets go of a claimed entry, which is tried when it is due.
    fn let_go(&self, held: UserClaim<'_>) -> Result<(), EngineError> {
        let entry = held.claim.entry.clone();
        drop(held);
        if !entry.is_ready() || self.shared.spool.waits_for_origin(&entry) {
            return Ok(());
        }
        let due = match entry.next_try.is_none() {
            true => Due::wanted(&entry, self.now()),
            false => Due::later(&entry, self.lock_settings().backoff, self.now()),
        };
        self.schedule(vec![due])
    }

    /// Stops an entry, which stays in the spool, held. False if it is too late.
    pub fn cancel(&self, id: EntryId) -> Result<bool, EngineError> {
        self.stop_entry(id, Stop::Hold)
    }

    /// Deletes an entry, stopping it first. A copy not yet filed is given up.
    pub fn remove(&self, id: EntryId) -> Result<(), EngineError> {
        match self.stop_entry(id, Stop::Remove)? {
            true => Ok(()),
            false => Err(EngineError::Busy(id)),
        }
    }

    /// Stops an entry, whoever has it; false if it is too late. When it returns true, that
    /// is so on disk.
    fn stop_entry(&self, id: EntryId, stop: Stop) -> Result<bool, EngineError> {
        let Shared {
            spool,
            events,
            in_flight,
            ..
        } = &self.shared;
        loop {
            match in_flight.stop(id, stop) {
                Stopping::TooLate => return Ok(false),
                Stopping::Promised => {
                    self.command(Command::Interrupt)?;
                    in_flight.wait_for_end(id, LETTING_GO);
                    return match spool.load(id) {
                        Err(SpoolError::NoSuchEntry(_)) if stop == Stop::Remove => Ok(true),
                        Ok(entry) if stop == Stop::Hold && entry.hold => Ok(true),
                        _ => Err(EngineError::Stopping(id)),
                    };
                }
                // Accepted: the copy can be given up, but not the message.
                Stopping::NotInFlight if stop == Stop::Hold && in_flight.is_filing(id) => {
                    return Ok(false);
                }
                Stopping::NotInFlight => match self.claim_from_filing(id) {
                    // A session was faster.
                    Err(EngineError::Busy(_)) if in_flight.contains(id) => {}
                    held => {
                        settle::carry_out(spool, events, held?.claim, stop)?;
                        return Ok(true);
                    }
                },
            }
        }
    }

    fn tell(&self, kind: Kind, entry: Entry) {
        tell(&self.shared.events, kind, entry, None, None);
    }

    /// Claims an entry, if need be from where it is held until its copy is filed.
    fn claim_from_filing(&self, id: EntryId) -> Result<UserClaim<'_>, EngineError> {
        match self.shared.in_flight.take_from_filing(id) {
            Some(held) => Ok(held),
            None => self.claim(id),
        }
    }

    fn claim(&self, id: EntryId) -> Result<UserClaim<'_>, EngineError> {
        let Shared {
            spool, in_flight, ..
        } = &self.shared;
        in_flight
            .claim_for_user(spool, id)?
            .ok_or(EngineError::Busy(id))
    }

    /// Checks whether mail could be sent to `server`; the result comes as events under
    /// the number returned.
    pub fn check(&self, server: Server) -> Result<u64, EngineError> {
        let number = self.shared.requests.number();
        self.command(Command::Check(Box::new(server), number))?;
        Ok(number)
    }

    /// Forgets that `server` has ever offered STARTTLS, and whom the user trusts there
    /// for this session.
    pub fn forget_tls(&self, server: &Server) -> Result<(), EngineError> {
        let endpoint = Endpoint::of(server);
        self.shared.spool.forget_starttls(&endpoint)?;
        self.command_if_running(Command::ForgetTls(endpoint));
        Ok(())
    }

    /// How many messages sessions work on now.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.count()
    }

    /// Ends the sessions that only wait for messages, and waits for that, at most `limit`.
    pub fn end_idle(&self, limit: Duration) {
        let (sender, ended) = mpsc::channel();
        self.command_if_running(Command::EndIdle(limit, sender));
        // Without a thread it is disconnected at once.
        let _ = ended.recv_timeout(limit);
    }

    /// Stops the thread. What is in flight may still be answered, for at most `limit`.
    /// What is in the spool stays there; the next call that sends starts anew.
    pub fn stop(&self, limit: Duration) {
        if let Some(thread) = self.lock_thread().take() {
            thread.stop(limit);
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn schedule(&self, entries: Vec<Due>) -> Result<(), EngineError> {
        self.command(Command::Schedule(entries))
    }

    fn lock_thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command_if_running(&self, command: Command) {
        if let Some(thread) = &*self.lock_thread() {
            // One that died of a panic has nothing to be told.
            let _ = thread.command(command);
        }
    }

    /// Hands a command to the thread, starting it if there is none.
    fn command(&self, command: Command) -> Result<(), EngineError> {
        let mut thread = self.lock_thread();
        let is_heir = thread.is_some();
        let command = match &*thread {
            None => command,
            Some(live) => match live.command(command) {
                Ok(()) => return Ok(()),
                // It died of a panic: a new one takes over.
                Err(refused) => refused,
            },
        };
        let settings = self.lock_settings().clone();
        let started =
            Thread::start(self.shared.clone(), settings, is_heir).map_err(EngineError::Thread)?;
        // Its receiver lives in the thread just started.
        let _ = started.command(command);
        *thread = Some(started);
        Ok(())
    }
}
