//! What must hold between the keys of a topology. What compares two keys looks first whether the other one could be
//! read: a placeholder says nothing.

use std::{net::SocketAddr, ops::RangeInclusive};

use openclaw_actors::gateway::check_origins;

use super::{
    adapter::Adapting,
    agents, method, people,
    problems::{Problems, did_you_mean},
    sections::{Actors, Dtype, Engine, Gateway, Judge, Topology, Votes},
};

/// Adds what is impossible or contradictory.
pub fn check(topology: &Topology, problems: &mut Problems) {
    let mut checks = Checks { topology, problems };
    checks.run_and_nodes();
    checks.ports();
    checks.optimizer();
    checks.breaker();
    checks.journal();
    method::check(&topology.method, "method", checks.problems);
    let actors = &topology.actors;
    checks.gateway(&actors.gateway);
    checks.policy_and_sessions(actors);
    checks.judge(&actors.judge);
    checks.teacher(actors);
    checks.trainer(actors);
    checks.rollout(actors);
    agents::check(topology, problems);
    people::check(topology, problems);
}

struct Checks<'t> {
    topology: &'t Topology,
    problems: &'t mut Problems,
}

/// No count in a topology is sensible above this.
const MANY: usize = 1 << 30;
const A_WEEK_SECS: u64 = 7 * 24 * 3600;

impl Checks<'_> {
    fn number(&mut self, key: &str, value: f64, range: RangeInclusive<f64>) {
        if !range.contains(&value) {
            self.problems.add(key, out_of_range(value, &range));
        }
    }

    fn count(&mut self, key: &str, value: usize, range: RangeInclusive<usize>) {
        if !range.contains(&value) {
            self.problems.add(key, format!("{value} is not from {} to {}", range.start(), range.end()));
        }
    }

    fn secs(&mut self, key: &str, value: u64) {
        if !(1..=A_WEEK_SECS).contains(&value) {
            self.problems.add(key, format!("{value} is not from 1 to {A_WEEK_SECS}"));
        }
    }

    fn not_empty(&mut self, key: &str, text: &str) {
        if text.trim().is_empty() {
            self.problems.add(key, "is empty");
        }
    }

    fn model(&mut self, key: &str, name: &str) {
        let models = &self.topology.models;
        if !models.contains_key(name) && !self.problems.is_unread("models") {
            let hint = did_you_mean(name, models.keys());
            self.problems.add(key, format!("no model named \"{name}\" under [models]{hint}"));
        }
    }

    fn one_of_unread<const N: usize>(&self, keys: [&str; N]) -> bool {
        keys.iter().any(|key| self.problems.is_unread(key))
    }

    fn run_and_nodes(&mut self) {
        let topology = self.topology;
        self.not_empty("run.name", &topology.run.name);
        self.not_empty("run.dir", &topology.run.dir.to_string_lossy());
        if i64::try_from(topology.run.seed).is_err() {
            self.problems.add("run.seed", "is larger than a TOML number can be");
        }
        if topology.nodes.len() != 1 {
            let count = topology.nodes.len();
            self.problems.add("nodes", format!("this version runs one process, found {count}"));
        }
        for (name, node) in &topology.nodes {
            self.count(&format!("nodes.{name}.serve_threads"), node.serve_threads, 0..=1024);
            self.count(&format!("nodes.{name}.train_threads"), node.train_threads, 0..=1024);
            if let Some(admin) = node.admin.filter(|admin| !admin.ip().is_loopback()) {
                self.problems
                    .add(&format!("nodes.{name}.admin"), format!("{admin} is not a loopback address"));
            }
        }
        for (name, model) in &topology.models {
            self.not_empty(&format!("models.{name}.path"), &model.path.to_string_lossy());
            if model.mapped && model.dtype != Dtype::Bf16 {
                self.problems.add(&format!("models.{name}.mapped"), "needs dtype = \"bf16\"");
            }
            if let Adapting::Yes(adapter) = &model.adapter {
                adapter.check(&format!("models.{name}.adapter"), self.problems);
            }
        }
        if topology.models.is_empty() {
            self.problems.add("models", "no model is named");
        }
    }

    fn ports(&mut self) {
        let topology = self.topology;
        for (name, node) in &topology.nodes {
            let gateway = ("actors.gateway.listen".to_owned(), Some(topology.actors.gateway.listen));
            let metrics = (format!("nodes.{name}.metrics"), Some(node.metrics));
            let admin = (format!("nodes.{name}.admin"), node.admin);
            let places = [gateway, metrics, admin];
            for (i, (key, address)) in places.iter().enumerate() {
                let clash = places[..i].iter().find(|(_, other)| both_bind(*address, *other));
                if let (Some(address), Some((other, _))) = (address, clash) {
                    self.problems.add(key, format!("{address} is already taken by {other}"));
                }
            }
        }
    }

    fn optimizer(&mut self) {
        let optimizer = &self.topology.optimizer;
        self.number("optimizer.learning_rate", optimizer.learning_rate, 0.0..=1.0);
        for beta in optimizer.betas {
            if !(0.0..1.0).contains(&beta) {
                self.problems.add("optimizer.betas", format!("{beta} is not from 0 to below 1"));
            }
        }
        self.number("optimizer.weight_decay", optimizer.weight_decay, 0.0..=10.0);
        self.number("optimizer.grad_clip", optimizer.grad_clip, 1e-6..=1e6);
        self.number("optimizer.epsilon", optimizer.epsilon, 1e-16..=1e-2);
    }

    fn journal(&mut self) {
        let journal = &self.topology.journal;
        self.count("journal.keep_days", journal.keep_days, 0..=36_500);
        self.count("journal.max_mib", journal.max_mib, 16..=MANY);
        self.count("journal.max_backlog_turns", journal.max_backlog_turns, 1..=MANY);
        self.count("journal.stop_wait_secs", journal.stop_wait_secs as usize, 0..=3600);
    }

    fn breaker(&mut self) {
        let breaker = &self.topology.breaker;
        for (key, limit) in [
            ("breaker.max_grad_norm", breaker.max_grad_norm),
            ("breaker.max_kl", breaker.max_kl),
            ("breaker.max_drift", breaker.max_drift),
            ("breaker.max_entropy", breaker.max_entropy),
            ("breaker.max_canary_drop", breaker.max_canary_drop),
        ] {
            self.number(key, limit, 0.0..=f64::INFINITY);
        }
        self.number("breaker.max_degenerate", breaker.max_degenerate, 0.0..=1.0);
        for (i, prompt) in breaker.canary_prompts.iter().enumerate() {
            self.not_empty(&format!("breaker.canary_prompts[{i}]"), prompt);
        }
        self.count("breaker.canary_prompts", breaker.canary_prompts.len(), 0..=64);
        if breaker.canary_every_steps > 0 && breaker.canary_prompts.is_empty() {
            let message = "is empty: set breaker.canary_every_steps to 0 to do without";
            self.problems.add("breaker.canary_prompts", message);
        }
    }

    fn gateway(&mut self, gateway: &Gateway) {
        self.not_empty("actors.gateway.served_model", &gateway.served_model);
        for (i, alias) in gateway.aliases.iter().enumerate() {
            self.not_empty(&format!("actors.gateway.aliases[{i}]"), alias);
        }
        let without_key =
            gateway.api_key_env.is_none() && !self.problems.is_unread("actors.gateway.api_key_env");
        if without_key && !gateway.listen.ip().is_loopback() {
            let listen = gateway.listen;
            let message = format!("{listen} is open to others: name a key with actors.gateway.api_key_env");
            self.problems.add("actors.gateway.listen", message);
        }
        if let Err(problem) = check_origins(&gateway.allow_origins, gateway.api_key_env.is_some()) {
            self.problems.add("actors.gateway.allow_origins", problem);
        }
        self.count("actors.gateway.max_in_flight", gateway.max_in_flight, 1..=65536);
        self.count("actors.gateway.queue_depth", gateway.queue_depth, 0..=65536);
        self.secs("actors.gateway.queue_timeout_secs", gateway.queue_timeout_secs);
        self.count("actors.gateway.max_body_bytes", gateway.max_body_bytes, 1024..=MANY);
    }

    fn policy_and_sessions(&mut self, actors: &Actors) {
        let policy = &actors.policy;
        self.model("actors.policy.model", &policy.model);
        self.count("actors.policy.replicas", policy.replicas, 1..=256);
        self.count("actors.policy.max_batch_tokens", policy.max_batch_tokens, 1..=MANY);
        // A greedy policy explores nothing, and its log-probs say nothing.
        self.number("actors.policy.temperature", policy.temperature, 0.05..=2.0);
        self.count("actors.policy.kv_tokens", policy.kv_tokens, 64..=MANY);
        let most =
            if self.problems.is_unread("actors.policy.kv_tokens") { MANY } else { policy.kv_tokens.max(1) };
        self.count("actors.policy.max_new_tokens", policy.max_new_tokens, 1..=most);
        self.secs("actors.sessions.idle_timeout_secs", actors.sessions.idle_timeout_secs);
        self.count("actors.sessions.max_sessions", actors.sessions.max_sessions, 1..=MANY);
        if actors.sessions.settle_secs > 0 {
            self.secs("actors.sessions.settle_secs", actors.sessions.settle_secs);
        }
    }

    fn judge(&mut self, judge: &Judge) {
        match (&judge.model, &judge.engine) {
            (Some(model), None) => self.model("actors.judge.model", model),
            (None, Some(engine)) => self.engine("actors.judge.engine", engine),
            // One that cannot be read is no reason to ask for the other.
            (None, None) if self.problems.is_unread("actors.judge.engine") => {}
            (None, None) => self.problems.add("actors.judge.model", "missing: name a model, or an engine"),
            (Some(_), Some(_)) => {
                self.problems.add("actors.judge.engine", "stands beside a model: only one of them can judge");
            }
        }
        if judge.adapter.is_some() && judge.model.is_none() {
            self.problems.add("actors.judge.adapter", "needs a model of this node, not an engine");
        }
        if judge.images && judge.engine.is_none() {
            self.problems
                .add("actors.judge.images", "needs an engine that sees: models of this node read text alone");
        }
        self.count("actors.judge.replicas", judge.replicas, 1..=256);
        self.number("actors.judge.temperature", judge.temperature, 0.0..=2.0);
        self.number("actors.judge.score_margin", judge.score_margin, 0.0..=100.0);
        for (key, is_set) in [("remember_hints", judge.remember_hints), ("hint_check", judge.hint_check)] {
            if is_set && !self.topology.method.needs_hints() {
                self.problems.add(&format!("actors.judge.{key}"), "this method shows hints to nobody");
            }
        }
        match judge.votes {
            Votes::Sampled(votes) => {
                self.count("actors.judge.votes", votes, 1..=64);
                if votes > 1 && judge.temperature == 0.0 {
                    self.problems.add("actors.judge.temperature", "is 0: every vote would be the same");
                }
            }
            Votes::Scored if judge.engine.is_some() => {
                self.problems
                    .add("actors.judge.votes", "\"score\" needs a model of this node, not an engine");
            }
            Votes::Scored => {}
        }
        self.count("actors.judge.max_new_tokens", judge.max_new_tokens, 1..=MANY);
        self.secs("actors.judge.deadline_secs", judge.deadline_secs);
    }

    fn engine(&mut self, key: &str, engine: &Engine) {
        let rest = engine.url.strip_prefix("http://").or_else(|| engine.url.strip_prefix("https://"));
        let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
        match host {
            None | Some("") => {
                let message = format!("\"{}\" is not an http:// or https:// address", engine.url);
                self.problems.add(&format!("{key}.url"), message);
            }
            // The resolved copy and the logs show the address.
            Some(host) if host.contains('@') => {
                self.problems.add(&format!("{key}.url"), "holds a password: name the key with api_key_env");
            }
            Some(_) => {}
        }
        self.not_empty(&format!("{key}.model"), &engine.model);
    }

    fn teacher(&mut self, actors: &Actors) {
        let method = &self.topology.method;
        match &actors.teacher {
            Some(teacher) => {
                self.model("actors.teacher.model", &teacher.model);
                self.count("actors.teacher.replicas", teacher.replicas, 1..=256);
                if let Some(secs) = teacher.deadline_secs {
                    self.secs("actors.teacher.deadline_secs", secs);
                }
                match teacher.refresh_every {
                    Some(0) => {
                        let message = "is 0: leave it out to never refresh";
                        self.problems.add("actors.teacher.refresh_every", message);
                    }
                    Some(_) if teacher.adapter.is_some() => {
                        let message = "stands beside refresh_every: a teacher that takes the policy's weights has no others";
                        self.problems.add("actors.teacher.adapter", message);
                    }
                    Some(_) if self.one_of_unread(["actors.teacher.model", "actors.policy.model"]) => {}
                    Some(_) if teacher.model != actors.policy.model => {
                        let message =
                            "the teacher is another model than the policy: it cannot take its weights";
                        self.problems.add("actors.teacher.refresh_every", message);
                    }
                    _ => {}
                }
            }
            None if method.needs_hints() && !self.problems.is_unread("method.kind") => {
                let message = format!("missing: {} learns from a teacher", method::name(method.kind));
                self.problems.add("actors.teacher", message);
            }
            None => {}
        }
    }

    fn trainer(&mut self, actors: &Actors) {
        let trainer = &actors.optimizer;
        self.count("actors.optimizer.batch_samples", trainer.batch_samples, 1..=65536);
        self.secs("actors.optimizer.max_wait_secs", trainer.max_wait_secs);
        if trainer.checkpoint_every_steps == 0 {
            self.problems.add("actors.optimizer.checkpoint_every_steps", "is 0: nothing would be kept");
        }
        self.count("actors.optimizer.keep_versions", trainer.keep_versions, 1..=65536);
        self.count("actors.optimizer.micro_batch_tokens", trainer.micro_batch_tokens, 64..=MANY);
    }

    fn rollout(&mut self, actors: &Actors) {
        for (i, rollout) in actors.rollout.iter().enumerate() {
            let key = format!("actors.rollout[{i}]");
            agents::check_users(self.topology, &rollout.environment, &key, self.problems);
            self.count(&format!("{key}.workers"), rollout.workers, 1..=1024);
            self.count(&format!("{key}.max_sessions"), rollout.max_sessions, 1..=MANY);
        }
    }
}

fn out_of_range(value: f64, range: &RangeInclusive<f64>) -> String {
    format!("{value} is not from {} to {}", range.start(), range.end())
}

/// Whether two listeners want the same port. Port 0 is any free one.
fn both_bind(a: Option<SocketAddr>, b: Option<SocketAddr>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}
