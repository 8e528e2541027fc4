//! Torn or damaged? Decided here and nowhere else, from the bytes of one segment and what its successor says.
//!
//! A segment is walked from its first record to X, the first place where no record of this segment stands, or where a
//! batch does not fit its commit record. Then the rest of the file is searched for records of this segment. A batch is
//! *witnessed* if something written after its fdatasync returned says so: the watermark of an intact commit record, the
//! seal, or the next segment's header.
//!
//! | at X | behind X | payloads | verdict |
//! |---|---|---|---|
//! | a seal | - | intact | [`Ending::Sealed`] |
//! | no tag | no tag | intact | [`Ending::Clean`]: zeroes, or a former life of the file |
//! | no tag, and all but the tag of a commit record or seal | no tag | intact | [`Ending::Torn`]: the next tag written there would revive it |
//! | anything | tags, and nothing that witnesses a batch behind the last closed one | intact | [`Ending::Torn`]: cut from the last closed batch on |
//! | anything | something that witnesses a batch behind the last closed one | any | [`Ending::Damaged`]: never cut |
//! | any | any | bad in a batch that is witnessed | [`Ending::Damaged`] |
//! | any | nothing that witnesses it | bad in the last batch | [`Ending::Torn`]: cut from that batch on |
//!
//! An unfinished write and damage to the very last batch look the same as long as nothing witnesses that batch: that is
//! the window which FORMAT.md tells of.

use raft_core::{LogId, LogIndex, SnapshotMeta};

use crate::{
    error::CorruptionKind,
    record::{self, ALIGN, Header, NoRecord, Record, Stamp, State},
    segment::{
        header::{HEADER_BYTES, SegmentHeader},
        index::{Op, SegmentIndex, Slot},
    },
};

/// What one segment holds.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Every entry that may be believed: with damage, those before the hole.
    pub(crate) index: SegmentIndex,
    /// The newest intact state, also if it stands behind damage.
    pub(crate) state: State,
    /// The chain's value at `end`.
    pub(crate) chain: u64,
    /// Closed batches found before X.
    pub(crate) closed: usize,
    /// Entries whose payloads were checked.
    pub(crate) entries: u64,
    /// Where the last closed batch that is kept ends, or the seal.
    pub(crate) end: u64,
    /// Behind the last witnessed batch: from here to `end` nothing proves that the disk has it (rule 0).
    pub(crate) rewrite_from: u64,
    /// The newest snapshot mark.
    pub(crate) mark: Option<SnapshotMeta>,
    pub(crate) ending: Ending,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has a seal.
    Sealed { seal_offset: u64, next_number: u64, next_salt: u128 },
    /// The rest was never written.
    Clean,
    /// An unfinished write stands at [`Scan::end`]; its last trace ends at `to`.
    Torn { to: u64 },
    /// Something that was acknowledged cannot be read.
    Damaged(Hole),
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) offset: u64,
    pub(crate) kind: CorruptionKind,
    /// The last entry known to be lost; `None` if only the state behind the hole tells.
    pub(crate) last: Option<LogIndex>,
}

struct Batch {
    start: usize,
    end: usize,
    ops_end: usize,
    state: State,
    watermark: u64,
    chain: u64,
    bad: Option<(u64, CorruptionKind)>,
    bad_entries: Vec<(LogId, u64)>,
    mark: Option<SnapshotMeta>,
}

/// Reads the segment `bytes`, whose header is `header`. `next` is what the next segment's header says of this one's end.
pub(crate) fn scan(bytes: &[u8], header: &SegmentHeader, next: Option<&State>) -> Scan {
    let walk = Walk::run(bytes, header);
    let behind = Behind::search(bytes, walk.end, &header.stamp());
    walk.judge(header, &behind, next)
}

/// The closed batches up to X.
struct Walk {
    batches: Vec<Batch>,
    ops: Vec<Op>,
    seal: Option<(u64, u64, u128, u64)>,
    /// Where the last closed batch ends, or the seal.
    end: usize,
    chain: u64,
    entries: u64,
    /// Where and why the walk stopped, if a tag stood there.
    stopped: Option<(u64, CorruptionKind)>,
}

impl Walk {
    fn run(bytes: &[u8], header: &SegmentHeader) -> Walk {
        let stamp = header.stamp();
        let mut walk = Walk {
            batches: Vec::new(),
            ops: Vec::new(),
            seal: None,
            end: HEADER_BYTES,
            chain: header.state.chain,
            entries: 0,
            stopped: None,
        };
        let mut open = Batch::starting(HEADER_BYTES, header.state);
        let mut chain = header.state.chain;
        let mut position = HEADER_BYTES;
        let mut last_batch = header.state.batch;
        loop {
            let record = match record::parse(bytes, 0, position, &stamp) {
                Ok(record) => record,
                Err(NoRecord::Untagged) => break,
                Err(NoRecord::Damaged) => {
                    walk.stopped = Some((position as u64, CorruptionKind::RecordHeader));
                    break;
                }
            };
            let end = position + record.padded_bytes();
            match record.header {
                Header::Commit { state, watermark } => {
                    if state.chain != chain || state.batch <= last_batch {
                        walk.stopped = Some((open.start as u64, CorruptionKind::Chain));
                        break;
                    }
                    chain = record::chain(chain, record.header_checksum);
                    last_batch = state.batch;
                    (open.end, open.state, open.chain) = (end, state, chain);
                    open.watermark = watermark;
                    open.ops_end = walk.ops.len();
                    (walk.end, walk.chain) = (end, chain);
                    let next = Batch::starting(end, state);
                    walk.batches.push(std::mem::replace(&mut open, next));
                }
                Header::Seal { next_number, next_salt, state } => {
                    if state.chain != chain || open.start != position || state.batch != last_batch {
                        walk.stopped = Some((position as u64, CorruptionKind::Chain));
                        break;
                    }
                    walk.seal = Some((position as u64, next_number, next_salt, state.batch));
                    (walk.end, walk.chain) = (end, record::chain(chain, record.header_checksum));
                    break;
                }
                Header::Entry { .. } | Header::Cut { .. } | Header::Mark { .. } | Header::Pad => {
                    chain = record::chain(chain, record.header_checksum);
                    if !walk.take(&record, position, &mut open) {
                        walk.stopped = Some((position as u64, CorruptionKind::Record));
                        break;
                    }
                }
            }
            position = end;
        }
        let closed_ops = walk.batches.last().map_or(0, |batch| batch.ops_end);
        walk.ops.truncate(closed_ops);
        walk
    }

    /// Takes one record into the open batch; `false` if it contradicts itself.
    fn take(&mut self, record: &Record<'_>, position: usize, open: &mut Batch) -> bool {
        let Ok(offset) = u32::try_from(position) else { return false };
        match record.header {
            Header::Entry { id, kind, .. } => {
                let Ok(bytes) = u32::try_from(record.bytes) else { return false };
                self.entries += 1;
                if !record.payload_is_intact() {
                    let at = position as u64;
                    open.bad.get_or_insert((at, CorruptionKind::Payload(id)));
                    open.bad_entries.push((id, at));
                }
                let is_conf = kind == raft_core::EntryKind::ConfChange;
                self.ops.push(Op::Push { id, slot: Slot { offset, bytes }, is_conf });
            }
            Header::Cut { after } => self.ops.push(Op::Cut { after }),
            Header::Mark { last, resets_log, restated: _ } => {
                if record.payload_is_intact() {
                    let Some(meta) = record::decode_meta(last, record.payload) else { return false };
                    open.mark = Some(meta);
                    self.ops.push(Op::Mark { offset: position as u64 });
                } else {
                    open.bad.get_or_insert((position as u64, CorruptionKind::SnapshotMark(last)));
                }
                if resets_log {
                    self.ops.push(Op::Reset { to: last });
                }
            }
            Header::Pad | Header::Commit { .. } | Header::Seal { .. } => {}
        }
        true
    }

    fn judge(mut self, header: &SegmentHeader, behind: &Behind, next: Option<&State>) -> Scan {
        let witness = self.witness(behind, next);
        // Payloads first: what is bad in a batch that nothing witnesses was never acknowledged.
        let unacknowledged =
            self.batches.iter().position(|batch| batch.bad.is_some() && batch.state.batch > witness);
        if let Some(place) = unacknowledged {
            self.seal = None;
            self.end = self.batches[place].start;
            self.batches.truncate(place);
            self.chain = self.batches.last().map_or(header.state.chain, |batch| batch.chain);
            self.ops.truncate(self.batches.last().map_or(0, |batch| batch.ops_end));
        }
        let last_closed = self.batches.last().map_or(header.state.batch, |batch| batch.state.batch);
        let witnessed_end = self
            .batches
            .iter()
            .rev()
            .find(|batch| batch.state.batch <= witness)
            .map_or(HEADER_BYTES, |batch| batch.end);
        let rewrite_from = witnessed_end as u64;

        let (mut index, contradiction) = self.build(header);
        let mut state = self.batches.last().map_or(header.state, |batch| batch.state);
        let mut hole = contradiction.or_else(|| self.lost_payload(&mut index));
        // A successor that knows of a later batch than we can read proves that one is lost here.
        let lost = unacknowledged.is_none() && witness > last_closed;
        if lost {
            let after = [behind.state, next.copied()]
                .into_iter()
                .flatten()
                .max_by_key(|state| state.batch)
                .unwrap_or(state);
            // Before its first batch a segment has cut nothing: what its header says is of the one before.
            let cuts_read = if self.batches.is_empty() { 0 } else { state.cuts };
            if after.cuts > cuts_read && after.cut_min < index.last() {
                // A cut is among what is lost: entries behind it may be of a history that was given up.
                let _ = index.apply(Op::Cut { after: after.cut_min });
            }
            let (offset, kind) = self.stopped.unwrap_or((self.end as u64, CorruptionKind::RecordHeader));
            hole = Some(hole.unwrap_or(Hole { offset, kind, last: None }));
            state = after;
        }
        let ending = match (hole, self.seal) {
            (Some(hole), _) => Ending::Damaged(hole),
            (None, Some((seal_offset, next_number, next_salt, _))) => {
                Ending::Sealed { seal_offset, next_number, next_salt }
            }
            (None, None) => match behind.tagged_end.or(unacknowledged.map(|_| behind.from as u64)) {
                Some(to) => Ending::Torn { to },
                None => Ending::Clean,
            },
        };
        Scan {
            index,
            state,
            chain: self.chain,
            closed: self.batches.len(),
            entries: self.entries,
            end: self.end as u64,
            rewrite_from,
            mark: self.batches.iter_mut().rev().find_map(|batch| batch.mark.take()),
            ending,
        }
    }

    /// The newest batch that something later proves durable.
    fn witness(&self, behind: &Behind, next: Option<&State>) -> u64 {
        let seal = self.seal.map_or(0, |(.., batch)| batch);
        let next = next.map_or(0, |state| state.batch);
        let closed = self.batches.iter().map(|batch| batch.watermark).max().unwrap_or(0);
        seal.max(next).max(closed).max(behind.watermark)
    }

    /// The index of all closed batches, up to the first that contradicts the log.
    fn build(&self, header: &SegmentHeader) -> (SegmentIndex, Option<Hole>) {
        let mut index = SegmentIndex::new(header.state.last.index);
        let mut done = 0;
        for batch in &self.batches {
            let fits = self.ops[done..batch.ops_end].iter().all(|op| index.apply(*op))
                && index.last() == batch.state.last.index;
            if !fits {
                let kind = CorruptionKind::Record;
                return (index, Some(Hole { offset: batch.start as u64, kind, last: None }));
            }
            done = batch.ops_end;
        }
        (index, None)
    }

    /// The first run of entries with bad payloads that no later cut made irrelevant; the index ends before it.
    fn lost_payload(&self, index: &mut SegmentIndex) -> Option<Hole> {
        let mut lost: Vec<(LogId, u64)> = self
            .batches
            .iter()
            .flat_map(|batch| &batch.bad_entries)
            .copied()
            .filter(|(id, offset)| index.slot(id.index).is_some_and(|slot| u64::from(slot.offset) == *offset))
            .collect();
        lost.sort_by_key(|(id, _)| id.index);
        let (first, offset) = *lost.first()?;
        let run = lost.iter().zip(0..).take_while(|((id, _), n)| id.index == first.index.plus(*n));
        let last = run.last().map(|((id, _), _)| id.index);
        index.truncate(first.index.prev());
        Some(Hole { offset, kind: CorruptionKind::Payload(first), last })
    }
}

impl Batch {
    fn starting(start: usize, state: State) -> Batch {
        Batch {
            start,
            end: start,
            ops_end: 0,
            state,
            watermark: 0,
            chain: state.chain,
            bad: None,
            bad_entries: Vec::new(),
            mark: None,
        }
    }
}

/// Traces of this segment behind the last closed batch.
struct Behind {
    from: usize,
    /// Where the last trace ends.
    tagged_end: Option<u64>,
    /// The newest state found intact.
    state: Option<State>,
    /// The newest batch that a record here proves durable.
    watermark: u64,
}

impl Behind {
    fn search(bytes: &[u8], from: usize, stamp: &Stamp) -> Behind {
        let mut behind = Behind { from, tagged_end: None, state: None, watermark: 0 };
        let tag = stamp.tag.to_le_bytes();
        let mut position = from;
        if let Some(bytes) = record::beheaded(bytes, from, stamp) {
            position += bytes;
            behind.tagged_end = Some(position as u64);
        }
        while let Some(place) = find_aligned(bytes, position, tag) {
            let mut end = place + ALIGN;
            if let Ok(record) = record::parse(bytes, 0, place, stamp) {
                end = place + record.padded_bytes();
                let (state, watermark) = match record.header {
                    Header::Commit { watermark, state } => (Some(state), watermark),
                    Header::Seal { state, .. } => (Some(state), state.batch),
                    Header::Entry { .. } | Header::Cut { .. } | Header::Mark { .. } | Header::Pad => {
                        (None, 0)
                    }
                };
                if state.map(|state| state.batch) > behind.state.map(|state| state.batch) {
                    behind.state = state;
                }
                behind.watermark = behind.watermark.max(watermark);
            }
            behind.tagged_end = Some(end.min(bytes.len()) as u64);
            position = end;
        }
        behind
    }
}

/// The first place at or behind `from` that is aligned and holds `tag`.
fn find_aligned(bytes: &[u8], from: usize, tag: [u8; 8]) -> Option<usize> {
    let from = from.next_multiple_of(ALIGN);
    let rest = bytes.get(from..)?;
    let place = rest.as_chunks::<8>().0.iter().position(|word| *word == tag)?;
    Some(from + place * ALIGN)
}

#[cfg(test)]
mod tests;
