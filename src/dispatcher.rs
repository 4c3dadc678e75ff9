//! The one loop: commands in, timers, sessions out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use crate::bridge::Event;
use crate::engine::Settings;
use crate::lane::Lane;
use crate::mail::{Endpoint, Server, Timestamp};
use crate::schedule::Patience;
use crate::shared::{Report, Shared};
use crate::spool::{Entry, EntryId, Owner};
use crate::{check, worker};

/// The clock is looked at this often, for timers sleep while a laptop does.
const LONGEST_NAP: Duration = Duration::from_secs(30);
/// Where other processes send from the spool, they are looked for this often.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// When a message is to be tried.
#[derive(Debug)]
pub struct Due {
    id: EntryId,
    server: Server,
    /// 0 if the user wants it now, be the server known to be down.
    at: Timestamp,
}

impl Due {
    /// At the time the user wants.
    pub fn wanted(entry: &Entry) -> Self {
        let at = entry.wanted_at();
        let is_over = at <= Timestamp::now();
        Due::at(entry, if is_over { Timestamp::default() } else { at })
    }

    /// When it is due by itself.
    pub fn later(entry: &Entry, patience: Patience, now: Timestamp) -> Self {
        let next_try = patience.at_most(entry.next_try, now);
        Due::at(entry, next_try.max(entry.wanted_at()))
    }

    fn at(entry: &Entry, at: Timestamp) -> Self {
        Due {
            id: entry.id,
            server: entry.server.clone(),
            at,
        }
    }
}

/// What Emacs's thread tells the dispatcher.
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
    /// A message in flight was cancelled.
    Interrupt,
    /// Begin nothing new, and end when what is in flight has been answered, or after
    /// this time.
    Stop(Duration),
}

/// Runs until told to stop, or until Emacs's side is gone.
pub async fn run(
    shared: Rc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut reports: mpsc::UnboundedReceiver<Report>,
) {
    let mut dispatcher = Dispatcher {
        shared,
        lanes: HashMap::new(),
        due: BTreeSet::new(),
        servers: HashMap::new(),
        down: HashMap::new(),
        owner: None,
        watch_interval: LONGEST_NAP,
        sessions: JoinSet::new(),
        lane_of: HashMap::new(),
    };
    dispatcher.move_in();
    loop {
        let pause = dispatcher.launch_due(Timestamp::now());
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Stop(limit)) => return dispatcher.wind_up(limit).await,
                None => return,
                Some(command) => dispatcher.obey(command),
            },
            Some(report) = reports.recv() => dispatcher.hear(report),
            Some(ended) = dispatcher.sessions.join_next_with_id() => dispatcher.see_off(ended),
            () = sleep(pause.min(dispatcher.watch_interval)) => dispatcher.watch_others(),
        }
    }
}

struct Dispatcher {
    shared: Rc<Shared>,
    lanes: HashMap<Server, Rc<Lane>>,
    due: BTreeSet<(Timestamp, EntryId)>,
    servers: HashMap<EntryId, (Timestamp, Server)>,
    down: HashMap<Server, Down>,
    owner: Option<Owner>,
    watch_interval: Duration,
    sessions: JoinSet<()>,
    lane_of: HashMap<Id, Rc<Lane>>,
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

impl Dispatcher {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Schedule(entries) => {
                for due in entries {
                    self.schedule(due.id, due.server, due.at);
                }
                self.watch_others();
            }
            Command::Configure(settings) => {
                *self.shared.settings.borrow_mut() = Arc::new(*settings);
            }
            Command::Check(server, request) => {
                let check = check::check(Rc::clone(&self.shared), *server, request);
                self.sessions.spawn_local(check);
            }
            Command::ForgetTls(endpoint) => self.shared.tls.forget(&endpoint),
            Command::TryLoginAgain(server) => self.shared.logins.try_again(&server, None),
            Command::Interrupt => self.lanes.values().for_each(|lane| lane.interrupt()),
            Command::Stop(_) => {}
        }
    }

    /// Lets sessions finish what they have begun.
    async fn wind_up(&mut self, limit: Duration) {
        for lane in self.lanes.values() {
            lane.clear();
        }
        let landed = async {
            while self.shared.flights.count() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // What is left then stays in the spool, unconfirmed if its last byte is out.
        let _ = timeout(limit, landed).await;
    }

    /// Sets the time of an entry's next try, in place of any set before.
    fn schedule(&mut self, id: EntryId, server: Server, at: Timestamp) {
        if let Some((before, _)) = self.servers.insert(id, (at, server)) {
            self.due.remove(&(before, id));
        }
        self.due.insert((at, id));
    }

    /// Moves what is due to its lanes; returns the time to the next.
    fn launch_due(&mut self, now: Timestamp) -> Duration {
        while let Some(&(at, id)) = self.due.first() {
            if at > now {
                return at.since(now);
            }
            self.due.pop_first();
            if let Some((_, server)) = self.servers.remove(&id) {
                if at > Timestamp::default()
                    && let Some(down) = self.down.get_mut(&server)
                    && down.until > now
                {
                    down.waiting.insert(id);
                    let until = down.until;
                    self.schedule(id, server, until);
                    continue;
                }
                let lane = self.lane(server);
                lane.push(id);
                self.open_session_if_useful(&lane);
            }
        }
        LONGEST_NAP
    }

    fn lane(&mut self, server: Server) -> Rc<Lane> {
        let shared = &self.shared;
        let lane = self
            .lanes
            .entry(server)
            .or_insert_with_key(|server| Rc::new(Lane::new(server.clone(), Rc::clone(shared))));
        Rc::clone(lane)
    }

    fn open_session_if_useful(&mut self, lane: &Rc<Lane>) {
        let most = self.shared.settings.borrow().max_connections.max(1);
        let workers = lane.workers.get();
        if workers == 0 || (workers < most && lane.is_crowded()) {
            self.open_session(lane);
        }
    }

    fn open_session(&mut self, lane: &Rc<Lane>) {
        lane.workers.set(lane.workers.get() + 1);
        let task = self.sessions.spawn_local(worker::serve(Rc::clone(lane)));
        self.lane_of.insert(task.id(), Rc::clone(lane));
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Due(id, at) => match self.shared.spool.load(id) {
                Ok(entry) => self.schedule(id, entry.server, at),
                // Sent or removed meanwhile.
                Err(crate::spool::SpoolError::NoSuchEntry(_)) => {}
                Err(error) => self.shared.outbox.push(Event::Problem(error.to_string())),
            },
            Report::Up(server) => {
                self.release_waiting(&server);
                let lane = self.lane(server);
                lane.is_up.set(true);
                self.open_session_if_useful(&lane);
            }
            Report::Down(server, messages) => {
                let patience = self.shared.settings.borrow().patience;
                let down = self.down.entry(server).or_default();
                down.failures += 1;
                down.until = Timestamp::now().after(patience.pause(down.failures));
                down.waiting.extend(messages);
            }
        }
    }

    /// The server is up: what waited for that goes now.
    fn release_waiting(&mut self, server: &Server) {
        let Some(down) = self.down.remove(server) else {
            return;
        };
        let now = Timestamp::now();
        for id in down.waiting {
            if self.servers.contains_key(&id) {
                self.schedule(id, server.clone(), now);
            }
        }
    }

    /// Tells other processes of this one, and watches them.
    fn move_in(&mut self) {
        match self.shared.spool.own() {
            Ok(owner) => self.owner = Some(owner),
            Err(error) => self.shared.tell_spool_trouble(&error),
        }
        self.watch_others();
    }

    fn watch_others(&mut self) {
        let Some(owner) = &self.owner else { return };
        let others = self.shared.spool.others(owner);
        self.watch_interval = match others.alive {
            0 => LONGEST_NAP,
            _ => WATCH_INTERVAL,
        };
        if others.lost > 0 {
            self.take_over();
        }
    }

    /// Schedules what a process that has ended may have left.
    fn take_over(&mut self) {
        let shared = Rc::clone(&self.shared);
        let listing = match shared.spool.list(|id| shared.flights.contains(id)) {
            Ok(listing) => listing,
            Err(error) => return shared.tell_spool_trouble(&error),
        };
        let patience = shared.settings.borrow().patience;
        let now = Timestamp::now();
        for (entry, state) in listing.entries {
            if shared.spool.is_to_be_taken_up(&entry, state) {
                let due = Due::later(&entry, patience, now);
                self.schedule(due.id, due.server, due.at);
            }
        }
    }

    /// A session task has ended, maybe in a panic.
    fn see_off(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (task, panic) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some(lane) = self.lane_of.remove(&task) else {
            return;
        };
        if let Some(panic) = panic {
            let text = format!("internal error in a session (please report it): {panic}");
            self.shared.outbox.push(Event::Problem(text));
            let later = Timestamp::now().after(Duration::from_secs(60));
            for id in lane.take_orphans() {
                self.schedule(id, lane.server.clone(), later);
            }
        }
        // What came after the task had looked for the last time.
        if lane.waiting() > 0 && lane.workers.get() == 0 {
            self.open_session(&lane);
        } else if lane.workers.get() == 0 {
            self.lanes.remove(&lane.server);
        }
    }
}
