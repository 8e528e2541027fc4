use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = ClusterId(0xc1);

fn local() -> LocalIdentity {
    LocalIdentity {
        id: NodeId(1),
        cluster: Some(CLUSTER),
        incarnation: Incarnation(100),
        start: StartNumber(3),
        addresses: Addresses::default(),
        founders: Some(list("b:1")),
        election_timeout_ms: 500,
    }
}

fn list(second: &str) -> BTreeMap<NodeId, String> {
    [(NodeId(1), "a:1".to_owned()), (NodeId(2), second.to_owned())].into()
}

/// The books of n1, which knows n2 as directory 200, seen at start 5, connected as process 55.
fn known() -> Known {
    let peer = KnownPeer {
        incarnation: Incarnation(200),
        highest_start: Some((Incarnation(200), StartNumber(5))),
        live: Some(LiveProcess { start: StartNumber(5), nonce: 55 }),
        cloned: None,
    };
    Known { local: local(), conf_index: LogIndex(10), peers: [(NodeId(2), peer)].into() }
}

/// What that very process says when it connects once more.
fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features_required: 0,
        features_offered: 0,
        cluster: Some(CLUSTER),
        id: NodeId(2),
        to: Some(NodeId(1)),
        incarnation: Incarnation(200),
        start: StartNumber(5),
        nonce: 55,
        kind: ConnectionKind::Control,
        addresses: Addresses::default(),
        founders: None,
        election_timeout_ms: 500,
        frame_bytes_max: 1 << 20,
        conf_index: LogIndex(10),
    }
}

type Change = fn(&mut Hello, &mut Known);

#[test]
fn who_is_let_in() {
    let cases: [(&str, Change); 10] = [
        ("the same process again", |_, _| {}),
        ("a newer run of the same directory", |hello, _| (hello.start, hello.nonce) = (StartNumber(6), 66)),
        ("the same run after all its connections ended", |hello, known| {
            hello.nonce = 66;
            known.peers.get_mut(&NodeId(2)).unwrap().live = None;
        }),
        ("a node the membership here does not name", |hello, _| hello.id = NodeId(9)),
        ("a member whose directory is not known yet", |hello, known| {
            hello.incarnation = Incarnation(201);
            known.peers.get_mut(&NodeId(2)).unwrap().incarnation = Incarnation::UNKNOWN;
        }),
        ("another directory that goes by a later configuration", |hello, _| {
            (hello.incarnation, hello.conf_index) = (Incarnation(201), LogIndex(11));
        }),
        ("a newer release that still speaks ours", |hello, _| {
            (hello.version_max, hello.features_offered) = (9, !0)
        }),
        ("a founder that is late", |hello, _| {
            hello.cluster = None;
            hello.incarnation = Incarnation(201);
            hello.founders = Some(FoundersDigest::of(&list("b:1")));
        }),
        ("a founder with the same list", |hello, known| {
            (hello.cluster, known.local.cluster) = (None, None);
            hello.founders = Some(FoundersDigest::of(&list("b:1")));
        }),
        ("a stranger that asks to join", |hello, _| {
            (hello.cluster, hello.kind, hello.to) = (None, ConnectionKind::Join, None);
        }),
    ];
    for (who, change) in cases {
        let (mut hello, mut known) = (hello(), known());
        change(&mut hello, &mut known);
        assert_eq!(judge(&hello, &known), Ok(()), "{who}");
    }
}

/// Two releases that both answered "yes" and then could not read each other (hashicorp, raft-compat). Whatever range and
/// features a release has, both sides come to the same verdict, and they talk only in a version that both speak.
#[test]
fn mixed_version_cluster() {
    for version_min in 0..=4 {
        for version_max in version_min..=4 {
            for features_offered in [0, 1, !0] {
                let other = Hello { version_min, version_max, features_offered, ..hello() };
                let common =
                    (VERSION_MIN..=VERSION_MAX).any(|ours| (version_min..=version_max).contains(&ours));
                let verdict = judge(&other, &known());
                assert_eq!(verdict.is_ok(), common, "{version_min}..={version_max}");
                if let Err(refusal) = verdict {
                    let text = refusal.to_string();
                    assert!(text.contains(&format!("{version_min}-{version_max}")), "{text}");
                    assert!(text.contains(&format!("{VERSION_MIN}-{VERSION_MAX}")), "{text}");
                }
            }
        }
    }
    // What a newer release cannot do without is named, not guessed at.
    for bit in 0..64 {
        let other = Hello { features_required: 1 << bit, version_max: 9, ..hello() };
        let known_here = KNOWN_FEATURES.checked_shr(u32::from(bit)).is_some_and(|bits| bits % 2 == 1);
        let expected = if known_here { Ok(()) } else { Err(Refusal::UnknownFeature { bit }) };
        assert_eq!(judge(&other, &known()), expected);
    }
}

#[test]
fn who_is_refused_and_why() {
    let (id, start) = (NodeId(2), StartNumber(5));
    let cases: [(Change, Refusal); 16] = [
        (
            |hello, _| (hello.version_min, hello.version_max) = (2, 3),
            Refusal::Version { theirs_min: 2, theirs_max: 3, ours_min: 1, ours_max: 1 },
        ),
        (
            |hello, _| (hello.version_min, hello.version_max) = (0, 0),
            Refusal::Version { theirs_min: 0, theirs_max: 0, ours_min: 1, ours_max: 1 },
        ),
        (|hello, _| hello.features_required = 0b1010_0000, Refusal::UnknownFeature { bit: 5 }),
        (|hello, _| hello.id = NodeId(0), Refusal::ZeroId),
        (|hello, _| hello.id = NodeId(1), Refusal::OwnId(NodeId(1))),
        (|hello, _| hello.to = Some(NodeId(3)), Refusal::WrongNode { wanted: NodeId(3), met: NodeId(1) }),
        (
            |hello, _| hello.cluster = Some(ClusterId(5)),
            Refusal::WrongCluster { theirs: ClusterId(5), ours: CLUSTER },
        ),
        (
            |hello, _| (hello.cluster, hello.kind) = (Some(ClusterId(5)), ConnectionKind::Join),
            Refusal::WrongCluster { theirs: ClusterId(5), ours: CLUSTER },
        ),
        (|hello, _| hello.cluster = None, Refusal::NoCluster),
        (
            |hello, _| {
                (hello.cluster, hello.kind) = (None, ConnectionKind::Bulk);
                hello.founders = Some(FoundersDigest::of(&list("b:1")));
            },
            Refusal::NoCluster,
        ),
        (
            |hello, known| {
                (known.local.cluster, known.local.founders) = (None, None);
                hello.cluster = Some(CLUSTER);
            },
            Refusal::NoCluster,
        ),
        (
            |hello, known| {
                (hello.cluster, known.local.cluster) = (None, None);
                hello.founders = Some(FoundersDigest::of(&list("c:1")));
            },
            Refusal::FoundersDiffer { theirs: "1=a:1,2=c:1".to_owned(), ours: "1=a:1,2=b:1".to_owned() },
        ),
        (
            |hello, _| hello.incarnation = Incarnation(201),
            Refusal::WrongIncarnation { id, expected: Incarnation(200), found: Incarnation(201) },
        ),
        (
            |hello, _| hello.start = StartNumber(4),
            Refusal::StaleStart { id, highest: start, found: StartNumber(4) },
        ),
        (|hello, _| hello.nonce = 66, Refusal::Clone { id, start }),
        (
            |_, known| {
                known.peers.get_mut(&NodeId(2)).unwrap().cloned = Some((Incarnation(200), StartNumber(5)));
            },
            Refusal::Clone { id, start },
        ),
    ];
    for (change, refusal) in cases {
        let (mut hello, mut known) = (hello(), known());
        change(&mut hello, &mut known);
        assert_eq!(judge(&hello, &known), Err(refusal));
    }
}

#[test]
fn a_clone_is_forgiven_once_its_directory_is_opened_again() {
    let mut known = known();
    let peer = known.peers.get_mut(&NodeId(2)).unwrap();
    peer.cloned = Some((Incarnation(200), StartNumber(5)));
    let newer = Hello { start: StartNumber(6), nonce: 66, ..hello() };
    assert_eq!(judge(&newer, &known), Ok(()));
    known.peers.get_mut(&NodeId(2)).unwrap().admit(&newer);
    assert!(matches!(judge(&hello(), &known), Err(Refusal::StaleStart { .. })));
}

#[test]
fn standing_follows_from_cluster_and_directory() {
    let known = known();
    assert_eq!(standing(&hello(), &known), Standing::Member);
    assert_eq!(standing(&Hello { id: NodeId(9), ..hello() }, &known), Standing::Member);
    assert_eq!(standing(&Hello { cluster: None, ..hello() }, &known), Standing::Founder);
    assert_eq!(standing(&Hello { incarnation: Incarnation(201), ..hello() }, &known), Standing::Successor);
    let founding = Known { local: LocalIdentity { cluster: None, ..local() }, ..known };
    assert_eq!(standing(&hello(), &founding), Standing::Founder);
    assert_eq!(standing(&Hello { cluster: None, ..hello() }, &founding), Standing::Founder);
}

#[test]
fn a_successor_may_lead_and_neither_votes_nor_gets_a_vote() {
    let campaign = raft_core::CampaignId(1);
    let (epoch, round, last) = (raft_core::Epoch(1), raft_core::Round(1), raft_core::LogId::new(1, 1));
    let heartbeat = Body::Heartbeat { epoch, round, prev: last, commit: LogIndex(1) };
    let beaten = Body::HeartbeatReply { epoch, round, matched: LogIndex(1), clock: raft_core::Timestamp(1) };
    let asks = Body::RequestVote { campaign, last, transfer: false };
    let votes = Body::RequestVoteReply { campaign, granted: true };
    let cases =
        [(&heartbeat, true, false), (&beaten, false, true), (&asks, false, false), (&votes, false, false)];
    for (body, says, hears) in cases {
        assert_eq!(Standing::Successor.may_say(body), says, "{body:?}");
        assert_eq!(Standing::Successor.may_hear(body), hears, "{body:?}");
        assert!(Standing::Member.may_say(body) && Standing::Member.may_hear(body));
        assert!(!Standing::Founder.may_say(body) && !Standing::Founder.may_hear(body));
    }
}

async fn meet_each_other(
    dialler: Hello,
    judge_answer: Result<(), Refusal>,
    answer: Hello,
    verdicts: [Result<(), Refusal>; 2],
) -> (Result<Box<Hello>, HandshakeError>, Result<Box<Hello>, HandshakeError>) {
    let (one, two) = tokio::io::duplex(64);
    let ((read_one, mut write_one), (read_two, mut write_two)) =
        (tokio::io::split(one), tokio::io::split(two));
    let (mut reader_one, mut reader_two) = (FrameReader::opening(read_one), FrameReader::opening(read_two));
    tokio::join!(
        dial(&mut reader_one, &mut write_one, dialler, |_| judge_answer),
        accept(&mut reader_two, &mut write_two, |_| answer, |_, ready| verdicts[usize::from(ready)].clone()),
    )
}

#[tokio::test]
async fn both_sides_learn_how_it_ended() {
    let dialler = Hello { id: NodeId(1), to: Some(NodeId(2)), ..hello() };
    let answer = hello();
    let fine = [Ok(()), Ok(())];
    let (one, two) = meet_each_other(dialler.clone(), Ok(()), answer.clone(), fine.clone()).await;
    assert_eq!((*one.unwrap(), *two.unwrap()), (answer.clone(), dialler.clone()));

    let no = Refusal::NoCluster;
    let (one, two) =
        meet_each_other(dialler.clone(), Ok(()), answer.clone(), [Err(no.clone()), Ok(())]).await;
    assert!(matches!(one, Err(HandshakeError::RefusedByPeer(reason)) if reason == no));
    assert!(matches!(two, Err(HandshakeError::Refused(reason)) if reason == no));

    let (one, two) = meet_each_other(dialler.clone(), Err(no.clone()), answer.clone(), fine.clone()).await;
    assert!(matches!(one, Err(HandshakeError::Refused(reason)) if reason == no));
    assert!(matches!(two, Err(HandshakeError::RefusedByPeer(reason)) if reason == no));

    let wrong = Refusal::WrongNode { wanted: NodeId(3), met: NodeId(2) };
    let looking = Hello { to: Some(NodeId(3)), ..dialler };
    let (one, two) = meet_each_other(looking, Ok(()), answer, fine).await;
    assert!(matches!(one, Err(HandshakeError::Refused(reason)) if reason == wrong));
    assert!(matches!(two, Err(HandshakeError::RefusedByPeer(reason)) if reason == wrong));
}

#[test]
fn the_longest_hello_and_refusal_fit_before_the_handshake() {
    let long = "ü".repeat(raft_core::ADDRESS_BYTES_MAX / 2);
    let founders: BTreeMap<_, _> = (1..=9).map(|id| (NodeId(u64::MAX - id), "x".repeat(255))).collect();
    let local = LocalIdentity {
        cluster: None,
        addresses: Addresses { resp: long.clone(), http: long.clone(), peer: long },
        founders: Some(founders),
        ..local()
    };
    let hello = local.hello(
        u64::MAX,
        ConnectionKind::Snapshot,
        Some(NodeId(u64::MAX)),
        usize::MAX,
        LogIndex(u64::MAX),
    );
    let text = hello.founders.clone().unwrap().text;
    let refusal = Refusal::FoundersDiffer { theirs: text.clone(), ours: text };
    for packet in [Packet::Hello(Box::new(hello)), Packet::Refusal(Box::new(refusal))] {
        let mut bytes = MAGIC.to_vec();
        packet.encode_head(&mut bytes).unwrap();
        assert!(bytes.len() <= crate::HANDSHAKE_FRAME_BYTES_MAX, "{} bytes", bytes.len());
    }
}

proptest! {
    #[test]
    fn any_hello_is_judged_without_a_panic(hello in crate::codec::tests::hello()) {
        drop(judge(&hello, &known()));
    }

    #[test]
    fn any_opening_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read_opening(&[&MAGIC[..], &bytes].concat()));
        drop(read_opening(&bytes));
    }
}
