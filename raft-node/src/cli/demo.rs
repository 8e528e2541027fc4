//! `demo`: three nodes on this machine, and a table to watch them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, Table, presets};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use super::{
    exit::{Failure, print},
    signals::Signals,
    status::{ask, micros},
    terminal::{Screen, SingleKeys, finish, harmless},
};
use crate::{
    config::VARIABLE_PREFIX,
    status::{Role, Status},
};

const NODES: u16 = 3;
/// How often the table is brought up to date.
const PERIOD: Duration = Duration::from_secs(1);
/// For a node's answer: half a period, so that a hanging node does not make the table hang.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Nodes that do not leave in this time are killed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(dir: &Path, base_port: u16) -> Result<(), Failure> {
    // One thread: the kernel ties the nodes' lives to the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format_args!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let signals = Signals::install()
            .map_err(|error| Failure::new(format_args!("cannot listen for signals: {error}")))?;
        let mut demo = Demo::new(dir, base_port)?;
        let watched = match demo.start() {
            Ok(()) => demo.watch(signals).await,
            Err(failure) => Err(failure),
        };
        demo.stop().await;
        watched
    })
}

struct Demo {
    nodes: Vec<Node>,
    started: Instant,
}

struct Node {
    id: u16,
    dir: PathBuf,
    log: PathBuf,
    ports: Ports,
    child: Option<Child>,
    /// Why the process does not run, if it does not.
    fate: Fate,
}

/// Why a process does not run.
enum Fate {
    /// It never did.
    NotStarted,
    /// The user wanted it so.
    Killed,
    /// Its own decision, and the reason as far as it gave one.
    Ended(String),
}

impl Fate {
    fn word(&self) -> &'static str {
        match self {
            Fate::NotStarted => "not started",
            Fate::Killed => "killed",
            Fate::Ended(_) => "ended",
        }
    }
}

/// Where a node listens, on the loopback address.
#[derive(Clone, Copy)]
struct Ports {
    resp: u16,
    http: u16,
    peer: u16,
}

impl Demo {
    fn new(dir: &Path, base_port: u16) -> Result<Demo, Failure> {
        if base_port > u16::MAX - 10 * NODES {
            return Err(Failure::usage(format_args!("--base-port {base_port} is too high")));
        }
        let node = |id: u16| {
            let first = base_port + 10 * (id - 1);
            Node {
                id,
                dir: dir.join(format!("n{id}")),
                log: dir.join(format!("n{id}.log")),
                ports: Ports { resp: first, http: first + 1, peer: first + 2 },
                child: None,
                fate: Fate::NotStarted,
            }
        };
        fs::create_dir_all(dir)
            .map_err(|error| Failure::new(format_args!("cannot make {}: {error}", dir.display())))?;
        Ok(Demo { nodes: (1..=NODES).map(node).collect(), started: Instant::now() })
    }

    fn start(&mut self) -> Result<(), Failure> {
        let cluster = self.cluster();
        for node in &mut self.nodes {
            node.start(&cluster)?;
        }
        let mut text = String::new();
        for node in &self.nodes {
            let Ports { resp, http, peer } = node.ports;
            text += &format!(
                "n{}: redis-cli -p {resp}, http://127.0.0.1:{http}/, peers 127.0.0.1:{peer}, data in {}\n",
                node.id,
                node.dir.display()
            );
        }
        print(text)
    }

    /// The founding list, the same for all.
    fn cluster(&self) -> String {
        let members: Vec<String> =
            self.nodes.iter().map(|node| format!("{}=127.0.0.1:{}", node.id, node.ports.peer)).collect();
        members.join(",")
    }

    /// Until somebody wants it to end.
    async fn watch(&mut self, mut signals: Signals) -> Result<(), Failure> {
        let (sender, mut keys) = mpsc::unbounded_channel();
        let single_keys = if io::stdin().is_terminal() && io::stdout().is_terminal() {
            SingleKeys::switch_on().ok()
        } else {
            None
        };
        // Kept when there is no terminal, so that the channel stays open and silent.
        let _sender = sender.clone();
        if let Some(single_keys) = &single_keys {
            single_keys.send_to(sender);
            print("k: kill the leader (kill -9)   r: restart it   q: end\n\n")?;
        }
        let mut screen = single_keys.is_some().then(Screen::default);
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leader = None;
        let mut looks = 0u32;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = signals.next() => return Ok(()),
                key = keys.recv() => match key {
                    Some(b'k') => self.kill(leader),
                    Some(b'r') => self.restart()?,
                    Some(b'q' | 3 | 4) | None => return Ok(()),
                    Some(_) => continue,
                },
            }
            for node in &mut self.nodes {
                node.look();
            }
            // What ends this early never began, most likely for want of a port: there is nothing to watch.
            looks = looks.saturating_add(1);
            if looks <= 2
                && let Some((id, why)) = self.nodes.iter().find_map(Node::ended)
            {
                return Err(Failure::new(format_args!("n{id} ended by itself: {}", harmless(why))));
            }
            let answers = self.ask_all().await;
            // The newest leader, should an old one not know yet.
            leader = answers
                .iter()
                .flatten()
                .filter(|status| status.role == Role::Leader)
                .max_by_key(|status| status.term)
                .and_then(|status| u16::try_from(status.id.0).ok());
            match &mut screen {
                Some(screen) => {
                    let shown = screen.show(&self.table(&answers, leader));
                    shown.map_err(|error| {
                        Failure::new(format_args!("cannot write to the terminal: {error}"))
                    })?;
                }
                None => print(self.line(&answers, leader))?,
            }
        }
    }

    /// Every node's own status, all asked at once.
    async fn ask_all(&self) -> Vec<Option<Status>> {
        let asked: Vec<_> =
            self.nodes
                .iter()
                .map(|node| {
                    let address = format!("127.0.0.1:{}", node.ports.http);
                    let running = node.child.is_some();
                    tokio::task::spawn_blocking(move || {
                        if running { ask(&address, ANSWER_TIMEOUT).ok() } else { None }
                    })
                })
                .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await.unwrap_or_default());
        }
        answers
    }

    fn kill(&mut self, leader: Option<u16>) {
        if let Some(node) = self.nodes.iter_mut().find(|node| Some(node.id) == leader)
            && let Some(mut child) = node.child.take()
        {
            // It may have ended by itself a moment ago, which comes to the same.
            let _ = child.kill();
            let _ = child.wait();
            node.fate = Fate::Killed;
        }
    }

    fn restart(&mut self) -> Result<(), Failure> {
        let cluster = self.cluster();
        self.nodes.iter_mut().filter(|node| node.child.is_none()).try_for_each(|node| node.start(&cluster))
    }

    /// Has all nodes leave, and waits for them.
    async fn stop(&mut self) {
        for child in self.nodes.iter().filter_map(|node| node.child.as_ref()) {
            // It may have ended by itself a moment ago.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        for node in &mut self.nodes {
            let Some(mut child) = node.child.take() else { continue };
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn table(&self, answers: &[Option<Status>], leader: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["NODE", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "FSYNC P99", "RESP", "HTTP"]);
        for column in 2..=6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for (node, answer) in self.nodes.iter().zip(answers) {
            let lag = lag_of(node.id, answers, leader);
            let dash = || "-".to_owned();
            let cells = match answer {
                Some(status) => [
                    status.role.name().to_owned(),
                    status.term.to_string(),
                    status.commit.to_string(),
                    status.applied.to_string(),
                    lag.map_or_else(dash, |lag| lag.to_string()),
                    micros(status.fsync_p99_us),
                ],
                None => {
                    let state = if node.child.is_some() { "starting" } else { node.fate.word() };
                    [
                        state.to_owned(),
                        dash(),
                        dash(),
                        dash(),
                        lag.map_or_else(dash, |lag| lag.to_string()),
                        dash(),
                    ]
                }
            };
            let mut row = vec![format!("n{}", node.id)];
            row.extend(cells);
            row.push(format!("127.0.0.1:{}", node.ports.resp));
            row.push(format!("127.0.0.1:{}", node.ports.http));
            table.add_row(row);
        }
        let mut text = finish(&table);
        for (id, why) in self.nodes.iter().filter_map(Node::ended) {
            text += &format!("! n{id} ended by itself: {}\n", harmless(why));
        }
        text
    }

    /// The same, on one line.
    fn line(&self, answers: &[Option<Status>], leader: Option<u16>) -> String {
        let mut text = format!("{:>4} s", self.started.elapsed().as_secs());
        for (node, answer) in self.nodes.iter().zip(answers) {
            text += &match answer {
                Some(status) => {
                    let lag = lag_of(node.id, answers, leader)
                        .map_or_else(String::new, |lag| format!(" lag {lag}"));
                    format!(
                        " | n{} {} term {} commit {}{lag}",
                        node.id,
                        status.role.name(),
                        status.term,
                        status.commit
                    )
                }
                None if node.child.is_some() => format!(" | n{} starting", node.id),
                None => format!(" | n{} {}", node.id, node.fate.word()),
            };
        }
        text + "\n"
    }
}

/// How far behind the leader a node is, as the leader says.
fn lag_of(id: u16, answers: &[Option<Status>], leader: Option<u16>) -> Option<u64> {
    let leader = answers.iter().flatten().find(|status| Some(status.id.0) == leader.map(u64::from))?;
    leader.members.iter().find(|member| member.id.0 == u64::from(id))?.lag
}

impl Node {
    fn start(&mut self, cluster: &str) -> Result<(), Failure> {
        self.child = Some(
            self.spawn(cluster)
                .map_err(|error| Failure::new(format_args!("cannot start n{}: {error}", self.id)))?,
        );
        Ok(())
    }

    fn spawn(&self, cluster: &str) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .args(["--id", &self.id.to_string()])
            .arg("--data-dir")
            .arg(&self.dir)
            .args(["--resp", &address(self.ports.resp)])
            .args(["--http", &address(self.ports.http)])
            .args(["--peer", &address(self.ports.peer)])
            .args(["--initial-cluster", cluster])
            .args(["--end-with", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us: we end them in order.
            .process_group(0);
        // What was meant for a node of the user's must not configure these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
                command.env_remove(name);
            }
        }
        command.spawn()
    }

    /// Why the process ended, if nobody asked it to.
    fn ended(&self) -> Option<(u16, &str)> {
        match &self.fate {
            Fate::Ended(why) if self.child.is_none() => Some((self.id, why)),
            Fate::Ended(_) | Fate::Killed | Fate::NotStarted => None,
        }
    }

    /// Notices that the process has ended.
    fn look(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Ok(Some(status)) = child.try_wait() {
            self.child = None;
            let why = last_line(&self.log).unwrap_or_default();
            self.fate = Fate::Ended(format!("{why} ({status})"));
        }
    }
}

/// The last line of a log, where a process that gave up said why.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut tail = Vec::new();
    file.take(4096).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail).into_owned();
    tail.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
