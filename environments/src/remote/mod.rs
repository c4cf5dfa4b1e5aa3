//! An environment that another machine serves (`openclaw-rl env-server`). Its tasks have the numbers that they have there,
//! its worlds are leases: whatever is asked of one is asked again, by the same name, until it was answered, and is done once.

mod line;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Url, header::HeaderValue};
use serde::Deserialize;

use self::{line::Line, world::Leased};
use crate::{
    agent::{Agent, ToolAgent},
    registry::{self, Kind, settings},
    wire::{self, Listed},
    world::{Environment, Spec, Split, Task, User, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "remote",
    about: "an environment that another machine serves",
    make: |table| Ok(Arc::new(Remote::new(settings(table)?)?)),
};

/// What a server allows a world above its own limits.
const MARGIN: Duration = Duration::from_secs(30);
/// For questions that have an answer without the server, too.
const LOOK: Duration = Duration::from_secs(2);
/// Of tasks that are kept, the latest.
const TASKS: usize = 512;

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the server listens: `http://HOST:PORT`.
    pub url: String,
    /// The variable that holds the server's token.
    #[serde(default = "default_token_env")]
    pub token_env: String,
    /// Its name there; not needed where the server has one alone.
    #[serde(default)]
    pub env: Option<String>,
    /// How long a server may be away, or full, before a world counts as broken, in seconds, 1 to 3600.
    #[serde(default = "default_wait_secs")]
    pub wait_secs: u64,
}

fn default_token_env() -> String {
    "OPENCLAW_ENV_TOKEN".to_owned()
}

fn default_wait_secs() -> u64 {
    60
}

/// The environment.
struct Remote {
    shared: Arc<Shared>,
    /// Asked for first where its limits are unknown; that is told.
    unknown: Spec,
    spec: OnceLock<Spec>,
}

/// What its worlds share.
struct Shared {
    settings: Settings,
    url: Url,
    /// One of its users, whose tasks alone these are.
    user: Option<Arc<str>>,
    line: Arc<OnceLock<Arc<Line>>>,
    listed: Arc<OnceLock<Listed>>,
    tasks: Mutex<Kept>,
}

/// The latest tasks that were asked for.
#[derive(Default)]
struct Kept {
    tasks: BTreeMap<(Split, u64), Arc<Task>>,
    order: VecDeque<(Split, u64)>,
}

impl Remote {
    fn new(settings: Settings) -> Result<Self, WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        let url = match Url::parse(&settings.url) {
            Ok(url) if !["http", "https"].contains(&url.scheme()) || !url.has_host() => {
                return refuse(format!("url: \"{}\" is not http://HOST:PORT", settings.url));
            }
            Ok(url) => url,
            Err(error) => return refuse(format!("url: {error}")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("url: a token comes by token_env, and not in an address".to_owned());
        }
        if settings.token_env.is_empty() {
            return refuse("token_env: is empty".to_owned());
        }
        if !(1..=3600).contains(&settings.wait_secs) {
            return refuse(format!("wait_secs: {} is not from 1 to 3600", settings.wait_secs));
        }
        let (line, listed) = Default::default();
        Ok(Self::of(Shared { settings, url, user: None, line, listed, tasks: Mutex::default() }))
    }

    fn of(shared: Shared) -> Self {
        let wait = Duration::from_secs(shared.settings.wait_secs);
        let unknown = Spec { kind: KIND.name, steps: 1, patience: MARGIN + wait };
        Self { shared: Arc::new(shared), unknown, spec: OnceLock::new() }
    }
}

impl Shared {
    /// What speaks to the server.
    fn line(&self) -> Result<Arc<Line>, WorldError> {
        if let Some(line) = self.line.get() {
            return Ok(line.clone());
        }
        let variable = &self.settings.token_env;
        let token = env::var(variable).ok().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| WorldError::Refused(format!("token_env: {variable} is not set")))?;
        let mut token = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| WorldError::Refused(format!("token_env: {variable} holds no token")))?;
        token.set_sensitive(true);
        let made = Line::start(self.url.clone(), token, Duration::from_secs(self.settings.wait_secs))?;
        Ok(self.line.get_or_init(|| made).clone())
    }

    /// What the server says of it, once it is there.
    fn listed(&self) -> Result<&Listed, WorldError> {
        self.listed_within(Duration::from_secs(self.settings.wait_secs))
    }

    fn listed_within(&self, time: Duration) -> Result<&Listed, WorldError> {
        if let Some(listed) = self.listed.get() {
            return Ok(listed);
        }
        let line = self.line()?;
        let asks = line.clone();
        let told =
            line.io.wait_for(async move { asks.get("/environments", &[], Instant::now() + time).await })?;
        let listed = wire::read_listed(told).map_err(|problem| self.odd("/environments", &problem))?;
        let names: Vec<&str> = listed.iter().map(|listed| listed.name.as_str()).collect();
        let mine = match (&self.settings.env, listed.as_slice()) {
            (None, [one]) => Some(one),
            (None, _) => {
                let names = names.join(", ");
                return Err(WorldError::Refused(format!("env: {} has several: {names}", self.url)));
            }
            (Some(name), listed) => listed.iter().find(|listed| listed.name == *name),
        };
        let mine = mine.cloned().ok_or_else(|| {
            let name = self.settings.env.as_deref().unwrap_or_default();
            WorldError::Refused(format!("env: {} has no \"{name}\", but {}", self.url, names.join(", ")))
        })?;
        Ok(self.listed.get_or_init(|| mine))
    }

    /// An answer that nobody can use: another edition of the server, perhaps.
    fn odd(&self, route: &str, problem: &str) -> WorldError {
        WorldError::Broken(format!("{}: {route}: {problem}", self.url))
    }

    fn task(&self, split: Split, number: u64) -> Result<Arc<Task>, WorldError> {
        let kept = || self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = kept().tasks.get(&(split, number)) {
            return Ok(task.clone());
        }
        let mut query = vec![
            ("env", self.listed()?.name.clone()),
            ("split", split.name().to_owned()),
            ("number", number.to_string()),
        ];
        query.extend(self.user.iter().map(|user| ("user", user.to_string())));
        let line = self.line()?;
        let asks = line.clone();
        let mut told =
            line.io.wait_for(async move { asks.get("/task", &query, Instant::now() + asks.wait).await })?;
        let task = wire::read_task(told["task"].take()).map_err(|problem| self.odd("/task", &problem))?;
        if (task.split, task.number) != (split, number) {
            return Err(self.odd("/task", &format!("{} is another one", task.id)));
        }
        let task = Arc::new(task);
        let mut kept = kept();
        if kept.tasks.insert((split, number), task.clone()).is_none() {
            kept.order.push_back((split, number));
        }
        if kept.order.len() > TASKS {
            let oldest = kept.order.pop_front().expect("it has more than none");
            kept.tasks.remove(&oldest);
        }
        Ok(task)
    }

    /// The most that anything takes that is asked of a world.
    fn patience(&self) -> Duration {
        let own = self.listed.get().map_or(0.0, |listed| listed.patience_secs);
        let own = Duration::try_from_secs_f64(own).unwrap_or_default();
        own + MARGIN + Duration::from_secs(self.settings.wait_secs)
    }
}

impl Environment for Remote {
    fn spec(&self) -> &Spec {
        if let Some(spec) = self.spec.get() {
            return spec;
        }
        match self.shared.listed_within(LOOK) {
            Ok(listed) => {
                let patience = self.shared.patience();
                self.spec.get_or_init(|| Spec { kind: KIND.name, steps: listed.steps, patience })
            }
            Err(error) => {
                tracing::warn!(%error, "the limits of a remote environment are unknown");
                &self.unknown
            }
        }
    }

    // Where nobody answers nothing is said to be missing: `ready` tells of that.
    fn tasks(&self, split: Split) -> Option<u64> {
        let listed = self.shared.listed_within(LOOK).ok()?;
        let user = self.shared.user.as_deref();
        let of_user = user.and_then(|name| listed.users.iter().find(|user| user.name == name));
        of_user.map_or(listed.tasks, |user| user.tasks).of(split)
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        self.shared.task(split, number).map(|task| (*task).clone())
    }

    // One that this program does not know is refused by `ready`.
    fn agent(&self) -> Box<dyn Agent> {
        let listed = self.shared.listed().ok();
        let named = listed.and_then(|listed| registry::agent(&listed.agent));
        named.unwrap_or_else(|| Box::new(ToolAgent::default()))
    }

    fn ready(&self) -> Result<(), WorldError> {
        let listed = self.shared.listed()?;
        match registry::agent(&listed.agent) {
            Some(_) => Ok(()),
            None => Err(WorldError::Refused(format!(
                "{} wants agent = \"{}\", which this program does not know",
                self.shared.settings.url, listed.agent
            ))),
        }
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        self.shared.listed()?;
        Ok(Box::new(Leased::new(self.shared.line()?, self.shared.clone())))
    }

    fn users(&self) -> Vec<User> {
        if self.shared.user.is_some() {
            return Vec::new();
        }
        let users = self.shared.listed_within(LOOK).map(|listed| listed.users.clone()).unwrap_or_default();
        let user = |name: String| {
            let name: Arc<str> = name.into();
            let shared = Shared {
                settings: self.shared.settings.clone(),
                url: self.shared.url.clone(),
                user: Some(name.clone()),
                line: self.shared.line.clone(),
                listed: self.shared.listed.clone(),
                tasks: Mutex::default(),
            };
            User { name, environment: Arc::new(Self::of(shared)) }
        };
        users.into_iter().map(|listed| user(listed.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<Remote, WorldError> {
        Remote::new(settings(text.parse().expect("a table"))?)
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        for (text, says) in [
            ("", "missing field `url`"),
            ("url = 'ftp://a'", "url: \"ftp://a\" is not http://HOST:PORT"),
            ("url = 'a b'", "url: "),
            ("url = 'http://me:secret@a'", "url: a token comes by token_env"),
            ("url = 'http://a'\ntoken_env = ''", "token_env: is empty"),
            ("url = 'http://a'\nwait_secs = 0", "wait_secs: 0 is not from 1 to 3600"),
            ("url = 'http://a'\nname = 'b'", "name: unknown field `name`"),
        ] {
            let Err(error) = made(text) else { panic!("{text} is made") };
            assert!(error.to_string().starts_with(says), "{text}: {error}");
        }
    }

    #[test]
    fn nobody_is_asked_before_there_is_a_token() {
        let made =
            made("url = 'http://127.0.0.1:9'\ntoken_env = 'OPENCLAW_NO_SUCH_TOKEN'").expect("it is made");
        let error = made.ready().expect_err("it is refused");
        assert_eq!(error, WorldError::Refused("token_env: OPENCLAW_NO_SUCH_TOKEN is not set".into()));
        assert_eq!((made.tasks(Split::Train), made.spec().kind), (None, "remote"));
        assert_eq!(made.task(Split::Train, 0), Err(error));
    }
}
