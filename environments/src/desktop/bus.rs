//! What programs on a desktop say of themselves to those who cannot see: the tree of AT-SPI, over the desktop's own bus.
//! One bus is the session's and that of accessibility, too.

use std::{
    collections::hash_map::DefaultHasher,
    future::Future,
    hash::{Hash, Hasher},
    os::unix::net::UnixStream,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{Either, join_all, select};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use zbus::{
    Connection, OwnedObjectPath, OwnedVariant,
    connection::{AuthMechanism, Builder},
};

use crate::{stop::Stop, world::WorldError};

const REGISTRY: &str = "org.a11y.atspi.Registry";
const ROOT: &str = "/org/a11y/atspi/accessible/root";
const ACCESSIBLE: &str = "org.a11y.atspi.Accessible";
const COMPONENT: &str = "org.a11y.atspi.Component";
const TEXT: &str = "org.a11y.atspi.Text";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The most nodes of one look.
const NODES: usize = 3000;
/// The most children of one node that are looked at.
const CHILDREN: usize = 300;
/// How deep the tree is looked into.
const DEPTH: usize = 40;
/// The most characters of a text that are asked for, from its end.
const TEXT_CHARS: i32 = 8000;
/// How long a program may leave one question unanswered: one that hangs is not on the list.
const ANSWER: Duration = Duration::from_secs(2);

/// Something on the screen, as its program has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The same as long as it is there.
    pub(super) key: u64,
    /// `push button`, in the words of AT-SPI.
    pub(super) role: String,
    pub(super) name: String,
    /// A bit for each state of AT-SPI.
    pub(super) states: u64,
    /// Left, top, width and height on the screen; none where it has no place.
    pub(super) extents: Option<(i32, i32, i32, i32)>,
    /// What is written in it, of what can be written in or read.
    pub(super) text: Option<String>,
    /// Of the one that it is in, in the order of the list.
    pub(super) parent: Option<usize>,
    /// How deep it is: 0 is the desktop, 1 a program, 2 a window.
    pub(super) depth: usize,
}

/// States by their numbers.
pub(super) mod state {
    pub(in crate::desktop) const CHECKED: u32 = 4;
    pub(in crate::desktop) const EXPANDED: u32 = 10;
    pub(in crate::desktop) const FOCUSED: u32 = 12;
    pub(in crate::desktop) const PRESSED: u32 = 20;
    pub(in crate::desktop) const SELECTED: u32 = 23;
    pub(in crate::desktop) const SENSITIVE: u32 = 24;
    pub(in crate::desktop) const SHOWING: u32 = 25;
    pub(in crate::desktop) const VISIBLE: u32 = 30;
}

impl Node {
    /// Whether it has a state.
    pub(super) fn is(&self, state: u32) -> bool {
        self.states >> state & 1 == 1
    }
}

/// A connection to the bus of a desktop.
pub(super) struct Bus {
    connection: Connection,
    stop: Arc<Stop>,
    deadline: Instant,
    runtime: Runtime,
}

/// Where a node is.
type Place = (String, OwnedObjectPath);

impl Bus {
    /// Over a stream to its daemon, which asks nobody who they are: nobody else can reach it.
    pub(super) fn connect(
        stream: UnixStream,
        stop: Arc<Stop>,
        deadline: Instant,
    ) -> Result<Self, WorldError> {
        let runtime = RuntimeBuilder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| WorldError::Broken(format!("a runtime: {error}")))?;
        let connecting = async {
            let builder = Builder::unix_stream(stream).auth_mechanism(AuthMechanism::Anonymous);
            builder.method_timeout(ANSWER).build().await
        };
        let connection = within(&runtime, &stop, deadline, connecting)?.map_err(broken)?;
        Ok(Self { connection, stop, deadline, runtime })
    }

    /// Until then what is asked has to be answered.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Whether programs can say something of themselves.
    pub(super) fn is_ready(&self) -> Result<bool, WorldError> {
        let asking = async {
            let name = self.ask(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "NameHasOwner",
                &REGISTRY,
            );
            name.await
        };
        let answer = within(&self.runtime, &self.stop, self.deadline, asking)?.map_err(broken)?;
        answer.body().deserialize().map_err(broken)
    }

    /// Everything that shows, each behind the one that it is in.
    pub(super) fn tree(&self) -> Result<Vec<Node>, WorldError> {
        let reading = async {
            let root = (REGISTRY.to_owned(), OwnedObjectPath::try_from(ROOT).map_err(broken)?);
            // The registry is there as long as the desktop is; of a program that goes meanwhile there is nothing.
            if self.children(&root).await.is_none() {
                return Err(WorldError::Broken("the registry of accessibility does not answer".to_owned()));
            }
            let mut nodes: Vec<Node> = Vec::new();
            let mut level: Vec<(Option<usize>, Place)> = vec![(None, root)];
            for depth in 0..DEPTH {
                level.truncate(NODES - nodes.len());
                let read = join_all(level.iter().map(|(_, place)| self.node(place, depth))).await;
                let mut next = Vec::new();
                for ((parent, _), found) in level.into_iter().zip(read) {
                    let Some((node, children)) = found else { continue };
                    let at = nodes.len();
                    nodes.push(Node { parent, depth, ..node });
                    next.extend(children.into_iter().take(CHILDREN).map(|child| (Some(at), child)));
                }
                if next.is_empty() || nodes.len() >= NODES {
                    break;
                }
                level = next;
            }
            Ok(nodes)
        };
        within(&self.runtime, &self.stop, self.deadline, reading)?
    }

    async fn node(&self, place: &Place, depth: usize) -> Option<(Node, Vec<Place>)> {
        let (bus, path) = (place.0.as_str(), place.1.as_str());
        let name = (ACCESSIBLE, "Name");
        let (role, states, name, extents, children) = futures::join!(
            self.ask(bus, path, ACCESSIBLE, "GetRoleName", &()),
            self.ask(bus, path, ACCESSIBLE, "GetState", &()),
            self.ask(bus, path, PROPERTIES, "Get", &name),
            self.ask(bus, path, COMPONENT, "GetExtents", &0u32),
            self.children(place),
        );
        let role: String = role.ok()?.body().deserialize().ok()?;
        let states: Vec<u32> = states.ok()?.body().deserialize().ok()?;
        let states = states.iter().take(2).rev().fold(0, |all, half| all << 32 | u64::from(*half));
        let name: OwnedVariant = name.ok()?.body().deserialize().ok()?;
        let name = String::try_from(name).unwrap_or_default();
        // What is nowhere says so with the least number there is.
        let sane = |&(x, y, width, height): &(i32, i32, i32, i32)| {
            [x, y, width, height].iter().all(|at| at.unsigned_abs() < 1 << 20)
        };
        let extents = extents.ok().and_then(|answer| answer.body().deserialize().ok()).filter(sane);
        let mut hasher = DefaultHasher::new();
        (bus, path).hash(&mut hasher);
        let mut node = Node { key: hasher.finish(), role, name, states, extents, ..Node::default() };
        // Programs are always looked into, and of windows what shows.
        let open = depth < 2 || node.is(state::SHOWING) && node.is(state::VISIBLE);
        if open
            && matches!(node.role.as_str(), "text" | "entry" | "terminal" | "spin button" | "password text")
        {
            node.text = self.text(bus, path).await;
        }
        Some((node, if open { children.unwrap_or_default() } else { Vec::new() }))
    }

    /// What is written there, or the end of it.
    async fn text(&self, bus: &str, path: &str) -> Option<String> {
        let count = self.ask(bus, path, PROPERTIES, "Get", &(TEXT, "CharacterCount")).await.ok()?;
        let count: OwnedVariant = count.body().deserialize().ok()?;
        let count = i32::try_from(count).ok()?;
        let from = count.saturating_sub(TEXT_CHARS).max(0);
        let text = self.ask(bus, path, TEXT, "GetText", &(from, count)).await.ok()?;
        text.body().deserialize().ok()
    }

    async fn children(&self, place: &Place) -> Option<Vec<Place>> {
        let answer = self.ask(&place.0, place.1.as_str(), ACCESSIBLE, "GetChildren", &()).await.ok()?;
        answer.body().deserialize().ok()
    }

    async fn ask<B>(
        &self,
        bus: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection.call_method(Some(bus), path, Some(interface), method, body).await
    }
}

fn broken(error: impl std::fmt::Display) -> WorldError {
    WorldError::Broken(format!("the bus: {error}"))
}

/// What comes of something before the deadline and before a stop.
fn within<T>(
    runtime: &Runtime,
    stop: &Stop,
    deadline: Instant,
    doing: impl Future<Output = T>,
) -> Result<T, WorldError> {
    runtime.block_on(async {
        let wanted = pin!(stop.wanted());
        let doing = pin!(tokio::time::timeout_at(deadline.into(), doing));
        match select(wanted, doing).await {
            Either::Left(_) => Err(WorldError::Interrupted),
            Either::Right((Ok(done), _)) => Ok(done),
            Either::Right((Err(_), _)) => Err(broken("no answer in time")),
        }
    })
}
