//! `[people]`: everyone who talks has a model of their own.

use axum::http::HeaderName;
use toml::Value;

use super::{
    problems::Problems,
    read::{FromToml, section},
    sections::Topology,
};

section! {
    /// `[people]`: each person has an adapter (or where all of a model is trained, a model), a journal, versions and a rollback
    /// of their own, on one base. Without it all who talk teach one model.
    pub struct People {
        /// How a request says whose it is. `"user"`: by `safety_identifier`, `user` or `metadata.user_id` of its body, else by the
        /// header `X-User-Id`. `"header:NAME"`: by this header alone, as a proxy that knows its users sets it. Whoever is not
        /// named is one person.
        adapter_by: AdapterBy,
        /// Whose models are in memory at once; the idlest makes room for the next.
        awake: usize = 4,
        /// Who has been silent so long goes to the disk, and comes back with the next request.
        idle_secs: u64 = 1800,
        /// People in all; a request of a further one is refused.
        most: usize = 100,
    }
}

/// What names the person of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterBy {
    /// The body, else a header.
    User,
    /// A header.
    Header(HeaderName),
}

impl FromToml for AdapterBy {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let word = value.as_str();
        if word == Some("user") {
            return Self::User;
        }
        let header = word.and_then(|word| word.strip_prefix("header:")).map(str::parse);
        match header {
            Some(Ok(header)) => Self::Header(header),
            Some(Err(_)) => {
                problems.add(key, "names no header that HTTP can carry");
                Self::placeholder()
            }
            None => {
                problems.add(key, "expected \"user\" or \"header:NAME\"");
                Self::placeholder()
            }
        }
    }

    fn placeholder() -> Self {
        Self::User
    }
}

impl serde::Serialize for AdapterBy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::User => serializer.serialize_str("user"),
            Self::Header(name) => serializer.serialize_str(&format!("header:{name}")),
        }
    }
}

/// Adds what is wrong with `[people]`.
pub fn check(topology: &Topology, problems: &mut Problems) {
    let Some(people) = &topology.people else { return };
    for (key, value, most) in [("people.awake", people.awake, 1000), ("people.most", people.most, 100_000)] {
        if !(1..=most).contains(&value) {
            problems.add(key, format!("{value} is not from 1 to {most}"));
        }
    }
    if !(10..=7 * 24 * 3600).contains(&people.idle_secs) {
        problems.add("people.idle_secs", format!("{} is not from 10 to 604800", people.idle_secs));
    }
    for (key, has_workers) in
        [("rollout", !topology.actors.rollout.is_empty()), ("agent", !topology.actors.agent.is_empty())]
    {
        if has_workers {
            problems.add(&format!("actors.{key}"), "not beside [people]: whom would it teach?");
        }
    }
}

impl Topology {
    /// The topology of one person's node, which is found by its folder alone.
    pub fn of_person(&self, name: &str, dir: std::path::PathBuf) -> Self {
        let mut own = self.clone();
        own.people = None;
        own.run.name = format!("{}/{name}", self.run.name);
        own.run.dir = dir;
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        own.actors.gateway.listen = any;
        // The door has looked already, and what comes from it is no page's.
        own.actors.gateway.allow_origins.clear();
        for model in own.models.values_mut() {
            model.mapped = model.is_shared(true);
        }
        for node in own.nodes.values_mut() {
            node.metrics = any;
            node.admin = node.admin.map(|_| any);
        }
        own
    }
}
