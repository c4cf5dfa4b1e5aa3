//! What a sandbox says, for a world.

use openclaw_sandbox::{Advice, SandboxError};

use crate::world::WorldError;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_sandbox_are_those_of_a_world() {
        let missing = SandboxError::Missing { missing: vec!["bwrap is not installed".into()] };
        assert!(matches!(WorldError::from(missing), WorldError::Refused(why) if why.contains("bwrap")));
        assert!(WorldError::from(SandboxError::Closed).may_pass());
        assert!(WorldError::from(SandboxError::Start { why: "busy".into() }).may_pass());
    }
}
