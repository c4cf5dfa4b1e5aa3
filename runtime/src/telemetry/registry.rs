//! Every metric of the process: its kind and what it counts. A metric in the code that is not described here
//! fails a test.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it counts.
    pub help: &'static str,
}

/// From a token of a small model to a step of a large one.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 120.0, 600.0,
];
const RATIOS: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Below zero the teacher finds a token less likely than the student does.
const NATS: &[f64] = &[-8.0, -4.0, -2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0];
const VERSIONS: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0];
const STEPS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), help }
}

/// Every metric, by name.
pub const METRICS: &[Metric] = &[
    counter(
        "openclaw_agent_abandoned_total",
        "Episodes of the node's own agents that have no outcome, by environment and reason.",
    ),
    gauge(
        "openclaw_agent_episodes_under_way",
        "Episodes of the node's own agents, a world each, being played.",
    ),
    counter(
        "openclaw_agent_images_dropped_total",
        "Images of screens that were not kept or made room for others, by reason.",
    ),
    counter(
        "openclaw_agent_outcomes_total",
        "Episodes of the node's own agents that came out, by environment, split and whether the task was done.",
    ),
    histogram(
        "openclaw_agent_step_seconds",
        SECONDS,
        "Time of a step of an agent, by environment and part: the policy's or the world's.",
    ),
    counter(
        "openclaw_agent_step_verdicts_total",
        "Steps of episodes that were trained on, by what was said of the step and by how its episode came out.",
    ),
    histogram("openclaw_agent_steps", STEPS, "Steps of an episode that came out, by environment."),
    gauge("openclaw_build_info", "1, by version of the program."),
    counter("openclaw_dispatcher_turns_total", "Turns handed from the journal to a stage, by inbox."),
    counter("openclaw_engine_cached_tokens_total", "Prompt tokens that the prefix cache knew."),
    counter("openclaw_engine_cancelled_total", "Generations whose receiver went away."),
    counter("openclaw_engine_ended_total", "Engine threads that ended, by how."),
    counter("openclaw_engine_generated_tokens_total", "Tokens drawn."),
    gauge(
        "openclaw_engine_kv_blocks",
        "Blocks of the key-value pool, by use: running, kept for a common beginning, free.",
    ),
    histogram("openclaw_engine_load_seconds", SECONDS, "Time to load a version beside the one that serves."),
    gauge("openclaw_engine_policy_version", "Version of the weights an engine serves."),
    counter(
        "openclaw_engine_preemptions_total",
        "Generations that ran out of blocks and were computed again.",
    ),
    counter("openclaw_engine_prompt_tokens_total", "Prompt tokens of requests that have run."),
    counter("openclaw_engine_refused_total", "Requests an engine could not take, by reason."),
    histogram("openclaw_engine_score_seconds", SECONDS, "Time to score one request."),
    counter("openclaw_engine_scored_tokens_total", "Tokens scored."),
    gauge("openclaw_engine_sequences", "Generations under way."),
    histogram("openclaw_engine_step_seconds", SECONDS, "Time of one forward pass of the batch."),
    counter(
        "openclaw_env_server_denied_total",
        "Requests of an environment server that were not taken, by reason.",
    ),
    counter("openclaw_env_server_faults_total", "Requests that a served world did not do, by reason."),
    counter(
        "openclaw_env_server_images_dropped_total",
        "Images of served worlds that nobody can fetch any more, though their lease lives.",
    ),
    gauge("openclaw_env_server_leases", "Leases of an environment server, by state."),
    counter("openclaw_env_server_leases_total", "Leases of an environment server that ended, by how."),
    counter("openclaw_env_server_repeated_total", "Requests that came again, and were not done again."),
    counter("openclaw_env_server_steps_total", "Steps of served worlds, by environment."),
    counter(
        "openclaw_episodes_resumed_total",
        "Episodes that were played up to where their worker had ended, and went on.",
    ),
    counter("openclaw_episodes_total", "Episodes of agents, by what became of them."),
    counter("openclaw_gateway_completion_tokens_total", "Tokens of responses sent to clients."),
    counter("openclaw_gateway_feedback_total", "Ratings and remarks of users, by what became of them."),
    counter(
        "openclaw_gateway_generations_repeated_total",
        "Replies taken up again after their engine ended, by how far they were.",
    ),
    gauge("openclaw_gateway_in_flight_requests", "Requests being answered."),
    histogram("openclaw_gateway_inter_token_seconds", SECONDS, "Time between two tokens of a reply."),
    counter(
        "openclaw_gateway_parts_not_shown_total",
        "Parts of messages that are no text, and that the model was shown a placeholder for, by kind.",
    ),
    counter("openclaw_gateway_prompt_tokens_total", "Tokens of prompts received."),
    histogram("openclaw_gateway_queue_wait_seconds", SECONDS, "Time a request waited for a place."),
    gauge("openclaw_gateway_queued_requests", "Requests waiting for a place."),
    counter("openclaw_gateway_rejected_requests_total", "Requests answered with an error, by reason."),
    counter("openclaw_gateway_replies_total", "Replies that came to an end, by OpenAI's word for why."),
    histogram("openclaw_gateway_reply_seconds", SECONDS, "Time from a request to the end of its reply."),
    counter("openclaw_gateway_requests_total", "Requests answered, by route and status code."),
    histogram(
        "openclaw_gateway_time_to_first_token_seconds",
        SECONDS,
        "Time from a request to its first token.",
    ),
    counter(
        "openclaw_gateway_tools_skipped_total",
        "Tools of a kind that a provider runs itself, which the model is not shown.",
    ),
    counter("openclaw_gateway_turns_dropped_total", "Turns that are not trained on, by reason."),
    counter("openclaw_gateway_turns_total", "Turns answered, by kind."),
    counter("openclaw_gateway_unrecorded_turns_total", "Turns that could not be handed to the sessions."),
    gauge(
        "openclaw_gpu_memory_bytes",
        "Memory of the GPU: in buffers, kept for later ones, and the rest; 0 on a CPU.",
    ),
    counter("openclaw_inbox_acked_total", "Messages handled."),
    gauge("openclaw_inbox_capacity_messages", "Most messages that may wait or be handled."),
    gauge("openclaw_inbox_depth_messages", "Messages waiting or being handled."),
    gauge("openclaw_inbox_paused", "1 while an operator has paused an inbox."),
    counter("openclaw_inbox_refused_total", "Messages an inbox could not take, by reason."),
    counter(
        "openclaw_inbox_unacked_total",
        "Messages given back un-acked, by outcome: read next, after a rest, or never.",
    ),
    histogram("openclaw_inbox_wait_seconds", SECONDS, "Time a message waited for its reader."),
    gauge("openclaw_journal_backlog_turns", "Turns that are not settled, by where they stand."),
    histogram("openclaw_journal_commit_seconds", SECONDS, "Time until a batch of records was committed."),
    counter("openclaw_journal_commits_total", "Transactions of records."),
    counter("openclaw_journal_errors_total", "Failures of the journal, by reason."),
    counter("openclaw_journal_panics_total", "Writers of the journal that ended in a panic."),
    counter("openclaw_journal_pruned_turns_total", "Settled turns that left for age or size."),
    counter("openclaw_journal_records_total", "Records committed or refused."),
    gauge("openclaw_journal_size_bytes", "What the journal holds, files beside the database included."),
    counter("openclaw_journal_turns_total", "Turns by what was recorded of them; goes on over restarts."),
    counter(
        "openclaw_judge_hints_total",
        "Hints by what became of them: accepted, surplus, short, or none found in the answer.",
    ),
    counter("openclaw_judge_unanswered_total", "Turns that the judge gave up on, by reason."),
    histogram("openclaw_judge_verdict_seconds", SECONDS, "Time from taking a turn to its verdict and hints."),
    counter(
        "openclaw_judge_verdicts_total",
        "Verdicts, by reward and by what decided: the votes, or a rule's name.",
    ),
    counter("openclaw_judge_votes_agreed_total", "Votes that said what the majority said."),
    counter(
        "openclaw_judge_votes_missing_total",
        "Votes that did not arrive or were not finished, by what was asked and why.",
    ),
    counter("openclaw_judge_votes_total", "Votes on a verdict, by what they said."),
    gauge("openclaw_optimizer_batch_samples", "Samples of the last batch."),
    gauge(
        "openclaw_optimizer_canary_degenerate_ratio",
        "Share of the canary's answers that were empty, looping or cut, when it was last asked.",
    ),
    gauge(
        "openclaw_optimizer_canary_drop_nats",
        "Fall of the last good version's answers per token, when the canary was last asked.",
    ),
    histogram("openclaw_optimizer_canary_seconds", SECONDS, "Time of asking the canary."),
    histogram(
        "openclaw_optimizer_checkpoint_seconds",
        SECONDS,
        "Time of writing a version's folder to the disk.",
    ),
    counter("openclaw_optimizer_checkpoints_failed_total", "Version folders that could not be written."),
    gauge("openclaw_optimizer_clip_ratio", "Share of tokens whose ratio was clipped in the last step."),
    histogram(
        "openclaw_optimizer_collect_seconds",
        SECONDS,
        "Time from the end of a step to the next full batch.",
    ),
    gauge(
        "openclaw_optimizer_drift_nats",
        "Difference of serving's and training's log-probs before the last step, per token.",
    ),
    gauge("openclaw_optimizer_entropy_nats", "Mean entropy per token in the last step."),
    gauge("openclaw_optimizer_grad_norm", "Gradient norm of the last step, before clipping."),
    gauge("openclaw_optimizer_kl_nats", "Mean distance to the base version in the last step."),
    gauge("openclaw_optimizer_loss", "Loss of the last step."),
    counter("openclaw_optimizer_panics_total", "Steps that ended in a panic."),
    gauge(
        "openclaw_optimizer_policy_loss",
        "Loss of the last step without its KL, entropy and candidate terms.",
    ),
    counter(
        "openclaw_optimizer_processed_tokens_total",
        "Tokens run through the model by training, prompts included.",
    ),
    gauge(
        "openclaw_optimizer_ratio_max",
        "Largest ratio of training's to serving's probability of a token in the last step.",
    ),
    gauge(
        "openclaw_optimizer_ratio_mean",
        "Mean ratio of training's to serving's probability of a token in the last step.",
    ),
    histogram("openclaw_optimizer_staleness_versions", VERSIONS, "Age of each trained sample in versions."),
    histogram("openclaw_optimizer_step_seconds", SECONDS, "Time of one optimizer step."),
    counter("openclaw_optimizer_steps_total", "Optimizer steps, by outcome: committed or withheld."),
    counter("openclaw_optimizer_trained_tokens_total", "Response tokens trained on."),
    gauge(
        "openclaw_optimizer_truncated_ratio",
        "Share of the last batch's tokens that were drawn greedily or from what top-p, top-k or min-p left.",
    ),
    counter(
        "openclaw_optimizer_versions_withheld_total",
        "Versions that the breaker withheld, by what left its band.",
    ),
    gauge("openclaw_publisher_policy_version", "The version announced or returned to last."),
    histogram(
        "openclaw_publisher_publish_seconds",
        SECONDS,
        "Time from the commit of a version to its announcement.",
    ),
    counter("openclaw_publisher_rollbacks_total", "Returns to an earlier version."),
    gauge(
        "openclaw_publisher_version_timestamp_seconds",
        "When the current version was announced or returned to, or else the start.",
    ),
    gauge("openclaw_rollout_active_sessions", "Sessions of simulated users under way."),
    counter("openclaw_rollout_correct_first_replies_total", "First replies that solved the task, by user."),
    gauge(
        "openclaw_rollout_recent_satisfied_ratio",
        "Share of a user's last ten sessions whose first reply they liked.",
    ),
    counter(
        "openclaw_rollout_replies_total",
        "Replies that a simulated user remarked on, by user and whether they were content.",
    ),
    histogram("openclaw_rollout_session_seconds", SECONDS, "Length of a session of a simulated user."),
    counter(
        "openclaw_rollout_sessions_failed_total",
        "Sessions of simulated users that ended in an error, by reason.",
    ),
    gauge(
        "openclaw_rollout_sessions_to_satisfaction",
        "Sessions until a user liked three first replies in a row; 0 until then.",
    ),
    counter(
        "openclaw_rollout_sessions_total",
        "Sessions of simulated users, by user and whether they liked the first reply.",
    ),
    histogram(
        "openclaw_rollout_wait_seconds",
        SECONDS,
        "Time a simulated user waited for learning before a session.",
    ),
    counter("openclaw_samples_dropped_total", "Samples that are not trained on, by reason."),
    counter(
        "openclaw_sessions_ambiguous_total",
        "Requests whose history was rewritten and whose last reply several conversations share.",
    ),
    counter(
        "openclaw_sessions_disproved_late_total",
        "Next states that were learnt from before a request showed that they were side requests.",
    ),
    counter("openclaw_sessions_next_states_total", "Next states found, by kind."),
    counter(
        "openclaw_sessions_of_one_reply_total",
        "Conversations without a name that ended with nothing behind their only reply.",
    ),
    gauge("openclaw_sessions_open_sessions", "Sessions remembered."),
    counter(
        "openclaw_sessions_records_dropped_total",
        "Facts about turns that are lost because the journal was away for too long.",
    ),
    counter(
        "openclaw_sessions_side_requests_found_total",
        "Side requests of clients that were taken for a user's answer until the next request.",
    ),
    counter("openclaw_sessions_unreachable_total", "Requests for the sessions actor that found none."),
    gauge("openclaw_sessions_waiting_turns", "Turns waiting for their next state."),
    counter("openclaw_supervisor_failures_total", "Actors that ended too often and stay down."),
    counter(
        "openclaw_supervisor_kills_total",
        "Actors killed, by reason: an order, or a stop that took too long.",
    ),
    counter("openclaw_supervisor_restarts_total", "Actors started again."),
    gauge("openclaw_supervisor_state", "1 for the state that an actor is in, 0 for those it was in."),
    counter("openclaw_supervisor_stuck_total", "Times that a running actor was not well or did not answer."),
    histogram(
        "openclaw_teacher_gap_nats",
        NATS,
        "Teacher's minus student's log-prob of each token of a reply.",
    ),
    histogram(
        "openclaw_teacher_hint_overlap_ratio",
        RATIOS,
        "Share of likely tokens that teacher and student have in common under the chosen of several hints.",
    ),
    counter("openclaw_teacher_hints_dropped_total", "Hints that the teacher could not use, by reason."),
    histogram("openclaw_teacher_signal_seconds", SECONDS, "Time to score one turn for student and teacher."),
    counter("openclaw_worker_panics_total", "Panics while a message was handled."),
];

/// Tells the recorder what each metric is.
pub(super) fn describe() {
    for metric in METRICS {
        let unit = match metric.name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") => Unit::Bytes,
            _ => Unit::Count,
        };
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `(macro, metric)` of every metric that the crates record.
    fn recorded() -> Vec<(String, String)> {
        fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
            for entry in std::fs::read_dir(folder).expect("the sources are there") {
                let path = entry.expect("the sources can be listed").path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).expect("sources are text");
                    for kind in ["counter", "gauge", "histogram"] {
                        for call in text.split(&format!("{kind}!(")).skip(1) {
                            let name =
                                call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                            let name = name.filter(|name| name.starts_with("openclaw_"));
                            found.extend(name.map(|name| (kind.to_owned(), name.to_owned())));
                        }
                    }
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
        let mut found = Vec::new();
        for source in
            ["actors/src", "environments/src", "env-server/src", "model/src", "kernels/src", "runtime/src"]
        {
            walk(&root.join(source), &mut found);
        }
        found
    }

    #[test]
    fn every_metric_in_the_code_is_described_as_what_it_is() {
        let recorded = recorded();
        assert!(recorded.len() > 10, "the search found {recorded:?}");
        for (kind, name) in recorded {
            let metric = METRICS.iter().find(|metric| metric.name == name);
            let described = metric.map(|metric| match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            });
            assert_eq!(described, Some(kind.as_str()), "{name}");
        }
    }

    #[test]
    fn names_say_kind_and_unit_and_stand_in_order() {
        assert!(METRICS.is_sorted_by_key(|metric| metric.name));
        for metric in METRICS {
            let totals = metric.name.ends_with("_total");
            assert_eq!(totals, metric.kind == Kind::Counter, "{}", metric.name);
            let Kind::Histogram(buckets) = metric.kind else { continue };
            let units = ["_seconds", "_nats", "_ratio", "_versions", "_steps"];
            assert!(units.iter().any(|unit| metric.name.ends_with(unit)), "{} names no unit", metric.name);
            assert!(buckets.is_sorted() && !buckets.is_empty(), "{}", metric.name);
        }
    }
}
