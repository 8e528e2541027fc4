//! One client's connection: bytes in, commands, replies in their order, bytes out.
//!
//! Everything a client has sent is handed to the node before anything is waited for, so the writes of one pipeline
//! share a log batch. Replies leave in the order of the commands, as many as are ready in one system call.
//!
//! # Order between a connection's own commands
//! A client may send a read behind its own write without waiting, and expects to see what it wrote; and a write behind
//! a read must not be seen by that read. So writes are under way together, reads are under way together, but a read
//! waits until the writes before it are answered, and a write until the reads before it are. A cheap linearizable read
//! behind a write does not wait but goes through the log as well, right behind it: pipelines that mix both stay fast.
//!
//! # Bounds
//! Commands and bytes under way, and replies not yet taken, are bounded: past the bound nothing more is read from this
//! client, and TCP tells it so. What stalls in the middle (half a request, replies nobody takes) is closed after
//! [`Options::stall_timeout`](super::Options::stall_timeout).

mod replies;

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    Shared,
    backend::{Backend, Consistency},
    client_command,
    clients::{Allowance, Membership, Stop},
    parser::Parser,
    pipeline::{Pipeline, Slot, Wait, cost},
    session::{Action, Gate, Session},
    waits,
};
use crate::kv::{Reply, request};

/// One client, from its first byte to its last.
pub(super) struct Connection<S, B> {
    stream: S,
    shared: Arc<Shared<B>>,
    session: Session,
    /// Leaves the list of clients when dropped.
    _membership: Membership,
    stop: oneshot::Receiver<Stop>,
    parser: Parser,
    input: BytesMut,
    allowance: Allowance,
    /// A command whose turn has not come: see the order of commands above.
    held: Option<Vec<Bytes>>,
    pipeline: Pipeline,
    output: BytesMut,
    intake: Intake,
    stall: Stall,
    /// Whether other tasks were already given a turn to add to the output.
    lingered: bool,
}

/// Whether more commands are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// Yes.
    Open,
    /// No more bytes, but what is in the buffer is served.
    Ended,
    /// What is under way is answered, then the connection closes.
    Closed,
    /// The same, but the client is in the middle of sending more.
    Refused,
}

/// Since when something has been stuck, if it is.
#[derive(Default)]
struct Stall {
    timer: Option<Pin<Box<Sleep>>>,
    moved: Option<Instant>,
}

/// Why the loop came up for air.
enum Pause {
    /// More replies are about to come: let them, and send all at once.
    Linger,
    /// The end.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin, B: Backend> Connection<S, B> {
    /// A connection that has said nothing yet.
    pub(super) fn new(
        stream: S,
        shared: Arc<Shared<B>>,
        membership: Membership,
        stop: oneshot::Receiver<Stop>,
    ) -> Connection<S, B> {
        let authenticated = shared.options.password.is_none();
        let allowance = Allowance::new(Arc::clone(&shared.clients));
        Connection {
            stream,
            session: Session::new(Arc::clone(&membership.client), authenticated),
            _membership: membership,
            stop,
            parser: Parser::default(),
            input: BytesMut::new(),
            allowance,
            held: None,
            pipeline: Pipeline::default(),
            output: BytesMut::new(),
            intake: Intake::Open,
            stall: Stall::default(),
            lingered: false,
            shared,
        }
    }

    /// Serves until the client leaves, breaks the protocol, stalls, or is told to go.
    pub(super) async fn run(mut self) {
        self.parser.restrict(!self.session.authenticated);
        while let Pause::Linger = poll_fn(|context| self.poll(context)).await {
            tokio::task::yield_now().await;
        }
        // The client may have gone.
        let _ = timeout(CLOSE_TIMEOUT, self.say_goodbye()).await;
    }

    /// Ends the stream so that the last replies arrive: closing it with bytes unread would reset it, and a reset
    /// overtakes what is on its way.
    async fn say_goodbye(&mut self) -> io::Result<()> {
        if self.intake == Intake::Open {
            // It was cut off.
            return Ok(());
        }
        self.stream.shutdown().await?;
        if self.intake != Intake::Refused {
            return Ok(());
        }
        let mut ignored = vec![0; INPUT_BYTES];
        for _ in 0..GOODBYE_READS_MAX {
            if self.stream.read(&mut ignored).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Pause> {
        loop {
            if self.poll_stop(context) == Some(Stop::Kill) {
                return Poll::Ready(Pause::End);
            }
            let mut moved = self.take_commands();
            moved |= self.poll_replies(context);
            if moved {
                continue;
            }
            if !self.output.is_empty() {
                if !self.lingered && !self.pipeline.is_empty() && self.output.len() < LINGER_BYTES_MAX {
                    self.lingered = true;
                    return Poll::Ready(Pause::Linger);
                }
                match self.poll_write(context) {
                    Poll::Ready(Ok(())) => {
                        self.stall.moved = None;
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Pause::End),
                    // Too many clients do not take large replies: this one is cut off.
                    Poll::Pending if !self.may_hold_so_much() => return Poll::Ready(Pause::End),
                    Poll::Pending => {}
                }
            } else if self.intake != Intake::Open && self.pipeline.is_empty() && self.held.is_none() {
                return Poll::Ready(Pause::End);
            }
            match self.poll_read(context) {
                Poll::Ready(Ok(())) => {
                    self.stall.moved = None;
                    continue;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Pause::End),
                Poll::Pending => {}
            }
            return if self.poll_stall(context) { Poll::Ready(Pause::End) } else { Poll::Pending };
        }
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) -> Option<Stop> {
        if self.stop.is_terminated() {
            return None;
        }
        match Pin::new(&mut self.stop).poll(context) {
            Poll::Pending => None,
            Poll::Ready(Ok(Stop::Drain)) => {
                self.close(Intake::Closed);
                None
            }
            // Without a sender nobody could end it any more.
            Poll::Ready(Ok(Stop::Kill) | Err(_)) => Some(Stop::Kill),
        }
    }

    /// Nothing more is taken from this client.
    fn close(&mut self, intake: Intake) {
        self.intake = intake;
        self.held = None;
        self.input = BytesMut::new();
        self.may_hold_so_much();
    }

    /// Begins every command that is there and may begin. Whether there was any.
    fn take_commands(&mut self) -> bool {
        let mut any = false;
        while matches!(self.intake, Intake::Open | Intake::Ended) && !self.is_full() {
            let Some(args) = self.next_command() else { break };
            let gate = self.session.gate(&args);
            if gate == Gate::Writes
                && (1..LOGGED_READS_MAX).contains(&self.pipeline.writes())
                && !self.pipeline.has_reads()
                && self.session.may_read_by_log(&args)
            {
                any = true;
                self.read_by_log(args);
                continue;
            }
            let passes = match gate {
                Gate::Open => true,
                Gate::Reads => !self.pipeline.has_reads(),
                Gate::Writes => self.pipeline.writes() == 0,
                Gate::All => self.pipeline.is_empty(),
            };
            if !passes {
                self.held = Some(args);
                break;
            }
            any = true;
            self.begin(args, gate);
        }
        self.start_reads();
        any
    }

    fn is_full(&self) -> bool {
        let options = &self.shared.options;
        self.pipeline.commands() >= options.in_flight_max
            || self.pipeline.bytes() >= options.in_flight_bytes_max
            || self.output.len() >= options.output_bytes_max
    }

    fn next_command(&mut self) -> Option<Vec<Bytes>> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        match self.parser.next(&mut self.input, &self.shared.options.requests) {
            Ok(Some(args)) => {
                self.shared.clients.counters.commands.fetch_add(1, Ordering::Relaxed);
                return Some(args);
            }
            Ok(None) => {}
            Err(error) => {
                self.reply(&Reply::error_text(format!("ERR Protocol error: {error}")));
                self.close(Intake::Refused);
            }
        }
        if self.input.is_empty() && self.input.capacity() > INPUT_BYTES * 4 {
            // A large request has been taken; its memory goes with it.
            self.input = BytesMut::new();
            self.may_hold_so_much();
        }
        None
    }

    fn begin(&mut self, args: Vec<Bytes>, gate: Gate) {
        if gate != Gate::Writes {
            // The reads so far are to be made in the mode they were sent in, whatever this command changes.
            self.start_reads();
        }
        let silent = self.session.take_silence() && !client_command::changes_replies(&args);
        let bytes = cost(&args);
        let protocol = self.session.protocol;
        let action = self.session.execute(args, &self.shared);
        self.parser.restrict(!self.session.authenticated);
        // A transaction keeps what was queued for it until its reply can be put together.
        let bytes = match &action {
            Action::Execute { commands, .. } => commands.iter().map(|queued| cost(&queued.args)).sum(),
            Action::Nothing
            | Action::Reply(_)
            | Action::Close(_)
            | Action::Read(_)
            | Action::Write(_)
            | Action::Watch(_)
            | Action::Sleep(_)
            | Action::Barrier
            | Action::WaitFor { .. } => bytes,
        };
        let wait = match action {
            Action::Nothing => return,
            Action::Reply(reply) => {
                // `HELLO` answers in the protocol it chooses.
                if !silent {
                    self.reply(&reply);
                }
                return;
            }
            Action::Close(reply) => {
                if !silent {
                    self.reply(&reply);
                }
                self.start_reads();
                return self.close(Intake::Closed);
            }
            // A read without a reply is no work at all.
            Action::Read(_) if silent => return,
            Action::Read(args) => return self.pipeline.gather(args),
            Action::Write(payload) => Wait::Write(self.shared.backend.propose(payload)),
            Action::Execute { payload, commands } => {
                Wait::Execute(self.shared.backend.propose(payload), commands)
            }
            Action::Watch(keys) => self.watch(keys),
            Action::Sleep(duration) => Wait::Later(Box::pin(async move {
                tokio::time::sleep(duration).await;
                Reply::OK
            })),
            Action::Barrier => Wait::Later(Box::pin(waits::barrier(Arc::clone(&self.shared)))),
            Action::WaitFor { members, timeout } => {
                Wait::Later(Box::pin(waits::members(Arc::clone(&self.shared), members, timeout)))
            }
        };
        self.start_reads();
        self.pipeline.push(Slot { wait, protocol, silent, bytes });
    }

    fn read_by_log(&mut self, args: Vec<Bytes>) {
        if self.session.take_silence() {
            return;
        }
        let bytes = cost(&args);
        // The log knows reads as parts of transactions only.
        let payload = request::encode_exec::<Bytes, Bytes>(&[], &[args]);
        let wait = Wait::LoggedRead(self.shared.backend.propose(payload));
        self.pipeline.push(Slot { wait, protocol: self.session.protocol, silent: false, bytes });
    }

    fn watch(&self, keys: Vec<Bytes>) -> Wait {
        let (sender, receiver) = oneshot::channel();
        let wanted = keys.clone();
        // Always linearizable: a stale index would only make the transaction fail, but for no reason.
        self.shared.backend.read(
            Consistency::Linearizable,
            Box::new(move |kv| {
                let indexes = kv.map(|kv| wanted.iter().map(|key| kv.modification_index(key)).collect());
                // The client may have gone.
                let _ = sender.send(indexes);
            }),
        );
        Wait::Watch(receiver, keys)
    }

    /// Sends some of the output.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_write(context, &self.output) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(sent)) => {
                self.shared.clients.counters.bytes_out.fetch_add(sent as u64, Ordering::Relaxed);
                if sent < self.output.len() {
                    self.output.advance(sent);
                    return Poll::Ready(Ok(()));
                }
                self.lingered = false;
                if self.output.capacity() > OUTPUT_BYTES_KEPT {
                    self.output = BytesMut::new();
                } else {
                    self.output.clear();
                }
                // A TLS stream may hold back what it was given.
                match Pin::new(&mut self.stream).poll_flush(context) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
                }
            }
        }
    }

    /// Receives some input, unless this client has enough under way.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.intake != Intake::Open || self.is_full() || self.held.is_some() {
            return Poll::Pending;
        }
        let wanted = self.parser.bytes_wanted(&self.input).clamp(INPUT_BYTES, INPUT_STEP_BYTES_MAX);
        if self.input.capacity() - self.input.len() < INPUT_BYTES / 4 {
            // Doubles when it must grow, so that a large request is not copied again and again.
            self.input.reserve(wanted);
            if !self.may_hold_so_much() {
                self.reply(&Reply::error(
                    "BUSY too many large requests and replies are under way, try again",
                ));
                self.close(Intake::Refused);
                return Poll::Ready(Ok(()));
            }
        }
        let received = {
            let read = pin!(self.stream.read_buf(&mut self.input)).poll(context);
            match read {
                Poll::Pending => {
                    self.rest();
                    return Poll::Pending;
                }
                Poll::Ready(received) => received?,
            }
        };
        if received == 0 {
            self.intake = Intake::Ended;
        }
        self.session.client.was_active();
        self.shared.clients.counters.bytes_in.fetch_add(received as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Whether all clients together stay within their memory with what this one holds now.
    fn may_hold_so_much(&mut self) -> bool {
        let buffers = self.input.capacity() + self.output.len();
        let large = buffers.saturating_sub(BUFFERS_FREE_BYTES) + self.session.transaction.bytes();
        self.allowance.resize(large, self.shared.options.buffers_bytes_max)
    }

    /// An idle connection keeps no buffers: there may be ten thousand of them.
    fn rest(&mut self) {
        if self.input.is_empty() && self.pipeline.is_empty() {
            self.input = BytesMut::new();
            self.may_hold_so_much();
            if self.output.is_empty() && self.output.capacity() > OUTPUT_BYTES_IDLE {
                self.output = BytesMut::new();
            }
        }
    }

    /// Whether something has been stuck for too long.
    fn poll_stall(&mut self, context: &mut Context<'_>) -> bool {
        // Who has closed its side may still read, but cannot be asked whether it does: it is not waited for without end.
        let waits_for_client = !self.output.is_empty()
            || (self.intake == Intake::Ended && self.pipeline.waits_as_wished())
            || (self.pipeline.is_empty() && self.held.is_none() && self.parser.is_in_request(&self.input));
        if !waits_for_client {
            self.stall = Stall::default();
            return false;
        }
        loop {
            let moved = *self.stall.moved.get_or_insert_with(Instant::now);
            let deadline = moved + self.shared.options.stall_timeout;
            let timer = self.stall.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            match timer.as_mut().poll(context) {
                Poll::Pending => return false,
                Poll::Ready(()) if Instant::now() >= deadline => return true,
                Poll::Ready(()) => timer.as_mut().reset(deadline),
            }
        }
    }
}

/// What is read at a time, and what an idle connection may keep.
const INPUT_BYTES: usize = 16 << 10;
/// What each connection may hold without being counted.
const BUFFERS_FREE_BYTES: usize = 32 << 10;
/// What a large string's buffer grows by at least, however much was announced.
const INPUT_STEP_BYTES_MAX: usize = 64 << 10;
/// A larger output buffer is not kept between requests.
const OUTPUT_BYTES_IDLE: usize = 1 << 10;
/// A larger output buffer is given back once it has been sent.
const OUTPUT_BYTES_KEPT: usize = 64 << 10;
/// With more than this to send there is no gain in waiting for more.
const LINGER_BYTES_MAX: usize = 16 << 10;
/// Reads that follow writes through the log, at most: each brings its value with it.
const LOGGED_READS_MAX: usize = 64;
/// What a client sends after it was told off is read so many times: 64 MiB, so that one with a value that is too large
/// comes to the end of it and reads why.
const GOODBYE_READS_MAX: usize = 4096;
/// How long the orderly end of a stream may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
