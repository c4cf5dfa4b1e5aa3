//! Who is awake. A visit keeps a person's node up; who has had no visit for long, or is the idlest when another needs the
//! place, goes to the disk, where everything of a run lies anyway.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::info;

use super::{person::Person, process::PersonNode};
use crate::{
    supervisor::{ChildSpec, ChildState, ChildStatus, SupervisorError, SupervisorHandle},
    telemetry::LogFormat,
    topology::{People, Topology},
};

/// A request waits so long for a node that is coming up or coming back.
const WAKE_PATIENCE: Duration = Duration::from_secs(120);

/// The end of a process is known by then.
const NOTICED: Duration = Duration::from_secs(2);

/// Why a request has no node to go to.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    /// There are as many people as there may be.
    #[error("there are {most} people already (people.most), and {person} is not one of them")]
    TooMany {
        /// How many.
        most: usize,
        /// Who came.
        person: Person,
    },
    /// Everyone who is awake is being answered.
    #[error("{awake} people are awake (people.awake), and all of them are being answered: try again")]
    AllBusy {
        /// How many.
        awake: usize,
    },
    /// The node does not come up.
    #[error("the node of {person} does not come up: {reason}")]
    Down {
        /// Whose.
        person: Person,
        /// Why.
        reason: String,
    },
}

/// Everyone's nodes.
pub struct House {
    people: People,
    topology: Arc<Topology>,
    dir: PathBuf,
    log_format: LogFormat,
    supervisor: OnceLock<SupervisorHandle>,
    known: Mutex<BTreeMap<Person, Arc<Place>>>,
    /// Held by whoever starts or stops a node, so that there are never more of them than there may be.
    moving: tokio::sync::Mutex<()>,
}

/// One person's node, up or not.
struct Place {
    node: Arc<PersonNode>,
    visits: Mutex<Visits>,
}

struct Visits {
    under_way: usize,
    last: Instant,
}

impl Place {
    fn visits(&self) -> MutexGuard<'_, Visits> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> Option<SocketAddr> {
        *self.node.address.borrow()
    }
}

/// A request that is being answered; keeps the node up until it is dropped.
pub struct Visit {
    place: Arc<Place>,
    /// Where the node serves.
    pub address: SocketAddr,
}

impl Visit {
    /// Whether the node that was visited has ended and come back, and the visit is to the one that came.
    pub async fn came_back(&mut self) -> bool {
        let (mut seen, before) = (self.place.node.address.subscribe(), self.address);
        let left = seen.wait_for(|address| *address != Some(before));
        if !matches!(timeout(NOTICED, left).await, Ok(Ok(_))) {
            return false;
        }
        let address = timeout(WAKE_PATIENCE, seen.wait_for(Option::is_some)).await;
        let address = address.ok().and_then(|address| *address.ok()?);
        self.address = address.unwrap_or(before);
        address.is_some()
    }
}

/// Counts a visit, whatever becomes of it.
struct Coming(Arc<Place>);

impl Coming {
    fn to(place: Arc<Place>) -> Self {
        place.visits().under_way += 1;
        Self(place)
    }

    fn arrived(self, address: SocketAddr) -> Visit {
        // The count goes over to the visit.
        self.0.visits().under_way += 1;
        Visit { place: self.0.clone(), address }
    }
}

fn gone(place: &Place) {
    let mut visits = place.visits();
    visits.under_way -= 1;
    visits.last = Instant::now();
}

impl Drop for Coming {
    fn drop(&mut self) {
        gone(&self.0);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        gone(&self.place);
    }
}

impl House {
    /// Of the people whose folders lie below `dir`.
    pub fn new(
        people: People,
        topology: Topology,
        dir: PathBuf,
        log_format: LogFormat,
    ) -> std::io::Result<Self> {
        let house = Self {
            people,
            topology: Arc::new(topology),
            dir: dir.clone(),
            log_format,
            supervisor: OnceLock::new(),
            known: Mutex::default(),
            moving: tokio::sync::Mutex::default(),
        };
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Some(name) = entry.file_name().to_str()
            {
                let person = Person::of_folder(name);
                let place = house.new_place(&person);
                house.known().insert(person, place);
            }
        }
        Ok(house)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Person, Arc<Place>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_place(&self, person: &Person) -> Arc<Place> {
        let node = PersonNode {
            person: person.clone(),
            topology: self.topology.clone(),
            people: self.dir.clone(),
            log_format: self.log_format,
            address: watch::Sender::new(None),
        };
        let visits = Visits { under_way: 0, last: Instant::now() };
        Arc::new(Place { node: Arc::new(node), visits: Mutex::new(visits) })
    }

    /// The nodes of those who are known, all of them down.
    pub fn children(&self) -> Vec<ChildSpec> {
        self.known().values().map(|place| place.node.clone().child()).collect()
    }

    /// Who starts and stops the nodes.
    pub fn supervised_by(&self, supervisor: SupervisorHandle) {
        // Once, by whoever made both.
        let _ = self.supervisor.set(supervisor);
    }

    fn supervisor(&self) -> Result<&SupervisorHandle, SupervisorError> {
        self.supervisor.get().ok_or(SupervisorError::Ended)
    }

    /// How many serve.
    pub fn awake(&self) -> usize {
        self.known().values().filter(|place| place.address().is_some()).count()
    }

    /// The folder of everyone's runs.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// A visit to a person, whose node is waited for.
    pub async fn enter(self: &Arc<Self>, person: &Person) -> Result<Visit, NoPlace> {
        let coming = Coming::to(self.place(person)?);
        if let Some(address) = coming.0.address() {
            return Ok(coming.arrived(address));
        }
        let down = |reason: &str| NoPlace::Down { person: person.clone(), reason: reason.to_owned() };
        // In a task of its own: whoever leaves in the middle must not leave a node half way.
        let (house, place) = (self.clone(), coming.0.clone());
        let waking = tokio::spawn(async move { house.wake(&place).await });
        let up = async {
            waking.await.map_err(|panic| down(&panic.to_string()))??;
            let mut seen = coming.0.node.address.subscribe();
            let address = seen.wait_for(Option::is_some).await.ok().and_then(|address| *address);
            address.ok_or_else(|| down("it ended"))
        };
        let address =
            timeout(WAKE_PATIENCE, up).await.unwrap_or_else(|_| Err(down("it takes long: try again")))?;
        Ok(coming.arrived(address))
    }

    /// A visit to whoever is awake; none where nobody is.
    pub fn enter_any(&self) -> Option<Visit> {
        let places: Vec<_> = self.known().values().cloned().collect();
        places.into_iter().find_map(|place| {
            let coming = Coming::to(place);
            let address = coming.0.address()?;
            Some(coming.arrived(address))
        })
    }

    fn place(&self, person: &Person) -> Result<Arc<Place>, NoPlace> {
        let mut known = self.known();
        if let Some(place) = known.get(person) {
            return Ok(place.clone());
        }
        // Who was refused, or did not wait, is nobody yet.
        known.retain(|person, place| Arc::strong_count(place) > 1 || person.dir(&self.dir).exists());
        if known.len() >= self.people.most {
            return Err(NoPlace::TooMany { most: self.people.most, person: person.clone() });
        }
        let place = self.new_place(person);
        known.insert(person.clone(), place.clone());
        Ok(place)
    }

    /// Starts a node that is down, or will be. One that is on its way needs nothing.
    async fn wake(&self, place: &Arc<Place>) -> Result<(), NoPlace> {
        let person = &place.node.person;
        let down = |error: SupervisorError| {
            let reason = match error {
                SupervisorError::Start { reason, .. } => reason,
                error => error.to_string(),
            };
            NoPlace::Down { person: person.clone(), reason }
        };
        let moving = self.moving.lock().await;
        let supervisor = self.supervisor().map_err(down)?;
        let name = person.actor();
        let comes = |child: &ChildStatus| {
            child.name == name && is_up(child.state) && child.state != ChildState::Draining
        };
        let statuses = supervisor.statuses();
        if place.address().is_some() || statuses.iter().any(comes) {
            return Ok(());
        }
        self.make_room(supervisor, &name).await?;
        let begun = Instant::now();
        let start = async {
            match statuses.iter().any(|child| child.name == name) {
                true => supervisor.start_child(&name).await.map(drop),
                false => supervisor.add(place.node.clone().child()).await,
            }
        };
        let mut start = std::pin::pin!(start);
        // Others need not wait until it is up: it has its place once the supervisor knows of it.
        let known = supervisor.wait_for(|children| children.iter().any(comes));
        tokio::select! {
            done = &mut start => done.map_err(down)?,
            _ = known => {
                drop(moving);
                start.await.map_err(down)?;
            }
        }
        info!(person = person.folder(), secs = begun.elapsed().as_secs_f32(), "awake");
        Ok(())
    }

    /// Until one more may be awake.
    async fn make_room(&self, supervisor: &SupervisorHandle, comer: &str) -> Result<(), NoPlace> {
        loop {
            let awake: Vec<String> = supervisor
                .statuses()
                .into_iter()
                .filter(|child| child.role == "person" && child.name != comer && is_up(child.state))
                .map(|child| child.name)
                .collect();
            if awake.len() < self.people.awake {
                return Ok(());
            }
            let places: Vec<_> = self.known().values().cloned().collect();
            let mut idle: Vec<_> =
                places.into_iter().filter(|place| awake.contains(&place.node.person.actor())).collect();
            idle.sort_by_key(|place| place.visits().last);
            let mut slept = false;
            for place in idle {
                if self.sleep(supervisor, &place, Duration::ZERO).await {
                    slept = true;
                    break;
                }
            }
            if !slept {
                return Err(NoPlace::AllBusy { awake: awake.len() });
            }
        }
    }

    /// Stops a node that nobody visits, and has not for so long.
    async fn sleep(&self, supervisor: &SupervisorHandle, place: &Place, idle: Duration) -> bool {
        {
            let visits = place.visits();
            if visits.under_way > 0 || visits.last.elapsed() < idle {
                return false;
            }
            // Whoever comes from now on waits until it is down, and wakes it again.
            place.node.address.send_replace(None);
        }
        let stopped = supervisor.stop_child(&place.node.person.actor()).await;
        if stopped.is_ok() {
            info!(person = place.node.person.folder(), "asleep");
        }
        stopped.is_ok()
    }

    /// Puts those to sleep who have been silent for long.
    pub async fn sleep_idle(&self) {
        let Ok(supervisor) = self.supervisor() else { return };
        let idle = Duration::from_secs(self.people.idle_secs);
        let places: Vec<_> = self.known().values().cloned().collect();
        for place in places {
            let silent = |place: &Place| {
                let visits = place.visits();
                place.address().is_some() && visits.under_way == 0 && visits.last.elapsed() >= idle
            };
            if silent(&place) {
                let _moving = self.moving.lock().await;
                self.sleep(supervisor, &place, idle).await;
            }
        }
    }
}

/// It takes memory, or will.
pub fn is_up(state: ChildState) -> bool {
    !matches!(state, ChildState::Stopped | ChildState::Failed)
}
