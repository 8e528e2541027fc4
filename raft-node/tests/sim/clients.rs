//! Clients: each has one operation under way, at any node, and remembers what it was told.

use bytes::Bytes;
use raft_node::{
    error::ClientError,
    kv::{Kv, Reply, request},
};

use crate::{
    ghost::text,
    history::{Answer, KEYS, Operation, Step},
    random::Random,
};

/// Objects, of [`KEYS`] keys each: a register, a counter, a list of words.
pub(crate) const OBJECTS: usize = 3;

pub(crate) fn key(object: usize, key: usize) -> String {
    format!("{}{object}", ["register", "counter", "words"][key])
}

pub(crate) fn all_keys() -> Vec<String> {
    (0..OBJECTS).flat_map(|object| (0..KEYS).map(move |n| key(object, n))).collect()
}

/// How an operation is put to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Read,
    Stale,
}

/// One operation and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) object: usize,
    pub(crate) kind: Kind,
    pub(crate) operation: Operation,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Under way at this node's run.
    Open {
        node: usize,
        run: u64,
    },
    Answered,
    /// Certainly not applied.
    Refused,
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    pub(crate) requests: Vec<Request>,
    words: u64,
    /// How long a value is, so that logs and snapshots grow.
    pub(crate) padding: usize,
}

impl Clients {
    /// Makes up the next operation of a client.
    pub(crate) fn call(
        &mut self,
        random: &mut Random,
        client: usize,
        now: u64,
        (node, run): (usize, u64),
    ) -> usize {
        let object = random.index(OBJECTS);
        let kind = match random.between(0, 9) {
            0..=5 => Kind::Write,
            6..=8 => Kind::Read,
            _ => Kind::Stale,
        };
        let steps = match kind {
            // Each with a word of its own, by which it is recognised, and nothing that overwrites, which the checker
            // would have to try everywhere.
            Kind::Write if random.chance(200) => {
                let word = self.word();
                let mut steps: Vec<Step> =
                    (0..random.between(1, 3)).map(|_| self.step(random, true)).collect();
                steps.insert(random.index(steps.len() + 1), word);
                steps
            }
            Kind::Write => vec![self.step(random, false)],
            Kind::Read | Kind::Stale => vec![Step::Get(random.index(KEYS))],
        };
        self.put(object, kind, steps, client, now, (node, run))
    }

    pub(crate) fn put(
        &mut self,
        object: usize,
        kind: Kind,
        steps: Vec<Step>,
        client: usize,
        now: u64,
        (node, run): (usize, u64),
    ) -> usize {
        let operation = Operation { client, called: now, steps, answered: None };
        self.requests.push(Request { object, kind, operation, outcome: Outcome::Open { node, run } });
        self.requests.len() - 1
    }

    fn step(&mut self, random: &mut Random, in_transaction: bool) -> Step {
        match random.between(0, 9) {
            0..=2 => self.word(),
            3..=4 => Step::Incr(1),
            5..=9 if in_transaction => Step::Get(random.index(KEYS)),
            5 => Step::Take(0),
            _ => {
                self.words += 1;
                Step::Set(0, format!("v{}.{:2$}", self.words, "", self.padding))
            }
        }
    }

    fn word(&mut self) -> Step {
        self.words += 1;
        Step::Append(2, format!("w{},", self.words))
    }

    /// Ends a request. An error if it had ended before: every one ends exactly once.
    pub(crate) fn end(
        &mut self,
        request: usize,
        now: u64,
        result: Result<Vec<Answer>, ClientError>,
    ) -> Result<Outcome, String> {
        let entry = &mut self.requests[request];
        if !matches!(entry.outcome, Outcome::Open { .. }) {
            return Err(format!("X2: request {request} ended twice: {:?}, {result:?}", entry.outcome));
        }
        entry.outcome = match result {
            Ok(answers) => {
                entry.operation.answered = Some((now, answers));
                Outcome::Answered
            }
            Err(ClientError::OutcomeUnknown) if entry.kind == Kind::Write => Outcome::Unknown,
            Err(ClientError::OutcomeUnknown) => return Err("a read of unknown outcome".to_owned()),
            Err(_) => Outcome::Refused,
        };
        Ok(entry.outcome)
    }

    /// A process ended: its clients are told nothing any more. Returns those that wait for nothing now.
    pub(crate) fn lost(&mut self, node: usize, run: u64) -> Vec<usize> {
        let lost = Outcome::Open { node, run };
        let open = self.requests.iter_mut().filter(|request| request.outcome == lost);
        open.map(|request| {
            request.outcome = Outcome::Unknown;
            request.operation.client
        })
        .collect()
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| matches!(request.outcome, Outcome::Open { .. }))
    }

    /// The history of one object.
    pub(crate) fn history(&self, object: usize) -> Vec<Operation> {
        let of_object = self.requests.iter().filter(|request| request.object == object);
        let counts = |request: &&Request| {
            request.kind != Kind::Stale
                && match request.outcome {
                    Outcome::Open { .. } | Outcome::Answered | Outcome::Unknown => true,
                    Outcome::Refused => false,
                }
        };
        of_object.filter(counts).map(|request| request.operation.clone()).collect()
    }
}

impl Request {
    /// What goes into the log.
    pub(crate) fn payload(&self) -> Bytes {
        let words = |step: &Step| -> Vec<String> {
            let key = |n: usize| key(self.object, n);
            match step {
                Step::Get(n) => vec!["GET".into(), key(*n)],
                Step::Set(n, value) => vec!["SET".into(), key(*n), value.clone()],
                Step::Append(n, value) => vec!["APPEND".into(), key(*n), value.clone()],
                Step::Incr(n) => vec!["INCR".into(), key(*n)],
                Step::Take(n) => vec!["GETDEL".into(), key(*n)],
            }
        };
        match &self.operation.steps[..] {
            [step] => request::encode_command(&words(step)),
            steps => request::encode_exec::<&[u8], String>(&[], &steps.iter().map(words).collect::<Vec<_>>()),
        }
    }

    /// What the store's reply means.
    pub(crate) fn answers(&self, reply: &Bytes) -> Result<Vec<Answer>, String> {
        let reply = Reply::decode(reply).map_err(|error| format!("reply {reply:?}: {error:?}"))?;
        match (reply, &self.operation.steps[..]) {
            (reply, [_]) => Ok(vec![answer(reply)?]),
            (Reply::Array(replies), steps) if replies.len() == steps.len() => {
                replies.into_iter().map(answer).collect()
            }
            (reply, _) => Err(format!("{reply:?} is no answer to {:?}", self.operation.steps)),
        }
    }

    /// What a read has to find, given the value of each key.
    pub(crate) fn versions(&self, value: impl Fn(&str) -> Option<String>) -> Vec<Answer> {
        let look = |step: &Step| match step {
            Step::Get(n) => Answer::Text(value(&key(self.object, *n))),
            Step::Set(..) | Step::Append(..) | Step::Incr(_) | Step::Take(_) => Answer::Error,
        };
        self.operation.steps.iter().map(look).collect()
    }

    /// What a read finds.
    pub(crate) fn look(&self, kv: &Kv) -> Vec<Answer> {
        self.versions(|key| text(kv, key))
    }
}

fn answer(reply: Reply) -> Result<Answer, String> {
    match reply {
        Reply::Simple(text) if text.as_ref() == b"OK" => Ok(Answer::Ok),
        Reply::Integer(number) => Ok(Answer::Number(number)),
        Reply::Null => Ok(Answer::Text(None)),
        Reply::Bulk(bytes) => Ok(Answer::Text(Some(String::from_utf8(bytes.to_vec()).unwrap()))),
        Reply::Error(_) => Ok(Answer::Error),
        other @ (Reply::Simple(_)
        | Reply::NullArray
        | Reply::Array(_)
        | Reply::Set(_)
        | Reply::Map(_)
        | Reply::Push(_)
        | Reply::Double(_)
        | Reply::Bool(_)
        | Reply::BigNumber(_)
        | Reply::Verbatim(..)) => Err(format!("unexpected reply {other:?}")),
    }
}
