//! Which gateway is talked to, and the node behind it, which knows what is learnt.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use reqwest::Url;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{admin::AdminClient, operate::NodeArgs};

/// Whichever node takes longer to tell its gateway is not the one that is meant.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// A gateway, and who can tell what is learnt there.
pub struct Found {
    /// The gateway's address.
    pub url: String,
    /// Its node; none where it is not this machine's, or another's.
    pub node: Option<AdminClient>,
}

/// The gateway at `url` with the node whose it is, or the gateway of the node that is meant.
pub async fn find(url: Option<String>, meant: &NodeArgs) -> anyhow::Result<Found> {
    // Connecting may wait for a node that does not come to it.
    let meant = meant.clone();
    let Some(url) = url else {
        let node = spawn_blocking(move || meant.connect()).await??;
        let gateway = node.status().await?.gateway;
        let url = gateway.context("the node has no gateway yet: `openclaw-rl status` shows how far it is")?;
        return Ok(Found { url, node: Some(node) });
    };
    let nodes = spawn_blocking(move || meant.connect_all()).await?;
    let asked = nodes.iter().map(|node| timeout(ASK_PATIENCE, node.status()));
    let told = join_all(asked).await;
    let gateways = told.into_iter().map(|told| told.ok()?.ok()?.gateway);
    let mut met = nodes.into_iter().zip(gateways);
    let found = met.find(|(_, gateway)| gateway.as_ref().is_some_and(|gateway| is_same(&url, gateway)));
    Ok(Found { url, node: found.map(|(node, _)| node) })
}

/// Whether both lead to the same socket. A gateway on every address is taken to be met on this machine's own.
fn is_same(url: &str, gateway: &str) -> bool {
    let (Ok(url), Ok(gateway)) = (Url::parse(url), Url::parse(gateway)) else { return false };
    let is_here = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    };
    url.port_or_known_default() == gateway.port_or_known_default()
        && (url.host() == gateway.host() || is_here(&url) && is_here(&gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_has_several_names() {
        let here = "http://127.0.0.1:30000/v1";
        for same in [here, "http://127.0.0.1:30000/v1/", "http://localhost:30000/v1", "http://[::1]:30000"] {
            assert!(is_same(same, here), "{same}");
        }
        assert!(is_same("http://localhost:30000/v1", "http://0.0.0.0:30000/v1"));
        for other in ["http://127.0.0.1:30001/v1", "http://10.0.0.7:30000/v1", "no address"] {
            assert!(!is_same(other, here), "{other}");
        }
    }
}
