use proptest::{collection::vec, option, prelude::*};
use raft_core::{
    AppendOutcome, Body, CampaignId, ClusterId, ConfState, Entries, Entry, EntryKind, Epoch, Incarnation,
    LogId, LogIndex, Member, Message, NodeId, Round, SessionSeq, SnapshotMeta, StartNumber, Term, Timestamp,
};

use super::*;
use crate::{
    Addresses, ConnectionKind, Forward, ForwardOutcome, ForwardReply, FoundersDigest, FoundingMessage,
    FrameKind, HEADER_BYTES_MAX, Hello, JoinAnswer, NetOptions, PRELUDE_BYTES, Pin, Refusal, SnapshotOffer,
    SnapshotRefusal, frame::Prelude,
};

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new(term, index))
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn session() -> impl Strategy<Value = Option<SessionSeq>> {
    option::of((any::<u64>(), any::<u64>()).prop_map(|(session, seq)| SessionSeq { session, seq }))
}

fn conf() -> impl Strategy<Value = ConfState> {
    vec(("[a-z]{1,20}:[0-9]{1,5}", any::<u64>()), 1..9).prop_map(|members| {
        ConfState::of_voters(members.into_iter().zip(1..).map(|((address, incarnation), id)| {
            (NodeId(id), Member { incarnation: Incarnation(incarnation), address })
        }))
    })
}

fn meta() -> impl Strategy<Value = SnapshotMeta> {
    (log_id(), any::<u64>(), conf(), log_id()).prop_map(|(last, time, conf, conf_id)| SnapshotMeta {
        last,
        time: Timestamp(time),
        conf,
        conf_id,
    })
}

/// An append as a leader of `term` would send it: consecutive entries, terms in order.
fn append() -> impl Strategy<Value = (Term, Body)> {
    let entry = (any::<u64>(), session(), 0..3_u8, bytes(600), any::<bool>());
    (any::<[u64; 3]>(), 0..u64::MAX / 2, 0..u64::MAX / 2, vec(entry, 0..20)).prop_map(
        |([epoch, round, commit], prev_term, prev_index, given)| {
            let prev = LogId::new(prev_term, prev_index);
            let mut last = prev;
            let mut entries = Vec::new();
            for (time, session, kind, payload, new_term) in given {
                let new_term = new_term || last.term == Term::ZERO;
                last = LogId::new(last.term.0 + u64::from(new_term), last.index.0 + 1);
                entries.push(Entry {
                    id: last,
                    time: Timestamp(time),
                    session,
                    kind: EntryKind::from_u8(kind).unwrap(),
                    checksum: Entry::checksum_of(&payload),
                    payload,
                });
            }
            let entries = Entries::from(entries);
            let (epoch, round, commit) = (Epoch(epoch), Round(round), LogIndex(commit));
            (last.term, Body::AppendEntries { epoch, round, prev, commit, entries })
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let outcome = prop_oneof![
        any::<u64>().prop_map(|index| AppendOutcome::Matched(LogIndex(index))),
        (any::<u64>(), log_id())
            .prop_map(|(prev, hint)| AppendOutcome::Rejected { prev: LogIndex(prev), hint }),
    ];
    prop_oneof![
        (any::<u64>(), 0..u64::MAX, log_id()).prop_map(|(campaign, next_term, last)| Body::PreVote {
            campaign: CampaignId(campaign),
            next_term: Term(next_term),
            last
        }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(campaign, granted)| Body::PreVoteReply { campaign: CampaignId(campaign), granted }),
        (any::<u64>(), log_id(), any::<bool>()).prop_map(|(campaign, last, transfer)| Body::RequestVote {
            campaign: CampaignId(campaign),
            last,
            transfer
        }),
        (any::<u64>(), any::<bool>()).prop_map(|(campaign, granted)| Body::RequestVoteReply {
            campaign: CampaignId(campaign),
            granted
        }),
        (any::<u64>(), any::<u64>(), outcome).prop_map(|(epoch, round, outcome)| Body::AppendReply {
            epoch: Epoch(epoch),
            round: Round(round),
            outcome
        }),
        (any::<u64>(), any::<u64>(), log_id(), any::<u64>()).prop_map(|(epoch, round, prev, commit)| {
            Body::Heartbeat { epoch: Epoch(epoch), round: Round(round), prev, commit: LogIndex(commit) }
        }),
        any::<[u64; 4]>().prop_map(|[epoch, round, matched, clock]| Body::HeartbeatReply {
            epoch: Epoch(epoch),
            round: Round(round),
            matched: LogIndex(matched),
            clock: Timestamp(clock)
        }),
        (any::<u64>(), any::<u64>(), meta()).prop_map(|(epoch, round, meta)| Body::InstallSnapshot {
            epoch: Epoch(epoch),
            round: Round(round),
            meta: Box::new(meta)
        }),
        Just(Body::TimeoutNow),
        log_id().prop_map(|conf_id| Body::Removed { conf_id }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(start, request)| Body::ReadIndex { start: StartNumber(start), request }),
        (any::<u64>(), log_id(), log_id()).prop_map(|(start, after, promised)| Body::Refill {
            start: StartNumber(start),
            after,
            promised
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(start, at_least)| Body::SnapshotNeeded {
            start: StartNumber(start),
            at_least: LogIndex(at_least)
        }),
        (any::<u64>(), any::<u64>(), option::of(any::<u64>())).prop_map(|(start, request, index)| {
            Body::ReadIndexReply { start: StartNumber(start), request, index: index.map(LogIndex) }
        }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let said = prop_oneof![(0..u64::MAX).prop_map(Term).prop_flat_map(|term| (Just(term), body())), append()];
    (any::<u64>(), any::<u64>(), said).prop_map(|(from, to, (term, body))| Message {
        from: NodeId(from),
        to: NodeId(to),
        term,
        body,
    })
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let kind = prop_oneof![
        Just(ConnectionKind::Control),
        Just(ConnectionKind::Bulk),
        Just(ConnectionKind::Snapshot),
        Just(ConnectionKind::Join)
    ];
    let founders = (any::<u64>(), "[ -~]{0,200}").prop_map(|(hash, text)| FoundersDigest { hash, text });
    (
        (any::<[u16; 2]>(), any::<[u64; 8]>(), any::<u32>()),
        (option::of(any::<u128>()), option::of(any::<u64>()), kind, option::of(founders)),
        ("[a-z:0-9]{0,255}", "[a-z:0-9]{0,255}", "\\PC{0,60}"),
    )
        .prop_map(
            |((versions, n, frame_bytes_max), (cluster, to, kind, founders), (resp, http, peer))| Hello {
                version_min: versions[0],
                version_max: versions[1],
                features_required: n[0],
                features_offered: n[1],
                cluster: cluster.map(ClusterId),
                id: NodeId(n[2]),
                to: to.map(NodeId),
                incarnation: Incarnation(n[3]),
                start: StartNumber(n[4]),
                nonce: n[5],
                kind,
                addresses: Addresses { resp, http, peer },
                founders,
                election_timeout_ms: n[6],
                frame_bytes_max,
                conf_index: LogIndex(n[7]),
            },
        )
}

fn founding() -> impl Strategy<Value = FoundingMessage> {
    let cluster = any::<u128>().prop_map(ClusterId);
    let incarnation = any::<u64>().prop_map(Incarnation);
    prop_oneof![
        incarnation.clone().prop_map(|incarnation| FoundingMessage::Meet { incarnation }),
        (cluster.clone(), conf())
            .prop_map(|(cluster, conf)| FoundingMessage::Propose(Pin { cluster, founders: conf.members })),
        (cluster.clone(), incarnation.clone())
            .prop_map(|(cluster, incarnation)| FoundingMessage::Pinned { cluster, incarnation }),
        (cluster, option::of(incarnation))
            .prop_map(|(cluster, admitted)| FoundingMessage::Founded { cluster, admitted }),
    ]
}

fn forward() -> impl Strategy<Value = Forward> {
    (any::<u64>(), any::<u8>(), session(), bytes(2000)).prop_map(|(request, kind, session, payload)| {
        Forward { request, kind, session, checksum: Entry::checksum_of(&payload), payload }
    })
}

fn reply() -> impl Strategy<Value = ForwardReply> {
    let outcome = prop_oneof![
        bytes(2000).prop_map(ForwardOutcome::Ok),
        option::of(any::<u64>()).prop_map(|id| ForwardOutcome::NotLeader { leader: id.map(NodeId) }),
        Just(ForwardOutcome::Busy),
        Just(ForwardOutcome::Unknown),
        any::<u64>().prop_map(|limit| ForwardOutcome::TooLarge { limit }),
        "\\PC{0,100}".prop_map(ForwardOutcome::Refused),
    ];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| ForwardReply { request, outcome })
}

fn packet() -> impl Strategy<Value = Packet> {
    let offer = (any::<[u64; 6]>(), 0..u64::MAX, meta()).prop_map(|(n, term, meta)| SnapshotOffer {
        from: NodeId(n[0]),
        to: NodeId(n[1]),
        term: Term(term),
        epoch: Epoch(n[2]),
        round: Round(n[3]),
        meta,
        snapshot_id: n[4],
        length: n[5],
    });
    let refusal = any::<u64>().prop_map(|n| Refusal::StaleStart {
        id: NodeId(n),
        highest: StartNumber(n),
        found: StartNumber(n / 2),
    });
    let answer = prop_oneof![
        (any::<u128>(), conf())
            .prop_map(|(cluster, conf)| JoinAnswer::Admitted { cluster: ClusterId(cluster), conf }),
        option::of("[a-z]{1,9}:1").prop_map(|leader| JoinAnswer::NotLeader { leader }),
        Just(JoinAnswer::Busy),
        "\\PC{0,100}".prop_map(JoinAnswer::Refused),
    ];
    prop_oneof![
        6 => message().prop_map(Packet::Message),
        1 => hello().prop_map(|hello| Packet::Hello(Box::new(hello))),
        1 => refusal.prop_map(|refusal| Packet::Refusal(Box::new(refusal))),
        1 => prop_oneof![
            Just(Packet::Ready), Just(Packet::KeepAlive), Just(Packet::SnapshotDone), Just(Packet::SnapshotAck)
        ],
        2 => forward().prop_map(Packet::Forward),
        2 => (any::<u64>(), reply())
            .prop_map(|(start, reply)| Packet::ForwardReply { start: StartNumber(start), reply }),
        2 => founding().prop_map(|message| Packet::Founding(Box::new(message))),
        1 => offer.prop_map(|offer| Packet::SnapshotOffer(Box::new(offer))),
        1 => any::<u64>().prop_map(|offset| Packet::SnapshotAccept { offset }),
        1 => "[a-z ]{0,40}".prop_map(|text| Packet::SnapshotRefuse(SnapshotRefusal::Disk(text))),
        1 => (any::<u64>(), vec(any::<u8>(), 1..3000))
            .prop_map(|(offset, data)| Packet::SnapshotChunk { offset, data: data.into() }),
        1 => answer.prop_map(|answer| Packet::JoinAnswer(Box::new(answer))),
    ]
}

fn codec() -> FrameCodec {
    FrameCodec::established(NetOptions::default().frame_bytes_max())
}

fn encoded(packet: &Packet) -> BytesMut {
    let mut out = BytesMut::new();
    codec().encode(packet, &mut out).unwrap();
    out
}

fn decoded(bytes: &[u8]) -> Result<Option<Packet>, FrameError> {
    codec().decode_eof(&mut BytesMut::from(bytes))
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(packet in packet()) {
        let bytes = encoded(&packet);
        let mut head = Vec::new();
        prop_assert_eq!(packet.encode_head(&mut head).unwrap(), bytes.len());
        prop_assert_eq!(decoded(&bytes).unwrap(), Some(packet));
    }

    #[test]
    fn frames_may_arrive_in_any_pieces(packets in vec(packet(), 1..5), sizes in vec(1_usize..200, 1..50)) {
        let stream: Vec<u8> = packets.iter().flat_map(|packet| encoded(packet).to_vec()).collect();
        let (mut codec, mut buffer) = (codec(), BytesMut::new());
        let (mut rest, mut sizes, mut read) = (&stream[..], sizes.iter().cycle(), Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            buffer.extend_from_slice(piece);
            rest = after;
            while let Some(packet) = codec.decode(&mut buffer).unwrap() {
                read.push(packet);
            }
        }
        prop_assert_eq!(read, packets);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn a_prefix_is_no_frame(packet in packet(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&packet);
        let end = at.index(bytes.len() - 1) + 1;
        if end < bytes.len() {
            prop_assert!(decoded(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(packet in packet(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = encoded(&packet);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decoded(&bytes).is_err(), "bit {} of byte {}", bit, at);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        drop(decoded(&bytes));
    }

    /// A good frame with some bytes of its header changed, and the checksum made to fit again.
    #[test]
    fn spoilt_headers_never_panic(
        packet in packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let bytes = encoded(&packet);
        let end = Prelude::parse(&bytes, usize::MAX).unwrap().unwrap().header_end();
        let mut header = bytes[PRELUDE_BYTES..end].to_vec();
        for (at, byte) in changes {
            if !header.is_empty() {
                let at = at.index(header.len());
                header[at] = byte;
            }
        }
        drop(decoded(&framed(packet.kind(), &header, &bytes[end..])));
    }

    /// A frame with good checksums around arbitrary bytes: what a buggy or hostile peer can send.
    #[test]
    fn arbitrary_headers_never_panic(
        kind in prop::sample::select(&FrameKind::ALL[..]),
        start in any::<u8>(),
        header in vec(any::<u8>(), 0..300),
        payload in vec(any::<u8>(), 0..50),
    ) {
        let header = [&[start % 16][..], &header].concat();
        drop(decoded(&framed(kind, &header, &payload)));
    }
}

fn framed(kind: FrameKind, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; PRELUDE_BYTES];
    out.extend_from_slice(header);
    Prelude::seal(kind, &mut out, 0, payload.len()).unwrap();
    out.extend_from_slice(payload);
    out
}

fn sample_append() -> Packet {
    let entry = |index: u64| {
        let payload = Bytes::from(vec![u8::try_from(index).unwrap(); 40]);
        let checksum = Entry::checksum_of(&payload);
        let (time, kind) = (Timestamp(1000), EntryKind::Command);
        Entry { id: LogId::new(3, index), time, session: None, kind, checksum, payload }
    };
    Packet::Message(Message {
        from: NodeId(1),
        to: NodeId(2),
        term: Term(3),
        body: Body::AppendEntries {
            epoch: Epoch(1),
            round: Round(2),
            prev: LogId::new(2, 9),
            commit: LogIndex(8),
            entries: (10..14).map(entry).collect(),
        },
    })
}

#[test]
fn every_prefix_and_every_flipped_bit_of_an_append_is_refused() {
    let bytes = encoded(&sample_append());
    for end in 1..bytes.len() {
        assert!(decoded(&bytes[..end]).is_err(), "prefix of {end} bytes");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_damaged_entry_is_named() {
    let mut bytes = encoded(&sample_append());
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = decoded(&bytes).unwrap_err();
    assert!(matches!(error, FrameError::PayloadChecksum(id) if id == LogId::new(3, 13)), "{error}");
}

#[test]
fn payloads_are_cut_out_of_the_receive_buffer() {
    let mut buffer = encoded(&sample_append());
    let within = buffer.as_ptr_range();
    let Ok(Some(Packet::Message(message))) = codec().decode(&mut buffer) else { panic!("no message") };
    let Body::AppendEntries { entries, .. } = message.body else { panic!("no append") };
    assert!(entries.iter().all(|entry| within.contains(&entry.payload.as_ptr())), "a payload was copied");
}

#[test]
fn entries_out_of_order_are_refused() {
    type Spoil = fn(&mut Vec<Entry>);
    let cases: [(&str, Spoil); 6] = [
        ("a gap", |entries| entries[2].id.index = LogIndex(20)),
        ("a repetition", |entries| entries[2].id.index = LogIndex(11)),
        ("a term that goes back", |entries| entries[1].id.term = Term(2)),
        ("a term before the leader's", |entries| entries[0].id.term = Term(1)),
        ("a term above the leader's", |entries| entries[3].id.term = Term(4)),
        ("another length", |entries| entries[0].payload = Bytes::from_static(b"short")),
    ];
    for (what, spoil) in cases {
        let Packet::Message(mut message) = sample_append() else { unreachable!() };
        let Body::AppendEntries { entries, .. } = &mut message.body else { unreachable!() };
        let mut spoilt = entries.to_vec();
        spoil(&mut spoilt);
        *entries = spoilt.into();
        assert!(decoded(&encoded(&Packet::Message(message))).is_err(), "{what} was taken");
    }
}

#[test]
fn a_term_that_leaves_no_next_is_refused() {
    let Packet::Message(mut message) = sample_append() else { unreachable!() };
    message.body = Body::TimeoutNow;
    message.term = Term::MAX;
    assert!(matches!(decoded(&encoded(&Packet::Message(message))), Err(FrameError::BadHeader { .. })));
}

#[test]
fn a_length_bomb_makes_no_room() {
    for (mut codec, limit) in [(FrameCodec::opening(), 4096), (FrameCodec::established(1 << 20), 1 << 20)] {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let capacity = buffer.capacity();
        let error = codec.decode(&mut buffer).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { limit: named, .. } if named == limit), "{error}");
        assert_eq!(buffer.capacity(), capacity);
    }
    // Within the limit, but the header's checksum was never seen: room for the header and no more.
    let mut forged = framed(FrameKind::Message, &[0; 10], &[]);
    forged[0..4].copy_from_slice(&(30_u32 << 20).to_le_bytes());
    let mut buffer = BytesMut::from(&forged[..]);
    assert!(matches!(codec().decode(&mut buffer), Err(FrameError::HeaderChecksum)));
    assert!(buffer.capacity() < 4096);
}

#[test]
fn counts_and_lengths_are_checked_before_room_is_made() {
    // An append of 4 billion entries in a header of 20 bytes.
    let mut header = vec![1, 2, 3, 4, 1, 1, 1, 1, 1];
    header.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let error = decoded(&framed(FrameKind::Message, &header, &[])).unwrap_err();
    assert!(error.to_string().contains("more entries"), "{error}");
    // An entry of 4 GiB.
    let entry = [1, 2, 1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let header = [&[1, 2, 3, 4, 1, 1, 1, 1, 1, 1][..], &entry].concat();
    let error = decoded(&framed(FrameKind::Message, &header, b"x")).unwrap_err();
    assert!(error.to_string().contains("longer than its payload"), "{error}");
    // A text of 4 GiB in a forward's answer, and a map of 4 billion founders.
    let bomb = [1, 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(decoded(&framed(FrameKind::ForwardReply, &bomb, &[])).is_err());
    let bomb = [1, 7, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(decoded(&framed(FrameKind::Founding, &bomb, &[])).is_err());
    // A header longer than any may be.
    let mut long = framed(FrameKind::Message, &[], &[]);
    let length = u32::try_from(HEADER_BYTES_MAX + 100).unwrap();
    long[0..4].copy_from_slice(&length.to_le_bytes());
    long[12..16].copy_from_slice(&(length - 20).to_le_bytes());
    assert!(matches!(decoded(&long), Err(FrameError::BadLength { .. })));
}

#[test]
fn before_the_handshake_only_its_own_frames_are_read() {
    for kind in FrameKind::ALL {
        let mut buffer = BytesMut::from(&framed(kind, &[], &[])[..]);
        let refused =
            matches!(FrameCodec::opening().decode(&mut buffer), Err(FrameError::BeforeHandshake(_)));
        assert_eq!(refused, !kind.opens(), "{kind:?}");
    }
}

#[test]
fn what_cannot_carry_a_payload_has_none() {
    for kind in [FrameKind::KeepAlive, FrameKind::Ready, FrameKind::SnapshotAccept] {
        let header: &[u8] = if kind == FrameKind::SnapshotAccept { &[5] } else { &[] };
        assert!(decoded(&framed(kind, header, &[])).is_ok());
        assert!(decoded(&framed(kind, header, b"x")).is_err(), "{kind:?}");
        assert!(decoded(&framed(kind, &[header, &[0]].concat(), &[])).is_err(), "{kind:?}");
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    let reply = ForwardReply { request: 1, outcome: ForwardOutcome::Refused("ü".repeat(10_000)) };
    let packet = Packet::ForwardReply { start: StartNumber(1), reply };
    let Ok(Some(Packet::ForwardReply { reply, .. })) = decoded(&encoded(&packet)) else { panic!("no reply") };
    assert_eq!(reply.outcome, ForwardOutcome::Refused("ü".repeat(crate::TEXT_BYTES_MAX / 2)));
}
