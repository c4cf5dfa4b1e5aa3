//! `admin` under supervision: the first to start and the last to stop, so that a start and a stop can be watched.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tracing::info;

use super::{
    operator::Operator,
    server::{AdminServer, Port, TOKEN_FILE, Token},
};
use crate::{
    page::{self, Page},
    supervisor::{ChildSpec, RunningChild},
};

/// The loopback port of a node, if it has one. Clones share where it came to be.
#[derive(Clone, Debug, Default)]
pub struct PortAddress {
    wanted: Option<SocketAddr>,
    bound: Arc<OnceLock<SocketAddr>>,
}

impl PortAddress {
    /// The one that is to be opened; port 0 is any free one.
    pub fn new(wanted: Option<SocketAddr>) -> Self {
        Self { wanted, bound: Arc::default() }
    }

    /// Where it is, once it is open.
    pub fn bound(&self) -> Option<SocketAddr> {
        self.bound.get().copied()
    }
}

/// The child `admin`: serves `operator` and what `page` knows in the run's folder, and on `port` the page itself too.
/// Token and port stay the same through its restarts.
pub fn child<O: Operator>(
    operator: Arc<O>,
    run_dir: PathBuf,
    port: PortAddress,
    page: Option<Page>,
) -> ChildSpec {
    let arguments = AdminArguments { operator, run_dir, port, token: Token::random(), page };
    ChildSpec::new("admin", "admin", move |supervisor: ActorCell| {
        let arguments = arguments.clone();
        async move {
            let (actor, task) =
                Actor::spawn_linked(None, AdminActor(PhantomData), arguments, supervisor).await?;
            Ok(RunningChild { cell: actor.get_cell(), task })
        }
    })
}

struct AdminArguments<O> {
    operator: Arc<O>,
    run_dir: PathBuf,
    port: PortAddress,
    token: Token,
    page: Option<Page>,
}

impl<O> Clone for AdminArguments<O> {
    fn clone(&self) -> Self {
        Self {
            operator: self.operator.clone(),
            run_dir: self.run_dir.clone(),
            port: self.port.clone(),
            token: self.token.clone(),
            page: self.page.clone(),
        }
    }
}

struct AdminActor<O>(PhantomData<fn() -> O>);

impl<O: Operator> Actor for AdminActor<O> {
    type Msg = ();
    type State = Option<AdminServer>;
    type Arguments = AdminArguments<O>;

    async fn pre_start(
        &self,
        _: ActorRef<()>,
        arguments: AdminArguments<O>,
    ) -> Result<Option<AdminServer>, ActorProcessingErr> {
        let AdminArguments { operator, run_dir, port: PortAddress { wanted, bound }, token, page } =
            arguments;
        let port =
            wanted.map(|wanted| Port { address: bound.get().copied().unwrap_or(wanted), token: &token });
        let server = AdminServer::start(operator, page, &run_dir, port).await?;
        if let Some(address) = server.address {
            bound.get_or_init(|| address);
            let (page, token) = (page::url(address), run_dir.join(TOKEN_FILE));
            info!(page, token = %token.display(), "`openclaw-rl page` prints a link that signs you in");
        }
        Ok(Some(server))
    }

    async fn post_stop(
        &self,
        _: ActorRef<()>,
        server: &mut Option<AdminServer>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(server) = server.take() {
            server.stop().await;
        }
        Ok(())
    }
}
