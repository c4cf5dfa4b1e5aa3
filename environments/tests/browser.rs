//! Pages in a real browser: families by their oracles, pages by URL, MiniWoB++ where it is, and what becomes of a crash.

#[path = "browser/hands.rs"]
mod hands;
mod machine;

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use hands::{Hands, browsers, click, computer, done, numbered, seen, type_in};
use machine::{eventually, with_marker};
use openclaw_environments::{
    browser::{
        Settings,
        families::{self, Family, Knobs, Move},
    },
    gui::{Actions, Show},
    world::{Action, Environment, Part, Split, WorldError},
};

#[test]
fn the_plans_of_families_are_right() {
    let Some(browsers) = browsers(Settings::default()) else { return };
    let mut world = browsers.open().unwrap();
    for number in 0..9 {
        for split in [Split::Train, Split::HeldOut] {
            let task = browsers.task(split, number).unwrap();
            let family = Family::ALL[(number % 3) as usize];
            let made = families::task(family, split, number / 3, &Knobs::default());
            let begun = world.reset(&task).unwrap();
            let mut list = seen(&begun);
            let mut last = None;
            for act in &made.plan {
                let outcome = world.step(&hands::doing(act, &list)).unwrap();
                let rule = outcome.rule.unwrap();
                assert_eq!(rule.score, 1, "{made:?}\n{list}\n{act:?}\n{outcome:?}");
                list = seen(&outcome.observation);
                assert!(list.starts_with("The screen has changed."), "{list}");
                last = Some(outcome.done);
            }
            assert_eq!(last, Some(true), "the last click ends it: {made:?}");
            let verdict = world.evaluate().unwrap();
            assert_eq!((verdict.reward, verdict.success), (1.0, true), "{made:?}");
            assert_eq!(world.evaluate(), Ok(verdict));
        }
    }
}

#[test]
fn wrong_plans_fail() {
    let Some(browsers) = browsers(Settings::default()) else { return };
    let mut world = browsers.open().unwrap();
    for number in 0..3 {
        let task = browsers.task(Split::Train, number).unwrap();
        let made = families::task(Family::ALL[number as usize], Split::Train, 0, &Knobs::default());
        let begun = seen(&world.reset(&task).unwrap());
        for (action, why) in [
            (click(99), "not an action"),
            (Action::Malformed, "neither a call nor an answer"),
            (hands::call("wait", serde_json::json!({})), "nothing on the screen has changed"),
        ] {
            let outcome = world.step(&action).unwrap();
            assert_eq!(outcome.rule.map(|rule| (rule.score, rule.reason)), Some((-1, why)), "{outcome:?}");
        }
        let outcome = world.step(&done()).unwrap();
        assert_eq!((outcome.rule.unwrap().score, outcome.done), (-1, true));
        let verdict = world.evaluate().unwrap();
        assert_eq!((verdict.reward, verdict.success), (-1.0, false), "{made:?}\n{begun}");
        assert!(matches!(world.step(&done()), Err(WorldError::Broken(_))), "it is over");
    }
}

#[test]
fn the_same_number_is_the_same_page_again() {
    let settings = Settings { show: Show::Both, actions: Actions::Both, ..Settings::default() };
    let Some(browsers) = browsers(settings) else { return };
    let (mut one, mut other) = (browsers.open().unwrap(), browsers.open().unwrap());
    let mut pages = std::collections::BTreeSet::new();
    for number in 0..6 {
        let task = browsers.task(Split::Train, number).unwrap();
        let (here, there) = (one.reset(&task).unwrap(), other.reset(&task).unwrap());
        assert_eq!(here, there, "with its picture");
        assert!(here.state.is_some() && pages.insert(seen(&here)), "{number} is another page");
        let images = one.images();
        let shown = here.parts.iter().find_map(|part| match part {
            Part::Image(image) => Some(image.clone()),
            Part::Text(_) => None,
        });
        let (image, png) = &images[0];
        assert_eq!((images.len(), Some(image)), (1, shown.as_ref()));
        assert_eq!((image.width, image.height, &png[1..4]), (480, 360, &b"PNG"[..]));
    }
}

#[test]
fn what_is_pointed_at_is_hit() {
    let settings = Settings { actions: Actions::Coordinates, show: Show::List, ..Settings::default() };
    let Some(browsers) = browsers(Settings { families: Some(vec![Family::Buttons]), ..settings }) else {
        return;
    };
    let mut world = browsers.open().unwrap();
    for number in 0..5 {
        let task = browsers.task(Split::Train, number).unwrap();
        let made = families::task(Family::Buttons, Split::Train, number, &Knobs::default());
        let list = seen(&world.reset(&task).unwrap());
        let [Move::Click(name)] = &made.plan[..] else { panic!("{made:?}") };
        let line = list.lines().find(|line| line.contains(&format!("button \"{name}\""))).unwrap();
        let (x, y) = line.rsplit_once(" at ").unwrap().1.split_once(',').unwrap();
        let (x, y): (u32, u32) = (x.parse().unwrap(), y.parse().unwrap());
        let outcome = world.step(&computer("left_click", x, y)).unwrap();
        assert_eq!((outcome.done, outcome.rule.unwrap().score), (true, 1), "{list}\n{outcome:?}");
        let point = outcome.observation.shot.unwrap().point.unwrap();
        assert!((point.0 * 1000.0 - x as f32).abs() < 1.0 && (point.1 * 1000.0 - y as f32).abs() < 1.0);
        assert!(world.evaluate().unwrap().success);
    }
}

/// A page with one of each thing, as a row.
const PAGE: &str = r##"<!DOCTYPE html><title>Things</title>
<h1>Things</h1>
<button id=b onclick="alert('hello'); this.textContent = 'Saved'">Save</button>
<button disabled>Closed</button>
<div style="display:none"><button>Hidden</button></div>
<label>Name <input id=n value=old></label>
<label>Day <input id=d type=date></label>
<textarea id=t aria-label=Notes></textarea>
<label>Size <select id=s><option>small<option>large</select></label>
<label><input type=checkbox id=c> I agree</label>
<a href="other.html">Other</a>
<div style="height:2000px"></div>
<button id=far onclick="document.title = 'far'">Far</button>
"##;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("things.html"), PAGE).unwrap();
    fs::write(dir.path().join("other.html"), "<title>Other</title><p>Another page</p>").unwrap();
    dir
}

fn rows(dir: &std::path::Path, rows: &[serde_json::Value]) -> Settings {
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    fs::write(dir.join("rows.jsonl"), lines.join("\n")).unwrap();
    Settings {
        pages: Some(dir.to_owned()),
        rows: Some(dir.join("rows.jsonl")),
        width: 640,
        height: 480,
        ..Settings::default()
    }
}

fn row(id: &str, evaluate: serde_json::Value) -> serde_json::Value {
    serde_json::json!({"id": id, "url": "things.html", "instruction": "Do it.", "evaluate": evaluate})
}

#[test]
fn any_page_is_used_and_evaluated() {
    let dir = folder();
    let all = "[n.value === 'new', d.value === '2024-05-06', t.value === 'a\\nb', s.value === 'large', c.checked, \
                b.textContent === 'Saved', document.title === 'far'].filter(x => x).length / 7";
    let settings = rows(
        dir.path(),
        &[
            row("all", all.into()),
            row("link", serde_json::json!({"url_match": "other\\.html$", "text_match": "Another"})),
            row("wrong", "nothing.there".into()),
        ],
    );
    let Some(browsers) = browsers(settings) else { return };
    assert_eq!((browsers.tasks(Split::Train), browsers.tasks(Split::HeldOut)), (Some(3), Some(0)));
    let mut world = browsers.open().unwrap();
    let mut hands = Hands::begin(&mut *world, &browsers.task(Split::Train, 0).unwrap());
    assert!(!hands.list.contains("Hidden") && !hands.list.contains("Far"), "{}", hands.list);
    assert!(hands.list.contains("button \"Closed\" disabled"), "{}", hands.list);
    assert!(
        hands.list.contains("combobox \"Size\" value=\"small\" of \"small\", \"large\""),
        "{}",
        hands.list
    );
    hands.type_into("textbox \"Name\"", "new");
    assert!(hands.list.contains("textbox \"Name\" value=\"new\""), "{}", hands.list);
    hands.type_into("\"Day\"", "2024-05-06");
    hands.type_into("textbox \"Notes\"", "a\nb");
    hands.type_into("combobox \"Size\"", "large");
    hands.click("checkbox \"I agree\"");
    assert!(hands.list.contains("checkbox \"I agree\" checked"), "{}", hands.list);
    assert!(hands.list.contains("\n~ checkbox"), "{}", hands.list);
    let told = hands.click("button \"Save\"");
    assert!(told.ends_with("; the page said \"hello\", and was answered with yes"), "{told}");
    assert!(hands.list.contains("button \"Saved\""), "{}", hands.list);
    let wrong = hands.refused(type_in(numbered(&hands.list, "combobox \"Size\""), "huge"));
    assert_eq!(wrong, "There is no such option.");
    let wrong = hands.refused(type_in(numbered(&hands.list, "button \"Saved\""), "x"));
    assert_eq!(wrong, "No text can be put there.");
    for _ in 0..9 {
        hands.act(hands::call("scroll", serde_json::json!({"direction": "down"})));
    }
    hands.click("button \"Far\"");
    drop(hands);
    let verdict = world.evaluate().unwrap();
    assert_eq!((verdict.numbers["rate"], verdict.success), (1.0, true));

    let mut hands = Hands::begin(&mut *world, &browsers.task(Split::Train, 1).unwrap());
    hands.click("link \"Other\"");
    assert!(hands.list.contains("text \"Another page\""), "{}", hands.list);
    drop(hands);
    assert!(world.evaluate().unwrap().success);

    world.reset(&browsers.task(Split::Train, 2).unwrap()).unwrap();
    world.step(&done()).unwrap();
    let verdict = world.evaluate();
    assert!(matches!(&verdict, Err(WorldError::Invalid(why)) if why.contains("nothing")), "{verdict:?}");
    assert_eq!(world.evaluate(), verdict);
}

#[test]
fn a_page_reaches_no_network_and_reads_no_files() {
    let dir = folder();
    let reaches = "(async () => { \
         const tries = ['http://127.0.0.1:1/', 'http://example.com/', 'file:///etc/passwd', 'file:///pages/other.html']; \
         for (const url of tries) { try { await (await fetch(url)).text(); return false; } catch {} } \
         return true; })()";
    let Some(browsers) = browsers(rows(dir.path(), &[row("net", reaches.into())])) else { return };
    let mut world = browsers.open().unwrap();
    world.reset(&browsers.task(Split::Train, 0).unwrap()).unwrap();
    assert!(world.evaluate().unwrap().success);
}

#[test]
fn a_browser_that_dies_is_an_error_and_the_next_episode_has_another() {
    let Some((browsers, marker)) = hands::marked(1, Settings::default()) else { return };
    let task = browsers.task(Split::Train, 0).unwrap();
    let (mut one, mut other) = (browsers.open().unwrap(), browsers.open().unwrap());
    one.reset(&task).unwrap();
    other.reset(&task).unwrap();
    assert_eq!(hands::browsers_with(&marker).len(), 1, "they share it");
    hands::browsers_with(&marker).into_iter().for_each(hands::kill);
    for world in [&mut one, &mut other] {
        let step = world.step(&click(1));
        assert!(matches!(step, Err(WorldError::Broken(_))), "{step:?}");
        assert!(matches!(world.evaluate(), Err(WorldError::Broken(_))), "that is no verdict");
    }
    one.reset(&task).unwrap();
    assert!(one.step(&click(1)).is_ok());
    assert_eq!(hands::browsers_with(&marker).len(), 1);
    drop((one, other, browsers));
    assert_eq!(with_marker(&marker), 0, "nothing is left");
}

#[test]
fn a_page_that_crashes_breaks_its_episode_alone() {
    let Some((browsers, marker)) = hands::marked(2, Settings::default()) else { return };
    let task = browsers.task(Split::Train, 0).unwrap();
    let mut world = browsers.open().unwrap();
    world.reset(&task).unwrap();
    let browser = hands::browsers_with(&marker);
    hands::renderers_of(browser[0]).into_iter().for_each(hands::kill);
    let step = world.step(&click(1));
    assert!(matches!(&step, Err(WorldError::Broken(why)) if why == "the page has crashed"), "{step:?}");
    world.reset(&task).unwrap();
    assert!(world.step(&click(1)).is_ok());
    assert_eq!(hands::browsers_with(&marker), browser, "it is the same");
}

#[test]
fn a_page_that_hangs_is_an_error_in_time_and_an_interrupt_is_sooner() {
    let dir = folder();
    let hangs = "<title>Hangs</title><button onclick='for (;;) {}'>Go</button>";
    fs::write(dir.path().join("things.html"), hangs).unwrap();
    let settings = Settings { step_secs: 2, ..rows(dir.path(), &[row("hangs", "true".into())]) };
    let Some(browsers) = browsers(settings) else { return };
    let task = browsers.task(Split::Train, 0).unwrap();
    let mut world = browsers.open().unwrap();
    world.reset(&task).unwrap();
    let step = world.step(&click(1));
    assert!(matches!(&step, Err(WorldError::Broken(why)) if why.contains("in time")), "{step:?}");

    let dir = folder();
    fs::write(dir.path().join("things.html"), hangs).unwrap();
    let settings = Settings { step_secs: 3000, ..rows(dir.path(), &[row("hangs", "true".into())]) };
    let Some(browsers) = hands::browsers(settings) else { return };
    let mut world = browsers.open().unwrap();
    world.reset(&browsers.task(Split::Train, 0).unwrap()).unwrap();
    let interrupt = world.interrupt();
    // Nothing runs: the next step is not ended by it.
    interrupt();
    assert!(world.step(&hands::call("wait", serde_json::json!({}))).is_ok());
    let stopped = thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            thread::yield_now();
        }
        interrupt();
    });
    assert_eq!(world.step(&click(1)), Err(WorldError::Interrupted));
    stopped.join().unwrap();
    world.reset(&browsers.task(Split::Train, 0).unwrap()).unwrap();
}

const MARK: &str = "OPENCLAW_BROWSER_TEST_MARK";

#[test]
#[ignore = "it is started, and killed, by the next one"]
fn a_node() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let (browsers, _) = hands::marked(3, Settings::default()).expect("the next one has asked");
    let mut world = browsers.open().unwrap();
    world.reset(&browsers.task(Split::Train, 0).unwrap()).unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_node_leaves_no_browser() {
    let Some((browsers, marker)) = hands::marked(3, Settings::default()) else { return };
    let mut node = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_node", "--ignored"])
        .env(MARK, "1")
        .spawn()
        .unwrap();
    eventually("it has a browser", || {
        let browser = hands::browsers_with(&marker);
        browser.first().is_some_and(|browser| !hands::renderers_of(*browser).is_empty())
    });
    node.kill().unwrap();
    node.wait().unwrap();
    eventually("its browser is gone", || with_marker(&marker) == 0);
    // What it had on disk goes when the next one begins.
    browsers.ready().unwrap();
}

#[test]
fn eight_episodes_at_once() {
    let Some((browsers, marker)) = hands::marked(4, Settings { contexts: 4, ..Settings::default() }) else {
        return;
    };
    thread::scope(|scope| {
        for number in 0..8 {
            let browsers = &browsers;
            scope.spawn(move || {
                let task = browsers.task(Split::Train, number).unwrap();
                let family = Family::ALL[(number % 3) as usize];
                let made = families::task(family, Split::Train, number / 3, &Knobs::default());
                let mut world = browsers.open().unwrap();
                let mut list = seen(&world.reset(&task).unwrap());
                for act in &made.plan {
                    list = seen(&world.step(&hands::doing(act, &list)).unwrap().observation);
                }
                assert!(world.evaluate().unwrap().success, "{made:?}");
            });
        }
    });
    assert!((1..=2).contains(&hands::browsers_with(&marker).len()), "four in each");
    drop(browsers);
    assert_eq!(with_marker(&marker), 0);
}

/// A folder of MiniWoB++: the package `miniwob` 1.1.0, unpacked, has it as `miniwob/html`.
fn miniwob() -> Option<PathBuf> {
    let folder = std::env::var_os("OPENCLAW_MINIWOB").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped, OPENCLAW_MINIWOB does not name a folder of MiniWoB++");
    }
    folder
}

#[test]
fn ten_tasks_of_miniwob_are_solved() {
    let Some(pages) = miniwob() else { return };
    let names: Vec<String> = hands::wob::TASKS.iter().map(|name| (*name).to_owned()).collect();
    let settings = Settings {
        pages: Some(pages),
        tasks: Some(names.clone()),
        width: 240,
        height: 260,
        ..Settings::default()
    };
    let Some(browsers) = browsers(settings) else { return };
    let mut world = browsers.open().unwrap();
    let mut asked = std::collections::BTreeSet::new();
    for number in 0..2 * names.len() as u64 {
        let name = &names[(number % names.len() as u64) as usize];
        let task = browsers.task(Split::Train, number).unwrap();
        let again = seen(&world.reset(&task).unwrap());
        let begun = world.reset(&task).unwrap();
        assert_eq!(seen(&begun), again, "{name} is the same again");
        asked.insert(again);
        let Part::Text(wanted) = &begun.parts[0] else { panic!("{begun:?}") };
        let mut list = seen(&begun);
        let mut told = Vec::new();
        for turn in 0..12 {
            let action = hands::wob::action(name, wanted, &list, turn);
            let outcome = world.step(&action).unwrap();
            list = seen(&outcome.observation);
            told.push(list.clone());
            if outcome.done {
                assert_eq!(outcome.rule.map(|rule| rule.score), Some(1), "{name}: {wanted}\n{told:#?}");
                break;
            }
        }
        let verdict = world.evaluate().unwrap();
        assert_eq!((verdict.success, verdict.reward), (true, 1.0), "{name}: {wanted}\n{begun:?}\n{told:#?}");
    }
    assert!(asked.len() > names.len(), "other seeds are other tasks");
    // Who does nothing has not solved it.
    world.reset(&browsers.task(Split::Train, 0).unwrap()).unwrap();
    world.step(&done()).unwrap();
    assert_eq!(world.evaluate().map(|verdict| (verdict.success, verdict.reward)), Ok((false, -1.0)));
}
