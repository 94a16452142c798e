//! The hand-over to a new process, as the control thread orders it: a thread of its own, since it waits.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{Control, Order, Phase, locked};
use crate::command::{Command, Reply, WorkerHandle};
use crate::hand_over::give::Successor;
use crate::hand_over::record::{Door, Legacy};
use crate::hand_over::{HandOverError, Outcome, wire};
use crate::hls::{self, EXPORT_PARTS, Passed};
use crate::worker::Export;

/// Distance of two looks at an answer that is awaited.
const LOOK: Duration = Duration::from_millis(1);

/// What became of hand-overs so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct UpgradeStatus {
    /// One is under way.
    running: bool,
    /// Hand-overs begun.
    attempts: u64,
    /// Why the last one failed.
    error: Option<String>,
}

impl Control {
    /// Asks the control loop to hand over to a new process.
    pub fn request_upgrade(&self) {
        self.upgrade_requested.notify_one();
    }

    pub(super) fn upgrade_status(&self) -> UpgradeStatus {
        locked(&self.upgrade).clone()
    }

    /// Begins a hand-over unless one is under way. The outcome comes by the channel.
    pub(super) fn begin_upgrade(self: &Arc<Self>) -> Option<oneshot::Receiver<Outcome>> {
        {
            let mut status = locked(&self.upgrade);
            if status.running || self.phase() != Phase::Ready {
                return None;
            }
            *status = UpgradeStatus { running: true, attempts: status.attempts + 1, error: None };
        }
        if let Some(shared) = &self.shared {
            shared.verdict.open();
        }
        let (sender, receiver) = oneshot::channel();
        let control = Arc::clone(self);
        let run = move || {
            let outcome = match control.hand_over() {
                Ok(pid) => Outcome::PassedOn(pid),
                Err(error) => Outcome::Failed(error),
            };
            // The control loop ends only with the process.
            drop(sender.send(outcome));
        };
        if let Err(error) = thread::Builder::new().name("hand-over".to_owned()).spawn(run) {
            self.end_upgrade(Some(format!("cannot start a thread: {error}")));
            return None;
        }
        Some(receiver)
    }

    pub(super) fn end_upgrade(&self, error: Option<String>) {
        if let Some(shared) = &self.shared {
            shared.verdict.close(error.is_none());
        }
        let mut status = locked(&self.upgrade);
        status.running = false;
        status.error = error;
    }

    /// Blocks until the new process goes on or it is clear that it does not.
    fn hand_over(&self) -> Result<u32, HandOverError> {
        let Some(mut program) = self.program.clone() else {
            return Err(HandOverError("it is not known how to start this process".to_owned()));
        };
        if let Some(path) = self.config().shutdown.upgrade_program.path() {
            program.path = PathBuf::from(path);
        }
        let successor = Successor::start(&program.path, &program.arguments)?;
        successor.hear_hello()?;
        let still_max = Duration::from_millis(u64::from(self.config().shutdown.still_ms_max));
        let began = Instant::now();
        let deadline = began + still_max;
        // Wiped and closed when nobody stands still for that any more.
        let mut kept = None;
        let offered = self.stand_still(deadline).and_then(|()| {
            let (legacy, sockets) = self.export(deadline)?;
            // It can be open in one process only.
            self.access.release_store();
            let block = wire::encode(&legacy)?;
            let (block, sockets, _) = kept.insert((block, sockets, legacy));
            successor.offer(block, sockets, deadline)
        });
        let baton = successor.baton();
        match offered.and_then(|()| successor.go(still_max)) {
            Ok(pid) => {
                let still_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.still_ms.store(still_ms, Ordering::Relaxed);
                self.order(Order::LetGo);
                self.order_packager(hls::Order::LetGo(baton));
                Ok(pid)
            }
            Err(error) => {
                self.order(Order::GoOn);
                self.order_packager(hls::Order::GoOn);
                self.access.regain_store();
                Err(error)
            }
        }
    }

    fn stand_still(&self, deadline: Instant) -> Result<(), HandOverError> {
        self.ask_all(deadline, |reply| Command::StandStill { reply }).map(drop)
    }

    fn export(
        &self,
        deadline: Instant,
    ) -> Result<(Legacy, Vec<std::os::fd::OwnedFd>), HandOverError> {
        // First: it tells from where on it needs the rings.
        let packaged = self.export_packaging(deadline);
        let exports = self.ask_all(deadline, |reply| Command::Export { reply })?;
        let mut legacy = Legacy::default();
        let (mut doors, mut sockets) = (Vec::new(), Vec::new());
        for export in exports {
            let Export { record, sockets: own, doors: own_doors } = *export?;
            for (door, socket) in own_doors {
                legacy.doors.push(door);
                doors.push(socket);
            }
            legacy.workers.push(record);
            sockets.extend(own);
        }
        if let Some(shared) = &self.shared {
            legacy.renditions = shared.hls.numbers().into_iter().map(Into::into).collect();
        }
        if let Some(admin) = &self.admin_socket {
            let socket = admin.try_clone();
            doors.push(socket.map_err(|error| HandOverError::io("the admin listener", &error))?);
            legacy.doors.push(Door::Admin);
        }
        doors.extend(sockets);
        doors.extend(packaged.files);
        legacy.packaging = packaged.record;
        Ok((legacy, doors))
    }

    fn export_packaging(&self, deadline: Instant) -> Passed {
        let (sender, answer) = mpsc::channel();
        self.order_packager(hls::Order::Export(sender));
        let patience = deadline.saturating_duration_since(Instant::now()) / EXPORT_PARTS;
        answer.recv_timeout(patience).unwrap_or_else(|_| {
            tracing::warn!(
                event = "upgrade",
                "HLS begins anew: the packager did not answer in time"
            );
            Passed::default()
        })
    }

    fn order_packager(&self, order: hls::Order) {
        if let Some(shared) = &self.shared {
            shared.hls.order(order);
        }
    }

    /// Asks every worker, and waits for all answers.
    fn ask_all<T>(
        &self,
        deadline: Instant,
        command: impl Fn(Reply<T>) -> Command,
    ) -> Result<Vec<T>, HandOverError> {
        let mut awaited = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (reply, answer) = Reply::channel();
            send(worker, command(reply), deadline)?;
            awaited.push((worker.index(), answer));
        }
        let mut answers = Vec::with_capacity(awaited.len());
        for (worker, mut answer) in awaited {
            answers.push(loop {
                match answer.try_recv() {
                    Ok(answer) => break answer,
                    Err(oneshot::error::TryRecvError::Empty) if Instant::now() < deadline => {
                        thread::sleep(LOOK);
                    }
                    Err(oneshot::error::TryRecvError::Empty) => {
                        let text = format!("worker {worker} did not come to a standstill in time");
                        return Err(HandOverError(text));
                    }
                    Err(oneshot::error::TryRecvError::Closed) => {
                        let text = format!("worker {worker} failed, or is on its way out");
                        return Err(HandOverError(text));
                    }
                }
            });
        }
        Ok(answers)
    }
}

fn send(worker: &WorkerHandle, command: Command, deadline: Instant) -> Result<(), HandOverError> {
    let mut command = command;
    loop {
        command = match worker.offer(command) {
            Ok(()) => return Ok(()),
            Err(command) => command,
        };
        if Instant::now() >= deadline {
            return Err(HandOverError(format!("worker {} takes no command", worker.index())));
        }
        thread::sleep(LOOK);
    }
}
