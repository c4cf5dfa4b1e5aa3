//! What must hold for the pretraining text as a whole.
use super::evaluation::evaluation_cases;
use super::hints::{self, HintKind};
use super::{DocumentGenerator, DocumentKind};
use openclaw_environments::persona::{Intent, Persona, Split, Wordings, contains_words};
use serde_json::Value;
use std::collections::HashMap;

fn texts(messages: &[Value]) -> impl Iterator<Item = &str> {
    messages.iter().flat_map(|message| {
        [&message["content"], &message["reasoning_content"]].into_iter().filter_map(Value::as_str)
    })
}

#[test]
fn the_same_seed_writes_the_same_text() {
    let text = |seed| DocumentGenerator::new(seed).take(200).collect::<Vec<_>>();
    assert_eq!(text(4), text(4));
    assert_ne!(text(4), text(5));
}

#[test]
fn the_mix_is_as_listed_and_every_trained_message_is_the_assistants() {
    let mut counts: HashMap<DocumentKind, usize> = HashMap::new();
    let total = 20_000;
    for document in DocumentGenerator::new(1).take(total) {
        *counts.entry(document.kind).or_default() += 1;
        assert!(!document.trained.is_empty());
        assert!(document.trained.iter().all(|&at| document.messages[at]["role"] == "assistant"));
        assert_eq!(document.trained.last(), Some(&(document.messages.len() - 1)));
    }
    for (kind, share) in DocumentKind::MIX {
        let seen = counts[&kind] as f64 / total as f64;
        assert!((seen - share).abs() < 0.012, "{kind:?}: {seen} against {share}");
    }
}

#[test]
fn held_out_wordings_never_occur_in_pretraining_text() {
    let mut held_out: Vec<String> = Vec::new();
    for intent in Intent::ALL {
        held_out.extend_from_slice(Wordings::get().list(intent, Split::HeldOut));
    }
    for persona in Persona::ALL {
        held_out.extend_from_slice(hints::list(HintKind::wanted_by(persona), Split::HeldOut));
    }
    assert!(held_out.len() > 350);
    let mut pretraining = String::new();
    for document in DocumentGenerator::new(2).take(20_000) {
        for text in texts(&document.messages) {
            pretraining.push_str(text);
            pretraining.push('\n');
        }
    }
    held_out.retain(|wording| contains_words(&pretraining, wording));
    assert_eq!(held_out, Vec::<String>::new());
}

#[test]
fn evaluation_cases_cover_every_group_and_differ_from_each_other() {
    let cases = evaluation_cases(9, 3);
    let mut counts: HashMap<(&str, &str, Split, bool), usize> = HashMap::new();
    for case in &cases {
        *counts.entry((case.group, &case.class, case.split, case.with_system)).or_default() += 1;
        let system = case.messages[0]["role"] == "system";
        assert_eq!(
            system,
            case.with_system
                && !matches!(case.group, "judge" | "reaction" | "step_judge" | "wish" | "hint" | "no_hint")
        );
        // A rule may be kept by saying next to nothing.
        let nonsense: &[&str] = if case.group.ends_with("rule") { &[""] } else { &["", "[HINTSolution"] };
        let bad = nonsense.iter().find(|answer| case.check.judge(answer, 1));
        assert_eq!(bad, None, "{case:?}");
    }
    assert!(counts.values().all(|&count| count == 3));
    let abilities = 29 + 1 + 1 + 2;
    assert_eq!(counts.len(), 2 * (2 * (3 + 3 + 2 + 3 + 3) + 6 + abilities) + 2 + 3 * 4 + 29);
}

#[test]
fn long_system_prompts_are_rare_and_documents_moderate() {
    let mut words = 0;
    let mut long_prompts = 0;
    let total = 5000;
    for document in DocumentGenerator::new(3).take(total) {
        words += texts(&document.messages).map(|text| text.split_whitespace().count()).sum::<usize>();
        let system = &document.messages[0];
        long_prompts += usize::from(
            system["role"] == "system"
                && system["content"].as_str().is_some_and(|text| text.split_whitespace().count() > 110),
        );
    }
    assert!((50..130).contains(&(words / total)), "{} words in the mean", words / total);
    assert!((0.02..0.12).contains(&(long_prompts as f64 / total as f64)), "{long_prompts} of {total}");
}
