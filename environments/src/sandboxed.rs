//! Which sandbox a config asks for, and what one says, for a world.

use std::path::Path;

use openclaw_sandbox::{Advice, Backend, Bubblewrap, Docker, SandboxError};
use serde::Deserialize;

use crate::world::WorldError;

/// `sandbox` of the kinds that have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// By bubblewrap, with the programs of this machine.
    #[default]
    Bubblewrap,
    /// By a daemon of docker on this machine, with the programs of `image`.
    Docker,
}

/// By `sandbox`, `image` and `socket`; without the last, the daemon is where the programs of docker would look for it.
pub(crate) fn backend(
    sandbox: Sandbox,
    image: Option<&str>,
    socket: Option<&Path>,
) -> Result<Box<dyn Backend>, WorldError> {
    let refuse = |message: &str| Err(WorldError::Settings(message.to_owned()));
    match (sandbox, image, socket) {
        (Sandbox::Bubblewrap, None, None) => Ok(Box::new(Bubblewrap::default())),
        (Sandbox::Bubblewrap, Some(_), _) => refuse("image: needs sandbox = \"docker\""),
        (Sandbox::Bubblewrap, None, Some(_)) => refuse("socket: needs sandbox = \"docker\""),
        (Sandbox::Docker, None | Some(""), _) => refuse("image: sandbox = \"docker\" needs one"),
        (Sandbox::Docker, Some(image), socket) => {
            let socket = socket.map_or_else(Docker::default_socket, Path::to_owned);
            Ok(Box::new(Docker::new(socket, image)))
        }
    }
}

impl From<SandboxError> for WorldError {
    fn from(error: SandboxError) -> Self {
        let said = match &error {
            SandboxError::Io { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        match error.advice() {
            Advice::Retry | Advice::NewSession => Self::Broken(said),
            Advice::Refused => Self::Refused(said),
        }
    }
}

/// Nothing is run where it cannot be isolated; what is missing is named.
pub(crate) fn isolates(backend: &dyn Backend) -> Result<(), WorldError> {
    let missing = backend.missing();
    if missing.is_empty() { Ok(()) } else { Err(SandboxError::Missing { missing }.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_chosen_by_its_settings() {
        let chosen = |sandbox, image, socket: Option<&str>| {
            let made = backend(sandbox, image, socket.map(Path::new));
            made.map(|backend| backend.name()).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(Sandbox::default(), None, None), Ok("bubblewrap"));
        assert_eq!(chosen(Sandbox::Docker, Some("debian"), None), Ok("docker"));
        for (sandbox, image, socket, key) in [
            (Sandbox::Docker, None, None, "image"),
            (Sandbox::Docker, Some(""), None, "image"),
            (Sandbox::Bubblewrap, Some("debian"), None, "image"),
            (Sandbox::Bubblewrap, None, Some("/run/x"), "socket"),
        ] {
            let error = chosen(sandbox, image, socket).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        // Where no daemon is, that is what is missing.
        let docker = backend(Sandbox::Docker, Some("debian"), Some(Path::new("/no/such/socket"))).unwrap();
        assert!(
            docker.missing()[0].contains("no daemon answers at /no/such/socket"),
            "{:?}",
            docker.missing()
        );
    }

    #[test]
    fn errors_of_a_sandbox_are_those_of_a_world() {
        let missing = SandboxError::Missing { missing: vec!["bwrap is not installed".into()] };
        assert!(matches!(WorldError::from(missing), WorldError::Refused(why) if why.contains("bwrap")));
        assert!(WorldError::from(SandboxError::Closed).may_pass());
        assert!(WorldError::from(SandboxError::Start { why: "busy".into() }).may_pass());
    }
}
