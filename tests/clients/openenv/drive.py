"""OpenEnv's own client in our environments: episodes of sums, by the words of the socket, and what it does wrong."""

import asyncio
import os
import re
import sys

from openenv import GenericEnvClient

BASE = sys.argv[1]
HEADERS = {"Authorization": f"Bearer {os.environ['OPENCLAW_ENV_TOKEN']}"}


def client(env, **more):
    return GenericEnvClient(base_url=f"{BASE}/env/{env}", headers=more.pop("headers", HEADERS), **more)


def call(name, **arguments):
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def sums():
    """Ten held-out tasks; each is done rightly and each has the reward of that."""
    with client("sums").sync() as env:
        for index in range(10):
            first = env.reset(split="held-out", task_index=index)
            assert first.done is False and first.reward is None, first
            wanted = " ".join(re.findall(r"\d+|[-+*]", first.observation["text"]))
            seen = env.step(call("calculator", expression=wanted))
            assert not seen.done and seen.reward is None, seen
            assert seen.observation["metadata"]["rule"]["score"] == 1, seen
            last = env.step({"message": f"The result is {seen.observation['text']}."})
            assert last.done and last.reward == 1.0, last
            assert env.state()["step_count"] == 2
    return "sums: 10 episodes, 10 rewards of 1"


def wrong():
    """What is no action is an error, and the session lives."""
    with client("sums").sync() as env:
        env.reset(seed=3)
        for action, code in [({"shout": 1}, "VALIDATION_ERROR"), ({"tool_calls": []}, "VALIDATION_ERROR")]:
            try:
                env.step(action)
                raise AssertionError(f"{action} was taken")
            except RuntimeError as error:
                assert code in str(error), error
        assert env.step({"message": "7"}).reward == -1.0
    try:
        with client("sums", headers={}).sync() as env:
            env.reset()
        raise AssertionError("it came in without a token")
    except Exception as error:
        assert "401" in str(error), error
    return "errors: 2 codes, 1 refusal without a token"


def shell():
    """A shell that persists, in a sandbox, by the same words."""
    try:
        env = client("shell").sync()
        env.__enter__()
        first = env.reset(task_index=0)
    except RuntimeError as error:
        return f"shell: skipped, {error}"
    assert any(tool["function"]["name"] == "bash" for tool in first.observation["tools"]), first
    env.step(call("bash", command="cd /tmp && x=7"))
    seen = env.step(call("bash", command="pwd; echo $x"))
    assert "/tmp\n7" in seen.observation["text"], seen
    assert env.step({"message": "Done."}).done
    env.close()
    return "shell: 1 episode, state kept over 2 calls"


async def many():
    """Eight sessions at once, each with its own episode."""

    async def one(index):
        async with client("sums") as env:
            first = await env.reset(task_index=index)
            wanted = " ".join(re.findall(r"\d+|[-+*]", first.observation["text"]))
            seen = await env.step(call("calculator", expression=wanted))
            return (await env.step({"message": seen.observation["text"]})).reward

    assert await asyncio.gather(*map(one, range(8))) == [1.0] * 8
    return "sums: 8 sessions at once"


for line in [sums(), wrong(), asyncio.run(many()), shell()]:
    print(f"openenv GenericEnvClient: {line}")
