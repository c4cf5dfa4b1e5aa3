//! A stage on a display of three elements.

use serde_json::{Value, json};

use super::*;
use crate::world::{Action, Call, Outcome, Part, text_of};

/// A checkbox, a button far below, and one that is hidden.
#[derive(Default)]
struct Panel {
    checked: bool,
    scrolled: f32,
    acts: Vec<Act>,
    known: bool,
}

fn element(key: u64, role: &str, name: &str, (x, y): (f32, f32)) -> Element {
    let bounds = Bounds { x, y, width: 40.0, height: 20.0 };
    Element { key, role: role.into(), name: name.into(), bounds, ..Element::default() }
}

impl Display for Panel {
    fn look(&mut self) -> Result<Look, WorldError> {
        let mut checkbox = element(7, "checkbox", "I  \"agree\"", (100.0, 50.0));
        checkbox.states = self.checked.then(|| "checked".to_owned()).into_iter().collect();
        let elements = vec![
            checkbox,
            Element { bounds: Bounds::default(), ..element(8, "button", "Hidden", (0.0, 0.0)) },
            element(9, "button", "Send", (100.0, 500.0 - self.scrolled)),
        ];
        let progress = self.known.then_some(if self.checked { 1.0 } else { 0.0 });
        Ok(Look { elements, progress, ..Look::default() })
    }

    fn act(&mut self, act: &Act) -> Result<Did, WorldError> {
        self.acts.push(act.clone());
        match act {
            Act::Click { at, .. } if at.y < 80.0 => self.checked = !self.checked,
            Act::Scroll { down, .. } => self.scrolled += down,
            Act::Press { keys } => return Ok(Did::Refused(format!("There is no key {}.", keys[0]))),
            _ => {}
        }
        Ok(Did::Done)
    }
}

fn call(name: &str, arguments: Value) -> Action {
    let arguments = arguments.as_object().expect("an object").clone();
    Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
}

fn computer(arguments: Value) -> Action {
    call("computer_use", arguments)
}

fn stage(actions: Actions) -> Stage {
    let options = Options { width: 400, height: 200, actions, changes: true, ..Options::default() };
    options.check().expect("they are right");
    Stage::new(options)
}

fn score(outcome: &Outcome) -> Option<(i8, &'static str)> {
    outcome.rule.map(|rule| (rule.score, rule.reason))
}

fn told(outcome: &Outcome) -> String {
    text_of(&outcome.observation.results[0].parts)
}

#[test]
fn what_cannot_be_seen_is_not_in_the_list() {
    let (mut stage, mut panel) = (stage(Actions::Elements), Panel::default());
    let begun = stage.begin(&mut panel).unwrap();
    assert_eq!(text_of(&begun.parts), "[1] checkbox \"I \\\"agree\\\"\"");
    let outcome = stage.step(&mut panel, &call("scroll", json!({"direction": "down"}))).unwrap();
    assert_eq!(panel.scrolled, 120.0);
    assert_eq!(score(&outcome), Some((-1, "nothing on the screen has changed")));
    stage.step(&mut panel, &call("scroll", json!({"direction": "down"}))).unwrap();
    let outcome = stage.step(&mut panel, &call("scroll", json!({"direction": "down"}))).unwrap();
    let seen = text_of(&outcome.observation.parts);
    assert_eq!(
        seen,
        "The screen has changed.\n+ button \"Send\"\n[1] checkbox \"I \\\"agree\\\"\"\n[2] button \"Send\""
    );
    assert_eq!(score(&outcome), None, "only the task could tell");
    let outcome = stage.step(&mut panel, &call("click", json!({"id": "2"}))).unwrap();
    let Some(Act::Click { at, key, .. }) = panel.acts.last() else { panic!("{:?}", panel.acts) };
    assert_eq!((*at, *key), (Point { x: 120.0, y: 150.0 }, Some(9)));
    assert_eq!(told(&outcome), "clicked button \"Send\" at 120,150");
}

#[test]
fn what_an_agent_did_wrong_is_told_and_nothing_is_done() {
    let (mut stage, mut panel) = (stage(Actions::Both), Panel::default());
    stage.begin(&mut panel).unwrap();
    for (action, why) in [
        (call("click", json!({})), "argument id is missing"),
        (call("click", json!({"id": 2})), "There is no 2 in the list"),
        (call("click", json!({"id": 0})), "There is no 0 in the list"),
        (call("type", json!({"id": 1})), "argument text is missing"),
        (call("scroll", json!({"direction": "in"})), "not one of up, down"),
        (call("hover", json!({"id": 1})), "There is no tool hover"),
        (computer(json!({"action": "jump"})), "not one of key, type"),
        (computer(json!({"action": "left_click"})), "coordinate is missing"),
        (computer(json!({"action": "left_click", "coordinate": [1]})), "not two numbers"),
        (computer(json!({"action": "left_click", "coordinate": [1000, 5]})), "1000,5 is outside the screen"),
        (computer(json!({"action": "left_click", "coordinate": [5, -1]})), "outside the screen"),
        (computer(json!({"action": "key", "keys": []})), "list of 1 to 8"),
        (computer(json!({"action": "scroll"})), "argument pixels is missing"),
        (computer(json!({"action": "terminate", "status": "won"})), "not one of success"),
    ] {
        let outcome = stage.step(&mut panel, &action).unwrap();
        assert!(told(&outcome).contains(why) && outcome.observation.results[0].is_error, "{outcome:?}");
        assert_eq!(outcome.rule.map(|rule| rule.score), Some(-1));
        assert!(!outcome.done);
    }
    assert_eq!(panel.acts, []);
    let outcome = stage.step(&mut panel, &computer(json!({"action": "key", "keys": ["hyper"]}))).unwrap();
    assert_eq!(
        (told(&outcome).as_str(), score(&outcome)),
        ("There is no key hyper.", Some((-1, "not an action")))
    );
}

#[test]
fn the_thirteen_actions_are_done_where_they_point() {
    let (mut stage, mut panel) = (stage(Actions::Coordinates), Panel::default());
    let begun = stage.begin(&mut panel).unwrap();
    assert_eq!(text_of(&begun.parts), "[1] checkbox \"I \\\"agree\\\"\" at 300,300");
    let at = Point { x: 200.2, y: 100.1 };
    let click = |button, count| Act::Click { at, button, count, key: None };
    let here = json!([500, 500]);
    for (arguments, act) in [
        (json!({"action": "left_click", "coordinate": here}), click(Button::Left, 1)),
        (json!({"action": "right_click", "coordinate": here}), click(Button::Right, 1)),
        (json!({"action": "middle_click", "coordinate": here}), click(Button::Middle, 1)),
        (json!({"action": "double_click", "coordinate": here}), click(Button::Left, 2)),
        (json!({"action": "triple_click", "coordinate": here}), click(Button::Left, 3)),
        (json!({"action": "mouse_move", "coordinate": here}), Act::Move { to: at }),
        (json!({"action": "left_click_drag", "coordinate": here}), Act::Drag { to: at }),
        (json!({"action": "type", "text": "a"}), Act::Type { text: "a".into(), into: None }),
        (
            json!({"action": "key", "keys": ["ctrl", "a"]}),
            Act::Press { keys: vec!["ctrl".into(), "a".into()] },
        ),
        (json!({"action": "scroll", "pixels": 30}), Act::Scroll { at: None, right: 0.0, down: -30.0 }),
        (
            json!({"action": "hscroll", "pixels": 30, "coordinate": here}),
            Act::Scroll { at: Some(at), right: 30.0, down: 0.0 },
        ),
        (json!({"action": "wait", "time": 100}), Act::Wait { secs: 10.0 }),
    ] {
        stage.step(&mut panel, &computer(arguments)).unwrap();
        assert_eq!(panel.acts.pop(), Some(act));
    }
    let outcome = stage.step(&mut panel, &call("click", json!({"id": 1}))).unwrap();
    assert_eq!(told(&outcome), "There is no tool click.");
    let outcome =
        stage.step(&mut panel, &computer(json!({"action": "terminate", "status": "failure"}))).unwrap();
    assert_eq!((outcome.done, stage.ended()), (true, Some(Ended::Fail)));
}

#[test]
fn a_known_goal_decides_and_going_back_and_forth_gains_nothing() {
    let (mut stage, mut panel) = (stage(Actions::Elements), Panel { known: true, ..Panel::default() });
    stage.begin(&mut panel).unwrap();
    let mut step = |action| score(&stage.step(&mut panel, &action).unwrap());
    let click = || call("click", json!({"id": 1}));
    let done = || call("done", json!({}));
    assert_eq!(step(done()), Some((-1, "it is not done")));
    stage.begin(&mut panel).unwrap();
    let mut step = |action| score(&stage.step(&mut panel, &action).unwrap());
    assert_eq!(step(click()), Some((1, "nearer to the goal")));
    assert_eq!(step(click()), Some((-1, "no nearer to the goal")));
    assert_eq!(step(click()), Some((-1, "no nearer to the goal")));
    assert_eq!(step(call("wait", json!({}))), Some((-1, "nothing on the screen has changed")));
    assert_eq!(step(call("wait", json!({}))), Some((-1, "the same again, and again without effect")));
    assert_eq!(step(Action::Malformed), Some((-1, "neither a call nor an answer")));
    assert_eq!(step(Action::Text("I think that is it.".into())), Some((1, "it is done")));
    stage.begin(&mut panel).unwrap();
    let outcome = stage.step(&mut panel, &call("fail", json!({}))).unwrap();
    assert_eq!((score(&outcome), outcome.done), (Some((-1, "gives up what can be done")), true));
}

#[test]
fn a_call_gives_the_list_alone_unless_changes_are_told() {
    let options = Options { width: 400, height: 200, ..Options::default() };
    let (mut stage, mut panel) = (Stage::new(options), Panel::default());
    stage.begin(&mut panel).unwrap();
    let outcome = stage.step(&mut panel, &call("click", json!({"id": 1}))).unwrap();
    assert_eq!(told(&outcome), "[1] checkbox \"I \\\"agree\\\"\" checked");
    assert_eq!(outcome.observation.parts, []);
    let outcome = stage.step(&mut panel, &call("click", json!({"id": 9}))).unwrap();
    assert!(outcome.observation.results[0].is_error && outcome.observation.parts.is_empty(), "{outcome:?}");
}

#[test]
fn several_calls_are_done_in_order_until_one_ends_the_task() {
    let (mut stage, mut panel) = (stage(Actions::Elements), Panel::default());
    stage.begin(&mut panel).unwrap();
    let calls = ["click", "done", "click"].map(|name| {
        let arguments = json!({"id": 1}).as_object().cloned().unwrap_or_default();
        Call { id: name.into(), name: name.into(), arguments }
    });
    let outcome = stage.step(&mut panel, &Action::Calls(calls.to_vec())).unwrap();
    let results: Vec<String> =
        outcome.observation.results.iter().map(|result| text_of(&result.parts)).collect();
    assert_eq!(results[1..], ["done", "Not done: the task is over."]);
    assert_eq!((panel.acts.len(), outcome.done, panel.checked), (1, true, true));
    let seen = text_of(&outcome.observation.parts);
    assert!(
        seen.contains("~ checkbox \"I \\\"agree\\\"\" -> checkbox \"I \\\"agree\\\"\" checked"),
        "{seen}"
    );
}

#[test]
fn a_long_list_says_what_it_left_out() {
    let many = |options: &Options| {
        let elements = (0..50).map(|at| element(at, "button", &format!("b{at}"), (5.0, 5.0))).collect();
        Screen::new(elements, None, options)
    };
    let screen = many(&Options { list_lines: 3, ..Options::default() });
    assert_eq!(screen.list(), "[1] button \"b0\"\n[2] button \"b1\"\n[3] button \"b2\"\n[47 more left out]");
    assert_eq!((screen.element(4), screen.left_out), (None, 47));
    let screen = many(&Options { list_chars: 100, ..Options::default() });
    assert_eq!((screen.elements().len(), screen.left_out), (6, 44));
    assert_eq!(many(&Options::default()).state(), many(&Options::default()).state());
    assert_ne!(screen.state(), many(&Options::default()).state());
}

/// The least that has the size of a PNG.
fn png(width: u32, pixel: u8) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(width.to_be_bytes());
    png.extend([0, 0, 0, 9, pixel]);
    png
}

#[test]
fn a_screenshot_is_kept_and_shown_where_it_is_asked_for() {
    /// A panel whose picture counts the looks.
    struct Seen(u8);
    impl Display for Seen {
        fn look(&mut self) -> Result<Look, WorldError> {
            self.0 += 1;
            Ok(Look { png: Some(png(400, self.0)), ..Look::default() })
        }
        fn act(&mut self, _: &Act) -> Result<Did, WorldError> {
            Ok(Did::Done)
        }
    }
    for (show, words, images) in [(Show::List, true, 0), (Show::Screenshot, true, 1), (Show::Both, true, 1)] {
        let options = Options { actions: Actions::Coordinates, show, changes: true, ..Options::default() };
        let (mut stage, mut seen) = (Stage::new(options), Seen(0));
        stage.begin(&mut seen).unwrap();
        let point = json!({"action": "left_click", "coordinate": [250, 750]});
        let outcome = stage.step(&mut seen, &computer(point)).unwrap();
        let parts = &outcome.observation.parts;
        assert_eq!(parts.iter().any(|part| matches!(part, Part::Text(_))), words);
        assert_eq!(parts.iter().filter(|part| matches!(part, Part::Image(_))).count(), images);
        assert_eq!(score(&outcome), None, "it looks different");
        let shot = outcome.observation.shot.unwrap();
        assert_eq!((shot.image.width, shot.image.height), (400, 9));
        let (x, y) = shot.point.unwrap();
        assert!((x - 0.2505).abs() < 1e-4 && (y - 0.7505).abs() < 1e-4, "{x} {y}");
        let kept = stage.images();
        assert_eq!(kept.iter().map(|(image, _)| image).collect::<Vec<_>>().last(), Some(&&shot.image));
        assert_eq!((kept.len(), stage.images().len()), (2, 0));
    }
    assert!(matches!(Picture::new(b"GIF".to_vec()), Err(WorldError::Broken(_))));
}

#[test]
fn what_does_not_go_together_names_its_key() {
    let fault = |options: Options| options.check().expect_err("it is refused").to_string();
    assert!(fault(Options { width: 50, ..Options::default() }).starts_with("width: "));
    assert!(fault(Options { list_chars: 5, ..Options::default() }).starts_with("list_chars: "));
    assert!(fault(Options { show: Show::Screenshot, ..Options::default() }).starts_with("show: "));
}

#[test]
fn basic_actions_are_clicking_and_typing_alone() {
    let (mut stage, mut panel) = (stage(Actions::Basic), Panel::default());
    let names: Vec<String> = Stage::tools(Actions::Basic).into_iter().map(|tool| tool.name).collect();
    assert_eq!(names, ["click", "type"]);
    stage.begin(&mut panel).unwrap();
    for name in ["scroll", "done", "fail", "computer_use"] {
        let outcome = stage.step(&mut panel, &call(name, json!({}))).unwrap();
        assert_eq!(told(&outcome), format!("There is no tool {name}."));
    }
    let outcome = stage.step(&mut panel, &call("click", json!({"id": 1}))).unwrap();
    assert!(panel.checked && !outcome.done, "{outcome:?}");
}
