use super::equal;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn yes(pairs: &[(&str, &str)]) {
    for (left, right) in pairs {
        assert!(equal(left, right), "{left} = {right}");
        assert!(equal(right, left), "{right} = {left}");
    }
}

fn no(pairs: &[(&str, &str)]) {
    for (left, right) in pairs {
        assert!(!equal(left, right), "{left} != {right}");
        assert!(!equal(right, left), "{right} != {left}");
    }
}

#[test]
fn numbers_are_compared_by_value() {
    yes(&[
        ("12", "12.0"),
        ("12", "+12"),
        ("-12", "\u{2212}12"),
        ("007", "7"),
        ("0.5", ".5"),
        ("5", "5."),
        ("1000", "1,000"),
        ("1234567", "1,234,567"),
        ("1000", r"1{,}000"),
        ("1000", r"1\,000"),
        ("1234.5", "1,234.5"),
        ("1500", r"1.5 \times 10^3"),
        ("1500", "1.5e3"),
        ("0.0015", r"1.5\cdot10^{-3}"),
        ("1500", "1.5E+3"),
        ("0.75", r"\frac{3}{4}"),
        ("0.75", "3/4"),
        ("0.75", r"\dfrac34"),
        ("-0.75", r"-\tfrac{3}{4}"),
        ("0.75", "6/8"),
        ("-3/4", r"\frac{-3}{4}"),
        ("3.5", r"3\frac{1}{2}"),
        ("3.5", "3 1/2"),
        ("-3.5", "-3 1/2"),
        ("7/2", r"3 \frac12"),
        ("5", "$5$"),
        ("5", r"\(5\)"),
        ("5", r"\boxed{5}"),
        ("5", "5."),
        ("5", r"\text{5}"),
        ("5", r"\left(5\right)"),
        ("1024", "2^{10}"),
        ("1024", "2^10"),
        ("120", "5!"),
        ("6", r"\binom{4}{2}"),
        ("-4", "-2^2"),
        ("8", "2**3"),
    ]);
    no(&[
        ("12", "13"),
        ("12", "-12"),
        ("0.333", "1/3"),
        ("1000", "1,0000"),
        ("1000", "100"),
        ("12", "1 2"),
        ("12", ""),
        ("1000000", "1000001"),
        ("7/2", r"3\cdot\frac12"),
        ("3.5", "3 2/1"),
        ("1/0", "2/0"),
        ("123456789012345678901", "123456789012345678902"),
        ("12", "twelve"),
        ("5", "5x"),
        ("2031-01-06", "2031-06-01"),
        ("2024", "2031-06-01"),
    ]);
}

#[test]
fn roots_and_pi_are_computed() {
    yes(&[
        (r"\frac{40 \sqrt{3}}{39}", r"\frac{40}{13\sqrt 3}"),
        (r"10\pi", "31.41592653589793"),
        (r"10 \pi", "10π"),
        (r"\sqrt{\sqrt{6}}", r"\sqrt[4]{6}"),
        (r"2\sqrt{3}", "sqrt(12)"),
        ("3", r"\sqrt{9}"),
        (r"\frac{2}{3}", r"\sqrt{\frac{4}{9}}"),
        (r"\pi(\sqrt{5}+1)", r"(1+\sqrt5)\pi"),
        (r"\frac{1}{1+\sqrt{2}}", r"\sqrt{2}-1"),
        ("-2", r"\sqrt[3]{-8}"),
        ("2", "8^{1/3}"),
        (r"\frac{4^{2024}}{\binom{4048}{2024}}-2", r"\frac{2^{4048}}{\binom{4048}{2024}}-2"),
        (r"\infty", r"+\infty"),
    ]);
    no(&[
        (r"10\pi", "31.4"),
        (r"\sqrt{3}", "1.732"),
        (r"2^{25} 26!", r"2^{25} 26! + 1"),
        (r"\sqrt{-1}", r"\sqrt{-2}"),
        (r"\infty", r"-\infty"),
        (r"\infty", "5"),
        (r"\frac{4^{2024}}{\binom{4048}{2024}}-2", r"\frac{4^{2024}}{\binom{4048}{2023}}-2"),
    ]);
}

#[test]
fn percents_units_and_degrees_are_dressing_unless_they_differ() {
    yes(&[
        ("50", r"50\%"),
        ("0.5", "50%"),
        ("50%", r"50 \text{ percent}"),
        ("5", r"5 \text{ cm}"),
        ("5", "5 cm"),
        ("5cm", r"5\,\mathrm{cm}"),
        ("5 meters", "5 m"),
        (r"12\text{ cm}^2", "12"),
        ("12 square cm", "12"),
        ("30", r"30^\circ"),
        ("30^{\\circ}", "30 degrees"),
        ("30°", "30"),
        ("5", r"\$5"),
        ("$5", "5 dollars"),
        (r"5\pi", r"5\pi \text{ cm}"),
        ("1000", r"1,000 \text{ km}"),
        ("60", "60 mph"),
    ]);
    no(&[
        ("50%", "0.5%"),
        ("0.5", "0.5 x"),
        ("5 cm", "5 m"),
        ("5%", "50%"),
        ("30^\\circ", "30%"),
        ("5 cm", "6 cm"),
        ("12 cm^2", "12 cm^3"),
    ]);
}

#[test]
fn collections_are_compared_by_element_and_bracket() {
    yes(&[
        ("(1, 2)", r"\left(1,\frac{4}{2}\right)"),
        ("[0, 1)", "[0,1.0)"),
        (r"\{1, 2\}", r"\{2, 1, 1\}"),
        ("{1,2}", r"\{1,2\}"),
        ("224, -176", "-176, 224"),
        ("1 and 2", "2, 1"),
        (r"\pm 2", "2, -2"),
        (r"0, \pm i\sqrt{6}", r"i\sqrt{6}, -i\sqrt{6}, 0"),
        (r"(-\infty, 1] \cup [2, \infty)", r"[2,\infty)\cup(-\infty,1]"),
        ("(1,(2,3))", "(1, (2, 3.0))"),
        (r"\{1,2\}", "1, 2"),
        (r"98,118,122,142", "98, 118, 122, 142"),
        ("1,234", "1234"),
        ("1,234", "1, 234"),
    ]);
    no(&[
        ("(1, 2)", "(2, 1)"),
        ("(1, 2)", "[1, 2]"),
        ("[1,2)", "[1,2]"),
        ("(1,2)", r"\{1,2\}"),
        ("1, 1, 2", "1, 2, 2"),
        ("1, 2", "1, 2, 3"),
        ("(1,2)", "(1,2,3)"),
        (r"\{1,2\}", r"\{1,3\}"),
        (r"\pm 2", "2"),
        ("(1,2)", "12"),
        ("1234", "1, 234"),
    ]);
}

#[test]
fn choices_equations_and_words() {
    yes(&[
        ("A", "(A)"),
        ("A", r"\text{A}"),
        ("A", r"\textbf{(A)}"),
        ("A", "A."),
        ("A", "A)"),
        ("x = 5", "5"),
        ("x=5", r"x = \frac{10}{2}"),
        ("x=1, y=2", "y = 2, x = 1"),
        (r"x \in [0,1]", "[0, 1]"),
        ("Yes", "yes"),
        (r"\text{even}", "even"),
        ("f(x) = 3", "3"),
        (r"\theta = 30^\circ", "30"),
    ]);
    no(&[
        ("A", "B"),
        ("A", "a"),
        ("x=5", "y=5"),
        ("x=5", "x=6"),
        ("even", "odd"),
        ("AB", "BA"),
        ("2x", "2y"),
        ("x=1,y=2", "x=2,y=1"),
    ]);
}

/// The text with one of its numbers changed, for every number and every change.
fn near_misses(answer: &str) -> Vec<String> {
    let bytes = answer.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let run = &answer[at..end];
        let number: u64 = run.parse().unwrap();
        for other in [number + 1, number.wrapping_sub(1), number + 10, number * 10 + 1] {
            if other <= number * 10 + 1 {
                found.push(format!(
                    "{}{:0width$}{}",
                    &answer[..at],
                    other,
                    &answer[end..],
                    width = run.len()
                ));
            }
        }
        at = end;
    }
    found
}

#[test]
fn the_answers_of_a_published_set_equal_themselves_and_no_near_miss() {
    let text = include_str!("fixtures/compmath_answers.jsonl");
    let answers: Vec<String> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 256);
    let mut misses = 0;
    for answer in &answers {
        assert!(equal(answer, answer));
        let boxed = format!("\\boxed{{{answer}}}");
        let inside = super::super::boxed::last_boxed(&boxed).unwrap();
        assert!(equal(answer, inside), "{boxed}");
        assert!(equal(answer, &boxed), "{boxed}");
        let bare = answer.trim_end_matches('.').trim_matches('$');
        // Prose with formulas inside cannot be put between dollar signs once more.
        assert!(bare.contains('$') || equal(answer, &format!("$ {bare} $")), "{answer}");
        for miss in near_misses(answer) {
            assert!(!equal(answer, &miss), "{answer} is not {miss}");
            assert!(!equal(&miss, answer), "{miss} is not {answer}");
            misses += 1;
        }
    }
    assert!(misses > 1500, "{misses}");
}

#[test]
fn bombs_take_bounded_time() {
    let deep = "(".repeat(900);
    let tower = "9^".repeat(900) + "9";
    let fractions = "+3^{5000}/7^{2900}".repeat(100);
    let factorials = "900!*".repeat(390) + "1";
    let frac = "\\frac".repeat(380);
    let commas = "1,".repeat(990);
    let nested = r"\{1,".repeat(400);
    let signs = "-".repeat(1900) + "1";
    let sums = "900!+".repeat(390) + "1";
    for bomb in [deep, tower, fractions, factorials, frac, commas, nested, signs, sums] {
        let begin = Instant::now();
        assert!(!equal(&bomb, "1"));
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?} for {}", &bomb[..20]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_two_texts_compare_without_a_panic(
        left in r"(\\frac|\\sqrt|\\left|\\right|\\text|\\pm|\\in |\\cup|\\boxed|\\|[0-9]{1,4}|\{|\}|[-+*/^!.,;=()%$ \[\]]|[a-eA-E]|é|²|\PC){0,30}",
        right in r"\PC{0,20}",
    ) {
        let same = equal(&left, &right);
        prop_assert_eq!(same, equal(&right, &left));
        prop_assert_eq!(equal(&left, &left), !left.trim().is_empty());
    }

    #[test]
    fn integers_equal_only_themselves_in_every_dress(number in -1_000_000_000i64..1_000_000_000, away in 1i64..1000) {
        let text = number.to_string();
        for dress in [format!("${number}$"), format!("{number}.0"), format!("x = {number}"), format!("\\frac{{{}}}{{2}}", number * 2), format!("{number} cm")] {
            prop_assert!(equal(&text, &dress), "{}", dress);
            prop_assert!(!equal(&(number + away).to_string(), &dress), "{}", dress);
        }
    }
}
