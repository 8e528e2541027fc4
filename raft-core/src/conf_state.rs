//! Who the members are. A value; the rules for changing it live in `membership`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Incarnation, Lease, NodeId};

/// The members of a cluster and what each may do (dissertation chapter 4).
///
/// Joint while `outgoing` is not empty: then every decision needs a majority of `voters` and one of `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfState {
    /// They vote. The incoming half of a joint configuration.
    pub voters: BTreeSet<NodeId>,
    /// The outgoing half of a joint configuration, otherwise empty.
    pub outgoing: BTreeSet<NodeId>,
    /// They receive the log and have no vote. Disjoint from `voters` and `outgoing`.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters that become learners once the joint configuration is left.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader leaves the joint configuration by itself once it is committed.
    pub auto_leave: bool,
    /// What everybody keeps so that leaders may read by the clock; `None`: they ask (SAFETY R3).
    pub lease: Option<Lease>,
    /// What is known of every id named above.
    pub members: BTreeMap<NodeId, Member>,
}

/// What the cluster agreed on about one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The data directory it was admitted with.
    pub incarnation: Incarnation,
    /// Where its peers reach it, as `host:port`.
    pub address: String,
}

/// More voters than this are refused: nine survive four failures, and every further one only slows commits.
pub const VOTERS_MAX: usize = 9;
/// More members of all kinds than this are refused.
pub const MEMBERS_MAX: usize = 256;
/// A longer address is refused.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// No encoded [`ConfState`] is longer: it is a limit to check before allocating.
pub const CONF_STATE_BYTES_MAX: usize = 128 * 1024;

/// Why bytes are no [`ConfState`], or why one is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfError {
    /// The bytes end too early.
    Truncated,
    /// Bytes follow where the end should be.
    TrailingBytes,
    /// A newer format version, or an unknown flag bit.
    Unsupported(u8),
    /// Ids out of order or twice.
    Unordered,
    /// An id of zero.
    ZeroId,
    /// No voter at all.
    NoVoters,
    /// Over [`VOTERS_MAX`], [`MEMBERS_MAX`] or [`ADDRESS_BYTES_MAX`].
    TooLarge,
    /// An id that is voter and learner, or a `learners_next` that is no outgoing voter.
    Overlap,
    /// An id without a member record, or a record without a role.
    MemberMismatch,
    /// An address that is no UTF-8.
    BadAddress,
    /// A lease of no length, or clocks that would be off by more than [`DRIFT_PPM_MAX`](crate::DRIFT_PPM_MAX).
    BadLease,
}

impl std::fmt::Display for ConfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            ConfError::Truncated => "the configuration ends too early",
            ConfError::TrailingBytes => "bytes follow the configuration",
            ConfError::Unsupported(bits) => {
                return write!(
                    f,
                    "the configuration has version or flags {bits:#04x}, which this release does not know"
                );
            }
            ConfError::Unordered => "the configuration names its ids out of order or twice",
            ConfError::ZeroId => "the configuration names node 0, which is no valid id",
            ConfError::NoVoters => "the configuration has no voter",
            ConfError::TooLarge => "the configuration has too many members or too long an address",
            ConfError::Overlap => "the configuration gives one node two roles that exclude each other",
            ConfError::MemberMismatch => "the configuration's roles and member records do not match",
            ConfError::BadAddress => "the configuration has an address that is not UTF-8",
            ConfError::BadLease => "the configuration has a lease that nobody can keep",
        };
        f.write_str(text)
    }
}

impl std::error::Error for ConfError {}

impl ConfState {
    /// A plain configuration of these voters.
    #[must_use]
    pub fn of_voters(members: impl IntoIterator<Item = (NodeId, Member)>) -> ConfState {
        let members: BTreeMap<NodeId, Member> = members.into_iter().collect();
        ConfState { voters: members.keys().copied().collect(), members, ..ConfState::default() }
    }

    /// Whether two majorities are needed.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` has a vote, in either half.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` receives the log without a vote.
    #[must_use]
    pub fn is_learner(&self, id: NodeId) -> bool {
        self.learners.contains(&id)
    }

    /// Whether `id` is named at all.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// Every id that receives the log, once, in order.
    #[must_use]
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Checks what every configuration must satisfy (SAFETY M8).
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfError> {
        if self.voters.is_empty() {
            return Err(ConfError::NoVoters);
        }
        let members = self.members.len().max(self.learners.len());
        if self.voters.len() > VOTERS_MAX || self.outgoing.len() > VOTERS_MAX || members > MEMBERS_MAX {
            return Err(ConfError::TooLarge);
        }
        if self.contains(NodeId(0)) {
            return Err(ConfError::ZeroId);
        }
        let learner_votes = self.learners.iter().any(|id| self.is_voter(*id));
        let next_is_no_outgoing =
            self.learners_next.iter().any(|id| !self.outgoing.contains(id) || self.voters.contains(id));
        if learner_votes || next_is_no_outgoing {
            return Err(ConfError::Overlap);
        }
        let mut named = self.voters.iter().chain(&self.outgoing).chain(&self.learners);
        if !named.all(|id| self.members.contains_key(id)) || !self.members.keys().all(|id| self.contains(*id))
        {
            return Err(ConfError::MemberMismatch);
        }
        if self.members.values().any(|member| member.address.len() > ADDRESS_BYTES_MAX) {
            return Err(ConfError::TooLarge);
        }
        if self.lease.is_some_and(|lease| !lease.is_valid()) {
            return Err(ConfError::BadLease);
        }
        Ok(())
    }

    /// The bytes that entries, snapshot files and the identity file hold.
    ///
    /// One version byte, one flag byte (bit 0: auto-leave, bit 1: lease), then the four sets as a count and ascending ids,
    /// then each member's id, incarnation, address length and address, then if there is a lease its timeout in
    /// milliseconds and its drift in parts per million. Numbers are little-endian; counts and lengths `u16`, those of the
    /// lease `u32`. Other flags are refused: a release that does not know of leases must not vote where they are on.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let lease = if self.lease.is_some() { FLAG_LEASE } else { 0 };
        let mut out = vec![FORMAT_VERSION, u8::from(self.auto_leave) | lease];
        for set in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            put_count(&mut out, set.len());
            for id in set {
                out.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        put_count(&mut out, self.members.len());
        for (id, member) in &self.members {
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&member.incarnation.0.to_le_bytes());
            put_count(&mut out, member.address.len());
            out.extend_from_slice(member.address.as_bytes());
        }
        if let Some(Lease { timeout_ms, drift_ppm }) = self.lease {
            out.extend_from_slice(&timeout_ms.to_le_bytes());
            out.extend_from_slice(&drift_ppm.to_le_bytes());
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote and checks it.
    ///
    /// # Errors
    /// Bytes from disk or network are not trusted: anything but a valid configuration is refused, and nothing larger
    /// than the input is allocated.
    pub fn decode(bytes: &[u8]) -> Result<ConfState, ConfError> {
        let mut reader = Reader { bytes };
        let version = reader.array::<1>()?[0];
        if version != FORMAT_VERSION {
            return Err(ConfError::Unsupported(version));
        }
        let flags = reader.array::<1>()?[0];
        if flags & !(FLAG_AUTO_LEAVE | FLAG_LEASE) != 0 {
            return Err(ConfError::Unsupported(flags));
        }
        let mut conf = ConfState {
            auto_leave: flags & FLAG_AUTO_LEAVE != 0,
            lease: None,
            voters: reader.ids()?,
            outgoing: reader.ids()?,
            learners: reader.ids()?,
            learners_next: reader.ids()?,
            members: BTreeMap::new(),
        };
        for _ in 0..reader.count()? {
            let id = NodeId(reader.u64()?);
            let incarnation = Incarnation(reader.u64()?);
            let length = reader.count()?;
            let address =
                std::str::from_utf8(reader.take(length)?).map_err(|_| ConfError::BadAddress)?.to_owned();
            if conf.members.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(ConfError::Unordered);
            }
            conf.members.insert(id, Member { incarnation, address });
        }
        if flags & FLAG_LEASE != 0 {
            let (timeout_ms, drift_ppm) = (reader.u32()?, reader.u32()?);
            conf.lease = Some(Lease { timeout_ms, drift_ppm });
        }
        if !reader.bytes.is_empty() {
            return Err(ConfError::TrailingBytes);
        }
        conf.validate()?;
        Ok(conf)
    }
}

const FORMAT_VERSION: u8 = 1;
const FLAG_AUTO_LEAVE: u8 = 1;
const FLAG_LEASE: u8 = 2;

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("validate bounds every count far below 65536");
    out.extend_from_slice(&count.to_le_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ConfError> {
        let (head, rest) = self.bytes.split_at_checked(length).ok_or(ConfError::Truncated)?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConfError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u64(&mut self) -> Result<u64, ConfError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, ConfError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn count(&mut self) -> Result<usize, ConfError> {
        Ok(usize::from(u16::from_le_bytes(self.array()?)))
    }

    fn ids(&mut self) -> Result<BTreeSet<NodeId>, ConfError> {
        let mut out = BTreeSet::new();
        for _ in 0..self.count()? {
            let id = NodeId(self.u64()?);
            if out.last().is_some_and(|last| *last >= id) {
                return Err(ConfError::Unordered);
            }
            out.insert(id);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> ConfState {
        let member = |id: u64| {
            (NodeId(id), Member { incarnation: Incarnation(id * 7), address: format!("host{id}:7402") })
        };
        ConfState {
            voters: [1, 2, 4].map(NodeId).into(),
            outgoing: [1, 2, 3].map(NodeId).into(),
            learners: [5].map(NodeId).into(),
            learners_next: [3].map(NodeId).into(),
            auto_leave: true,
            lease: None,
            members: (1..=5).map(member).collect(),
        }
    }

    #[test]
    fn each_error_says_something_of_its_own() {
        let errors = [
            ConfError::Truncated,
            ConfError::TrailingBytes,
            ConfError::Unsupported(0x80),
            ConfError::Unordered,
            ConfError::ZeroId,
            ConfError::NoVoters,
            ConfError::TooLarge,
            ConfError::Overlap,
            ConfError::MemberMismatch,
            ConfError::BadAddress,
            ConfError::BadLease,
        ];
        let told: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), errors.len());
        assert!(
            told.iter().all(|text| text.starts_with("the configuration") || text.starts_with("bytes follow"))
        );
    }

    #[test]
    fn a_joint_configuration_survives_encoding() {
        assert_eq!(ConfState::decode(&joint().encode()), Ok(joint()));
    }

    #[test]
    fn a_lease_survives_encoding_and_changes_nothing_for_who_has_none() {
        let lease = Some(Lease { timeout_ms: 500, drift_ppm: 200 });
        let leased = ConfState { lease, ..joint() };
        assert_eq!(ConfState::decode(&leased.encode()), Ok(leased.clone()));
        let (plain, mut bytes) = (joint().encode(), leased.encode());
        assert_eq!(bytes[1], plain[1] | 2);
        for end in 0..bytes.len() {
            assert!(ConfState::decode(&bytes[..end]).is_err(), "prefix of {end} bytes was taken");
        }
        bytes[1] &= !2;
        assert_eq!(ConfState::decode(&bytes), Err(ConfError::TrailingBytes));
        let endless = Some(Lease { timeout_ms: 500, drift_ppm: crate::DRIFT_PPM_MAX + 1 });
        assert_eq!(ConfState { lease: endless, ..joint() }.validate(), Err(ConfError::BadLease));
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = joint().encode();
        for end in 0..bytes.len() {
            assert!(ConfState::decode(&bytes[..end]).is_err(), "prefix of {end} bytes was taken");
        }
        assert_eq!(ConfState::decode(&[bytes, vec![0]].concat()), Err(ConfError::TrailingBytes));
    }

    #[test]
    fn unknown_versions_and_flags_are_refused() {
        let mut bytes = joint().encode();
        bytes[1] |= 4;
        assert_eq!(ConfState::decode(&bytes), Err(ConfError::Unsupported(5)));
        bytes[0] = 9;
        assert_eq!(ConfState::decode(&bytes), Err(ConfError::Unsupported(9)));
    }

    #[test]
    fn roles_and_member_records_name_the_same_ids() {
        let mut conf = joint();
        conf.members.remove(&NodeId(5));
        assert_eq!(conf.validate(), Err(ConfError::MemberMismatch), "a learner without a record");
        conf.members.insert(NodeId(6), Member::default());
        assert_eq!(conf.validate(), Err(ConfError::MemberMismatch), "a record without a role");
    }

    #[test]
    fn more_than_the_largest_number_of_members_is_refused() {
        let member = |id: u64| (NodeId(id), Member::default());
        let most = MEMBERS_MAX as u64;
        let mut conf = ConfState::of_voters([member(1)]);
        conf.learners = (2..=most).map(NodeId).collect();
        conf.members.extend((2..=most).map(member));
        assert_eq!(conf.validate(), Ok(()));
        conf.learners.insert(NodeId(most + 1));
        conf.members.extend([member(most + 1)]);
        assert_eq!(conf.validate(), Err(ConfError::TooLarge));
        let mut conf = ConfState::of_voters((1..=VOTERS_MAX as u64).map(member));
        assert_eq!(conf.validate(), Ok(()));
        conf = ConfState::of_voters((1..=VOTERS_MAX as u64 + 1).map(member));
        assert_eq!(conf.validate(), Err(ConfError::TooLarge));
        let mut joint = ConfState::of_voters((1..=VOTERS_MAX as u64 + 1).map(member));
        joint.outgoing = std::mem::replace(&mut joint.voters, [NodeId(1)].into());
        joint.outgoing.remove(&NodeId(1));
        assert_eq!(joint.validate(), Ok(()));
        joint.outgoing.insert(NodeId(1));
        assert_eq!(joint.validate(), Err(ConfError::TooLarge));
    }

    #[test]
    fn contradictory_roles_are_refused() {
        let mut conf = joint();
        conf.learners.insert(NodeId(1));
        assert_eq!(conf.validate(), Err(ConfError::Overlap));
        assert_eq!(ConfState::default().validate(), Err(ConfError::NoVoters));
    }

    #[test]
    fn a_learner_to_be_is_a_voter_that_leaves() {
        let with = |next: &[u64]| {
            let learners_next = next.iter().copied().map(NodeId).collect();
            ConfState { learners_next, ..joint() }.validate()
        };
        assert_eq!(with(&[3]), Ok(()));
        assert_eq!(with(&[4]), Err(ConfError::Overlap), "it only comes");
        assert_eq!(with(&[2]), Err(ConfError::Overlap), "it stays");
    }

    #[test]
    fn an_address_has_its_longest_length() {
        let of = |length| {
            let mut conf = joint();
            conf.members.get_mut(&NodeId(1)).unwrap().address = "a".repeat(length);
            conf.validate()
        };
        assert_eq!(of(ADDRESS_BYTES_MAX), Ok(()));
        assert_eq!(of(ADDRESS_BYTES_MAX + 1), Err(ConfError::TooLarge));
    }
}
