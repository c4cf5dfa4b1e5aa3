"""Environments as OpenEnv's own server serves them: one with an action of its own, one that offers tools."""

import sys
from typing import Any, Optional

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class EchoAction(Action):
    """Says it. Nothing said ends the episode."""

    message: str


class EchoObservation(Observation):
    message: str


class Echo(Environment[EchoAction, EchoObservation, State]):
    """It says what it hears, and pays by its length."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self._state = State()

    def reset(self, seed: Optional[int] = None, episode_id: Optional[str] = None, **kwargs: Any):
        self._state = State(episode_id=episode_id, step_count=0)
        return EchoObservation(message=f"Echo with seed {seed}")

    def step(self, action: EchoAction, timeout_s: Optional[float] = None, **kwargs: Any):
        self._state.step_count += 1
        reward = 0.1 * len(action.message)
        return EchoObservation(message=action.message, reward=reward, done=action.message == "")

    @property
    def state(self):
        return self._state


def tools():
    from fastmcp import FastMCP
    from openenv.core.env_server.mcp_environment import MCPEnvironment

    class Tools(MCPEnvironment):
        """It offers a tool."""

        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            server = FastMCP("tools")

            @server.tool
            def say(message: str) -> str:
                """Says it."""
                return message

            super().__init__(server)
            self._state = State()

        def reset(self, seed=None, episode_id=None, **kwargs):
            self._state = State(episode_id=episode_id, step_count=0)
            return Observation(done=False, reward=0.0, metadata={"status": "ready"})

        def _step_impl(self, action, timeout_s=None, **kwargs):
            return Observation(done=False, reward=0.0, metadata={"error": "unknown action"})

        @property
        def state(self):
            return self._state

    return Tools, Action, Observation


KINDS = {"echo": lambda: (Echo, EchoAction, EchoObservation), "tools": tools}
app = create_fastapi_app(*KINDS[sys.argv[1]](), max_concurrent_envs=8)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
