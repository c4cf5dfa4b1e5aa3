# packages: autogen-agentchat autogen-ext[openai]
# setting: base_url
# conversations: 2
# Two agents in turn: what one says is the other's next message. Each has a conversation of its own.
import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient

import talk
from autogen_buffered import info


async def main() -> None:
    client = OpenAIChatCompletionClient(
        model=talk.MODEL, base_url=talk.BASE, api_key=talk.KEY, model_info=info, max_tokens=256
    )
    writer = AssistantAgent("writer", client, system_message=talk.SYSTEM)
    critic = AssistantAgent("critic", client, system_message="You say what is wrong with an answer.")
    team = RoundRobinGroupChat([writer, critic], termination_condition=MaxMessageTermination(5))
    for text in talk.ASKED:
        await team.run(task=text)
    await client.close()


asyncio.run(main())
