//! `chat` as a person uses it: through a pipe and on a terminal, with a launched node, and with a gateway elsewhere.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
};

use openclaw_tests::{Launch, Node, Terminal, binary, eventually};

const QUESTION: &str = "Tom has 12 apples and gets 7 more. How many apples are there now?";
const COMPLAINT: &str = "This looks like a machine wrote it.";

/// A node that learns from every reply by itself, and that nobody else talks to.
struct House {
    _dir: tempfile::TempDir,
    run: PathBuf,
    node: Node,
}

impl House {
    fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let run = dir.path().join("run");
        let launch = Launch::new("configs/quickstart.toml", &run)
            .set("actors.rollout=[]")
            .set("actors.optimizer.batch_samples=1")
            .set("actors.judge.votes=3");
        Self { _dir: dir, node: launch.start(), run }
    }

    fn operate(&self, words: &[&str]) {
        let output = Command::new(binary()).args(words).env("OPENCLAW_RUN", &self.run).output();
        let output = output.expect("the binary can be run");
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    }

    /// Types `lines` into a pipe.
    fn pipe(&self, lines: &[&str], options: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("chat").args(options).env("OPENCLAW_RUN", &self.run).env_remove("OPENCLAW_API_KEY");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all((lines.join("\n") + "\n").as_bytes()).expect("it is read");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    }

    fn chat(&self, size: (u16, u16)) -> Terminal {
        Terminal::start(&binary(), &["chat"], &[("OPENCLAW_RUN", self.run.as_os_str())], size)
    }

    /// Waits until the node has no open session.
    async fn no_session_is_open(&self) {
        let url = format!("http://{}/metrics", self.node.metrics());
        let closed = async || {
            let page = reqwest::get(&url).await.expect("an answer").text().await.expect("text");
            page.lines().any(|line| line == "openclaw_sessions_open_sessions 0")
        };
        eventually(closed).await.expect("the session was ended");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

/// The line that the cursor is in, and its column.
fn at_cursor(chat: &Terminal) -> (String, u16) {
    chat.look(|screen| {
        let (row, column) = screen.cursor_position();
        let width = screen.size().1;
        (screen.rows(0, width.into()).nth(row.into()).unwrap_or_default(), column)
    })
}

#[tokio::test]
async fn a_piped_conversation_tells_what_was_learnt_and_ends_its_session() {
    let house = House::open();
    let lines = [QUESTION, "/retry", COMPLAINT, "/bad Write it by hand.", "/bda"];
    let output = house.pipe(&lines, &["--wait", "300"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}\n{told}", text(&output.stderr));
    let lines: Vec<&str> = told.lines().collect();
    let place = |wanted: &str| {
        let found = lines.iter().position(|line| line.contains(wanted));
        found.unwrap_or_else(|| panic!("no {wanted:?}\n{told}"))
    };
    // First the conversation, then what came of it, in the order of the replies.
    let order = [
        "[reply 1, version 0]",
        "[reply 2, version ",
        "  rated as bad",
        "  /bda is no command",
        "  reply 1, asked again: ",
        "  reply 1: ",
        "  reply 2: bad (as you said)",
        "  session ended: 2 replies, ",
    ];
    let places = order.map(place);
    assert!(places.is_sorted(), "{told}");
    assert_eq!(places[7], lines.len() - 1, "{told}");
    let (first, last) = (lines[places[5]], lines[places[7]]);
    assert!(first.contains(" votes)") || first.contains("no vote could be read"), "{told}");
    assert!(lines[places[5]..].iter().any(|line| line.contains("hint: \"")), "{told}");
    assert!(lines[places[6]].contains("trained in version "), "{told}");
    assert!(last.contains(" rejected") && last.contains("trained in version"), "{told}");
    assert!(!told.contains('\u{1b}'), "{told:?}");
    house.no_session_is_open().await;
}

#[test]
fn a_rated_reply_is_waited_for_however_late_the_journal_tells_of_the_rating() {
    let house = House::open();
    let lines = [QUESTION, "/good"];
    // What the journal tells first differs from one time to the next.
    for _ in 0..4 {
        let output = house.pipe(&lines, &["--wait", "300"]);
        let told = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}\n{told}", text(&output.stderr));
        let story = told.lines().find(|line| line.starts_with("  reply 1: ")).expect("its line");
        assert!(story.contains("good (as you said)") && story.contains("trained in version "), "{told}");
        assert!(told.contains("\n  session ended: 1 reply, 1 approved"), "{told}");
    }
    // Who does not wait is not told that nothing came.
    let told = text(&house.pipe(&lines, &[]).stdout);
    assert!(told.contains("\n  reply 1: ") && !told.contains("nothing followed it"), "{told}");
}

#[tokio::test]
async fn what_is_learnt_comes_up_above_the_line_that_is_typed() {
    let house = House::open();
    let mut chat = house.chat((100, 40));
    let before = chat.settings();
    chat.shows("the prompt", |text| text.ends_with("\n> ") || text.ends_with("\n>")).await;
    chat.type_in(&format!("{QUESTION}\r"));
    chat.shows("a reply", |text| text.contains("[reply 1, version 0]")).await;
    // What is typed while nothing is asked for yet is not lost.
    house.operate(&["pause", "judge"]);
    chat.type_in(&format!("{COMPLAINT}\rI am"));
    chat.shows("the reply and the prompt", |text| text.contains("[reply 2") && text.contains("> I am")).await;
    assert!(!chat.text().contains("learnt from"), "{}", chat.text());

    house.operate(&["resume", "judge"]);
    chat.shows("the verdict", |text| text.contains("learnt from your answer to reply 1: ")).await;
    chat.type_in(" still typing");
    chat.shows("the version", |text| text.contains("trained in version 1")).await;
    chat.shows("the whole line", |text| text.trim_end().ends_with("\n> I am still typing")).await;
    assert_eq!(at_cursor(&chat), ("> I am still typing".to_owned(), 19));

    // Narrow, lines break between words.
    chat.type_in("\u{3}");
    chat.shows("an empty line", |text| text.trim_end().ends_with("\n>")).await;
    chat.resize(40, 30);
    chat.type_in("/learnt\r");
    chat.shows("the story", |text| text.contains("\n  reply 2: waiting for what follows it")).await;
    chat.type_in("\u{4}");
    assert_eq!(chat.exit_code().await, 0);
    assert!(chat.text().contains("\n  session ended: 2 replies"), "{}", chat.text());
    assert_eq!(chat.settings(), before, "the terminal is given back");
    house.no_session_is_open().await;
}

#[tokio::test]
async fn a_chat_that_is_told_to_leave_ends_its_session_and_gives_the_terminal_back() {
    let house = House::open();
    for signal in ["TERM", "HUP"] {
        let mut chat = house.chat((80, 24));
        let before = chat.settings();
        chat.shows("the prompt", |text| text.trim_end().ends_with("\n>")).await;
        chat.type_in(&format!("{QUESTION}\rhalf a li"));
        chat.shows("the reply", |text| text.contains("[reply 1") && text.contains("> half a li")).await;
        chat.signal(signal);
        assert_eq!(chat.exit_code().await, 0, "{signal}: {}", chat.text());
        assert!(chat.text().contains("\n  session ended: 1 reply"), "{signal}: {}", chat.text());
        assert_eq!(chat.settings(), before, "{signal}");
        house.no_session_is_open().await;
    }
}

/// What a gateway that never ends a reply hears.
#[derive(Debug, PartialEq)]
enum Heard {
    /// It was asked, in this session.
    Asked(String),
    /// Its client left in the middle.
    Left,
    /// This session is over.
    Ended(String),
}

/// Its address, and what it hears.
fn endless_gateway(words: &'static str) -> (String, mpsc::Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/v1", listener.local_addr().expect("it has an address"));
    let (tell, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            std::thread::spawn(move || answer(&stream, words, &tell));
        }
    });
    (url, heard)
}

fn answer(mut stream: &TcpStream, words: &str, tell: &mpsc::Sender<Heard>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let session = headers.iter().find_map(|line| line.strip_prefix("x-session-id: ")).unwrap_or_default();
    let mut say = |kind: &str, body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
        stream.write_all((head + body).as_bytes()).expect("it is heard");
    };
    if request.starts_with("GET /v1/models ") {
        say("application/json", r#"{"data": [{"id": "tireless"}]}"#);
    } else if request.starts_with("POST /v1/chat/completions ") {
        tell.send(Heard::Asked(session.to_owned())).expect("the test listens");
        let chunk = serde_json::json!({"id": "r", "choices": [{"delta": {"content": words}}]});
        say("text/event-stream", &format!("data: {chunk}\n\n"));
        // Until its client closes the connection.
        let _ = stream.read_to_end(&mut Vec::new());
        tell.send(Heard::Left).expect("the test listens");
    } else {
        assert!(request.starts_with("POST /v1/sessions/end "), "{request}");
        say("application/json", "{}");
        tell.send(Heard::Ended(session.to_owned())).expect("the test listens");
    }
}

#[tokio::test]
async fn a_reply_is_cut_by_ctrl_c_and_a_gateway_elsewhere_is_told_the_end_too() {
    let (url, heard) = endless_gateway("tick \u{1b}[31mtock\u{7}");
    let nowhere = [("OPENCLAW_RUN", OsStr::new("/nowhere")), ("NO_COLOR", OsStr::new("1"))];
    let mut chat = Terminal::start(&binary(), &["chat", "--url", &url], &nowhere, (100, 24));
    chat.shows("that nothing can be shown", |text| text.contains("What is learnt cannot be shown")).await;
    chat.type_in("Count to ten.\r");
    // What stands for a control character is no character to this terminal.
    chat.shows("the reply, and nothing of it obeyed", |text| text.contains("\ntick [31mtock")).await;
    let Ok(Heard::Asked(session)) = heard.recv() else { panic!("it is asked first") };
    chat.type_in("\u{3}");
    chat.shows("that it was cut", |text| text.contains("\n  cut: ") && text.trim_end().ends_with("\n>"))
        .await;
    assert_eq!(heard.recv().expect("it is told"), Heard::Left);
    chat.type_in("/bad\r");
    chat.shows("why not", |text| text.contains("there is no reply to rate yet")).await;
    chat.type_in("/quit\r");
    assert_eq!(chat.exit_code().await, 0);
    assert_eq!(heard.recv().expect("it is told"), Heard::Ended(session));
}

#[test]
fn without_a_node_and_an_address_the_way_to_both_is_told() {
    let output = Command::new(binary()).arg("chat").env("OPENCLAW_RUN", "/nowhere").output();
    let output = output.expect("the binary can be run");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no node is running in /nowhere"), "{}", text(&output.stderr));
}
