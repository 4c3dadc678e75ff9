//! The thread that sends.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::LocalSet;

use super::context::{Context, Shared};
use super::scheduler::{self, Command};
use super::settings::Settings;
use super::settle;
use crate::bridge::Event;

/// The thread that sends, while it lives.
#[derive(Debug)]
pub struct Thread {
    commands: UnboundedSender<Command>,
    ended: std_mpsc::Receiver<()>,
    handle: JoinHandle<()>,
}

impl Thread {
    /// Starts it. An heir takes up what waits, for the one before has died of a panic.
    pub fn start(shared: Shared, settings: Settings, is_heir: bool) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (ended_sender, ended) = std_mpsc::channel();
        let handle = std::thread::Builder::new()
            .name("rs-smtpmail".to_owned())
            .spawn(move || {
                crate::platform::block_signals();
                let run = AssertUnwindSafe(|| run(shared.clone(), settings, receiver, is_heir));
                if std::panic::catch_unwind(run).is_err() {
                    bury(&shared);
                }
                // Nobody waits if this fails.
                let _ = ended_sender.send(());
            })?;
        Ok(Thread {
            commands,
            ended,
            handle,
        })
    }

    /// Hands over a command, or gives it back if the thread has died.
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.commands.send(command).map_err(|refused| refused.0)
    }

    /// Stops it; what is in flight may still be answered, for at most `limit`.
    pub fn stop(self, limit: Duration) {
        // An error means that it has ended already.
        let _ = self.commands.send(Command::Stop(limit));
        let backoff = limit + Duration::from_millis(500);
        if self.ended.recv_timeout(backoff) != Err(std_mpsc::RecvTimeoutError::Timeout) {
            let _ = self.handle.join();
        }
    }
}

/// After a panic: nothing is in flight any more, and what the user has stopped is stopped.
fn bury(shared: &Shared) {
    let_go_of_all(shared);
    shared.events.push(Event::Problem(
        "internal error in the sending thread (please report it); what waits is in the spool \
         and is taken up with the next message sent"
            .to_owned(),
    ));
}

/// The sessions are no more: what they have not written of what the user was promised is
/// written now.
fn let_go_of_all(shared: &Shared) {
    let in_flight = &shared.in_flight;
    for id in in_flight.of_session(None) {
        settle::abandon(&shared.spool, &shared.events, in_flight, id);
    }
}

fn run(shared: Shared, settings: Settings, commands: UnboundedReceiver<Command>, is_heir: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("cannot start the network runtime: {error}");
            return shared.events.push(Event::Problem(text));
        }
    };
    let after = shared.clone();
    let (reports, reports_receiver) = mpsc::unbounded_channel();
    let context = Rc::new(Context::new(shared, settings, reports));
    let scheduler = scheduler::run(context, commands, reports_receiver, is_heir);
    LocalSet::new().block_on(&runtime, scheduler);
    // A name lookup, gpg or a write to the disk may still run; Emacs need not wait for it.
    runtime.shutdown_background();
    let_go_of_all(&after);
}
