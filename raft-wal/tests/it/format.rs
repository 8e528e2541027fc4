//! A reader made from FORMAT.md alone: it shares no code with the crate, and finds in the files what was written.

use std::{collections::BTreeMap, path::Path};

use raft_core::{EntryKind, LogId, SessionSeq};
use raft_wal::{
    Engine,
    vfs::sim::{Call, Fault, SimVfs},
};

use crate::support::{Writes, options, snapshot_file, write};

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

/// An entry as the files tell it.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    term: u64,
    time: u64,
    kind: u8,
    session: Option<(u64, u64)>,
    payload: Vec<u8>,
}

/// Sixteen words, in FORMAT.md's order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State([u64; 16]);

impl State {
    fn at(bytes: &[u8], at: usize) -> State {
        State(std::array::from_fn(|n| u64_at(bytes, at + 8 * n)))
    }
    fn batch(&self) -> u64 {
        self.0[0]
    }
    fn chain(&self) -> u64 {
        self.0[1]
    }
    fn last(&self) -> (u64, u64) {
        (self.0[5], self.0[6])
    }
}

/// What the records of all segments come to.
#[derive(Debug, Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    marks: Vec<(u64, u64, u8)>,
    /// Term and index before the first entry.
    start: (u64, u64),
    commits: Vec<State>,
    footers: usize,
    cuts: usize,
}

struct Segment<'a> {
    bytes: &'a [u8],
    number: u64,
    salt: &'a [u8],
}

impl Segment<'_> {
    /// Section 2: both copies of the header.
    fn read(bytes: &[u8], number: u64) -> (Segment<'_>, State) {
        for at in [0, 2048] {
            let copy = &bytes[at..at + 232];
            assert_eq!(&copy[..8], b"RAFTWAL\n");
            assert_eq!((u32_at(copy, 8), u64_at(copy, 16)), (1, 0));
            assert_eq!(u32_at(copy, 12), crc32fast::hash(&[&copy[..12], &copy[16..]].concat()));
            assert_eq!(copy[24..40], 7_u128.to_le_bytes(), "the cluster");
            assert_eq!((u64_at(copy, 40), u64_at(copy, 48)), (1, number), "node and number");
            assert_eq!(u64_at(copy, 72), bytes.len() as u64);
            assert_eq!(u64_at(copy, 80), 0, "no repair");
            assert!(bytes[at + 232..at + 512].iter().all(|byte| *byte == 0));
        }
        (Segment { bytes, number, salt: &bytes[56..72] }, State::at(bytes, 104))
    }

    fn tag(&self) -> u64 {
        let mix = |v: u64| {
            let v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            v ^ (v >> 31)
        };
        mix(u64_at(self.salt, 0) ^ mix(u64_at(self.salt, 8) ^ self.number)) | 1
    }

    /// Of number, salt, offset and `bytes`, four of which count as zero.
    fn bound_crc(&self, offset: usize, bytes: &[u8]) -> u32 {
        let mut all = self.number.to_le_bytes().to_vec();
        all.extend_from_slice(self.salt);
        all.extend_from_slice(&(offset as u64).to_le_bytes());
        all.extend_from_slice(&bytes[..8]);
        all.extend_from_slice(&[0; 4]);
        all.extend_from_slice(&bytes[12..]);
        crc32fast::hash(&all)
    }

    /// Section 3. Returns the chain's value, and the next segment's number and salt with the seal's end if it is sealed.
    fn records(&self, mut chain: u64, log: &mut Log) -> (u64, Option<(u64, Vec<u8>, usize)>) {
        let mut at = 4096;
        let mut batch = (log.entries.clone(), Vec::new(), 0);
        let mut start = log.start;
        let mut own: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let mut reset = None;
        while at + 32 <= self.bytes.len() && u64_at(self.bytes, at) == self.tag() {
            let record = &self.bytes[at..];
            let (payload_bytes, words, flags) = (size(u64::from(u32_at(record, 12))), record[17], record[19]);
            let header = &record[..usize::from(words) * 8];
            assert_eq!(u32_at(record, 8), self.bound_crc(at, header), "the header at {at}");
            assert_eq!((u32_at(record, 24), u32_at(record, 28)), (0, 0));
            let payload = &record[header.len()..header.len() + payload_bytes];
            if record[16] != 7 {
                assert_eq!(u32_at(record, 20), crc32fast::hash(payload), "the payload at {at}");
            }
            let before = chain;
            chain =
                (chain.rotate_left(23) ^ u64::from(u32_at(record, 8))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let end = at + (header.len() + payload_bytes).next_multiple_of(8);
            assert!(self.bytes[at + header.len() + payload_bytes..end].iter().all(|byte| *byte == 0));
            match record[16] {
                1 => {
                    let (term, index, time) = (u64_at(record, 32), u64_at(record, 40), u64_at(record, 48));
                    let session = (flags == 1).then(|| (u64_at(record, 56), u64_at(record, 64)));
                    let entry = Entry { term, time, kind: record[18], session, payload: payload.to_vec() };
                    assert!(batch.0.insert(index, entry).is_none(), "entry {index} twice");
                    own.insert(index, (at, header.len() + payload_bytes));
                }
                3 => {
                    let after = u64_at(record, 32);
                    batch.0.split_off(&(after + 1));
                    own.split_off(&(after + 1));
                    batch.2 += 1;
                }
                4 => {
                    assert_eq!(u64_at(payload, 0), 99, "the mark's time");
                    assert_eq!(
                        (u64_at(payload, 8), u64_at(payload, 16)),
                        (1, 1),
                        "its configuration's entry"
                    );
                    let conf = Configuration::read(&payload[24..]);
                    assert_eq!(conf, expected_configuration());
                    let last = (u64_at(record, 32), u64_at(record, 40));
                    if flags == 1 {
                        batch.0.clear();
                        own.clear();
                        (start, reset) = (last, Some(last));
                    }
                    batch.1.push((last.0, last.1, flags));
                }
                5 => {
                    let (watermark, state) = (u64_at(record, 32), State::at(record, 40));
                    assert_eq!(state.chain(), before, "the chain before the commit at {at}");
                    assert!(watermark < state.batch());
                    assert!(log.commits.last().is_none_or(|last| last.batch() < state.batch()));
                    log.entries = batch.0.clone();
                    log.marks.append(&mut batch.1);
                    log.cuts += std::mem::take(&mut batch.2);
                    log.start = start;
                    let last = log.entries.last_key_value().map_or(start, |(index, e)| (e.term, *index));
                    assert_eq!(state.last(), last, "the last entry of batch {}", state.batch());
                    assert_eq!((state.0[7], state.0[8]), start, "the log's start");
                    log.commits.push(state);
                }
                6 => {
                    let state = State::at(record, 56);
                    assert_eq!((state.chain(), state.batch()), (before, log.commits.last().unwrap().batch()));
                    self.footer(at, &own, reset, log);
                    return (chain, Some((u64_at(record, 32), record[40..56].to_vec(), end)));
                }
                7 => assert!(payload.iter().all(|byte| *byte == 0)),
                kind => panic!("record {kind} at {at}"),
            }
            at = end;
        }
        (chain, None)
    }

    /// Section 4.
    fn footer(
        &self,
        seal: usize,
        own: &BTreeMap<u64, (usize, usize)>,
        reset: Option<(u64, u64)>,
        log: &mut Log,
    ) {
        let trailer_at = self.bytes.len() - 64;
        let trailer = &self.bytes[trailer_at..];
        assert_eq!(&trailer[..8], b"RWALFOOT");
        assert_eq!(u32_at(trailer, 8), self.bound_crc(trailer_at, trailer));
        assert_eq!((u64_at(trailer, 16), &trailer[24..40]), (self.number, self.salt));
        assert_eq!(u64_at(trailer, 40), seal as u64);
        assert!(trailer[52..].iter().all(|byte| *byte == 0));
        let body = &self.bytes[trailer_at - size(u64::from(u32_at(trailer, 12)))..trailer_at];
        assert_eq!(u32_at(trailer, 48), crc32fast::hash(body));
        let (first, count) = (u64_at(body, 0), size(u64_at(body, 8)));
        assert_eq!((u64_at(body, 24), u64_at(body, 32)), reset.unwrap_or((u64::MAX, u64::MAX)), "the reset");
        let (runs, confs) = (size(u64_at(body, 48)), size(u64_at(body, 56)));
        assert_eq!(body.len(), 64 + 16 * (runs + confs) + 8 * count);
        let slots = &body[64 + 16 * (runs + confs)..];
        let found: BTreeMap<u64, (usize, usize)> = (0..count)
            .map(|n| {
                let slot = (u32_at(slots, 8 * n), u32_at(slots, 8 * n + 4));
                (first + n as u64, (size(slot.0.into()), size(slot.1.into())))
            })
            .collect();
        assert_eq!(&found, own, "the index of segment {}", self.number);
        let term_at = |index: u64| {
            let run = (0..runs).rev().find(|n| u64_at(body, 64 + 16 * n) <= index).unwrap();
            u64_at(body, 64 + 16 * run + 8)
        };
        for index in found.keys() {
            assert_eq!(term_at(*index), log.entries[index].term);
        }
        let conf_at = 64 + 16 * runs;
        for n in 0..confs {
            let (term, index) = (u64_at(body, conf_at + 16 * n), u64_at(body, conf_at + 16 * n + 8));
            assert_eq!((log.entries[&index].kind, log.entries[&index].term), (2, term));
        }
        log.footers += 1;
    }
}

/// Section 10.
#[derive(Debug, Default, PartialEq)]
struct Configuration {
    flags: u8,
    sets: [Vec<u64>; 4],
    /// Id, incarnation, address.
    members: Vec<(u64, u64, String)>,
    /// Timeout and drift.
    lease: Option<(u32, u32)>,
}

impl Configuration {
    fn read(bytes: &[u8]) -> Configuration {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        assert_eq!(take(1), [1], "the version");
        let mut conf = Configuration { flags: take(1)[0], ..Configuration::default() };
        for set in &mut conf.sets {
            *set = (0..number(take(2))).map(|_| number(take(8))).collect();
        }
        for _ in 0..number(take(2)) {
            let (id, incarnation, length) = (number(take(8)), number(take(8)), number(take(2)));
            conf.members.push((id, incarnation, String::from_utf8(take(size(length))).unwrap()));
        }
        if conf.flags & 2 != 0 {
            conf.lease = Some((u32_at(&take(4), 0), u32_at(&take(4), 0)));
        }
        assert!(rest.is_empty(), "{} bytes follow", rest.len());
        conf
    }
}

/// That of every mark here.
fn expected_configuration() -> Configuration {
    Configuration {
        sets: [vec![1, 2, 3], vec![], vec![], vec![]],
        members: [1, 2, 3].map(|id| (id, 0, format!("host{id}:7402"))).to_vec(),
        ..Configuration::default()
    }
}

#[test]
fn a_reader_made_from_the_document_finds_every_part_of_a_configuration() {
    let member = |id: u64, incarnation: u64| {
        let address = format!("h\u{f6}st{id}");
        (
            raft_core::NodeId(id),
            raft_core::Member { incarnation: raft_core::Incarnation(incarnation), address },
        )
    };
    let ids = |ids: &[u64]| ids.iter().map(|id| raft_core::NodeId(*id)).collect();
    let conf = raft_core::ConfState {
        auto_leave: true,
        voters: ids(&[300, 2]),
        outgoing: ids(&[2, 7]),
        learners: ids(&[9]),
        learners_next: ids(&[7]),
        members: [member(2, 5), member(7, 0), member(9, u64::MAX), member(300, 1)].into(),
        lease: Some(raft_core::Lease { timeout_ms: 500, drift_ppm: 1000 }),
    };
    conf.validate().unwrap();
    let expected = Configuration {
        flags: 3,
        sets: [vec![2, 300], vec![2, 7], vec![9], vec![7]],
        members: vec![
            (2, 5, "h\u{f6}st2".to_owned()),
            (7, 0, "h\u{f6}st7".to_owned()),
            (9, u64::MAX, "h\u{f6}st9".to_owned()),
            (300, 1, "h\u{f6}st300".to_owned()),
        ],
        lease: Some((500, 1000)),
    };
    assert_eq!(Configuration::read(&conf.encode()), expected);
}

/// All segments, from the first to the last. Tells how many there are.
fn read(vfs: &SimVfs, dir: &Path) -> (Log, u64) {
    let (mut log, mut number) = (Log::default(), 1);
    let mut announced: Option<(Vec<u8>, usize)> = None;
    let mut chain = None;
    loop {
        let bytes = vfs.bytes(&dir.join(format!("wal-{number:016x}.log"))).unwrap();
        let (segment, state) = Segment::read(&bytes, number);
        if let Some((salt, end)) = announced {
            assert_eq!(
                (segment.salt, u64_at(&bytes, 88)),
                (&salt[..], end as u64),
                "as the seal before says"
            );
        }
        assert!(chain.is_none_or(|chain| state.chain() == chain));
        let (value, sealed) = segment.records(state.chain(), &mut log);
        chain = Some(value);
        match sealed {
            Some((next, salt, end)) => (number, announced) = (next, Some((salt, end))),
            None => return (log, number),
        }
    }
}

#[test]
fn a_reader_made_from_the_document_finds_what_was_written() {
    let vfs = SimVfs::new();
    let dir = Path::new("/data");
    let (mut engine, _) = Engine::open(std::sync::Arc::new(vfs.clone()), dir, options()).unwrap();
    let mut writes = Writes::default();
    let mut expected: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut next = 1;
    for n in 1..=100_u64 {
        let term = 1 + n / 9;
        let batch = if n % 7 == 0 {
            expected.split_off(&(next - 2));
            next -= 2;
            writes.cut(term, next - 1, next, 3, 700)
        } else {
            writes.append(term, next, n % 4 + 1, size(n * 37 % 1500))
        };
        let mut entries: Vec<raft_core::Entry> = batch.entries.iter().cloned().collect();
        for entry in &mut entries {
            match entry.id.index.0 % 5 {
                1 => entry.session = Some(SessionSeq { session: 9, seq: entry.id.index.0 }),
                2 if n > 3 => {
                    entry.kind = EntryKind::ConfChange;
                    entry.payload = options().founding.encode().into();
                    entry.checksum = raft_core::Entry::checksum_of(&entry.payload);
                }
                3 => {
                    entry.kind = EntryKind::Noop;
                    entry.payload = bytes::Bytes::new();
                    entry.checksum = crc32fast::hash(&[]);
                }
                _ => {}
            }
        }
        for entry in &entries {
            let told = Entry {
                term: entry.id.term.0,
                time: entry.time.0,
                kind: entry.kind as u8,
                session: entry.session.map(|session| (session.session, session.seq)),
                payload: entry.payload.to_vec(),
            };
            expected.insert(entry.id.index.0, told);
            next = entry.id.index.0 + 1;
        }
        write(&mut engine, &raft_core::Write { entries: entries.into(), ..batch });
        if n == 30 {
            snapshot_file(std::sync::Arc::new(vfs.clone()), dir, LogId::new(1, 3));
            write(&mut engine, &writes.mark(term, LogId::new(1, 3), false, false));
        }
        if n == 40 {
            // A leader's, which does not continue the log.
            snapshot_file(std::sync::Arc::new(vfs.clone()), dir, LogId::new(term, 1000));
            write(&mut engine, &writes.mark(term, LogId::new(term, 1000), false, true));
            expected.clear();
            next = 1001;
        }
    }
    engine.close().unwrap();

    let (log, number) = read(&vfs, dir);
    assert!(number > 1 && log.footers as u64 == number - 1, "{number} segments, {} footers", log.footers);
    assert_eq!(log.cuts, 14);
    let reset = log.marks.iter().position(|mark| mark.2 == 1).unwrap();
    let (before, behind) = log.marks.split_at(reset);
    assert_eq!((before[0], behind[0]), ((1, 3, 0), (5, 1000, 1)));
    assert!(before.len() > 1 && behind.len() > 1, "repeated at the head of each segment: {:?}", log.marks);
    assert!(before[1..].iter().all(|mark| *mark == (1, 3, 2)));
    assert!(behind[1..].iter().all(|mark| *mark == (5, 1000, 2)));
    assert_eq!(log.start, (5, 1000));
    assert_eq!(log.entries, expected);
}

/// Each change of the disk fails once, over the end of a segment and into the next: among the places is the one where the
/// segment is sealed and the next one not begun.
#[test]
fn a_reader_made_from_the_document_finds_what_a_process_wrote_that_followed_a_failed_one() {
    let (dir, mut between) = (Path::new("/data"), 0);
    for nth in 1.. {
        let vfs = SimVfs::new();
        let (mut engine, _) = Engine::open(std::sync::Arc::new(vfs.clone()), dir, options()).unwrap();
        let mut writes = Writes::default();
        let mut last = 0;
        let mut append = |engine: &mut Engine, last: &mut u64| {
            engine.append(&writes.append(1, *last + 1, 1, 3000))?;
            engine.flush()?;
            *last += 1;
            Ok::<(), raft_wal::WalError>(())
        };
        while last < 15 {
            append(&mut engine, &mut last).unwrap();
        }
        vfs.fail_change(nth, Fault::Error);
        let failed = (15..25).any(|_| append(&mut engine, &mut last).is_err());
        drop(engine);
        let vfs = vfs.crash_process();
        // Sealed, and the next one without a byte: it is made anew.
        let segments = [1, 2].map(|n| vfs.bytes(&dir.join(format!("wal-{n:016x}.log"))).unwrap_or_default());
        let is_between = matches!(&segments, [sealed, next] if sealed.len() == next.len()
            && sealed[sealed.len() - 64..].starts_with(b"RWALFOOT") && next.iter().all(|byte| *byte == 0));
        between += u64::from(is_between);
        let (mut engine, report) = Engine::open(std::sync::Arc::new(vfs.clone()), dir, options()).unwrap();
        assert!(!is_between || vfs.calls(Call::Create) > 0, "{nth}");
        assert!(report.recovered.last.0 >= last, "{nth}");
        last = report.recovered.last.0;
        while last < 50 {
            append(&mut engine, &mut last).unwrap();
        }
        engine.close().unwrap();
        let (log, number) = read(&vfs, dir);
        assert!(log.entries.keys().copied().eq(1..=50), "{nth}: {:?}", log.entries.keys());
        assert!(number > 2);
        if !failed {
            assert!(nth > 20 && between > 0, "only {nth} places, {between} between two segments");
            break;
        }
    }
}

/// Section 8.
#[test]
fn a_reader_made_from_the_document_finds_the_content_of_a_snapshot() {
    let vfs = SimVfs::new();
    let dir = Path::new("/data");
    raft_wal::vfs::Vfs::create_dir_all(&vfs, dir).unwrap();
    snapshot_file(std::sync::Arc::new(vfs.clone()), dir, LogId::new(3, 0x2a));
    let bytes = vfs.bytes(&dir.join("snapshot-000000000000002a-0000000000000003.snap")).unwrap();
    assert_eq!((&bytes[..8], u32_at(&bytes, 8), u64_at(&bytes, 16)), (&b"RAFTSNAP"[..], 1, 0));
    let header = &bytes[..size(u32_at(&bytes, 12).into())];
    assert!(header.len().is_multiple_of(8));
    assert_eq!((header[24..40].to_vec(), u32_at(header, 40)), (7_u128.to_le_bytes().to_vec(), 0));
    assert_eq!((u64_at(header, 48), u64_at(header, 56), u64_at(header, 64)), (3, 0x2a, 99));
    assert_eq!((u64_at(header, 72), u64_at(header, 80)), (1, 1), "the entry of the configuration");
    let (checked, configuration) = (header.len() - 4, 96 + size(u32_at(header, 88).into()));
    assert!(configuration > 96 && header[configuration..checked].iter().all(|byte| *byte == 0));
    assert_eq!(Configuration::read(&header[96..configuration]), expected_configuration());
    let header_checksum = u32_at(header, checked);
    assert_eq!(header_checksum, crc32fast::hash(&header[..checked]));

    let (mut at, mut content) = (header.len(), Vec::new());
    while u32_at(&bytes, at) != u32::MAX {
        let length = u32_at(&bytes, at);
        assert!((1..=u32_at(header, 44)).contains(&length));
        let payload = &bytes[at + 8..at + 8 + size(length.into())];
        let bound =
            [&header_checksum.to_le_bytes()[..], &(at as u64).to_le_bytes(), &length.to_le_bytes(), payload];
        assert_eq!(u32_at(&bytes, at + 4), crc32fast::hash(&bound.concat()), "the chunk at {at}");
        content.extend_from_slice(payload);
        at += 8 + payload.len();
    }
    let trailer = &bytes[at..];
    assert_eq!(trailer.len(), 32);
    assert_eq!(u32_at(trailer, 4), crc32fast::hash(&bytes[..at]));
    assert_eq!((u64_at(trailer, 8), u64_at(trailer, 16)), (content.len() as u64, bytes.len() as u64));
    assert_eq!(
        (u32_at(trailer, 24), u32_at(trailer, 28)),
        (header_checksum, crc32fast::hash(&trailer[..28]))
    );
    assert_eq!(content, [5; 300]);
}

/// Section 9.
#[test]
fn a_reader_made_from_the_document_finds_whose_directory_it_is() {
    let vfs = SimVfs::new();
    let dir = Path::new("/data");
    raft_wal::vfs::Vfs::create_dir_all(&vfs, dir).unwrap();
    let identity = raft_wal::identity::Identity {
        cluster: Some(raft_core::ClusterId(0xabc)),
        founding: Some(options().founding),
        has_log: true,
        ..raft_wal::identity::Identity::new(raft_core::NodeId(5), raft_core::Incarnation(77))
    };
    identity.store(&vfs, dir).unwrap();
    let bytes = vfs.bytes(&dir.join("identity")).unwrap();
    assert_eq!((&bytes[..8], u32_at(&bytes, 8)), (&b"RAFT-ID\0"[..], 1));
    assert_eq!((size(u32_at(&bytes, 12).into()), u64_at(&bytes, 16)), (bytes.len(), 0));
    assert_eq!((u64_at(&bytes, 24), u64_at(&bytes, 32), u64_at(&bytes, 40)), (5, 77, 0));
    assert_eq!((bytes[48..64].to_vec(), u32_at(&bytes, 64)), (0xabc_u128.to_le_bytes().to_vec(), 7));
    let (end, configuration) = (bytes.len() - 4, 72 + size(u32_at(&bytes, 68).into()));
    assert!(configuration > 72 && bytes[configuration..end].iter().all(|byte| *byte == 0));
    let founding = Configuration::read(&bytes[72..configuration]);
    assert_eq!((&founding.sets[0][..], founding.members.len()), (&[1][..], 1));
    assert_eq!(end, configuration.next_multiple_of(8) + 4);
    assert_eq!(u32_at(&bytes, end), crc32fast::hash(&bytes[..end]));
}
