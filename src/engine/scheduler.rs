//! The one loop of the sending thread: what is due when; commands in, sessions out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::context::{Context, Report};
use super::destination::Destination;
use super::in_flight::SessionNumber;
use super::settings::{Settings, Unconfirmed};
use super::{check, delivery, settle};
use crate::bridge::Event;
use crate::mail::{Endpoint, Server, Timestamp};
use crate::spool::{Entry, EntryId, Others, Owner, SpoolError};

/// The clock is looked at this often, for timers sleep while a laptop does.
const LONGEST_NAP: Duration = Duration::from_secs(30);
/// Where other processes send from the spool, they are looked for this often.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// What a session that panicked had is tried again after this time.
const PANIC_PAUSE: Duration = Duration::from_secs(60);

/// When a message is to be tried.
#[derive(Debug)]
pub struct Due {
    id: EntryId,
    server: Server,
    at: When,
}

/// A time for a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Now, be the server known to be down: the user wants it.
    Now,
    /// Then.
    At(Timestamp),
}

impl Due {
    /// At the time the user wants.
    pub fn wanted(entry: &Entry, now: Timestamp) -> Self {
        let later = entry.wishes.not_before.filter(|&time| time > now);
        Due::new(entry, later.map_or(When::Now, When::At))
    }

    /// When it is due by itself.
    pub fn later(entry: &Entry, backoff: Backoff, now: Timestamp) -> Self {
        Due::new(entry, When::At(backoff.due(entry, now)))
    }

    fn new(entry: &Entry, at: When) -> Self {
        Due {
            id: entry.id,
            server: entry.server.clone(),
            at,
        }
    }
}

/// What Emacs's thread tells the scheduler.
#[derive(Debug)]
pub enum Command {
    /// These are to be tried at their times.
    Schedule(Vec<Due>),
    /// New settings.
    Configure(Box<Settings>),
    /// A server is to be checked, under this number.
    Check(Box<Server>, u64),
    /// What was learnt of this server's TLS is to be forgotten.
    ForgetTls(Endpoint),
    /// The user wants what this server refused to log in to be tried once more.
    TryLoginAgain(Box<Server>),
    /// A message in flight was stopped.
    Interrupt,
    /// Sessions are to end as soon as they have no more to send, until this time is over;
    /// the answer comes when they have.
    EndIdle(Duration, std_mpsc::Sender<()>),
    /// Begin nothing new, and end when what is in flight has been answered, or after
    /// this time.
    Stop(Duration),
}

/// Runs until told to stop, or until Emacs's side is gone. An heir takes up what waits.
pub async fn run(
    context: Rc<Context>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut reports: mpsc::UnboundedReceiver<Report>,
    is_heir: bool,
) {
    let mut scheduler = Scheduler {
        context,
        destinations: HashMap::new(),
        timers: BTreeSet::new(),
        timed: HashMap::new(),
        down: HashMap::new(),
        owner: None,
        others: Others::default(),
        last_session: 0,
        tasks: JoinSet::new(),
        sessions: HashMap::new(),
    };
    scheduler.announce();
    if is_heir {
        scheduler.take_over();
    }
    loop {
        let pause = scheduler
            .begin_what_is_due()
            .min(scheduler.watch_interval());
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Stop(limit)) => return scheduler.wind_up(limit).await,
                None => return,
                Some(command) => scheduler.obey(command),
            },
            Some(report) = reports.recv() => scheduler.hear(report),
            Some(ended) = scheduler.tasks.join_next_with_id() => scheduler.see_off(ended),
            () = sleep(pause) => scheduler.watch_others(),
        }
    }
}

struct Scheduler {
    context: Rc<Context>,
    destinations: HashMap<Server, Rc<Destination>>,
    /// What is to be tried when; the servers are in `timed`.
    timers: BTreeSet<(When, EntryId)>,
    timed: HashMap<EntryId, (When, Server)>,
    down: HashMap<Server, Down>,
    owner: Option<Owner>,
    /// The other processes that send from the spool.
    others: Others,
    last_session: SessionNumber,
    tasks: JoinSet<()>,
    /// Which of the tasks are sessions.
    sessions: HashMap<Id, (SessionNumber, Rc<Destination>)>,
}

/// A server that could not be reached.
#[derive(Debug, Default)]
struct Down {
    failures: u32,
    /// It is left alone until then.
    until: Timestamp,
    /// What is to go as soon as it is up again.
    waiting: HashSet<EntryId>,
}

impl Scheduler {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Schedule(entries) => {
                for due in entries {
                    self.schedule(due.id, due.server, due.at);
                }
                self.watch_others();
            }
            Command::Configure(settings) => self.context.configure(*settings),
            Command::Check(server, request) => {
                let check = check::check(Rc::clone(&self.context), *server, request);
                self.tasks.spawn_local(check);
            }
            Command::ForgetTls(endpoint) => self.context.connectors.forget(&endpoint),
            Command::TryLoginAgain(server) => self.context.logins.try_again(&server, None),
            Command::Interrupt => {
                for destination in self.destinations.values() {
                    destination.interrupt();
                }
            }
            Command::EndIdle(limit, ended) => self.end_idle(limit, ended),
            Command::Stop(_) => {}
        }
    }

    /// Ends the sessions that have no more to send, then tells.
    fn end_idle(&mut self, limit: Duration, ended: std_mpsc::Sender<()>) {
        let endings = self.endings(limit, false);
        self.tasks.spawn_local(async move {
            endings.await;
            // Nobody may wait for it any more.
            let _ = ended.send(());
        });
    }

    /// Waits until sessions have ended for they had no more to send, at most `limit`; for
    /// those that have work only if `also_busy`.
    fn endings(&self, limit: Duration, also_busy: bool) -> impl Future<Output = ()> + 'static {
        let destinations: Vec<_> = self.destinations.values().map(Rc::clone).collect();
        async move {
            destinations.iter().for_each(|one| one.set_ending());
            let closed = async {
                for destination in &destinations {
                    destination.wait_until_closed(also_busy).await;
                }
            };
            let _ = timeout(limit, closed).await;
            destinations.iter().for_each(|one| one.unset_ending());
        }
    }

    /// Lets sessions finish what they have begun, and take their leave. What is left then
    /// stays in the spool, unconfirmed if its last byte is out.
    async fn wind_up(&mut self, limit: Duration) {
        for destination in self.destinations.values() {
            destination.stop();
        }
        self.endings(limit, true).await;
    }

    /// Sets the time of an entry's next try, in place of any set before.
    fn schedule(&mut self, id: EntryId, server: Server, at: When) {
        if let Some((before, _)) = self.timed.insert(id, (at, server)) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    /// Moves what is due to its destination, and opens the sessions that are wanted;
    /// returns the time until there may be more to do.
    fn begin_what_is_due(&mut self) -> Duration {
        let now = self.context.clock.now();
        let mut pause = LONGEST_NAP;
        while let Some(&(at, id)) = self.timers.first() {
            if let When::At(at) = at
                && at > now
            {
                pause = at.since(now);
                break;
            }
            self.timers.pop_first();
            let Some((_, server)) = self.timed.remove(&id) else {
                continue;
            };
            match self.down.get_mut(&server) {
                Some(down) if at != When::Now && down.until > now => {
                    down.waiting.insert(id);
                    let until = down.until;
                    self.schedule(id, server, When::At(until));
                }
                _ => self.destination(server).push(id),
            }
        }
        let most = self.context.settings().max_connections.max(1);
        let destinations: Vec<_> = self.destinations.values().map(Rc::clone).collect();
        for destination in destinations {
            if destination.wants_session(most) {
                self.open_session(&destination);
            }
            if let Some(wanted) = destination.time_until_wanted(most) {
                pause = pause.min(wanted);
            }
        }
        pause
    }

    fn destination(&mut self, server: Server) -> Rc<Destination> {
        let context = &self.context;
        let new = |server: &Server| {
            let destination = Destination::new(server.clone(), Rc::clone(context));
            Rc::new(destination)
        };
        Rc::clone(self.destinations.entry(server).or_insert_with_key(new))
    }

    fn open_session(&mut self, destination: &Rc<Destination>) {
        self.last_session += 1;
        let number = self.last_session;
        // At once, or another might be opened before its task has begun.
        destination.sessions.set(destination.sessions.get() + 1);
        let delivery = delivery::deliver(Rc::clone(destination), number);
        let task = self.tasks.spawn_local(delivery);
        let session = (number, Rc::clone(destination));
        self.sessions.insert(task.id(), session);
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Due(id, server, at) => {
                // What the user wants now comes first.
                if !matches!(self.timed.get(&id), Some((When::Now, _))) {
                    self.schedule(id, server, When::At(at));
                }
            }
            Report::Up(server) => {
                self.release_waiting(&server);
                self.destination(server).is_up.set(true);
            }
            Report::Down(server, messages) => {
                let backoff = self.context.settings().backoff;
                let now = self.context.clock.now();
                let down = self.down.entry(server).or_default();
                down.failures += 1;
                down.until = now.after(backoff.pause(down.failures));
                down.waiting.extend(messages);
            }
        }
    }

    /// The server is up: what waited for that goes now.
    fn release_waiting(&mut self, server: &Server) {
        let Some(down) = self.down.remove(server) else {
            return;
        };
        let now = When::At(self.context.clock.now());
        for id in down.waiting {
            if self.timed.contains_key(&id) {
                self.schedule(id, server.clone(), now);
            }
        }
    }

    /// Tells other processes of this one, and looks for them.
    fn announce(&mut self) {
        match self.context.spool.own() {
            Ok(owner) => self.owner = Some(owner),
            Err(error) => self.context.tell_problem(&error.to_string()),
        }
        self.watch_others();
    }

    /// Looks whether a process that sent has ended, however it did.
    fn watch_others(&mut self) {
        let Some(owner) = &self.owner else { return };
        let others = self.context.spool.others(owner);
        let has_left = !self.others.alive.is_subset(&others.alive);
        let has_changed = self.others.last_change != others.last_change;
        if has_changed && !others.alive.is_empty() {
            // Not known is by whom.
            self.context.events.push(Event::Changed);
        }
        let is_to_be_taken_over = has_left || others.any_killed;
        self.others = others;
        if is_to_be_taken_over {
            self.take_over();
        }
    }

    fn watch_interval(&self) -> Duration {
        match self.others.alive.is_empty() {
            true => LONGEST_NAP,
            false => WATCH_INTERVAL,
        }
    }

    /// Schedules what a process that has ended may have left.
    fn take_over(&mut self) {
        let context = Rc::clone(&self.context);
        self.tasks.spawn_local(async move {
            let (spool, in_flight) = (Arc::clone(&context.spool), Arc::clone(&context.in_flight));
            let now = context.clock.now();
            let retries = context.policy().unconfirmed == Unconfirmed::Retry;
            let list = move || {
                let listing = spool.list(now, |id| in_flight.contains(id))?;
                let mut entries = listing.entries;
                entries.retain(|(entry, state)| spool.is_to_be_taken_up(entry, *state, retries));
                Ok(entries)
            };
            let backoff = context.settings().backoff;
            match tokio::task::spawn_blocking(list).await {
                Ok(Ok(entries)) => {
                    for (entry, _) in entries {
                        let at = backoff.due(&entry, now);
                        context.report(Report::Due(entry.id, entry.server, at));
                    }
                }
                Ok(Err(error)) => {
                    let error: SpoolError = error;
                    context.tell_problem(&error.to_string());
                }
                Err(panic) => context.tell_problem(&panic.to_string()),
            }
        });
    }

    /// A task has ended, maybe in a panic.
    fn see_off(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (task, panic) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let session = self.sessions.remove(&task);
        if let Some(panic) = panic {
            if let Some((number, destination)) = &session {
                self.take_orphans(*number, destination);
            }
            let text = format!("internal error in a session (please report it): {panic}");
            self.context.tell_problem(&text);
        }
        if let Some((_, destination)) = session
            && destination.sessions.get() == 0
            && destination.waiting() == 0
        {
            self.destinations.remove(&destination.server);
        }
    }

    /// What a session that panicked had is tried again, unless the user has stopped it.
    fn take_orphans(&mut self, session: SessionNumber, destination: &Destination) {
        destination.forget(session);
        let context = Rc::clone(&self.context);
        let later = context.clock.now().after(PANIC_PAUSE);
        for id in context.in_flight.of_session(Some(session)) {
            if settle::abandon(&context.spool, &context.events, &context.in_flight, id) {
                self.schedule(id, destination.server.clone(), When::At(later));
            }
        }
    }
}
