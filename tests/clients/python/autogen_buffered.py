# packages: autogen-agentchat autogen-ext[openai]
# setting: base_url
# Only the last messages are sent.
import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_core.model_context import BufferedChatCompletionContext
from autogen_ext.models.openai import OpenAIChatCompletionClient

import talk

info = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "family": "unknown",
    "structured_output": True,
}


async def main() -> None:
    client = OpenAIChatCompletionClient(
        model=talk.MODEL, base_url=talk.BASE, api_key=talk.KEY, model_info=info, max_tokens=256
    )
    agent = AssistantAgent(
        "helper",
        client,
        tools=[talk.add],
        system_message=talk.SYSTEM,
        model_context=BufferedChatCompletionContext(buffer_size=3),
    )
    for text in talk.ASKED:
        await agent.run(task=text)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
