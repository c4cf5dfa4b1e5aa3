use std::fmt::Write as _;

use super::{
    super::codec::{Body, CodecError, Opinion, TurnBody, TurnHead, chain_in, encode_content},
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

// What files hold. Who changes a layout adds a version: these bytes stay readable as they are.

const NEXT_STATE_2: &str = "02000000000f000000000000006e6f20626f6c642c20706c65617365000000";
const NEXT_STATE: &str = "01000000000f000000000000006e6f20626f6c642c20706c656173650000";
pub(super) const MARK_1: &str =
    "0103000000000000000000000000000000ffffffffffffffff05000000000000000100090000000000000001";
const OPINION_1: &str = "0101ff020000000000000001ff00010500000000000000656d70747902000000000000000103000000000000006261640001\
     00000000000000080000000000000062652062726965660000000000000000";
const SIGNAL: &str = "011100000000000000557365206e6f20626f6c6420746578742e0200000000000000000080be000000bf0200000000000000\
     000080bf0000c0bf0200000000000000020000000000000007000000080000000200000000000000000080bf000000c00200\
     000000000000000040c0000080c0020000000000000007000000080000000200000000000000000080bf000000c002000000\
     00000000000040c0000080c00100000000000000020000000000000007000000080000000200000000000000000080bf0000\
     00c00200000000000000000040c0000080c0";
pub(super) const TURN_1: &str = "0101000000000000007401000000000000007301000000010131000000000000005b7b22726f6c65223a2275736572222c22\
     636f6e74656e74223a2232202b20323f222c22776569676874223a302e317d5d2e000000000000005b7b2274797065223a22\
     66756e6374696f6e222c2266756e6374696f6e223a7b226e616d65223a226c73227d7d5d19000000000000007b22656e6162\
     6c655f7468696e6b696e67223a66616c73657d02000000000000000100000070110100020000000000000007000000020000\
     000200000000000000000000bf000080ff03000000000000000000403f000000000400000000000000666f7572";
const REPORT_1: &str = "0102000000000000000000f87f000000000000f83f0000000000000000000000000000000000000000000000000000000000\
     0000000300000000000000040000000000000000";
const MARK_2: &str = "0201050000000000000001000900000000000000010300000000000000feffffffffffffff0c0000000d0000000000000066\
     6f7572776f7264736f666974";
const REPORT_2: &str = "0202000000000000000000f87f000000000000f83f0000000000000000000000000000000000000000000000000000000000\
     0000000300000000000000040000000000000000000000000000000000000000000000000000000000000000000000000000\
     0000";
const HEAD_2: &str = "0201000000000000007401000000000000007301000000010103000000000000000000403f00000000020000000000000000\
     0000bf000080ff020000000200000000000000000040bf000080ff0014000000000000000000000000000000000000000000\
     0000000000000000000000";
const CONTENT_2: &str = "022e000000000000005b7b2274797065223a2266756e6374696f6e222c2266756e6374696f6e223a7b226e616d65223a226c\
     73227d7d5d19000000000000007b22656e61626c655f7468696e6b696e67223a66616c73657d31000000000000005b7b2272\
     6f6c65223a2275736572222c22636f6e74656e74223a2232202b20323f222c22776569676874223a302e317d5d0300000000\
     0000000000000000000000ffffffffffffffff05000000000000000200000000000000010000007011010002000000000000\
     00070000000200000018000000000000003c7468696e6b3e32202b20323c2f7468696e6b3e666f7572";
const OPINION_2: &str = "0228b52ffd2456050200d40201000080bf010000000500656d707479020001ff000300626164000800626520627269656600\
     00000000000000070060101781aaa02b83b91407c61e8017823a1332";

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn what_is_written_today_does_not_change() {
    let head = TurnHead::encode(&turn("t"));
    let content = encode_content(&turn("t"), &mark(9));
    for (body, golden) in [
        (next_state().encode(), NEXT_STATE_2),
        (signal().encode(), SIGNAL),
        (mark(9).encode(), MARK_2),
        (report(2).encode(), REPORT_2),
        (head, HEAD_2),
        (content, CONTENT_2),
    ] {
        assert_eq!(hex(&body.expect("it can be written")), golden);
    }
}

#[test]
fn bodies_of_form_1_are_read_as_they_were_written() {
    assert_eq!(TurnMark::decode(&bytes(MARK_1)).expect("read"), mark_of_form_1(9));
    assert_eq!(Opinion::decode(&bytes(OPINION_1)).expect("read"), opinion());
    let report = StepReport::decode(&bytes(REPORT_1)).expect("read");
    assert!(report.loss.is_nan());
    assert_eq!((report.step, report.grad_norm, report.rows, report.ratio), (2, 1.5, 3, 0.0));
    let Ok(TurnBody::Whole(whole)) = TurnBody::decode(&bytes(TURN_1)) else { panic!("it is whole") };
    let Turn { completion, .. } = turn("t");
    let text = "four".to_owned();
    let of_form_1 = Completion { policy_logprobs: None, split: Default::default(), text, ..completion };
    assert_eq!((&whole.completion, &whole.messages), (&of_form_1, &turn("t").messages));
}

/// In form 1 whether the prompt left a thought open is read off the reply.
#[test]
fn a_reply_of_form_1_is_split_by_what_it_looks_like() {
    for (text, expected) in [
        (" hi ", " hi "),
        ("hm\n</think>\n\nhi", "\n\nhi"),
        ("The tag that ends it is </think>", "The tag that ends it is </think>"),
        ("Wrap it in <think> and\n</think>\n, please", "Wrap it in <think> and\n</think>\n, please"),
        ("<think>\nhm\n</think>\n\nIt is </think>", "\n\nIt is </think>"),
    ] {
        let mut body = bytes(TURN_1);
        let length = body.len() - 12;
        body.truncate(length);
        body.extend((text.len() as u64).to_le_bytes());
        body.extend(text.bytes());
        let Ok(TurnBody::Whole(whole)) = TurnBody::decode(&body) else { panic!("it is whole: {text}") };
        assert_eq!(whole.completion.answer(), expected, "{text}");
    }
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    for before in [turn("t"), Turn { kind: TurnKind::Side, trainable: false, ..turn("t") }] {
        let content = encode_content(&before, &mark(4)).expect("written");
        let Ok(TurnBody::Head(head)) = TurnBody::decode(&TurnHead::encode(&before).expect("written")) else {
            panic!("it is a head")
        };
        let after = head.with(&content).expect("read");
        assert_eq!((&after.id, &after.session, after.index), (&before.id, &before.session, before.index));
        assert_eq!((after.kind, after.trainable), (before.kind, before.trainable));
        assert_eq!((&after.messages, &after.tools), (&before.messages, &before.tools));
        assert_eq!(after.template_kwargs, before.template_kwargs);
        assert_eq!(after.completion, before.completion);
        assert_eq!(chain_in(&content).expect("read"), &*mark(4).chain);
    }
    let short = TurnMark { chain: [5].into(), ..mark(4) };
    assert_eq!(TurnMark::decode(&mark(4).encode().expect("written")).expect("read"), short);
    for rule in [None, Some("empty"), Some("rating")] {
        let before = opinion();
        let verdict = Verdict { rule: rule.map(str::to_owned), ..before.verdict };
        let before = Opinion { verdict, ..before };
        assert_eq!(Opinion::decode(&before.encode().expect("written")).expect("read"), before);
    }
    assert_eq!(Opinion::decode(&bytes(OPINION_2)).expect("read"), opinion());
    assert_eq!(TeacherSignal::decode(&signal().encode().expect("written")).expect("read"), signal());
    for kind in [NextStateKind::User, NextStateKind::Tool, NextStateKind::Feedback] {
        let next_state = NextState { kind, rating: Some(1), is_error: true, ..next_state() };
        assert_eq!(NextState::decode(&next_state.encode().expect("written")).expect("read"), next_state);
        let by_rule = NextState { by_rule: Some("nothing new".into()), ..next_state };
        assert_eq!(NextState::decode(&by_rule.encode().expect("written")).expect("read"), by_rule);
        for (before, point) in [(None, None), (Some("b".repeat(64)), Some((0.25, 1.0)))] {
            let screen = Some(Screen { before, after: "a".repeat(64), point });
            let seen = NextState { screen, ..by_rule.clone() };
            assert_eq!(NextState::decode(&seen.encode().expect("written")).expect("read"), seen);
        }
    }
    let ratio = StepReport { ratio: 1.25, max_ratio: 2.0, truncated_fraction: 0.5, ..report(2) };
    let read = StepReport::decode(&ratio.encode().expect("written")).expect("read");
    assert!(read.loss.is_nan());
    assert_eq!(StepReport { loss: 0.0, ..read }, StepReport { loss: 0.0, ..ratio });
}

#[test]
fn log_probs_that_were_drawn_from_the_whole_distribution_are_kept_once() {
    let size = |policy: Option<Vec<f32>>| {
        let mut turn = turn("t");
        turn.completion.policy_logprobs = policy;
        TurnHead::encode(&turn).expect("written").len()
    };
    let drawn = turn("t").completion.rollout_logprobs;
    assert_eq!(size(Some(drawn)), size(None));
    assert!(size(Some(vec![-9.0, -9.0])) > size(None));
}

#[test]
fn bytes_that_are_not_a_body_are_an_error_and_not_a_turn() {
    let head = TurnHead::encode(&turn("t")).expect("written");
    let mut content = encode_content(&turn("t"), &mark(9)).expect("written");
    content.truncate(content.len() - 10);
    let Ok(TurnBody::Head(head)) = TurnBody::decode(&head) else { panic!("it is a head") };
    assert!(head.with(&content).is_err());
    assert!(matches!(TurnBody::decode(&[9, 0]), Err(CodecError::Version { found: 9, known: 2 })));
    let whole = next_state().encode().expect("written");
    let later = [&[9], &whole[1..]].concat();
    assert!(matches!(NextState::decode(&later), Err(CodecError::Version { found: 9, known: 3 })));
    assert_eq!(NextState::decode(&bytes(NEXT_STATE)).expect("read"), next_state());
    assert!(matches!(NextState::decode(&[]), Err(CodecError::Empty)));
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(NextState::decode(&longer), Err(CodecError::LeftOver { bytes: 1 })));
    for end in 1..whole.len() {
        assert!(NextState::decode(&whole[..end]).is_err(), "{end} bytes");
    }
    // A length that no memory could hold is refused before anything is reserved.
    let mut huge = vec![2, 0, 0, 0, 0];
    huge.extend(u64::MAX.to_le_bytes());
    assert!(matches!(NextState::decode(&huge), Err(CodecError::Decode(_))));
}
