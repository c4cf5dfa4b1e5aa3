//! The view on terminals of several sizes, and what its keys do.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    draw::draw,
    state::{Action, Pane, State},
};
use crate::{
    admin::{ActorStatus, Command, InboxView, JournalStatus, LearningStatus, NodeStatus, ServingStatus},
    progress::Recent,
    versions::Reception,
};

fn actor(name: &str, state: &str, detail: &str) -> ActorStatus {
    ActorStatus {
        name: name.into(),
        role: name.split('.').next().unwrap().into(),
        state: state.into(),
        detail: detail.into(),
        up_secs: Some(7384.0).filter(|_| state != "failed"),
        ..ActorStatus::default()
    }
}

fn heard(version: u64, approved: u64, replies: u64) -> Reception {
    Reception {
        version,
        approved,
        replies,
        first_approved: approved / 2,
        first: replies / 2,
        ..Reception::default()
    }
}

fn node() -> NodeStatus {
    let inbox = |waiting, leased| {
        Some(InboxView { waiting, leased, capacity: 1024, oldest_wait_secs: 41.0, ..InboxView::default() })
    };
    NodeStatus {
        run: "quickstart".into(),
        node: "local".into(),
        version: 3,
        sessions: 57,
        uptime_secs: 7384.0,
        journal: JournalStatus { healthy: true, detail: "12 MiB".into() },
        learning: LearningStatus {
            steps: 3,
            trained: 48,
            loss: Some(-0.0264),
            approved: 41,
            rejected: 29,
            neutral: 3,
            hinted: 29,
            versions: vec![heard(0, 4, 20), heard(2, 8, 16), heard(3, 9, 12)],
            ..LearningStatus::default()
        },
        serving: ServingStatus {
            tokens_per_sec: 150.0,
            in_flight: 3,
            recent: Recent {
                period_secs: 5.0,
                tokens_per_sec: vec![0.0, 75.0, 300.0],
                in_flight: vec![0, 1, 6],
            },
        },
        actors: vec![
            actor("policy.0", "running", "2 sequences, 110 tok/s"),
            ActorStatus { inbox: inbox(37, 4), ..actor("judge.0", "running", "4 in flight") },
            actor("gateway", "running", "3 of 64 requests in flight"),
        ],
        ..NodeStatus::default()
    }
}

/// The judge has ended too often, with an error that a model wrote some of.
fn sick() -> NodeStatus {
    let mut node = node();
    let error = "vote cannot be read: 漢字\x1b[2J and\n  then a thread panicked";
    node.actors[1] = ActorStatus {
        last_error: Some(error.into()),
        last_error_secs: Some(12.0),
        restarts: 5,
        inbox: node.actors[1].inbox.clone(),
        ..actor("judge.0", "failed", "")
    };
    node
}

fn seen(status: NodeStatus) -> State {
    let mut state = State::new(true, (80, 24));
    state.on_look(Ok(status));
    state
}

fn picture(state: &State, columns: u16, rows: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(state: &State, columns: u16, rows: u16) -> Vec<String> {
    let text = |line: &[ratatui::buffer::Cell]| {
        let mut text = String::new();
        let mut hidden = 0;
        for cell in line {
            if hidden > 0 {
                hidden -= 1;
                continue;
            }
            hidden = crate::cells::width(cell.symbol()).saturating_sub(1);
            text.push_str(cell.symbol());
        }
        text.trim_end().to_owned()
    };
    picture(state, columns, rows).content().chunks(columns.into()).map(text).collect()
}

/// Where a word begins, and its colour there.
fn colour_of(picture: &Buffer, word: &str) -> Color {
    let columns = usize::from(picture.area.width);
    let rows: Vec<String> =
        picture.content().chunks(columns).map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect();
    let (row, column) = rows
        .iter()
        .enumerate()
        .find_map(|(i, row)| Some((i, row[..row.find(word)?].chars().count())))
        .unwrap();
    picture.content()[row * columns + column].fg
}

fn press(state: &mut State, keys: &str) -> Vec<Action> {
    keys.chars().filter_map(|key| push(state, KeyCode::Char(key))).collect()
}

fn push(state: &mut State, code: KeyCode) -> Option<Action> {
    state.on_key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn a_healthy_node_is_a_header_its_actors_and_whether_it_learns() {
    let expected = "\
quickstart  on local  version 3  57 sessions  up 2h03m  journal ok, 12 MiB

 NAME      STATE    VERSION     UP  RESTARTS  INBOX  DETAIL
▸policy.0  running        -  2h03m         0      -  2 sequences, 110 tok/s
 judge.0   running        -  2h03m         0     41  4 in flight
 gateway   running        -  2h03m         0      -  3 of 64 requests in flight

 is it learning? ───────────────────────────────────────────────────────────────
approved   ▂▄▆ v0 20% of 20 → v3 75% of 12 replies
first ones ▂▄▆ v0 20% of 10 → v3 67% of 6 replies
steps      3, loss -0.026, 48 turns kept
verdicts   41 good, 29 bad, 3 neutral; 29 hints
tokens/s   ▁▂█▄ 150, most 300 in 15s
in flight  ▁▂█▄ 3, most 6 in 15s



↑↓ choose  ⏎ detail  r restart  p pause  d drain  K kill  ? keys  q end";
    assert_eq!(lines(&seen(node()), 80, 18).join("\n"), expected);
}

#[test]
fn a_share_of_one_or_two_replies_is_not_drawn_like_the_others() {
    let mut node = node();
    node.learning.versions.push(heard(4, 0, 4));
    let shown = lines(&seen(node), 80, 18);
    let told = |label: &str| shown.iter().find(|line| line.starts_with(label)).unwrap().clone();
    assert_eq!(told("approved"), "approved   ▂▄▆▁ v0 20% of 20 → v4 0% of 4 replies");
    assert_eq!(told("first ones"), "first ones ▂▄▆· v0 20% of 10 → v3 67% of 6 replies");
}

#[test]
fn what_failed_is_at_the_top_with_what_brings_it_back_and_is_chosen() {
    let state = seen(sick());
    let shown = lines(&state, 100, 18);
    assert_eq!(
        shown[1],
        "judge.0 FAILED  vote cannot be read: 漢字�[2J and then a thread panick…  openclaw-rl restart judge.0"
    );
    assert!(shown.iter().any(|line| line.starts_with("▸judge.0   failed")), "{shown:#?}");
    let narrow = lines(&state, 40, 18);
    assert!(narrow[1].starts_with("judge.0 FAILED  vote cannot be"), "{narrow:#?}");
    assert_eq!(narrow[2], "  openclaw-rl restart judge.0");
}

#[test]
fn states_have_colours_unless_none_are_wanted() {
    let mut state = seen(sick());
    let coloured = picture(&state, 80, 18);
    assert_eq!(colour_of(&coloured, "running"), Color::Green);
    assert_eq!([colour_of(&coloured, "failed"), colour_of(&coloured, "FAILED")], [Color::Red; 2]);
    state.colours = false;
    let plain = picture(&state, 80, 18);
    assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let words = |picture: &Buffer| -> String { picture.content().iter().map(|cell| cell.symbol()).collect() };
    assert_eq!(words(&plain), words(&coloured));
}

#[test]
fn a_narrow_terminal_loses_columns_by_importance_and_a_low_one_shows_the_chosen_actor() {
    let mut node = node();
    node.actors.extend((0..20).map(|i| actor(&format!("teacher.{i}"), "running", "0 in flight")));
    let mut state = seen(node);
    let shown = lines(&state, 40, 10);
    assert_eq!(shown[0], "quickstart  version 3  up 2h03m");
    assert_eq!(shown[1], " NAME        STATE    DETAIL 1-7 of 23");
    assert_eq!(shown[2], "▸policy.0    running  2 sequences, 110 …");
    assert_eq!(shown[9], "⏎ detail  r restart  ? keys  q end");
    assert!(lines(&state, 60, 10)[1].contains("INBOX") && !lines(&state, 60, 10)[1].contains("VERSION"));
    push(&mut state, KeyCode::End);
    let shown = lines(&state, 40, 10);
    assert_eq!(shown[1], " NAME        STATE    DETAIL 17-23 of 23");
    assert_eq!(shown[8], "▸teacher.19  running  0 in flight");
    press(&mut state, "kkkk");
    let shown = lines(&state, 40, 10);
    assert!(shown.iter().any(|line| line.starts_with("▸teacher.15")), "{shown:#?}");
    push(&mut state, KeyCode::Home);
    assert!(lines(&state, 40, 10)[2].starts_with("▸policy.0"));
}

#[test]
fn no_size_and_no_text_breaks_the_picture() {
    let mut node = sick();
    node.run = "運転".repeat(40);
    node.journal = JournalStatus { healthy: false, detail: "disk\x07 full ".repeat(20) };
    node.actors[0].detail = "e\u{301}👩‍👩‍👧 \u{202e}x\t".repeat(30);
    node.actors[1].last_error = Some("漢字\x1b]0;owned\x07".repeat(200));
    let mut state = seen(node);
    for pane in [Pane::Load, Pane::Detail(0), Pane::Detail(900), Pane::Help(0), Pane::Help(900)] {
        state.pane = pane;
        for (columns, rows) in [(1, 1), (2, 3), (7, 5), (20, 6), (40, 10), (80, 24), (200, 60)] {
            state.size = (columns, rows);
            let shown = picture(&state, columns, rows);
            let raw = shown.content().iter().find(|cell| cell.symbol().contains(char::is_control));
            assert!(raw.is_none(), "{raw:?} at {columns} x {rows}");
            assert!(!shown.content().iter().any(|cell| cell.symbol().contains('\u{202e}')));
        }
    }
}

#[test]
fn a_node_without_actors_is_starting_and_one_not_seen_is_looked_for() {
    let empty = NodeStatus { run: "quickstart".into(), ..NodeStatus::default() };
    assert!(lines(&seen(empty), 60, 12).contains(&"it is starting".to_owned()));
    let state = State::new(true, (60, 12));
    assert_eq!(lines(&state, 60, 12)[0], "looking …");
}

#[test]
fn a_node_that_went_away_is_said_to_and_what_it_said_last_stays() {
    let mut state = seen(node());
    state.on_time(Duration::from_secs(75));
    assert_eq!(lines(&state, 80, 18)[1], "NO ANSWER for 1m15s; it is still asked");
    state.on_look(Err("no node is running in runs/x: `openclaw-rl launch FILE` starts one".into()));
    let shown = lines(&state, 60, 20);
    assert_eq!(shown[1], "GONE for 1m15s: no node is running in runs/x: `openclaw-rl");
    assert_eq!(shown[2], "launch FILE` starts one");
    assert!(shown.iter().any(|line| line.starts_with("▸policy.0")), "{shown:#?}");
    state.on_look(Ok(node()));
    assert!(!lines(&state, 60, 20).iter().any(|line| line.contains("GONE") || line.contains("NO ANSWER")));
}

#[test]
fn a_stop_and_a_sick_journal_are_in_the_header_before_all_else() {
    let journal = JournalStatus { healthy: false, detail: "cannot write run/journal: disk full".into() };
    let state = seen(NodeStatus { stopping: true, journal, ..node() });
    let shown = lines(&state, 60, 18);
    assert!(shown[0].starts_with("quickstart  STOPPING  version 3") && shown[0].contains("journal FAILING"));
    assert_eq!(shown[1], "journal FAILING: cannot write run/journal: disk full");
    assert!(lines(&state, 30, 18)[0].contains("STOPPING"));
}

#[test]
fn more_trouble_than_there_is_room_for_is_counted() {
    let mut node = node();
    node.actors.extend((0..9).map(|i| actor(&format!("teacher.{i}"), "stuck", "")));
    let shown = lines(&seen(node), 80, 16);
    assert!(shown[1].starts_with("teacher.0 STUCK  does not answer"), "{shown:#?}");
    assert_eq!(shown[4], "and 6 more: Tab goes to the next");
}

#[test]
fn an_order_is_asked_about_and_sent_by_y_alone() {
    let mut state = seen(node());
    assert_eq!(press(&mut state, "jr"), []);
    let last = |state: &State| lines(state, 80, 18).pop().unwrap();
    assert_eq!(last(&state), "restart judge.0? y/n");
    assert_eq!(press(&mut state, "xjn"), []);
    assert!(last(&state).contains("? keys"));
    let restart = Command::Restart { name: "judge.0".into(), drain: false };
    assert_eq!(press(&mut state, "ry"), [Action::Operate(restart)]);
    assert_eq!(last(&state), "restart judge.0 …");
    state.on_answer(Ok("judge.0 restarted".into()));
    assert_eq!(last(&state), "judge.0 restarted");
    press(&mut state, "K");
    assert_eq!(last(&state), "kill judge.0 as a crash would? y/n");
    push(&mut state, KeyCode::Esc);
    let [drain, pause] = ["dy", "py"].map(|keys| press(&mut state, keys).pop());
    assert_eq!(drain, Some(Action::Operate(Command::Drain { name: "judge.0".into() })));
    assert_eq!(pause, Some(Action::Operate(Command::Pause { name: "judge".into() })));
    state.on_answer(Err("judge.0 is \x1b[31mheld".into()));
    assert_eq!(last(&state), "refused: judge.0 is �[31mheld");
    // The next key takes the answer away, and an answer no question.
    press(&mut state, "r");
    state.on_answer(Ok("judge paused".into()));
    assert_eq!(last(&state), "restart judge.0? y/n");
}

#[test]
fn the_pause_key_resumes_what_is_paused_or_drained() {
    let mut node = node();
    node.actors[1].state = "paused".into();
    node.actors[2].state = "stopped".into();
    let mut state = seen(node);
    assert_eq!(press(&mut state, "jpy"), [Action::Operate(Command::Resume { name: "judge".into() })]);
    assert!(press(&mut state, "j").is_empty() && state.chosen.as_deref() == Some("gateway"));
    assert_eq!(press(&mut state, "py"), [Action::Operate(Command::Resume { name: "gateway".into() })]);
}

#[test]
fn the_detail_has_the_whole_error_and_the_inbox_and_can_be_scrolled() {
    let mut state = seen(sick());
    push(&mut state, KeyCode::Enter);
    let shown = lines(&state, 80, 24);
    let tail = shown.iter().skip_while(|line| !line.starts_with(" judge.0 ──")).skip(1);
    let expected = [
        "state      failed, 5 restarts",
        "way back   openclaw-rl restart judge.0",
        "inbox      of every judge: 37 waiting, 4 leased, room for 1024; the oldest waits",
        "           41s; no dead letters",
        "last error 12s ago",
        "vote cannot be read: 漢字�[2J and",
        "then a thread panicked",
    ];
    assert_eq!(tail.take(7).collect::<Vec<_>>(), expected);
    assert!(shown.iter().any(|line| line.starts_with("▸judge.0")), "the table stays in view");

    state.size = (40, 10);
    let shown = lines(&state, 40, 10);
    assert!(shown[3].starts_with(" judge.0: ") && shown[3].contains("more lines"), "{shown:#?}");
    push(&mut state, KeyCode::PageDown);
    push(&mut state, KeyCode::PageDown);
    let shown = lines(&state, 40, 10);
    assert!(shown.contains(&"then a thread panicked".to_owned()), "{shown:#?}");
    push(&mut state, KeyCode::Down);
    assert!(state.pane == Pane::Detail(0) && state.chosen.as_deref() == Some("gateway"));
    assert_eq!((push(&mut state, KeyCode::Esc), state.pane), (None, Pane::Load));
}

#[test]
fn the_choice_stays_with_its_actor_until_it_is_gone() {
    let mut state = seen(node());
    press(&mut state, "j");
    let mut grown = sick();
    grown.actors.insert(0, actor("admin", "failed", ""));
    state.on_look(Ok(grown));
    assert_eq!(state.chosen.as_deref(), Some("judge.0"), "chosen by hand");
    push(&mut state, KeyCode::Tab);
    assert_eq!(state.chosen.as_deref(), Some("admin"));
    push(&mut state, KeyCode::Tab);
    let mut shrunk = node();
    shrunk.actors.remove(1);
    state.on_look(Ok(shrunk));
    assert_eq!(state.chosen.as_deref(), Some("gateway"));
    state.on_look(Ok(NodeStatus::default()));
    assert_eq!(press(&mut state, "rjk"), []);
    assert_eq!((state.chosen.as_deref(), state.actor()), (None, None));
}

#[test]
fn every_way_out_ends_it_and_help_tells_the_keys() {
    let mut state = seen(node());
    assert_eq!(press(&mut state, "?"), []);
    let shown = lines(&state, 80, 24).join("\n");
    for key in ["Enter", "restart", "drain", "kill", "Ctrl-C"] {
        assert!(shown.contains(key), "{key}: {shown}");
    }
    assert_eq!(push(&mut state, KeyCode::Esc), None, "it closes the help first");
    assert_eq!(push(&mut state, KeyCode::Esc), Some(Action::Quit));
    assert_eq!(press(&mut state, "q"), [Action::Quit]);
    press(&mut state, "r");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.on_key(interrupt), Some(Action::Quit), "a question does not hold anyone");
}
