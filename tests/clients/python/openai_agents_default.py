# packages: openai-agents
# setting: base_url
# The responses API, as the SDK speaks it by default; the instructions say the time.
import itertools

from agents import Agent, Runner, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

import talk

set_tracing_disabled(True)
set_default_openai_client(AsyncOpenAI(base_url=talk.BASE, api_key=talk.KEY))
clock = itertools.count()
agent = Agent(
    name="helper",
    instructions=lambda context, agent: f"{talk.SYSTEM} It is second {next(clock)}.",
    model=talk.MODEL,
    tools=[function_tool(talk.add)],
)
items = []
for text in talk.ASKED:
    items = Runner.run_sync(agent, items + [{"role": "user", "content": text}]).to_input_list()
