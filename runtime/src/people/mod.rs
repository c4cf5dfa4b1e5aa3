//! A model for each person: `launch` with `[people]`. One process, the house, has the door that everyone comes in by, and a
//! supervisor over one process for each person who is awake: a whole node, with its journal, versions and page in a folder of
//! its own, `people/NAME` in that of the run. So what a person says reaches no other's model, journal or folder, a crash is
//! one person's, and every verb works on a person as on any run.
//!
//! `person` is a name as a folder, `process` one node under its actor, `house` who is awake, `door` the HTTP in front,
//! `operator` what is seen and done from outside.

mod door;
mod house;
mod operator;
mod person;
mod process;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use openclaw_actors::{
    connections::{self, ConnectionLimits},
    stop::{StopHandle, StopSignal, stop_flag},
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::{
    net::TcpListener,
    sync::{OnceCell, watch},
    task::JoinHandle,
    time::Instant,
};
use tracing::info;

use self::{door::Door, house::House, operator::HouseOperator};
use crate::{
    admin::{self, PortAddress, ServeError},
    descriptors, doctor,
    launch::{LaunchOptions, RunFolder, screen},
    run_dir,
    supervisor::{ChildSpec, RunningChild, Supervisor},
    telemetry::{self, LogFormat},
    topology::{People, Topology},
};

/// How often it is looked who has been silent for long.
const IDLE_PERIOD: Duration = Duration::from_secs(5);
/// Answers under way get this long when the house closes.
const CLOSING: Duration = Duration::from_secs(30);

/// Runs until the stop.
pub async fn run(
    topology: Topology,
    people: People,
    options: LaunchOptions,
    mut stop: StopSignal,
) -> anyhow::Result<ExitCode> {
    descriptors::raise();
    let (name, node) = topology.node(options.node.as_deref())?;
    let dir = &topology.run.dir;
    if admin::is_live(dir).unwrap_or(false) {
        return Err(ServeError::Running { dir: dir.clone() }.into());
    }
    if !options.fresh {
        must_be_a_house(dir)?;
    }
    doctor::must_fit(&topology)?;
    let listen = topology.actors.gateway.listen;
    let refused = || format!("actors.gateway.listen: cannot listen on {listen}");
    let listener = TcpListener::bind(listen).await.with_context(refused)?;
    let address = listener.local_addr()?;
    // Metrics outlive the stop, so that the shutdown is seen too.
    let (shutdown_over, observing) = stop_flag();
    let metrics = telemetry::serve_metrics(node.metrics, observing).await;
    let metrics = metrics.with_context(|| format!("nodes.{name}.metrics"))?;
    info!(node = name, %metrics, "launching {}", topology.run.name);

    must_be_over(dir)?;
    let folder = RunFolder::take(dir, options.fresh)?;
    let started = match start(&topology, name, &people, options.log_format, listener).await {
        Ok(started) => started,
        Err(refused) => {
            folder.put_back();
            return Err(refused);
        }
    };
    let Started { supervisor, house, mut told_to_stop, closing, serving } = started;
    info!(gateway = %format!("http://{address}/v1"), awake = people.awake, "serving");
    if telemetry::on_terminal() {
        let program = screen::program();
        telemetry::say(&format!(
            "{} serves http://{address}/v1: each person has a model, by what `people.adapter_by` says.\n  \
             {program} status                  who is awake\n  \
             {program} page --person NAME      what that person's model hears and learns\n\
             Ctrl-C stops.\n",
            topology.run.name
        ));
    }
    let mut look = tokio::time::interval(IDLE_PERIOD);
    let idle = async {
        loop {
            look.tick().await;
            house.sleep_idle().await;
        }
    };
    tokio::select! {
        () = stop.wait() => {}
        () = told_to_stop.wait() => {}
        () = idle => {}
    }
    closing.stop();
    let last = serving.lock().expect("nobody panics with it").take();
    if let Some(serving) = last {
        // Whoever is still being answered then hears no more.
        let _ = tokio::time::timeout(CLOSING, serving).await;
    }
    let stuck = supervisor.stop().await;
    shutdown_over.stop();
    anyhow::ensure!(stuck.is_empty(), "still running at the end: {}", stuck.join(", "));
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// A house whose door is open.
struct Started {
    supervisor: Supervisor,
    house: Arc<House>,
    /// An operator's order to stop.
    told_to_stop: StopSignal,
    /// Closes the door.
    closing: StopHandle,
    serving: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// All that may still refuse once the run's folder is written into.
async fn start(
    topology: &Topology,
    name: &str,
    people: &People,
    log_format: LogFormat,
    listener: TcpListener,
) -> anyhow::Result<Started> {
    let dir = &topology.run.dir;
    let nodes = person::folder_of(dir);
    run_dir::make_private(dir)?;
    run_dir::make_private(&nodes)?;
    topology.write_resolved().with_context(|| format!("cannot write into run.dir {}", dir.display()))?;
    let unread = || format!("cannot read {}", nodes.display());
    let house = House::new(people.clone(), topology.clone(), nodes.clone(), log_format);
    let house = Arc::new(house.with_context(unread)?);
    let (in_flight, under_way) = watch::channel(0);
    let door = Door::new(house.clone(), people.adapter_by.clone(), &topology.actors.gateway, in_flight)?;
    let (stop, told_to_stop) = stop_flag();
    let operator = Arc::new(HouseOperator {
        run: topology.run.name.clone(),
        dir: dir.clone(),
        node: name.to_owned(),
        house: house.clone(),
        door: listener.local_addr()?,
        in_flight: under_way,
        stop,
        started: Instant::now(),
        supervisor: OnceCell::new(),
    });
    let (closing, closes) = stop_flag();
    let door = DoorArguments {
        router: Arc::new(door).router()?,
        socket: Arc::new(listener.into_std()?),
        closing: closes,
        serving: Arc::default(),
    };
    let serving = door.serving.clone();
    let mut children = vec![admin::child(operator.clone(), dir.clone(), PortAddress::default(), None)];
    children.extend(house.children());
    children.push(door_child(door));
    let supervisor = Supervisor::start(children).await?;
    house.supervised_by(supervisor.handle());
    // Once, here.
    let _ = operator.supervisor.set(supervisor.handle());
    Ok(Started { supervisor, house, told_to_stop, closing, serving })
}

#[derive(Clone)]
struct DoorArguments {
    router: axum::Router,
    /// Outlives every incarnation: whoever comes while nobody accepts waits in it.
    socket: Arc<std::net::TcpListener>,
    closing: StopSignal,
    serving: Arc<Mutex<Option<JoinHandle<()>>>>,
}

fn door_child(arguments: DoorArguments) -> ChildSpec {
    ChildSpec::new("door", "door", move |supervisor: ActorCell| {
        let arguments = arguments.clone();
        async move {
            let (actor, task) = Actor::spawn_linked(None, DoorActor, arguments, supervisor).await?;
            Ok(RunningChild { cell: actor.get_cell(), task })
        }
    })
}

/// Serves the door.
struct DoorActor;

impl Actor for DoorActor {
    type Msg = ();
    type State = ();
    type Arguments = DoorArguments;

    async fn pre_start(&self, _: ActorRef<()>, arguments: DoorArguments) -> Result<(), ActorProcessingErr> {
        let DoorArguments { router, socket, mut closing, serving } = arguments;
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        let limits = ConnectionLimits::new(descriptors::shares().gateway);
        let closed = async move { closing.wait().await };
        let task = tokio::spawn(connections::serve(listener, router, limits, closed));
        if let Some(before) = serving.lock().expect("nobody panics with it").replace(task) {
            before.abort();
        }
        Ok(())
    }
}

/// Where a house's person has a run.
pub fn dir_of(run_dir: &Path, name: &str) -> PathBuf {
    person::Person::named(Some(name)).dir(&person::folder_of(run_dir))
}

/// Whether people have models of their own in this run.
pub fn is_house(run_dir: &Path) -> bool {
    person::folder_of(run_dir).is_dir()
}

/// Refuses a folder in which nodes of a house that was killed still write down what they have.
fn must_be_over(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(person::folder_of(dir)).into_iter().flatten().flatten() {
        let run = entry.path();
        ensure!(
            !openclaw_journal::is_in_use(&run) && !admin::is_live(&run).unwrap_or(false),
            "the node in {} is still ending: launch again when it has",
            run.display()
        );
    }
    Ok(())
}

/// Refuses a folder in which the run of one model lies.
fn must_be_a_house(dir: &Path) -> anyhow::Result<()> {
    let has_one = matches!(openclaw_journal::inspect(dir), Ok(Some(_)));
    ensure!(
        !has_one,
        "run.dir {} is a run of one model for all, which goes on without [people]: use another run.dir, or `--fresh`",
        dir.display()
    );
    Ok(())
}

/// Refuses a folder in which people have models of their own.
pub fn must_not_be_a_house(dir: &Path) -> anyhow::Result<()> {
    ensure!(
        !is_house(dir),
        "run.dir {} is a run of many people, who each have a model, and goes on with [people]: use another run.dir, or \
         `--fresh`",
        dir.display()
    );
    Ok(())
}
