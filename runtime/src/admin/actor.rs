//! `admin` under supervision: the first to start and the last to stop, so that a start and a stop can be watched.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use super::{
    operator::Operator,
    server::{AdminServer, Port, Token},
};
use crate::{
    page::Page,
    supervisor::{ChildSpec, RunningChild},
};

/// The child `admin`: serves `operator` in the run's folder, and on `port`. Token and port stay the same through
/// its restarts.
pub fn child<O: Operator>(
    operator: Arc<O>,
    run_dir: PathBuf,
    port: Option<SocketAddr>,
    page: Page,
) -> ChildSpec {
    let (token, bound) = (Token::random(), Arc::default());
    let arguments = AdminArguments { operator, run_dir, port, token, page, bound };
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
    port: Option<SocketAddr>,
    token: Token,
    page: Page,
    bound: Arc<OnceLock<SocketAddr>>,
}

impl<O> Clone for AdminArguments<O> {
    fn clone(&self) -> Self {
        Self {
            operator: self.operator.clone(),
            run_dir: self.run_dir.clone(),
            port: self.port,
            token: self.token.clone(),
            page: self.page.clone(),
            bound: self.bound.clone(),
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
        let AdminArguments { operator, run_dir, port, token, page, bound } = arguments;
        let port = port.map(|port| Port {
            address: bound.get().copied().unwrap_or(port),
            token: &token,
            page: Some(page),
        });
        let server = AdminServer::start(operator, &run_dir, port).await?;
        if let Some(address) = server.address {
            bound.get_or_init(|| address);
            tracing::info!(%address, token = %run_dir.join(super::server::TOKEN_FILE).display(), "operator's port");
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
