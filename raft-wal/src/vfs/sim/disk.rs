//! What is durable, what is only in the cache, and what a crash makes of the difference.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::content::{Content, Sector, sectors};

pub(super) type Inode = u64;

/// One disk with its page cache. A value: copies share their pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    files: BTreeMap<Inode, File>,
    dirs: BTreeMap<PathBuf, Dir>,
    /// In the order they were made. What a machine crash may keep or lose, each for itself.
    pending: Vec<Unit>,
    next_inode: Inode,
    next_unit: u64,
    /// Counts the calls that changed something; the units of one call have its number.
    pub(super) operation: u64,
    /// Grows whenever something becomes durable.
    generation: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    cached: Content,
    durable: Content,
}

type Names = BTreeMap<PathBuf, Inode>;

#[derive(Clone, Debug, Default)]
struct Dir {
    cached: Names,
    durable: Names,
}

/// The smallest thing a crash keeps or loses.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) id: u64,
    pub(super) operation: u64,
    change: Change,
    /// A sync that was to write it failed: no later sync will, unless it is written anew.
    given_up: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Sector { inode: Inode, sector: u64, bytes: Arc<Sector> },
    Length { inode: Inode, length: u64 },
    Name { dir: PathBuf, change: NameChange },
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: PathBuf, inode: Inode },
    Rename { from: PathBuf, to: PathBuf, inode: Inode },
    Unlink { name: PathBuf, inode: Inode },
}

impl Disk {
    pub(super) fn has_dir(&self, dir: &Path) -> bool {
        self.dirs.contains_key(dir)
    }

    /// Durable at once: the seam promises it.
    pub(super) fn make_dir(&mut self, dir: &Path) {
        for dir in dir.ancestors() {
            self.dirs.entry(dir.to_owned()).or_default();
        }
        self.operation += 1;
        self.generation += 1;
    }

    /// The names of `dir` as a running process sees them.
    pub(super) fn names(&self, dir: &Path) -> Option<impl Iterator<Item = (&PathBuf, u64)>> {
        let dir = self.dirs.get(dir)?;
        Some(dir.cached.iter().map(|(name, inode)| (name, self.length(*inode))))
    }

    pub(super) fn lookup(&self, path: &Path) -> Option<Inode> {
        let (dir, name) = split(path)?;
        self.dirs.get(dir)?.cached.get(name).copied()
    }

    pub(super) fn length(&self, inode: Inode) -> u64 {
        self.files.get(&inode).map_or(0, |file| file.cached.length)
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        self.dirs.values().flat_map(|dir| dir.cached.values()).map(|inode| self.length(*inode)).sum()
    }

    pub(super) fn read(&self, inode: Inode, buffer: &mut [u8], offset: u64) -> usize {
        self.files.get(&inode).map_or(0, |file| file.cached.read(buffer, offset))
    }

    pub(super) fn write(&mut self, inode: Inode, bytes: &[u8], offset: u64) {
        self.operation += 1;
        let Some(file) = self.files.get_mut(&inode) else { return };
        let length = file.cached.length;
        file.cached.write(bytes, offset);
        let grown = file.cached.length;
        self.note_sectors(inode, sectors(offset, bytes.len()));
        if grown != length {
            self.note(Change::Length { inode, length: grown });
        }
    }

    pub(super) fn set_length(&mut self, inode: Inode, length: u64) {
        self.operation += 1;
        let Some(file) = self.files.get_mut(&inode) else { return };
        let old = file.cached.length;
        if old == length {
            return;
        }
        file.cached.length = length;
        if length < old {
            file.cached.trim();
            let cut = usize::try_from(old - length).expect("simulated files fit in memory");
            self.note_sectors(inode, sectors(length, cut));
        }
        self.note(Change::Length { inode, length });
    }

    /// Writes out what is dirty. A failed one leaves it readable and clean: it may be on the disk or not, and no later
    /// sync sees to it.
    pub(super) fn sync_data(&mut self, inode: Inode, succeeds: bool) {
        self.operation += 1;
        let Some(file) = self.files.get_mut(&inode) else { return };
        if !succeeds {
            self.pending.iter_mut().filter(|unit| unit.inode() == Some(inode)).for_each(Unit::give_up);
            return;
        }
        let mut sectors_written = std::collections::BTreeSet::new();
        let mut length_written = false;
        for unit in &self.pending {
            match &unit.change {
                Change::Sector { inode: of, sector, .. } if *of == inode && !unit.given_up => {
                    // The cache's sector as it is now: with it goes whatever else lies in it.
                    if sectors_written.insert(*sector) {
                        file.durable.put_sector(*sector, &file.cached.sector(*sector));
                    }
                }
                Change::Length { inode: of, .. } if *of == inode && !unit.given_up => {
                    file.durable.length = file.cached.length;
                    length_written = true;
                }
                Change::Sector { .. } | Change::Length { .. } | Change::Name { .. } => {}
            }
        }
        if sectors_written.is_empty() && !length_written {
            return;
        }
        self.generation += 1;
        self.pending.retain(|unit| match &unit.change {
            Change::Sector { inode: of, sector, .. } => *of != inode || !sectors_written.contains(sector),
            Change::Length { inode: of, .. } => *of != inode || !length_written,
            Change::Name { .. } => true,
        });
    }

    pub(super) fn create(&mut self, path: &Path) -> Inode {
        self.operation += 1;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, File::default());
        if let Some((dir, name)) = split(path) {
            self.change_names(dir, NameChange::Link { name: name.to_owned(), inode });
        }
        inode
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, inode: Inode) {
        self.operation += 1;
        if let (Some((dir, from)), Some((_, to))) = (split(from), split(to)) {
            let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode };
            self.change_names(dir, change);
        }
    }

    pub(super) fn unlink(&mut self, path: &Path, inode: Inode) {
        self.operation += 1;
        if let Some((dir, name)) = split(path) {
            self.change_names(dir, NameChange::Unlink { name: name.to_owned(), inode });
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path, succeeds: bool) {
        self.operation += 1;
        let of_dir = |unit: &Unit| matches!(&unit.change, Change::Name { dir: of, .. } if of == dir);
        if !succeeds {
            self.pending.iter_mut().filter(|unit| of_dir(unit)).for_each(Unit::give_up);
            return;
        }
        let Some(names) = self.dirs.get_mut(dir) else { return };
        // A name that is changed again is written again, and what a failed sync gave up of it goes with it.
        let written: BTreeSet<PathBuf> = self
            .pending
            .iter()
            .filter(|unit| of_dir(unit) && !unit.given_up)
            .flat_map(|unit| unit.names().map(Path::to_owned))
            .collect();
        let mut changed = false;
        self.pending.retain(|unit| match &unit.change {
            Change::Name { dir: of, change }
                if of == dir && (!unit.given_up || unit.names().any(|name| written.contains(name))) =>
            {
                change.apply(&mut names.durable);
                changed = true;
                false
            }
            Change::Name { .. } | Change::Sector { .. } | Change::Length { .. } => true,
        });
        self.generation += u64::from(changed);
    }

    /// What is not durable yet, in order.
    pub(super) fn pending(&self) -> &[Unit] {
        &self.pending
    }

    /// Together with the kept units: the same number, the same disk.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells disks apart by what a process sees of them: the same names and bytes, the same number.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, dir) in &self.dirs {
            path.hash(&mut hasher);
            for (name, inode) in &dir.cached {
                let content = self.files.get(inode).map(|file| file.cached.fingerprint());
                (name, content).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The disk after a machine crash that kept just these units, and nothing else of what was pending.
    pub(super) fn crash(&self, keep: impl Fn(&Unit) -> bool) -> Disk {
        let mut dirs: BTreeMap<&PathBuf, Names> =
            self.dirs.iter().map(|(path, dir)| (path, dir.durable.clone())).collect();
        let mut contents: BTreeMap<Inode, Content> =
            self.files.iter().map(|(inode, file)| (*inode, file.durable.clone())).collect();
        for unit in self.pending.iter().filter(|unit| keep(unit)) {
            match &unit.change {
                Change::Sector { inode, sector, bytes } => {
                    if let Some(content) = contents.get_mut(inode) {
                        content.put_sector(*sector, bytes);
                    }
                }
                Change::Length { inode, length } => {
                    if let Some(content) = contents.get_mut(inode) {
                        content.length = *length;
                    }
                }
                Change::Name { dir, change } => {
                    if let Some(names) = dirs.get_mut(dir) {
                        change.apply(names);
                    }
                }
            }
        }
        let mut files = BTreeMap::new();
        for inode in dirs.values().flat_map(Names::values) {
            if let Some(mut durable) = contents.remove(inode) {
                durable.trim();
                files.insert(*inode, File { cached: durable.clone(), durable });
            }
        }
        let dirs = dirs
            .into_iter()
            .map(|(path, names)| (path.clone(), Dir { cached: names.clone(), durable: names }))
            .collect();
        Disk { files, dirs, pending: Vec::new(), generation: self.generation + 1, ..*self }
    }

    /// Changes bytes of a file behind everybody's back, on the disk and in the cache.
    pub(super) fn damage(&mut self, inode: Inode, change: impl Fn(&mut Content)) {
        self.generation += 1;
        if let Some(file) = self.files.get_mut(&inode) {
            change(&mut file.cached);
            change(&mut file.durable);
        }
    }

    fn change_names(&mut self, dir: &Path, change: NameChange) {
        if let Some(names) = self.dirs.get_mut(dir) {
            change.apply(&mut names.cached);
            self.note(Change::Name { dir: dir.to_owned(), change });
        }
    }

    fn note_sectors(&mut self, inode: Inode, range: std::ops::Range<u64>) {
        for sector in range {
            let Some(file) = self.files.get(&inode) else { return };
            let bytes = file.cached.sector(sector);
            let overwrites = self.pending.iter().rev().any(|unit| {
                matches!(&unit.change,
                    Change::Sector { inode: of, sector: other, .. } if *of == inode && *other == sector)
            });
            // Kept or lost, it would be the same.
            if !overwrites && file.durable.sector(sector) == bytes {
                continue;
            }
            self.note(Change::Sector { inode, sector, bytes: Arc::new(bytes) });
        }
    }

    fn note(&mut self, change: Change) {
        let id = self.next_unit;
        self.next_unit += 1;
        self.pending.push(Unit { id, operation: self.operation, change, given_up: false });
    }
}

impl Unit {
    fn inode(&self) -> Option<Inode> {
        match &self.change {
            Change::Sector { inode, .. } | Change::Length { inode, .. } => Some(*inode),
            Change::Name { .. } => None,
        }
    }

    /// The names that it makes or takes away.
    fn names(&self) -> impl Iterator<Item = &Path> {
        let (one, other) = match &self.change {
            Change::Name { change: NameChange::Rename { from, to, .. }, .. } => (Some(from), Some(to)),
            Change::Name {
                change: NameChange::Link { name, .. } | NameChange::Unlink { name, .. }, ..
            } => (Some(name), None),
            Change::Sector { .. } | Change::Length { .. } => (None, None),
        };
        one.into_iter().chain(other).map(PathBuf::as_path)
    }

    fn give_up(&mut self) {
        self.given_up = true;
    }
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        let mut remove = |name: &PathBuf, inode: &Inode| {
            if names.get(name) == Some(inode) {
                names.remove(name);
            }
        };
        match self {
            NameChange::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename { from, to, inode } => {
                remove(from, inode);
                names.insert(to.clone(), *inode);
            }
            NameChange::Unlink { name, inode } => remove(name, inode),
        }
    }
}

fn split(path: &Path) -> Option<(&Path, &Path)> {
    Some((path.parent()?, Path::new(path.file_name()?)))
}
