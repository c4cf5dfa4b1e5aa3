//! The terminal: keys, looks and answers come in, pictures and orders go out. None of them waits for another.

use std::{io, panic, path::Path, sync::Arc, thread};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior},
};

use super::{
    Lookout, PERIOD, chain, colours, connect,
    draw::draw,
    state::{Action, State},
};
use crate::admin::{AdminClient, Command, NodeStatus};

/// The terminal while it shows the view; as it was before, once this is dropped.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        // From here on a panic gives the terminal back before it says what it is about.
        Ok(Self(ratatui::try_init().inspect_err(|_| ratatui::restore())?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has given it back already. Once more would put what follows over its message.
        if thread::panicking() {
            return;
        }
        // A terminal that is gone needs nothing.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

type Look = Result<NodeStatus, String>;

/// Shows the node until a key or a signal ends it.
pub async fn run(client: AdminClient) -> anyhow::Result<()> {
    let run_dir = client.run_dir().to_owned();
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let mut screen = Screen::open()?;
    let size = screen.0.size()?;
    let mut state = State::new(colours(), (size.width, size.height));
    let began = Instant::now();
    let mut keyboard = keyboard();
    let soon = Arc::new(Notify::new());
    let (lookout, mut looks) = mpsc::channel(1);
    let mut looking = tokio::spawn(look(Lookout::new(client), lookout, soon.clone()));
    let mut orders: JoinSet<Result<String, String>> = JoinSet::new();
    let mut clock = tokio::time::interval(PERIOD);
    loop {
        state.on_time(began.elapsed());
        screen.0.draw(|frame| draw(frame, &state))?;
        let action = tokio::select! {
            event = keyboard.recv() => match event {
                Some(Ok(Event::Key(key))) => state.on_key(key),
                Some(Ok(Event::Resize(columns, rows))) => {
                    state.size = (columns, rows);
                    None
                }
                Some(Ok(_)) => None,
                Some(Err(error)) => return Err(error.into()),
                // Nobody is at the terminal any more.
                None => Some(Action::Quit),
            },
            Some(look) = looks.recv() => {
                state.on_look(look);
                None
            }
            Some(answer) = orders.join_next() => {
                state.on_answer(answer.unwrap_or_else(pass_on));
                soon.notify_one();
                None
            }
            ended = &mut looking => ended.unwrap_or_else(pass_on),
            _ = interrupt.recv() => Some(Action::Quit),
            _ = terminate.recv() => Some(Action::Quit),
            _ = hangup.recv() => Some(Action::Quit),
            _ = clock.tick() => None,
        };
        match action {
            Some(Action::Quit) => return Ok(()),
            Some(Action::Operate(command)) => {
                let dir = run_dir.clone();
                orders.spawn(async move { order(&dir, command).await });
            }
            None => {}
        }
    }
}

/// Nothing but a panic ends a task early; its message is told already.
fn pass_on<T>(ended: JoinError) -> T {
    panic::resume_unwind(ended.into_panic())
}

/// Looks every second, and whenever there is a reason to.
async fn look(mut lookout: Lookout, tell: mpsc::Sender<Look>, soon: Arc<Notify>) -> Option<Action> {
    let mut due = tokio::time::interval(PERIOD);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = soon.notified() => {}
        }
        if tell.send(lookout.look().await).await.is_err() {
            return None;
        }
    }
}

async fn order(run_dir: &Path, command: Command) -> Result<String, String> {
    let client = connect(run_dir).await.map_err(|error| chain(&error))?;
    client.operate(command).await.map(|done| done.message).map_err(|error| chain(&error))
}

/// Reads the keyboard on a thread of its own: there is no other way that neither waits nor looks again and again.
fn keyboard() -> mpsc::Receiver<io::Result<Event>> {
    let (tell, events) = mpsc::channel(16);
    thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if tell.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    events
}
