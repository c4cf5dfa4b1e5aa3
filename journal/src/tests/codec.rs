use std::fmt::Write as _;

use super::{
    super::codec::{Body, CodecError, Opinion},
    *,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}

fn opinion() -> Opinion {
    Opinion {
        verdict: Verdict { reward: Some(-1), votes: vec![Some(-1), None], rule: Some("empty".to_owned()) },
        answers: vec![Some("bad".to_owned()), None],
        hints: vec!["be brief".to_owned()],
        hint_answers: Vec::new(),
    }
}

/// What a file of version 1 holds. Who changes a layout adds a version; these bytes stay readable as they are.
#[test]
fn the_layout_of_version_1_does_not_change() {
    let bodies = [
        (next_state().encode(), "01000000000f000000000000006e6f20626f6c642c20706c656173650000"),
        (
            mark(9).encode(),
            "0103000000000000000000000000000000ffffffffffffffff05000000000000000100090000000000000001",
        ),
        (
            opinion().encode(),
            "0101ff020000000000000001ff00010500000000000000656d7074790200000000000000010300000000000000626164\
             000100000000000000080000000000000062652062726965660000000000000000",
        ),
        (
            signal().encode(),
            "011100000000000000557365206e6f20626f6c6420746578742e0200000000000000000080be000000bf020000000000\
             0000000080bf0000c0bf0200000000000000020000000000000007000000080000000200000000000000000080bf0000\
             00c00200000000000000000040c0000080c0020000000000000007000000080000000200000000000000000080bf0000\
             00c00200000000000000000040c0000080c0010000000000000002000000000000000700000008000000020000000000\
             0000000080bf000000c00200000000000000000040c0000080c0",
        ),
        (
            turn("t").encode(),
            "0101000000000000007401000000000000007301000000010131000000000000005b7b22726f6c65223a227573657222\
             2c22636f6e74656e74223a2232202b20323f222c22776569676874223a302e317d5d2e000000000000005b7b22747970\
             65223a2266756e6374696f6e222c2266756e6374696f6e223a7b226e616d65223a226c73227d7d5d1900000000000000\
             7b22656e61626c655f7468696e6b696e67223a66616c73657d0200000000000000010000007011010002000000000000\
             0007000000020000000200000000000000000000bf000080ff03000000000000000000403f0000000004000000000000\
             00666f7572",
        ),
        (
            report(2).encode(),
            "0102000000000000000000f87f000000000000f83f000000000000000000000000000000000000000000000000000000\
             00000000000300000000000000040000000000000000",
        ),
    ];
    for (body, golden) in bodies {
        assert_eq!(hex(&body.expect("it can be written")), golden);
    }
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let before = turn("t");
    let after = Turn::decode(&before.encode().expect("written")).expect("read");
    assert_eq!((&after.id, &after.session, after.index), (&before.id, &before.session, before.index));
    assert_eq!((after.kind, after.trainable), (before.kind, before.trainable));
    assert_eq!((&after.messages, &after.tools), (&before.messages, &before.tools));
    assert_eq!(after.template_kwargs, before.template_kwargs);
    assert_eq!(after.completion, before.completion);
    let side = Turn { kind: TurnKind::Side, trainable: false, ..turn("t") };
    let side = Turn::decode(&side.encode().expect("written")).expect("read");
    assert_eq!((side.kind, side.trainable), (TurnKind::Side, false));
    assert_eq!(TurnMark::decode(&mark(4).encode().expect("written")).expect("read"), mark(4));
    assert_eq!(Opinion::decode(&opinion().encode().expect("written")).expect("read"), opinion());
    assert_eq!(TeacherSignal::decode(&signal().encode().expect("written")).expect("read"), signal());
    for kind in [NextStateKind::User, NextStateKind::Tool, NextStateKind::Feedback] {
        let next_state = NextState { kind, rating: Some(1), is_error: true, ..next_state() };
        assert_eq!(NextState::decode(&next_state.encode().expect("written")).expect("read"), next_state);
    }
    let not_finite = StepReport::decode(&report(2).encode().expect("written")).expect("read");
    assert!(not_finite.loss.is_nan());
    assert_eq!((not_finite.step, not_finite.grad_norm, not_finite.rows), (2, 1.5, 3));
}

#[test]
fn bytes_that_are_not_a_body_are_an_error_and_not_a_turn() {
    let whole = next_state().encode().expect("written");
    let later = [&[9], &whole[1..]].concat();
    assert!(matches!(NextState::decode(&later), Err(CodecError::Version { found: 9 })));
    assert!(matches!(NextState::decode(&[]), Err(CodecError::Empty)));
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(NextState::decode(&longer), Err(CodecError::LeftOver { bytes: 1 })));
    for end in 1..whole.len() {
        assert!(NextState::decode(&whole[..end]).is_err(), "{end} bytes");
    }
    // A length that no memory could hold is refused before anything is reserved.
    let mut huge = vec![1, 0, 0, 0, 0];
    huge.extend(u64::MAX.to_le_bytes());
    assert!(matches!(NextState::decode(&huge), Err(CodecError::Decode(_))));
}
