//! Puts a log together from its files, without changing any of them. Opening acts on the result; the offline check
//! reports it.

mod joined;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{ClusterId, LogId, LogIndex, NodeId, SnapshotMeta};

use self::joined::Joined;
use crate::{
    error::{Corruption, CorruptionKind, Damage, WalError},
    layout::{self, Name},
    log::{Log, Segment, SegmentFile},
    mmap::Room,
    options::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    record::{self, ALIGN, Header, State},
    recovery::{self, Ending, Hole, Scan},
    segment::{
        check::{self, Claim},
        footer::{TRAILER_BYTES, Trailer},
        header::{Found, HEADER_BYTES, SegmentHeader},
        index::SegmentIndex,
    },
    vfs::{Vfs, VfsFile, read_exact_at},
};

/// The names in the directory.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Number and length of each segment.
    pub(crate) segments: BTreeMap<u64, u64>,
    /// Number and length of each spare.
    pub(crate) spares: BTreeMap<u64, u64>,
    pub(crate) temporaries: Vec<PathBuf>,
    pub(crate) snapshots: Vec<LogId>,
    pub(crate) unknown: Vec<PathBuf>,
}

impl Names {
    pub(crate) fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Names, WalError> {
        let mut names = Names::default();
        for entry in vfs.list(dir).map_err(|error| WalError::io("list", dir, error))? {
            let name = layout::parse(&entry.name);
            if !entry.is_file && !matches!(name, Name::Unknown) {
                // Whoever put it there, the log cannot be told from it, and nothing may be made in its place.
                return Err(WalError::corrupt(&dir.join(entry.name), 0, CorruptionKind::NotAFile));
            }
            match name {
                Name::Segment(number) => {
                    names.segments.insert(number, entry.length);
                }
                Name::Spare(number) => {
                    names.spares.insert(number, entry.length);
                }
                Name::Temporary => names.temporaries.push(entry.name),
                Name::Snapshot(id) => names.snapshots.push(id),
                Name::Lock | Name::Identity | Name::Torn => {}
                Name::Unknown => names.unknown.push(entry.name),
            }
        }
        names.snapshots.sort_by_key(|id| (id.index, id.term));
        names.unknown.sort();
        Ok(names)
    }

    /// Whether nothing here is a log's.
    pub(crate) fn is_foreign(&self) -> bool {
        self.segments.is_empty() && self.snapshots.is_empty()
    }
}

/// A log as its files tell it.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) names: Names,
    /// Everything that may be believed: with damage, up to the hole.
    pub(crate) log: Log,
    pub(crate) tail: Tail,
    pub(crate) state: State,
    pub(crate) mark: Option<SnapshotMeta>,
    pub(crate) damage: Option<Damage>,
    /// Damaged bytes that cost no entry.
    pub(crate) notes: Vec<Corruption>,
    /// Headers of which one copy is among them: the number, where that copy stands, and what it has to say.
    pub(crate) unfit_headers: Vec<(u64, u64, SegmentHeader)>,
    /// Headers of which both are, made again from the seal before.
    pub(crate) lost_headers: Vec<SegmentHeader>,
    /// Entries whose payloads were checked.
    pub(crate) entries: u64,
    /// The tail cannot be continued, although no entry is lost: go on in a new segment.
    pub(crate) tail_unusable: bool,
    /// Nothing else is damaged than what was lost before and is being refilled.
    pub(crate) refilling: bool,
}

/// The segment that was written last.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) header: SegmentHeader,
    /// The header itself was lost and stands here as the seal before it tells it.
    pub(crate) header_lost: bool,
    pub(crate) bytes: Room,
    pub(crate) scan: Scan,
}

struct Loaded {
    header: SegmentHeader,
    segment: Segment,
    mark: Option<SnapshotMeta>,
    hole: Option<Hole>,
    /// Where its seal stands, if nothing but footer and header was looked at.
    taken_to: Option<u64>,
}

/// What a segment's footer and its seal tell.
struct Sealed {
    index: SegmentIndex,
    salt: u128,
    seal_offset: u64,
    /// Where the records end.
    end: u64,
    next_number: u64,
    next_salt: u128,
    /// As the next segment's header has it.
    state: State,
}

/// Whose log it must be; `None` to take any.
pub(crate) type Owner = Option<(ClusterId, NodeId)>;

struct Reader<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    /// Whether the files are opened for writing too.
    write: bool,
    names: Names,
    headers: BTreeMap<u64, Found>,
    notes: Vec<Corruption>,
    /// Headers of which neither copy could be read, made again from the seal before.
    lost_headers: Vec<SegmentHeader>,
    entries: u64,
}

/// Reads the log in `dir`. `None`: there is none yet, or only what the first instants of a founding leave behind.
///
/// # Errors
/// What cannot be put together at all, and whatever keeps the disk from being read.
pub(crate) fn survey(
    vfs: &dyn Vfs,
    dir: &Path,
    names: Names,
    owner: Owner,
    check_all: bool,
    write: bool,
) -> Result<Result<Survey, Names>, WalError> {
    let mut reader = Reader {
        vfs,
        dir,
        write,
        names,
        headers: BTreeMap::new(),
        notes: Vec::new(),
        lost_headers: Vec::new(),
        entries: 0,
    };
    reader.read_headers(owner)?;
    let live = reader.headers.iter().rev().find_map(|(number, found)| match found {
        Found::Live { header, .. } => Some((*number, *header)),
        Found::Blank | Found::Unreadable => None,
    });
    let Some((number, header)) = live else {
        reader.refuse_unless_unfounded()?;
        return Ok(Err(reader.names));
    };
    let (tail, file) = reader.tail(number, header)?;
    reader.assemble(tail, file, check_all).map(Ok)
}

impl Reader<'_> {
    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(layout::segment(number))
    }

    fn read_headers(&mut self, owner: Owner) -> Result<(), WalError> {
        for (number, length) in &self.names.segments {
            let path = self.dir.join(layout::segment(*number));
            let file = open(self.vfs, &path, self.write)?;
            // With the first word behind it: a segment where that is not zero is in use, though its header reads as zeroes.
            let mut bytes = vec![0; HEADER_BYTES + ALIGN];
            let there = usize::try_from(*length).unwrap_or(usize::MAX).min(bytes.len());
            read_exact_at(&*file, &mut bytes[..there], 0)
                .map_err(|error| WalError::io("read", &path, error))?;
            // The footers are wanted next, of all segments: the disk can look for them meanwhile.
            let footer = length / FOOTER_SHARE;
            file.will_read(length - footer, footer);
            let mut found = SegmentHeader::find(&path, &bytes)?;
            if let Found::Live { header, unfit } = found {
                if let Some((cluster, node)) = owner
                    && (header.cluster, header.node) != (cluster, node)
                {
                    let (found_cluster, found_node) = (header.cluster, header.node);
                    return Err(WalError::Foreign { path, found_cluster, found_node, cluster, node });
                }
                if let Some(at) = unfit {
                    self.notes.push(corruption(&path, at, CorruptionKind::SegmentHeaderCopy));
                }
                if header.number != *number {
                    found = Found::Unreadable; // A file under a wrong name.
                }
            }
            self.headers.insert(*number, found);
        }
        Ok(())
    }

    /// Without a single readable header: is this the very beginning, or the loss of everything?
    fn refuse_unless_unfounded(&self) -> Result<(), WalError> {
        let numbers: Vec<u64> = self.names.segments.keys().copied().collect();
        if !self.names.snapshots.is_empty() {
            // A log lived here. What is left of it is named, so that nobody looks for a file that is there.
            let (number, kind) = numbers
                .first()
                .map_or((1, CorruptionKind::Missing), |first| (*first, CorruptionKind::SegmentHeader));
            return Err(WalError::corrupt(&self.path(number), 0, kind));
        }
        let Some(number) = numbers.last() else { return Ok(()) };
        let path = self.path(*number);
        let refuse = Err(WalError::corrupt(&path, 0, CorruptionKind::SegmentHeader));
        if numbers != [1] {
            return refuse;
        }
        // The founding writes the header and one empty batch, and acknowledges nothing before they are durable. Bytes
        // behind that prove that the log lived.
        let bytes = self.read_all(&path)?.1;
        if (bytes.len() as u64) < SEGMENT_BYTES_MIN {
            return refuse; // It had its full length before it had its name.
        }
        let founding = HEADER_BYTES + record::COMMIT_BYTES;
        if bytes.get(founding..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
            return refuse;
        }
        Ok(())
    }

    fn read_all(&self, path: &Path) -> Result<(Arc<dyn VfsFile>, Room), WalError> {
        let file = open(self.vfs, path, self.write)?;
        let length = file.length().map_err(|error| WalError::io("measure", path, error))?;
        if length > SEGMENT_BYTES_MAX {
            let kind = CorruptionKind::Length { found: length, expected: SEGMENT_BYTES_MAX };
            return Err(WalError::corrupt(path, 0, kind));
        }
        // From front to back, as the kernel reads ahead best. Zeroes, of which a segment in use has many at its end, need no
        // copy: memory that is not touched is zero.
        let mut bytes = Room::zeroed(usize::try_from(length).unwrap_or(0));
        let mut spare = vec![0; PIECE_BYTES];
        let (mut at, mut zeroes) = (0, false);
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            let read = |into: &mut [u8]| {
                read_exact_at(&*file, into, at).map_err(|error| WalError::io("read", path, error))
            };
            if zeroes {
                let spare = &mut spare[..piece.len()];
                read(spare)?;
                zeroes = is_zero(spare);
                if !zeroes {
                    piece.copy_from_slice(spare);
                }
            } else {
                read(piece)?;
                zeroes = is_zero(piece);
            }
            at += piece.len() as u64;
        }
        Ok((file, bytes))
    }

    /// Scans the last live segment. If it is sealed and the header of the next one is lost, that one is the tail.
    fn tail(&mut self, number: u64, header: SegmentHeader) -> Result<(Tail, Arc<dyn VfsFile>), WalError> {
        let path = self.path(number);
        let (file, bytes) = self.read_all(&path)?;
        let (found, expected) = (bytes.len() as u64, header.segment_bytes);
        if found != expected {
            // A segment has its full length before its first byte is written.
            return Err(WalError::corrupt(&path, 0, CorruptionKind::Length { found, expected }));
        }
        let scan = recovery::scan(&bytes, &header, None);
        if scan.rewrite_from == HEADER_BYTES as u64 {
            // Nothing proves that the first batch was acknowledged: half a header is what a crash left of it.
            self.notes.retain(|note| note.path != path);
        }
        // Nothing is written to a segment before its predecessor is sealed.
        let unwritten_from = match scan.ending {
            Ending::Sealed { next_number, .. } => next_number + 1,
            Ending::Clean | Ending::Torn { .. } | Ending::Damaged(_) => number + 1,
        };
        let unreadable = self.headers.range(unwritten_from..).find(|(_, found)| **found == Found::Unreadable);
        if let Some((later, _)) = unreadable {
            let path = self.path(*later);
            return Err(WalError::corrupt(&path, 0, CorruptionKind::SegmentHeader));
        }
        let Ending::Sealed { next_number, next_salt, .. } = scan.ending else {
            self.entries += scan.entries;
            return Ok((Tail { header, header_lost: false, bytes, scan }, file));
        };
        let next_path = self.path(next_number);
        if !self.names.segments.contains_key(&next_number) {
            // Its name was durable before the seal was written.
            return Err(WalError::corrupt(&next_path, 0, CorruptionKind::Missing));
        }
        let (next_file, next_bytes) = self.read_all(&next_path)?;
        let found = next_bytes.len() as u64;
        if !found.is_multiple_of(HEADER_BYTES as u64) || found < SEGMENT_BYTES_MIN {
            // So were its length and its zeroes: a shorter one was cut off, and may have held anything.
            let kind = CorruptionKind::Length { found, expected: header.segment_bytes };
            return Err(WalError::corrupt(&next_path, 0, kind));
        }
        let next_header = SegmentHeader {
            number: next_number,
            salt: next_salt,
            segment_bytes: next_bytes.len() as u64,
            previous_length: scan.end,
            state: State { chain: scan.chain, ..scan.state },
            repair: false,
            ..header
        };
        let next_scan = recovery::scan(&next_bytes, &next_header, None);
        if next_scan.closed > 0 || matches!(next_scan.ending, Ending::Damaged(_)) {
            if next_scan.rewrite_from > HEADER_BYTES as u64 {
                self.notes.push(corruption(&next_path, 0, CorruptionKind::SegmentHeader));
            }
            self.headers.insert(next_number, Found::Live { header: next_header, unfit: None });
            self.entries += next_scan.entries;
            let tail = Tail { header: next_header, header_lost: true, bytes: next_bytes, scan: next_scan };
            return Ok((tail, next_file));
        }
        let first_word = next_bytes.get(HEADER_BYTES..HEADER_BYTES + ALIGN).unwrap_or_default();
        let unused = first_word.iter().all(|byte| *byte == 0);
        if !unused && first_word != next_header.stamp().tag.to_le_bytes() {
            // It was begun under another salt than the seal's: by a repair. What it holds cannot be read without its header.
            return Err(WalError::corrupt(&next_path, 0, CorruptionKind::SegmentHeader));
        }
        self.entries += scan.entries;
        Ok((Tail { header, header_lost: false, bytes, scan }, file))
    }

    /// A segment in the middle: by its footer if that fits, else record by record.
    fn load(&mut self, number: u64, next: &SegmentHeader) -> Result<Option<Loaded>, WalError> {
        let path = self.path(number);
        let file = open(self.vfs, &path, self.write)?;
        let length = file.length().map_err(|error| WalError::io("measure", &path, error))?;
        let by_footer = self.by_footer(number, &*file, &path, length, next)?;
        let is_its_own =
            |header: &SegmentHeader| by_footer.as_ref().is_none_or(|sealed| sealed.salt == header.salt);
        let (header, is_exact) = if let Some(Found::Live { header, .. }) = self.headers.get(&number) {
            (*header, true)
        } else if let Some(header) = self.header_by_seal_before(number, length, next)?.filter(is_its_own) {
            self.notes.push(corruption(&path, 0, CorruptionKind::SegmentHeader));
            if by_footer.is_some() {
                // Surely this segment's file.
                self.lost_headers.push(header);
            }
            (header, true)
        } else if let Some(Sealed { salt, .. }) = by_footer {
            // The footer tells the salt. What was before this segment, and what that cut, nobody knows.
            self.notes.push(corruption(&path, 0, CorruptionKind::SegmentHeader));
            let state = State { cuts: 1, cut_min: LogIndex::ZERO, ..next.state };
            (SegmentHeader { number, salt, segment_bytes: length, state, repair: false, ..*next }, false)
        } else {
            return Ok(None);
        };
        let file = SegmentFile::new(number, path.clone(), file, header.stamp(), length);
        if let Some(Sealed { index, seal_offset, .. }) = by_footer {
            // Without a header there is nothing to check the first record with.
            let taken_to = is_exact.then_some(seal_offset);
            let segment = Segment { file, index };
            return Ok(Some(Loaded { header, segment, mark: None, hole: None, taken_to }));
        }
        self.by_records(file, header, next).map(Some)
    }

    /// A segment in the middle, record by record.
    fn by_records(
        &mut self,
        file: Arc<SegmentFile>,
        header: SegmentHeader,
        next: &SegmentHeader,
    ) -> Result<Loaded, WalError> {
        let (path, length) = (file.path.clone(), file.bytes);
        let (_, bytes) = self.read_all(&path)?;
        let required = (!next.repair).then_some(&next.state);
        let scan = recovery::scan(&bytes, &header, required);
        self.entries += scan.entries;
        let mut hole = match scan.ending {
            Ending::Damaged(hole) => Some(hole),
            Ending::Sealed { .. } | Ending::Clean | Ending::Torn { .. } => None,
        };
        let fits = next.repair
            || (matches!(scan.ending, Ending::Sealed { next_number, .. } if next_number == next.number)
                && scan.end == next.previous_length
                && scan.chain == next.state.chain);
        if hole.is_none() && !fits {
            if scan.index.last() == next.state.last.index && scan.state.batch == next.state.batch {
                // The seal is damaged; everything before it is there.
                self.notes.push(corruption(&path, scan.end, CorruptionKind::Footer));
            } else {
                hole = Some(Hole { offset: scan.end, kind: CorruptionKind::Chain, last: None });
            }
        } else if hole.is_none() && !next.repair {
            self.notes.push(corruption(
                &path,
                length.saturating_sub(TRAILER_BYTES as u64),
                CorruptionKind::Footer,
            ));
        }
        let segment = Segment { file, index: scan.index };
        Ok(Loaded { header, segment, mark: scan.mark, hole, taken_to: None })
    }

    /// Reads the segments that were taken by their footers, several at once, and those again record by record that are not
    /// what their footers say.
    fn check(&mut self, loaded: &mut BTreeMap<u64, Option<Loaded>>) -> Result<(), WalError> {
        let taken = loaded.values().flatten().filter_map(|segment| {
            let Loaded { header, segment: Segment { file, index }, .. } = segment;
            segment.taken_to.map(|seal_offset| Claim { file: &*file.file, header, seal_offset, index })
        });
        let taken: Vec<Claim<'_>> = taken.collect();
        let verdicts = check::intact_entries_of_all(&taken, self.vfs.readers());
        let numbers: Vec<u64> = taken.iter().map(|claim| claim.header.number).collect();
        for (number, verdict) in numbers.into_iter().zip(verdicts) {
            match verdict.map_err(|error| WalError::io("read", &self.path(number), error))? {
                Some(entries) => self.entries += entries,
                None => {
                    let Some(Some(own)) = loaded.get(&number) else { continue };
                    let (file, header) = (Arc::clone(&own.segment.file), own.header);
                    let next = loaded.get(&(number + 1)).and_then(Option::as_ref);
                    let missing = SegmentHeader { number: number + 1, repair: true, ..header };
                    let next = next.map_or(missing, |next| next.header);
                    let again = self.by_records(file, header, &next)?;
                    loaded.insert(number, Some(again));
                }
            }
        }
        Ok(())
    }

    /// A sealed segment's index, salt and the place of its seal, if trailer, footer, seal and the next header all fit each other.
    fn by_footer(
        &self,
        number: u64,
        file: &dyn VfsFile,
        path: &Path,
        length: u64,
        next: &SegmentHeader,
    ) -> Result<Option<Sealed>, WalError> {
        if next.repair {
            return Ok(None);
        }
        let fits = |sealed: &Sealed| {
            sealed.next_number == next.number
                && sealed.next_salt == next.salt
                && sealed.end == next.previous_length
                && sealed.state == next.state
                && sealed.index.last() == sealed.state.last.index
        };
        Ok(self.sealed(number, file, path, length)?.filter(fits))
    }

    /// The header of a segment whose own is lost, as it follows from the seal in front of it. `None` if that cannot be had.
    fn header_by_seal_before(
        &self,
        number: u64,
        length: u64,
        like: &SegmentHeader,
    ) -> Result<Option<SegmentHeader>, WalError> {
        let before = number.saturating_sub(1);
        if !self.names.segments.contains_key(&before) {
            return Ok(None);
        }
        let path = self.path(before);
        let file = open(self.vfs, &path, false)?;
        let length_before = file.length().map_err(|error| WalError::io("measure", &path, error))?;
        let sealed = self.sealed(before, &*file, &path, length_before)?;
        Ok(sealed.filter(|sealed| sealed.next_number == number).map(|sealed| SegmentHeader {
            number,
            salt: sealed.next_salt,
            segment_bytes: length,
            previous_length: sealed.end,
            state: sealed.state,
            repair: false,
            ..*like
        }))
    }

    /// Footer and seal of a segment, if both can be read and are its own.
    fn sealed(
        &self,
        number: u64,
        file: &dyn VfsFile,
        path: &Path,
        length: u64,
    ) -> Result<Option<Sealed>, WalError> {
        let read = |at: u64, bytes: usize| {
            let mut buffer = vec![0; bytes];
            match read_exact_at(file, &mut buffer, at) {
                Ok(()) => Ok(buffer),
                Err(error) => Err(WalError::io("read", path, error)),
            }
        };
        let Some(at) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        let Some(trailer) = Trailer::decode(&read(at, TRAILER_BYTES)?, length) else { return Ok(None) };
        let header_fits = match self.headers.get(&number) {
            Some(Found::Live { header, .. }) => header.salt == trailer.salt,
            Some(Found::Blank | Found::Unreadable) | None => true,
        };
        if trailer.number != number || !header_fits {
            return Ok(None);
        }
        let body_bytes = u64::from(trailer.body_bytes);
        let body = read(at - body_bytes, usize::try_from(body_bytes).unwrap_or(0))?;
        let Some(index) = trailer.decode_body(&body) else { return Ok(None) };
        let room = usize::try_from(length - trailer.seal_offset).unwrap_or(0).min(record::SEAL_BYTES);
        let seal = read(trailer.seal_offset, room)?;
        let stamp = record::Stamp::new(number, trailer.salt);
        let Ok(record) = record::parse(&seal, trailer.seal_offset, 0, &stamp) else { return Ok(None) };
        let Header::Seal { next_number, next_salt, state } = record.header else { return Ok(None) };
        let chain = record::chain(state.chain, record.header_checksum);
        Ok(Some(Sealed {
            index,
            salt: trailer.salt,
            seal_offset: trailer.seal_offset,
            end: trailer.seal_offset + record::SEAL_BYTES as u64,
            next_number,
            next_salt,
            state: State { chain, ..state },
        }))
    }

    fn assemble(
        mut self,
        tail: Tail,
        tail_file: Arc<dyn VfsFile>,
        check_all: bool,
    ) -> Result<Survey, WalError> {
        let state = tail.scan.state;
        let tail_number = tail.header.number;
        let mut loaded: BTreeMap<u64, Option<Loaded>> = BTreeMap::new();
        let mut next = tail.header;
        if state.first_segment > tail_number || tail_number - state.first_segment > u64::from(u32::MAX) {
            let path = self.path(tail_number);
            return Err(WalError::corrupt(&path, 0, CorruptionKind::Record));
        }
        for number in (state.first_segment..tail_number).rev() {
            if !self.names.segments.contains_key(&number) {
                // Only a batch that drops it takes a segment away, and none that can be read does. If one is lost, its term
                // and its vote are lost with it: nothing of the state can be vouched for.
                return Err(WalError::corrupt(&self.path(number), 0, CorruptionKind::Missing));
            }
            let segment = self.load(number, &next)?;
            match &segment {
                Some(segment) => next = segment.header,
                // Whatever lies before a segment that cannot be read still has to fit the log's beginning.
                None => next = SegmentHeader { number, repair: true, ..next },
            }
            loaded.insert(number, segment);
        }
        let path = self.path(tail_number);
        let tail_hole = match tail.scan.ending {
            Ending::Damaged(hole) => Some(hole),
            Ending::Sealed { .. } | Ending::Clean | Ending::Torn { .. } => None,
        };
        let tail_bytes = tail.bytes.len() as u64;
        let file = SegmentFile::new(tail_number, path, tail_file, tail.header.stamp(), tail_bytes);
        loaded.insert(
            tail_number,
            Some(Loaded {
                header: tail.header,
                segment: Segment { file, index: tail.scan.index.clone() },
                mark: tail.scan.mark.clone(),
                hole: tail_hole,
                taken_to: None,
            }),
        );
        if check_all {
            self.check(&mut loaded)?;
        }
        let joined = Joined::join(self.dir, &state, loaded);
        let damage = joined.damage(&state);
        let tail_unusable = damage.is_none() && tail_hole.is_some();
        let refilling = damage.is_some() && joined.hole.is_none();
        if let Some((hole, path)) = joined.hole.as_ref().filter(|_| damage.is_none()) {
            self.notes.push(corruption(path, hole.offset, hole.kind));
        }
        let mark = self.find_mark(&state, &joined)?;
        let unfit_headers = self.unfit_headers();
        self.notes.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        self.notes.dedup();
        let log = Log {
            last: joined.tip.unwrap_or(state.log_start.index).max(state.log_start.index),
            segments: joined.segments,
            log_start: state.log_start,
            maps: Arc::default(),
        };
        Ok(Survey {
            names: self.names,
            log,
            tail,
            state,
            mark,
            damage,
            notes: self.notes,
            unfit_headers,
            lost_headers: self.lost_headers,
            entries: self.entries,
            tail_unusable,
            refilling,
        })
    }

    fn unfit_headers(&self) -> Vec<(u64, u64, SegmentHeader)> {
        let unfit = |(number, found): (&u64, &Found)| match found {
            Found::Live { header, unfit: Some(at) } => Some((*number, *at, *header)),
            Found::Live { unfit: None, .. } | Found::Blank | Found::Unreadable => None,
        };
        self.headers.iter().filter_map(unfit).collect()
    }

    /// The newest snapshot mark: the tail repeats it at its beginning, else the newest footer that has it.
    fn find_mark(&self, state: &State, joined: &Joined) -> Result<Option<SnapshotMeta>, WalError> {
        if state.mark == LogId::ZERO {
            return Ok(None);
        }
        let scanned = joined.marks.iter().rev().find(|mark| mark.last == state.mark);
        if let Some(mark) = scanned {
            return Ok(Some(mark.clone()));
        }
        for segment in joined.segments.iter().rev() {
            let SegmentFile { file, path, stamp, bytes, .. } = &*segment.file;
            let at = segment.index.mark_offset;
            if at == 0 || at >= *bytes {
                continue;
            }
            let room = (*bytes - at).min(MARK_BYTES_MAX);
            let mut buffer = vec![0; usize::try_from(room).unwrap_or(0)];
            read_exact_at(&**file, &mut buffer, at).map_err(|error| WalError::io("read", path, error))?;
            if let Ok(record) = record::parse(&buffer, at, 0, stamp)
                && let Header::Mark { last, .. } = record.header
                && last == state.mark
                && record.payload_is_intact()
                && let Some(meta) = record::decode_meta(last, record.payload)
            {
                return Ok(Some(meta));
            }
        }
        let path = joined.segments.last().map_or(self.dir, |segment| &segment.file.path);
        Err(WalError::corrupt(path, 0, CorruptionKind::SnapshotMark(state.mark)))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROES.len()).all(|chunk| *chunk == ZEROES[..chunk.len()])
}

/// How much of a segment is read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// A footer of 1 KiB entries takes about this part of its segment.
const FOOTER_SHARE: u64 = 128;

/// No mark takes more.
const MARK_BYTES_MAX: u64 = raft_core::CONF_STATE_BYTES_MAX as u64 + 4096;

pub(crate) fn corruption(path: &Path, offset: u64, kind: CorruptionKind) -> Corruption {
    Corruption { path: path.to_owned(), offset, kind }
}

fn open(vfs: &dyn Vfs, path: &Path, write: bool) -> Result<Arc<dyn VfsFile>, WalError> {
    vfs.open(path, write).map_err(|error: io::Error| WalError::io("open", path, error))
}

#[cfg(test)]
mod tests;
