//! Talks to a browser by its DevTools protocol over two pipes: messages of JSON, each ended by a zero byte. Nothing here
//! waits longer than it is told to.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use openclaw_sandbox::ProgramPipes;
use serde_json::{Value, json};

use crate::{stop::Stop, world::WorldError};

/// The longest message of a browser: a screenshot of the largest screen is shorter.
const MESSAGE_BYTES: usize = 128 << 20;
/// Of a browser's errors, so much is kept.
const ERROR_BYTES: usize = 4096;

/// A browser, as it is talked to. It is gone once its pipes are.
pub(super) struct Client {
    outbox: Sender<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the last call.
    number: u64,
    /// Who waits for an answer, by the number of the call.
    callers: HashMap<u64, Sender<Message>>,
    /// Who is told what happens, by the session of a page.
    pages: HashMap<String, Sender<Message>>,
    /// What it has said last among its errors.
    errors: String,
    gone: bool,
}

/// For whoever has called, or has a page.
#[derive(Debug)]
pub(super) enum Message {
    Answer {
        number: u64,
        answer: Result<Value, String>,
    },
    Event {
        method: String,
        params: Value,
    },
    Gone,
    /// Look whether you are to stop.
    Wake,
}

/// A call that came to nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// The browser says why.
    Said(String),
    /// There is no answer.
    World(WorldError),
}

impl From<CallError> for WorldError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Said(why) => Self::Broken(format!("the browser refuses: {why}")),
            CallError::World(error) => error,
        }
    }
}

impl From<WorldError> for CallError {
    fn from(error: WorldError) -> Self {
        Self::World(error)
    }
}

impl Client {
    /// Over these pipes. Its threads end with them.
    pub(super) fn new(pipes: ProgramPipes) -> io::Result<Arc<Self>> {
        let ProgramPipes { mut stdin, stdout, mut stderr } = pipes;
        let (outbox, waiting) = mpsc::channel::<Vec<u8>>();
        let client = Arc::new(Self { outbox, state: Mutex::default() });
        // A browser that does not read makes this thread wait, and nobody else.
        thread::Builder::new().name("browser-in".into()).spawn(move || {
            for message in waiting {
                if stdin.write_all(&message).is_err() {
                    return;
                }
            }
        })?;
        let reader = Arc::downgrade(&client);
        thread::Builder::new().name("browser-out".into()).spawn(move || {
            let each = |bytes: &[u8]| match reader.upgrade() {
                Some(client) => {
                    client.take(bytes);
                    true
                }
                None => false,
            };
            read(stdout, each);
            if let Some(client) = reader.upgrade() {
                client.lost();
            }
        })?;
        let listener = Arc::downgrade(&client);
        thread::Builder::new().name("browser-err".into()).spawn(move || {
            let mut some = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut some) {
                let Some(client) = listener.upgrade() else { return };
                client.errs(&String::from_utf8_lossy(&some[..length]));
            }
        })?;
        Ok(client)
    }

    /// Whether it has ended, or does not make itself understood.
    pub(super) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// What it has written as errors, the end of it.
    pub(super) fn errors(&self) -> String {
        self.lock().errors.trim().to_owned()
    }

    /// What happens on a page goes to `sender` from now on.
    fn listen(&self, session: &str, sender: Sender<Message>) {
        self.lock().pages.insert(session.to_owned(), sender);
    }

    fn forget(&self, session: &str) {
        self.lock().pages.remove(session);
    }

    /// Sends a call; its answer goes to `caller`. Its number.
    fn send(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
        caller: &Sender<Message>,
    ) -> Option<u64> {
        let mut state = self.lock();
        if state.gone {
            return None;
        }
        state.number += 1;
        let number = state.number;
        let mut message = json!({"id": number, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        state.callers.insert(number, caller.clone());
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        // Where the thread that writes has ended, the one that reads will say so.
        let _ = self.outbox.send(bytes);
        Some(number)
    }

    fn take(&self, bytes: &[u8]) {
        let Ok(mut message) = serde_json::from_slice::<Value>(bytes) else {
            tracing::warn!(length = bytes.len(), "a browser says what is no json");
            return;
        };
        let mut state = self.lock();
        if let Some(number) = message["id"].as_u64() {
            let answer = match message.get_mut("error") {
                Some(error) => Err(error["message"].as_str().unwrap_or("it does not say why").to_owned()),
                None => Ok(message["result"].take()),
            };
            if let Some(caller) = state.callers.remove(&number) {
                // Who does not wait any more has no need of it.
                let _ = caller.send(Message::Answer { number, answer });
            }
            return;
        }
        let session = message["sessionId"].as_str().unwrap_or_default();
        if let Some(page) = state.pages.get(session) {
            let method = message["method"].as_str().unwrap_or_default().to_owned();
            let _ = page.send(Message::Event { method, params: message["params"].take() });
        }
    }

    fn errs(&self, text: &str) {
        let mut state = self.lock();
        state.errors.push_str(text);
        let over = state.errors.len().saturating_sub(ERROR_BYTES);
        let from = (over..).find(|at| state.errors.is_char_boundary(*at)).unwrap_or(0);
        state.errors.drain(..from);
    }

    /// From now on nobody waits.
    pub(super) fn lost(&self) {
        let mut state = self.lock();
        state.gone = true;
        let callers = std::mem::take(&mut state.callers);
        for waiting in callers.values().chain(state.pages.values()) {
            let _ = waiting.send(Message::Gone);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands over each message until the end, or until one is not wanted.
fn read(mut stdout: File, mut each: impl FnMut(&[u8]) -> bool) {
    let mut some = vec![0; 64 << 10];
    let mut held: Vec<u8> = Vec::new();
    loop {
        let length = match stdout.read(&mut some) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut rest = &some[..length];
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            held.extend_from_slice(&rest[..end]);
            if !each(&held) {
                return;
            }
            held.clear();
            rest = &rest[end + 1..];
        }
        held.extend_from_slice(rest);
        if held.len() > MESSAGE_BYTES {
            tracing::warn!("a browser says too much at once");
            return;
        }
    }
}

/// One who calls: the browser itself, or a page of it once it has a session.
pub(super) struct Line {
    client: Arc<Client>,
    stop: Arc<Stop>,
    session: Option<String>,
    sender: Sender<Message>,
    inbox: Receiver<Message>,
    /// What has happened and was not looked at.
    events: Vec<(String, Value)>,
    /// When whoever waits has waited enough.
    deadline: Instant,
}

impl Line {
    /// To the browser itself. `sender` belongs to `inbox`: whoever else has it may send [`Message::Wake`].
    pub(super) fn new(client: Arc<Client>, stop: Arc<Stop>, deadline: Instant) -> Self {
        let (sender, inbox) = mpsc::channel();
        Self { client, stop, session: None, sender, inbox, events: Vec::new(), deadline }
    }

    /// From now on to a page.
    pub(super) fn attach(&mut self, session: String) {
        self.client.listen(&session, self.sender.clone());
        self.session = Some(session);
    }

    /// For whoever interrupts.
    pub(super) fn waker(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// Until then everything must have been answered.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the browser has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    /// Calls, and waits for the answer.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Result<Value, CallError> {
        let number = self.send(method, params)?;
        self.answer(number, method)
    }

    /// Of the browser itself, whatever this is a line to.
    pub(super) fn call_browser(&mut self, method: &str, params: Value) -> Result<Value, CallError> {
        let sent = self.client.send(None, method, params, &self.sender);
        let number = sent.ok_or_else(|| self.gone())?;
        self.answer(number, method)
    }

    /// Calls without waiting.
    pub(super) fn send(&mut self, method: &str, params: Value) -> Result<u64, WorldError> {
        let sent = self.client.send(self.session.as_deref(), method, params, &self.sender);
        sent.ok_or_else(|| self.gone())
    }

    /// Waits for the answer to a call; answers to others are passed over, so the oldest is asked for first.
    pub(super) fn answer(&mut self, number: u64, method: &str) -> Result<Value, CallError> {
        loop {
            if let Some(Message::Answer { number: of, answer }) = self.next(self.deadline)? {
                if of == number {
                    return answer.map_err(|why| CallError::Said(format!("{method}: {why}")));
                }
            } else if Instant::now() >= self.deadline {
                let why = format!("the browser has not answered {method} in time");
                return Err(WorldError::Broken(why).into());
            }
        }
    }

    /// Lets things happen for a while.
    pub(super) fn wait(&mut self, time: Duration) -> Result<(), WorldError> {
        let until = (Instant::now() + time).min(self.deadline);
        while Instant::now() < until {
            self.next(until)?;
        }
        Ok(())
    }

    /// What has happened since this was asked last.
    pub(super) fn events(&mut self) -> Result<Vec<(String, Value)>, WorldError> {
        // A moment that has passed: what is there already is taken, and nothing is waited for.
        while self.next(Instant::now())?.is_some() {}
        Ok(std::mem::take(&mut self.events))
    }

    /// The next message, events put aside; none at `until`.
    fn next(&mut self, until: Instant) -> Result<Option<Message>, WorldError> {
        loop {
            if self.stop.is_wanted() {
                return Err(WorldError::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Message::Event { method, params }) => self.happened(method, params)?,
                Ok(Message::Gone) => return Err(self.gone()),
                Ok(Message::Wake) => {}
                Ok(answer) => return Ok(Some(answer)),
                Err(RecvTimeoutError::Timeout) if self.client.is_gone() => return Err(self.gone()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    fn happened(&mut self, method: String, params: Value) -> Result<(), WorldError> {
        match method.as_str() {
            "Inspector.targetCrashed" => return Err(WorldError::Broken("the page has crashed".to_owned())),
            // The page stands still until it is answered, and so would every call.
            "Page.javascriptDialogOpening" => {
                self.send("Page.handleJavaScriptDialog", json!({"accept": true}))?;
            }
            _ => {}
        }
        // More than this nobody will look at.
        if self.events.len() < 1000 {
            self.events.push((method, params));
        }
        Ok(())
    }

    fn gone(&self) -> WorldError {
        WorldError::Broken("the browser has ended".to_owned())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.client.forget(session);
        }
    }
}
