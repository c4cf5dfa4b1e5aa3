//! The command line: one verb per thing an operator does. Errors are one chain on one line; the problems of a
//! topology are one line each.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use openclaw_actors::stop;
use openclaw_env_server::ServeError;
use openclaw_lab::{
    evaluate::{self, EvaluateArgs},
    experiment::{self, Experiment},
    pretrain::{
        documents::{self, DocumentsArgs},
        run::{self as pretrain, PretrainConfig},
    },
    score::{self, ScoreArgs},
    sft::{self, SftArgs},
};

use crate::{
    chat::{self, ChatArgs},
    doctor::{self, CannotFit},
    episodes::{self, Episodes},
    exit::{self, EXIT_FAILED, EXIT_USAGE},
    experiments,
    export::{self, Export},
    hub::{self, PullArgs},
    import::{self, ImportArgs},
    launch::{self, LaunchOptions},
    operate,
    printable::printable,
    shell,
    tasks::{self, Tasks},
    telemetry::{self, LogFormat},
    topology::{Override, Topology, TopologyError, UnknownNode},
};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running
  2    wrong usage, or a topology that cannot be used
  3    no node is running, or it cannot be reached
  4    the node has no actor, role, turn or version of that name
  5    not possible: in the node's present state, or for that role
  130  ended at once by a second SIGINT or SIGTERM (the first one stops in order, and ends with 0)";

const CHECK_EXAMPLES: &str = "\
Examples:
  openclaw-rl check configs/quickstart.toml
  openclaw-rl check configs/quickstart.toml --set actors.judge.votes=5";

const LAUNCH_EXAMPLES: &str = "\
Examples:
  openclaw-rl launch configs/quickstart.toml
  openclaw-rl launch configs/personal-agent.toml --set actors.gateway.listen=127.0.0.1:0
  openclaw-rl launch configs/quickstart.toml --set 'method={ kind = \"opd\" }' --set run.dir=runs/opd";

const ENV_SERVER_EXAMPLES: &str = "\
Examples:
  OPENCLAW_ENV_TOKEN=$(openssl rand -hex 32) openclaw-rl env-server configs/env-server.toml";

const PRETRAIN_EXAMPLES: &str = "\
Examples:
  openclaw-rl pretrain configs/pretrain-nano.toml --force   # in place of the model that ships
  openclaw-rl pretrain documents --count 600 --output judging.jsonl";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  openclaw-rl completions bash > ~/.local/share/bash-completion/completions/openclaw-rl
  openclaw-rl completions zsh > ~/.zfunc/_openclaw-rl
  openclaw-rl completions fish > ~/.config/fish/completions/openclaw-rl.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  openclaw-rl man | man -l -
  openclaw-rl man restart > openclaw-rl-restart.1";

/// Trains any agent simply by talking to it.
#[derive(Debug, Parser)]
#[command(name = "openclaw-rl", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells everything that is wrong with a topology file, at once.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(TopologyArgs),
    /// Starts a node of a topology and runs it until it is stopped.
    #[command(after_help = LAUNCH_EXAMPLES)]
    Launch(LaunchArgs),
    /// Serves environments to workers on other machines until it is stopped.
    #[command(after_help = ENV_SERVER_EXAMPLES)]
    EnvServer {
        /// Where it listens and what it serves, such as configs/env-server.toml.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How log lines look.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "OPENCLAW_LOG_FORMAT")]
        log_format: LogFormat,
    },
    #[command(flatten)]
    Operate(operate::Verb),
    /// Looks at the machine, and at what a topology will need of it.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor {
        /// The topology file; without one the machine alone is looked at.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Puts a TOML value, or a bare string, over a key of the file; can be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE", requires = "file")]
        overrides: Vec<Override>,
    },
    /// Talks to the policy from the terminal, and shows what it learns from that.
    #[command(after_help = chat::examples())]
    Chat(ChatArgs),
    /// Prints the log-probs of given tokens or text under a checkpoint.
    #[command(after_help = score::EXAMPLES)]
    Score(ScoreArgs),
    /// Fine-tunes a checkpoint on conversations.
    #[command(after_help = sft::EXAMPLES)]
    Sft(SftArgs),
    /// Fetches a model of the Hugging Face hub.
    #[command(after_help = hub::EXAMPLES)]
    Pull(PullArgs),
    /// Makes a checkpoint folder of a GGUF file.
    #[command(after_help = import::EXAMPLES)]
    Import(ImportArgs),
    /// Asks the embedded model questions in wordings that it never read, and tells what it got right.
    #[command(after_help = evaluate::EXAMPLES)]
    Evaluate(EvaluateArgs),
    /// Writes what a run's journal holds for other tools: trajectories, conversations, curves.
    #[command(after_help = export::EXAMPLES)]
    Export {
        /// In which form.
        #[command(subcommand)]
        export: Export,
    },
    /// Shows what agents did in environments, step by step, and how it came out.
    #[command(after_help = episodes::EXAMPLES)]
    Episodes {
        /// Which of them.
        #[command(subcommand)]
        episodes: Episodes,
    },
    /// Makes tasks for agents.
    #[command(after_help = tasks::EXAMPLES)]
    Tasks {
        /// Of which kind.
        #[command(subcommand)]
        tasks: Tasks,
    },
    /// Runs an experiment and prints its table.
    #[command(after_help = experiment::EXAMPLES)]
    Experiment {
        /// Which.
        #[command(subcommand)]
        experiment: Experiment,
    },
    /// Trains the embedded model from nothing, on text that the project generates.
    #[command(after_help = PRETRAIN_EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Pretrain {
        #[command(subcommand)]
        part: Option<PretrainPart>,
        /// What to train and on how much, such as configs/pretrain-nano.toml.
        #[arg(value_name = "FILE", required = true)]
        file: Option<PathBuf>,
        /// Replaces the model that is at the file's `output`.
        #[arg(long)]
        force: bool,
    },
    /// Prints a shell's completions.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Prints a manual page.
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// A verb; the whole command, unless given.
        verb: Vec<String>,
    },
}

/// A part of `pretrain`.
#[derive(Debug, Subcommand)]
enum PretrainPart {
    /// Writes what it would train on, as conversations that `sft` reads.
    #[command(after_help = documents::EXAMPLES)]
    Documents(DocumentsArgs),
}

#[derive(Debug, Args)]
struct TopologyArgs {
    /// The topology file. Relative paths in it are relative to the working directory.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Puts a TOML value, or a bare string, over a key of the file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<Override>,
}

#[derive(Debug, Args)]
struct LaunchArgs {
    #[command(flatten)]
    topology: TopologyArgs,
    /// Which node of the topology this process is; the only one, unless given.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Ends once every simulated user is satisfied (0) or has given up (1), instead of serving on.
    #[arg(long)]
    exit_when_satisfied: bool,
    /// Begins the run anew: renames what its folder holds to FOLDER.1, .2, ..; deletes nothing.
    #[arg(long)]
    fresh: bool,
    /// Stops in order when the standard input ends, as it does with the process that started this one.
    #[arg(long, hide = true)]
    until_input_ends: bool,
    /// How log lines look.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "OPENCLAW_LOG_FORMAT")]
    log_format: LogFormat,
}

/// Runs the command line that this process was given.
pub fn main() -> ExitCode {
    // clap prints its own errors, and ends with 2.
    let cli = Cli::parse();
    run(cli.command).unwrap_or_else(|error| {
        // Whoever read the output has seen enough.
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        match error.downcast_ref() {
            // Its lines already begin with the file.
            Some(TopologyError::Invalid { .. }) => eprintln!("{}", printable(&error.to_string())),
            _ => eprintln!("openclaw-rl: {}", printable(&format!("{error:#}"))),
        }
        let is_usage = error.is::<TopologyError>()
            || error.is::<UnknownNode>()
            || error.is::<CannotFit>()
            || matches!(error.downcast_ref(), Some(ServeError::Config(_)))
            || error.is::<shell::UnknownVerb>();
        let of_its_module = || {
            operate::exit_code(&error)
                .or_else(|| export::exit_code(&error))
                .or_else(|| episodes::exit_code(&error))
        };
        let code = if is_usage { Some(EXIT_USAGE) } else { of_its_module() };
        ExitCode::from(code.unwrap_or(EXIT_FAILED))
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => {
            let (_, warnings) = Topology::load_with_warnings(&args.file, &args.overrides)?;
            for warning in warnings {
                eprintln!("{}: warning: {}", args.file.display(), printable(&warning.to_string()));
            }
            writeln!(io::stdout(), "{}: ok", args.file.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Launch(args) => {
            hub::pull_missing(&args.topology.file, &args.topology.overrides)?;
            let (topology, warnings) =
                Topology::load_with_warnings(&args.topology.file, &args.topology.overrides)?;
            let options = LaunchOptions {
                node: args.node,
                exit_when_satisfied: args.exit_when_satisfied,
                fresh: args.fresh,
                file: args.topology.file,
                log_format: args.log_format,
            };
            let _logging = telemetry::init_logging_beside_screen(args.log_format);
            for warning in warnings {
                tracing::warn!(key = warning.key, "{}", warning.message);
            }
            tokio_runtime()?.block_on(async {
                let (handle, signal) = stop::stop_flag();
                exit::stop_on_signals(handle.clone())?;
                if args.until_input_ends {
                    exit::stop_with_input(handle);
                }
                launch::run(topology, options, signal).await
            })
        }
        Command::Doctor { file, overrides } => doctor::run(file.as_deref(), &overrides),
        Command::Completions { shell } => {
            shell::completions(Cli::command(), shell)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { verb } => {
            shell::man(Cli::command(), &verb)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::EnvServer { file, log_format } => {
            let _logging = telemetry::init_logging(log_format);
            tokio_runtime()?
                .block_on(async {
                    let (handle, mut signal) = stop::stop_flag();
                    exit::stop_on_signals(handle)?;
                    Ok(openclaw_env_server::serve(&file, async { signal.wait().await }).await?)
                })
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Operate(verb) => tokio_runtime()?.block_on(operate::run(verb)),
        Command::Chat(args) => tokio_runtime()?.block_on(chat::run(args)),
        Command::Score(args) => score::run(args),
        Command::Sft(args) => {
            let _logging = telemetry::init_logging(LogFormat::Text);
            let progress = sft::run(&args)?;
            writeln!(io::stdout(), "{}", sft::describe(&args.output, &progress))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pull(args) => {
            hub::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Import(args) => {
            import::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Export { export } => {
            export::run(export)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Episodes { episodes } => episodes::run(episodes),
        Command::Tasks { tasks } => {
            tasks::run(&tasks)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Experiment { experiment } => {
            let _logging = telemetry::init_logging(LogFormat::Text);
            tokio_runtime()?.block_on(async {
                let (handle, signal) = stop::stop_flag();
                exit::stop_on_signals(handle)?;
                experiment::command(experiment, &experiments::read, signal).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pretrain { part: Some(PretrainPart::Documents(args)), .. } => {
            documents::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pretrain { file, force, .. } => {
            let file = file.context("FILE is missing")?;
            let _logging = telemetry::init_logging(LogFormat::Text);
            pretrain::run(&PretrainConfig::from_file(&file)?, force, telemetry::on_terminal())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn tokio_runtime() -> io::Result<tokio::runtime::Runtime> {
    // One blocked thread must not stall timers and signals (two cores would give two threads).
    let threads = std::thread::available_parallelism().map_or(4, usize::from).max(4);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// clap breaks lines where the terminal ends: a paragraph that is broken already would be broken twice.
    #[test]
    fn no_paragraph_of_a_help_is_broken_by_hand() {
        fn look(command: &clap::Command, broken: &mut Vec<String>) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let goes_on = |pair: &&[&str]| {
                let flush = |line: &str| line.starts_with(|c: char| !c.is_whitespace());
                flush(pair[0]) && flush(pair[1]) && !pair[0].ends_with(':')
            };
            broken.extend(lines.windows(2).filter(goes_on).map(|pair| pair.join(" | ")));
            command.get_subcommands().for_each(|verb| look(verb, broken));
        }
        let mut broken = Vec::new();
        look(&Cli::command(), &mut broken);
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn overrides_are_read_in_their_order() {
        let cli =
            Cli::try_parse_from(["openclaw-rl", "check", "f", "--set", "a.b=1", "--set", "c=x"]).unwrap();
        let Command::Check(args) = cli.command else { panic!("not check: {cli:?}") };
        assert_eq!(args.overrides, ["a.b=1", "c=x"].map(|set| set.parse().unwrap()));
        assert!(Cli::try_parse_from(["openclaw-rl", "check", "f", "--set", "no value"]).is_err());
    }
}
