//! Sessions with one server, one after the other, as long as there is mail for it.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::destination::Destination;
use super::in_flight::SessionNumber;
use super::login::Login;
use super::settings::Settings;
use super::settle::Finding;
use crate::bridge::Event;
use crate::smtp::{End, Ended, Job, Note, Part, SMALL, Scope, Session, Source, Stage, Trouble};
use crate::spool::EntryId;

/// Octets claimed together, at most: a killed Emacs leaves them unconfirmed.
const CLAIMED_TOGETHER: u64 = 256 * 1024;

/// Serves a destination: opens sessions while messages wait, keeps the last one a while.
pub async fn deliver(destination: Rc<Destination>, number: SessionNumber) {
    let mut delivery = Delivery::new(destination, number);
    let destination = Rc::clone(&delivery.work.destination);
    while destination.waiting() > 0 {
        delivery.settings = destination.context().settings();
        let served = match delivery.login.begin(&delivery.settings).await {
            Ok(session) => delivery.run(session).await,
            Err(trouble) => Err(trouble),
        };
        let Err(mut trouble) = served else {
            continue;
        };
        if trouble.scope != Scope::Site {
            if !destination.note_broken() {
                // Its message has been put off; the others have nothing to do with it.
                continue;
            }
            trouble.scope = Scope::Site;
            trouble.what = format!("sessions break, one after the other: {}", trouble.what);
        }
        if trouble.stage <= Stage::Hello && trouble.is_about_too_many() {
            destination.context().learn_single(&destination.server);
        }
        if destination.sessions.get() > 1 {
            // Another session goes on with what waits.
            return;
        }
        // The server was tried once; the rest need not try it one by one.
        destination.put_off_all(&trouble, number).await;
    }
}

struct Delivery {
    work: Work,
    login: Login,
    settings: Arc<Settings>,
}

/// One session's end of its destination: gives it messages, takes what becomes of them.
struct Work {
    destination: Rc<Destination>,
    number: SessionNumber,
    /// Messages that the current session has delivered.
    delivered: usize,
    /// What the server said that made it need a login.
    demand: Option<String>,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.work.destination.leave(self.work.number);
    }
}

/// Counts an open session, also if it panics.
struct Open(Rc<Destination>);

impl Open {
    fn new(destination: Rc<Destination>) -> Self {
        destination.note_open();
        Open(destination)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.note_closed();
    }
}

impl Delivery {
    fn new(destination: Rc<Destination>, number: SessionNumber) -> Self {
        Delivery {
            settings: destination.context().settings(),
            login: Login::new(Rc::clone(&destination), number),
            work: Work {
                destination,
                number,
                delivered: 0,
                demand: None,
            },
        }
    }

    /// Sends until there is nothing to send. An error means that the session is of no
    /// more use.
    async fn run(&mut self, session: Session) -> Result<(), Trouble> {
        let _open = Open::new(Rc::clone(&self.work.destination));
        self.send_all(session).await
    }

    async fn send_all(&mut self, mut session: Session) -> Result<(), Trouble> {
        self.work.delivered = 0;
        loop {
            match session.run(&mut self.work).await {
                Ok(End::Idle) => {}
                Ok(End::NeedsAuth) => {
                    self.login.demand(self.work.demand.take());
                    return Ok(());
                }
                Ok(End::Closed) => return Ok(()),
                // A session that got somewhere says nothing against the next one.
                Err(_) if self.work.delivered > 0 => return Ok(()),
                Err(trouble) => return Err(trouble),
            }
            if !self.wait_for_work(&mut session).await {
                session.quit().await;
                return Ok(());
            }
        }
    }

    /// Keeps the session for the next message. False if none came, if the session is to
    /// end, or if the server would not wait.
    async fn wait_for_work(&self, session: &mut Session) -> bool {
        let destination = &self.work.destination;
        if self.settings.idle_timeout.is_zero() {
            // Not even the tick that a timer takes.
            return false;
        }
        tokio::select! {
            () = session.closed() => false,
            arrived = timeout(self.settings.idle_timeout, destination.wait_for_messages()) => {
                // A session keeps the settings that it was opened with.
                let are_same = destination.context().settings() == self.settings;
                arrived == Ok(true) && are_same
            }
        }
    }
}

impl Source for Work {
    async fn next(&mut self, most: usize) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut octets = 0;
        while jobs.len() < most && octets < CLAIMED_TOGETHER {
            let Some(job) = self.destination.claim_next(self.number) else {
                break;
            };
            let size = job.claim.entry.facts.size;
            if size > SMALL && !jobs.is_empty() {
                self.destination.put_back(job).await;
                break;
            }
            octets += size;
            jobs.push(job);
            if size > SMALL {
                break;
            }
        }
        jobs
    }

    async fn mark(&mut self, jobs: &[&Job]) -> Result<(), String> {
        let tries = jobs.iter().map(|job| (job.id(), job.claim.entry.attempts));
        let tries: Vec<(EntryId, u32)> = tries.collect();
        let spool = Arc::clone(&self.destination.context().spool);
        match tokio::task::spawn_blocking(move || spool.mark_sending(&tries)).await {
            Ok(marked) => marked.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("internal error (please report it): {panic}")),
        }
    }

    fn permits(&mut self, job: &Job, part: Part) -> bool {
        let in_flight = &self.destination.context().in_flight;
        match part {
            Part::Next => in_flight.stopped(job.id()).is_none(),
            Part::Last => in_flight.release(job.id()),
        }
    }

    async fn settle(&mut self, ended: Vec<(Job, Ended)>) {
        let findings = ended.into_iter().map(|(job, ended)| {
            let finding = match ended {
                Ended::Untouched => Finding::Undecided(job.without),
                Ended::Again { without } => Finding::Undecided(Some(without)),
                Ended::Decided(verdict) => {
                    if verdict.accepted.is_some() {
                        self.delivered += 1;
                        self.destination.note_delivery();
                    }
                    if verdict.needs_auth {
                        self.demand = verdict.trouble.as_ref().map(ToString::to_string);
                    }
                    Finding::Verdict(verdict)
                }
            };
            (job.claim, finding)
        });
        let findings = findings.collect();
        self.destination.settle(findings).await;
    }

    fn note(&mut self, note: Note) {
        let context = self.destination.context();
        match note {
            Note::Learnt(quirk) => context.learn_quirk(&self.destination.server, quirk),
            Note::Progress { id, sent, total } => {
                context.events.push(Event::Progress { id, sent, total });
            }
        }
    }

    fn interrupt(&self) -> Rc<Notify> {
        self.destination.interrupt_of(self.number)
    }
}
