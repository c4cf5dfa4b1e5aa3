use super::super::warm;
use super::*;

fn schema(most: usize) -> Value {
    json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 5, "maxLength": most},
        "b": {"enum": ["red", "green"]}}, "required": ["a", "b"]})
}

fn kept(words: &Words) -> usize {
    words.grammars.inner.warm.len()
}

#[test]
fn what_a_response_learned_is_the_next_ones_and_changes_nothing() {
    let words = Words::embedded();
    let constraint = words.grammars.json_schema(&schema(40), true).expect("a schema");
    for seed in 0..6 {
        let cold = Words::embedded();
        let alone = cold.grammars.json_schema(&schema(40), true).expect("a schema");
        let alone = cold.draw(&cold.request(&alone, seed), seed).expect("the constraint holds");
        let warm = words.draw(&words.request(&constraint, seed), seed).expect("the constraint holds");
        assert_eq!(warm.tokens, alone.tokens);
        assert_eq!(kept(&words), 1, "one after another use one lexer");
    }
    // Two at once have one each, and another constraint has its own.
    let (first, second) = (words.request(&constraint, 1), words.request(&constraint, 2));
    let both = (words.response(&first), words.response(&second));
    assert_eq!(kept(&words), 0);
    drop(both);
    assert_eq!(kept(&words), 2);
    let other = words.grammars.json_schema(&schema(41), true).expect("a schema");
    words.draw(&words.request(&other, 1), 1).expect("the constraint holds");
    assert_eq!(kept(&words), 3);
}

#[test]
fn a_lexer_that_failed_or_grew_large_is_not_kept() {
    let words = Words::embedded();
    let constraint = words.grammars.json_schema(&schema(40), true).expect("a schema");
    let mut response = words.response(&words.request(&constraint, 1));
    let wrong = words.tokenizer.encode_letters("nonsense").expect("text")[0];
    response.redraw(wrong, &words.end_ids).expect_err("not of the constraint");
    drop(response);
    assert_eq!(kept(&words), 0);

    let warm = &words.grammars.inner.warm;
    let with_cost = |cost| warm::Unused { cost, ..warm.unused(&constraint.pristine) };
    warm.keep(&constraint.pristine, with_cost(warm::MAX_COST + 1));
    assert_eq!(kept(&words), 0);
    let many: Vec<_> = (0..20).map(|_| with_cost(warm::MAX_COST)).collect();
    many.into_iter().for_each(|unused| warm.keep(&constraint.pristine, unused));
    assert_eq!(kept(&words) as u64, warm::MAX_COST_OF_ALL / warm::MAX_COST);
}
