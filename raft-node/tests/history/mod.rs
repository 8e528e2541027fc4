//! Histories of clients, and whether they are linearizable: for the simulation and for real processes alike.
//!
//! An *object* is a few keys that belong together. An operation is one or more steps on one object that happen at one
//! moment between its call and its answer. One whose outcome is unknown happens at any moment after its call, or
//! never; one that was refused is no part of the history, so that a trace of it is found like any value that nobody
//! wrote.
//!
//! The search is Wing and Gong's with Lowe's memory: put those operations first that were answered first, go back where
//! no order fits, and never look twice at the same state with the same operations done. What makes it short is that
//! values are written once: an operation of unknown outcome whose value was seen did happen, before it was seen; one
//! whose value would have been seen had it happened, and was not, did not matter. The few that are left are only tried
//! where they make a difference.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// Keys of one object.
pub(crate) const KEYS: usize = 3;

/// One step, on one key of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Get(usize),
    Set(usize, String),
    Append(usize, String),
    Incr(usize),
    /// Reads and deletes.
    Take(usize),
}

/// What a step was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    Text(Option<String>),
    Number(i64),
    Error,
}

/// One operation. Times are of any one clock that all clients share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) called: u64,
    pub(crate) steps: Vec<Step>,
    /// When, and what; `None` if the outcome is not known.
    pub(crate) answered: Option<(u64, Vec<Answer>)>,
}

/// What the checker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order fits; the text shows how far the best one came.
    Broken(String),
    /// The search became too long; the text shows how far it came.
    Undecided(String),
}

type State = [Option<String>; KEYS];

/// States looked at before the search is given up.
const STATES_MAX: usize = 1 << 18;

/// Whether there is an order of the operations that fits all answers.
pub(crate) fn check(operations: &[Operation]) -> Verdict {
    let seen = Seen::of(operations);
    let mut entries: Vec<Entry<'_>> = operations
        .iter()
        .filter_map(|operation| Some(Entry { operation, need: seen.need(operation)? }))
        .collect();
    entries.sort_by_key(|entry| entry.operation.called);
    Search::new(&entries, seen.grown()).run()
}

/// An operation as the search takes it.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    operation: &'a Operation,
    need: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Happened before this time.
    Must(u64),
    /// Happened at some time, or never.
    May,
}

impl Entry<'_> {
    fn end(&self) -> u64 {
        match self.need {
            Need::Must(end) => end,
            Need::May => u64::MAX,
        }
    }
}

/// What the answers of a history show, by key.
#[derive(Debug, Default)]
struct Seen<'a> {
    /// Texts that were read, and when the reader was answered.
    texts: [Vec<(&'a str, u64)>; KEYS],
    /// Something was told of the key but its text.
    numbers: [bool; KEYS],
    /// The key was overwritten or deleted at some time, perhaps.
    erased: [bool; KEYS],
    counted: [bool; KEYS],
    /// When the last read of the key was called, and when the last other operation on it ended.
    last_read: [u64; KEYS],
    last_end: [u64; KEYS],
    tokens: BTreeMap<(usize, &'a str), usize>,
}

impl<'a> Seen<'a> {
    fn of(operations: &'a [Operation]) -> Seen<'a> {
        let mut seen = Seen::default();
        for operation in operations {
            let answers = operation.answered.iter().flat_map(|(_, answers)| answers.iter().map(Some));
            for (step, answer) in operation.steps.iter().zip(answers.chain(std::iter::repeat(None))) {
                let key = step.key();
                if let Some(token) = step.token() {
                    *seen.tokens.entry(token).or_default() += 1;
                }
                seen.erased[key] |= matches!(step, Step::Set(..) | Step::Take(_));
                seen.counted[key] |= matches!(step, Step::Incr(_));
                let Some((at, _)) = operation.answered else { continue };
                match (step, answer) {
                    (Step::Get(_), Some(Answer::Text(text))) => {
                        seen.texts[key].extend(text.as_deref().map(|text| (text, at)));
                        seen.last_read[key] = seen.last_read[key].max(operation.called);
                        continue;
                    }
                    (Step::Take(_), Some(Answer::Text(text))) => {
                        seen.texts[key].extend(text.as_deref().map(|text| (text, at)));
                    }
                    (step, _) => seen.numbers[key] |= step.observes(),
                }
                seen.last_end[key] = seen.last_end[key].max(at);
            }
        }
        seen
    }

    /// The longest text read from each key that only grows: each of its values is the beginning of that, or goes on
    /// behind it.
    fn grown(&self) -> [Option<&'a str>; KEYS] {
        std::array::from_fn(|key| {
            let longest = self.texts[key].iter().map(|(text, _)| *text).max_by_key(|text| text.len());
            longest.filter(|_| !self.erased[key] && !self.counted[key])
        })
    }

    /// `None` if it makes no difference whether it happened.
    fn need(&self, operation: &Operation) -> Option<Need> {
        if let Some((at, _)) = operation.answered {
            return Some(Need::Must(at));
        }
        let tokens: Vec<(usize, &str)> = operation.steps.iter().filter_map(Step::token).collect();
        if tokens.iter().any(|token| self.tokens.get(token) != Some(&1)) {
            return Some(Need::May);
        }
        let sightings = tokens.iter().flat_map(|(key, token)| {
            self.texts[*key].iter().filter(move |(text, _)| text.contains(token)).map(|(_, at)| *at)
        });
        if let Some(first) = sightings.min() {
            return Some(Need::Must(first));
        }
        // Nothing ever goes from such a key, and it was read at the very end: what is not there never was.
        let would_be_seen = |key: usize| !self.erased[key] && self.last_read[key] > self.last_end[key];
        if tokens.iter().any(|(key, _)| would_be_seen(*key)) {
            return None;
        }
        let blind = |step: &Step| match step {
            Step::Get(_) => true,
            Step::Set(key, _) => !self.numbers[*key],
            Step::Append(..) | Step::Incr(_) | Step::Take(_) => false,
        };
        (!operation.steps.iter().all(blind)).then_some(Need::May)
    }
}

impl Operation {
    /// Whether something else than what is seen of it may depend on when it happened: it overwrites one key, and what
    /// tells that it happened is another.
    fn is_mixed(&self) -> bool {
        let overwrites = |step: &Step| matches!(step, Step::Set(..) | Step::Take(_));
        let first = self.steps.iter().find(|step| overwrites(step)).map(Step::key);
        let writes = |step: &&Step| !matches!(step, Step::Get(_));
        first.is_some_and(|first| self.steps.iter().filter(writes).any(|step| step.key() != first))
    }

    /// On which key `reader` may tell that this happened behind `state`.
    fn is_seen_by(&self, reader: &Operation, state: &State) -> Option<usize> {
        let (_, answers) = reader.answered.as_ref()?;
        let mut views = reader.steps.iter().zip(answers).filter(|(step, _)| step.observes());
        let seen = views.find(|(view, answer)| {
            let value = state[view.key()].as_deref();
            let number = |text: Option<&str>| text.unwrap_or("0").parse::<i64>().ok();
            self.steps.iter().filter(|step| step.key() == view.key()).any(|step| match (step, answer) {
                (Step::Get(_), _) => false,
                (Step::Set(_, token) | Step::Append(_, token), Answer::Text(text)) => {
                    text.as_ref().is_some_and(|text| text.contains(token))
                }
                (Step::Append(..), Answer::Number(length)) if matches!(view, Step::Append(..)) => {
                    value.map_or(0, str::len) < usize::try_from(*length).unwrap_or(0)
                }
                (Step::Incr(_), Answer::Text(text)) => number(value) < number(text.as_deref()),
                (Step::Incr(_), Answer::Number(after)) if matches!(view, Step::Incr(_)) => {
                    number(value) < Some(*after)
                }
                (Step::Set(..) | Step::Append(..) | Step::Incr(_) | Step::Take(_), _) => true,
            })
        });
        seen.map(|(view, _)| view.key())
    }

    /// The state after it, if its answers fit `state`.
    fn apply(&self, state: &State) -> Option<State> {
        let mut state = state.clone();
        let answers: Vec<Answer> = self.steps.iter().map(|step| step.apply(&mut state)).collect();
        let fits = self.answered.as_ref().is_none_or(|(_, seen)| *seen == answers);
        fits.then_some(state)
    }
}

impl Step {
    fn apply(&self, state: &mut State) -> Answer {
        match self {
            Step::Get(key) => Answer::Text(state[*key].clone()),
            Step::Set(key, value) => {
                state[*key] = Some(value.clone());
                Answer::Ok
            }
            Step::Append(key, text) => {
                let value = state[*key].get_or_insert_default();
                value.push_str(text);
                Answer::Number(i64::try_from(value.len()).unwrap())
            }
            Step::Incr(key) => match state[*key].as_deref().unwrap_or("0").parse::<i64>() {
                Ok(number) => {
                    state[*key] = Some((number + 1).to_string());
                    Answer::Number(number + 1)
                }
                Err(_) => Answer::Error,
            },
            Step::Take(key) => Answer::Text(state[*key].take()),
        }
    }

    fn key(&self) -> usize {
        match self {
            Step::Get(key) | Step::Set(key, _) | Step::Append(key, _) | Step::Incr(key) | Step::Take(key) => {
                *key
            }
        }
    }

    /// The text it writes, by which it is recognised.
    fn token(&self) -> Option<(usize, &str)> {
        match self {
            Step::Set(key, text) | Step::Append(key, text) => Some((*key, text)),
            Step::Get(_) | Step::Incr(_) | Step::Take(_) => None,
        }
    }

    /// Whether its answer tells something of what was written before.
    fn observes(&self) -> bool {
        !matches!(self, Step::Set(..))
    }
}

struct Search<'a> {
    /// In the order of their calls.
    entries: &'a [Entry<'a>],
    grown: [Option<&'a str>; KEYS],
    done: Vec<u64>,
    /// Operations that happened and are not done.
    left: usize,
    order: Vec<usize>,
    seen: HashSet<(Vec<u64>, State)>,
    best: (usize, Vec<usize>, State),
}

/// One operation of the order, and what may come behind it.
struct Frame {
    state: State,
    candidates: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(entries: &'a [Entry<'a>], grown: [Option<&'a str>; KEYS]) -> Search<'a> {
        Search {
            entries,
            grown,
            done: vec![0; entries.len().div_ceil(64)],
            left: entries.iter().filter(|entry| entry.need != Need::May).count(),
            order: Vec::new(),
            seen: HashSet::new(),
            best: (usize::MAX, Vec::new(), State::default()),
        }
    }

    fn run(mut self) -> Verdict {
        let state = State::default();
        let mut stack = vec![Frame { candidates: self.candidates(&state), state }];
        while self.left > 0 {
            if self.left < self.best.0 {
                let state = stack.last().map(|frame| frame.state.clone()).unwrap_or_default();
                self.best = (self.left, self.order.clone(), state);
            }
            let Some(frame) = stack.last_mut() else { return Verdict::Broken(self.report()) };
            let Some(candidate) = frame.candidates.pop() else {
                stack.pop();
                if let Some(last) = self.order.pop() {
                    self.mark(last, false);
                }
                continue;
            };
            let state = self.entries[candidate].operation.apply(&frame.state);
            let Some(state) = state.filter(|state| self.grows(state)) else { continue };
            self.mark(candidate, true);
            if self.seen.len() >= STATES_MAX {
                return Verdict::Undecided(self.report());
            }
            if self.seen.insert((self.done.clone(), state.clone())) {
                self.order.push(candidate);
                stack.push(Frame { candidates: self.candidates(&state), state });
            } else {
                self.mark(candidate, false);
            }
        }
        Verdict::Linearizable
    }

    fn grows(&self, state: &State) -> bool {
        state.iter().zip(self.grown).all(|(value, grown)| {
            let (value, grown) = (value.as_deref().unwrap_or(""), grown.unwrap_or(""));
            grown.starts_with(value) || value.starts_with(grown)
        })
    }

    fn is_done(&self, entry: usize) -> bool {
        self.done[entry / 64] & (1 << (entry % 64)) != 0
    }

    fn mark(&mut self, entry: usize, done: bool) {
        self.done[entry / 64] ^= 1 << (entry % 64);
        let counts = usize::from(self.entries[entry].need != Need::May);
        self.left = if done { self.left - counts } else { self.left + counts };
    }

    /// What may come next: called before anything that is not done ended. The first to try comes last.
    fn candidates(&self, state: &State) -> Vec<usize> {
        // All before it are done.
        let first = self.done.iter().position(|word| *word != u64::MAX).unwrap_or(self.done.len()) * 64;
        let open = (first..self.entries.len()).filter(|entry| !self.is_done(*entry));
        let mut candidates = Vec::new();
        let mut first_end = u64::MAX;
        for entry in open {
            if self.entries[entry].operation.called > first_end {
                break;
            }
            first_end = first_end.min(self.entries[entry].end());
            candidates.push(entry);
        }
        candidates.retain(|entry| self.entries[*entry].operation.called <= first_end);
        let useful = self.useful(&candidates, state);
        candidates.retain(|entry| {
            let operation = self.entries[*entry].operation;
            let is_due = self.entries[*entry].end() == first_end;
            operation.answered.is_some() || is_due || operation.is_mixed() || useful.contains(entry)
        });
        // Of equal ones that are as likely to have happened, the first called will do.
        let mut may: Vec<&[Step]> = Vec::new();
        candidates.retain(|entry| {
            let Entry { operation, need } = self.entries[*entry];
            let again = need == Need::May && may.contains(&&operation.steps[..]);
            if need == Need::May {
                may.push(&operation.steps);
            }
            !again
        });
        candidates.sort_by_key(|entry| std::cmp::Reverse(self.entries[*entry].end()));
        candidates
    }

    /// An operation of unknown outcome is put off until it must have happened, or somebody comes who sees it, or
    /// another such one that touches the same keys: anywhere before it could as well come later. (Unless it
    /// [is mixed](Operation::is_mixed): such are tried everywhere, and make the search long.)
    fn useful(&self, candidates: &[usize], state: &State) -> Vec<usize> {
        let operation = |entry: &usize| self.entries[*entry].operation;
        let (known, unknown): (Vec<usize>, Vec<usize>) =
            candidates.iter().partition(|entry| operation(entry).answered.is_some());
        let mut useful = Vec::new();
        // Keys that what is useful already writes beside the one somebody reads.
        let mut keys = [false; KEYS];
        for reader in known.iter().map(operation).filter(|reader| reader.apply(state).is_none()) {
            for entry in &unknown {
                if let Some(key) = operation(entry).is_seen_by(reader, state) {
                    operation(entry).steps.iter().for_each(|step| keys[step.key()] |= step.key() != key);
                    useful.push(*entry);
                }
            }
        }
        loop {
            let touches = |entry: &&usize| operation(entry).steps.iter().any(|step| keys[step.key()]);
            let new = |entry: &&usize| !useful.contains(*entry);
            let more: Vec<usize> = unknown.iter().filter(new).filter(touches).copied().collect();
            if more.is_empty() {
                return useful;
            }
            for entry in &more {
                operation(entry).steps.iter().for_each(|step| keys[step.key()] = true);
            }
            useful.extend(more);
        }
    }

    fn report(&self) -> String {
        let (left, order, state) = &self.best;
        let mut text = format!("no order of the operations fits; the best one leaves {left}. It ends with\n");
        for operation in order.iter().skip(order.len().saturating_sub(12)) {
            text += &format!("  {}\n", self.entries[*operation].operation);
        }
        text += &format!("and gives {state:?}. What has to come next and does not fit:\n");
        let open = (0..self.entries.len()).filter(|entry| !order.contains(entry));
        for entry in open.take(12) {
            text += &format!("  {}\n", self.entries[entry].operation);
        }
        text
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} at {} {:?}", self.client, self.called, self.steps)?;
        match &self.answered {
            Some((at, answers)) => write!(f, " -> at {at} {answers:?}"),
            None => f.write_str(" -> unknown"),
        }
    }
}
