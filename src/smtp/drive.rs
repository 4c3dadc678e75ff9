//! Runs a pipeline over a session's wire, with messages from a [`Source`].

use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::capabilities::Quirk;
use super::content::Content;
use super::pipeline::{End, Ended, Part, Pipeline, Want};
use super::session::Session;
use super::terms::Terms;
use super::transaction::Transaction;
use super::trouble::Trouble;
use super::wire::{Step, WireError};
use crate::mail::Timestamp;
use crate::spool::{Claim, EntryId};

/// A message to send.
#[derive(Debug)]
pub struct Job {
    /// Its claim in the spool.
    pub claim: Claim,
    /// The extension on trial: this message goes without it, to show whether it is to
    /// blame for the refusal of the try before.
    pub without: Option<Quirk>,
}

impl Job {
    /// The message's id.
    pub fn id(&self) -> EntryId {
        self.claim.entry.id
    }
}

/// What a session tells beside its decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// So many octets of so many have been queued of a message that takes long.
    Progress {
        /// The message.
        id: EntryId,
        /// Octets.
        sent: u64,
        /// Octets.
        total: u64,
    },
    /// The server was shown to refuse this although it announces it.
    Learnt(Quirk),
}

/// Who gives a session its work and takes what was decided. What waits for the disk is
/// asynchronous.
#[allow(async_fn_in_trait)] // sessions run in one thread: nobody needs Send futures
pub trait Source {
    /// At most `most` messages for this server, claimed. A large one comes alone.
    async fn next(&mut self, most: usize) -> Vec<Job>;
    /// Records that the last octets of these are about to go out, at the cost of one. On
    /// an error, of which the text is returned, the first of them is not sent.
    async fn mark(&mut self, jobs: &[&Job]) -> Result<(), String>;
    /// Whether a part of the message may go out, or the user has cancelled it. From the
    /// [`Part::Last`] on that is too late.
    fn permits(&mut self, job: &Job, part: Part) -> bool;
    /// Takes what was decided, also about messages that were cancelled: those were not
    /// touched. Called when no further reply is at hand.
    async fn settle(&mut self, ended: Vec<(Job, Ended)>);
    /// Hears something else.
    fn note(&mut self, note: Note);
    /// Notified when a message is cancelled.
    fn interrupt(&self) -> Rc<Notify>;
}

impl Session {
    /// Sends what `source` has until it has no more. On an error the session is of no
    /// more use. Every message that it had has been handed back.
    pub async fn run<S: Source>(&mut self, source: &mut S) -> Result<End, Trouble> {
        let mut pipeline = Pipeline::new(self.terms(), Instant::now());
        let end = self.drive(&mut pipeline, source).await;
        let (terms, ended) = pipeline.close();
        self.offered = terms.offered;
        self.begun = terms.begun;
        self.accepted = terms.accepted;
        self.needs_reset = terms.needs_reset;
        if !ended.is_empty() {
            source.settle(ended).await;
        }
        end
    }

    fn terms(&self) -> Terms {
        Terms {
            endpoint: self.endpoint.clone(),
            offered: self.offered.clone(),
            limits: self.limits,
            is_lmtp: self.is_lmtp,
            is_encrypted: self.is_encrypted(),
            can_log_in: !self.is_authenticated() && self.offers_auth(),
            begun: self.begun,
            accepted: self.accepted,
            needs_reset: self.needs_reset,
        }
    }

    async fn drive<S: Source>(
        &mut self,
        pipeline: &mut Pipeline<Job>,
        source: &mut S,
    ) -> Result<End, Trouble> {
        let interrupt = source.interrupt();
        pipeline.handed(self.wire.handed(), Instant::now());
        loop {
            let mut permits = |job: &Job, part| source.permits(job, part);
            pipeline.write(&mut self.wire, &mut permits, Instant::now());
            for quirk in pipeline.take_learnt() {
                source.note(Note::Learnt(quirk));
            }
            let ended = pipeline.take_ended();
            if !ended.is_empty() {
                source.settle(ended).await;
            }
            match pipeline.wants() {
                Want::Over(end) => return end,
                Want::Messages(most) => {
                    let jobs = source.next(most).await;
                    match jobs.is_empty() {
                        true => pipeline.is_dry(),
                        false => prepare(pipeline, jobs).await,
                    }
                }
                Want::Mark => {
                    let marked = source.mark(&pipeline.unmarked()).await;
                    pipeline.marked(marked);
                }
                Want::Reply(deadline) => {
                    if let Some((job, sent, total)) = pipeline.progress(Instant::now()) {
                        let id = job.id();
                        source.note(Note::Progress { id, sent, total });
                    }
                    tokio::select! {
                        step = self.wire.step(deadline) => self.take(pipeline, step),
                        () = interrupt.notified() => {}
                    }
                }
            }
        }
    }

    /// Takes what the wire has seen, and the replies that came with it.
    fn take(&mut self, pipeline: &mut Pipeline<Job>, step: Result<Option<Step>, WireError>) {
        let now = Instant::now();
        let stage = pipeline.stage();
        pipeline.handed(self.wire.handed(), now);
        let error = match step {
            Ok(Some(Step::Written)) => return,
            Ok(Some(Step::Reply(reply))) => {
                let mut next = Ok(Some(reply));
                while let Ok(Some(reply)) = next {
                    pipeline.reply(reply, now);
                    next = self.wire.buffered_reply();
                }
                match next {
                    Ok(_) => return,
                    Err(error) => error.into(),
                }
            }
            Ok(None) => WireError::TimedOut(self.limits.of(stage)),
            Err(error) => error,
        };
        pipeline.cut(self.broken(pipeline.stage(), &error));
    }
}

/// Chooses what to say of the messages. That may mean to read and re-encode them, which
/// must not hold up the sessions.
async fn prepare(pipeline: &mut Pipeline<Job>, jobs: Vec<Job>) {
    let offered = pipeline.terms().offered.clone();
    let fit = move || {
        let now = Timestamp::now();
        let fit = |job: Job| {
            let content = Content::fit(&offered.on_trial(job.without), &job.claim, now);
            (job, content)
        };
        jobs.into_iter().map(fit).collect::<Vec<_>>()
    };
    let fitted = match spawn_blocking(fit).await {
        Ok(fitted) => fitted,
        // Nothing cancels it: it panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    for (job, content) in fitted {
        let entry = &job.claim.entry;
        match Transaction::prepare(pipeline.terms(), entry, job.without, content) {
            Ok(transaction) => pipeline.add(job, transaction, Instant::now()),
            Err(verdict) => pipeline.add_ended(job, Ended::Decided(*verdict)),
        }
    }
}
